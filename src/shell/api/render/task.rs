//! Docker's Task objects. A node restarts a crashed task by itself, so one of our tasks has attempts; Docker knows
//! only tasks. So the attempts before the last become rows of their own, with ids derived from the task's, and
//! `service ps` draws them below it.

use super::fields::Fields;
use super::{Port, Version, spec};
use crate::core::view::TaskView;
use crate::ids::{ServiceId, TaskId};
use crate::model::record::RevisionId;
use crate::model::task::{PastAttempt, Slot, TaskPhase};
use crate::time::Wall;
use serde::Serialize;
use std::collections::BTreeMap;

/// One row of `service ps`.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    pub id: TaskId,
    pub view: &'a TaskView,
    created: Wall,
    attempt: Attempt<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Attempt<'a> {
    Last,
    Past(&'a PastAttempt),
}

/// The task as it is now, then its past attempts, newest first. Each was made when the one before it ended, and later
/// than that one even if a clock went back: clients order a slot's rows by this time.
pub fn rows(view: &TaskView) -> Vec<Row<'_>> {
    let past = view.status.as_ref().map_or(&[] as &[PastAttempt], |status| &status.past);
    let mut created = view.task.created;
    let mut rows = Vec::with_capacity(past.len() + 1);
    for attempt in past {
        let id = past_id(view.task.id, attempt.attempt);
        rows.push(Row { id, view, created, attempt: Attempt::Past(attempt) });
        created = attempt.since.max(Wall(created.0.saturating_add(1)));
    }
    rows.push(Row { id: view.task.id, view, created, attempt: Attempt::Last });
    rows.reverse();
    rows
}

/// FNV-1a over the task's id and the attempt's number.
fn past_id(task: TaskId, attempt: u32) -> TaskId {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let (id, attempt) = (task.as_u128().to_be_bytes(), attempt.to_be_bytes());
    let hash = id.iter().chain(&attempt).fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    TaskId::from_u128(hash)
}

impl Row<'_> {
    pub fn desired(&self) -> &'static str {
        match self.attempt {
            Attempt::Last if self.view.task.desired.is_live() && is_of_job(self.view) => "complete",
            Attempt::Last => self.view.task.desired.as_str(),
            Attempt::Past(_) => "shutdown",
        }
    }

    /// Swarm's name of a task: `web.1.<id>`, or with the node in the slot's place where there are no numbers.
    pub fn name(&self) -> String {
        match self.view.task.slot {
            Slot::Replica(slot) => format!("{}.{slot}.{}", self.view.service_name, self.id),
            Slot::Node(node) => format!("{}.{node}.{}", self.view.service_name, self.id),
        }
    }
}

fn is_of_job(view: &TaskView) -> bool {
    view.spec.as_ref().is_some_and(|spec| spec.mode.is_job())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Task<'a> {
    #[serde(rename = "ID")]
    id: String,
    version: Version,
    created_at: String,
    updated_at: String,
    labels: BTreeMap<(), ()>,
    spec: Fields,
    #[serde(rename = "ServiceID")]
    service_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u32>,
    #[serde(rename = "NodeID", skip_serializing_if = "Option::is_none")]
    node_id: Option<String>,
    status: Status<'a>,
    desired_state: &'static str,
    /// Which run of a job it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    job_iteration: Option<Version>,
    /// Nothing of it will run any more: its restart policy is used up. Ours.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    peer_given_up: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status<'a> {
    timestamp: String,
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    err: &'a str,
    /// Always there: the Swarm visualizer breaks without.
    container_status: ContainerStatus<'a>,
    port_status: PortStatus<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerStatus<'a> {
    #[serde(rename = "ContainerID")]
    container_id: &'a str,
    #[serde(rename = "PID")]
    pid: i64,
    exit_code: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PortStatus<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Port<'a>>,
}

/// The task templates of the revisions met so far: thousands of tasks share a few.
#[derive(Default)]
pub struct Templates(BTreeMap<(ServiceId, RevisionId), Fields>);

impl Templates {
    fn of(&mut self, view: &TaskView) -> Fields {
        let image = || view.spec.as_ref().map_or("", |spec| &spec.task.container.image);
        let key = (view.task.service, view.task.revision);
        self.0.entry(key).or_insert_with(|| spec::task_template(view.spec_json.as_deref(), image())).clone()
    }
}

