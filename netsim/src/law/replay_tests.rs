//! Each law is broken by a doctored trace, and found; the same story told rightly breaks none.

use super::*;
use peer::model::node::{Availability, NodePolicy};
use peer::model::record::RevisionId;
use peer::model::rollout::{Rollout, RolloutState};
use peer::model::service::{Revision, Service};
use peer::model::task::{Desired, TaskPhase, TaskStatus};
use peer::time::Wall;

const ALWAYS: Range<u64> = 0..u64::MAX;

fn node(n: usize) -> NodeId {
    NodeId::from_u128(100 + n as u128)
}

fn term(round: u64, n: usize) -> Term {
    Term { round, node: node(n) }
}

fn stamp(hlc: u64, n: usize) -> Stamp {
    Stamp { term: Term::ZERO, hlc: Hlc(hlc), author: node(n) }
}

fn service() -> ServiceId {
    ServiceId::from_u128(7)
}

fn id(n: u128) -> TaskId {
    TaskId::from_u128(n)
}

fn revision(hlc: u64) -> RevisionId {
    RevisionId { hlc: Hlc(hlc), author: node(0) }
}

/// Two nodes, whose traces grow by what a test tells.
struct Story {
    at: u64,
    traces: Vec<Vec<Look>>,
}

impl Story {
    fn new() -> Self {
        let mut story = Self { at: 1_000_000, traces: vec![Vec::new(), Vec::new()] };
        for n in 0..2 {
            story.boot(n, Term::ZERO);
        }
        story
    }

    fn tell(&mut self, n: usize, seen: Vec<Seen>) -> &mut Self {
        self.at += 1_000;
        self.traces[n].push(Look { at: self.at, wall: Wall(self.at / 1_000), seen });
        self
    }

    fn boot(&mut self, n: usize, promised: Term) -> &mut Self {
        self.tell(n, vec![Seen::Boot { node: node(n), hostname: format!("node{n}"), promised }])
    }

    fn holds(&mut self, n: usize, round: u64, for_us: u64) -> &mut Self {
        let until = self.at + 1_000 + for_us;
        self.tell(n, vec![Seen::Holds { term: term(round, n), until }])
    }

    /// Both nodes get it at once.
    fn everywhere(&mut self, key: Key, stamp: Stamp, value: Option<Value>) -> &mut Self {
        for n in 0..2 {
            self.tell(n, vec![record(key.clone(), stamp, value.clone())]);
        }
        self
    }

    fn task(&mut self, task: &Task, hlc: u64) -> &mut Self {
        self.everywhere(Key::Task(task.id), stamp(hlc, 0), Some(Value::Task(task.clone())))
    }

    /// In the words of its own node.
    fn running(&mut self, task: &Task, hlc: u64) -> &mut Self {
        let status = TaskStatus { phase: TaskPhase::Running, ..TaskStatus::new(task.id, task.node.unwrap(), Wall(0)) };
        self.everywhere(Key::TaskStatus(task.id), stamp(hlc, 1), Some(Value::TaskStatus(status)))
    }

    fn service(&mut self, order: &str) -> &mut Self {
        for hlc in [1, 2] {
            let spec_json = format!(
                r#"{{"Name":"web","TaskTemplate":{{"ContainerSpec":{{"Image":"web:{hlc}"}}}},"Mode":{{"Replicated":{{"Replicas":2}}}},
                "UpdateConfig":{{"Parallelism":1,"Order":"{order}"}},"RollbackConfig":{{"Parallelism":1,"Order":"{order}"}}}}"#
            );
            let value =
                Revision { service: service(), id: revision(hlc), spec_json, registry_auth: None, created: Wall(0) };
            let key = Key::Revision(service(), revision(hlc));
            self.everywhere(key, stamp(hlc, 0), Some(Value::Revision(value)));
        }
        let value = Service {
            id: service(),
            name: "web".to_owned(),
            created: Wall(0),
            updated: Wall(0),
            current: revision(2),
            previous: Some(revision(1)),
            rolled_back: false,
            ports: Vec::new(),
        };
        self.everywhere(Key::Service(service()), stamp(3, 0), Some(Value::Service(value)))
    }

    /// The laws that were broken.
    fn broken(&self) -> Vec<&'static str> {
        self.broken_when(vec![ALWAYS])
    }

    fn broken_when(&self, calm: Vec<Range<u64>>) -> Vec<&'static str> {
        let replay = Replay::of(&self.traces, calm);
        let mut laws: Vec<&'static str> = replay.breaches.iter().map(|(_, b)| b.law).collect();
        laws.extend(replay.at_the_end().iter().map(|b| b.law));
        laws.dedup();
        laws
    }
}

fn record(key: Key, stamp: Stamp, value: Option<Value>) -> Seen {
    Seen::Record { key, stamp, tombstone: value.is_none(), value: value.map(Box::new) }
}

