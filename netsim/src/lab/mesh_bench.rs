//! What a published port costs: requests through the mesh against the same client connecting straight to a container,
//! and against Docker's own published port. The client is a node of its own, from outside. Rounds are interleaved and each
//! is compared with its own direct one; CPU time (all of the machine's, softirq included) for 10,000 requests is the
//! figure to trust on a shared machine.

use super::bench::{BusyTime, median};
use super::http::{ask, json};
use super::load::stories::{is_userspace, until_ready};
use super::{Lab, LabConfig, address, image, namespace, wait_until};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
/// Asks the others, and runs nothing.
const CLIENT: usize = 4;
const NODES: usize = 4;
/// At once, as issue and prototypes have it.
const CONNECTIONS: &str = "30";
/// Where each is published.
const LOCAL: u16 = 9_100;
const MIXED: u16 = 9_101;
const AWARE: u16 = 9_102;
const DOCKER: u16 = 9_103;

#[derive(Debug, Clone)]
pub struct MeshBenchConfig {
    pub dir: PathBuf,
    pub peer: PathBuf,
    /// `kernel` or `userspace`.
    pub mesh: String,
    pub rounds: usize,
    /// New connections, for one figure.
    pub requests: u64,
    /// For one figure over kept connections.
    pub seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Direct,
    Docker,
    Local,
    Remote,
    Mixed,
    Aware,
}

impl Path {
    const ALL: [Self; 6] = [Self::Direct, Self::Docker, Self::Local, Self::Remote, Self::Mixed, Self::Aware];

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "straight to the container",
            Self::Docker => "Docker's own published port",
            Self::Local => "one local replica",
            Self::Remote => "one replica on another node",
            Self::Mixed => "five replicas on three nodes",
            Self::Aware => "HTTP-aware, one local replica",
        }
    }

    /// At most so many times the CPU time of a direct request (issue 4).
    fn aim(self, userspace: bool) -> Option<f64> {
        match self {
            Self::Local if userspace => Some(1.6),
            Self::Local => Some(1.15),
            Self::Mixed if !userspace => Some(1.7),
            _ => None,
        }
    }
}

/// Of one load on one path.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    per_second: f64,
    p99_ms: f64,
    cpu_s_per_10k: f64,
    failed: u64,
}

/// One round on one path: a connection a request, and kept ones.
struct Round {
    path: Path,
    new: Figures,
    kept: Figures,
}

pub struct MeshReport {
    config: MeshBenchConfig,
    userspace: bool,
    rounds: Vec<Vec<Round>>,
}

pub fn run(config: MeshBenchConfig) -> Result<MeshReport> {
    ensure!(
        config.rounds > 0 && config.requests > 0 && config.seconds > 0,
        "want at least 1 round, request and second"
    );
    let tools =
        ["ab", "wrk"].into_iter().filter(|tool| !super::process::sh_ok(&format!("command -v {tool} >/dev/null")));
    let missing: Vec<&str> = tools.collect();
    ensure!(missing.is_empty(), "{} not installed (Debian: apache2-utils, wrk)", missing.join(" and "));
    let lab_config = LabConfig { nodes: NODES, dir: config.dir.clone(), peer: Some(config.peer.clone()) };
    let mut lab = Lab::up_on(lab_config, &config.mesh)?;
    let userspace = is_userspace(&lab)?;
    let container = prepare(&lab)?;
    let mut rounds = Vec::new();
    // The first is thrown away: caches fill.
    for number in 0..=config.rounds {
        let mut round = Vec::new();
        for path in Path::ALL {
            let target = match path {
                Path::Direct => format!("{container}:5000"),
                Path::Docker => format!("{}:{DOCKER}", address(1)),
                Path::Local => format!("{}:{LOCAL}", address(1)),
                Path::Remote => format!("{}:{LOCAL}", address(2)),
                Path::Mixed => format!("{}:{MIXED}", address(1)),
                Path::Aware => format!("{}:{AWARE}", address(1)),
            };
            let (new, kept) = (new_connections(&lab, &target, &config)?, kept_connections(&lab, &target, &config)?);
            eprintln!(
                "  {} round {number}, {:<30} {:>7.0}/s {:.2} s, kept {:>7.0}/s {:.2} s",
                config.mesh,
                path.name(),
                new.per_second,
                new.cpu_s_per_10k,
                kept.per_second,
                kept.cpu_s_per_10k
            );
            ensure!(new.failed + kept.failed == 0, "{}: {} requests failed", path.name(), new.failed + kept.failed);
            round.push(Round { path, new, kept });
        }
        if number > 0 {
            rounds.push(round);
        }
    }
    lab.down()?;
    Ok(MeshReport { config, userspace, rounds })
}