pub fn task<'a>(row: &Row<'a>, templates: &mut Templates) -> Task<'a> {
    let task = &row.view.task;
    let status = status(row);
    Task {
        id: row.id.to_string(),
        version: row.view.index.into(),
        created_at: row.created.rfc3339(),
        updated_at: status.since.max(task.updated).rfc3339(),
        labels: BTreeMap::new(),
        spec: templates.of(row.view),
        service_id: task.service.to_string(),
        slot: match task.slot {
            Slot::Replica(slot) => Some(slot),
            Slot::Node(_) => None,
        },
        node_id: task.node.map(|node| node.to_string()),
        status: status.shown,
        desired_state: row.desired(),
        job_iteration: is_of_job(row.view).then(|| task.revision.hlc.into()),
        peer_given_up: matches!(row.attempt, Attempt::Last)
            && row.view.status.as_ref().is_some_and(|s| s.is_given_up()),
    }
}

struct Seen<'a> {
    since: Wall,
    shown: Status<'a>,
}

fn status<'a>(row: &Row<'a>) -> Seen<'a> {
    let view = row.view;
    match (row.attempt, &view.status) {
        (Attempt::Past(past), _) => Seen {
            since: past.since,
            shown: Status {
                timestamp: past.since.rfc3339(),
                state: past.phase.as_str(),
                message: spoken(past.phase),
                err: &past.error,
                container_status: ContainerStatus {
                    container_id: past.container_id.as_deref().unwrap_or_default(),
                    pid: 0,
                    exit_code: past.exit_code.unwrap_or(0),
                },
                port_status: PortStatus { ports: Vec::new() },
            },
        },
        (Attempt::Last, Some(status)) => Seen {
            since: status.since,
            shown: Status {
                timestamp: status.since.rfc3339(),
                state: status.phase.as_str(),
                message: match (&*status.message, &*view.task.message) {
                    // Why it was told to stop says more than that it did.
                    ("", why) if status.phase == TaskPhase::Shutdown && !why.is_empty() => why,
                    ("", _) => spoken(status.phase),
                    (message, _) => message,
                },
                // What it was before its node fell silent is told by the state: why that may be so no more stands here.
                err: view.out_of_sight.as_deref().unwrap_or(&status.error),
                container_status: ContainerStatus {
                    container_id: status.container_id.as_deref().unwrap_or_default(),
                    pid: status.pid.unwrap_or(0),
                    exit_code: status.exit_code.unwrap_or(0),
                },
                port_status: PortStatus { ports: host_ports(view, status.phase) },
            },
        },
        (Attempt::Last, None) => unseen(view),
    }
}

/// No node has said anything of it: it waits for one, or was only just given to one.
fn unseen(view: &TaskView) -> Seen<'_> {
    let task = &view.task;
    let phase = if task.node.is_some() { TaskPhase::Assigned } else { TaskPhase::Pending };
    Seen {
        since: task.created,
        shown: Status {
            timestamp: task.created.rfc3339(),
            state: phase.as_str(),
            message: spoken(phase),
            // "no suitable node (...)": the docker CLI shows it in its column for errors.
            err: if task.node.is_none() { &task.message } else { view.out_of_sight.as_deref().unwrap_or_default() },
            container_status: ContainerStatus { container_id: "", pid: 0, exit_code: 0 },
            port_status: PortStatus { ports: Vec::new() },
        },
    }
}

fn host_ports(view: &TaskView, phase: TaskPhase) -> Vec<Port<'_>> {
    let spec = view.spec.as_ref().filter(|_| phase == TaskPhase::Running);
    spec.map(|spec| spec.host_ports().map(Port::from).collect()).unwrap_or_default()
}

