use super::*;
use crate::ids::ClusterId;
use crate::model::node::{Availability, NodePolicy};
use crate::model::record::ClusterSettings;
use crate::time::Mono;
use crate::wire::message::Scope;
use proptest::prelude::*;

fn node(n: u8) -> NodeId {
    NodeId::from_u128(u128::from(n))
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1000), wall: Wall(1_700_000_000_000 + ms) }
}

/// Nodes, what their disks hold, and the messages between them, delivered when the test says so.
struct Net {
    stores: BTreeMap<NodeId, Store>,
    disks: BTreeMap<NodeId, BTreeMap<Vec<u8>, Vec<u8>>>,
    wires: Vec<(NodeId, NodeId, Message)>,
    now: u64,
    lives: u64,
}

impl Net {
    fn new(count: u8) -> Self {
        let ids = (1..=count).map(node);
        let stores = ids.clone().map(|id| (id, Store::load(id, 1, Arc::new, []).unwrap())).collect();
        Self { stores, disks: ids.map(|id| (id, BTreeMap::new())).collect(), wires: Vec::new(), now: 0, lives: 1 }
    }

    fn now(&mut self) -> Now {
        self.now += 1;
        at(self.now)
    }

    /// Applies a node's outputs: its disk, its messages, its pushes to all others.
    fn settle(&mut self, id: NodeId) {
        let others: Vec<NodeId> = self.stores.keys().copied().filter(|n| *n != id).collect();
        while let Some(output) = self.stores.get_mut(&id).unwrap().poll_output() {
            match output {
                Output::Persist(writes) => {
                    let disk = self.disks.get_mut(&id).unwrap();
                    for (key, value) in writes {
                        match value {
                            Some(value) => disk.insert(key, value),
                            None => disk.remove(&key),
                        };
                    }
                }
                Output::Send { to, message } => self.wires.push((id, to, message)),
                Output::Push(records) => {
                    self.wires.extend(others.iter().map(|to| (id, *to, Message::Push { records: records.clone() })));
                }
                Output::Changed(_) | Output::Rewound { .. } | Output::Refused { .. } => {}
            }
        }
    }

    fn write(&mut self, id: NodeId, label: &str) {
        let now = self.now();
        let policy =
            NodePolicy { labels: BTreeMap::from([(label.to_owned(), String::new())]), ..NodePolicy::new(node(200)) };
        let change = (Key::NodePolicy(node(200)), Some(Value::NodePolicy(policy)));
        let fact =
            (Key::Cluster, Some(Value::Cluster(ClusterSettings { created: Wall(0), join_secret: label.to_owned() })));
        self.stores.get_mut(&id).unwrap().write(vec![change, fact], Term::ZERO, now);
        self.settle(id);
    }

    fn deliver(&mut self, wire: usize) {
        let (from, to, message) = self.wires.swap_remove(wire);
        let now = self.now();
        let store = self.stores.get_mut(&to).unwrap();
        match message {
            Message::Compare { hash } => store.handle_compare(from, hash),
            Message::Same { hash } => store.handle_same(from, hash),
            Message::Differs { buckets } => store.handle_differs(from, &buckets),
            Message::Ask { nonce, scope, digest, in_return } => {
                store.handle_ask(from, nonce, scope, &digest, in_return);
            }
            Message::Delta { nonce, scope, base, records, upto, more } => {
                store.handle_delta(from, Delta { nonce, scope, base, records, upto, more }, now);
            }
            Message::AskOn { nonce, scope, read } => store.handle_ask_on(from, nonce, scope, &read),
            Message::Push { records } => drop(store.handle_push(from, records, now)),
            Message::PushAck { held } => store.handle_push_ack(from, &held),
            Message::Collected { places } => store.handle_collected(&places),
            other => panic!("{other:?}"),
        }
        self.settle(to);
    }

    fn deliver_all(&mut self) {
        for _ in 0..10_000 {
            if self.wires.is_empty() {
                return;
            }
            self.deliver(0);
        }
        panic!("the exchange does not come to rest");
    }

    /// Every pair exchanges once, then all is delivered.
    fn exchange(&mut self) {
        let ids: Vec<NodeId> = self.stores.keys().copied().collect();
        for _ in 0..2 {
            for (from, to) in ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b) {
                self.stores.get_mut(&from).unwrap().compare(to);
                self.settle(from);
            }
            self.deliver_all();
        }
    }

    fn restart(&mut self, id: NodeId) {
        self.lives += 1;
        let store = Store::load(id, self.lives, Arc::new, &self.disks[&id]).unwrap();
        self.stores.insert(id, store);
    }

    fn assert_equal(&self) {
        let mut stores = self.stores.values();
        let first = stores.next().unwrap();
        for store in stores {
            assert_eq!(first.records, store.records);
            assert_eq!(first.digest(), store.digest());
            assert_eq!(first.held.hash(), store.held.hash());
        }
    }
}

