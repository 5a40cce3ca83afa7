//! What the stories on the lab share: a cluster that runs greeters, and how it is looked at.
#![allow(dead_code, clippy::disallowed_methods, clippy::disallowed_types)]

use netsim::lab::{Lab, LabConfig, address, image, wait_until};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(90);

/// The one named by `PEER_BIN`, or the one of this build: cargo puts it two levels above the test's own.
pub fn peer_binary() -> PathBuf {
    if let Some(named) = std::env::var_os("PEER_BIN") {
        return named.into();
    }
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("peer")
}

pub struct Cluster {
    pub lab: Lab,
    before: String,
}

/// One task of a service as `service ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub name: String,
    /// The image's tag.
    pub tag: String,
    pub node: String,
    pub wanted: String,
    pub state: String,
    pub error: String,
}

impl Cluster {
    /// `None`, loudly, where there can be no lab.
    pub fn up(nodes: usize) -> Option<Self> {
        Self::bring_up(nodes, Lab::up)
    }

    /// With agents whose mesh this carries.
    pub fn up_on(nodes: usize, mesh: &str) -> Option<Self> {
        Self::bring_up(nodes, |config| Lab::up_on(config, mesh))
    }

    fn bring_up(nodes: usize, up: impl FnOnce(LabConfig) -> anyhow::Result<Lab>) -> Option<Self> {
        let peer = peer_binary();
        let missing = Lab::missing().or_else(|| (!peer.exists()).then(|| format!("{} is not built", peer.display())));
        if let Some(why) = missing {
            eprintln!("SKIPPED: the tests on real engines did not run: {why}");
            return None;
        }
        let dir = PathBuf::from(format!("/tmp/pl{}", std::process::id()));
        let before = everything();
        let cluster = Self { before, lab: up(LabConfig { nodes, dir, peer: Some(peer) }).unwrap() };
        cluster.until_ready(1, nodes);
        Some(cluster)
    }

    pub fn peer(&self, node: usize, args: &[&str]) -> String {
        self.lab.peer_ok(node, args).unwrap()
    }

    pub fn try_peer(&self, node: usize, args: &[&str]) -> Output {
        self.lab.peer(node, args).unwrap()
    }

    pub fn create(&self, node: usize, name: &str, port: u16, more: &[&str]) -> String {
        let publish = format!("{port}:5000");
        let create = ["service", "create", "-q", "--name", name, "--publish", &publish, "--update-monitor", "500ms"];
        self.peer(node, &[&create[..], &["--restart-delay", "500ms"], more, &[&image("1")]].concat())
    }

    /// All tasks of a service that `node` knows, past ones too.
    pub fn tasks(&self, node: usize, service: &str) -> Vec<Row> {
        let format = "{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}";
        let Ok(table) = self.lab.peer_ok(node, &["service", "ps", "--no-trunc", "--format", format, service]) else {
            return Vec::new();
        };
        let row = |line: &str| {
            let mut fields = line.split('\t').map(str::to_owned);
            let mut next = || fields.next().unwrap_or_default();
            let (name, image, node, wanted, state, error) = (next(), next(), next(), next(), next(), next());
            let tag = image.split('@').next().and_then(|i| i.rsplit(':').next()).unwrap_or_default().to_owned();
            let state = state.split(' ').next().unwrap_or_default().to_owned();
            Row { name, tag, node, wanted, state, error }
        };
        table.lines().map(row).collect()
    }

    /// Those that are wanted and run.
    pub fn running(&self, node: usize, service: &str) -> Vec<Row> {
        let mut rows = self.tasks(node, service);
        rows.retain(|row| row.wanted == "Running" && row.state == "Running");
        rows
    }

