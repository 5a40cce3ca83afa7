//! What takes nodes away: a drain, a power cut, an engine or a whole node that dies, the leader's loss, a partition, and the
//! loss of most managers. Each is timed from the moment at which it has happened.

use super::{PATIENCE, seconds};
use crate::lab::Lab;
use crate::lab::against::cluster::{Cluster, containers_running, service};
use crate::lab::against::rows::{self, Figure, Row};
use crate::lab::against::side::{MANAGERS, Orchestrator};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::time::{Duration, Instant};

const SERVICE: &str = "hit";
/// Runs on one node alone, so that a change of it tells whether scheduling goes on.
const CANARY: &str = "canary";
/// Tries at a cluster that may never take a change.
const TRIES: Duration = Duration::from_secs(45);

pub fn drain(cluster: &Cluster) -> Result<Vec<Figure>> {
    let replicas = 8 * cluster.nodes;
    cluster.create(&service(SERVICE, cluster.image(), replicas))?;
    let node = cluster.worker()?;
    let left = [cluster.id(node)?];
    let held = cluster.running(SERVICE)?.iter().filter(|on| **on == left[0]).count();
    if held != 8 {
        bail!("node {node} runs {held} of {replicas} replicas, not 8");
    }
    let (mut lowest, began) = (replicas, Instant::now());
    cluster.set_availability(node, "drain")?;
    cluster.until("the drained node is empty", PATIENCE, |c| {
        let running = c.running(SERVICE)?;
        lowest = lowest.min(running.len());
        let moved = running.len() == replicas && !running.contains(&left[0]);
        Ok(moved && containers_running(c.lab, node)? == 0)
    })?;
    let took = began.elapsed();
    cluster.set_availability(node, "active")?;
    cluster.remove(SERVICE)?;
    Ok(vec![(rows::DRAIN, seconds(took)), (rows::DRAIN_MISSING, Some((replicas - lowest) as f64))])
}

/// Ten replicas, two on each node; what happens to a worker, and how long its two take to run elsewhere.
fn lose_worker(cluster: &Cluster, row: Row, lose: impl FnOnce(&Lab, usize) -> Result<Instant>) -> Result<Vec<Figure>> {
    cluster.create(&service(SERVICE, cluster.image(), 10))?;
    let node = cluster.worker()?;
    let lost = [cluster.id(node)?];
    let began = lose(cluster.lab, node)?;
    cluster.until("its tasks run elsewhere", PATIENCE, |c| Ok(c.running_off(SERVICE, &lost)? == 10))?;
    Ok(vec![(row, seconds(began.elapsed()))])
}

pub fn worker_power(cluster: &Cluster) -> Result<Vec<Figure>> {
    lose_worker(cluster, rows::WORKER_POWER, cut_power)
}

pub fn worker_engine(cluster: &Cluster) -> Result<Vec<Figure>> {
    lose_worker(cluster, rows::WORKER_ENGINE, |lab, node| {
        lab.kill_engine(node)?;
        Ok(Instant::now())
    })
}

pub fn worker_crash(cluster: &Cluster) -> Result<Vec<Figure>> {
    lose_worker(cluster, rows::WORKER_CRASH, |lab, node| {
        kill(lab, node)?;
        Ok(Instant::now())
    })
}

/// The cable first: nobody hears of it. When it was.
fn cut_power(lab: &Lab, node: usize) -> Result<Instant> {
    lab.set_link(node, false)?;
    let began = Instant::now();
    kill(lab, node)?;
    Ok(began)
}

fn power_on(cluster: &Cluster, node: usize) -> Result<()> {
    cluster.lab.set_link(node, true)?;
    cluster.lab.start_engine(node)?;
    match cluster.side {
        Orchestrator::Swarm => Ok(()),
        Orchestrator::Peer => cluster.lab.start_agent(node, None),
    }
}

/// Everything that runs there, at once.
fn kill(lab: &Lab, node: usize) -> Result<()> {
    if lab.agent_runs(node) {
        lab.kill_agent(node)?;
    }
    lab.kill_engine(node)
}