#[test]
fn a_push_reaches_everyone_and_a_lost_one_is_pulled() {
    let mut net = Net::new(3);
    net.write(node(1), "a");
    net.deliver_all();
    net.assert_equal();
    net.write(node(1), "b");
    net.wires.clear();
    net.write(node(1), "c");
    // The gap makes the receivers ask; nobody's digest skips what was lost.
    net.deliver_all();
    net.assert_equal();
}

#[test]
fn survives_its_own_restart() {
    let mut net = Net::new(2);
    net.write(node(1), "a");
    net.deliver_all();
    let before = net.stores[&node(2)].records.clone();
    net.restart(node(2));
    assert_eq!(net.stores[&node(2)].records, before);
    assert!(net.stores[&node(2)].holds(node(1), net.stores[&node(1)].own_seq()));
}

#[test]
fn a_disk_put_back_to_an_earlier_state_loses_nothing_and_reuses_no_number() {
    let mut net = Net::new(3);
    net.write(node(1), "a");
    net.deliver_all();
    let old = net.disks[&node(1)].clone();
    net.write(node(1), "b");
    net.deliver_all();
    net.disks.insert(node(1), old);
    net.restart(node(1));
    // Before it has heard from anyone it writes: under numbers that nobody knows.
    net.write(node(1), "after the restore");
    net.deliver_all();
    net.exchange();
    net.assert_equal();
    let Some(Value::Cluster(settings)) = net.stores[&node(3)].get(&Key::Cluster) else { panic!() };
    assert_eq!(settings.join_secret, "after the restore");
}

#[test]
fn a_record_from_the_far_future_is_refused() {
    let mut net = Net::new(2);
    let late = at(limits::MAX_CLOCK_DRIFT.as_millis() as u64 + 10_000);
    let change = (Key::Cluster, Some(Value::Cluster(ClusterSettings { created: Wall(0), join_secret: "x".into() })));
    net.stores.get_mut(&node(1)).unwrap().write(vec![change], Term::ZERO, late);
    net.settle(node(1));
    net.deliver_all();
    let other = &net.stores[&node(2)];
    assert_eq!(other.get(&Key::Cluster), None);
    assert!(other.refused() > 0);
    let (one, seq) = (&net.stores[&node(1)], net.stores[&node(1)].own_seq());
    assert!(!other.holds(node(1), seq) && !one.peer_holds(node(2), node(1), seq), "it isn't said to be held, either");
    net.exchange();
    assert!(!net.stores[&node(1)].peer_holds(node(2), node(1), seq));
}

/// A machine that starts with its clock at 1970 refuses all that others wrote. It must not say that it holds it.
#[test]
fn who_has_a_clock_far_behind_holds_nothing_until_it_is_set() {
    let mut net = Net::new(3);
    let behind = |net: &mut Net| {
        for _ in 0..1_000 {
            let Some(wire) = net.wires.iter().position(|(_, to, _)| *to == node(2)) else { break };
            let (from, _, message) = net.wires.swap_remove(wire);
            let now = Now { wall: Wall(net.now), ..net.now() };
            let store = net.stores.get_mut(&node(2)).unwrap();
            match message {
                Message::Push { records } => drop(store.handle_push(from, records, now)),
                Message::Delta { nonce, scope, base, records, upto, more } => {
                    store.handle_delta(from, Delta { nonce, scope, base, records, upto, more }, now);
                }
                other => {
                    net.wires.push((from, node(2), other));
                    net.deliver(net.wires.len() - 1);
                    continue;
                }
            }
            net.settle(node(2));
        }
    };
    for n in 0..5 {
        net.write(node(1), &format!("write {n}"));
        behind(&mut net);
        net.deliver_all();
    }
    net.stores.get_mut(&node(2)).unwrap().compare(node(3));
    net.settle(node(2));
    for _ in 0..20 {
        behind(&mut net);
        if let Some(wire) = net.wires.iter().position(|(_, to, _)| *to != node(2)) {
            net.deliver(wire);
        }
    }
    let seq = net.stores[&node(1)].own_seq();
    assert!(net.stores[&node(1)].peer_holds(node(3), node(1), seq));
    assert!(!net.stores[&node(1)].peer_holds(node(2), node(1), seq) && net.stores[&node(2)].is_empty());
    // Set right, it gets it all.
    net.exchange();
    net.assert_equal();
    assert!(net.stores[&node(1)].peer_holds(node(2), node(1), seq));
}

