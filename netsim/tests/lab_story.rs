//! The story on real engines: four nodes in namespaces of their own, each with its own dockerd, images pulled from a
//! registry. Skipped, loudly, where there is no root or no dockerd.

mod common;

use common::{Cluster, load};
use netsim::lab::{address, image};

#[test]
fn the_story_on_real_engines_by_the_kernel() {
    story("kernel");
}

#[test]
fn the_story_on_real_engines_in_userspace() {
    story("userspace");
}

fn story(mesh: &str) {
    let Some(cluster) = Cluster::up_on(4, mesh) else { return };
    cluster.create(2, "greeters", 9000, &[]);
    for node in 1..=4 {
        assert!(cluster.until_answers(node, 9000).starts_with("Hello from greeter 1 "), "node {node}");
    }
    cluster.peer(3, &["service", "scale", "greeters=5"]);
    cluster.until_running(1, "greeters", "1", 5);
    answers_evenly(&cluster, 9000, 5);

    // Endless requests at two nodes during the update: both versions seen, none failed, then only the new one.
    let loads = [load(1, 9000), load(3, 9000)];
    cluster.peer(2, &["service", "update", "--image", &image("2"), "greeters"]);
    cluster.until_running(1, "greeters", "2", 5);
    let mut seen = std::collections::BTreeSet::new();
    for load in loads {
        seen.extend(load.end());
    }
    assert_eq!(seen, ["1", "2"].map(str::to_owned).into());
    for node in 1..=4 {
        assert!(cluster.until_answers(node, 9000).starts_with("Hello from greeter 2 "), "node {node}");
    }

    // A bad image pauses the update, and `ps` says why; so does one that never gets healthy.
    for (bad, why) in [("crash", "non-zero exit (1)"), ("sick", "unhealthy")] {
        let paused = cluster.try_peer(1, &["service", "update", "--image", &image(bad), "greeters"]);
        assert_eq!(paused.status.code(), Some(1), "{paused:?}");
        assert!(String::from_utf8_lossy(&paused.stderr).contains("paused"), "{paused:?}");
        let rows = cluster.tasks(4, "greeters");
        assert!(rows.iter().any(|row| row.tag == bad && row.error.contains(why)), "{why}: {rows:?}");
        let pretty = cluster.peer(2, &["service", "inspect", "--pretty", "greeters"]);
        for line in ["State:\t\tpaused", "Name:\t\tgreeters", "Replicas:\t5", "PublishedPort = 9000"] {
            assert!(pretty.contains(line), "{line:?} is missing in\n{pretty}");
        }
        cluster.peer(3, &["service", "rollback", "greeters"]);
        cluster.until_running(1, "greeters", "2", 5);
    }

    // Drain one, under load; then all but one; then let them back in.
    let loads = [load(1, 9000), load(4, 9000)];
    cluster.peer(1, &["node", "update", "--availability", "drain", "node2"]);
    cluster.until(1, "node2 runs nothing", || {
        let rows = cluster.running(1, "greeters");
        rows.len() == 5 && rows.iter().all(|row| row.node != "node2") && cluster.containers(2, "greeters").is_empty()
    });
    for node in ["node3", "node4"] {
        cluster.peer(4, &["node", "update", "--availability", "drain", node]);
    }
    cluster.until(1, "everything runs on node1", || {
        let rows = cluster.running(1, "greeters");
        rows.len() == 5 && rows.iter().all(|row| row.node == "node1")
    });
    for load in loads {
        load.end();
    }
    assert!(cluster.until_answers(3, 9000).contains("greeter 2"), "a drained node's port answers");
    let table = cluster.peer(2, &["node", "ls"]);
    assert_eq!(table.matches(" Drain ").count(), 3, "{table}");
    for node in ["node2", "node3", "node4"] {
        cluster.peer(2, &["node", "update", "--availability", "active", node]);
    }
    cluster.peer(2, &["service", "scale", "greeters=8"]);
    cluster.until(1, "the new replicas go where there is room", || {
        let rows = cluster.running(1, "greeters");
        rows.len() == 8 && rows.iter().filter(|row| row.node != "node1").count() == 3
    });
    cluster.peer(1, &["service", "rm", "greeters"]);
    cluster.until(1, "nothing is left of it", || (1..=4).all(|node| cluster.containers(node, "greeters").is_empty()));
    cluster.end();
}

/// From the machine itself by its address and by loopback, from another node, from a container there, and from outside.
fn answers_evenly(cluster: &Cluster, port: u16, replicas: usize) {
    let from = |node: usize, tool: &str, at: &str| {
        let script = format!("for n in $(seq {}); do {tool} http://{at}:{port}/ || exit 1; echo; done", 2 * replicas);
        let output = cluster.lab.exec(node, &["bash", "-c", &script].map(str::to_owned)).unwrap();
        assert!(output.status.success(), "node {node} by {tool} to {at}: {output:?}");
        let mut times = std::collections::BTreeMap::<String, usize>::new();
        for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.trim().is_empty()) {
            *times.entry(line.to_owned()).or_default() += 1;
        }
        assert_eq!(times.len(), replicas, "node {node} by {tool} to {at}: {times:?}");
        assert!(times.values().all(|n| *n == 2), "node {node} by {tool} to {at}: {times:?}");
    };
    let curl = "curl -sS -m 5";
    from(1, curl, "localhost");
    from(1, curl, &address(1));
    from(2, curl, &address(1));
    // A container that is none of the replicas; what it is called by is known to its engine.
    let client = cluster.docker(1, &["run", "-d", "--name", "asks", "--entrypoint", "/greeter", &image("1"), "1"]);
    let pid = cluster.docker(1, &["inspect", "--format", "{{.State.Pid}}", client.trim()]);
    let engine = cluster.lab.engine_pid(1).unwrap();
    from(1, &format!("nsenter -t {engine} -m -p nsenter -t {} -n {curl}", pid.trim()), &address(1));
    cluster.docker(1, &["rm", "-f", "asks"]);
}
