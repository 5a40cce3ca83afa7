//! What the targets share: a core whose disk and engine are this process, and frames, by which one input is many events.

extern crate libfuzzer_sys;

use peer::core::Core;
use peer::core::face::{Boot, Effect, Event, FirstBoot, PersistId, Reply, Request, RequestId, Timing};
use peer::ids::{ClusterId, NodeId};
use peer::model::node::Availability;
use peer::time::{Mono, Now, Wall};
use peer::wire::message::{MemberEntry, MemberState};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub type Disk = BTreeMap<Vec<u8>, Vec<u8>>;

pub struct Node {
    pub core: Core,
    pub disk: Disk,
    pub now: Mono,
    pub sent: Vec<(NodeId, Vec<u8>)>,
    pub replies: Vec<Reply>,
}

pub fn id(number: u64) -> NodeId {
    NodeId::from_u128(u128::from(number))
}

fn addr(number: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8], 7373))
}

pub fn boot(number: u64, disk: Disk, first: Option<FirstBoot>) -> Boot {
    Boot {
        cluster: ClusterId::from_u128(7),
        node: id(number),
        boot: 42 + number,
        hostname: format!("n{number}"),
        addr: addr(number),
        agent_version: "0".to_owned(),
        timing: Timing::default(),
        delivers: true,
        durable: disk,
        keep: Arc::new,
        first,
    }
}

impl Node {
    /// The founder of a cluster.
    pub fn founder() -> Self {
        Self::first(1, None)
    }

    /// A node that joined at the founder.
    pub fn joined() -> Self {
        let founder = MemberEntry { node: id(1), addr: addr(1), bump: 1, incarnation: 0, state: MemberState::Alive };
        Self::first(2, Some(vec![founder]))
    }

    fn first(number: u64, members: Option<Vec<MemberEntry>>) -> Self {
        let first = FirstBoot {
            members,
            join_secret: "secret".to_owned(),
            availability: Availability::Active,
            labels: BTreeMap::new(),
        };
        // An own, empty disk: nothing on it can be malformed.
        Self::start(boot(number, Disk::new(), Some(first))).expect("a first start")
    }

    /// None if what is on the disk is refused.
    pub fn start(boot: Boot) -> Option<Self> {
        let (disk, now) = (boot.durable.clone(), Mono(1_000_000));
        let core = Core::boot(boot, at(now)).ok()?;
        let mut node = Self { core, disk, now, sent: Vec::new(), replies: Vec::new() };
        node.drain();
        Some(node)
    }

    pub fn feed(&mut self, event: Event) {
        self.core.handle(event, at(self.now));
        self.drain();
    }

    pub fn ask(&mut self, request: Request) {
        self.feed(Event::Request { id: RequestId(1), request });
    }

    /// Time passes, and what is due on the way is done.
    pub fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        // However close together the deadlines are, an input ends.
        for _ in 0..1_000 {
            match self.core.deadline() {
                Some(next) if next <= until => self.now = self.now.max(next),
                _ => break,
            }
            self.feed(Event::Wake);
        }
        self.now = until;
        self.feed(Event::Wake);
    }

    fn drain(&mut self) {
        let mut written: Vec<PersistId> = Vec::new();
        loop {
            while let Some(effect) = self.core.poll_effect() {
                match effect {
                    Effect::Persist { id, writes } => {
                        for (key, value) in writes {
                            match value {
                                Some(value) => drop(self.disk.insert(key, value)),
                                None => drop(self.disk.remove(&key)),
                            }
                        }
                        written.push(id);
                    }
                    Effect::Send { to, bytes, .. } => self.sent.push((to, bytes)),
                    Effect::Reply { reply, .. } => self.replies.push(reply),
                    _ => {}
                }
            }
            if written.is_empty() {
                return;
            }
            for id in written.drain(..) {
                self.core.handle(Event::Persisted(id), at(self.now));
            }
        }
    }
}

fn at(mono: Mono) -> Now {
    Now { mono, wall: Wall(1_700_000_000_000 + mono.0 / 1_000) }
}

/// Splits an input into frames of a tag and at most 64 KiB: two bytes of length before each. The rest is the last one.
pub fn frames(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let [tag, low, high, rest @ ..] = data else { return None };
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (body, rest) = rest.split_at(length);
        data = rest;
        Some((*tag, body))
    })
}

pub fn frame(into: &mut Vec<u8>, tag: u8, body: &[u8]) {
    let length = u16::try_from(body.len()).expect("seeds are small");
    into.push(tag);
    into.extend(length.to_le_bytes());
    into.extend(body);
}
