//! How many of a service's tasks run, out of the tasks that are up to date: one a slot, or one a node.

use super::screen::Screen;
use crate::cli::json::{items, number, text};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Beyond it only the overall numbers are shown.
const MAX_LINES: usize = 20;
const MAX_ERROR_CHARS: usize = 70;
const RUNNING: u64 = 9;

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

pub struct Tally<'a> {
    /// One task a slot, with the name of its line.
    lines: Vec<(String, &'a Value)>,
    running: usize,
    /// `None`: a global service that has no tasks yet.
    wanted: Option<usize>,
}

impl<'a> Tally<'a> {
    pub fn of(service: &Value, tasks: &'a Value, nodes: &Value) -> Self {
        let down = items(nodes).iter().filter(|node| text(node, "/Status/State") == "down");
        let known: BTreeSet<&str> = items(nodes).iter().map(|node| text(node, "/ID")).collect();
        let down: BTreeSet<&str> = down.map(|node| text(node, "/ID")).collect();
        let alive = |node: &str| known.contains(node) && !down.contains(node);
        match service.pointer("/Spec/Mode/Global") {
            Some(global) if !global.is_null() => Self::of_nodes(tasks, alive),
            _ => {
                let replicas = service.pointer("/Spec/Mode/Replicated/Replicas").and_then(Value::as_u64).unwrap_or(1);
                Self::of_slots(tasks, usize::try_from(replicas).unwrap_or(usize::MAX), alive)
            }
        }
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
        Self { lines, running, wanted: Some(replicas) }
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
        Self { lines, running, wanted }
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

    pub fn show(&self, screen: &mut Screen, rolling_back: bool) {
        let Some(wanted) = self.wanted else {
            return screen.set("overall progress", "waiting for new tasks", None);
        };
        let prefix = if rolling_back { "rolling back update: " } else { "" };
        screen.set("overall progress", &format!("{prefix}{} out of {wanted} tasks", self.running), None);
        if wanted > MAX_LINES {
            return;
        }
        for n in self.lines.len() + 1..=wanted {
            screen.reserve(&format!("{n}/{wanted}"));
        }
        for (name, task) in self.lines.iter().take(wanted) {
            let (error, state) = (text(task, "/Status/Err"), text(task, "/Status/State"));
            if !error.is_empty() {
                screen.set(name, &short(error), None);
            } else if rank(text(task, "/DesiredState")) <= RUNNING && rank(state) <= RUNNING {
                screen.set(name, &format!("{state:<9}"), Some((rank(state), RUNNING)));
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

/// One line of a narrow terminal.
fn short(error: &str) -> String {
    let line = error.replace('\n', " ");
    match line.char_indices().nth(MAX_ERROR_CHARS) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// The ids of the tasks that count.
#[cfg(test)]
pub fn chosen<'a>(tally: &'a Tally<'_>) -> Vec<&'a str> {
    tally.lines.iter().map(|(_, task)| text(task, "/ID")).collect()
}