/// Seed 63 of one: the answer of a node whose clock is ahead hasn't what its refused record superseded.
#[test]
fn what_a_refused_record_superseded_is_not_claimed() {
    let mut net = Net::new(3);
    net.write(node(1), "first");
    net.deliver_all();
    net.write(node(1), "second");
    let second = net.stores[&node(1)].own_seq();
    net.wires.retain(|(_, to, _)| *to == node(3));
    net.deliver_all();
    let late = at(limits::MAX_CLOCK_DRIFT.as_millis() as u64 + 10_000);
    let change = (Key::Cluster, Some(Value::Cluster(ClusterSettings { created: Wall(0), join_secret: "x".into() })));
    net.stores.get_mut(&node(1)).unwrap().write(vec![change], Term::ZERO, late);
    net.settle(node(1));
    net.wires.clear();

    net.stores.get_mut(&node(2)).unwrap().ask(node(1), 1);
    net.settle(node(2));
    net.deliver_all();
    let two = &net.stores[&node(2)];
    assert!(two.holds(node(1), second - 1), "what joins on is taken");
    assert!(!two.holds(node(1), second), "the settings of the second write were superseded, and not by what is here");
    net.stores.get_mut(&node(2)).unwrap().ask(node(3), 2);
    net.settle(node(2));
    net.deliver_all();
    assert!(net.stores[&node(2)].holds(node(1), second));
    let Some(Value::Cluster(settings)) = net.stores[&node(2)].get(&Key::Cluster) else { panic!() };
    assert_eq!(settings.join_secret, "second");
}

/// A holder whose clock is behind has read nothing of what it refuses. One node that is ahead keeps no holder from its work.
#[test]
fn an_answer_is_whole_unless_others_have_taken_what_is_refused() {
    let mut net = Net::new(3);
    let late = at(limits::MAX_CLOCK_DRIFT.as_millis() as u64 + 10_000);
    let change = (Key::Cluster, Some(Value::Cluster(ClusterSettings { created: Wall(0), join_secret: "x".into() })));
    net.stores.get_mut(&node(1)).unwrap().write(vec![change], Term::ZERO, late);
    net.settle(node(1));
    let Some((_, _, Message::Push { records })) = net.wires.pop() else { panic!() };
    net.stores.get_mut(&node(3)).unwrap().handle_push(node(1), records, late);
    net.settle(node(3));
    let mut is_whole = |from: NodeId, now: Now| {
        net.wires.clear();
        net.stores.get_mut(&node(2)).unwrap().ask(from, 1);
        net.settle(node(2));
        net.deliver(0);
        let (_, _, answer) = net.wires.remove(0);
        let Message::Delta { nonce, scope, base, records, upto, more } = answer else { panic!("{answer:?}") };
        let delta = Delta { nonce, scope, base, records, upto, more };
        net.stores.get_mut(&node(2)).unwrap().handle_delta(from, delta, now)
    };
    assert!(is_whole(node(1), at(1)), "its author is ahead");
    assert!(!is_whole(node(3), at(1)), "two have taken it: this clock is behind");
    assert!(is_whole(node(3), late), "until it is set");
}

#[test]
fn nobody_else_writes_a_nodes_status_and_a_removal_is_final() {
    let mut net = Net::new(2);
    let removed = NodePolicy { removed: true, ..NodePolicy::new(node(9)) };
    let now = net.now();
    let store = net.stores.get_mut(&node(1)).unwrap();
    store.write(vec![(Key::NodePolicy(node(9)), Some(Value::NodePolicy(removed)))], Term::ZERO, now);
    net.settle(node(1));
    net.deliver_all();
    let back = NodePolicy { availability: Availability::Drain, ..NodePolicy::new(node(9)) };
    let now = net.now();
    let record = Record {
        key: Key::NodePolicy(node(9)),
        value: Some(Value::NodePolicy(back)),
        stamp: Stamp { term: Term::ZERO, hlc: Hlc::new(now.wall, 7), author: node(1) },
        seq: 2,
    };
    let status = Record {
        key: Key::TaskStatus(TaskId::from_u128(1)),
        value: Some(Value::TaskStatus(TaskStatus::new(TaskId::from_u128(1), node(2), now.wall))),
        stamp: Stamp { term: Term::ZERO, hlc: Hlc::new(now.wall, 8), author: node(1) },
        seq: 3,
    };
    let store = net.stores.get_mut(&node(2)).unwrap();
    assert!(store.handle_push(node(1), vec![record, status], now).is_empty());
    let Some(Value::NodePolicy(policy)) = store.get(&Key::NodePolicy(node(9))) else { panic!() };
    assert!(policy.removed);
    assert_eq!(store.status(TaskId::from_u128(1)), None);
}

