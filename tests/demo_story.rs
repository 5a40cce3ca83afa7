//! The story on real agents in this process: real QUIC on loopback, real files, the real mesh and API, over the
//! built-in engine. What needs real kills and real engines is told by the lab (`netsim/tests/lab_story.rs`).
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use peer::core::Core;
use peer::core::face::{Accepted, Refused, Request};
use peer::ids::{ServiceId, TaskId};
use peer::model::container::Owner;
use peer::model::node::{Availability, Liveness};
use peer::model::rollout::{Rollout, RolloutState};
use peer::model::task::TaskPhase;
use peer::shell::demo::Demo;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(40);

/// A port that is free on every address of the demo's nodes at this moment.
fn free_port() -> u16 {
    std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

struct Story {
    demo: Demo,
    port: u16,
}

impl Story {
    async fn start(nodes: usize) -> Self {
        let demo = Demo::start(nodes).await.unwrap();
        demo.wait_formed(nodes).await.unwrap();
        Self { demo, port: free_port() }
    }

    fn spec(&self, image: &str, replicas: u32, more: serde_json::Value) -> String {
        let mut spec = serde_json::json!({
            "Name": "greeters",
            "TaskTemplate": {"ContainerSpec": {"Image": image}, "RestartPolicy": {"Delay": 100_000_000u64}},
            "Mode": {"Replicated": {"Replicas": replicas}},
            "UpdateConfig": {"Parallelism": 1, "Monitor": 300_000_000u64, "FailureAction": "pause"},
            "EndpointSpec": {"Ports": [{"Protocol": "tcp", "TargetPort": 5000, "PublishedPort": self.port, "PublishMode": "ingress"}]},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        spec.to_string()
    }

    async fn request(&self, node: usize, request: Request) -> Result<Accepted, Refused> {
        self.demo.agent(node).unwrap().handle.request(request).await
    }

    async fn create(&self, image: &str, replicas: u32) -> ServiceId {
        let spec_json = self.spec(image, replicas, serde_json::Value::Null);
        let accepted = self.request(0, Request::CreateService { spec_json, auth: None }).await.unwrap();
        accepted.id.parse().unwrap()
    }

    async fn update(&self, node: usize, id: ServiceId, image: &str, replicas: u32) -> Accepted {
        let spec_json = self.spec(image, replicas, serde_json::Value::Null);
        self.request(node, Request::UpdateService { id, version: None, spec_json, auth: None }).await.unwrap()
    }

    async fn ask<T: Send + 'static>(&self, node: usize, question: impl FnOnce(&Core) -> T + Send + 'static) -> T {
        self.demo.agent(node).unwrap().handle.query(question).await.unwrap()
    }

    /// Waits for a level, asking again and again.
    async fn until(&self, node: usize, what: &str, is_so: impl Fn(&Core) -> bool + Send + Sync + Clone + 'static) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let is_so = is_so.clone();
            if self.ask(node, move |core| is_so(core)).await {
                return;
            }
            assert!(Instant::now() < deadline, "not so after {PATIENCE:?}: {what}\n{}", self.picture(node).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn picture(&self, node: usize) -> String {
        self.ask(node, |core| {
            let names: BTreeMap<_, _> =
                core.nodes().iter().map(|n| (n.id, n.fact.as_ref().map(|f| f.hostname.clone()))).collect();
            let tasks = core.tasks().into_iter().map(|t| {
                let status = t.status.map(|s| format!("{} attempt {} {}", s.phase.as_str(), s.attempt, s.error));
                format!(
                    "{:?} on {:?}: want {} have {status:?} {}",
                    t.task.slot,
                    t.task.node.map(|n| &names[&n]),
                    t.task.desired.as_str(),
                    t.task.message
                )
            });
            let nodes = core
                .nodes()
                .into_iter()
                .map(|n| format!("{:?} {:?} holder {} voter {}", names[&n.id], n.liveness, n.is_holder, n.is_voter));
            nodes.chain(tasks).collect::<Vec<_>>().join("\n")
        })
        .await
    }

    async fn until_serving(&self, node: usize, image: &'static str, replicas: usize) {
        self.until(node, &format!("{replicas} replicas of {image} run and nothing else"), move |core| {
            let live: Vec<_> = core.tasks().into_iter().filter(|t| t.task.desired.is_live()).collect();
            live.len() == replicas
                && live.iter().all(|t| {
                    t.status.as_ref().is_some_and(|s| s.phase == TaskPhase::Running)
                        && t.spec.as_ref().is_some_and(|s| s.task.container.image == image)
                })
        })
        .await;
    }

    async fn tasks_on(&self, asked: usize, node: usize) -> BTreeSet<TaskId> {
        let id = self.demo.configs[node].hostname.clone();
        self.ask(asked, move |core| {
            let node = core.nodes().into_iter().find(|n| n.fact.as_ref().is_some_and(|f| f.hostname == id)).unwrap().id;
            core.tasks()
                .into_iter()
                .filter(|t| t.task.node == Some(node) && t.task.desired.is_live())
                .map(|t| t.task.id)
                .collect()
        })
        .await
    }

    async fn holder(&self) -> usize {
        let hostname = self
            .ask(self.any(), |core| {
                core.nodes().into_iter().find(|n| n.is_holder).and_then(|n| n.fact).map(|f| f.hostname)
            })
            .await
            .expect("somebody holds the lease");
        self.demo.configs.iter().position(|c| c.hostname == hostname).unwrap()
    }

    fn any(&self) -> usize {
        self.demo.agents.iter().position(Option::is_some).unwrap()
    }

    async fn set(&self, by: usize, node: usize, availability: Availability) {
        let id = self.demo.agent(node).unwrap().node;
        let request = Request::UpdateNode { id, version: None, availability: Some(availability), labels: None };
        self.request(by, request).await.unwrap();
    }

    /// An endless loop of requests at each of these nodes, until it is ended; every one must be answered.
    fn load(&self, nodes: &[usize]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = nodes.iter().map(|node| {
            let (ip, port, stop) = (self.demo.configs[*node].publish_on, self.port, stop.clone());
            tokio::spawn(async move {
                let mut seen: BTreeMap<String, u32> = BTreeMap::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = get(ip, port).await.unwrap_or_else(|error| format!("FAILED: {error}"));
                    *seen.entry(answer).or_default() += 1;
                }
                seen
            })
        });
        Load { clients: clients.collect(), stop }
    }
}

struct Load {
    clients: Vec<tokio::task::JoinHandle<BTreeMap<String, u32>>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    async fn end(self) -> BTreeMap<String, u32> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for client in self.clients {
            for (answer, count) in client.await.unwrap() {
                *all.entry(answer).or_default() += count;
            }
        }
        all
    }
}

/// "greeter 1" or "greeter 2"; one connection for one request.
async fn get(ip: IpAddr, port: u16) -> Result<String, String> {
    let exchange = async {
        let mut stream = TcpStream::connect((ip, port)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: greeters\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(Duration::from_secs(10), exchange)
        .await
        .map_err(|_| "no answer in 10 s")?
        .map_err(|e| e.to_string())?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let words: Vec<&str> = body.split_whitespace().skip(2).take(2).collect();
    if words.len() == 2 && answer.starts_with("HTTP/1.1 200") {
        Ok(words.join(" "))
    } else {
        Err(format!("answered {answer:?}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_scale_update_pause_roll_back_and_drain() {
    let story = Story::start(4).await;
    let id = story.create("demo/greeter:1", 1).await;
    story.until_serving(0, "demo/greeter:1", 1).await;
    for node in 0..4 {
        story.until_serving(node, "demo/greeter:1", 1).await;
        assert_eq!(
            get(story.demo.configs[node].publish_on, story.port).await.as_deref(),
            Ok("greeter 1"),
            "at node {node}"
        );
    }
    story.update(1, id, "demo/greeter:1", 5).await;
    story.until_serving(3, "demo/greeter:1", 5).await;

    let load = story.load(&[0, 2]);
    story.update(2, id, "demo/greeter:2", 5).await;
    story.until_serving(0, "demo/greeter:2", 5).await;
    let seen = load.end().await;
    assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), ["greeter 1", "greeter 2"], "{seen:?}");

    story.update(0, id, "demo/greeter:bad", 5).await;
    story
        .until(1, "the update is paused", move |core| {
            core.service(id).and_then(|s| s.rollout).is_some_and(|r| r.state == RolloutState::Paused)
        })
        .await;
    story
        .until(1, "the failure is told in the task's row", |core| {
            core.tasks().iter().any(|t| t.status.as_ref().is_some_and(|s| s.error.contains("non-zero exit (1)")))
        })
        .await;
    story.request(3, Request::RollbackService { id, version: None, to: None }).await.unwrap();
    story.until_serving(0, "demo/greeter:2", 5).await;

    let load = story.load(&[1]);
    story.set(0, 0, Availability::Drain).await;
    story.until_serving(0, "demo/greeter:2", 5).await;
    story
        .until(0, "node 1 is empty", |core| {
            core.tasks().iter().all(|t| !t.task.desired.is_live() || Some(core.cluster().node) != t.task.node)
        })
        .await;
    story.set(0, 1, Availability::Drain).await;
    story.set(0, 2, Availability::Drain).await;
    let deadline = Instant::now() + PATIENCE;
    while story.tasks_on(0, 3).await.len() < 5 {
        assert!(Instant::now() < deadline, "all on the last node\n{}", story.picture(0).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    story.until_serving(0, "demo/greeter:2", 5).await;
    let seen = load.end().await;
    assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), ["greeter 2"], "{seen:?}");
    story.demo.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_no_node_fits_says_why_it_waits_and_stops_nothing() {
    let story = Story::start(2).await;
    let id = story.create("demo/greeter:1", 2).await;
    story.until_serving(1, "demo/greeter:1", 2).await;
    let task = serde_json::json!({"ContainerSpec": {"Image": "demo/greeter:1"}, "Placement": {"Constraints": ["node.labels.zone==mars"]}});
    let spec_json = story.spec("demo/greeter:1", 2, serde_json::json!({"TaskTemplate": task}));
    story.request(1, Request::UpdateService { id, version: None, spec_json, auth: None }).await.unwrap();
    story
        .until(0, "the update says what it waits for", move |core| {
            let waits = |m: &str| m.starts_with("update in progress; waiting: ") && m.contains("zone==mars");
            core.service(id).and_then(|s| s.rollout).is_some_and(|r| waits(&r.message))
        })
        .await;
    let (running, renewed) = story
        .ask(0, move |core| {
            let renewed = core.tasks().iter().filter(|t| t.up_to_date && t.task.node.is_some()).count();
            (core.service(id).unwrap().running, renewed)
        })
        .await;
    assert_eq!((running, renewed), (2, 0));
    story.request(0, Request::RollbackService { id, version: None, to: None }).await.unwrap();
    story
        .until(1, "the way back is complete, and nothing waits", move |core| {
            let done = |r: &Rollout| !r.state.is_active() && !r.message.contains("waiting");
            core.service(id).is_some_and(|s| s.running == 2 && s.rollout.as_ref().is_some_and(done))
        })
        .await;
    story.demo.end().await;
}

/// Requests on one connection, over and over, until told to end; how many were answered.
async fn kept(ip: IpAddr, port: u16, stop: Arc<AtomicBool>) -> Result<usize, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect((ip, port)).await.map_err(told)?;
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: greeters\r\n\r\n").await.map_err(told)?;
        let mut answer = Vec::new();
        // The greeting's one line ends the answer.
        while !answer.windows(4).any(|four| four == b"\r\n\r\n")
            || !answer.ends_with(b"\n")
            || answer.ends_with(b"\r\n")
        {
            let read = timeout(Duration::from_secs(10), stream.read_buf(&mut answer)).await;
            if read.map_err(|_| "no answer in 10 s")?.map_err(told)? == 0 {
                return Err(format!("ended after {answered} answers: {:?}", String::from_utf8_lossy(&answer)));
            }
        }
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Err(format!("answered {:?}", String::from_utf8_lossy(&answer)));
        }
        answered += 1;
    }
    Ok(answered)
}

/// Through tunnels, too: of three replicas two are on other nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_an_http_aware_port_a_kept_connection_outlives_a_kill_and_an_update() {
    let story = Story::start(3).await;
    let labels = serde_json::json!({"Labels": {format!("peer.port.{}", story.port): "protocol=http"}});
    let spec = |image| story.spec(image, 3, labels.clone());
    let request = Request::CreateService { spec_json: spec("demo/greeter:1"), auth: None };
    let id: ServiceId = story.request(0, request).await.unwrap().id.parse().unwrap();
    for node in 0..3 {
        story.until_serving(node, "demo/greeter:1", 3).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let clients =
        [0, 1, 2].map(|node| tokio::spawn(kept(story.demo.configs[node].publish_on, story.port, stop.clone())));
    // Nobody is told of this one beforehand.
    let task = *story.tasks_on(0, 1).await.first().unwrap();
    let attempt = move |core: &Core| {
        let tasks = core.tasks();
        tasks.iter().find(|t| t.task.id == task).and_then(|t| t.status.as_ref()).map(|status| status.attempt)
    };
    let first = story.ask(0, attempt).await;
    assert!(story.demo.engine.kill(task));
    story.until(0, "it runs again", move |core| attempt(core) > first).await;
    story.until_serving(0, "demo/greeter:1", 3).await;
    let spec_json = spec("demo/greeter:2");
    story.request(1, Request::UpdateService { id, version: None, spec_json, auth: None }).await.unwrap();
    story.until_serving(0, "demo/greeter:2", 3).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let answered = client.await.unwrap().unwrap();
        assert!(answered > 10, "{answered} answers");
    }
    story.demo.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_holder_dies_in_the_middle_of_an_update() {
    let mut story = Story::start(4).await;
    let id = story.create("demo/greeter:1", 4).await;
    story.until_serving(0, "demo/greeter:1", 4).await;
    story.until(0, "three voters", |core| core.cluster().voters.len() == 3).await;
    let holder = story.holder().await;
    let other = (holder + 1) % 4;
    story.update(other, id, "demo/greeter:2", 4).await;
    story.until(other, "the update has begun", move |core| core.service(id).and_then(|s| s.rollout).is_some()).await;
    story.demo.kill(holder).await;
    story.demo.restart(holder).await.unwrap();
    story.until_serving(other, "demo/greeter:2", 4).await;
    story
        .until(other, "the update is completed", move |core| {
            core.service(id).and_then(|s| s.rollout).is_some_and(|r| r.state == RolloutState::Completed)
        })
        .await;
    story.demo.end().await;
}

/// Not ended, as if the answer were whole, and not left waiting for as long as a tunnel may be silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_a_node_that_dies_is_reset() {
    let mut story = Story::start(3).await;
    story.create("demo/greeter:1", 1).await;
    story.until_serving(0, "demo/greeter:1", 1).await;
    let mut dies = 0;
    while story.tasks_on(0, dies).await.is_empty() {
        dies += 1;
    }
    let other = (dies + 1) % 3;
    story.until_serving(other, "demo/greeter:1", 1).await;
    let ip = story.demo.configs[other].publish_on;
    let mut client = TcpStream::connect((ip, story.port)).await.unwrap();
    // The first request is answered, so the connection stands; the second is never said to its end.
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut buffer = [0; 1024];
    assert!(timeout(PATIENCE, client.read(&mut buffer)).await.unwrap().unwrap() > 0);
    client.write_all(b"GET / HT").await.unwrap();
    story.demo.kill(dies).await;
    let end = timeout(PATIENCE, async {
        while client.read(&mut buffer).await? > 0 {}
        Ok::<_, std::io::Error>(())
    });
    assert_eq!(end.await.unwrap().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    story.demo.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_nodes_tasks_run_elsewhere_and_its_return_moves_nothing_else() {
    let mut story = Story::start(3).await;
    story.create("demo/greeter:1", 6).await;
    story.until_serving(0, "demo/greeter:1", 6).await;
    let kept: Vec<BTreeSet<TaskId>> = vec![story.tasks_on(0, 0).await, story.tasks_on(0, 1).await];
    story.demo.kill(2).await;
    story.until(0, "the third node is down", |core| core.nodes().iter().any(|n| n.liveness == Liveness::Down)).await;
    story.until_serving(0, "demo/greeter:1", 6).await;
    story.demo.restart(2).await.unwrap();
    story.until(0, "the third node is back", |core| core.nodes().iter().all(|n| n.liveness == Liveness::Alive)).await;
    story.until_serving(0, "demo/greeter:1", 6).await;
    assert!(story.tasks_on(0, 2).await.is_empty(), "its old tasks were given up\n{}", story.picture(0).await);
    for (node, before) in kept.iter().enumerate() {
        assert!(story.tasks_on(0, node).await.is_superset(before), "node {node} kept what it had");
    }
    story.demo.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_writes_are_taken_and_carried_out_later() {
    let mut story = Story::start(3).await;
    let id = story.create("demo/greeter:1", 3).await;
    story.until_serving(0, "demo/greeter:1", 3).await;
    story.until(0, "three voters", |core| core.cluster().voters.len() == 3).await;
    let mine = story.tasks_on(0, 0).await;
    story.demo.kill(1).await;
    story.demo.kill(2).await;
    story
        .until(0, "both are down", |core| core.nodes().iter().filter(|n| n.liveness == Liveness::Down).count() == 2)
        .await;
    let accepted = story.update(0, id, "demo/greeter:2", 3).await;
    assert!(accepted.warnings.iter().any(|w| w.contains("pending: held by 1 of 3 nodes")), "{accepted:?}");
    story
        .until(0, "the write is shown as pending", move |core| core.service(id).is_some_and(|s| s.pending.is_some()))
        .await;
    // A container that crashes is restarted here, without anybody's leave, and the port answers.
    let task = *mine.first().unwrap();
    assert!(story.demo.engine.kill(task));
    story
        .until(0, "it runs again", move |core| {
            let view = core.tasks().into_iter().find(|t| t.task.id == task);
            view.and_then(|t| t.status).is_some_and(|s| s.attempt == 1 && s.phase == TaskPhase::Running)
        })
        .await;
    assert_eq!(get(story.demo.configs[0].publish_on, story.port).await.as_deref(), Ok("greeter 1"));
    story.demo.restart(1).await.unwrap();
    story.demo.restart(2).await.unwrap();
    story.until_serving(1, "demo/greeter:2", 3).await;
    story.until(0, "nothing is pending", move |core| core.service(id).is_some_and(|s| s.pending.is_none())).await;
    story.demo.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_restart_moves_nothing() {
    let mut story = Story::start(3).await;
    story.create("demo/greeter:1", 6).await;
    story.until_serving(0, "demo/greeter:1", 6).await;
    story.until(0, "three voters", |core| core.cluster().voters.len() == 3).await;
    for node in 0..3 {
        let asked = (node + 1) % 3;
        let before = story.tasks_on(asked, node).await;
        story.demo.stop(node).await;
        story.demo.restart(node).await.unwrap();
        story.until(asked, "all alive", |core| core.nodes().iter().all(|n| n.liveness == Liveness::Alive)).await;
        story.until_serving(asked, "demo/greeter:1", 6).await;
        assert_eq!(story.tasks_on(asked, node).await, before, "node {node}\n{}", story.picture(asked).await);
        let restarted = story
            .ask(asked, |core| core.tasks().iter().any(|t| t.status.as_ref().is_some_and(|s| s.attempt > 0)))
            .await;
        assert!(!restarted, "no container was restarted");
    }
    story.demo.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_shut_out() {
    let mut story = Story::start(3).await;
    story.create("demo/greeter:1", 6).await;
    story.until_serving(0, "demo/greeter:1", 6).await;
    // Of two voters neither can be spared.
    story.until(0, "three voters", |core| core.cluster().voters.len() == 3).await;
    let removed = story.demo.agent(2).unwrap().node;
    let owner = Owner { cluster: story.demo.agent(2).unwrap().identity.cluster(), node: removed };
    assert!(!story.demo.engine.containers(owner).is_empty());
    let refused = story.request(0, Request::RemoveNode { id: removed, force: false }).await;
    assert!(matches!(refused, Err(Refused::Invalid(ref why)) if why.contains("is not down")), "{refused:?}");
    story.request(0, Request::RemoveNode { id: removed, force: true }).await.unwrap();
    let mut gone = story.demo.agents[2].take().unwrap();
    let ended = timeout(PATIENCE, gone.ended()).await.expect("the removed agent ends by itself");
    assert_eq!(ended, peer::shell::agent::Ended::Removed);
    assert_eq!(story.demo.engine.containers(owner), [], "its containers end with its membership");
    story.until_serving(0, "demo/greeter:1", 6).await;
    story
        .until(0, "nothing is told of what ran there", move |core| {
            core.tasks().iter().all(|t| t.task.node != Some(removed))
        })
        .await;
    story.until(1, "two nodes are left", |core| core.nodes().len() == 2).await;
    // With its old certificate it gets nothing more.
    if story.demo.restart(2).await.is_ok() {
        let mut back = story.demo.agents[2].take().unwrap();
        let ended = timeout(PATIENCE, back.ended()).await.expect("it is told, and ends");
        assert_eq!(ended, peer::shell::agent::Ended::Removed);
    }
    assert_eq!(story.ask(1, |core| core.nodes().len()).await, 2);
    story.demo.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sole_voter_of_two_leaves_for_good() {
    let mut story = Story::start(2).await;
    let id = story.create("demo/greeter:1", 2).await;
    story.until_serving(0, "demo/greeter:1", 2).await;
    let voter = story.holder().await;
    let survivor = 1 - voter;
    let removed = story.demo.agent(voter).unwrap().node;
    story.request(survivor, Request::RemoveNode { id: removed, force: true }).await.unwrap();
    let mut gone = story.demo.agents[voter].take().unwrap();
    timeout(PATIENCE, gone.ended()).await.expect("the removed agent ends by itself");
    // The one that is left leads, carries on and takes new orders.
    story.until_serving(survivor, "demo/greeter:1", 2).await;
    story.update(survivor, id, "demo/greeter:2", 2).await;
    story.until_serving(survivor, "demo/greeter:2", 2).await;
    story.demo.end().await;
}
