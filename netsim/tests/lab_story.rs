//! The story on real engines: three nodes in namespaces of their own, each with its own dockerd, real agents killed
//! with SIGKILL, a real cable pulled. Skipped, loudly, where there is no root or no dockerd.

use netsim::lab::{Lab, LabConfig, address, wait_until};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);

/// The peer binary of this build: cargo puts it two levels above the test's own.
fn peer_binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("peer")
}

fn lab(nodes: usize) -> Option<Lab> {
    let peer = peer_binary();
    let missing = Lab::missing().or_else(|| (!peer.exists()).then(|| format!("{} is not built", peer.display())));
    if let Some(why) = missing {
        eprintln!("SKIPPED: the tests on real engines did not run: {why}");
        return None;
    }
    let dir = PathBuf::from(format!("/tmp/pl{}", std::process::id()));
    Some(Lab::up(LabConfig { nodes, dir, peer: Some(peer) }).unwrap())
}

fn image(tag: &str) -> String {
    format!("localhost:1/greeter:{tag}")
}

/// (image, node) of every task that is wanted and runs.
fn running(lab: &Lab, node: usize) -> Vec<(String, String)> {
    let format = "{{.Image}} {{.Node}} {{.CurrentState}}";
    let args = ["service", "ps", "--filter", "desired-state=running", "--format", format, "greeters"];
    let Ok(table) = lab.peer_ok(node, &args) else { return Vec::new() };
    let row = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let (image, node, state) = (words.next()?, words.next()?, words.next()?);
        (state == "Running").then_some((image, node))
    };
    table.lines().filter_map(row).collect()
}

fn until_running(lab: &Lab, node: usize, tag: &str, replicas: usize) {
    let is_so = || {
        let rows = running(lab, node);
        rows.len() == replicas && rows.iter().all(|(image, _)| image.contains(&format!("greeter:{tag}")))
    };
    until(lab, node, &format!("{replicas} replicas of greeter:{tag} run"), is_so);
}

fn until(lab: &Lab, node: usize, what: &str, is_so: impl FnMut() -> bool) {
    if let Err(error) = wait_until(what, PATIENCE, is_so) {
        let tables =
            [["service", "ps", "greeters"].as_slice(), &["node", "ls"]].map(|args| lab.peer(node, args).unwrap());
        panic!("{error}\n{}", tables.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).join("\n"));
    }
}

fn all_ready(lab: &Lab, node: usize, count: usize) {
    let ready = || lab.peer_ok(node, &["node", "ls"]).is_ok_and(|table| table.matches(" Ready ").count() == count);
    until(lab, node, &format!("{count} nodes are ready"), ready);
}

fn curl(node: usize) -> String {
    let url = format!("http://{}:9000/", address(node));
    let output = Command::new("curl").args(["-s", "-S", "-m", "5", &url]).output().unwrap();
    assert!(output.status.success(), "node {node}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An endless loop of requests from outside; one line of output each.
fn load(node: usize) -> Child {
    let script = format!("while :; do curl -s -S -m 5 http://{}:9000/ 2>&1 || echo FAILED; done", address(node));
    Command::new("bash").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap()
}

fn answers(mut load: Child) -> Vec<String> {
    load.kill().unwrap();
    let output = load.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn container_ids(lab: &Lab, node: usize) -> Vec<String> {
    let command = ["docker", "ps", "-q", "--no-trunc", "--filter", "label=peer.node"].map(str::to_owned);
    let output = lab.exec(node, &command).unwrap();
    let mut ids: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    ids.sort();
    ids
}

#[test]
fn the_story_on_real_engines() {
    let Some(mut lab) = lab(3) else { return };
    all_ready(&lab, 1, 3);
    let create =
        ["service", "create", "-q", "--name", "greeters", "--publish", "9000:5000", "--update-monitor", "500ms"];
    lab.peer_ok(2, &[&create[..], &["--restart-delay", "500ms", &image("1")]].concat()).unwrap();
    for node in 1..=3 {
        // The create was acknowledged by a majority; the word of it may be on its way to a third.
        until(&lab, 1, &format!("node {node} takes connections"), || {
            std::net::TcpStream::connect((address(node).as_str(), 9000)).is_ok()
        });
        assert!(curl(node).starts_with("Hello from greeter 1 "), "node {node}");
    }
    lab.peer_ok(3, &["service", "scale", "greeters=5"]).unwrap();
    until_running(&lab, 1, "1", 5);

    // Endless requests at two nodes during the update: both versions seen, none failed, then only the new one.
    let loads = [load(1), load(3)];
    lab.peer_ok(2, &["service", "update", "--image", &image("2"), "greeters"]).unwrap();
    until_running(&lab, 1, "2", 5);
    for answers in loads.map(answers) {
        let failed: Vec<&String> = answers.iter().filter(|a| !a.starts_with("Hello from greeter ")).collect();
        assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), answers.len());
        assert!(answers.iter().any(|a| a.contains("greeter 1")) && answers.iter().any(|a| a.contains("greeter 2")));
    }
    assert!(curl(2).contains("greeter 2"));

    // A bad image pauses the update, `ps` says why, a rollback mends it.
    let paused = lab.peer(1, &["service", "update", "--image", &image("crash"), "greeters"]).unwrap();
    assert_eq!(paused.status.code(), Some(1), "{paused:?}");
    assert!(String::from_utf8_lossy(&paused.stderr).contains("paused"), "{paused:?}");
    assert!(lab.peer_ok(3, &["service", "ps", "greeters"]).unwrap().contains("non-zero exit (1)"));
    lab.peer_ok(3, &["service", "rollback", "greeters"]).unwrap();
    until_running(&lab, 1, "2", 5);

    // An agent that is SIGKILLed and started again adopts its containers.
    let before = container_ids(&lab, 2);
    assert!(!before.is_empty());
    lab.kill_agent(2).unwrap();
    lab.start_agent(2, None).unwrap();
    all_ready(&lab, 1, 3);
    until_running(&lab, 2, "2", 5);
    assert_eq!(container_ids(&lab, 2), before);

    // A node vanishes: its tasks run elsewhere; it returns: duplicates go, nothing else moves.
    let kept = container_ids(&lab, 1);
    lab.set_link(3, false).unwrap();
    until(&lab, 1, "five replicas run on the other two", || {
        let rows = running(&lab, 1);
        rows.len() == 5 && rows.iter().all(|(_, node)| node != "node3")
    });
    lab.heal().unwrap();
    until(&lab, 1, "the returned node has given up its duplicates", || container_ids(&lab, 3).is_empty());
    let now = container_ids(&lab, 1);
    assert!(kept.iter().all(|id| now.contains(id)), "nothing else moved");

    // Drain all but one.
    for node in ["node2", "node3"] {
        lab.peer_ok(1, &["node", "update", "--availability", "drain", node]).unwrap();
    }
    until(&lab, 1, "everything runs on node1", || {
        let rows = running(&lab, 1);
        rows.len() == 5 && rows.iter().all(|(_, node)| node == "node1")
    });
    assert!(curl(3).contains("greeter 2"));
    let dir = lab.config.dir.display().to_string();
    lab.down().unwrap();
    let left =
        Command::new("pgrep").args(["-af", &format!("^(tini|dockerd|containerd|.*/peer) .*{dir}/")]).output().unwrap();
    assert!(left.stdout.is_empty(), "left behind: {}", String::from_utf8_lossy(&left.stdout));
}
