//! One function for each thing that is measured, the same for both sides.

mod cost;
mod create;
mod faults;
mod update;

use super::cluster::{Cluster, PATIENCE};
use super::rows::Figure;
use anyhow::Result;
use std::time::Duration;

pub struct Step {
    /// For `--steps`.
    pub name: &'static str,
    /// Of the cluster that it wants.
    pub nodes: usize,
    /// The cluster is of no use afterwards.
    pub spoils: bool,
    pub take: fn(&Cluster) -> Result<Vec<Figure>>,
}

const fn step(name: &'static str, take: fn(&Cluster) -> Result<Vec<Figure>>) -> Step {
    Step { name, nodes: 5, spoils: false, take }
}

const fn spoiling(name: &'static str, nodes: usize, take: fn(&Cluster) -> Result<Vec<Figure>>) -> Step {
    Step { name, nodes, spoils: true, take }
}

/// In the order in which they are taken.
pub const ALL: &[Step] = &[
    step("create", create::create),
    step("scale", create::scale),
    step("rolling", update::rolling),
    step("rollback", update::rollback),
    step("commands", update::commands),
    step("drain", faults::drain),
    step("requests", cost::requests),
    spoiling("worker-power", 5, faults::worker_power),
    spoiling("worker-engine", 5, faults::worker_engine),
    spoiling("worker-crash", 5, faults::worker_crash),
    spoiling("leader-power", 5, faults::leader_power),
    spoiling("partition", 5, faults::partition),
    spoiling("two-lost", 3, faults::two_lost),
    spoiling("idle", 5, cost::idle),
];

fn seconds(took: Duration) -> Option<f64> {
    Some(took.as_secs_f64())
}
