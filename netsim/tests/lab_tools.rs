//! Docker's own CLI against agents over real engines: a stack with networks, a secret, a config and a volume, from its
//! first deployment to its removal without a trace. Skipped, loudly, where there is no root or no dockerd.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use netsim::lab::{Lab, LabConfig, address, image, wait_until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);

/// With the lab's image put in.
const STACK: &str = r"
services:
  web:
    image: IMAGE
    networks: [front, back]
    secrets: [{source: token, target: tok, uid: '7', gid: '8', mode: 0400}]
    configs: [{source: motd, target: /etc/motd}]
    volumes: ['data:/data']
    ports: ['9000:5000']
    deploy: {mode: global, update_config: {monitor: 500ms, order: start-first}}
networks: {front: {}, back: {internal: true}}
volumes: {data: {}}
secrets: {token: {file: ./token}}
configs: {motd: {file: ./motd}}
";
const DEPLOY: &str = "stack deploy --detach=false --resolve-image never -c compose.yml st";

/// The peer binary of this build: cargo puts it two levels above the test's own.
fn peer_binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("peer")
}

struct Tools {
    lab: Lab,
    dir: tempfile::TempDir,
}

impl Tools {
    fn start(nodes: usize) -> Option<Self> {
        let peer = peer_binary();
        let missing = Lab::missing().or_else(|| (!peer.exists()).then(|| format!("{} is not built", peer.display())));
        if let Some(why) = missing {
            eprintln!("SKIPPED: the tests on real engines did not run: {why}");
            return None;
        }
        let dir = PathBuf::from(format!("/tmp/pl{}", std::process::id()));
        let lab = Lab::up(LabConfig { nodes, dir, peer: Some(peer) }).unwrap();
        Some(Self { lab, dir: tempfile::tempdir().unwrap() })
    }

    fn command(&self, socket: &Path, args: &str) -> (bool, String) {
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", self.dir.path()).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
        command.current_dir(self.dir.path());
        let output =
            command.arg("--host").arg(format!("unix://{}", socket.display())).args(args.split(' ')).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    fn run(&self, node: usize, args: &str) -> String {
        let (worked, text) = self.command(&self.lab.socket(node), args);
        assert!(worked, "docker {args} on node {node}: {text}");
        text
    }

    fn until(&self, node: usize, args: &str, is_so: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let looked = wait_until(args, PATIENCE, || {
            let (worked, text) = self.command(&self.lab.socket(node), args);
            last = text;
            worked && is_so(&last)
        });
        if let Err(error) = looked {
            panic!("{error}: node {node} still says {last}");
        }
        last
    }
}

fn curl(node: usize) -> String {
    let url = format!("http://{}:9000/", address(node));
    let output = Command::new("curl").args(["-s", "-S", "-m", "5", &url]).output().unwrap();
    assert!(output.status.success(), "node {node}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_stack_on_real_engines_from_deployment_to_removal() {
    let Some(tools) = Tools::start(2) else { return };
    let stack = STACK.replace("IMAGE", &image("1"));
    for (name, content) in [("compose.yml", stack.as_str()), ("token", "hunter2"), ("motd", "hello")] {
        fs::write(tools.dir.path().join(name), content).unwrap();
    }
    tools.until(1, "node ls", |table| table.matches(" Ready ").count() == 2);
    // The lab's own words reach the agent, and the engine where that is asked for.
    let lab = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.arg("--dir").arg(&tools.lab.config.dir).args(args).output().unwrap()
    };
    assert!(lab(&["exec", "2", "docker", "node", "ls"]).status.success());
    let on_engine = lab(&["exec", "--engine", "2", "docker", "node", "ls"]);
    assert!(String::from_utf8_lossy(&on_engine.stderr).contains("not a swarm manager"), "{on_engine:?}");
    tools.run(1, DEPLOY);
    tools.until(2, "stack services st", |table| table.contains("2/2"));

    for node in [1, 2] {
        assert!(curl(node).starts_with("Hello from greeter 1"));
        let id = tools.run(node, "ps -q --filter name=st_web");
        let format = "{{range.Mounts}}{{.Source}}={{.Destination}}={{.RW}};{{end}}";
        let mounts = tools.run(node, &format!("inspect --format {format} {}", id.trim()));
        let secret = mounts.split(';').find(|mount| mount.contains("=/run/secrets/tok=")).expect(&mounts);
        let (source, _) = secret.split_once('=').unwrap();
        assert!(secret.ends_with("=false"), "read only: {secret}");
        assert_eq!(fs::read_to_string(source).unwrap(), "hunter2");
        let owner = Command::new("stat").args(["-c", "%u %g %a", source]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&owner.stdout).trim(), "7 8 400");
        let kind = Command::new("stat").args(["-f", "-c", "%T", source]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&kind.stdout).trim(), "tmpfs", "in memory");
        // The engine's own resolver answers to these names.
        let networks = tools.run(node, &format!("inspect {}", id.trim()));
        assert!(networks.contains(r#""tasks.st_web""#) && networks.contains(r#""st_back""#), "{networks}");
    }
    let (worked, refused) = tools.command(&tools.lab.socket(2), "secret rm st_token");
    assert!(!worked && refused.contains("in use by the following service: st_web"), "{refused}");
    // Each network once, as what the operator asked for, though a bridge stands for it.
    let networks = tools.run(1, "network ls --format {{.Name}}={{.Driver}}={{.Scope}}");
    assert_eq!(networks.matches("st_front=").count(), 1, "{networks}");
    assert!(networks.contains("st_front=overlay=swarm") && networks.contains("bridge=bridge=local"), "{networks}");

    fs::write(tools.dir.path().join("compose.yml"), STACK.replace("IMAGE", &image("2"))).unwrap();
    tools.run(2, DEPLOY);
    assert!(curl(1).starts_with("Hello from greeter 2") && curl(2).starts_with("Hello from greeter 2"));
    tools.run(1, "service rollback -q st_web");
    assert!(curl(2).starts_with("Hello from greeter 1"));

    tools.run(1, "stack rm st");
    for node in [1, 2] {
        for list in ["ps -aq", "secret ls -q", "config ls -q", "network ls -q --filter name=st_"] {
            tools.until(node, list, str::is_empty);
        }
        // Nor is a bridge left on the engine itself.
        let bridges = "network ls -q --filter label=peer.network";
        let gone = || tools.command(&tools.lab.engine_socket(node), bridges) == (true, String::new());
        wait_until("no bridge is left", PATIENCE, gone).unwrap();
    }
}
