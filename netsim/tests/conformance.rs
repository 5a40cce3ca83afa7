//! The simulator's engine, disk and network keep what the real ones keep: the suites are one.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../../tests/conformance/mod.rs"]
mod conformance;

use conformance::{disk, engine, net};
use netsim::sim::rig::{Rig, Writes};
use peer::core::face::{Event, PersistId};
use peer::ids::TaskId;
use peer::model::container::{EngineEvent, EngineOp, OpId};

/// Each story with several seeds, one after the other.
const SEEDS: std::ops::Range<u64> = 1..13;

struct SimEngine {
    rig: Rig,
    tasks: u128,
}

impl SimEngine {
    fn new(seed: u64) -> Self {
        Self { rig: Rig::new(seed, 1), tasks: 0 }
    }
}

impl engine::Subject for SimEngine {
    fn submit(&mut self, op: OpId, what: EngineOp) {
        self.rig.engine(0, op, what);
    }

    fn next(&mut self) -> EngineEvent {
        loop {
            // What else comes is the core's own, which is not on trial.
            if let Event::Engine(event) = self.rig.next(0).expect("an event of the engine") {
                return event;
            }
        }
    }

    fn outage(&mut self, down: bool) {
        self.rig.engine_outage(0, down);
    }

    fn images(&self) -> engine::Images {
        engine::Images {
            ok: "app:1".to_owned(),
            bad: "app:1-bad".to_owned(),
            missing: ("app:1-missing".to_owned(), "app:1-missing".to_owned()),
            healthy: ("app:2".to_owned(), engine::check(&["CMD", "check"])),
            unhealthy: ("app:2-sick".to_owned(), engine::check(&["CMD", "check"])),
        }
    }

    fn new_task(&mut self) -> TaskId {
        self.tasks += 1;
        TaskId::from_u128(self.tasks)
    }
}

mod the_engine {
    crate::conformance::stories!(engine, crate::SEEDS.map(crate::SimEngine::new));
}

struct SimDisk(Rig);

/// The core of the first life wrote under ids of its own.
const FIRST: u64 = 1_000_000;

impl SimDisk {
    fn new(seed: u64) -> Self {
        Self(Rig::new(seed, 1))
    }
}

impl disk::Subject for SimDisk {
    fn persist(&mut self, id: PersistId, writes: Writes) {
        self.0.persist(0, PersistId(FIRST + id.0), writes);
    }

    fn next(&mut self) -> disk::Report {
        loop {
            match self.0.next(0).expect("a report of the disk") {
                Event::Persisted(PersistId(id)) if id > FIRST => return disk::Report::Done(PersistId(id - FIRST)),
                Event::PersistFailed { id: PersistId(id), .. } => {
                    return disk::Report::Failed(PersistId(id - FIRST));
                }
                _ => {}
            }
        }
    }

    fn crash(&mut self) -> disk::Contents {
        self.0.end(0, false);
        let left = self.0.disk(0);
        self.0.start(0);
        left.into_iter().filter(|(key, _)| key.len() > 3 && (key.starts_with(b"key ") || suites_own(key))).collect()
    }

    fn set_full(&mut self, full: bool) {
        self.0.disk_full(0, full);
    }
}

/// Other than what the core keeps there.
fn suites_own(key: &[u8]) -> bool {
    [b"last".as_slice(), b"with it"].contains(&key)
}

mod the_disk {
    crate::conformance::stories!(
        crate::conformance::disk,
        crate::SEEDS.map(crate::SimDisk::new),
        writes_are_reported_in_their_order,
        what_was_reported_survives_and_of_the_rest_a_beginning,
        what_is_replaced_or_deleted_stays_so,
        the_next_life_goes_on_from_what_it_found,
        a_full_disk_says_so_and_takes_writes_again_once_freed,
    );
}

struct SimNet(Rig);

/// Before every message of a story: the cores' own are not on trial.
const MARK: &[u8] = b"story:";

impl SimNet {
    fn new(seed: u64) -> Self {
        Self(Rig::new(seed, 3))
    }
}

impl net::Subject for SimNet {
    fn send(&mut self, from: usize, to: usize, datagram: bool, bytes: &[u8]) {
        self.0.send(from, to, datagram, [MARK, bytes].concat());
    }

    fn next(&mut self, at: usize) -> net::Heard {
        loop {
            match self.0.next(at).unwrap_or_else(|| panic!("node {at} heard nothing")) {
                Event::Message { from, bytes } => {
                    if let Some(bytes) = bytes.strip_prefix(MARK) {
                        let from = self.0.index_of(from).unwrap();
                        return net::Heard::Message { from, bytes: bytes.to_vec() };
                    }
                }
                Event::LinkLost { node } => return net::Heard::Lost(self.0.index_of(node).unwrap()),
                _ => {}
            }
        }
    }

    fn close(&mut self, node: usize) {
        self.0.end(node, true);
    }

    fn bounce(&mut self, node: usize) {
        self.0.end(node, false);
        self.0.start(node);
    }

    fn ban(&mut self, by: usize, node: usize) {
        self.0.ban(by, node);
    }
}

mod the_net {
    crate::conformance::stories!(net, crate::SEEDS.map(crate::SimNet::new));
}
