//! `peer leave`: this node gives up its tasks, then its membership; its agent then ends by itself.

use super::client::{Answer, ApiError, Client, with_query};
use super::console::Console;
use super::error::CliError;
use super::go::Nanos;
use super::json::{items, number, put, text};
use super::{node, progress, service};
use crate::shell::api::ON_STANDBY;
use clap::Args;
use serde_json::json;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  peer leave                              move the tasks away, then leave
  peer leave --timeout 2m                 give up after that; the node stays drained
  peer leave --force                      leave at once, even as the last node";

/// Take this node out of the cluster
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LeaveArgs {
    /// Don't wait until the tasks have moved, and leave even as the last node
    #[arg(short, long)]
    force: bool,
    /// Wait at most this long for the tasks to move (default: as long as it takes)
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Nanos>,
}

/// The agent ends when the containers that are left here have been stopped, and after half a minute in any case.
const END_TIMEOUT: Duration = Duration::from_secs(40);

pub async fn leave(args: &LeaveArgs, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let status = client.get("/peer/status").await?;
    let (id, name) = (text(&status, "/Node/ID"), text(&status, "/Node/Hostname"));
    if number(&status, "/Nodes/Total") <= 1 && !args.force {
        return Err(CliError::new(format!(
            "{name} is the last node: if it leaves, the cluster and its services are gone"
        ))
        .hint("if that is what you want: peer leave --force"));
    }
    if !args.force {
        drain(id, name, args, client, console).await?;
    }
    let removal = client.delete(&with_query(&node::path(id), &[("force", "1")])).await;
    let in_doubt = match removal {
        Ok(answer) => {
            service::tell_warnings(&answer, console);
            None
        }
        // It may have been quicker to end than to answer.
        Err(error @ (ApiError::Unreachable { sent: true, .. } | ApiError::Refused { status: 503, .. })) => Some(error),
        Err(error) => return Err(error.into()),
    };
    let now = ended(client).await;
    match (now, in_doubt) {
        (Now::Ended | Now::OnStandby, _) => {}
        (Now::Answers, Some(error)) => return Err(error.into()),
        (Now::Answers, None) => {
            console.warn("the node has left, but its agent still answers; if it doesn't end soon: systemctl stop peer");
        }
    }
    console.line(&format!("Node {name} left the cluster."))?;
    let last = number(&status, "/Nodes/Total") <= 1;
    console.note(match (now, last) {
        (Now::OnStandby, _) => "Its agent waits on standby: docker swarm join, or docker swarm init, makes it a member of a cluster again.",
        (_, true) => "To use this machine again: peer start --data-dir DIR, with a fresh DIR, makes a new cluster.",
        (_, false) => "To use this machine again: peer start --join HOST --token TOKEN --data-dir DIR, with a fresh DIR (`peer token` on\nanother node shows HOST and TOKEN); the old one holds a node which was\nremoved: it can be deleted.",
    });
    Ok(())
}

/// What has become of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Now {
    Ended,
    /// It waits for its next cluster.
    OnStandby,
    Answers,
}

async fn drain(id: &str, name: &str, args: &LeaveArgs, client: &Client, console: &mut Console) -> Result<(), CliError> {
    node::update(
        id,
        |spec| {
            put(spec, "Availability", "drain");
            Ok(())
        },
        client,
        console,
    )
    .await?;
    let stays = format!("the node stays drained; take it back with: peer node update --availability active {name}");
    let moved = tokio::select! {
        moved = empty(id, args.timeout, client, console) => moved?,
        _ = tokio::signal::ctrl_c() => {
            console.note(&stays);
            return Err(CliError::interrupted());
        }
    };
    if moved {
        return Ok(());
    }
    Err(CliError::new(format!("tasks still run on {name}: not left")).hint(stays))
}

