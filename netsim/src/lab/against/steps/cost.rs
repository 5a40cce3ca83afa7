//! What users and machines pay: requests that fail while a service changes, and what a node at rest takes.

use super::seconds;
use super::update::another_edition;
use crate::lab::against::cluster::{Cluster, service};
use crate::lab::against::rows::{self, Figure};
use crate::lab::against::side::{Orchestrator, blank};
use crate::lab::bench::{cpu_s, engine_pid, memory_kib};
use crate::lab::load::{Load, LoadConfig, Mode};
use crate::lab::{Lab, address};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SERVICE: &str = "served";
const PORT: u16 = 9_000;
/// A load goes on for so long before anything happens, and after everything has.
const MARGIN: Duration = Duration::from_secs(2);
/// Of each client: about a hundred requests a second at each node.
const REST: Duration = Duration::from_millis(10);
/// The load of a drain goes on for so long after it began.
const DRAIN_LASTS: Duration = Duration::from_secs(10);
/// What was just started settles before it counts as idle.
const SETTLE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(30);

/// Five replicas behind a port: `host` is the port of each replica's own node, `ingress` any node's.
fn published(cluster: &Cluster, mode: &str) -> Value {
    let mut spec = service(SERVICE, cluster.image(), 5);
    let port = json!({"Protocol": "tcp", "TargetPort": 5000, "PublishedPort": PORT, "PublishMode": mode});
    spec["EndpointSpec"] = json!({"Ports": [port]});
    spec["UpdateConfig"] = json!({"Parallelism": 1, "Order": "stop-first", "Monitor": 100_000_000});
    spec
}

/// How many requests failed of a hundred a second, each on a new connection, at each node while something happened; how
/// long that took.
fn failed_during(cluster: &Cluster, mode: &str, act: impl FnOnce() -> Result<()>) -> Result<(f64, Duration)> {
    cluster.create(&published(cluster, mode))?;
    let target = |node: usize| Ok(SocketAddr::new(address(node).parse()?, PORT));
    let targets = (1..=cluster.nodes).map(target).collect::<Result<Vec<_>>>()?;
    for target in &targets {
        cluster.until("the port answers", super::PATIENCE, |_| {
            let probe = load(vec![*target])?;
            while probe.made() == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(probe.end().failures() == 0)
        })?;
    }
    let load = load(targets)?;
    std::thread::sleep(MARGIN);
    let began = Instant::now();
    let acted = act();
    let took = began.elapsed();
    std::thread::sleep(MARGIN);
    let report = load.end();
    eprintln!("    {} of {} requests failed (port {mode}): {:?}", report.failures(), report.requests(), report.failed);
    acted?;
    Ok((report.failures() as f64, took))
}

fn load(targets: Vec<SocketAddr>) -> Result<Load> {
    let patience = Duration::from_secs(1);
    let expect = "Hello from greeter ".to_owned();
    Load::start(LoadConfig { targets, mode: Mode::New, clients: 1, patience, rest: REST, expect })
}

pub fn requests(cluster: &Cluster) -> Result<Vec<Figure>> {
    // Without the kernel's module Swarm's mesh takes the port and answers nobody.
    let best = match cluster.side {
        Orchestrator::Swarm => "host",
        Orchestrator::Peer => "ingress",
    };
    let update = || {
        cluster.change(SERVICE, another_edition)?;
        cluster.until_update(SERVICE, "completed").map(drop)
    };
    let node = cluster.worker()?;
    let drain = || {
        let began = Instant::now();
        cluster.set_availability(node, "drain")?;
        std::thread::sleep(DRAIN_LASTS.saturating_sub(began.elapsed()));
        Ok(())
    };
    let (updated, took) = failed_during(cluster, best, update)?;
    cluster.remove(SERVICE)?;
    let (updated_host, _) = failed_during(cluster, "host", update)?;
    cluster.remove(SERVICE)?;
    let (drained, _) = failed_during(cluster, best, drain)?;
    cluster.set_availability(node, "active")?;
    cluster.remove(SERVICE)?;
    Ok(vec![
        (rows::FAILED_UPDATE, Some(updated)),
        (rows::LOADED_UPDATE, seconds(took)),
        (rows::FAILED_UPDATE_HOST, Some(updated_host)),
        (rows::FAILED_DRAIN, Some(drained)),
    ])
}

/// Of the engine and what orchestrates beside it.
#[derive(Clone, Copy)]
struct Taken {
    rss_mb: f64,
    cpu_s: f64,
    bytes: u64,
}

fn taken(lab: &Lab, node: usize) -> Result<Taken> {
    let agent = lab.agent_runs(node).then(|| lab.agent_pid(node)).transpose()?;
    let mut sum = Taken { rss_mb: 0.0, cpu_s: 0.0, bytes: lab.cable_bytes(node)? };
    for pid in [Some(engine_pid(lab, node)?), agent].into_iter().flatten() {
        sum.rss_mb += memory_kib(pid, "Rss")? as f64 * 1024.0 / 1e6;
        sum.cpu_s += cpu_s(pid)?;
    }
    Ok(sum)
}

/// For each node: memory at the end, and processor seconds and bytes a minute.
fn watch(lab: &Lab) -> Result<Vec<(f64, f64, f64)>> {
    std::thread::sleep(SETTLE);
    let look = || (1..=lab.config.nodes).map(|node| taken(lab, node)).collect::<Result<Vec<_>>>();
    let (before, began) = (look()?, Instant::now());
    std::thread::sleep(IDLE);
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let difference = |(before, after): (Taken, Taken)| {
        let (cpu_s, bytes) = (after.cpu_s - before.cpu_s, after.bytes.saturating_sub(before.bytes));
        (after.rss_mb, cpu_s / minutes, bytes as f64 / minutes / 1e3)
    };
    Ok(before.into_iter().zip(look()?).map(difference).collect())
}

/// Fresh engines alone, then the same engines as an empty cluster.
pub fn idle(cluster: &Cluster) -> Result<Vec<Figure>> {
    let (lab, side) = (cluster.lab, cluster.side);
    let fresh = || {
        (1..=lab.config.nodes).try_for_each(|node| lab.kill_engine(node))?;
        blank(lab)
    };
    fresh()?;
    let alone = watch(lab)?;
    fresh()?;
    side.stand_by(lab)?;
    let cluster = side.form(lab, cluster.nodes, cluster.image())?.cluster;
    let formed = watch(lab)?;
    let (leader, worker) = (cluster.leader()?, cluster.worker()?);
    let added = |node: usize| -> Result<[f64; 3]> {
        let (before, after) = alone.get(node - 1).zip(formed.get(node - 1)).context("a node that wasn't watched")?;
        Ok([after.0 - before.0, after.1 - before.1, after.2 - before.2])
    };
    let named = [
        [rows::IDLE_MEMORY_LEADER, rows::IDLE_CPU_LEADER, rows::IDLE_BYTES_LEADER],
        [rows::IDLE_MEMORY_WORKER, rows::IDLE_CPU_WORKER, rows::IDLE_BYTES_WORKER],
    ];
    let mut figures = Vec::new();
    for (node, rows) in [leader, worker].into_iter().zip(named) {
        figures.extend(rows.into_iter().zip(added(node)?.map(Some)));
    }
    Ok(figures)
}
