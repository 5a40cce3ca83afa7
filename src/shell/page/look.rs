//! What the page asks for when somebody looks closer: a node's view of the network, and the last lines of a service. The
//! stream doesn't carry them: they would change all the time for pages that show something else.

use super::Shared;
use crate::ids::{NodeId, ServiceId};
use crate::shell::api::{Answer, Failure, Snapshot, Want, ok};
use crate::shell::logs::{LogAsk, LogItem, LogLine, merge};
use crate::shell::vitals::Heard;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Of each task, and of all together.
const LAST_LINES: u64 = 50;
const MAX_LINES: usize = 200;
/// Of one line; the page is no place to read longer ones.
const MAX_LINE_CHARS: usize = 2_000;
/// Nodes that take longer are left out, and named.
const LOGS_WITHIN: Duration = Duration::from_secs(3);

/// `GET /network/NODE`: whom that node hears, how far they are, and whom it suspects, by its own word; and how this node
/// hears it.
pub async fn network(State(page): State<Arc<Shared>>, headers: HeaderMap, Path(node): Path<NodeId>) -> Answer {
    page.guard.may_look(&headers)?;
    let (us, view) = page.agent.query(move |core| (core.cluster().node, core.node(node))).await?;
    let view = view.ok_or_else(|| Failure::not_found(format!("node {node} not found")))?;
    let theirs = match view.fact {
        Some(fact) => page.vitals.network(node, fact.addr).await.map_err(|error| error.to_string()),
        None => Err("nothing is known of it yet".to_owned()),
    };
    let ours = if node == us { None } else { page.vitals.hears().await.ok() };
    let ours = ours.and_then(|ours| ours.into_iter().find(|heard| heard.node == node));
    ok(&json!({
        "hears": theirs.as_ref().ok().map(|heard| heard.iter().map(row).collect::<Vec<_>>()),
        "why": theirs.err(),
        "heard": ours.as_ref().map(row),
    }))
}

fn row(heard: &Heard) -> Value {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    json!({
        "node": heard.node.to_string(),
        "heard": heard.heard.map(millis),
        "silent": heard.silent,
        "verdict": heard.verdict.map(millis),
        "rtt": heard.round_trip.map(|time| time.as_secs_f64() * 1_000.0),
    })
}

/// `GET /logs/SERVICE`: its last lines. Takes the token, since logs may hold secrets.
pub async fn logs(State(page): State<Arc<Shared>>, headers: HeaderMap, Path(service): Path<ServiceId>) -> Answer {
    page.guard.may_act(&headers)?;
    let snapshot = page.agent.query(|core| Snapshot::of(core, Want::ALL)).await?;
    if !snapshot.services.iter().any(|view| view.service.id == service) {
        return Err(Failure::not_found(format!("service {service} not found")));
    }
    let mut on: BTreeMap<NodeId, Vec<_>> = BTreeMap::new();
    for view in snapshot.tasks.iter().filter(|view| view.task.service == service) {
        if let Some(node) = view.task.node {
            on.entry(node).or_default().push(view.task.id);
        }
    }
    let streams = on.into_iter().filter_map(|(node, tasks)| {
        let addr = snapshot.node(node)?.fact.as_ref()?.addr;
        let ask = LogAsk {
            tasks,
            follow: false,
            stdout: true,
            stderr: true,
            since_ns: 0,
            until_ns: 0,
            tail: Some(LAST_LINES),
        };
        Some(page.logs.open(node, addr, ask))
    });
    let (out, mut items) = mpsc::channel(64);
    let (_, no_more) = mpsc::channel(1);
    tokio::spawn(merge(streams.collect(), no_more, out));
    let (mut lines, mut troubles): (Vec<LogLine>, Vec<Value>) = (Vec::new(), Vec::new());
    let reading = async {
        while let Some(item) = items.recv().await {
            match item {
                LogItem::Line(line) => lines.push(line),
                LogItem::Trouble { task, why } => troubles.push(json!({"task": task.to_string(), "why": why})),
            }
        }
    };
    let whole = tokio::time::timeout(LOGS_WITHIN, reading).await.is_ok();
    let from = lines.len().saturating_sub(MAX_LINES);
    let row = |line: &LogLine| {
        let text = String::from_utf8_lossy(&line.text);
        let text: String = text.trim_end().chars().take(MAX_LINE_CHARS).collect();
        json!({"task": line.task.to_string(), "at": line.at_ns / 1_000_000, "stderr": line.stderr, "text": text})
    };
    ok(&json!({
        "lines": lines.iter().skip(from).map(row).collect::<Vec<_>>(),
        "troubles": troubles,
        "whole": whole,
    }))
}