#[test]
fn tombstones_go_only_when_old_and_seen_by_all() {
    let mut net = Net::new(2);
    let service = ServiceId::of_name(ClusterId::from_u128(1), "web");
    let now = net.now();
    net.stores.get_mut(&node(1)).unwrap().write(vec![(Key::Service(service), None)], Term::ZERO, now);
    net.settle(node(1));
    let members = [node(1), node(2)];
    let later = at(limits::TOMBSTONE_RETENTION.as_millis() as u64 + 1_000);
    let store = net.stores.get_mut(&node(1)).unwrap();
    assert_eq!(
        store.collect_tombstones(&members, limits::TOMBSTONE_RETENTION, later),
        0,
        "node 2 has not said that it has it"
    );
    net.deliver_all();
    let store = net.stores.get_mut(&node(1)).unwrap();
    assert_eq!(store.collect_tombstones(&members, limits::TOMBSTONE_RETENTION, now), 0, "too young");
    assert_eq!(store.collect_tombstones(&members, limits::TOMBSTONE_RETENTION, later), 1);
    net.settle(node(1));
    // It doesn't come back from whoever has not yet collected it.
    let store = net.stores.get_mut(&node(2)).unwrap();
    assert_eq!(store.collect_tombstones(&members, limits::TOMBSTONE_RETENTION, later), 0);
    net.exchange();
    assert!(net.stores[&node(1)].records.is_empty() && net.stores[&node(2)].records.len() == 1);
    assert_eq!(
        net.stores.get_mut(&node(2)).unwrap().collect_tombstones(&members, limits::TOMBSTONE_RETENTION, later),
        1,
        "it was told that node 1 had it"
    );
    net.settle(node(2));
    net.exchange();
    assert!(net.stores.values().all(|s| s.records.is_empty() && s.digest().is_empty()));
}

/// Node 1 had everybody's word; node 3, who gave it, is gone for good, and node 2 has started since.
#[test]
fn one_that_collected_a_tombstone_is_enough_for_whoever_keeps_it_yet() {
    let mut net = Net::new(3);
    let service = ServiceId::of_name(ClusterId::from_u128(1), "web");
    let now = net.now();
    net.stores.get_mut(&node(1)).unwrap().write(vec![(Key::Service(service), None)], Term::ZERO, now);
    net.settle(node(1));
    net.deliver_all();
    let members = [node(1), node(2), node(3)];
    let later = at(limits::TOMBSTONE_RETENTION.as_millis() as u64 + 1_000);
    let collect = |net: &mut Net, n, now| {
        let gone = net.stores.get_mut(&node(n)).unwrap().collect_tombstones(&members, limits::TOMBSTONE_RETENTION, now);
        net.settle(node(n));
        gone
    };
    net.stores.remove(&node(3));
    net.restart(node(2));
    net.exchange();
    assert_eq!(collect(&mut net, 2, later), 0, "nobody says that node 3 had it");
    assert_eq!(collect(&mut net, 1, later), 1);
    net.exchange();
    assert_eq!(collect(&mut net, 2, now), 0, "too young by its own clock");
    assert_eq!(collect(&mut net, 2, later), 1);
    assert!(net.stores.values().all(|s| s.records.is_empty() && s.digest().is_empty() && s.buried.len() <= 1));
    assert_eq!(collect(&mut net, 2, later), 0);
    assert!(net.stores[&node(2)].buried.is_empty());
}

