//! After the faults all must come to rest within a bound: somebody holds the lease, everybody sees everybody, replicas
//! are equal, what is wanted runs and nothing else does; and then nothing moves.

use super::engines;
use super::story::wall_ms;
use super::traces::Trace;
use crate::lab::{Lab, http};
use crate::law::seat::Seat;
use anyhow::{Result, bail};
use peer::ids::TaskId;
use peer::model::spec::{self, Mode};
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

/// As in the simulator.
const LIMIT: Duration = Duration::from_secs(240);
const QUIET: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long it took until nothing was out of order any more.
pub fn settle(lab: &Lab, traces: &mut [Trace]) -> Result<Duration> {
    let began = Instant::now();
    let mut rest_since = began;
    loop {
        let mut moved = false;
        for trace in traces.iter_mut() {
            moved |= trace.read_on()?;
        }
        let pending = pending(lab, traces);
        let now = Instant::now();
        if moved || pending.is_some() {
            rest_since = now;
        }
        if now - rest_since >= QUIET {
            return Ok(rest_since - began);
        }
        if now - began >= LIMIT {
            let (law, why) = pending.unwrap_or(("P7", "records never come to rest".to_owned()));
            bail!("{law}: not settled {} s after the faults: {why}", LIMIT.as_secs());
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What is not yet as it must be, with the law.
fn pending(lab: &Lab, traces: &[Trace]) -> Option<(&'static str, String)> {
    let now = wall_ms();
    let holders = traces.iter().filter(|t| t.seat.holds.is_some_and(|h| h.until_wall > now)).count();
    if holders != 1 {
        return Some(("L5", format!("{holders} nodes hold the lease")));
    }
    let nodes = lab.config.nodes;
    for n in 1..=nodes {
        let ready = http::json(&lab.socket(n), "GET", "/nodes", None)
            .ok()
            .and_then(|list| Some(list.as_array()?.iter().filter(|node| node["Status"]["State"] == "ready").count()));
        if ready != Some(nodes) {
            return Some(("M5", format!("n{n} sees {ready:?} of {nodes} nodes ready")));
        }
    }
    let first = &traces.first()?.seat;
    if let Some((n, key)) = traces.iter().enumerate().find_map(|(n, t)| Some((n + 1, first.differs(&t.seat)?))) {
        return Some(("S1", format!("n1 and n{n} differ in {key:?}")));
    }
    pending_services(lab, traces, first)
}

fn pending_services(lab: &Lab, traces: &[Trace], seat: &Seat) -> Option<(&'static str, String)> {
    let mut wanted: BTreeSet<TaskId> = BTreeSet::new();
    for service in seat.services() {
        let name = &service.name;
        let rollout = seat.rollout(service.id).filter(|r| r.to == service.current);
        if let Some(rollout) = rollout.filter(|r| r.state.is_active() || r.state.is_paused()) {
            return Some(("U4", format!("service {name}: {}: {}", rollout.state.as_str(), rollout.message)));
        }
        let effective = rollout.map_or(service.current, |r| r.target(service.rolled_back));
        let replicas = match spec::parse(seat.spec_json(service.id, effective)?) {
            Ok(spec) => match spec.mode {
                Mode::Replicated(replicas) => replicas as usize,
                Mode::Global => traces.len(),
                // The chaos runs none.
                Mode::ReplicatedJob { .. } | Mode::GlobalJob => continue,
            },
            Err(error) => return Some(("U4", format!("service {name}: {error}"))),
        };
        let live: Vec<TaskId> =
            seat.tasks().filter(|t| t.service == service.id && t.desired.is_live()).map(|t| t.id).collect();
        let running = live.iter().filter(|t| seat.says_running(**t)).count();
        if running != replicas || live.len() != replicas {
            return Some(("P6", format!("service {name}: {running} of {replicas} run, {} are wanted", live.len())));
        }
        wanted.extend(live);
    }
    let mut found = BTreeSet::new();
    for n in 1..=lab.config.nodes {
        for task in engines::running(lab, n).unwrap_or_default() {
            if seat.task(task).and_then(|t| t.node) != traces.get(n - 1)?.seat.id || !wanted.contains(&task) {
                return Some(("P6", format!("n{n} runs a container of {task:?}, which nobody wants there")));
            }
            if !found.insert(task) {
                return Some(("P5", format!("n{n} runs a second container of {task:?}")));
            }
        }
    }
    let lost = wanted.difference(&found).next()?;
    Some(("P6", format!("no engine runs {lost:?}, which its node says is running")))
}