/// On the second node.
fn task(number: u128, slot: u32) -> Task {
    Task {
        id: id(number),
        service: service(),
        slot: Slot::Replica(slot),
        node: Some(node(1)),
        revision: revision(1),
        desired: Desired::Running,
        created: Wall(0),
        updated: Wall(0),
        replaces: None,
        in_rollout: true,
        message: String::new(),
    }
}

fn stopped(task: &Task) -> Task {
    Task { desired: Desired::Shutdown, message: "update".to_owned(), ..task.clone() }
}

#[test]
fn one_holder_at_a_time() {
    let mut story = Story::new();
    story.holds(0, 1, 500_000).tell(0, vec![Seen::Lost { term: term(1, 0) }]).holds(1, 2, 500_000);
    assert_eq!(story.broken(), [""; 0]);
    story.at += 600_000;
    // Its lease ran out by itself: a paused node says nothing.
    assert_eq!(story.holds(0, 3, 500_000).broken(), [""; 0]);
    assert_eq!(story.holds(1, 4, 500_000).broken(), ["L1"]);
}

#[test]
fn terms_rise() {
    let mut story = Story::new();
    story.holds(0, 5, 1_000);
    story.at += 10_000;
    assert_eq!(story.holds(1, 4, 1_000).broken(), ["L2"]);
}

#[test]
fn what_a_voter_promised_is_on_its_disk() {
    let promised = Seen::Promised { ballot: term(9, 1) };
    let with = |on_disk: u64| {
        let mut story = Story::new();
        story.tell(1, vec![promised.clone()]).boot(1, term(on_disk, 1)).broken()
    };
    assert_eq!(with(9), [""; 0]);
    assert_eq!(with(8), ["L4"]);
}

fn policy(availability: Availability) -> Option<Value> {
    Some(Value::NodePolicy(NodePolicy { availability, ..NodePolicy::new(node(0)) }))
}

#[test]
fn versions_go_forward_and_what_is_removed_stays_so() {
    let key = Key::NodePolicy(node(0));
    let mut story = Story::new();
    story.everywhere(key.clone(), stamp(5, 0), policy(Availability::Drain));
    assert_eq!(story.broken(), [""; 0]);
    story.everywhere(key.clone(), stamp(4, 0), policy(Availability::Active));
    assert_eq!(story.broken(), ["S2"]);

    let mut story = Story::new();
    story.everywhere(key.clone(), stamp(5, 0), None);
    story.everywhere(key.clone(), stamp(6, 0), policy(Availability::Active));
    assert_eq!(story.broken(), [""; 0], "made anew");
    story.everywhere(key.clone(), stamp(7, 0), None);
    story.everywhere(key.clone(), stamp(6, 0), policy(Availability::Active));
    assert_eq!(story.broken(), ["S4"]);

    let mut story = Story::new();
    story.everywhere(key.clone(), stamp(5, 0), None);
    for n in 0..2 {
        story.tell(n, vec![Seen::Gone { key: key.clone() }]);
    }
    assert_eq!(story.broken(), ["S2"]);
}

#[test]
fn a_crash_may_take_what_was_not_durable() {
    let key = Key::NodePolicy(node(0));
    let mut story = Story::new();
    story.tell(0, vec![record(key.clone(), stamp(5, 0), policy(Availability::Drain))]);
    story.boot(0, Term::ZERO).everywhere(key, stamp(4, 0), policy(Availability::Active));
    assert_eq!(story.broken(), [""; 0]);
}

#[test]
fn what_was_acknowledged_is_there_in_the_end() {
    let key = Key::NodePolicy(node(0));
    let told = |pending| vec![Seen::Accepted { index: Hlc(5), pending }];
    let lose = |pending| {
        let mut story = Story::new();
        story.tell(0, vec![record(key.clone(), stamp(5, 0), policy(Availability::Drain))]).tell(0, told(pending));
        // Its node forgot it, and nobody else has it.
        story.boot(0, Term::ZERO).everywhere(key.clone(), stamp(4, 0), policy(Availability::Active)).broken()
    };
    assert_eq!(lose(false), ["S3"]);
    assert_eq!(lose(true), [""; 0], "with a warning it was no promise");
    let mut story = Story::new();
    story.everywhere(key.clone(), stamp(5, 0), policy(Availability::Drain)).tell(0, told(false));
    assert_eq!(story.everywhere(key, stamp(6, 1), None).broken(), [""; 0], "superseded");
}

#[test]
fn all_replicas_are_equal_in_the_end() {
    let mut story = Story::new();
    story.tell(0, vec![record(Key::NodePolicy(node(0)), stamp(5, 0), policy(Availability::Drain))]);
    assert_eq!(story.broken(), ["S1"]);
}

#[test]
fn a_task_stays_on_its_node() {
    let mut story = Story::new();
    let task = task(1, 1);
    story.task(&task, 10).task(&stopped(&task), 11);
    assert_eq!(story.broken(), [""; 0]);
    assert_eq!(story.task(&Task { node: Some(node(0)), ..stopped(&task) }, 12).broken(), ["P2"]);
}

