//! `/nodes`.

use crate::core::face::Request as Ask;
use crate::model::node::Availability;
use crate::shell::api::backend::Want;
use crate::shell::api::filters::Filters;
use crate::shell::api::incoming::{self, Call};
use crate::shell::api::reply::{self, Answer, Failure};
use crate::shell::api::{Api, lookup, render};
use serde::Deserialize;
use std::collections::BTreeMap;

const FILTERS: &[&str] = &["id", "label", "membership", "name", "node.label", "role"];

pub async fn list(api: &Api, call: &Call) -> Answer {
    let filters = Filters::of(&call.query, FILTERS)?;
    filters.check("role", &["manager", "worker"])?;
    filters.check("membership", &["accepted", "pending"])?;
    let snapshot = api.backend.snapshot(Want::NODES).await?;
    let no_labels = BTreeMap::new();
    let shown = snapshot.nodes.iter().filter(|node| {
        let fact = node.fact.as_ref();
        filters.begins("id", &node.id.to_string())
            && filters.begins("name", fact.map_or("", |fact| &fact.hostname))
            && filters.labels("label", fact.map_or(&no_labels, |fact| &fact.engine_labels))
            && filters.labels("node.label", &node.policy.labels)
            && filters.equals("role", "manager")
            && filters.equals("membership", "accepted")
    });
    reply::ok(&shown.map(render::node::node).collect::<Vec<_>>())
}

pub async fn inspect(api: &Api, node: &str) -> Answer {
    let snapshot = api.backend.snapshot(Want::NODES).await?;
    reply::ok(&render::node::node(lookup::node(&snapshot, node)?))
}

/// Docker's NodeSpec.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeSpec {
    #[serde(default)]
    name: String,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    role: String,
    #[serde(default)]
    availability: String,
}

pub async fn update(api: &Api, node: &str, call: &Call) -> Answer {
    let query = &call.query;
    let spec: NodeSpec = incoming::json(&call.body)?;
    let snapshot = api.backend.snapshot(Want::NODES).await?;
    let node = lookup::node(&snapshot, node)?;
    let hostname = node.fact.as_ref().map_or("", |fact| &fact.hostname);
    if !spec.name.is_empty() && spec.name != hostname {
        return Err(Failure::invalid(format!(
            "Name: a node's name is its host name ({hostname}), which can't be changed here"
        )));
    }
    match spec.role.to_ascii_lowercase().as_str() {
        "manager" => {}
        "worker" => {
            return Err(Failure::invalid(
                "Role: there is nothing to demote: every node can lead, and the voters are chosen among the live nodes; \
                 to keep tasks off a node use --availability drain",
            ));
        }
        _ => return Err(Failure::invalid(format!("invalid Role: {:?}", spec.role))),
    }
    let availability: Availability = spec.availability.parse().map_err(Failure::invalid)?;
    let accepted = api
        .backend
        .request(Ask::UpdateNode {
            id: node.id,
            version: Some(query.version("node", node.index)?),
            availability: Some(availability),
            labels: Some(spec.labels.unwrap_or_default()),
        })
        .await?;
    reply::updated(&accepted)
}

pub async fn remove(api: &Api, node: &str, call: &Call) -> Answer {
    let force = call.query.flag("force");
    let snapshot = api.backend.snapshot(Want::NODES).await?;
    let id = lookup::node(&snapshot, node)?.id;
    reply::updated(&api.backend.request(Ask::RemoveNode { id, force }).await?)
}
