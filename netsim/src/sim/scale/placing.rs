//! The lease holder's own time for many tasks: one real core that leads alone, told of a thousand nodes by their own
//! words (each boots, meets its engine and shows its records), and then asked for services with tens of thousands of
//! replicas. A thousand replicas of all that in one process would not fit; what the holder does is the same.

use super::super::spec;
use crate::sim::plan::SpecKnobs;
use peer::core::Core;
use peer::core::face::*;
use peer::ids::{ClusterId, NodeId};
use peer::model::container::{EngineEvent, EngineInfo};
use peer::model::node::Availability;
use peer::time::{Mono, Now, Wall};
use peer::wire::codec;
use peer::wire::message::{MemberEntry, MemberState, Message};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

const MS: u64 = 1_000;

pub struct Placing {
    pub placed: usize,
    pub nodes_used: usize,
    /// Simulated, from the first operator's write to the last assignment.
    pub took_ms: f64,
    pub cpu_secs: f64,
    /// One more plan over all that is placed.
    pub replan_ms: f64,
}

struct Holder {
    core: Core,
    now: u64,
}

fn at(us: u64) -> Now {
    Now { mono: Mono(us), wall: Wall(1_767_225_600_000 + us / 1_000) }
}

fn id(n: usize) -> NodeId {
    NodeId::from_u128(0x5eed_0000 + ((n as u128) << 64))
}

fn addr(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 7_373))
}

fn boot(n: usize, members: Option<Vec<MemberEntry>>) -> Boot {
    let join_secret = if members.is_none() { "secret".to_owned() } else { String::new() };
    let first = FirstBoot { members, join_secret, availability: Availability::Active, labels: BTreeMap::new() };
    Boot {
        cluster: ClusterId::from_u128(7),
        node: id(n),
        boot: n as u64 + 1,
        hostname: format!("n{n}"),
        addr: addr(n),
        agent_version: "sim".to_owned(),
        timing: Timing::default(),
        delivers: false,
        durable: BTreeMap::new(),
        first: Some(first),
        keep: Arc::new,
    }
}

fn entry(n: usize) -> MemberEntry {
    MemberEntry { node: id(n), addr: addr(n), bump: 1, incarnation: 0, state: MemberState::Alive }
}

fn engine() -> EngineInfo {
    EngineInfo {
        version: "28.2".into(),
        os: "linux".into(),
        arch: "x86_64".into(),
        nano_cpus: 64_000_000_000,
        memory_bytes: 256 << 30,
        labels: BTreeMap::new(),
    }
}

impl Holder {
    fn feed(&mut self, event: Event) {
        self.core.handle(event, at(self.now));
        self.carry_out();
    }

    /// The disk takes no time, and what is sent is not answered.
    fn carry_out(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            if let Effect::Persist { id, .. } = effect {
                self.core.handle(Event::Persisted(id), at(self.now));
            }
        }
    }

    fn hear_records(&mut self, other: &Self, from: NodeId) {
        let records = other.core.store().records().cloned().collect();
        self.feed(Event::Message { from, bytes: codec::encode(&Message::Push { records }) });
    }

    fn wake_until(&mut self, end: u64) {
        while let Some(due) = self.core.deadline().filter(|due| due.0 <= end) {
            self.now = due.0.max(self.now);
            self.feed(Event::Wake);
        }
        self.now = end.max(self.now);
    }
}

/// Some service with this many replicas.
fn create(n: usize, replicas: u64) -> Event {
    let knobs = SpecKnobs::plain(replicas, 0);
    let spec_json = spec::spec_json(&format!("s{n}"), &knobs);
    Event::Request { id: RequestId(n as u64), request: Request::CreateService { spec_json, auth: None } }
}

/// `tasks` in ten services on `nodes`; `cpu` says how many CPU seconds this process has used. `None` if a core can't boot.
pub fn place(nodes: usize, tasks: usize, cpu: fn() -> f64) -> Option<Placing> {
    let mut holder = Holder { core: Core::boot(boot(0, None), at(0)).ok()?, now: 0 };
    holder.carry_out();
    holder.feed(Event::Engine(EngineEvent::Reachable(engine())));
    holder.wake_until(200 * MS);
    for n in 1..nodes {
        let mut other =
            Holder { core: Core::boot(boot(n, Some(vec![entry(0)])), at(holder.now)).ok()?, now: holder.now };
        other.carry_out();
        // Twice, as it would push them itself: none of its numbers may be missing.
        holder.hear_records(&other, id(n));
        other.feed(Event::Engine(EngineEvent::Reachable(engine())));
        holder.hear_records(&other, id(n));
    }
    let members = (1..nodes).map(entry).collect();
    let told = codec::encode(&Message::Members { members, reply: false });
    holder.feed(Event::Message { from: id(1), bytes: told });

    let (start, before) = (holder.now, cpu());
    let services = 10.min(tasks);
    for n in 0..services {
        holder.feed(create(n, (tasks / services) as u64));
    }
    let placed = |holder: &Holder| holder.core.store().tasks().filter(|t| t.node.is_some()).count();
    // Nobody answers the holder's probes: what is measured must be over before it minds.
    while placed(&holder) < tasks / services * services && holder.now < start + 400 * MS {
        let next = holder.now + MS;
        holder.wake_until(next);
    }
    let (end, after) = (holder.now, cpu());
    // A node's engine comes back: one change, one plan.
    holder.now += 300 * MS;
    holder.feed(Event::Wake);
    let replan = cpu();
    holder.feed(create(services, 1));
    let next = holder.now + 300 * MS;
    holder.wake_until(next);
    let replan = cpu() - replan;
    let used = holder.core.store().tasks().filter_map(|t| t.node).collect::<std::collections::BTreeSet<_>>().len();
    Some(Placing {
        placed: placed(&holder).min(tasks),
        nodes_used: used,
        took_ms: (end - start) as f64 / 1e3,
        cpu_secs: after - before,
        replan_ms: replan * 1e3,
    })
}