/// More than one message's worth of them, and what comes behind them in the same log.
#[test]
fn what_was_collected_does_not_keep_the_rest_of_its_log_from_travelling() {
    let mut net = Net::new(2);
    let removed = |n: u128| (Key::NodePolicy(NodeId::from_u128(1_000 + n)), None);
    let now = net.now();
    net.stores.get_mut(&node(1)).unwrap().write((0..5_000).map(removed).collect(), Term::ZERO, now);
    net.settle(node(1));
    net.deliver_all();
    let later = at(limits::TOMBSTONE_RETENTION.as_millis() as u64 + 1_000);
    let members = [node(1), node(2)];
    let store = net.stores.get_mut(&node(2)).unwrap();
    store.remember(BTreeSet::from(members));
    net.exchange();
    let store = net.stores.get_mut(&node(2)).unwrap();
    assert_eq!(store.collect_tombstones(&members, limits::TOMBSTONE_RETENTION, later), 5_000);
    net.settle(node(2));
    net.exchange();
    assert!(net.stores[&node(2)].records.is_empty());
    net.write(node(1), "lost on the way");
    net.wires.clear();
    net.exchange();
    assert_eq!(net.stores[&node(2)].records.len(), 2);
    assert_eq!(net.stores[&node(1)].digest(), net.stores[&node(2)].digest());
}