/// Two slots are served, one after the other gives its task up, and only then come the new ones.
fn replaced(order: &str, gone: &[Task]) -> Story {
    let mut story = Story::new();
    story.service(order);
    let (a, b) = (task(1, 1), task(2, 2));
    story.task(&a, 10).task(&b, 10).running(&a, 10).running(&b, 10);
    for (n, old) in gone.iter().enumerate() {
        let next = Task { desired: Desired::Ready, replaces: Some(old.id), ..task(11 + n as u128, n as u32 + 1) };
        story.task(&next, 20).task(&stopped(old), 21).tell(1, vec![Seen::Stops { task: old.id }]);
    }
    story
}

#[test]
fn an_update_stops_no_more_than_its_budget() {
    assert_eq!(replaced("stop-first", &[task(1, 1)]).broken(), [""; 0]);
    assert_eq!(replaced("stop-first", &[task(1, 1), task(2, 2)]).broken(), ["U1"]);
    // What a fault took before isn't counted as planned.
    assert_eq!(replaced("stop-first", &[task(1, 1), task(2, 2)]).broken_when(Vec::new()), [""; 0]);
    // The first slot serves again before the second stops.
    let mut story = replaced("stop-first", &[task(1, 1)]);
    let next = Task { replaces: Some(id(1)), ..task(11, 1) };
    story.task(&next, 30).running(&next, 30);
    let b = stopped(&task(2, 2));
    let successor = Task { desired: Desired::Ready, ..task(12, 2) };
    story.task(&successor, 31).task(&b, 31).tell(1, vec![Seen::Stops { task: b.id }]);
    assert_eq!(story.broken(), [""; 0]);
}

#[test]
fn start_first_keeps_the_last_that_serves() {
    assert_eq!(replaced("start-first", &[task(1, 1)]).broken(), ["U2"]);
    let mut story = Story::new();
    story.service("start-first");
    let (old, new) = (task(1, 1), Task { replaces: Some(id(1)), ..task(11, 1) });
    story.task(&old, 10).running(&old, 10).task(&new, 11).running(&new, 12);
    story.task(&stopped(&old), 13).tell(1, vec![Seen::Stops { task: old.id }]);
    assert_eq!(story.broken(), [""; 0]);
}

/// The old task still lets its connections end when the slot is given up: what was to take over is stopped first.
#[test]
fn a_slot_that_is_given_up_keeps_nobody() {
    let given_up = |message: &str| {
        let mut story = Story::new();
        story.service("start-first");
        let (old, new) = (task(1, 1), Task { replaces: Some(id(1)), ..task(11, 1) });
        story.task(&old, 10).running(&old, 10).task(&new, 11).running(&new, 12).task(&stopped(&old), 13);
        let new = Task { message: message.to_owned(), desired: Desired::Remove, ..new };
        story.task(&new, 14).tell(1, vec![Seen::Stops { task: new.id }]).tell(1, vec![Seen::Stops { task: old.id }]);
        story.broken()
    };
    assert_eq!(given_up("scaled down"), [""; 0]);
    assert_eq!(given_up("another task has its slot"), ["U2"]);
}

#[test]
fn a_paused_release_is_not_spread() {
    let with = |state| {
        let mut story = Story::new();
        story.service("stop-first");
        let rollout = Rollout {
            service: service(),
            from: Some(revision(1)),
            to: revision(2),
            state,
            started: Wall(0),
            completed: None,
            message: String::new(),
            total: 2,
            failed: BTreeSet::new(),
        };
        story.everywhere(Key::Rollout(service()), stamp(9, 0), Some(Value::Rollout(rollout)));
        story.task(&Task { revision: revision(2), ..task(1, 1) }, 10).broken()
    };
    assert_eq!(with(RolloutState::Updating), [""; 0]);
    assert_eq!(with(RolloutState::Paused), ["U3"]);
}

#[test]
fn nobody_routes_to_what_is_stopped() {
    let with = |routed: &[u128]| {
        let mut story = Story::new();
        story.service("stop-first");
        let old = task(1, 1);
        story.task(&old, 10).running(&old, 10);
        story.tell(0, vec![Seen::Routed { tasks: [id(1)].into() }]);
        story.task(&stopped(&old), 11);
        story.tell(0, vec![Seen::Routed { tasks: routed.iter().map(|t| id(*t)).collect() }]);
        story.tell(1, vec![Seen::Stops { task: old.id }]);
        (story.broken(), story.broken_when(Vec::new()))
    };
    assert_eq!(with(&[]), (vec![], vec![]));
    assert_eq!(with(&[1]), (vec!["E1"], vec![]));
}

#[test]
fn a_trace_that_is_not_whole_is_no_proof() {
    assert_eq!(Story::new().tell(0, vec![Seen::Full]).broken(), ["trace"]);
}
