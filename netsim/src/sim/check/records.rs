//! S2 and S4: per key a node's version never goes back, its digest claims nothing that it lacks, and nothing that was
//! removed returns by itself. S3: what was acknowledged to an operator is on the disks of a majority then, and there at
//! the end, or something later. S5: a disk, and the life that starts from it, never goes back behind what was durable. S6:
//! hybrid time is bounded.

use super::World;
use crate::law::Breach;
use crate::law::records::{covers, goes_back, runs_ahead, version};
use peer::core::Core;
use peer::ids::NodeId;
use peer::limits::MAX_CLOCK_DRIFT;
use peer::model::record::{Hlc, Key, Record, Stamp, Value};
use peer::time::Wall;
use std::time::Duration;

/// More than any run counts hybrid time up without its clock: a step a write, sixteen milliseconds a life.
const COUNTED: Duration = Duration::from_secs(60);

impl World {
    /// Looks at one node.
    pub(super) fn check_versions(&mut self, n: usize) {
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        if self.check.looked[n] == Some(core.changes()) {
            return;
        }
        self.check.looked[n] = Some(core.changes());
        let may_go = self.may_collect(n);
        let furthest = self.furthest(n);
        let (id, core) = (self.nodes[n].id, core.store());
        let seen = &mut self.check.versions[n];
        let mut wrong = None;
        let mut collected = 0;
        for r in core.records() {
            wrong = seen.see(&r.key, version(r.value.as_ref(), r.stamp), r.value.is_none());
            wrong = wrong.or_else(|| runs_ahead(&r.key, r.stamp, furthest));
            if wrong.is_some() {
                break;
            }
        }
        let excess = seen.len().saturating_sub(core.len());
        if excess > 0 && wrong.is_none() {
            let tombstones = &self.check.tombstones;
            wrong = seen.lost(|key| core.record(key).is_some(), |key| tombstones.last(key, id), may_go);
            collected = excess;
        }
        if collected > 0 {
            self.probes.hit("a tombstone was collected");
        }
        self.judge_of(n, wrong);
        self.check_claims(n);
    }

    /// Which tombstones are old enough for this node's own clock.
    fn may_collect(&self, n: usize) -> impl Fn(Stamp) -> bool + use<> {
        let now = self.nodes[n].clock.latest_wall(self.now);
        let retention = self.timing().tombstone_retention;
        move |stamp| now.since(stamp.hlc.wall()) >= retention
    }

    /// No hybrid time that this node may take from elsewhere is later than this; what it counts up from there comes on top.
    fn furthest(&self, n: usize) -> Wall {
        let latest = self.nodes[n].clock.latest_wall(self.now).0;
        Wall(latest + (MAX_CLOCK_DRIFT + COUNTED).as_millis() as u64)
    }

    /// Of each author the node holds all that its digest says, or what came after it.
    fn check_claims(&mut self, n: usize) {
        // What a disk forgot its node may say again, otherwise.
        if self.nodes.iter().any(|node| node.lost_disk) {
            return;
        }
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let upto = &mut self.check.claims[n];
        let mut wrong = None;
        let mut overruled = false;
        for (log, number) in core.store().digest() {
            let from = upto.insert(*log, *number).unwrap_or(0);
            if from >= *number {
                continue;
            }
            let claimed = (log.author, log.seq(from + 1))..=(log.author, log.seq(*number));
            for ((_, seq), (key, stamp, lasting)) in self.check.written.range(claimed) {
                let held = core.store().record(key).map(|r| version(r.value.as_ref(), r.stamp));
                let removed = self.check.tombstones.last(key, self.nodes[n].id);
                let gone = held.is_none() && removed.is_some_and(|t| t >= *stamp);
                overruled |= held.is_some_and(|(_, held)| held.term > stamp.term && held.hlc < stamp.hlc);
                if !gone && held.is_none_or(|held| held < (*lasting, *stamp)) {
                    let held = held.map(|(_, stamp)| stamp);
                    wrong = Some(format!(
                        "n{n} claims all of {log:?} up to {number}, and has {held:?} of {key:?}, not {stamp:?} as in {seq}"
                    ));
                }
            }
        }
        if overruled {
            self.probes.hit("a later term overruled an earlier one's later word");
        }
        if let Some(text) = wrong {
            self.violate("S2", || text);
        }
    }

    /// Whether the others refuse what a node wrote while its clock was days ahead. One that wrote nothing then has hybrid
    /// time as good as anybody's once its clock is right again.
    fn is_refused(&self, stamp: Stamp) -> bool {
        let is_off = |n: usize| self.nodes[n].is_refused;
        let others = (0..self.nodes.len()).filter(|n| !is_off(*n)).map(|n| self.nodes[n].clock.latest_wall(self.now).0);
        let half = MAX_CLOCK_DRIFT.as_millis() as u64 / 2;
        self.index_of(stamp.author).is_some_and(is_off)
            && others.max().is_some_and(|latest| stamp.hlc.wall().0 > latest + half)
    }

