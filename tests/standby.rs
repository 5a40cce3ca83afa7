//! `peer start --standby` with Docker's own CLI: agents that belong to no cluster, made members and let go again through
//! their sockets. Without a docker CLI on the path the test says that it was skipped.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use peer::shell::agent::{self, AgentConfig, Ended};
use peer::shell::demo::config;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    config: AgentConfig,
    stop: CancellationToken,
    life: JoinHandle<anyhow::Result<Ended>>,
}

fn standby(dir: &Path, number: usize) -> AgentConfig {
    let mut config = AgentConfig { standby: true, ..config(dir, number).unwrap() };
    // Given back and taken again in the middle of the story: not of those that somebody else may be given meanwhile.
    let own = u16::try_from(std::process::id() % 6_000).unwrap() * 2 + u16::try_from(number).unwrap();
    config.listen.set_port(20_000 + own);
    config
}

impl Node {
    async fn start(config: AgentConfig) -> Self {
        let stop = CancellationToken::new();
        let life = tokio::spawn(agent::run(config.clone(), stop.clone().cancelled_owned()));
        let node = Self { config, stop, life };
        node.until("info", |_| true).await;
        node
    }

    async fn stop(self) -> AgentConfig {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.life).await.expect("the agent stops");
        assert_eq!(ended.unwrap().unwrap(), Ended::Stopped);
        assert!(!self.config.socket.exists(), "its socket goes with it");
        self.config
    }

    async fn docker(&self, args: &str) -> (bool, String) {
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", self.config.data_dir.join("cli")).env_remove("DOCKER_CONTEXT");
        command.env_remove("DOCKER_HOST").kill_on_drop(true);
        command.arg("--host").arg(format!("unix://{}", self.config.socket.display())).args(args.split(' '));
        let running = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = running.unwrap_or_else(|_| panic!("docker {args} hangs")).unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{}$ docker {args}\n{text}", self.config.hostname);
        (output.status.success(), text)
    }

    async fn works(&self, args: &str) -> String {
        let (success, text) = self.docker(args).await;
        assert!(success, "docker {args}: {text}");
        text
    }

    async fn refused(&self, args: &str, why: &str) {
        let (success, text) = self.docker(args).await;
        assert!(!success && text.contains(why), "docker {args} should be refused with {why:?}: {text}");
    }

    async fn until(&self, args: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (success, text) = self.docker(args).await;
            if success && is_so(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "docker {args} still says {text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The words after `docker swarm join --token` in what an init prints.
fn join_words(text: &str) -> (String, String) {
    let mut words = text.split_whitespace().skip_while(|word| *word != "--token").skip(1);
    (words.next().unwrap().to_owned(), words.next().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_standby_becomes_a_member_and_leaves_as_docker_has_it() {
    if !Command::new("docker").arg("--version").output().await.is_ok_and(|out| out.status.success()) {
        println!("SKIPPED: there is no docker CLI on the path, so standby was not tried");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let one = Node::start(standby(dir.path(), 1)).await;
    let two = Node::start(standby(dir.path(), 2)).await;
    assert!(one.works("info").await.contains("Swarm: inactive"));
    assert!(one.works("version").await.contains("peer"));
    one.refused("node ls", "This node is not a swarm manager. Use \"docker swarm init\"").await;
    one.refused("service create demo/greeter:1", "This node is not a swarm manager").await;
    one.refused("swarm leave", "This node is not part of a swarm").await;
    one.refused("swarm init --autolock", "has no lock").await;
    one.refused("swarm init --cert-expiry 24h", "--cert-expiry: no counterpart").await;
    one.refused("swarm init --force-new-cluster", "peer cluster recover").await;
    one.refused("swarm init --advertise-addr nosuch0", "invalid advertise address").await;
    one.refused("swarm join --token SWMTKN-1-a-b 127.0.0.1", "a token of Docker Swarm").await;
    one.refused("swarm join --token nonsense 127.0.0.1", "token").await;
    // An address that isn't this machine's: nothing of the attempt is left.
    one.refused("swarm init --listen-addr 192.0.2.7:7373", "192.0.2.7").await;
    assert!(one.works("info").await.contains("Swarm: inactive"));
    assert!(!one.config.data_dir.join("member.json").exists() && !one.config.data_dir.join("identity.json").exists());

    let said = one.works(&format!("swarm init --advertise-addr {}", one.config.listen.ip())).await;
    assert!(said.contains("is now a manager"), "{said}");
    let (token, addr) = join_words(&said);
    assert_eq!(addr, one.config.listen.to_string());
    one.refused("swarm init", "already part of").await;
    two.refused(&format!("swarm join --token {token}x {addr}"), "token").await;
    let said = two.works(&format!("swarm join --availability drain --token {token} {addr}")).await;
    assert!(said.contains("This node joined a swarm as a manager"), "{said}");
    one.until("node ls", |text| text.contains("node2") && text.contains("Drain")).await;

    // What was made through the API outlives the process.
    let (one, two) = (one.stop().await, two.stop().await);
    let (one, two) = (Node::start(one).await, Node::start(two).await);
    one.until("node ls", |text| text.matches("Ready").count() == 2 && text.contains("Leader")).await;

    // Left, it is as it was before, at once, and may come again.
    two.works("swarm leave --force").await;
    assert!(two.works("info").await.contains("Swarm: inactive"));
    one.until("node ls", |text| !text.contains("node2")).await;
    two.works(&format!("swarm join --token {token} {addr}")).await;
    one.until("node ls", |text| text.contains("node2") && !text.contains("Drain")).await;

    // Removed from elsewhere it is on standby, too; and the last one takes the cluster with it.
    one.works("node rm --force node2").await;
    two.until("info", |text| text.contains("Swarm: inactive")).await;
    one.works("swarm leave --force").await;
    let (again, _) = join_words(&one.works("swarm init").await);
    assert_ne!(again, token, "another cluster");
    assert!(!one.works("node ls").await.contains("node2"));
    one.stop().await;
    two.stop().await;
}
