//! What happens in the cluster, as anybody hears of it: `/events` of real agents over the built-in engine, with another node's
//! doings in it, and `peer events`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod page_support;

use page_support::{PATIENCE, deploy};
use peer::core::face::Request;
use peer::core::view::Since;
use peer::model::node::Availability;
use peer::shell::demo::Demo;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::time::timeout;

struct Stream {
    lines: Lines<BufReader<UnixStream>>,
    seen: Vec<Value>,
}

impl Stream {
    async fn open(socket: &Path, query: &str) -> Self {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let request = format!("GET /v1.47/events?{query} HTTP/1.1\r\nHost: peer\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        // What happens from here on is in it.
        while !timeout(PATIENCE, lines.next_line()).await.expect("an answer").unwrap().expect("an answer").is_empty() {}
        Self { lines, seen: Vec::new() }
    }

    /// Until one came of which it holds.
    async fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let reading = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the stream goes on");
                if let Ok(event) = serde_json::from_str::<Value>(&line)
                    && event.is_object()
                {
                    self.seen.push(event.clone());
                    if is_it(&event) {
                        return event;
                    }
                }
            }
        };
        match timeout(PATIENCE, reading).await {
            Ok(event) => event,
            Err(_) => panic!("waited for {what}; there came {:#?}", self.seen),
        }
    }

    fn count(&self, is_it: impl Fn(&Value) -> bool) -> usize {
        self.seen.iter().filter(|event| is_it(event)).count()
    }
}

fn is(event: &Value, kind: &str, action: &str) -> bool {
    event["Type"] == kind && event["Action"] == action
}

