//! What orchestration costs: a service's creation against the same engines doing the same pulls, creates and starts
//! alone, and what a lone agent takes while nothing happens. Ratios of one run on one machine, rounds interleaved, because a shared machine's
//! seconds mean little by themselves.

use super::http::{ask, json};
use super::{Lab, LabConfig, image, wait_until};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const SERVICE: &str = "bench";
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at what is being timed.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A fresh agent settles before it counts as idle.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct BenchConfig {
    pub dir: PathBuf,
    pub peer: PathBuf,
    pub nodes: usize,
    pub replicas: usize,
    pub rounds: usize,
    pub idle: Duration,
}

/// What a run found.
pub struct Report {
    config: BenchConfig,
    idle: Idle,
    create: Vec<Round>,
    foreign_cores: f64,
}

/// One agent alone with its engine.
struct Idle {
    rss_kib: u64,
    pss_kib: u64,
    agent_cpu_s: f64,
    engine_cpu_s: f64,
    /// The same engine before it had an agent.
    engine_alone_cpu_s: f64,
    wall_s: f64,
}

/// Until all replicas run.
struct Round {
    alone_s: f64,
    peer_s: f64,
}

pub fn run(config: BenchConfig) -> Result<Report> {
    ensure!(config.rounds > 0 && config.replicas > 0, "--rounds and --replicas want at least 1");
    let lab = |nodes| LabConfig { nodes, dir: config.dir.clone(), peer: Some(config.peer.clone()) };
    let began = BusyTime::now()?;
    eprintln!("A lone agent, idle for {} s ...", config.idle.as_secs());
    let mut alone = Lab::up(lab(1))?;
    let idle = idle(&alone, config.idle)?;
    alone.down()?;

    eprintln!("{} replicas on {} nodes, {} rounds ...", config.replicas, config.nodes, config.rounds);
    let mut many = Lab::up(lab(config.nodes))?;
    let image = image("1");
    wait_until("all nodes are ready", PATIENCE, || ready(&many).is_ok_and(|count| count == config.nodes))?;
    let mut create = Vec::new();
    // The first of each is thrown away: caches fill.
    for round in 0..=config.rounds {
        let (alone_s, peer_s) = if round % 2 == 0 {
            let alone = engines_alone(&many, &image, config.replicas)?;
            (alone, by_peer(&many, &image, config.replicas)?)
        } else {
            let peer = by_peer(&many, &image, config.replicas)?;
            (engines_alone(&many, &image, config.replicas)?, peer)
        };
        eprintln!("  round {round}: engines alone {alone_s:.3} s, peer {peer_s:.3} s");
        if round > 0 {
            create.push(Round { alone_s, peer_s });
        }
    }
    many.down()?;
    Ok(Report { config, idle, create, foreign_cores: began.busy_cores_until_now()? })
}

fn ready(lab: &Lab) -> Result<usize> {
    let nodes = json(&lab.socket(1), "GET", "/nodes", None)?;
    Ok(nodes.as_array().into_iter().flatten().filter(|node| node["Status"]["State"] == "ready").count())
}

/// The ideal: somebody knows at once where everything goes, and asks all engines side by side for what agents ask of
/// them: is the image there, pull it once, then create and start each container.
fn engines_alone(lab: &Lab, image: &str, replicas: usize) -> Result<f64> {
    forget(lab, image)?;
    let began = Instant::now();
    let nodes: Vec<_> = (1..=lab.config.nodes)
        .map(|node| {
            let (socket, image) = (lab.engine_socket(node), image.to_owned());
            let share = (replicas + lab.config.nodes - node) / lab.config.nodes;
            thread::spawn(move || one_engine_alone(&socket, &image, share))
        })
        .collect();
    let ended: Vec<Result<()>> = nodes.into_iter().map(joined).collect();
    let took = began.elapsed().as_secs_f64();
    ended.into_iter().collect::<Result<()>>()?;
    for node in 1..=lab.config.nodes {
        let socket = lab.engine_socket(node);
        for container in containers(lab, node)? {
            ask(&socket, "DELETE", &format!("/containers/{container}?force=1"), None)?;
        }
    }
    Ok(took)
}

