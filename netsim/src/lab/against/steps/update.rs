//! Rolling updates of an image that exits at once, a rollback, and how long the commands themselves take.

use super::seconds;
use crate::lab::against::cluster::{Cluster, service};
use crate::lab::against::rows::{self, Figure, Row};
use crate::lab::image;
use anyhow::Result;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SERVICE: &str = "rolled";

#[derive(Clone, Copy)]
struct Policy {
    parallelism: usize,
    order: &'static str,
    /// `None`: what it is by default.
    monitor_ms: Option<u64>,
}

const ONE_BY_ONE: Policy = Policy { parallelism: 1, order: "stop-first", monitor_ms: Some(100) };

fn policy(of: Policy) -> Value {
    let mut policy = json!({"Parallelism": of.parallelism, "Order": of.order, "FailureAction": "pause"});
    // Left out it is five seconds on both sides; 0 is the same to Swarm, and none to peer.
    if let Some(ms) = of.monitor_ms {
        policy["Monitor"] = json!(ms * 1_000_000);
    }
    policy
}

/// Changes what every replica is started with: all must be replaced.
pub fn another_edition(spec: &mut Value) {
    spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["EDITION=1"]);
}

/// How long it takes until all are replaced, and until the update counts as completed.
fn roll(cluster: &Cluster, replicas: usize, of: Policy) -> Result<(Duration, Duration)> {
    let mut spec = service(SERVICE, cluster.image(), replicas);
    spec["UpdateConfig"] = policy(of);
    cluster.create(&spec)?;
    let began = Instant::now();
    cluster.change(SERVICE, another_edition)?;
    cluster.until("all are replaced", super::PATIENCE, |c| {
        Ok(c.running_new(SERVICE)?.len() == replicas && c.running(SERVICE)?.len() == replicas)
    })?;
    let replaced = began.elapsed();
    cluster.until_update(SERVICE, "completed")?;
    let completed = began.elapsed();
    cluster.remove(SERVICE)?;
    Ok((replaced, completed))
}

fn completed(cluster: &Cluster, row: Row, replicas: usize, of: Policy) -> Result<Figure> {
    Ok((row, seconds(roll(cluster, replicas, of)?.1)))
}

pub fn rolling(cluster: &Cluster) -> Result<Vec<Figure>> {
    let start_first = Policy { order: "start-first", ..ONE_BY_ONE };
    Ok(vec![
        completed(cluster, rows::ROLLING_5, 5, ONE_BY_ONE)?,
        completed(cluster, rows::ROLLING_5_AT_ONCE, 5, Policy { parallelism: 5, ..ONE_BY_ONE })?,
        completed(cluster, rows::ROLLING_5_DEFAULT, 5, Policy { monitor_ms: None, ..ONE_BY_ONE })?,
        completed(cluster, rows::ROLLING_10, 10, ONE_BY_ONE)?,
        completed(cluster, rows::ROLLING_10_BY_5, 10, Policy { parallelism: 5, ..ONE_BY_ONE })?,
        (rows::START_FIRST, seconds(roll(cluster, 5, start_first)?.0)),
    ])
}

pub fn rollback(cluster: &Cluster) -> Result<Vec<Figure>> {
    let mut spec = service(SERVICE, cluster.image(), 5);
    // There fast, and back in steps.
    spec["UpdateConfig"] = policy(Policy { parallelism: 5, ..ONE_BY_ONE });
    spec["RollbackConfig"] = policy(ONE_BY_ONE);
    cluster.create(&spec)?;
    cluster.change(SERVICE, another_edition)?;
    cluster.until_update(SERVICE, "completed")?;
    let began = Instant::now();
    let service = cluster.get(&format!("/services/{SERVICE}"))?;
    let path = format!("/services/{SERVICE}/update?version={}&rollback=previous", service["Version"]["Index"]);
    cluster.post(&path, &service["Spec"])?;
    cluster.until_update(SERVICE, "rollback_completed")?;
    let took = began.elapsed();
    cluster.remove(SERVICE)?;
    Ok(vec![(rows::ROLLBACK, seconds(took))])
}

/// In the foreground, as they are by default.
pub fn commands(cluster: &Cluster) -> Result<Vec<Figure>> {
    let tagged = image("exit");
    let create = |more: &[&'static str]| {
        let mut args = vec!["service", "create", "--quiet", "--name", SERVICE, "--replicas", "5"];
        args.extend(more);
        args
    };
    let image = [tagged.as_str()];
    let made = cluster.docker(&[&create(&["--update-monitor", "100ms"])[..], &image].concat())?;
    let updated = cluster.docker(&["service", "update", "--quiet", "--env-add", "EDITION=1", SERVICE])?;
    cluster.remove(SERVICE)?;
    let by_default = cluster.docker(&[&create(&[])[..], &image].concat())?;
    cluster.remove(SERVICE)?;
    let own = cluster.own_cli(&[&create(&["--update-monitor", "0s"])[..], &image].concat())?;
    cluster.remove(SERVICE)?;
    Ok(vec![
        (rows::CLI_CREATE_DEFAULT, seconds(by_default)),
        (rows::CLI_CREATE, seconds(made)),
        (rows::CLI_CREATE_OWN, seconds(own)),
        (rows::CLI_UPDATE, seconds(updated)),
    ])
}