    /// Waits for a level that `node` can tell; the tables go with the failure.
    pub fn until(&self, node: usize, what: &str, is_so: impl FnMut() -> bool) {
        if let Err(error) = wait_until(what, PATIENCE, is_so) {
            let tables =
                [["node", "ls"].as_slice(), &["service", "ls"], &["status"]].map(|args| self.try_peer(node, args));
            let services = self.try_peer(node, &["service", "ls", "-q"]);
            let services = String::from_utf8_lossy(&services.stdout).into_owned();
            let tasks = services.lines().map(|s| self.try_peer(node, &["service", "ps", "--no-trunc", s]));
            let said: Vec<String> = tables
                .into_iter()
                .chain(tasks)
                .map(|o| format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr)))
                .collect();
            panic!("{error}\n{}", said.join("\n"));
        }
    }

    pub fn until_ready(&self, node: usize, count: usize) {
        let ready =
            || self.lab.peer_ok(node, &["node", "ls"]).is_ok_and(|table| table.matches(" Ready ").count() == count);
        self.until(node, &format!("{count} nodes are ready"), ready);
    }

    /// A new node votes only after a while; until then the electorate is smaller than the cluster.
    pub fn until_voters(&self, node: usize, count: usize) {
        let voters = || {
            let status = self.lab.peer_ok(node, &["status", "--format", "json"]).ok()?;
            Some(serde_json::from_str::<serde_json::Value>(&status).ok()?["Voters"].as_array()?.len())
        };
        self.until(node, &format!("{count} nodes vote"), || voters() == Some(count));
    }

    /// Exactly `replicas` run, all of this image, and nothing else of the service is wanted.
    pub fn until_running(&self, node: usize, service: &str, tag: &str, replicas: usize) {
        self.until(node, &format!("{replicas} replicas of {service} run greeter:{tag}"), || {
            let rows = self.running(node, service);
            let wanted = self.tasks(node, service).iter().filter(|r| r.wanted == "Running").count();
            rows.len() == replicas && wanted == replicas && rows.iter().all(|row| row.tag == tag)
        });
    }

    /// The node that holds the lease in `node`'s eyes, by number.
    pub fn leader(&self, node: usize) -> Option<usize> {
        let format = "{{.Hostname}} {{.ManagerStatus}}";
        let table = self.lab.peer_ok(node, &["node", "ls", "--format", format]).ok()?;
        let line = table.lines().find(|line| line.ends_with(" Leader"))?;
        line.split(' ').next()?.strip_prefix("node")?.parse().ok()
    }

    /// From outside; the node is waited for, since the word of a new service may still be on its way to it.
    pub fn until_answers(&self, node: usize, port: u16) -> String {
        let mut answer = String::new();
        self.until(node, &format!("node {node} answers on port {port}"), || {
            let url = format!("http://{}:{port}/", address(node));
            let output = Command::new("curl").args(["-s", "-S", "-m", "5", &url]).output().unwrap();
            answer = String::from_utf8_lossy(&output.stdout).into_owned();
            output.status.success()
        });
        answer
    }

    /// The ids of this node's containers of a service.
    pub fn containers(&self, node: usize, service: &str) -> BTreeSet<String> {
        let filter = format!("label=com.docker.swarm.service.name={service}");
        let command = ["docker", "ps", "-q", "--no-trunc", "--filter", "label=peer.node", "--filter", &filter];
        let output = self.lab.exec(node, &command.map(str::to_owned)).unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    pub fn docker(&self, node: usize, args: &[&str]) -> String {
        let command: Vec<String> = ["docker"].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
        let output = self.lab.exec(node, &command).unwrap();
        assert!(output.status.success(), "docker {args:?} on node {node}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends the lab, and checks that nothing of it is left.
    pub fn end(mut self) {
        self.lab.down().unwrap();
        assert_eq!(everything(), self.before, "left behind");
    }
}

/// All that a lab is made of, of any lab: processes, mounts, namespaces, links, cgroups, firewall rules and directories.
pub fn everything() -> String {
    let looks = [
        "pgrep -a 'tini|dockerd|containerd|docker-regist' | cut -d' ' -f2- | grep -v defunct | sort",
        "grep -E 'peerlab|/tmp/(pl|li)[0-9]' /proc/self/mounts",
        "ip netns list",
        "ip -o link | cut -d: -f2",
        "find /sys/fs/cgroup -name 'peerlab*' -type d",
        "iptables -S 2>/dev/null | grep -i peerlab",
        "ls -d /tmp/pl[0-9]* /tmp/li[0-9]* 2>/dev/null",
    ];
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new("bash").args(["-c", &looks.join("; ")]).env("PATH", path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An endless loop of requests from outside, one line of output each.
pub struct Load(Child);

pub fn load(node: usize, port: u16) -> Load {
    let script = format!("while :; do curl -s -S -m 5 http://{}:{port}/ 2>&1 || echo FAILED; done", address(node));
    Load(Command::new("bash").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap())
}

impl Load {
    /// The tags that answered; it is a failure if any request failed.
    pub fn end(mut self) -> BTreeSet<String> {
        self.0.kill().unwrap();
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let tag = |line: &str| line.strip_prefix("Hello from greeter ")?.split(' ').next().map(str::to_owned);
        let failed: Vec<&&str> = lines.iter().filter(|line| tag(line).is_none()).collect();
        assert!(failed.is_empty(), "{} of {} requests failed: {failed:?}", failed.len(), lines.len());
        assert!(!lines.is_empty(), "no request was made");
        lines.iter().filter_map(|line| tag(line)).collect()
    }
}
