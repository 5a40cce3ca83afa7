//! Docker's Service object.

use super::fields::Fields;
use super::{Port, Version, spec};
use crate::core::view::ServiceView;
use crate::model::rollout::{Rollout, RolloutState};
use crate::model::spec::PublishedPort;
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Service<'a> {
    #[serde(rename = "ID")]
    id: String,
    version: Version,
    created_at: String,
    updated_at: String,
    spec: Fields,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_spec: Option<Fields>,
    endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_status: Option<UpdateStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_status: Option<ServiceStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_status: Option<JobStatus>,
    /// Set while no majority is known to hold the last write: ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_pending: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint<'a> {
    spec: Fields,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Port<'a>>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateStatus {
    state: &'static str,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceStatus {
    running_tasks: u32,
    desired_tasks: u32,
    completed_tasks: u32,
}

/// A job's present run. Clients compare its number with that of each task.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct JobStatus {
    job_iteration: Version,
    last_execution: String,
}

/// `with_status`: the numbers of tasks too; `insert_defaults`: see [`spec::spec`].
pub fn service(view: &ServiceView, with_status: bool, insert_defaults: bool) -> Service<'_> {
    let shown = spec::spec(&view.spec_json, insert_defaults);
    Service {
        id: view.service.id.to_string(),
        version: view.index.into(),
        created_at: view.service.created.rfc3339(),
        updated_at: view.service.updated.rfc3339(),
        endpoint: endpoint(&shown, &view.service.ports),
        spec: shown,
        previous_spec: view.previous_json.as_deref().map(|text| spec::spec(text, false)),
        update_status: update_status(view),
        service_status: with_status.then_some(ServiceStatus {
            running_tasks: view.running,
            desired_tasks: view.desired,
            completed_tasks: view.completed,
        }),
        job_status: view.spec.mode.is_job().then(|| JobStatus {
            job_iteration: view.effective.hlc.into(),
            last_execution: view.effective.hlc.wall().rfc3339(),
        }),
        peer_pending: view.pending.as_deref(),
    }
}

/// There are no virtual addresses: a published port answers on every node instead.
fn endpoint<'a>(spec: &Fields, ports: &'a [PublishedPort]) -> Endpoint<'a> {
    Endpoint { spec: spec.object("EndpointSpec").unwrap_or_default(), ports: ports.iter().map(Port::from).collect() }
}

/// The rollout of the spec that stands. One that belongs to an earlier spec must not show: the docker CLI takes a
/// `completed` that it sees for the end of the update it has just sent.
fn update_status(view: &ServiceView) -> Option<UpdateStatus> {
    let rollout = view.rollout.as_ref().filter(|rollout| rollout.to == view.service.current)?;
    if rollout.from.is_none() && !rollout.state.is_paused() {
        // The first tasks of a new service are no update.
        return None;
    }
    let state = shown_state(rollout, view.service.rolled_back);
    Some(UpdateStatus {
        state: state.as_str(),
        started_at: rollout.started.rfc3339(),
        completed_at: rollout.completed.map(|at| at.rfc3339()),
        message: if rollout.message.is_empty() { said(state).to_owned() } else { rollout.message.clone() },
    })
}

/// An operator's rollback shows as one, as Docker's does.
fn shown_state(rollout: &Rollout, rolled_back: bool) -> RolloutState {
    match rollout.state {
        RolloutState::Updating if rolled_back => RolloutState::RollbackStarted,
        RolloutState::Paused if rolled_back => RolloutState::RollbackPaused,
        RolloutState::Completed if rolled_back => RolloutState::RollbackCompleted,
        state => state,
    }
}

/// Swarm's words.
fn said(state: RolloutState) -> &'static str {
    match state {
        RolloutState::Updating => "update in progress",
        RolloutState::Paused => "update paused",
        RolloutState::Completed => "update completed",
        RolloutState::RollbackStarted => "rollback in progress",
        RolloutState::RollbackPaused => "rollback paused",
        RolloutState::RollbackCompleted => "rollback completed",
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::views;
    use super::*;
    use serde_json::{Value, json};

    fn shown(view: &ServiceView) -> Value {
        serde_json::to_value(service(view, true, false)).unwrap()
    }

    #[test]
    fn a_service_looks_as_the_recorded_one_did() {
        let view = views::service("greeters", 5);
        let service = shown(&view);
        assert_eq!(service["ID"], view.service.id.to_string());
        assert_eq!(service["Version"]["Index"], view.index.0);
        assert_eq!(service["Spec"]["Name"], "greeters");
        assert_eq!(service["Spec"]["Mode"]["Replicated"]["Replicas"], 5);
        assert_eq!(
            service["Endpoint"],
            json!({
                "Spec": { "Mode": "vip", "Ports": [{ "Protocol": "tcp", "TargetPort": 5000, "PublishMode": "ingress" }] },
                "Ports": [{ "Protocol": "tcp", "TargetPort": 5000, "PublishedPort": 30000, "PublishMode": "ingress" }],
            })
        );
        assert_eq!(service["ServiceStatus"], json!({ "RunningTasks": 5, "DesiredTasks": 5, "CompletedTasks": 0 }));
        for absent in ["PreviousSpec", "UpdateStatus", "PeerPending"] {
            assert_eq!(service.get(absent), None);
        }
    }

    #[test]
    fn an_update_shows_only_while_it_is_about_the_spec_that_stands() {
        let mut view = views::service("web", 2);
        view.rollout = Some(views::rollout(&view, RolloutState::Completed));
        assert_eq!(shown(&view)["UpdateStatus"]["State"], "completed");
        assert_eq!(shown(&view)["UpdateStatus"]["Message"], "update completed");
        assert!(shown(&view)["UpdateStatus"]["CompletedAt"].is_string());
        view.service.current.hlc.0 += 1;
        assert_eq!(shown(&view).get("UpdateStatus"), None, "the next update must not look finished at once");
    }

    #[test]
    fn an_operators_rollback_shows_as_a_rollback() {
        let mut view = views::service("web", 2);
        view.service.rolled_back = true;
        view.rollout = Some(views::rollout(&view, RolloutState::Updating));
        assert_eq!(shown(&view)["UpdateStatus"]["State"], "rollback_started");
        assert_eq!(shown(&view)["UpdateStatus"].get("CompletedAt"), None);
    }

    #[test]
    fn the_first_start_of_a_service_is_no_update() {
        let mut view = views::service("web", 2);
        let mut rollout = views::rollout(&view, RolloutState::Updating);
        rollout.from = None;
        view.rollout = Some(rollout);
        assert_eq!(shown(&view).get("UpdateStatus"), None);
    }
}
