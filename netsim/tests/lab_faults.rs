//! What breaks, on real engines: agents killed with SIGKILL, whole nodes without power, cables pulled. Skipped, loudly,
//! where there is no root or no dockerd.

mod common;

use common::{Cluster, load};
use netsim::lab::image;
use std::collections::BTreeMap;

#[test]
fn the_lease_holder_is_killed_in_the_middle_of_an_update() {
    let Some(cluster) = Cluster::up(4) else { return };
    let holder = cluster.leader(1).expect("somebody holds the lease");
    let [a, b, c] = [1, 2, 3, 4].into_iter().filter(|n| *n != holder).collect::<Vec<_>>()[..] else { panic!() };
    // Not on the holder's node, so that what moves, moves because of the update; `local` is on every node and stays.
    let elsewhere = format!("node.hostname!=node{holder}");
    cluster.create(a, "greeters", 9000, &["--replicas", "6", "--constraint", &elsewhere]);
    cluster.create(a, "local", 9001, &["--mode", "global"]);
    cluster.until_running(a, "local", "1", 4);
    let kept = cluster.containers(holder, "local");
    assert_eq!(kept.len(), 1);
    for node in [a, b] {
        cluster.until_answers(node, 9000);
    }

    let loads = [load(a, 9000), load(b, 9000)];
    cluster.peer(b, &["service", "update", "-d", "--update-delay", "300ms", "--image", &image("2"), "greeters"]);
    let new = || cluster.running(a, "greeters").iter().filter(|row| row.tag == "2").count();
    cluster.until(a, "the update has begun", || new() > 0);
    cluster.lab.kill_agent(holder).unwrap();
    assert!(new() < 6, "the holder died in the middle");
    cluster.until(a, "another node holds the lease", || cluster.leader(a).is_some_and(|leader| leader != holder));
    cluster.until_running(c, "greeters", "2", 6);
    for load in loads {
        load.end();
    }
    // No slot was disrupted twice: one task of the new image each.
    let mut slots: BTreeMap<String, usize> = BTreeMap::new();
    for row in cluster.tasks(c, "greeters").into_iter().filter(|row| row.tag == "2") {
        *slots.entry(row.name).or_default() += 1;
    }
    assert!(slots.len() == 6 && slots.values().all(|tasks| *tasks == 1), "{slots:?}");

    // It comes back and finds its container as it left it.
    assert_eq!(cluster.containers(holder, "local"), kept, "containers outlive their agent");
    cluster.lab.start_agent(holder, None).unwrap();
    cluster.until_ready(a, 4);
    cluster.until_running(holder, "local", "1", 4);
    assert_eq!(cluster.containers(holder, "local"), kept);
    assert!(cluster.until_answers(holder, 9000).contains("greeter 2"));
    cluster.end();
}

#[test]
fn a_node_vanishes_and_returns() {
    let Some(cluster) = Cluster::up(3) else { return };
    cluster.create(2, "greeters", 9000, &["--replicas", "5"]);
    cluster.until_running(1, "greeters", "1", 5);
    let kept: Vec<_> = [1, 2].map(|node| cluster.containers(node, "greeters")).into();
    let lost = cluster.containers(3, "greeters");
    assert!(!lost.is_empty());
    cluster.lab.set_link(3, false).unwrap();
    cluster.until(1, "five replicas run on the other two", || {
        let rows = cluster.running(1, "greeters");
        rows.len() == 5 && rows.iter().all(|row| row.node != "node3")
    });
    assert_eq!(cluster.containers(3, "greeters"), lost, "a node that is alone keeps what it has");
    cluster.lab.heal().unwrap();
    cluster.until_ready(1, 3);
    cluster.until(1, "the returned node has given up its duplicates", || cluster.containers(3, "greeters").is_empty());
    cluster.until_running(3, "greeters", "1", 5);
    for (node, kept) in [1, 2].into_iter().zip(kept) {
        assert!(cluster.containers(node, "greeters").is_superset(&kept), "nothing else moved on node {node}");
    }
    // Killed alone, an agent finds its containers as it left them.
    let before = cluster.containers(2, "greeters");
    cluster.lab.kill_agent(2).unwrap();
    cluster.lab.start_agent(2, None).unwrap();
    cluster.until_ready(1, 3);
    cluster.until_running(2, "greeters", "1", 5);
    assert_eq!(cluster.containers(2, "greeters"), before);
    cluster.end();
}