    /// A record of a node's own that is new.
    pub(super) fn note_written(&mut self, record: &Record) {
        let lasting = version(record.value.as_ref(), record.stamp).0;
        let entry = (record.key.clone(), record.stamp, lasting);
        self.check.written.insert((record.stamp.author, record.seq), entry);
        if record.value.is_none() {
            let is_refused = self.is_refused(record.stamp);
            self.check.tombstones.note(record.key.clone(), record.stamp, is_refused);
        }
        if let (Key::TaskStatus(task), None) = (&record.key, &record.value) {
            // Cleared away; its node may insist on its word, and then begins anew.
            self.check.said.remove(task);
        }
        if let Some(Value::TaskStatus(status)) = &record.value {
            let before = self.check.said.insert(status.task, status.clone());
            let before = before.filter(|before| !self.index_of(before.node).is_some_and(|n| self.nodes[n].lost_disk));
            let breach = before.and_then(|before| goes_back(&before, status));
            self.judge(breach);
        }
    }

    /// What its disk holds is not older than what it held before: on a running node, at a process's end, and at the
    /// next start. Only what was written since the last look is looked at, unless the disk is another than it was.
    pub(in crate::sim) fn check_disk(&mut self, n: usize) {
        if self.gauge.is_some() {
            return;
        }
        let may_go = self.may_collect(n);
        let touched = self.nodes[n].disk.touched();
        let (id, image) = (self.nodes[n].id, self.nodes[n].disk.image());
        let durable = &mut self.check.durable[n];
        let tombstones = &self.check.tombstones;
        let mut wrong = None;
        match touched {
            None => {
                for r in Core::records_on_disk(image) {
                    wrong = wrong.or(durable.see(&r.key, version(r.value.as_ref(), r.stamp), r.value.is_none()));
                }
                let there = |key: &Key| Core::record_on_disk(image, key).is_some();
                wrong = wrong.or_else(|| durable.lost(there, |key| tombstones.last(key, id), may_go));
            }
            Some(touched) => {
                for key in touched.iter().filter_map(|key| Core::key_on_disk(key)) {
                    let breach = match Core::record_on_disk(image, &key) {
                        Some(r) => durable.see(&key, version(r.value.as_ref(), r.stamp), r.value.is_none()),
                        None => durable.is_gone(&key, tombstones.last(&key, id), &may_go),
                    };
                    wrong = wrong.or(breach);
                }
            }
        }
        self.judge_of(n, wrong.map(|Breach { text, .. }| Breach::of("S5", format!("on its disk: {text}"))));
    }

    /// Its process ended: what it said and didn't write down was never heard.
    pub(in crate::sim) fn forget_unsaid(&mut self, n: usize) {
        let id = self.nodes[n].id;
        self.check.said.retain(|_, status| status.node != id);
        for record in Core::records_on_disk(self.nodes[n].disk.image()) {
            if let Some(Value::TaskStatus(status)) = record.value.filter(|_| record.stamp.author == id) {
                self.check.said.insert(status.task, status);
            }
        }
    }

    /// A life has started from its disk.
    pub(in crate::sim) fn check_booted(&mut self, n: usize) {
        self.check_disk(n);
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let forgot = Core::records_on_disk(self.nodes[n].disk.image()).find(|r| {
            let held = core.store().record(&r.key).map(|held| version(held.value.as_ref(), held.stamp));
            held.is_none_or(|held| held < version(r.value.as_ref(), r.stamp))
        });
        if let Some(record) = forgot {
            self.violate("S5", || format!("n{n} starts without {:?}, which its disk has", record.key));
        }
    }

    pub(in crate::sim) fn promised(&mut self, n: usize, key: Key, index: Hlc) {
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let electorate = core.electorate();
        let has = |voter: &NodeId| {
            let Some(o) = self.index_of(*voter) else { return true };
            let held = Core::record_on_disk(self.nodes[o].disk.image(), &key);
            self.nodes[o].lost_disk || covers(held.map(|r| version(r.value.as_ref(), r.stamp)), index)
        };
        let holders: Vec<_> = electorate.voters.iter().copied().filter(has).collect();
        if !electorate.is_majority(&holders) {
            let (has, of) = (holders.len(), electorate.voters.len());
            self.violate("S3", || format!("n{n} acknowledges {key:?}, which {has} of {of} voters have on their disks"));
        }
        self.check.ledger.push((key, index));
    }

    /// Something acknowledged that some node of the core no longer has, nor anything later.
    pub(super) fn lost_write(&self) -> Option<String> {
        for (n, core) in self.live() {
            for (key, index) in &self.check.ledger {
                let held = core.store().record(key);
                let removed = self.check.tombstones.last(key, self.nodes[n].id);
                let gone = held.is_none() && removed.is_some_and(|t| t.hlc >= *index);
                if !gone && !covers(held.map(|r| version(r.value.as_ref(), r.stamp)), *index) {
                    let has = held.map(|r| r.stamp.hlc);
                    return Some(format!("n{n} has {has:?} of {key:?}, but {index:?} was acknowledged"));
                }
            }
        }
        None
    }
}
