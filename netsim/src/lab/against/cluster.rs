//! A cluster as its users see it: through Docker's API at the sockets of its nodes, so that both sides' time is taken by
//! the same code.

use super::side::{MANAGERS, Orchestrator};
use crate::lab::http::{ask, json, json_within};
use crate::lab::{Lab, image};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Between two looks at what is being timed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Between two attempts at nodes that may never answer.
const NEXT_ATTEMPT: Duration = Duration::from_millis(250);
/// Each of the two requests of such an attempt takes no longer.
const ATTEMPT: Duration = Duration::from_secs(20);
/// Nothing here takes longer on a cluster that works.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub struct Cluster<'l> {
    pub lab: &'l Lab,
    pub side: Orchestrator,
    pub nodes: usize,
    /// Who is asked: a manager, and not one that is broken.
    pub asked: usize,
    image: String,
}

impl<'l> Cluster<'l> {
    pub fn new(lab: &'l Lab, side: Orchestrator, nodes: usize, image: &str) -> Self {
        Self { lab, side, nodes, asked: 1, image: image.to_owned() }
    }

    /// The same cluster, asked elsewhere.
    pub fn at(&self, node: usize) -> Self {
        Self { asked: node, ..Self::new(self.lab, self.side, self.nodes, &self.image) }
    }