/// Services and a container as every path wants them; the container's address, to which the client has a way.
fn prepare(lab: &Lab) -> Result<String> {
    let image = image("1");
    until_ready(lab, 1)?;
    lab.peer_ok(1, &["node", "update", "--availability", "drain", &format!("node{CLIENT}")])?;
    let published = |port: u16, protocol: &str| format!("published={port},target=5000,protocol={protocol}");
    let create = |name: &str, replicas: &str, constraint: &str, ports: &[String]| {
        let mut args = vec!["service", "create", "-q", "--name", name, "--replicas", replicas];
        args.extend((!constraint.is_empty()).then_some(["--constraint", constraint]).into_iter().flatten());
        ports.iter().for_each(|port| args.extend(["--publish", port]));
        lab.peer_ok(1, &[&args[..], &[&image]].concat()).map(drop)
    };
    create("local", "1", "node.hostname==node1", &[published(LOCAL, "tcp"), published(AWARE, "http")])?;
    create("mixed", "5", "", &[published(MIXED, "tcp")])?;
    let engine = lab.engine_socket(1);
    let ports = json!({"5000/tcp": [{"HostPort": DOCKER.to_string()}]});
    let body = json!({"Image": image, "ExposedPorts": {"5000/tcp": {}}, "HostConfig": {"PortBindings": ports}});
    ask(&engine, "POST", &format!("/images/create?fromImage={image}"), None)?;
    let id = json(&engine, "POST", "/containers/create?name=alone", Some(&body))?;
    let id = id["Id"].as_str().context("no id")?.to_owned();
    ask(&engine, "POST", &format!("/containers/{id}/start"), None)?;
    let inspected = json(&engine, "GET", &format!("/containers/{id}/json"), None)?;
    let container = inspected["NetworkSettings"]["IPAddress"].as_str().context("no address")?.to_owned();
    // Straight: the node forwards what is meant for its container, and nothing else is done to it.
    lab.sh(&format!("ip netns exec {} iptables -I DOCKER-USER -d {container} -j ACCEPT", namespace(1)))?;
    lab.sh(&format!("ip netns exec {} ip route add {container} via {}", namespace(CLIENT), address(1)))?;
    for (node, port) in [(1, LOCAL), (2, LOCAL), (1, MIXED), (1, AWARE), (1, DOCKER)] {
        let url = format!("http://{}:{port}/", address(node));
        let answers = || client(lab, &["curl", "-sf", "-m", "5", &url]).is_ok();
        wait_until(&format!("{url} answers"), PATIENCE, answers)?;
    }
    Ok(container)
}

fn client(lab: &Lab, command: &[&str]) -> Result<String> {
    let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let Output { status, stdout, stderr } = lab.exec(CLIENT, &command)?;
    ensure!(status.success(), "{}: {}", command.join(" "), String::from_utf8_lossy(&stderr).trim());
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

fn new_connections(lab: &Lab, target: &str, config: &MeshBenchConfig) -> Result<Figures> {
    let (requests, url) = (config.requests.to_string(), format!("http://{target}/"));
    let busy = BusyTime::now()?;
    // -l: replicas tell their names, so that lengths differ. ab speaks HTTP/1.0 and waits for the end of each connection.
    let told = client(lab, &["ab", "-q", "-l", "-H", "Connection: close", "-c", CONNECTIONS, "-n", &requests, &url])?;
    let cpu_s = busy.spent()?;
    let made = number_behind(&told, "Complete requests:")?;
    Ok(Figures {
        per_second: number_behind(&told, "Requests per second:")?,
        p99_ms: number_behind(&told, "99%")?,
        cpu_s_per_10k: cpu_s * 1e4 / made.max(1.0),
        failed: (number_behind(&told, "Failed requests:")? + number_behind(&told, "Non-2xx responses:").unwrap_or(0.0))
            as u64,
    })
}

fn kept_connections(lab: &Lab, target: &str, config: &MeshBenchConfig) -> Result<Figures> {
    let (lasting, url) = (format!("{}s", config.seconds), format!("http://{target}/"));
    let busy = BusyTime::now()?;
    let told = client(lab, &["wrk", "-t", "1", "-c", CONNECTIONS, "-d", &lasting, "--latency", &url])?;
    let cpu_s = busy.spent()?;
    let per_second = number_behind(&told, "Requests/sec:")?;
    let made = per_second * config.seconds as f64;
    // "Socket errors: connect 0, read 2, write 0, timeout 0", where there were any.
    let errors = told.lines().find_map(|line| line.trim().strip_prefix("Socket errors:")).unwrap_or_default();
    let failed = errors.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok()).sum();
    Ok(Figures {
        per_second,
        p99_ms: milliseconds_behind(&told, "99%")?,
        cpu_s_per_10k: cpu_s * 1e4 / made.max(1.0),
        failed,
    })
}

