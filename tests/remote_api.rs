//! The API over TCP with docker's own CLI: nobody without a client's certificate, everybody with one, until it is revoked,
//! on whatever node. Without a docker CLI on the path the test says that it was skipped.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use peer::shell::agent::{Agent, AgentConfig, Join};
use peer::shell::demo::{address, config};
use peer::shell::engine::{AnyEngine, DemoEngine};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);

async fn start(dir: &Path, number: usize, join: Option<Join>) -> (AgentConfig, Agent) {
    let ip = address(number);
    let api = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
    let config = AgentConfig { join, api: Some(api), ..config(dir, number).unwrap() };
    let engine = AnyEngine::Demo(DemoEngine::new().on_host(&config.hostname));
    let agent = Agent::start(config.clone(), engine).await.unwrap();
    (config, agent)
}

async fn said(program: &str, dir: &Path, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(program);
    command.env("DOCKER_CONFIG", dir).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST").env_remove("PEER_HOST");
    command.args(args).current_dir(dir).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{program} {args:?} hangs")).unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("$ {program} {args:?}\n{text}");
    (output.status.success(), text)
}

struct Clients<'a> {
    dir: &'a Path,
}

impl Clients<'_> {
    /// `certs`: the directory with the three files, or nothing.
    async fn docker(&self, on: &AgentConfig, certs: Option<&str>, command: &str) -> (bool, String) {
        let host = format!("tcp://{}", on.api.unwrap());
        let mut args = vec!["--host".to_owned(), host];
        if let Some(certs) = certs {
            args.push("--tlsverify".to_owned());
            for (flag, file) in [("--tlscacert", "ca.pem"), ("--tlscert", "cert.pem"), ("--tlskey", "key.pem")] {
                args.extend([flag.to_owned(), format!("{certs}/{file}")]);
            }
        }
        args.extend(command.split(' ').map(str::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        said("docker", self.dir, &args).await
    }

    /// `peer` from afar, with docker's flags.
    async fn peer_from_afar(&self, on: &AgentConfig, certs: &str, command: &str) -> (bool, String) {
        let host = format!("tcp://{}", on.api.unwrap());
        let files = ["ca.pem", "cert.pem", "key.pem"].map(|file| format!("{certs}/{file}"));
        let mut args = vec!["--tlsverify", "--tlscacert", &files[0], "--tlscert", &files[1], "--tlskey", &files[2]];
        args.extend(["-H", host.as_str()]);
        args.extend(command.split(' '));
        said(env!("CARGO_BIN_EXE_peer"), self.dir, &args).await
    }

    async fn peer(&self, on: &AgentConfig, command: &str) -> (bool, String) {
        let host = on.socket.display().to_string();
        let args: Vec<&str> = ["--host", host.as_str()].into_iter().chain(command.split(' ')).collect();
        said(env!("CARGO_BIN_EXE_peer"), self.dir, &args).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_come_in_by_certificate_and_stay_out_once_it_is_revoked() {
    if !Command::new("docker").arg("--version").output().await.is_ok_and(|out| out.status.success()) {
        println!("SKIPPED: there is no docker CLI on the path, so the API over TCP was not tried");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (one, first) = start(dir.path(), 1, None).await;
    let join = Join { host: first.addr.to_string(), token: first.token().await.unwrap() };
    let (two, second) = start(dir.path(), 2, Some(join)).await;
    let clients = Clients { dir: dir.path() };
    let issued = clients.peer(&one, "cert issue --client ann --out ann").await;
    assert!(issued.0 && issued.1.contains("ann/key.pem"), "{issued:?}");
    let key = std::fs::metadata(dir.path().join("ann/key.pem")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    assert!(!clients.peer(&one, "cert issue --client ann --out ann").await.0, "nothing is overwritten");
    assert!(clients.peer(&one, "cert issue --client Ann_1 --out x").await.1.contains("no client's name"));

    let unknown = clients.peer(&two, "cert revoke nosuch").await;
    assert!(
        !unknown.0 && unknown.1.contains("no such client: nosuch") && unknown.1.contains("peer cert ls"),
        "{unknown:?}"
    );

    // By one certificate into every node, the local engine's part and services as on the socket.
    for node in [&one, &two] {
        let (works, text) = clients.docker(node, Some("ann"), "node ls").await;
        assert!(works && text.contains("node1"), "{text}");
    }
    let (works, text) = clients.docker(&two, Some("ann"), "service create -q --detach --name web demo/greeter:1").await;
    assert!(works, "{text}");
    assert!(clients.docker(&one, Some("ann"), "service ls").await.1.contains("web"));

    let (works, text) = clients.peer_from_afar(&two, "ann", "service ls").await;
    assert!(works && text.contains("web"), "{text}");
    let (works, text) = clients.peer_from_afar(&two, "ann", "service logs --tail 1 web").await;
    assert!(works, "a streamed answer: {text}");
    let bare = ["-H", &format!("tcp://{}", one.api.unwrap()), "node", "ls"];
    let (works, text) = said(env!("CARGO_BIN_EXE_peer"), dir.path(), &bare).await;
    assert!(!works && text.contains("--tlscacert is missing") && text.contains("peer cert issue"), "{text}");

    // Nobody else: without TLS, without a certificate, with a node's own, with one of another CA.
    assert!(!clients.docker(&one, None, "node ls").await.0);
    let copy = |to: &str, cert: &Path, key: &Path| {
        let to = dir.path().join(to);
        std::fs::create_dir_all(&to).unwrap();
        std::fs::copy(dir.path().join("ann/ca.pem"), to.join("ca.pem")).unwrap();
        std::fs::copy(cert, to.join("cert.pem")).unwrap();
        std::fs::copy(key, to.join("key.pem")).unwrap();
    };
    copy("node", &one.data_dir.join("node.pem"), &one.data_dir.join("node-key.pem"));
    assert!(!clients.docker(&one, Some("node"), "node ls").await.0, "a member is no client");
    let elsewhere = tempfile::tempdir().unwrap();
    let (other, stranger) = start(elsewhere.path(), 3, None).await;
    assert!(clients.peer(&other, "cert issue --client ann --out stranger").await.0);
    let strange = dir.path().join("stranger");
    copy("mixed", &strange.join("cert.pem"), &strange.join("key.pem"));
    assert!(!clients.docker(&one, Some("mixed"), "node ls").await.0);
    assert!(!clients.peer_from_afar(&one, "mixed", "node ls").await.0);
    let (works, text) = clients.peer_from_afar(&one, "stranger", "node ls").await;
    assert!(!works && text.contains("can't prove that it is an agent of this cluster"), "{text}");

    // Revoked on one node, refused on all; a certificate that is issued later holds.
    assert!(clients.peer(&two, "cert revoke ann").await.0);
    let deadline = Instant::now() + PATIENCE;
    for node in [&one, &two] {
        loop {
            let (works, text) = clients.docker(node, Some("ann"), "node ls").await;
            if !works {
                assert!(text.contains("was revoked"), "{text}");
                let (works, text) = clients.peer_from_afar(node, "ann", "node ls").await;
                assert!(!works && text.contains("was revoked"), "{text}");
                break;
            }
            assert!(Instant::now() < deadline, "the revocation gets to every node");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(clients.peer(&two, "cert issue --client ann --out again").await.0);
    assert!(clients.docker(&two, Some("again"), "node ls").await.0);
    // The old one stays out when the node comes back.
    first.stop().await;
    let engine = AnyEngine::Demo(DemoEngine::new().on_host(&one.hostname));
    let first = Agent::start(one.clone(), engine).await.unwrap();
    assert!(!clients.docker(&one, Some("ann"), "node ls").await.0);
    for agent in [first, second, stranger] {
        agent.kill().await;
    }
}
