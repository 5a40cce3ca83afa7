//! `/peer`: what Docker has no path for.

use crate::core::chronicle::change_id;
use crate::core::face::{Accepted, Request as Ask};
use crate::core::view::RevisionView;
use crate::model::record::RevisionId;
use crate::shell::api::backend::Want;
use crate::shell::api::incoming::Call;
use crate::shell::api::render::spec::spec;
use crate::shell::api::reply::{self, Answer, Failure};
use crate::shell::api::{Api, lookup, render};
use serde::Serialize;
use serde_json::json;

pub async fn status(api: &Api) -> Answer {
    let snapshot = api.backend.snapshot(Want::ALL).await?;
    reply::ok(&render::cluster::status(&snapshot, &api.agent_version, &api.extra.carried_by))
}

pub async fn token(api: &Api) -> Answer {
    let snapshot = api.backend.snapshot(Want::CLUSTER).await?;
    reply::ok(&json!({ "Token": (api.extra.token)(&snapshot.cluster.join_secret) }))
}

pub async fn rotate_token(api: &Api) -> Answer {
    let accepted = rotate(api).await?;
    let snapshot = api.backend.snapshot(Want::CLUSTER).await?;
    reply::ok(&json!({
        "Token": (api.extra.token)(&snapshot.cluster.join_secret),
        "Warnings": accepted.warnings,
    }))
}

pub async fn rotate(api: &Api) -> Result<Accepted, Failure> {
    Ok(api.backend.request(Ask::RotateToken { secret: (api.extra.new_secret)() }).await?)
}

/// Published ports on this node, as its data plane really has them.
pub async fn mesh(api: &Api) -> Answer {
    let snapshot = api.backend.snapshot(Want::ALL).await?;
    reply::ok(&render::mesh::mesh(&api.extra.mesh.view(), &snapshot))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Revision {
    number: u32,
    current: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rolled_back_from: bool,
    /// A way back that is known to run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fallback: bool,
    /// Under which name logs and events speak of it.
    change: String,
    /// The node that took the change.
    author: String,
    created_at: String,
    spec: render::fields::Fields,
}

/// The kept revisions, oldest first.
pub async fn history(api: &Api, service: &str) -> Answer {
    let snapshot = api.backend.snapshot(Want::SERVICES).await?;
    let id = lookup::service(&snapshot, service)?.service.id;
    let shown = |view: &RevisionView| Revision {
        number: view.number,
        current: view.current,
        rolled_back_from: view.rolled_back_from,
        fallback: view.fallback,
        change: change_id(view.revision.id),
        author: view.revision.id.author.to_string(),
        created_at: view.revision.created.rfc3339(),
        spec: spec(&view.revision.spec_json, false),
    };
    reply::ok(&api.backend.revisions(id).await?.iter().map(shown).collect::<Vec<_>>())
}

/// `?to=N`, a number from the history; without it the revision before the current one.
pub async fn rollback(api: &Api, service: &str, call: &Call) -> Answer {
    let query = &call.query;
    let snapshot = api.backend.snapshot(Want::SERVICES).await?;
    let view = lookup::service(&snapshot, service)?;
    let id = view.service.id;
    let to = match query.text("to") {
        Some(number) => Some(numbered(&api.backend.revisions(id).await?, &view.service.name, number)?),
        None => None,
    };
    let version = query.optional_version("service", view.index)?;
    reply::updated(&api.backend.request(Ask::RollbackService { id, version, to }).await?)
}

fn numbered(revisions: &[RevisionView], service: &str, text: &str) -> Result<RevisionId, Failure> {
    let number: u32 =
        text.parse().map_err(|_| Failure::invalid(format!("to: {text:?} is not the number of a revision")))?;
    let found = revisions.iter().find(|view| view.number == number);
    found.map(|view| view.revision.id).ok_or_else(|| {
        let kept: Vec<String> = revisions.iter().map(|view| view.number.to_string()).collect();
        Failure::not_found(format!("service {service} has no revision {number} (kept: {})", kept.join(", ")))
    })
}

pub fn dashboard(api: &Api) -> Answer {
    match &api.extra.page {
        Some(link) => reply::ok(&json!({ "Link": link })),
        None => Err(Failure::not_found(
            "this node serves no page: start it with --dashboard IP:PORT (its log says why, if you did)",
        )),
    }
}

/// Forms a new electorate from the live nodes. The client has shown what that means, from the status.
pub async fn recover(api: &Api) -> Answer {
    reply::updated(&api.backend.request(Ask::Recover).await?)
}

pub async fn stop(api: &Api) -> Answer {
    reply::updated(&api.backend.request(Ask::Stop).await?)
}
