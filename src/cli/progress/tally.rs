//! How many of a service's tasks run, out of the tasks that are up to date: one a slot, or one a node.

use super::screen::{OVERALL, Screen};
use crate::cli::json::{flag, is_there, items, number, text};
use crate::cli::reason;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Beyond it only the overall numbers are shown.
const MAX_LINES: usize = 20;
/// One line of a narrow terminal.
pub const MAX_ERROR_CHARS: usize = 70;
const RUNNING: u64 = 9;
const COMPLETE: u64 = 10;

/// The order of states; 0 for those that no progress has.
fn rank(state: &str) -> u64 {
    const STATES: [&str; 13] = [
        "new",
        "allocated",
        "pending",
        "assigned",
        "accepted",
        "preparing",
        "ready",
        "starting",
        "running",
        "complete",
        "shutdown",
        "failed",
        "rejected",
    ];
    STATES.iter().zip(1..).find(|(name, _)| **name == state).map_or(0, |(_, rank)| rank)
}

/// What the service is in the middle of.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    pub rolling_back: bool,
    /// While a rollout is under way: how many tasks serve, of the old version or the new. The number of new ones alone
    /// reads as if the rest were lost.
    pub serving: Option<u64>,
}

pub struct Tally<'a> {
    /// One task a slot, with the name of its line.
    lines: Vec<(String, &'a Value)>,
    /// Of a job: that have ended with success.
    running: usize,
    /// `None`: a global service that has no tasks yet.
    wanted: Option<usize>,
    /// What a job's slots have come to that will not end with success: the first one's error.
    failed: Vec<&'a str>,
    is_job: bool,
}

