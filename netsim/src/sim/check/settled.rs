//! The second phase: after the faults everything must come to rest within a bound, and what doesn't has a reason that is
//! told. L5 one holder; M4, M5 members seen as they are; S1 equal records; P7 then nothing moves any more; S3 nothing
//! acknowledged is lost. What services, drains and routes come to stands in `wanted`.

use super::World;
use crate::sim::engine::Kind;
use crate::sim::world::{QUIET_US, SETTLE_US};
use peer::core::Core;
use peer::ids::NodeId;
use peer::model::node::Liveness;
use peer::model::record::Log;
use peer::time::Wall;
use peer::wire::message::Digest;
use std::collections::BTreeSet;

impl World {
    pub(in crate::sim) fn look_whether_settled(&mut self) {
        let since_heal = self.now.saturating_sub(self.plan.secs * 1_000_000);
        self.note_digests();
        let pending = self.pending();
        match pending {
            Some(reason) => {
                self.check.quiet_since = None;
                let id = reason.0;
                self.check.pending.insert(id, since_heal / 1_000_000);
                if since_heal > SETTLE_US && since_heal > SETTLE_US + self.trials_us() {
                    self.violate(id, || {
                        format!("not settled {} s after the faults: {}", since_heal / 1_000_000, reason.1)
                    });
                }
                self.check.reason = reason.1;
            }
            None => self.look_whether_quiet(),
        }
    }

    /// Everything is as it should be: now nothing may move.
    fn look_whether_quiet(&mut self) {
        let mark: Vec<(u64, u64)> = self
            .nodes
            .iter()
            .map(|n| (n.core.as_ref().map_or(0, |c| c.store().own_seq()), n.engine.operations))
            .collect();
        let began = *self.check.quiet_since.get_or_insert(self.now);
        let moved = self.check.quiet_mark != mark;
        self.check.quiet_mark = mark;
        if moved && !self.has_restless() {
            self.check.rest_since = self.now;
            if self.now - began > SETTLE_US {
                self.violate("P7", || "records or containers never come to rest".to_owned());
            }
            return;
        }
        if self.now - self.check.rest_since.max(began) >= QUIET_US {
            self.settled = Some(began);
            if let Some(lost) = self.lost_write() {
                self.violate("S3", || lost);
            }
            self.done = true;
        }
    }

    /// Some service's containers keep failing, and are rightly tried again.
    fn has_restless(&self) -> bool {
        let restless = |c: &crate::sim::engine::Container| matches!(c.kind, Kind::Bad | Kind::Sick | Kind::Missing);
        self.nodes.iter().any(|n| n.engine.containers.values().any(restless))
            || self.live().any(|(_, core)| {
                core.store().all_revisions().any(|(s, r)| {
                    core.store()
                        .revision(s, r)
                        .is_some_and(|r| ["-bad", "-sick", "-missing"].iter().any(|k| r.spec_json.contains(k)))
                })
            })
    }

    /// What is not yet as it must be, with the law.
    pub(in crate::sim) fn pending(&self) -> Option<(&'static str, String)> {
        if let Some(n) = (0..self.nodes.len()).find(|n| !self.nodes[*n].gone && self.nodes[*n].core.is_none()) {
            return Some(("boot", format!("n{n} is not up")));
        }
        let live: Vec<(usize, &Core)> = self.live().collect();
        let ids: BTreeSet<NodeId> = live.iter().map(|(n, _)| self.nodes[*n].id).collect();
        let Some(holder) = self.holder() else { return Some(("L5", self.why_no_holder(&live))) };
        for (n, core) in &live {
            for view in core.nodes() {
                let other = self.index_of(view.id);
                if ids.contains(&view.id) && view.liveness != Liveness::Alive {
                    return Some(("M5", format!("n{n} sees n{other:?} {:?}", view.liveness)));
                }
                if !ids.contains(&view.id) && view.liveness < Liveness::Away {
                    return Some(("M4", format!("n{n} sees n{other:?} {:?}, which is gone", view.liveness)));
                }
            }
            let seen: BTreeSet<NodeId> = core.nodes().iter().map(|v| v.id).collect();
            if let Some(missing) = ids.iter().find(|id| !seen.contains(id)) {
                return Some(("M5", format!("n{n} doesn't know n{:?}", self.index_of(*missing))));
            }
        }
        if let Some(apart) = self.apart(&live) {
            return Some(("S1", apart));
        }
        let core = self.nodes[holder].core.as_ref()?;
        self.pending_services(core).or_else(|| self.pending_drains(core)).or_else(|| self.pending_routes(core))
    }