fn one_engine_alone(socket: &Path, image: &str, share: usize) -> Result<()> {
    if share == 0 {
        return Ok(());
    }
    if ask(socket, "GET", &format!("/images/{image}/json"), None).is_err() {
        ask(socket, "POST", &format!("/images/create?fromImage={image}"), None)?;
    }
    let body = json!({"Image": image, "HostConfig": {"RestartPolicy": {"Name": "no"}}});
    let starts: Vec<_> = (0..share)
        .map(|_| {
            let (socket, body) = (socket.to_owned(), body.clone());
            thread::spawn(move || -> Result<()> {
                let created = json(&socket, "POST", "/containers/create", Some(&body))?;
                let id = created["Id"].as_str().context("no id")?;
                ask(&socket, "POST", &format!("/containers/{id}/start"), None).map(drop)
            })
        })
        .collect();
    starts.into_iter().try_for_each(joined)
}

fn joined(thread: thread::JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| bail!("a thread panicked"))
}

/// One request to an agent that doesn't hold the lease if it can be helped, until all run as that agent tells.
fn by_peer(lab: &Lab, image: &str, replicas: usize) -> Result<f64> {
    forget(lab, image)?;
    let socket = lab.socket(lab.config.nodes);
    let spec = json!({
        "Name": SERVICE,
        "TaskTemplate": {"ContainerSpec": {"Image": image}},
        "Mode": {"Replicated": {"Replicas": replicas}},
    });
    let began = Instant::now();
    json(&socket, "POST", "/services/create", Some(&spec))?;
    let mut took = None;
    while took.is_none() {
        let tasks = json(&socket, "GET", "/tasks", None)?;
        let running = tasks.as_array().into_iter().flatten().filter(|task| task["Status"]["State"] == "running");
        if running.count() == replicas {
            took = Some(began.elapsed().as_secs_f64());
        } else if began.elapsed() > PATIENCE {
            bail!("not running after {} s: {tasks}", PATIENCE.as_secs());
        } else {
            thread::sleep(LOOK_AGAIN);
        }
    }
    ask(&socket, "DELETE", &format!("/services/{SERVICE}"), None)?;
    wait_until("the service's containers are gone", PATIENCE, || {
        (1..=lab.config.nodes).all(|node| containers(lab, node).is_ok_and(|left| left.is_empty()))
    })?;
    took.context("not timed")
}

/// On every node, so that it must be pulled again.
fn forget(lab: &Lab, image: &str) -> Result<()> {
    for node in 1..=lab.config.nodes {
        let socket = lab.engine_socket(node);
        if ask(&socket, "GET", &format!("/images/{image}/json"), None).is_ok() {
            ask(&socket, "DELETE", &format!("/images/{image}"), None)?;
        }
    }
    Ok(())
}

/// All of a node's, by id: the lab has no others.
pub(super) fn containers(lab: &Lab, node: usize) -> Result<Vec<String>> {
    let listed = json(&lab.engine_socket(node), "GET", "/containers/json?all=1", None)?;
    let ids = listed.as_array().context("no list")?.iter();
    ids.map(|container| container["Id"].as_str().map(str::to_owned).context("no id")).collect()
}

fn idle(lab: &Lab, wall: Duration) -> Result<Idle> {
    let agent = lab.agent_pid(1)?;
    let engine = engine_pid(lab, 1)?;
    thread::sleep(SETTLE);
    let (began, agent_before, engine_before) = (Instant::now(), cpu_s(agent)?, cpu_s(engine)?);
    thread::sleep(wall);
    let wall_s = began.elapsed().as_secs_f64();
    let (agent_cpu_s, engine_cpu_s) = (cpu_s(agent)? - agent_before, cpu_s(engine)? - engine_before);
    let (rss_kib, pss_kib) = (memory_kib(agent, "Rss")?, memory_kib(agent, "Pss")?);
    lab.stop_agent(1)?;
    let before = cpu_s(engine)?;
    thread::sleep(wall);
    Ok(Idle { rss_kib, pss_kib, agent_cpu_s, engine_cpu_s, engine_alone_cpu_s: cpu_s(engine)? - before, wall_s })
}