impl<'a> Tally<'a> {
    pub fn of(service: &Value, tasks: &'a Value, nodes: &Value) -> Self {
        let down = items(nodes).iter().filter(|node| text(node, "/Status/State") == "down");
        let known: BTreeSet<&str> = items(nodes).iter().map(|node| text(node, "/ID")).collect();
        let down: BTreeSet<&str> = down.map(|node| text(node, "/ID")).collect();
        let alive = |node: &str| known.contains(node) && !down.contains(node);
        if is_there(service, "/Spec/Mode/Global") {
            return Self::of_nodes(tasks, alive);
        }
        if is_there(service, "/Spec/Mode/GlobalJob") {
            return Self::of_nodes(tasks, |_| true).of_job();
        }
        let count = |path: &str| service.pointer(path).and_then(Value::as_u64);
        let slots = |count: Option<u64>| usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX);
        if is_there(service, "/Spec/Mode/ReplicatedJob") {
            let total = slots(count("/Spec/Mode/ReplicatedJob/TotalCompletions"));
            return Self::of_slots(tasks, total, |_| true).of_job();
        }
        Self::of_slots(tasks, slots(count("/Spec/Mode/Replicated/Replicas")), alive)
    }

    /// Counts what has ended instead of what runs.
    fn of_job(self) -> Self {
        let ended =
            |state: &str| self.lines.iter().filter(move |(_, task)| text(task, "/Status/State") == state).count();
        let given_up = self.lines.iter().filter(|(_, task)| flag(task, "/PeerGivenUp"));
        let failed = given_up.filter(|(_, task)| text(task, "/Status/State") != "complete");
        let failed = failed.map(|(_, task)| text(task, "/Status/Err")).collect();
        Self { running: ended("complete"), failed, is_job: true, ..self }
    }

    /// All of a job has ended, and some of it not with success: why.
    pub fn failure(&self) -> Option<String> {
        let why = self.failed.first()?;
        let ended = self.running + self.failed.len();
        let wanted = self.wanted.filter(|wanted| ended >= *wanted)?;
        Some(format!("{} out of {wanted} tasks failed for good: {why}", self.failed.len()))
    }

    pub fn is_job(&self) -> bool {
        self.is_job
    }

    /// Tasks on dead nodes don't count.
    fn of_slots(tasks: &'a Value, replicas: usize, alive: impl Fn(&str) -> bool) -> Self {
        let mut slots: BTreeMap<u64, &Value> = BTreeMap::new();
        for task in items(tasks) {
            let node = text(task, "/NodeID");
            if node.is_empty() || alive(node) {
                put_if_better(&mut slots, number(task, "/Slot"), task);
            }
        }
        let running = slots.values().filter(|task| runs(task)).count();
        let lines =
            slots.into_values().zip(1..).map(|(task, n): (_, usize)| (format!("{n}/{replicas}"), task)).collect();
        Self { lines, running, wanted: Some(replicas), failed: Vec::new(), is_job: false }
    }

    /// Nobody tells on how many nodes it should run; but the tasks for all of them are made at once.
    fn of_nodes(tasks: &'a Value, alive: impl Fn(&str) -> bool) -> Self {
        let mut per_node: BTreeMap<&str, &Value> = BTreeMap::new();
        for task in items(tasks) {
            put_if_better(&mut per_node, text(task, "/NodeID"), task);
        }
        let wanted = Some(per_node.len()).filter(|nodes| *nodes > 0);
        let running = per_node.iter().filter(|(node, task)| alive(node) && runs(task)).count();
        let lines = per_node.into_iter().map(|(node, task)| (node.chars().take(12).collect(), task)).collect();
        Self { lines, running, wanted, failed: Vec::new(), is_job: false }
    }

    pub fn converged(&self) -> bool {
        self.wanted == Some(self.running)
    }

    pub fn is_empty(&self) -> bool {
        self.wanted == Some(0)
    }

    /// How long the youngest running task has been running.
    pub fn running_for(&self, now: Timestamp) -> Duration {
        let running = self.lines.iter().filter(|(_, task)| runs(task));
        running.map(|(_, task)| super::ran_for(task, now)).min().unwrap_or_default()
    }

    /// Some task isn't where it should be, for a reason that may last.
    pub fn is_troubled(&self) -> bool {
        self.trouble().is_some()
    }

    /// The first such task, and its reason.
    pub fn trouble(&self) -> Option<String> {
        let told = |(name, task): &(String, &Value)| match text(task, "/Status/Err") {
            "" => None,
            error => Some(format!("{name}: {}", reason::short(error, MAX_ERROR_CHARS))),
        };
        if self.converged() { None } else { self.lines.iter().find_map(told) }
    }

    /// A task has failed, as far as it shows.
    pub fn has_failure(&self) -> bool {
        self.is_troubled() || self.lines.iter().any(|(_, task)| rank(text(task, "/Status/State")) > RUNNING)
    }

    pub fn show(&self, screen: &mut Screen, course: Course) {
        let Some(wanted) = self.wanted else {
            return screen.set(OVERALL, "waiting for new tasks", None);
        };
        if self.is_job {
            screen.set("job progress", &format!("{} out of {wanted} complete", self.running), None);
        } else {
            let (prefix, done) =
                if course.rolling_back { ("rolling back update: ", "are back") } else { ("", "run the new version") };
            let mut told = format!("{prefix}{} out of {wanted} tasks", self.running);
            if let Some(serving) = course.serving {
                // Where the new task starts before the old one stops, both serve for a moment.
                let serving = serving.min(u64::try_from(wanted).unwrap_or(u64::MAX));
                told.push_str(&format!(" {done}, {serving} of {wanted} serve"));
            }
            screen.set(OVERALL, &told, None);
        }
        let end = if self.is_job { COMPLETE } else { RUNNING };
        if wanted > MAX_LINES {
            return;
        }
        for n in self.lines.len() + 1..=wanted {
            screen.reserve(&format!("{n}/{wanted}"));
        }
        for (name, task) in self.lines.iter().take(wanted) {
            let (error, state) = (text(task, "/Status/Err"), text(task, "/Status/State"));
            if !error.is_empty() {
                screen.set(name, &reason::short(error, MAX_ERROR_CHARS), None);
            } else if rank(text(task, "/DesiredState")) <= end && rank(state) <= end {
                screen.set(name, &format!("{state:<9}"), Some((rank(state), end)));
            }
        }
    }
}

/// Of several in one place the one with the lowest desired state counts, then with the lowest observed one: a start-first
/// update has two, and the new one is what we wait for.
fn put_if_better<'a, K: Ord>(chosen: &mut BTreeMap<K, &'a Value>, key: K, task: &'a Value) {
    let order = |task: &Value| (rank(text(task, "/DesiredState")), rank(text(task, "/Status/State")));
    let (desired, observed) = order(task);
    if desired == 0 || observed == 0 {
        return;
    }
    let slot = chosen.entry(key).or_insert(task);
    if order(slot) > (desired, observed) {
        *slot = task;
    }
}

fn runs(task: &Value) -> bool {
    text(task, "/Status/State") == "running" && rank(text(task, "/DesiredState")) <= RUNNING
}

/// The ids of the tasks that count.
#[cfg(test)]
pub fn chosen<'a>(tally: &'a Tally<'_>) -> Vec<&'a str> {
    tally.lines.iter().map(|(_, task)| text(task, "/ID")).collect()
}