#[test]
fn a_big_state_travels_in_several_deltas() {
    let mut net = Net::new(2);
    let now = net.now();
    let changes = (0..5_000u128)
        .map(|n| {
            let id = NodeId::from_u128(1_000 + n);
            (Key::NodePolicy(id), Some(Value::NodePolicy(NodePolicy::new(id))))
        })
        .collect();
    net.stores.get_mut(&node(1)).unwrap().write(changes, Term::ZERO, now);
    net.settle(node(1));
    net.wires.clear();
    net.exchange();
    net.assert_equal();
    assert_eq!(net.stores[&node(2)].len(), 5_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever is lost, doubled, reordered, restarted or put back on the way: once the network works, all agree, and the
    /// later write of each key has won.
    #[test]
    fn replicas_converge(steps in proptest::collection::vec((0u8..8, 1u8..5, any::<u16>()), 1..120)) {
        let mut net = Net::new(4);
        let mut last = None;
        let (mut kept, mut put_back) = (Vec::new(), false);
        for (kind, who, pick) in steps {
            let pick = usize::from(pick);
            match kind {
                0 => {
                    let label = format!("{}", net.now);
                    net.write(node(who), &label);
                    last = Some(label);
                }
                1 | 2 if !net.wires.is_empty() => net.deliver(pick % net.wires.len()),
                3 if !net.wires.is_empty() => drop(net.wires.swap_remove(pick % net.wires.len())),
                4 if !net.wires.is_empty() => {
                    let twice = net.wires[pick % net.wires.len()].clone();
                    net.wires.push(twice);
                }
                5 => net.restart(node(who)),
                6 => kept.push((node(who), net.disks[&node(who)].clone())),
                7 if !kept.is_empty() => {
                    let (id, disk) = kept[pick % kept.len()].clone();
                    net.disks.insert(id, disk);
                    net.restart(id);
                    put_back = true;
                }
                _ => {
                    let to = node(1 + (pick % 4) as u8);
                    if to != node(who) {
                        net.stores.get_mut(&node(who)).unwrap().compare(to);
                        net.settle(node(who));
                    }
                }
            }
        }
        net.deliver_all();
        net.exchange();
        net.assert_equal();
        // What only a disk had that was put back is lost.
        if let Some(label) = last.filter(|_| !put_back) {
            let Some(Value::Cluster(settings)) = net.stores[&node(1)].get(&Key::Cluster) else { panic!() };
            prop_assert_eq!(&settings.join_secret, &label);
        }
    }
}

/// A record of the `number`th life-one write of `author`, about itself.
fn fact_of(author: u128, number: u32, now: Now) -> Record {
    let author = NodeId::from_u128(author);
    let policy =
        NodePolicy { labels: BTreeMap::from([(number.to_string(), String::new())]), ..NodePolicy::new(author) };
    let stamp = Stamp { term: Term::ZERO, hlc: Hlc::new(now.wall, number as u16), author };
    let seq = Log { author, life: 1 }.seq(number);
    Record { key: Key::NodePolicy(author), value: Some(Value::NodePolicy(policy)), stamp, seq }
}

/// Two stores that hold a record of each of a thousand authors.
fn thousand() -> Net {
    let mut net = Net::new(2);
    let now = net.now();
    for store in net.stores.values_mut() {
        store.handle_push(node(3), (1_000..2_000).map(|author| fact_of(author, 1, now)).collect(), now);
    }
    (1..=2).for_each(|n| net.settle(node(n)));
    net.wires.clear();
    net
}

/// What two nodes say to each other until both are at rest, in messages and in bytes.
fn cost(net: &mut Net) -> (usize, usize) {
    let (mut messages, mut bytes) = (0, 0);
    net.stores.get_mut(&node(1)).unwrap().compare(node(2));
    net.settle(node(1));
    while !net.wires.is_empty() {
        messages += 1;
        bytes += codec::encode(&net.wires[0].2).len();
        net.deliver(0);
    }
    (messages, bytes)
}

#[test]
fn two_that_hold_the_same_say_so_in_one_small_message_each() {
    let mut net = thousand();
    let (messages, bytes) = cost(&mut net);
    assert!(messages == 2 && bytes < 40, "{messages} messages, {bytes} bytes");
}

#[test]
fn one_record_more_does_not_cost_the_whole_digest() {
    let mut net = thousand();
    let now = net.now();
    net.stores.get_mut(&node(2)).unwrap().handle_push(node(3), vec![fact_of(1_500, 2, now)], now);
    net.settle(node(2));
    net.wires.clear();
    let (messages, bytes) = cost(&mut net);
    net.assert_equal();
    assert!(messages <= 6 && bytes < 3_000, "{messages} messages, {bytes} bytes");
}

#[test]
fn of_most_peers_only_what_may_matter_is_remembered() {
    let mut net = thousand();
    cost(&mut net);
    let store = net.stores.get_mut(&node(1)).unwrap();
    assert_eq!(store.peers.len(), 0);
    store.remember(BTreeSet::from([node(2)]));
    cost(&mut net);
    let store = net.stores.get_mut(&node(1)).unwrap();
    assert_eq!(store.peers.len(), 1_000, "a voter's word on everything counts");
    store.remember(BTreeSet::new());
    assert_eq!(store.peers.len(), 0);
}

/// Seed 860528380047 of rewind: an answer that said "you have all of it" to a life whose disk was put back before it came. The next
/// life believed that, too, and was never told what it lacked.
#[test]
fn an_answer_to_a_life_whose_disk_was_put_back_tells_the_next_nothing() {
    let mut net = Net::new(2);
    let [back, other] = [node(1), node(2)];
    net.write(other, "first");
    net.exchange();
    let disk = net.disks[&back].clone();
    net.write(other, "second");
    net.exchange();
    net.stores.get_mut(&back).unwrap().ask(other, 1);
    net.settle(back);
    net.deliver(0);
    assert!(matches!(net.wires.as_slice(), [(_, _, Message::Delta { .. })]), "{:?}", net.wires);
    net.stores.insert(back, Store::load(back, 2, Arc::new, &disk).unwrap());
    net.disks.insert(back, disk);
    net.deliver_all();
    net.exchange();
    assert_eq!(net.stores[&back].get(&Key::NodePolicy(node(200))), net.stores[&other].get(&Key::NodePolicy(node(200))));
    assert!(net.stores[&back].get(&Key::NodePolicy(node(200))).is_some());
}

/// Seeds 15 and 89 of rewind: two lives from one disk, whose clock ran ahead, gave the same time to two versions.
#[test]
fn two_versions_of_one_time_end_the_same_way_everywhere() {
    let mut net = Net::new(2);
    let now = net.now();
    let other = Record { seq: Log { author: NodeId::from_u128(1_000), life: 2 }.seq(1), ..fact_of(1_000, 1, now) };
    let policy = NodePolicy { availability: Availability::Drain, ..NodePolicy::new(NodeId::from_u128(1_000)) };
    let both = [fact_of(1_000, 1, now), Record { value: Some(Value::NodePolicy(policy)), ..other }];
    for (n, order) in [(1, [0, 1]), (2, [1, 0])] {
        for at in order {
            net.stores.get_mut(&node(n)).unwrap().handle_push(node(3), vec![both[at].clone()], now);
        }
        net.settle(node(n));
    }
    net.wires.clear();
    net.exchange();
    net.assert_equal();
}

#[test]
fn what_lies_behind_a_gap_waits_for_what_is_missing() {
    let mut net = Net::new(1);
    let now = net.now();
    let store = net.stores.get_mut(&node(1)).unwrap();
    assert!(store.handle_push(node(3), vec![fact_of(1_000, 2, now)], now).is_empty());
    assert!(
        store.is_empty() && store.digest().is_empty(),
        "its author may have lost the first: then nobody could pass on the second"
    );
    net.settle(node(1));
    let asked =
        net.wires.iter().any(|(_, to, m)| *to == node(3) && matches!(m, Message::Ask { scope: Scope::All, .. }));
    assert!(asked);
}

#[test]
fn a_digest_of_the_first_versions_is_read_as_that_of_life_zero() {
    let mut net = Net::new(1);
    let now = net.now();
    let author = NodeId::from_u128(1_000);
    let record = Record { seq: 7, ..fact_of(1_000, 1, now) };
    let disk = net.disks.get_mut(&node(1)).unwrap();
    disk.insert(disk_record_key(&record.key), codec::encode(&record));
    disk.insert([&[DISK_OLD_DIGEST], codec::encode(&author).as_slice()].concat(), codec::encode(&9u64));
    for _ in 0..2 {
        net.restart(node(1));
        assert_eq!(net.stores[&node(1)].digest(), &Digest::from([(Log { author, life: 0 }, 9)]));
        net.settle(node(1));
    }
    assert!(!net.disks[&node(1)].keys().any(|key| key.first() == Some(&DISK_OLD_DIGEST)));
}

/// Found by the fuzz target `disk`: the next write's time ran over.
#[test]
fn a_disk_with_a_time_that_no_clock_shows_is_refused() {
    let stamp = |hlc| Stamp { term: Term::ZERO, hlc: Hlc(hlc), author: node(2) };
    let load = |hlc| {
        let record = Record { key: Key::Cluster, value: None, stamp: stamp(hlc), seq: 1 };
        let disk = BTreeMap::from([(disk_record_key(&record.key), codec::encode(&record))]);
        Store::load(node(1), 1, Arc::new, &disk)
    };
    assert!(matches!(load(u64::MAX), Err(LoadError::Time(_))));
    let mut store = load(LATEST.0).unwrap();
    store.write(vec![(Key::Cluster, None)], Term::ZERO, at(1));
}

#[test]
fn a_record_is_kept_once_for_its_key_and_its_place() {
    let mut store = Store::load(node(1), 1, Arc::new, []).unwrap();
    store.write(vec![(Key::Cluster, None)], Term::ZERO, at(1));
    let key = Key::Cluster;
    // By its key and by its place.
    assert_eq!(Arc::strong_count(&store.records[&key]), 2);
    let old = store.records[&key].clone();
    store.write(vec![(Key::Cluster, None)], Term::ZERO, at(2));
    assert_eq!((Arc::strong_count(&old), store.by_log.len()), (1, 1), "a version that is over is let go");
}

#[test]
fn what_a_burst_of_changes_took_is_given_back() {
    let mut store = Store::load(node(1), 1, Arc::new, []).unwrap();
    let many = (0..5_000u128).map(|n| (Key::NodePolicy(NodeId::from_u128(n)), None)).collect();
    store.write(many, Term::ZERO, at(1));
    assert!(store.out.capacity() >= 5_000);
    while store.poll_output().is_some() {}
    assert!(store.out.capacity() < 100, "{}", store.out.capacity());
}

/// Of most others one number is remembered, and all of it is forgotten with them.
#[test]
fn who_is_forgotten_takes_nobody_with_him() {
    let mut peers = Peers::default();
    let log = |n, life| Log { author: node(n), life };
    peers.remember_whole(BTreeSet::from([node(1), node(2), node(3)]));
    let held = Digest::from([(log(0, 0), 4), (log(9, u32::MAX), 5)]);
    (1..=3).for_each(|n| peers.note(node(n), &held));
    peers.forget(node(2));
    assert!(!peers.hold(node(2), log(0, 0), 1) && !peers.hold(node(2), log(9, u32::MAX), 1));
    assert!([1, 3].iter().all(|n| peers.hold(node(*n), log(0, 0), 4) && peers.hold(node(*n), log(9, u32::MAX), 5)));
}

fn policies(of: std::ops::Range<usize>) -> Vec<(Key, Option<Value>)> {
    let policy = |n: usize| {
        let id = NodeId::from_u128(1_000 + n as u128);
        (Key::NodePolicy(id), Some(Value::NodePolicy(NodePolicy::new(id))))
    };
    of.map(policy).collect()
}

/// What one log lacks may be superseded by what a later page holds: until that is here nothing is claimed.
#[test]
fn an_answer_of_several_pages_is_taken_whole_or_not_at_all() {
    let mut net = Net::new(3);
    let most = limits::MAX_DELTA_RECORDS;
    let (first, second) = (node(1), node(2));
    let now = net.now();
    net.stores.get_mut(&first).unwrap().write(policies(0..most), Term::ZERO, now);
    net.settle(first);
    net.wires.retain(|(_, to, _)| *to == second);
    net.deliver_all();
    // Half of what the first wrote is superseded by the second's.
    let now = net.now();
    net.stores.get_mut(&second).unwrap().write(policies(0..most / 2), Term::ZERO, now);
    net.stores.get_mut(&second).unwrap().write(policies(most..most * 2), Term::ZERO, now);
    net.settle(second);
    net.wires.clear();
    let read_pages = |net: &mut Net, pages: usize| {
        net.stores.get_mut(&node(3)).unwrap().ask(second, 7);
        net.settle(node(3));
        for _ in 0..pages {
            // The question, and the page.
            net.deliver(0);
            net.deliver(0);
        }
    };
    // The second page is lost, twice: nothing of the first is here.
    for _ in 0..2 {
        read_pages(&mut net, 1);
        assert!(net.stores[&node(3)].is_empty() && net.stores[&node(3)].digest().is_empty());
        assert!(!net.stores[&second].peer_holds(node(3), first, 1));
        net.wires.clear();
    }
    read_pages(&mut net, 4);
    assert_eq!(net.stores[&node(3)].records, net.stores[&second].records);
    assert_eq!(net.stores[&node(3)].digest(), net.stores[&second].digest());
    net.deliver_all();
    let last = net.stores[&second].own_seq();
    assert!(net.stores[&second].peer_holds(node(3), second, last));
}

/// A page that comes once more, or late, neither breaks what is being read nor claims anything by itself.
#[test]
fn a_late_page_is_no_answer() {
    let mut net = Net::new(3);
    let most = limits::MAX_DELTA_RECORDS;
    let now = net.now();
    net.stores.get_mut(&node(1)).unwrap().write(policies(0..most * 2 + 5), Term::ZERO, now);
    net.settle(node(1));
    net.wires.clear();
    net.stores.get_mut(&node(3)).unwrap().ask(node(1), 7);
    net.settle(node(3));
    let mut late = Vec::new();
    for _ in 0..200 {
        let Some((from, to, message)) = net.wires.first().cloned() else { break };
        net.deliver(0);
        if let Message::Delta { more, .. } = message {
            late.push((from, to, message));
            // The page before this one, once more.
            if let ([_, .., before, _], true) = (late.as_slice(), more) {
                net.wires.push(before.clone());
                net.deliver(net.wires.len() - 1);
            }
        }
    }
    assert_eq!(late.len(), 4, "no page was asked for again");
    assert_eq!(net.stores[&node(3)].digest(), net.stores[&node(1)].digest());
    // In a node that holds nothing of what they rest on they do nothing.
    net.disks.get_mut(&node(3)).unwrap().clear();
    net.restart(node(3));
    for page in &late[1..] {
        net.wires = vec![page.clone()];
        net.deliver(0);
        assert!(net.stores[&node(3)].is_empty() && net.stores[&node(3)].digest().is_empty());
    }
}

/// Of an answer with a refused record only what joins on is taken: a holder that planned by the rest would miss what others wrote.
#[test]
fn an_answer_of_which_something_was_passed_over_is_not_whole() {
    let mut net = Net::new(3);
    net.write(node(2), "first");
    net.deliver_all();
    // A gap in the log of node 2: its second write is superseded by its third.
    net.write(node(2), "second");
    net.write(node(2), "third");
    net.wires.retain(|(_, to, _)| *to == node(1));
    net.deliver_all();
    let late = at(limits::MAX_CLOCK_DRIFT.as_millis() as u64 + 10_000);
    let id = node(250);
    let change = (Key::NodePolicy(id), Some(Value::NodePolicy(NodePolicy::new(id))));
    net.stores.get_mut(&node(1)).unwrap().write(vec![change], Term::ZERO, late);
    net.settle(node(1));
    net.wires.clear();
    net.stores.get_mut(&node(3)).unwrap().ask(node(1), 1);
    net.settle(node(3));
    net.deliver(0);
    let (from, _, answer) = net.wires.remove(0);
    let Message::Delta { nonce, scope, base, records, upto, more } = answer else { panic!("{answer:?}") };
    let delta = Delta { nonce, scope, base, records, upto, more };
    let now = net.now();
    let third = net.stores[&node(2)].own_seq();
    let three = net.stores.get_mut(&node(3)).unwrap();
    assert!(!three.handle_delta(from, delta, now), "what node 2 wrote last is not here");
    assert!(!three.holds(node(2), third));
}