/// dockerd is the child of the engine's pid 1.
pub(super) fn engine_pid(lab: &Lab, node: usize) -> Result<u32> {
    let init = lab.engine_pid(node)?;
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
    children.split_whitespace().next().and_then(|word| word.parse().ok()).context("the engine has no process")
}

/// User and system time of all its threads, the ended ones included.
pub(super) fn cpu_s(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the command's name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 =
        fields.get(11..13).context("a short stat")?.iter().filter_map(|word| word.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on every Linux that Docker runs on.
    Ok(ticks as f64 / 100.0)
}

pub(super) fn memory_kib(pid: u32, key: &str) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).context("a strange smaps_rollup")
}

/// The machine's processor time from some moment on, of everything that runs on it.
pub(super) struct BusyTime {
    at: Instant,
    ticks: u64,
}

impl BusyTime {
    pub(super) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        // All but idle and waiting for the disk.
        let busy = ticks.iter().take(8).sum::<u64>() - ticks.iter().skip(3).take(2).sum::<u64>();
        Ok(Self { at: Instant::now(), ticks: busy })
    }

    /// Seconds.
    pub(super) fn spent(&self) -> Result<f64> {
        Ok((Self::now()?.ticks - self.ticks) as f64 / 100.0)
    }

    fn busy_cores_until_now(&self) -> Result<f64> {
        Ok(self.spent()? / self.elapsed_s())
    }

    pub(super) fn elapsed_s(&self) -> f64 {
        self.at.elapsed().as_secs_f64()
    }
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

impl Report {
    fn figures(&self) -> [(&'static str, f64, &'static str, Option<f64>); 9] {
        let alone = median(self.create.iter().map(|round| round.alone_s));
        let peer = median(self.create.iter().map(|round| round.peer_s));
        let idle = &self.idle;
        let percent = |cpu_s: f64| 100.0 * cpu_s / idle.wall_s;
        [
            ("create_engines_alone", alone, "s", None),
            ("create_peer", peer, "s", None),
            ("create_ratio", median(self.create.iter().map(|round| round.peer_s / round.alone_s)), "x", Some(1.2)),
            ("idle_rss", idle.rss_kib as f64 / 1024.0, "MiB", Some(30.0)),
            ("idle_pss", idle.pss_kib as f64 / 1024.0, "MiB", None),
            ("idle_cpu_agent", percent(idle.agent_cpu_s), "% of a core", Some(0.5)),
            ("idle_cpu_engine_with_agent", percent(idle.engine_cpu_s), "% of a core", None),
            ("idle_cpu_engine_alone", percent(idle.engine_alone_cpu_s), "% of a core", None),
            ("machine_busy", self.foreign_cores, "cores, all in all", None),
        ]
    }

    pub fn table(&self) -> String {
        let mut text = format!("{:<28} {:>9} {:<18} {}\n", "what", "median", "unit", "aim");
        for (what, value, unit, aim) in self.figures() {
            let aim = match aim {
                Some(aim) if value <= aim => format!("<= {aim} reached"),
                Some(aim) => format!("<= {aim} MISSED"),
                None => String::new(),
            };
            text.push_str(format!("{what:<28} {value:>9.3} {unit:<18} {aim}").trim_end());
            text.push('\n');
        }
        text
    }

    pub fn json(&self) -> Value {
        let figures: serde_json::Map<String, Value> =
            self.figures().into_iter().map(|(what, value, unit, _)| (what.to_owned(), json!([value, unit]))).collect();
        json!({
            "nodes": self.config.nodes,
            "replicas": self.config.replicas,
            "idle_seconds": self.idle.wall_s,
            "rounds": self.create.iter().map(|round| json!({"alone_s": round.alone_s, "peer_s": round.peer_s})).collect::<Vec<_>>(),
            "figures": figures,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn this_process_can_be_measured() {
        let pid = std::process::id();
        assert!(memory_kib(pid, "Rss").unwrap() >= memory_kib(pid, "Pss").unwrap());
        let before = cpu_s(pid).unwrap();
        assert!((0.0..3600.0).contains(&before));
    }
}
