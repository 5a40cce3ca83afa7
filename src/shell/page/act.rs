//! What can be done from the page. Each action is one request to the agent, the same that the command line makes.

use super::Shared;
use crate::core::face::Request;
use crate::core::view::ServiceView;
use crate::ids::{NodeId, ServiceId};
use crate::model::node::Availability;
use crate::model::spec::resolve_minimum;
use crate::shell::api::{Answer, Failure, ok};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Act {
    Scale { service: ServiceId, replicas: u32 },
    UpdateImage { service: ServiceId, image: String },
    Rollback { service: ServiceId },
    Resume { service: ServiceId },
    Availability { node: NodeId, availability: String },
}

/// `POST /act`.
pub async fn act(
    State(page): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Json<Act>, JsonRejection>,
) -> Answer {
    page.guard.may_act(&headers)?;
    let Json(act) = body.map_err(|error| Failure::invalid(error.body_text()))?;
    let request = match act {
        Act::Scale { service, replicas } => {
            let why = "only a replicated service can be scaled";
            changed(&find(&page, service).await?, "/Mode/Replicated/Replicas", json!(replicas), why)?
        }
        Act::UpdateImage { service, image } => {
            let why = "this service has no image";
            changed(&find(&page, service).await?, "/TaskTemplate/ContainerSpec/Image", json!(image), why)?
        }
        Act::Rollback { service } => {
            let view = find(&page, service).await?;
            Request::RollbackService { id: service, version: Some(view.index), to: None }
        }
        // The same spec once more is another try.
        Act::Resume { service } => {
            let ServiceView { service, index, spec_json, rollout, .. } = find(&page, service).await?;
            if !rollout.is_some_and(|rollout| rollout.state.is_paused()) {
                return Err(Failure::invalid(format!("the update of service {} isn't paused", service.name)));
            }
            Request::UpdateService { id: service.id, version: Some(index), spec_json, auth: None }
        }
        Act::Availability { node, availability } => {
            let availability: Availability = availability.parse().map_err(Failure::invalid)?;
            Request::UpdateNode { id: node, version: None, availability: Some(availability), labels: None }
        }
    };
    let accepted = page.agent.request(request).await?;
    ok(&json!({"id": accepted.id, "warnings": accepted.warnings}))
}

async fn find(page: &Shared, id: ServiceId) -> Result<ServiceView, Failure> {
    let view = page.agent.query(move |core| core.service(id)).await?;
    view.ok_or_else(|| Failure::not_found(format!("service {id} not found")))
}

/// The spec with one value put in another's place; `why` says what it means if there is none.
fn changed(view: &ServiceView, pointer: &str, value: Value, why: &str) -> Result<Request, Failure> {
    let spec = resolve_minimum(&view.spec_json);
    let mut spec: Value = serde_json::from_str(&spec).map_err(|error| Failure::invalid(error.to_string()))?;
    *spec.pointer_mut(pointer).ok_or_else(|| Failure::invalid(why))? = value;
    let (id, version) = (view.service.id, Some(view.index));
    Ok(Request::UpdateService { id, version, spec_json: spec.to_string(), auth: None })
}

/// `GET /history/SERVICE`: its revisions, oldest first. Takes the token, since specs may hold secrets.
pub async fn history(State(page): State<Arc<Shared>>, headers: HeaderMap, Path(service): Path<ServiceId>) -> Answer {
    page.guard.may_act(&headers)?;
    let revisions = page.agent.query(move |core| core.revisions(service)).await?;
    if revisions.is_empty() {
        return Err(Failure::not_found(format!("service {service} not found")));
    }
    let row = |r: &crate::core::view::RevisionView| {
        let spec = serde_json::from_str::<Value>(&r.revision.spec_json).unwrap_or(Value::Null);
        json!({
            "number": r.number,
            "current": r.current,
            "left": r.rolled_back_from,
            "created": r.revision.created.0,
            "spec": spec,
        })
    };
    ok(&revisions.iter().map(row).collect::<Vec<_>>())
}