/// Swarm's words for a phase that came without any.
fn spoken(phase: TaskPhase) -> &'static str {
    match phase {
        TaskPhase::Pending => "pending task scheduling",
        TaskPhase::Assigned => "scheduler assigned task to node",
        TaskPhase::Accepted => "accepted",
        TaskPhase::Preparing => "preparing",
        TaskPhase::Ready => "prepared",
        TaskPhase::Starting => "starting",
        TaskPhase::Running => "started",
        TaskPhase::Complete => "finished",
        TaskPhase::Shutdown => "shutdown",
        TaskPhase::Failed => "started",
        TaskPhase::Rejected => "preparing",
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::views;
    use super::*;
    use crate::model::task::Desired;
    use serde_json::{Value, json};

    fn shown(view: &TaskView) -> Vec<Value> {
        let mut templates = Templates::default();
        rows(view).iter().map(|row| serde_json::to_value(task(row, &mut templates)).unwrap()).collect()
    }

    #[test]
    fn a_running_task_looks_as_the_recorded_one_did() {
        let service = views::service("greeters", 1);
        let view = views::task(&service, 1, 9, views::node_id(5));
        let [task] = shown(&view).try_into().unwrap();
        assert_eq!(task["ID"], view.task.id.to_string());
        assert_eq!(task["ServiceID"], service.service.id.to_string());
        assert_eq!(task["Slot"], 1);
        assert_eq!(task["NodeID"], views::node_id(5).to_string());
        assert_eq!(task["DesiredState"], "running");
        assert_eq!(task["Spec"]["ContainerSpec"]["Image"], "greeter:1");
        assert_eq!(task["Status"]["State"], "running");
        assert_eq!(
            task["Status"]["ContainerStatus"],
            json!({ "ContainerID": "76ef44724c03", "PID": 16905, "ExitCode": 0 })
        );
        assert_eq!(task["Status"]["PortStatus"], json!({}));
        assert_eq!(task["Labels"], json!({}));
    }

    #[test]
    fn past_attempts_become_rows_below_the_task() {
        let service = views::service("web", 1);
        let mut view = views::task(&service, 1, 9, views::node_id(1));
        let status = view.status.as_mut().unwrap();
        let failed = |attempt, since| PastAttempt {
            attempt,
            phase: TaskPhase::Failed,
            since: Wall(since),
            error: "task: non-zero exit (3)".to_owned(),
            exit_code: Some(3),
            container_id: None,
        };
        // The second attempt ended, by a clock that went back, before the first.
        status.past = vec![failed(0, view.task.created.0 + 500), failed(1, view.task.created.0 - 500)];
        status.attempt = 2;
        let rows = shown(&view);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0]["ID"], view.task.id.to_string());
        assert_eq!(rows[0]["Status"]["State"], "running");
        for row in &rows[1..] {
            assert_eq!((&row["DesiredState"], &row["Status"]["State"]), (&json!("shutdown"), &json!("failed")));
            assert_eq!(row["Status"]["Err"], "task: non-zero exit (3)");
            assert_eq!((&row["Slot"], &row["Status"]["ContainerStatus"]["ExitCode"]), (&json!(1), &json!(3)));
        }
        let made: Vec<&str> = rows.iter().map(|row| row["CreatedAt"].as_str().unwrap()).collect();
        assert!(made.is_sorted_by(|newer, older| newer > older), "{made:?}");
        let ids: std::collections::BTreeSet<_> = rows.iter().map(|row| row["ID"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn a_task_that_no_node_can_take_says_why() {
        let service = views::service("web", 1);
        let mut view = views::task(&service, 1, 9, views::node_id(1));
        view.status = None;
        view.task.node = None;
        view.task.message = "no suitable node (insufficient memory on 2 nodes)".to_owned();
        let [task] = shown(&view).try_into().unwrap();
        assert_eq!(task["Status"]["State"], "pending");
        assert_eq!(task["Status"]["Err"], "no suitable node (insufficient memory on 2 nodes)");
        assert_eq!(task.get("NodeID"), None);
        assert_eq!(task["Status"]["ContainerStatus"]["ContainerID"], "");
    }

    #[test]
    fn a_task_on_a_node_that_is_down_is_what_it_was_and_says_why_that_may_be_so_no_more() {
        let service = views::service("web", 1);
        let mut view = views::task(&service, 1, 9, views::node_id(2));
        view.out_of_sight = Some("node node2 is down".to_owned());
        let [task] = shown(&view).try_into().unwrap();
        assert_eq!(
            (&task["Status"]["State"], &task["Status"]["Err"]),
            (&json!("running"), &json!("node node2 is down"))
        );
        view.status = None;
        let [task] = shown(&view).try_into().unwrap();
        assert_eq!(
            (&task["Status"]["State"], &task["Status"]["Err"]),
            (&json!("assigned"), &json!("node node2 is down"))
        );
    }

    #[test]
    fn a_task_whose_revision_has_not_arrived_still_has_a_container_spec() {
        let service = views::service("web", 1);
        let mut view = views::task(&service, 1, 9, views::node_id(1));
        (view.spec, view.spec_json) = (None, None);
        view.task.desired = Desired::Shutdown;
        let [task] = shown(&view).try_into().unwrap();
        assert_eq!(task["Spec"], json!({ "ContainerSpec": { "Image": "" } }));
        assert_eq!(task["DesiredState"], "shutdown");
    }
}
