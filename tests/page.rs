//! The cluster page on real agents: its stream, its actions, who may do what, and the metrics. How it looks in a browser
//! is `page_browser.rs`'s subject.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod page_support;

use page_support::{Stream, deploy, http, link_of};
use peer::shell::demo::Demo;
use serde_json::{Value, json};

/// The stream's picture once `is_so` holds of it.
async fn until(stream: &mut Stream, what: &str, is_so: impl Fn(&Stream) -> bool) {
    while !is_so(stream) {
        assert!(stream.next().await, "the stream ended before: {what}");
    }
}

fn running(stream: &Stream, tag: &str) -> usize {
    let runs = |t: &&Value| {
        t["phase"] == "running" && t["desired"] == "running" && t["image"] == format!("demo/greeter:{tag}")
    };
    stream.all("t/").filter(runs).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_and_changes_the_cluster_as_it_is() {
    let demo = Demo::start(3).await.unwrap();
    demo.wait_formed(3).await.unwrap();
    let (addr, token) = link_of(&demo, 1);
    let mut stream = Stream::open(addr, None).await;
    until(&mut stream, "three nodes", |s| s.all("n/").filter(|n| n["status"] == "ready").count() == 3).await;
    assert_eq!(stream.all("n/").filter(|n| n["holder"] == true).count(), 1);

    let id = deploy(&demo, 2).await;
    until(&mut stream, "two replicas", |s| running(s, "1") == 2).await;
    assert!(!stream.text.contains("SECRET"), "a spec's environment stays inside");

    // From another node's page: whatever was done is seen everywhere.
    let (other, other_token) = link_of(&demo, 2);
    let act = |body: Value| http(other, "POST", "/act", Some(&other_token), Some(body));
    assert_eq!(act(json!({"do": "scale", "service": id, "replicas": 4})).await.0, 200);
    until(&mut stream, "four replicas", |s| running(s, "1") == 4).await;
    assert_eq!(act(json!({"do": "update-image", "service": id, "image": "demo/greeter:2"})).await.0, 200);
    until(&mut stream, "the new version", |s| running(s, "2") == 4).await;
    assert_eq!(act(json!({"do": "rollback", "service": id})).await.0, 200);
    until(&mut stream, "the old version again", |s| running(s, "1") == 4).await;
    let node = stream.all("n/").find(|n| n["name"] == "node3").unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(act(json!({"do": "availability", "node": node, "availability": "drain"})).await.0, 200);
    until(&mut stream, "node3 is empty", |s| {
        running(s, "1") == 4 && s.all("t/").filter(|t| t["desired"] == "running").all(|t| t["node"] != node.as_str())
    })
    .await;

    // And what happened, which is told beside it.
    let is = |e: &Value, kind: &str, action: &str| e["Type"] == kind && e["Action"].as_str().unwrap().ends_with(action);
    until(&mut stream, "its events", |s| {
        let told = |kind: &str, action: &str| s.happened.iter().any(|e| is(e, kind, action) && e["scope"] == "swarm");
        // (The rollback may have come before the update was complete.)
        told("service", "create") && told("rollout", "completed") && told("task", "update")
    })
    .await;

    // Whom each node hears by its own word, and how far away they are, on the page of one of them.
    let ids: Vec<String> = stream.all("n/").map(|n| n["id"].as_str().unwrap().to_owned()).collect();
    let this = stream.seen["c"]["self"].clone();
    for id in &ids {
        let (status, near) = http(addr, "GET", &format!("/network/{id}"), None, None).await;
        let near: Value = serde_json::from_str(&near).unwrap();
        assert_eq!((status, &near["why"]), (200, &Value::Null), "{near}");
        let rows = near["hears"].as_array().unwrap();
        let heard: std::collections::BTreeSet<&str> = rows.iter().map(|row| row["node"].as_str().unwrap()).collect();
        let others = ids.iter().filter(|other| *other != id).map(String::as_str).collect();
        assert_eq!(heard, others, "the others, and not itself");
        for row in rows.iter().chain(near["heard"].as_object().map(|_| &near["heard"])) {
            assert!(row["heard"].as_u64().is_some_and(|ms| ms < 60_000), "{row}");
            assert!(row["rtt"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 5_000.0), "{row}");
            assert_eq!((&row["verdict"], &row["silent"]), (&Value::Null, &json!(false)), "{row}");
        }
        // How the page's own node hears that one.
        assert_eq!(near["heard"]["node"], if *id == this { Value::Null } else { json!(id) });
    }
    let nobody = http(addr, "GET", "/network/1111111111111111111111111", None, None).await;
    assert_eq!(nobody.0, 404, "{}", nobody.1);

    // How busy each machine is, where it tells: here they are all this one.
    if cfg!(target_os = "linux") {
        let told = |u: &&Value| ["cpu", "memory"].iter().all(|what| u[what].is_array());
        until(&mut stream, "what is in use", |s| s.all("u/").filter(told).count() == 3).await;
        for u in stream.all("u/") {
            let number = |pointer: &str| u.pointer(pointer).unwrap().as_u64().unwrap();
            assert!(number("/cpu/0") <= number("/cpu/1") && number("/cpu/1") >= 1_000, "{u}");
            assert!(number("/memory/0") > 0 && number("/memory/0") < number("/memory/1"), "{u}");
        }
    }
    // Since when the lease is held: not before the cluster was there.
    let (since, created) = (stream.seen["c"]["since"].as_u64().unwrap(), stream.seen["c"]["created"].as_u64().unwrap());
    assert!(since / 1_000 >= created / 1_000 && since < created + 600_000, "{since} {created}");

    // What its greeters said, for who may act alone: a log may hold secrets.
    let path = format!("/logs/{id}");
    assert_eq!(http(addr, "GET", &path, None, None).await.0, 401);
    let (status, said) = http(addr, "GET", &path, Some(&token), None).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status, &said["whole"]), (200, &json!(true)));
    assert!(!said["lines"].as_array().unwrap().is_empty(), "{said}");
    let nobody = http(addr, "GET", "/logs/1111111111111111111111111", Some(&token), None).await;
    assert_eq!(nobody.0, 404, "{}", nobody.1);

    // What the stream added up to is what a page that is opened now is given.
    let fresh = Stream::open(addr, None).await;
    until(&mut stream, "both are alike", |s| s.seen == fresh.seen).await;

    // The history is for those who may change things.
    let (status, revisions) = http(addr, "GET", &format!("/history/{id}"), Some(&token), None).await;
    let revisions: Value = serde_json::from_str(&revisions).unwrap();
    assert_eq!(status, 200);
    assert_eq!(revisions.as_array().unwrap().iter().filter(|r| r["current"] == true).count(), 1);
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_changes_anything_without_the_token_and_bad_input_is_told() {
    let demo = Demo::start(1).await.unwrap();
    demo.wait_formed(1).await.unwrap();
    let (addr, token) = link_of(&demo, 0);
    let id = deploy(&demo, 1).await;
    let scale = json!({"do": "scale", "service": id, "replicas": 2});
    for guess in [None, Some("guess"), Some("")] {
        let (status, said) = http(addr, "POST", "/act", guess, Some(scale.clone())).await;
        assert_eq!(status, 401, "{said}");
        assert!(said.contains("peer dashboard"), "{said}");
        assert_eq!(http(addr, "GET", &format!("/history/{id}"), guess, None).await.0, 401);
    }
    let act = |body: Value| http(addr, "POST", "/act", Some(&token), Some(body));
    let nobody = "1111111111111111111111111";
    for (body, word) in [
        (json!({"do": "explode"}), "explode"),
        (json!({"do": "scale", "service": id}), "replicas"),
        (json!({"do": "scale", "service": id, "replicas": -1}), "expected u32"),
        (json!({"do": "scale", "service": nobody, "replicas": 1}), "not found"),
        (json!({"do": "update-image", "service": id, "image": "Not An Image"}), "Image"),
        (json!({"do": "resume", "service": id}), "isn't paused"),
        (json!({"do": "availability", "node": nobody, "availability": "asleep"}), "asleep"),
        (json!("scale"), "expected"),
    ] {
        let (status, said) = act(body.clone()).await;
        assert!((400..500).contains(&status) && said.contains(word), "{body}: {status} {said}");
    }
    let replicas = demo.agent(0).unwrap().handle.query(|core| core.services()[0].desired).await.unwrap();
    assert_eq!(replicas, 1, "none of it changed anything");
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_is_shown_with_the_time_when_it_was_last_heard() {
    let mut demo = Demo::start(3).await.unwrap();
    demo.wait_formed(3).await.unwrap();
    let (addr, _) = link_of(&demo, 0);
    let mut stream = Stream::open(addr, None).await;
    until(&mut stream, "three nodes", |s| s.all("n/").filter(|n| n["status"] == "ready").count() == 3).await;
    assert!(stream.all("n/").all(|n| n["heard"].is_null()), "who is there is heard all the time");
    let gone = demo.agent(2).unwrap().node.to_string();
    let now = || u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
    let before = now();
    demo.kill(2).await;
    let of = |s: &Stream| s.seen[&format!("n/{gone}")].clone();
    until(&mut stream, "it is down", |s| of(s)["status"] == "down").await;
    let heard = of(&stream)["heard"].as_u64().expect("a time");
    assert!(heard + 10_000 > before && heard <= now(), "{heard}, killed at {before}");
    until(&mut stream, "of a machine that doesn't answer nothing is in use", |s| {
        !s.seen.contains_key(&format!("u/{gone}"))
    })
    .await;
    // What it hears nobody knows, and the page says why; when it was heard here is known.
    let (status, near) = http(addr, "GET", &format!("/network/{gone}"), None, None).await;
    let near: Value = serde_json::from_str(&near).unwrap();
    assert_eq!((status, &near["hears"]), (200, &Value::Null), "{near}");
    assert!(near["why"].as_str().is_some_and(|why| !why.is_empty()), "{near}");
    assert_eq!(near["heard"]["node"], gone.as_str());
    demo.restart(2).await.unwrap();
    until(&mut stream, "it is back", |s| of(s)["status"] == "ready" && of(s)["heard"].is_null()).await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_update_is_resumed_from_the_page() {
    let demo = Demo::start(1).await.unwrap();
    demo.wait_formed(1).await.unwrap();
    let (addr, token) = link_of(&demo, 0);
    let id = deploy(&demo, 2).await;
    let mut stream = Stream::open(addr, None).await;
    until(&mut stream, "two replicas", |s| running(s, "1") == 2).await;
    let act = |body: Value| http(addr, "POST", "/act", Some(&token), Some(body));
    assert_eq!(act(json!({"do": "update-image", "service": id, "image": "demo/greeter:bad"})).await.0, 200);
    let rollout = |s: &Stream| s.seen[&format!("s/{id}")]["rollout"].clone();
    until(&mut stream, "a pause", |s| rollout(s)["state"] == "paused" && running(s, "1") == 2).await;
    let bad = |t: &&Value| t["image"] == "demo/greeter:bad" && t["desired"] == "running";
    until(&mut stream, "what ran before instead of what failed", |s| s.all("t/").filter(bad).count() == 0).await;
    // The one that paused it, too.
    let (_, text) = http(addr, "GET", "/metrics", None, None).await;
    let failures = text.lines().find_map(|line| line.strip_prefix("peer_rollout_task_failures_total ")).unwrap();
    assert!(failures.parse::<u64>().unwrap() >= 1, "{failures}");
    let first = rollout(&stream)["started"].clone();
    assert_eq!(act(json!({"do": "resume", "service": id})).await.0, 200);
    // It is as bad as it was.
    until(&mut stream, "another try", |s| rollout(s)["state"] == "paused" && rollout(s)["started"] != first).await;
    // And the way back leads past both tries.
    assert_eq!(act(json!({"do": "rollback", "service": id})).await.0, 200);
    until(&mut stream, "what ran before", |s| {
        rollout(s)["state"] == "rollback_completed"
            && running(s, "1") == 2
            && s.seen[&format!("s/{id}")]["image"] == "demo/greeter:1"
    })
    .await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_prometheus_text_and_true() {
    let demo = Demo::start(2).await.unwrap();
    demo.wait_formed(2).await.unwrap();
    let id = deploy(&demo, 3).await;
    let (addr, _) = link_of(&demo, 0);
    let mut stream = Stream::open(addr, None).await;
    until(&mut stream, "three replicas", |s| running(s, "1") == 3).await;
    let (status, text) = http(addr, "GET", "/metrics", None, None).await;
    assert_eq!(status, 200);
    let mut kinds = std::collections::BTreeMap::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# TYPE ") {
            let (name, kind) = comment.split_once(' ').unwrap();
            assert!(kinds.insert(name, kind).is_none(), "{name} stands twice");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let series = series.split('{').next().unwrap();
        let of = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end));
        let name = of.filter(|name| kinds.get(name) == Some(&"histogram")).unwrap_or(series);
        assert!(name.starts_with("peer_"), "{line}");
        let kind = kinds.get(name).unwrap_or_else(|| panic!("{line} has no type"));
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    for line in [
        "peer_members{state=\"alive\"} 2",
        "peer_service_replicas_running{service=\"greeters\"} 3",
        "peer_service_replicas_desired{service=\"greeters\"} 3",
        "peer_quorum 1",
        "peer_request_seconds_count{result=\"acknowledged\"} 1",
        "peer_engine_call_errors_total{call=\"create\"} 0",
        "# TYPE peer_mesh_connections_total counter",
        "# TYPE peer_mesh_failures_total counter",
        "# TYPE peer_mesh_connections_open gauge",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    let value = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse::<f64>().unwrap()
    };
    assert!(value("peer_lease_age_seconds") > 0.0);
    assert!(value("peer_lease_changes_total") >= 1.0 && value("peer_probe_patience") >= 1.0);
    assert!(value("peer_suspicions_total") >= value("peer_suspicions_refuted_total"));
    assert!(value("peer_engine_call_seconds_sum{call=\"create\"}") > 0.0);
    for family in ["membership", "records"] {
        for direction in ["sent", "received"] {
            let labels = format!("{{direction=\"{direction}\",family=\"{family}\"}}");
            assert!(value(&format!("peer_messages_total{labels}")) > 0.0);
            assert!(value(&format!("peer_message_bytes_total{labels}")) > 10.0);
        }
    }
    value("peer_replication_lag_records{node=\"node2\"}");
    let memory = text.lines().find_map(|l| l.strip_prefix("peer_process_resident_memory_bytes ")).unwrap();
    assert!(memory.parse::<u64>().unwrap() > 1 << 20);
    assert!(!text.contains(&id), "series are named by what stays");
    demo.end().await;
}

/// Names that stand behind `peer_` in a text, but for what a histogram's series end with.
fn names_in(text: &str) -> std::collections::BTreeSet<String> {
    let names = text.split("peer_").skip(1).map(|rest| {
        let name: String =
            rest.chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_').collect();
        let end = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        end.map_or_else(|| name.clone(), str::to_owned)
    });
    names.collect()
}

/// What an operator installs from `deploy/` must ask for what there is.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_and_the_alerts_ask_for_metrics_that_exist() {
    let demo = Demo::start(1).await.unwrap();
    demo.wait_formed(1).await.unwrap();
    let (addr, _) = link_of(&demo, 0);
    let (_, text) = http(addr, "GET", "/metrics", None, None).await;
    let there: std::collections::BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE peer_")?.split(' ').next()).collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for (file, least) in [("grafana/peer.json", 25), ("prometheus/peer.rules.yml", 12)] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let asked = names_in(&text);
        assert!(asked.len() >= least, "{file}: {asked:?}");
        let missing: Vec<_> = asked.iter().filter(|name| !there.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}");
    }
    let dashboard = std::fs::read_to_string(root.join("grafana/peer.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 20);

    // Prometheus' own judgement, where it is installed (PROMTOOL names it if it isn't in the PATH).
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let rules = std::process::Command::new(&promtool)
        .arg("check")
        .arg("rules")
        .arg(root.join("prometheus/peer.rules.yml"))
        .output();
    match rules {
        Ok(output) => assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(_) => {
            eprintln!("SKIPPED: the rules were not tried with promtool: it is missing (apt-get install prometheus)")
        }
    }
    let mut check = std::process::Command::new(&promtool);
    let check = check
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    if let Ok(mut check) = check {
        std::io::Write::write_all(&mut check.stdin.take().unwrap(), text.as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    demo.end().await;
}
