//! What a world notes down for the figures: who took whom for down and when, when a version of a key reached each node,
//! and what travelled, by the kind of message.

use crate::sim::disk::Blob;
use crate::sim::world::World;
use peer::ids::NodeId;
use peer::model::record::{Hlc, Key, Log, Record, Term};
use peer::wire::codec;
use peer::wire::message::{LeaseMessage, Message};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

#[derive(Debug, Default)]
pub struct Gauge {
    /// When, by whom, about whom.
    pub downs: Vec<(u64, usize, NodeId)>,
    watched: Option<(Key, Hlc)>,
    /// When each node came to hold it.
    pub reached: Vec<Option<u64>>,
    /// The disks of a thousand nodes hold the same records: one copy is enough, and the figure of memory is the cores'.
    blobs: BTreeSet<Blob>,
    /// How many there were after those that no disk holds any more were last let go.
    blobs_kept: usize,
}

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Members,
    Records,
    Lease,
}

/// Messages and bytes of membership, of records, and of the lease.
pub type Traffic = [(u64, u64); 3];

pub fn count(traffic: &mut Traffic, bytes: &[u8]) {
    let (messages, total) = &mut traffic[about(bytes) as usize];
    *messages += 1;
    *total += bytes.len() as u64;
}

/// By the variant of the message, which stands behind the format and the version.
fn about(bytes: &[u8]) -> About {
    static TAGS: OnceLock<Vec<(u8, About)>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let ballot = Term { round: 0, node: NodeId::from_u128(0) };
        let of_members = [
            Message::Gossip(Vec::new()),
            Message::Members { members: Vec::new(), reply: false },
            Message::Leaving { for_good: false },
            Message::MembersHash { buckets: Vec::new() },
            Message::MembersPart { of: 1, buckets: BTreeSet::new(), members: Vec::new(), reply: false },
        ];
        let tag = |message: &Message| codec::encode(message).get(2).copied().unwrap_or_default();
        let mut tags: Vec<(u8, About)> = of_members.iter().map(|m| (tag(m), About::Members)).collect();
        tags.push((tag(&Message::Lease(LeaseMessage::Release { ballot })), About::Lease));
        tags
    });
    let found = tags.iter().find(|(tag, _)| Some(tag) == bytes.get(2));
    found.map_or(About::Records, |(_, about)| *about)
}

/// Above this it isn't shared.
const BIG_BLOB: usize = 4_096;

/// Records that all cores of this thread hold alike, by their place.
#[derive(Default)]
struct Kept {
    records: BTreeMap<(Log, u32), Arc<Record>>,
    /// How many there were after those that no core holds any more were last let go.
    after: usize,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// One copy of a record, whichever cores hold it. A function and not a field, for cores know nothing of each other.
pub fn keep_once(record: Record) -> Arc<Record> {
    KEPT.with_borrow_mut(|kept| {
        if kept.records.len() > 2 * kept.after + 10_000 {
            kept.records.retain(|_, record| Arc::strong_count(record) > 1);
            kept.after = kept.records.len();
        }
        match kept.records.get(&record.place()) {
            Some(known) if **known == record => known.clone(),
            _ => {
                let (place, record) = (record.place(), Arc::new(record));
                kept.records.insert(place, record.clone());
                record
            }
        }
    })
}

impl Gauge {
    pub fn blob(&mut self, bytes: Vec<u8>) -> Blob {
        if let Some(known) = self.blobs.get(bytes.as_slice()) {
            return known.clone();
        }
        if self.blobs.len() > 2 * self.blobs_kept + 10_000 {
            self.blobs.retain(|blob| Rc::strong_count(blob) > 1);
            self.blobs_kept = self.blobs.len();
        }
        let blob: Blob = bytes.into();
        if blob.len() < BIG_BLOB {
            self.blobs.insert(blob.clone());
        }
        blob
    }
}

impl World {
    pub(in crate::sim) fn gauge_after(&mut self, n: usize) {
        let (now, nodes) = (self.now, self.nodes.len());
        let Some(gauge) = &mut self.gauge else { return };
        let Some((key, version)) = &gauge.watched else { return };
        gauge.reached.resize(nodes, None);
        if gauge.reached[n].is_none()
            && self.nodes[n].core.as_ref().and_then(|c| c.store().index(key)).is_some_and(|held| held >= *version)
        {
            gauge.reached[n] = Some(now);
        }
    }

    /// From now on it is noted when each node holds this version or a later one.
    pub(super) fn watch(&mut self, key: Key, version: Hlc) {
        if let Some(gauge) = &mut self.gauge {
            gauge.reached.clear();
            gauge.watched = Some((key, version));
        }
        for n in 0..self.nodes.len() {
            self.gauge_after(n);
        }
    }

    pub(super) fn watch_nothing(&mut self) {
        if let Some(gauge) = &mut self.gauge {
            gauge.watched = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peer::model::record::Stamp;

    #[test]
    fn what_many_cores_hold_is_kept_once_and_what_differs_is_not_confused() {
        let record = |hlc| {
            let stamp = Stamp { term: Term::ZERO, hlc: Hlc(hlc), author: NodeId::from_u128(7) };
            Record { key: Key::Cluster, value: None, stamp, seq: 1 }
        };
        let (one, two) = (keep_once(record(1)), keep_once(record(1)));
        assert!(Arc::ptr_eq(&one, &two));
        // A disk that was put back gave the number again.
        assert_eq!(*keep_once(record(2)), record(2));
        assert_eq!(*one, record(1));
    }
}