fn says<'a>(event: &'a Value, attribute: &str) -> &'a str {
    event["Actor"]["Attributes"][attribute].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_tells_of_nodes_services_tasks_rollouts_and_the_lease() {
    let mut demo = Demo::start(3).await.unwrap();
    demo.wait_formed(3).await.unwrap();
    // Of a node that has no part in it.
    let mut stream = Stream::open(&demo.socket(2), "filters=%7B%22scope%22%3A%5B%22swarm%22%5D%7D").await;
    let id = deploy(&demo, 2).await;
    let started = |event: &Value| is(event, "task", "update") && says(event, "state.new") == "running";
    let created = stream.until("the service", |event| is(event, "service", "create")).await;
    assert_eq!((created["Actor"]["ID"].as_str(), says(&created, "name")), (Some(id.as_str()), "greeters"));
    assert_eq!(says(&created, "by"), "node1");
    let change = says(&created, "change").to_owned();
    let running = stream.until("a task that runs", started).await;
    assert_eq!(says(&running, "com.docker.swarm.service.name"), "greeters");
    assert_eq!(says(&running, "change"), change, "which change it is that made this task");
    assert!(says(&running, "name").starts_with("greeters."));
    assert!(!says(&running, "node.name").is_empty());
    if stream.count(started) < 2 {
        stream.until("the other one", started).await;
    }

    let spec = json!({
        "Name": "greeters",
        "TaskTemplate": {"ContainerSpec": {"Image": "demo/greeter:2"}},
        "Mode": {"Replicated": {"Replicas": 3}},
        "UpdateConfig": {"Parallelism": 2, "Order": "start-first", "Monitor": 100_000_000u64},
    });
    let update =
        Request::UpdateService { id: id.parse().unwrap(), version: None, spec_json: spec.to_string(), auth: None };
    demo.agent(1).unwrap().handle.request(update).await.unwrap();
    let updated = stream.until("the update", |event| is(event, "service", "update")).await;
    assert_eq!((says(&updated, "replicas.old"), says(&updated, "replicas.new")), ("2", "3"));
    assert_eq!((says(&updated, "image.old"), says(&updated, "image.new")), ("demo/greeter:1", "demo/greeter:2"));
    let completed = stream.until("the rollout's end", |event| is(event, "rollout", "completed")).await;
    assert_eq!((says(&completed, "change"), says(&completed, "failed")), (says(&updated, "change"), "0"));
    let as_docker = |event: &Value| is(event, "service", "update") && says(event, "updatestate.new") == "completed";
    assert_eq!(stream.count(as_docker), 1);

    let node3 = demo.agent(2).unwrap().node;
    let availability = Some(Availability::Drain);
    let drain = Request::UpdateNode { id: node3, version: None, availability, labels: None };
    demo.agent(0).unwrap().handle.request(drain).await.unwrap();
    let drained = stream.until("the drain", |event| is(event, "node", "update")).await;
    assert_eq!((says(&drained, "availability.old"), says(&drained, "availability.new")), ("active", "drain"));
    assert_eq!(drained["Actor"]["ID"], node3.to_string());

    // (Not the founder, which may be the only voter yet.)
    demo.kill(1).await;
    let gone = |event: &Value| is(event, "node", "update") && says(event, "state.new") == "down";
    assert_eq!(says(&stream.until("the crash", gone).await, "name"), "node2");
    let remove = Request::RemoveService { id: id.parse().unwrap() };
    demo.agent(0).unwrap().handle.request(remove).await.unwrap();
    stream.until("the service's end", |event| is(event, "service", "remove")).await;
    stream.until("a task's end", |event| is(event, "task", "remove")).await;
    let times: Vec<u64> = stream.seen.iter().map(|event| event["timeNano"].as_u64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "times tell events apart");
    assert!(stream.seen.iter().all(|event| event["scope"] == "swarm"));
    assert!(!stream.seen.iter().any(|event| event.to_string().contains("SECRET")));

    // The same, from what was kept, as the command line shows it.
    let host = format!("unix://{}", demo.socket(2).display());
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command.args(["-H", &host, "events", "--since", "1h", "--until", "0s", "--filter", "service=greeters"]);
        command.args(["--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"]).output().unwrap()
    });
    let output = output.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in ["service create greeters", "rollout completed greeters", "service remove greeters"] {
        assert!(text.lines().any(|said| said == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("node update"), "{text}");
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_the_lease_is_told_at_the_start_and_what_was_there_is_not() {
    let demo = Demo::start(1).await.unwrap();
    demo.wait_formed(1).await.unwrap();
    let mut stream = Stream::open(&demo.socket(0), "since=0").await;
    let acquired = stream.until("the lease", |event| is(event, "lease", "acquire")).await;
    assert_eq!(says(&acquired, "name"), "node1");
    assert_eq!(stream.count(|event| event["Type"] == "node"), 0, "what was there at the start is no news");
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_returns_tells_what_happens_and_not_what_has_happened() {
    let mut demo = Demo::start(2).await.unwrap();
    demo.wait_formed(2).await.unwrap();
    let mut stream = Stream::open(&demo.socket(0), "since=1").await;
    let before = deploy(&demo, 1).await;
    let runs = |event: &Value| is(event, "task", "update") && says(event, "state.new") == "running";
    stream.until("its task", runs).await;
    demo.kill(1).await;
    // Written while it was away: news to it, but old.
    let remove = Request::RemoveService { id: before.parse().unwrap() };
    demo.agent(0).unwrap().handle.request(remove).await.unwrap();
    demo.restart(1).await.unwrap();
    demo.wait_formed(2).await.unwrap();
    let mut returned = Stream::open(&demo.socket(1), "since=1").await;
    let node2 = demo.agent(1).unwrap().node;
    let availability = Some(Availability::Pause);
    let pause = Request::UpdateNode { id: node2, version: None, availability, labels: None };
    demo.agent(0).unwrap().handle.request(pause).await.unwrap();
    returned.until("what happens now", |event| is(event, "node", "update")).await;
    let old = |event: &Value| {
        event["Type"] == "service"
            || is(event, "task", "create")
            || is(event, "node", "create")
            || is(event, "lease", "acquire")
    };
    assert_eq!(returned.count(old), 0, "{:#?}", returned.seen);
    // Since when the lease is held all nodes say alike, whoever was there as it was got.
    let deadline = Instant::now() + PATIENCE;
    while held(&demo, 1).await != held(&demo, 0).await {
        assert!(Instant::now() < deadline, "{:?} and {:?}", held(&demo, 0).await, held(&demo, 1).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    demo.end().await;
}

/// Who holds the lease, and since when, by a node's word.
async fn held(demo: &Demo, index: usize) -> (Option<String>, Option<Since>) {
    let view = demo.agent(index).unwrap().handle.query(|core| core.cluster()).await.unwrap();
    (view.holder.map(|(node, term)| format!("{node} {}", term.round)), view.holder_since)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_moved_while_a_node_was_away_is_no_news_to_it_and_one_that_nobody_can_renew_is_lost() {
    let mut demo = Demo::start(3).await.unwrap();
    demo.wait_formed(3).await.unwrap();
    let holds = async |index: usize| {
        demo.agent(index).unwrap().handle.query(|core| core.node(core.cluster().node).unwrap().is_holder).await.unwrap()
    };
    // One voter alone takes the lease with it.
    let deadline = Instant::now() + PATIENCE;
    while demo.agent(1).unwrap().handle.query(|core| core.cluster().voters.len()).await.unwrap() < 3 {
        assert!(Instant::now() < deadline, "three voters");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut holder = 0;
    while !holds(holder).await {
        holder = (holder + 1) % 3;
    }
    let other = (holder + 1) % 3;
    let mut stream = Stream::open(&demo.socket(other), "").await;
    demo.kill(holder).await;
    stream.until("the next holder", |event| is(event, "lease", "acquire")).await;
    demo.restart(holder).await.unwrap();
    while held(&demo, holder).await.0 != held(&demo, other).await.0 {
        assert!(Instant::now() < deadline, "{:?}, not {:?}", held(&demo, holder).await, held(&demo, other).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (ours, theirs) = (held(&demo, holder).await.1.unwrap(), held(&demo, other).await.1.unwrap());
    assert!(ours == theirs || (!ours.is_exact && ours.at >= theirs.at), "{ours:?}, and {theirs:?}");
    let mut returned = Stream::open(&demo.socket(holder), "since=0").await;
    let id = demo.agent(other).unwrap().node;
    let pause = Request::UpdateNode { id, version: None, availability: Some(Availability::Pause), labels: None };
    demo.agent(other).unwrap().handle.request(pause).await.unwrap();
    returned
        .until("what happens now", |event| is(event, "node", "update") && says(event, "availability.new") == "pause")
        .await;
    assert_eq!(returned.count(|event| is(event, "lease", "acquire")), 0, "{:#?}", returned.seen);

    // Two of three are gone: whoever held it can't renew it, and says so.
    for index in (0..3).filter(|index| *index != other) {
        demo.kill(index).await;
    }
    stream.until("the end of the lease", |event| is(event, "lease", "lose")).await;
    assert_eq!(held(&demo, other).await, (None, None));
    demo.end().await;
}

/// Whoever leads sees what happened and what it decides on that at one go: told is the cause before what comes of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tasks_failure_is_told_before_the_pause_that_it_leads_to() {
    let demo = Demo::start(1).await.unwrap();
    demo.wait_formed(1).await.unwrap();
    let id = deploy(&demo, 2).await.parse().unwrap();
    let service = demo.agent(0).unwrap().handle.query(move |core| core.service(id)).await.unwrap().unwrap();
    let mut stream = Stream::open(&demo.socket(0), "").await;
    let mut spec: Value = serde_json::from_str(&service.spec_json).unwrap();
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("demo/greeter:bad");
    let update = Request::UpdateService { id, version: None, spec_json: spec.to_string(), auth: None };
    demo.agent(0).unwrap().handle.request(update).await.unwrap();
    stream.until("the pause", |event| is(event, "rollout", "paused")).await;
    let began = stream.seen.iter().position(|event| is(event, "rollout", "updating")).expect("it began");
    let failed = stream.seen.iter().position(|event| event["Type"] == "task" && says(event, "state.new") == "failed");
    assert!(began < failed.expect("what failed comes first"), "{:#?}", stream.seen);
    demo.end().await;
}