/// The first word behind the first line that begins so.
fn behind<'t>(text: &'t str, key: &str) -> Result<&'t str> {
    let rest = text.lines().find_map(|line| line.trim().strip_prefix(key));
    rest.and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("no {key:?} in: {text}"))
}

fn number_behind(text: &str, key: &str) -> Result<f64> {
    let word = behind(text, key)?;
    word.parse().with_context(|| format!("{key} {word}"))
}

/// As wrk tells durations: `317.00us`, `12.34ms`, `1.02s`.
fn milliseconds_behind(text: &str, key: &str) -> Result<f64> {
    let word = behind(text, key)?;
    let at = word.find(|c: char| c.is_ascii_alphabetic()).with_context(|| format!("{key} {word}"))?;
    let (number, unit) = word.split_at(at);
    let number: f64 = number.parse().with_context(|| format!("{key} {word}"))?;
    match unit {
        "us" => Ok(number / 1e3),
        "ms" => Ok(number),
        "s" => Ok(number * 1e3),
        _ => bail!("{key} {word}: an unknown unit"),
    }
}

impl MeshReport {
    /// The median over the rounds of what `of` says of a path's round and the direct one's.
    fn median_of(&self, path: Path, of: impl Fn(&Round, &Round) -> f64) -> f64 {
        let figure = |round: &Vec<Round>| Some(of(round.iter().find(|r| r.path == path)?, round.first()?));
        median(self.rounds.iter().filter_map(figure))
    }

    /// In Markdown.
    pub fn table(&self) -> String {
        let plane = if self.userspace { "userspace" } else { "kernel" };
        let mut text = format!(
            "| {plane} path | new: req/s, p99 ms | CPU s / 10k | of direct | kept: req/s, p99 ms | CPU s / 10k | of direct | aim (CPU of new, of direct) |\n\
             |---|---|---|---|---|---|---|---|\n"
        );
        for path in Path::ALL {
            let of = |figure: fn(&Round) -> f64| self.median_of(path, |round, _| figure(round));
            let ratio = self.median_of(path, |round, direct| round.new.cpu_s_per_10k / direct.new.cpu_s_per_10k);
            let kept_ratio = self.median_of(path, |round, direct| round.kept.cpu_s_per_10k / direct.kept.cpu_s_per_10k);
            let aim = path
                .aim(self.userspace)
                .map_or(String::new(), |aim| format!("<= {aim} {}", if ratio <= aim { "reached" } else { "MISSED" }));
            text += &format!(
                "| {} | {:.0}, {:.1} | {:.2} | {ratio:.2} | {:.0}, {:.1} | {:.2} | {kept_ratio:.2} | {aim} |\n",
                path.name(),
                of(|r| r.new.per_second),
                of(|r| r.new.p99_ms),
                of(|r| r.new.cpu_s_per_10k),
                of(|r| r.kept.per_second),
                of(|r| r.kept.p99_ms),
                of(|r| r.kept.cpu_s_per_10k),
            );
        }
        text
    }

    pub fn json(&self) -> Value {
        let figures =
            |f: &Figures| json!({"per_second": f.per_second, "p99_ms": f.p99_ms, "cpu_s_per_10k": f.cpu_s_per_10k});
        let round = |r: &Round| json!({"path": r.path.name(), "new": figures(&r.new), "kept": figures(&r.kept)});
        json!({
            "mesh": if self.userspace { "userspace" } else { "kernel" },
            "requests": self.config.requests,
            "seconds": self.config.seconds,
            "rounds": self.rounds.iter().map(|rounds| rounds.iter().map(round).collect::<Vec<_>>()).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ab_and_wrk_tell_is_read() {
        let ab = "Complete requests:      20000\nFailed requests:        0\nRequests per second:    5757.23 [#/sec] (mean)\n\
                  Percentage of the requests served within a certain time (ms)\n  98%      9\n  99%     12\n 100%     30 (longest request)\n";
        assert_eq!(number_behind(ab, "Requests per second:").unwrap(), 5757.23);
        assert_eq!(number_behind(ab, "99%").unwrap(), 12.0);
        assert!(number_behind(ab, "Non-2xx responses:").unwrap_err().to_string().contains("no \"Non-2xx responses:\""));
        let wrk = "  Latency Distribution\n     50%  600.00us\n     99%    1.02s\nRequests/sec:  44000.10\n";
        assert_eq!(milliseconds_behind(wrk, "99%").unwrap(), 1020.0);
        assert_eq!(milliseconds_behind(wrk, "50%").unwrap(), 0.6);
        assert_eq!(number_behind(wrk, "Requests/sec:").unwrap(), 44_000.1);
        assert!(milliseconds_behind("99% 12xs", "99%").is_err());
    }
}