/// Waits until no task runs on the node; false if that took too long.
async fn empty(id: &str, timeout: Option<Nanos>, client: &Client, console: &mut Console) -> Result<bool, CliError> {
    let began = Instant::now();
    let mut said = None;
    loop {
        let left = running(id, client).await?;
        if said != Some(left) {
            let tasks = if left == 1 { "1 task".to_owned() } else { format!("{left} tasks") };
            console.line(&format!("draining: {tasks} left here"))?;
            said = Some(left);
        }
        if left == 0 {
            return Ok(true);
        }
        if timeout.is_some_and(|timeout| began.elapsed() >= Duration::from_nanos(timeout.0)) {
            return Ok(false);
        }
        tokio::time::sleep(progress::POLL).await;
    }
}

async fn running(id: &str, client: &Client) -> Answer<usize> {
    let filters = json!({ "node": { id: true } }).to_string();
    let tasks = client.get(&with_query("/tasks", &[("filters", &filters)])).await?;
    const ENDED: [&str; 6] = ["complete", "shutdown", "failed", "rejected", "remove", "orphaned"];
    Ok(items(&tasks).iter().filter(|task| !ENDED.contains(&text(task, "/Status/State"))).count())
}

async fn ended(client: &Client) -> Now {
    let began = Instant::now();
    while began.elapsed() < END_TIMEOUT {
        match client.get("/peer/status").await {
            Err(ApiError::Unreachable { .. }) => return Now::Ended,
            Err(ApiError::Refused { message, .. }) if message.starts_with(ON_STANDBY) => return Now::OnStandby,
            _ => {}
        }
        tokio::time::sleep(progress::POLL).await;
    }
    Now::Answers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeAgent, console};

    fn args(force: bool) -> LeaveArgs {
        LeaveArgs { force, timeout: None }
    }

    #[tokio::test]
    async fn the_last_node_leaves_only_by_force() {
        let agent = FakeAgent::start(|_| {
            (200, json!({ "Node": { "ID": "n1", "Hostname": "node1" }, "Nodes": { "Total": 1 } }))
        });
        let (mut console, _, _) = console(false);
        let error = leave(&args(false), &agent.client(), &mut console).await.unwrap_err();
        assert_eq!(error.hint_text(), Some("if that is what you want: peer leave --force"));
        assert_eq!(agent.asked(), ["GET /peer/status"]);
    }

    #[tokio::test]
    async fn tasks_move_before_the_node_goes() {
        let mut polls = 0;
        let mut gone = false;
        let agent = FakeAgent::start(move |request| match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/peer/status") if gone => (503, json!({ "message": "stopping" })),
            ("GET", "/peer/status") => {
                (200, json!({ "Node": { "ID": "n1", "Hostname": "node1" }, "Nodes": { "Total": 3 } }))
            }
            ("GET", "/nodes/n1") => {
                (200, json!({ "ID": "n1", "Version": { "Index": 3 }, "Spec": { "Availability": "active" } }))
            }
            ("POST", "/nodes/n1/update?version=3") => {
                assert_eq!(request.body["Availability"], "drain");
                (200, json!({}))
            }
            ("GET", r#"/tasks?filters={"node":{"n1":true}}"#) => {
                polls += 1;
                let state = if polls == 1 { "running" } else { "shutdown" };
                (200, json!([{ "Status": { "State": state } }, { "Status": { "State": "failed" } }]))
            }
            ("DELETE", "/nodes/n1?force=1") => {
                gone = true;
                // Sometimes the agent ends before it has answered.
                (503, json!({ "message": "the agent is stopping" }))
            }
            other => panic!("{other:?}"),
        });
        let (mut console, out, err) = console(false);
        let (client, args) = (agent.client(), args(false));
        // The agent ends once it has been removed.
        let ends = async {
            while !agent.asked().iter().any(|asked| asked.starts_with("DELETE")) {
                tokio::task::yield_now().await;
            }
            std::fs::remove_file(agent.socket()).unwrap();
        };
        let (result, ()) = tokio::join!(leave(&args, &client, &mut console), ends);
        result.unwrap();
        assert!(err.text().contains("peer start --join HOST --token TOKEN --data-dir DIR"), "{}", err.text());
        assert_eq!(
            out.text(),
            "draining: 1 task left here\ndraining: 0 tasks left here\nNode node1 left the cluster.\n"
        );
    }
}