    /// What each node goes by when it votes.
    fn why_no_holder(&self, live: &[(usize, &Core)]) -> String {
        let mut text = "nobody holds the lease".to_owned();
        for (n, core) in live {
            let electorate = core.electorate();
            let voters: Vec<_> = electorate.voters.iter().map(|id| self.index_of(*id).unwrap_or(999)).collect();
            let doubt = if core.is_in_doubt() { ", in doubt" } else { "" };
            text +=
                &format!("; n{n} goes by {voters:?} of {:?}, promised {}{doubt}", electorate.id, core.promised().round);
        }
        text
    }

    /// Where replicas differ. While something is rightly tried again and again, what was written lately may be on its
    /// way; what is older may not.
    fn apart(&self, live: &[(usize, &Core)]) -> Option<String> {
        let (first, core) = live.first()?;
        // A log of which nothing is left is in nobody's digest.
        let union = self.held_by_anybody();
        let waning = if live.iter().all(|(_, other)| other.store().digest() == core.store().digest()) {
            BTreeSet::new()
        } else {
            self.waning(live)
        };
        let before = self.check.digest_before.iter().filter(|(log, _)| union.contains_key(log));
        let before = before.filter(|(log, _)| !waning.contains(log));
        let before: Vec<(&Log, &u32)> = before.collect();
        for (n, other) in live {
            let held = other.store().digest();
            let lacks = before.iter().find(|(log, number)| held.get(log).is_none_or(|h| h < number));
            if let Some((log, number)) = lacks {
                let (author, life) = (self.index_of(log.author), log.life);
                let has = held.get(log).copied().unwrap_or(0);
                return Some(format!("n{n} has {has} of the {number} writes of n{author:?} in its life {life:x}"));
            }
            if self.has_restless() {
                continue;
            }
            let judged = |digest: &Digest| -> Vec<(Log, u32)> {
                digest.iter().filter(|(log, _)| !waning.contains(log)).map(|(log, number)| (*log, *number)).collect()
            };
            if judged(core.store().digest()) != judged(held) {
                return Some(format!("n{first} and n{n} have different digests"));
            }
            // One may have collected a tombstone that the other still keeps.
            let one_lacks = |a: &Core, b: &Core| {
                a.store().records().any(|r| match b.store().record(&r.key) {
                    Some(held) => held != r,
                    None => r.value.is_some(),
                })
            };
            if one_lacks(core, other) || one_lacks(other, core) {
                return Some(format!("n{first} and n{n} have equal digests and different records"));
            }
        }
        None
    }

    /// Logs of which only tombstones are left, of an age that not all clocks agree on: those that run ahead, or once did
    /// before they were set back (seed 20148 of swarm at 600 s), have collected them, those that are behind will.
    fn waning(&self, live: &[(usize, &Core)]) -> BTreeSet<Log> {
        let retention = self.timing().tombstone_retention;
        let wall = |n: usize| self.nodes[n].clock.now(self.now).wall;
        let latest = live.iter().map(|(n, _)| self.nodes[*n].clock.latest_wall(self.now)).max().unwrap_or(Wall(0));
        let old = |at: Wall, by: Wall| by.since(at) >= retention;
        let mut alive = BTreeSet::new();
        let mut disputed = BTreeSet::new();
        for (n, core) in live {
            for record in core.store().records() {
                let (log, at) = (record.place().0, record.stamp.hlc.wall());
                if record.value.is_some() || !old(at, latest) {
                    alive.insert(log);
                } else if !old(at, wall(*n)) {
                    disputed.insert(log);
                }
            }
        }
        &disputed - &alive
    }

    /// Every ten seconds: all that anybody holds now must soon be everybody's.
    fn note_digests(&mut self) {
        if !(self.now / 1_000_000).is_multiple_of(10) {
            return;
        }
        let latest = std::mem::take(&mut self.check.digest_now);
        self.check.digest_before = latest;
        self.check.digest_now = self.held_by_anybody();
    }

    fn held_by_anybody(&self) -> Digest {
        let mut union = Digest::new();
        for (_, core) in self.live() {
            for (log, number) in core.store().digest() {
                let held = union.entry(*log).or_default();
                *held = (*held).max(*number);
            }
        }
        union
    }
}