#[test]
fn two_of_three_nodes_are_dead() {
    let Some(cluster) = Cluster::up(3) else { return };
    cluster.create(1, "greeters", 9000, &["--replicas", "3"]);
    cluster.until_running(1, "greeters", "1", 3);
    cluster.until_answers(1, 9000);
    cluster.until_voters(1, 3);
    // At once: were the second to go later, the first two would have made the third node's vote enough by itself.
    for node in [2, 3] {
        cluster.lab.set_link(node, false).unwrap();
    }
    for node in [2, 3] {
        cluster.lab.power_off(node).unwrap();
    }
    cluster.until(1, "both are seen down", || cluster.peer(1, &["node", "ls"]).matches(" Down ").count() == 2);
    assert!(cluster.peer(1, &["service", "ls"]).contains("greeters"));
    assert_eq!(cluster.running(1, "greeters").iter().filter(|row| row.node == "node1").count(), 1);
    assert!(cluster.until_answers(1, 9000).contains("greeter 1"));

    // A write is taken, with a warning that says what it is worth.
    let update = cluster.try_peer(1, &["service", "update", "-d", "--image", &image("2"), "greeters"]);
    let said = String::from_utf8_lossy(&update.stderr).into_owned();
    assert!(update.status.success() && said.contains("pending"), "{update:?}");

    // A crash is mended where it happened, by nobody else's leave.
    let before = cluster.containers(1, "greeters");
    for id in &before {
        cluster.docker(1, &["kill", id]);
    }
    cluster.until(1, "the crashed container is restarted", || {
        let now = cluster.containers(1, "greeters");
        now.len() == before.len() && now.is_disjoint(&before)
    });
    assert!(cluster.until_answers(1, 9000).contains("greeter 1"), "what runs is what a majority knew");

    for node in [2, 3] {
        cluster.lab.power_on(node).unwrap();
    }
    cluster.until_running(1, "greeters", "2", 3);
    for node in 1..=3 {
        assert!(cluster.until_answers(node, 9000).contains("greeter 2"), "node {node}");
    }
    cluster.end();
}

#[test]
fn an_acknowledged_write_outlives_who_took_it_and_any_minority() {
    let Some(cluster) = Cluster::up(5) else { return };
    cluster.until_voters(1, 5);
    let mut written = Vec::new();
    for (round, victims) in [[1, 2], [2, 4], [5, 3], [4, 1]].into_iter().enumerate() {
        let taker = victims[0];
        // It was started again a moment ago; alone as it still is it could take a write, but not acknowledge it.
        cluster.until_ready(taker, 5);
        cluster.until_voters(taker, 5);
        let (mut name, mut tries) = (String::new(), 0);
        cluster.until(taker, "a write is acknowledged", || {
            name = format!("written{round}-{tries}");
            tries += 1;
            let create = ["service", "create", "-d", "--replicas", "0", "--name", &name, &image("1")];
            let answer = cluster.try_peer(taker, &create);
            let warned = String::from_utf8_lossy(&answer.stderr).contains("pending");
            assert!(answer.status.success() && (warned || answer.stderr.is_empty()), "{answer:?}");
            !warned
        });
        // Right behind the answer, with another one; both were voters, as all five are.
        for victim in victims {
            cluster.lab.kill_agent(victim).unwrap();
        }
        written.push(name.clone());
        let others: Vec<usize> = (1..=5).filter(|node| !victims.contains(node)).collect();
        for node in &others {
            cluster.until(*node, &format!("node {node} has {name}"), || {
                cluster.lab.peer_ok(*node, &["service", "ls"]).is_ok_and(|table| table.contains(&name))
            });
        }
        for victim in victims {
            cluster.lab.start_agent(victim, None).unwrap();
        }
        cluster.until_ready(others[0], 5);
        cluster.until_voters(others[0], 5);
    }
    for node in 1..=5 {
        cluster.until(node, "every node has all of it", || {
            let table = cluster.lab.peer_ok(node, &["service", "ls"]).unwrap_or_default();
            written.iter().all(|name| table.contains(name))
        });
    }
    cluster.end();
}