    /// What its services run.
    pub fn image(&self) -> &str {
        &self.image
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        json(&self.side.socket(self.lab, self.asked), "GET", path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        json(&self.side.socket(self.lab, self.asked), "POST", path, Some(body))
    }

    /// How long it took until something was so. What can't be told yet isn't so yet.
    pub fn until(&self, what: &str, limit: Duration, is_so: impl FnMut(&Self) -> Result<bool>) -> Result<Duration> {
        let waited = self.until_or_never(limit, is_so)?;
        waited.with_context(|| format!("{}: not so after {} s: {what}", self.side.name(), limit.as_secs()))
    }

    /// Likewise; `None` if it never was within the limit.
    pub fn until_or_never(
        &self,
        limit: Duration,
        mut is_so: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<Option<Duration>> {
        let began = Instant::now();
        loop {
            if is_so(self).unwrap_or(false) {
                return Ok(Some(began.elapsed()));
            }
            if began.elapsed() > limit {
                return Ok(None);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// The nodes that are ready, by number.
    pub fn ready(&self) -> Result<Vec<usize>> {
        let nodes = self.get("/nodes")?;
        let ready = nodes.as_array().into_iter().flatten().filter(|node| node["Status"]["State"] == "ready");
        Ok(ready.filter_map(number).collect())
    }

    /// Who leads, or holds the lease.
    pub fn leader(&self) -> Result<usize> {
        let nodes = self.get("/nodes")?;
        let leader = nodes.as_array().into_iter().flatten().find(|node| node["ManagerStatus"]["Leader"] == true);
        leader.and_then(number).context("nobody leads")
    }

    /// One of the workers that doesn't lead.
    pub fn worker(&self) -> Result<usize> {
        let leader = self.leader()?;
        (MANAGERS + 1..=self.nodes).rev().find(|node| *node != leader).context("no worker")
    }

    /// Another manager.
    pub fn managers_but(&self, node: usize) -> impl Iterator<Item = usize> + Clone {
        (1..=MANAGERS.min(self.nodes)).filter(move |manager| *manager != node)
    }

    pub fn id(&self, node: usize) -> Result<String> {
        let nodes = self.get("/nodes")?;
        let ours = nodes.as_array().into_iter().flatten().find(|listed| number(listed) == Some(node));
        let id = ours.and_then(|node| node["ID"].as_str()).with_context(|| format!("node {node} isn't listed"))?;
        Ok(id.to_owned())
    }

    pub fn set_availability(&self, node: usize, availability: &str) -> Result<()> {
        let node = self.get(&format!("/nodes/{}", self.id(node)?))?;
        let mut spec = node["Spec"].clone();
        spec["Availability"] = json!(availability);
        let id = node["ID"].as_str().context("a node without an id")?;
        self.post(&format!("/nodes/{id}/update?version={}", node["Version"]["Index"]), &spec).map(drop)
    }

    /// Creates a service and waits for it; how long both took.
    pub fn create(&self, spec: &Value) -> Result<Duration> {
        let name = spec["Name"].as_str().context("a service without a name")?;
        let replicas = spec["Mode"]["Replicated"]["Replicas"].as_u64().context("a service without replicas")?;
        let began = Instant::now();
        self.post("/services/create", spec)?;
        self.until_running(name, replicas as usize)?;
        Ok(began.elapsed())
    }

    pub fn until_running(&self, name: &str, replicas: usize) -> Result<Duration> {
        self.until(&format!("{replicas} replicas of {name} run"), PATIENCE, |cluster| {
            Ok(cluster.running(name)?.len() == replicas)
        })
    }

    /// The ids of the nodes where tasks of a service run that are to run.
    pub fn running(&self, name: &str) -> Result<Vec<String>> {
        self.running_if(&json!({"service": {name: true}, "desired-state": {"running": true}}))
    }

    /// Likewise, of those that are as its spec says.
    pub fn running_new(&self, name: &str) -> Result<Vec<String>> {
        let up_to_date = json!({"true": true});
        self.running_if(
            &json!({"service": {name: true}, "desired-state": {"running": true}, "_up-to-date": up_to_date}),
        )
    }

    fn running_if(&self, filters: &Value) -> Result<Vec<String>> {
        let tasks = self.get(&format!("/tasks?filters={}", encoded(&filters.to_string())))?;
        let running = tasks.as_array().context("no list of tasks")?.iter();
        let running = running.filter(|task| task["Status"]["State"] == "running" && task["DesiredState"] == "running");
        Ok(running.filter_map(|task| task["NodeID"].as_str().map(str::to_owned)).collect())
    }

    /// How many of them run elsewhere than on these nodes.
    pub fn running_off(&self, name: &str, nodes: &[String]) -> Result<usize> {
        Ok(self.running(name)?.iter().filter(|on| !nodes.contains(on)).count())
    }

    /// Changes a service's spec: one request to read it, one to write.
    pub fn change(&self, name: &str, change: impl Fn(&mut Value)) -> Result<()> {
        change_at(&self.side.socket(self.lab, self.asked), PATIENCE, name, change)
    }

    /// How long it takes until one of these nodes takes a change; `None` if none does. Asked in turns, by a new client each
    /// time, because an attempt that was made too early may hang for long where a later one is taken at once.
    pub fn until_taken(
        &self,
        nodes: impl Iterator<Item = usize> + Clone,
        limit: Duration,
        name: &str,
        replicas: usize,
    ) -> Result<Option<Duration>> {
        let began = Instant::now();
        let (taken, first) = mpsc::channel();
        for node in nodes.cycle() {
            let (socket, name, taken) = (self.side.socket(self.lab, node), name.to_owned(), taken.clone());
            // Those that still hang when one was taken end by themselves.
            std::thread::spawn(move || {
                if scale_at(&socket, &name, replicas).is_ok() {
                    // Nobody listens any more once another one was taken.
                    let _ = taken.send(began.elapsed());
                }
            });
            match first.recv_timeout(NEXT_ATTEMPT) {
                Ok(took) => return Ok(Some(took)),
                Err(_) if began.elapsed() > limit => return Ok(None),
                Err(_) => {}
            }
        }
        bail!("nobody to ask")
    }

    pub fn scale(&self, name: &str, replicas: usize) -> Result<Duration> {
        let began = Instant::now();
        scale_at(&self.side.socket(self.lab, self.asked), name, replicas)?;
        self.until_running(name, replicas)?;
        Ok(began.elapsed())
    }

    /// Waits for a state of the service's update.
    pub fn until_update(&self, name: &str, state: &str) -> Result<Duration> {
        self.until(&format!("the update of {name} is {state}"), PATIENCE, |cluster| {
            let status = cluster.get(&format!("/services/{name}"))?["UpdateStatus"]["State"].take();
            Ok(status == state)
        })
    }

    /// How long it takes until nothing of it is left on the engines.
    pub fn remove(&self, name: &str) -> Result<Duration> {
        let began = Instant::now();
        let socket = self.side.socket(self.lab, self.asked);
        ask(&socket, "DELETE", &format!("/services/{name}"), None)?;
        self.until_containers(0)?;
        Ok(began.elapsed())
    }

    /// Running ones, on all engines.
    pub fn until_containers(&self, count: usize) -> Result<Duration> {
        self.until(&format!("{count} containers run"), PATIENCE, |cluster| {
            let mut running = 0;
            for node in 1..=cluster.nodes {
                running += containers_running(cluster.lab, node)?;
            }
            Ok(running == count)
        })
    }

    /// The docker CLI at the cluster's socket; how long it took.
    pub fn docker(&self, args: &[&str]) -> Result<Duration> {
        let host = format!("unix://{}", self.side.socket(self.lab, self.asked).display());
        self.timed("docker", &["--host", &host], args)
    }

    /// Its own CLI.
    pub fn own_cli(&self, args: &[&str]) -> Result<Duration> {
        if self.side == Orchestrator::Swarm {
            return self.docker(args);
        }
        let peer = self.lab.config.peer.as_ref().context("this lab has no agents")?;
        let host = format!("unix://{}", self.side.socket(self.lab, self.asked).display());
        self.timed(&peer.display().to_string(), &["-H", &host], args)
    }

    fn timed(&self, program: &str, to: &[&str], args: &[&str]) -> Result<Duration> {
        let mut command = self.lab.marked(program);
        // What the user who runs this has set up is not for these.
        command.env("DOCKER_CONFIG", self.lab.config.dir.join("cli")).env_remove("DOCKER_CONTEXT");
        let began = Instant::now();
        let output = command.args(to).args(args).output().with_context(|| format!("starting {program}"))?;
        let took = began.elapsed();
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {program} {}: {}", self.side.name(), args.join(" "), text.trim());
        Ok(took)
    }

    /// What its nodes have taken, if that is counted.
    pub fn cpu_s(&self) -> Option<f64> {
        (1..=self.nodes).map(|node| self.lab.cpu_s(node)).sum()
    }
}

fn change_at(socket: &Path, limit: Duration, name: &str, change: impl Fn(&mut Value)) -> Result<()> {
    let service = json_within(limit, socket, "GET", &format!("/services/{name}"), None)?;
    let mut spec = service["Spec"].clone();
    change(&mut spec);
    let path = format!("/services/{name}/update?version={}", service["Version"]["Index"]);
    json_within(limit, socket, "POST", &path, Some(&spec)).map(drop)
}

fn scale_at(socket: &Path, name: &str, replicas: usize) -> Result<()> {
    change_at(socket, ATTEMPT, name, |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(replicas))
}

pub fn containers_running(lab: &Lab, node: usize) -> Result<usize> {
    let listed = json(&lab.engine_socket(node), "GET", "/containers/json", None)?;
    Ok(listed.as_array().context("no list")?.len())
}

/// Pulls the image on every node, so that no figure has a pull in it; its name with the digest, as the docker CLI sends it.
pub fn preload(lab: &Lab, tag: &str) -> Result<String> {
    let name = image(tag);
    let mut pinned = String::new();
    for node in 1..=lab.config.nodes {
        let engine = lab.engine_socket(node);
        ask(&engine, "POST", &format!("/images/create?fromImage={name}"), None)?;
        let inspected = json(&engine, "GET", &format!("/images/{name}/json"), None)?;
        let digest = inspected["RepoDigests"][0].as_str().and_then(|digest| digest.split_once('@'));
        let Some((_, digest)) = digest else { bail!("{name} on node {node} has no digest: {inspected}") };
        pinned = format!("{name}@{digest}");
    }
    Ok(pinned)
}

/// A service as both sides take it.
pub fn service(name: &str, image: &str, replicas: usize) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": image, "Env": ["EDITION=0"]}},
        "Mode": {"Replicated": {"Replicas": replicas}},
    })
}

/// nodeN is N.
fn number(node: &Value) -> Option<usize> {
    node["Description"]["Hostname"].as_str()?.strip_prefix("node")?.parse().ok()
}

/// For a query.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_the_query() {
        assert_eq!(encoded("{\"a\":true}"), "%7B%22a%22%3Atrue%7D");
    }

    #[test]
    fn a_node_is_told_by_its_hostname() {
        let node = |name: &str| json!({"Description": {"Hostname": name}});
        assert_eq!(number(&node("node12")), Some(12));
        assert_eq!((number(&node("12")), number(&json!({}))), (None, None));
    }
}
