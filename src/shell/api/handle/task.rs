//! `/tasks`.

use crate::core::view::TaskView;
use crate::ids::{NodeId, ServiceId};
use crate::model::task::Desired;
use crate::shell::api::backend::{Snapshot, Want};
use crate::shell::api::filters::Filters;
use crate::shell::api::incoming::Call;
use crate::shell::api::render::task::{Row, Templates, rows, task};
use crate::shell::api::reply::{self, Answer, Failure};
use crate::shell::api::{Api, lookup};
use std::collections::{BTreeMap, BTreeSet};

const FILTERS: &[&str] = &["_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"];
/// Swarm's names of states, as far as a desired one can be.
const DESIRED: &[&str] = &["new", "ready", "running", "complete", "shutdown", "remove", "accepted"];

pub async fn list(api: &Api, call: &Call) -> Answer {
    let filters = Filters::of(&call.query, FILTERS)?;
    filters.check("desired-state", DESIRED)?;
    let snapshot = api.backend.snapshot(wanted(&filters)).await?;
    let services = services(&filters, &snapshot)?;
    let nodes = nodes(&filters, &snapshot)?;
    let no_labels = BTreeMap::new();
    let mut templates = Templates::default();
    let mut shown = Vec::new();
    for view in &snapshot.tasks {
        let labels = view.spec.as_ref().map_or(&no_labels, |spec| &spec.labels);
        if is_of_an_earlier_life(view) {
            continue;
        }
        let in_it = services.as_ref().is_none_or(|ids| ids.contains(&view.task.service))
            && nodes.as_ref().is_none_or(|ids| view.task.node.is_some_and(|node| ids.contains(&node)))
            && (filters.values("_up-to-date").is_none() || view.up_to_date)
            && filters.labels("label", labels)
            && filters.equals("runtime", "container");
        if in_it {
            let rows = rows(view);
            shown.extend(rows.iter().filter(|row| matches(&filters, row)).map(|row| task(row, &mut templates)));
        }
    }
    reply::ok(&shown)
}

/// On its way out, and of a service that was removed before another of this name, and so of this id, was made: with that
/// its revisions went.
fn is_of_an_earlier_life(view: &TaskView) -> bool {
    view.task.desired == Desired::Remove && view.spec_json.is_none()
}

/// Names must be looked up in the other lists.
fn wanted(filters: &Filters) -> Want {
    Want { tasks: true, services: filters.values("service").is_some(), nodes: filters.values("node").is_some() }
}

fn matches(filters: &Filters, row: &Row<'_>) -> bool {
    filters.equals("desired-state", row.desired())
        && filters.begins("id", &row.id.to_string())
        && (filters.values("name").is_none() || filters.begins("name", &row.name()))
}

/// The services asked for. A whole id need not be one that exists: a removed service's tasks live on for a while.
fn services(filters: &Filters, snapshot: &Snapshot) -> Result<Option<BTreeSet<ServiceId>>, Failure> {
    let Some(values) = filters.values("service") else { return Ok(None) };
    let resolve = |text: &String| match lookup::service(snapshot, text) {
        Ok(view) => Ok(view.service.id),
        Err(failure) => text.parse().map_err(|_| failure),
    };
    values.iter().map(resolve).collect::<Result<_, _>>().map(Some)
}

fn nodes(filters: &Filters, snapshot: &Snapshot) -> Result<Option<BTreeSet<NodeId>>, Failure> {
    let Some(values) = filters.values("node") else { return Ok(None) };
    let resolve = |text: &String| match lookup::node(snapshot, text) {
        Ok(view) => Ok(view.id),
        Err(failure) => text.parse().map_err(|_| failure),
    };
    values.iter().map(resolve).collect::<Result<_, _>>().map(Some)
}

pub async fn inspect(api: &Api, text: &str) -> Answer {
    let snapshot = api.backend.snapshot(Want { tasks: true, ..Want::CLUSTER }).await?;
    let rows: Vec<Row<'_>> = snapshot.tasks.iter().flat_map(rows).collect();
    let row = lookup::find(&rows, "task", text, |row| row.id.to_string(), |row| row.name() == text)?;
    reply::ok(&task(row, &mut Templates::default()))
}
