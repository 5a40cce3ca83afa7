//! The simulated drivers without the cores: what a driver would tell a core is handed to whoever holds the rig. For the
//! suites that the real drivers pass too (`tests/conformance`), so that the fakes can't drift from them.

use super::plan::{Plan, Weather};
use super::world::{SECOND, World};
use peer::core::face::{Event, PersistId};
use peer::ids::NodeId;
use peer::model::container::{EngineOp, OpId};
use std::collections::{BTreeMap, VecDeque};

pub type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What is awaited must come within this much virtual time.
const PATIENCE_US: u64 = 300 * SECOND;

pub struct Rig {
    world: World,
    heard: Vec<VecDeque<Event>>,
}

impl Rig {
    pub fn new(seed: u64, nodes: usize) -> Self {
        let weather = Weather {
            floor_us: 200,
            jitter_us: 400,
            loss_permille: 20,
            double_permille: 0,
            disk_us: 2_000,
            engine_us: 20_000,
            drift_ppm: 100,
            wall_off_ms: 0,
            client_every_ms: 0,
            leave_dead: false,
            retention_s: None,
        };
        let plan = Plan {
            seed,
            profile: "rig".to_owned(),
            story: String::new(),
            guards: String::new(),
            nodes,
            // It is never over.
            secs: u64::MAX / (2 * SECOND),
            weather,
            ops: Vec::new(),
            faults: Vec::new(),
        };
        let mut world = World::new(plan);
        world.tap = Some(Vec::new());
        let mut rig = Self { world, heard: (0..nodes).map(|_| VecDeque::new()).collect() };
        // The cores start, and from then on hear nothing.
        rig.advance_until(|rig| rig.world.live().count() == nodes);
        rig
    }

    /// False if nothing came of it within the patience.
    fn advance_until(&mut self, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.world.now + PATIENCE_US;
        while !done(self) {
            if self.world.now > end || !self.world.advance() {
                return false;
            }
            for (node, event) in self.world.tap.iter_mut().flat_map(|tap| tap.drain(..)) {
                self.heard[node].push_back(event);
            }
        }
        true
    }

    /// The next event for this node's core. `None` if none comes in five minutes of virtual time.
    pub fn next(&mut self, node: usize) -> Option<Event> {
        self.advance_until(|rig| !rig.heard[node].is_empty());
        self.heard[node].pop_front()
    }

    pub fn id(&self, node: usize) -> NodeId {
        self.world.nodes[node].id
    }

    pub fn index_of(&self, node: NodeId) -> Option<usize> {
        self.world.index_of(node)
    }

    pub fn engine(&mut self, node: usize, op: OpId, what: EngineOp) {
        self.world.engine_ask(node, op, what);
    }

    /// The engine goes, its containers live on; or it comes back.
    pub fn engine_outage(&mut self, node: usize, down: bool) {
        if down {
            self.world.engine_down(node, PATIENCE_US, false);
        } else {
            self.world.nodes[node].engine_back_at = self.world.now;
            self.world.engine_back(node);
        }
    }

    pub fn persist(&mut self, node: usize, id: PersistId, writes: Writes) {
        self.world.persist(node, id, writes);
    }

    pub fn disk_full(&mut self, node: usize, full: bool) {
        self.world.nodes[node].disk.full_until = if full { u64::MAX } else { 0 };
    }

    /// What the next life starts from.
    pub fn disk(&self, node: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let image = self.world.nodes[node].disk.image();
        image.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    pub fn send(&mut self, from: usize, to: usize, datagram: bool, bytes: Vec<u8>) {
        self.world.send(from, to, datagram, bytes);
    }

    /// The process ends: with a goodbye, or killed on a machine that lives on.
    pub fn end(&mut self, node: usize, goodbye: bool) {
        self.world.end(node, goodbye, false);
        self.heard[node].clear();
    }

    pub fn start(&mut self, node: usize) {
        self.world.start(node);
    }

    pub fn ban(&mut self, by: usize, node: usize) {
        let banned = self.world.nodes[node].id;
        self.world.nodes[by].banned.insert(banned);
        self.world.close_banned(by);
    }
}