/// A change taken by another manager, a task that it scheduled, and the leader's own tasks elsewhere.
pub fn leader_power(cluster: &Cluster) -> Result<Vec<Figure>> {
    cluster.create(&service(SERVICE, cluster.image(), 10))?;
    let (leader, worker) = (cluster.leader()?, cluster.worker()?);
    create_canary(cluster, worker)?;
    let lost = [cluster.id(leader)?];
    let others = cluster.managers_but(leader);
    cluster.lab.set_link(leader, false)?;
    let began = Instant::now();
    // What runs there ends while the others are asked already: that takes a while.
    let taken = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill(cluster.lab, leader));
        let taken = cluster.until_taken(others.clone(), PATIENCE, CANARY, 2);
        killer.join().unwrap_or_else(|_| bail!("a thread panicked"))?;
        taken?.context("no change was ever taken")
    })?;
    let cluster = cluster.at(others.clone().next().context("no other manager")?);
    cluster.until("the change is carried out", PATIENCE, |c| Ok(c.running(CANARY)?.len() == 2))?;
    let scheduled = began.elapsed();
    cluster.until("the leader's tasks run elsewhere", PATIENCE, |c| Ok(c.running_off(SERVICE, &lost)? == 10))?;
    Ok(vec![
        (rows::LEADER_UPDATE, seconds(taken)),
        (rows::LEADER_SCHEDULE, seconds(scheduled)),
        (rows::LEADER_TASKS, seconds(began.elapsed())),
    ])
}

fn create_canary(cluster: &Cluster, node: usize) -> Result<()> {
    let mut canary = service(CANARY, cluster.image(), 1);
    canary["TaskTemplate"]["Placement"] = json!({"Constraints": [format!("node.hostname==node{node}")]});
    cluster.create(&canary).map(drop)
}

/// The leader and a worker on one side, two managers and a worker on the other.
pub fn partition(cluster: &Cluster) -> Result<Vec<Figure>> {
    cluster.create(&service(SERVICE, cluster.image(), 10))?;
    let (leader, worker) = (cluster.leader()?, cluster.worker()?);
    let minority = [leader, worker];
    let majority: Vec<usize> = (1..=cluster.nodes).filter(|node| !minority.contains(node)).collect();
    let stays = *majority.last().context("nobody is left")?;
    create_canary(cluster, stays)?;
    let lost = [cluster.id(leader)?, cluster.id(worker)?];
    for (a, b) in minority.iter().flat_map(|a| majority.iter().map(move |b| (*a, *b))) {
        cluster.lab.cut(a, b)?;
    }
    let began = Instant::now();
    let others = cluster.managers_but(leader);
    cluster.until_taken(others.clone(), PATIENCE, CANARY, 2)?.context("no change was ever taken")?;
    let taken = began.elapsed();
    let cluster = cluster.at(others.clone().next().context("no other manager")?);
    cluster.until("the minority's tasks run elsewhere", PATIENCE, |c| Ok(c.running_off(SERVICE, &lost)? == 10))?;
    let moved = began.elapsed();
    cluster.lab.heal()?;
    let began = Instant::now();
    cluster.until("all nodes are ready again", PATIENCE, |c| Ok(c.ready()?.len() == c.nodes))?;
    let ready = began.elapsed();
    // Ten and the canary's two.
    cluster.until_containers(12)?;
    Ok(vec![
        (rows::PARTITION_UPDATE, seconds(taken)),
        (rows::PARTITION_TASKS, seconds(moved)),
        (rows::PARTITION_READY, seconds(ready)),
        (rows::PARTITION_SURPLUS, seconds(began.elapsed())),
    ])
}

/// Of a cluster of three managers the leader and another one lose their power; then the leader gets it back.
pub fn two_lost(cluster: &Cluster) -> Result<Vec<Figure>> {
    let leader = cluster.leader()?;
    let mut others = cluster.managers_but(leader);
    let (second, survivor) = others.next().zip(others.next()).context("not three managers")?;
    debug_assert_eq!(cluster.nodes, MANAGERS);
    create_canary(cluster, survivor)?;
    for node in [leader, second] {
        cut_power(cluster.lab, node)?;
    }
    let alone = || std::iter::once(survivor);
    let taken = cluster.until_taken(alone(), TRIES, CANARY, 2)?;
    let began = Instant::now();
    power_on(cluster, leader)?;
    if taken.is_none() {
        cluster.until_taken(alone(), PATIENCE, CANARY, 2)?.context("no change was ever taken")?;
    }
    let survivor = cluster.at(survivor);
    survivor.until("the change is carried out", PATIENCE, |c| Ok(c.running(CANARY)?.len() == 2))?;
    Ok(vec![
        (rows::TWO_LOST_UPDATE, taken.map(|took| took.as_secs_f64())),
        (rows::TWO_LOST_RETURN, seconds(began.elapsed())),
    ])
}
