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
    curl_at(node, 9000)
}

fn curl_at(node: usize, port: u16) -> String {
    let url = format!("http://{}:{port}/", address(node));
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

/// What Swarm refuses, and templates: as the engines themselves have it, by Docker's own CLI.
#[test]
fn the_nodes_network_devices_and_templates_on_real_engines() {
    let Some(tools) = Tools::start(2) else { return };
    tools.until(1, "node ls", |table| table.matches(" Ready ").count() == 2);
    fs::write(tools.dir.path().join("app"), r#"{{.Service.Name}} on {{.Node.Hostname}} {{secret "token"}}"#).unwrap();
    fs::write(tools.dir.path().join("token"), "hunter2").unwrap();
    tools.run(1, "secret create token token");
    tools.run(1, "config create --template-driver golang app app");
    let flags = "--mode global --network host --publish mode=host,published=5000,target=5000 --update-monitor 500ms \
        --label peer.shm-size=96m --label peer.devices=/dev/null:/dev/other:rw --config source=app,target=/etc/app \
        --secret token --mount type=volume,source=data-{{.Node.Hostname}},target=/data --no-resolve-image";
    let flags = flags.split_whitespace().collect::<Vec<_>>().join(" ");
    tools.run(1, &format!("service create -q --name web {flags} {}", image("1")));
    assert!(tools.run(2, "service inspect --pretty web").contains("Networks: host"));
    for node in [1, 2] {
        assert!(curl_at(node, 5000).starts_with("Hello from greeter 1"), "on the node's own port");
        let id = tools.run(node, "ps -q --filter name=web.");
        let shown = tools.run(node, &format!("inspect {}", id.trim()));
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let host = &shown[0]["HostConfig"];
        assert_eq!((&host["NetworkMode"], &host["ShmSize"]), (&"host".into(), &(96 << 20).into()));
        let device = serde_json::json!([
            { "PathOnHost": "/dev/null", "PathInContainer": "/dev/other", "CgroupPermissions": "rw" }
        ]);
        assert_eq!(host["Devices"], device);
        let mounts = shown[0]["Mounts"].as_array().unwrap();
        let mount = |target: &str| mounts.iter().find(|mount| mount["Destination"] == target).unwrap();
        let hostname = tools.run(node, "node inspect --format {{.Description.Hostname}} self");
        assert_eq!(mount("/data")["Name"], format!("data-{}", hostname.trim()));
        let app = fs::read_to_string(mount("/etc/app")["Source"].as_str().unwrap()).unwrap();
        assert_eq!(app, format!("web on {} hunter2", hostname.trim()));
    }
    let (worked, refused) =
        tools.command(&tools.lab.socket(1), &format!("service create --network host -p 80:5000 {}", image("1")));
    assert!(!worked && refused.contains("can't be reached through the mesh"), "{refused}");
    tools.run(2, "service rm web");
    tools.until(1, "ps -aq", str::is_empty);
}
