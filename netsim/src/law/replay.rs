//! What real agents wrote down, put in its true order and held against the laws.

use super::records::{Versions, covers, goes_back};
use super::rollout::{Budgets, is_replaced};
use super::seat::Seat;
use super::tasks::spreads_a_paused_release;
use super::{Breach, lease::Holders};
use peer::core::witness::{Look, Seen};
use peer::ids::{NodeId, ServiceId, TaskId};
use peer::model::record::{Hlc, Key, Stamp, Term, Value};
use peer::model::spec;
use peer::model::task::{Slot, Task};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Breaches that are told; one bug often breaks a law many times.
const MAX_BREACHES: usize = 50;
const FORGET_EVERY_US: u64 = 1_000_000;

#[derive(Debug, Default)]
pub struct Replay {
    /// Of the wall clock, in milliseconds: when nothing was broken nor in the wake of what was.
    calm: Vec<Range<u64>>,
    pub seats: Vec<Seat>,
    versions: Vec<Versions>,
    holders: Holders,
    budgets: Budgets,
    forgot_at: u64,
    known: BTreeSet<TaskId>,
    homes: BTreeMap<TaskId, NodeId>,
    /// Told to stop for good: they serve no more, whatever their status says.
    stopping: BTreeSet<TaskId>,
    written: BTreeMap<(NodeId, Hlc), BTreeSet<Key>>,
    acknowledged: BTreeSet<(NodeId, Hlc)>,
    /// When each term began, by the wall clock, and on which node.
    pub terms: Vec<(u64, usize, Term)>,
    pub planned_stops: u64,
    /// With the wall clock's milliseconds.
    pub breaches: Vec<(u64, Breach)>,
}

impl Replay {
    /// Of all nodes' traces, each in its own order.
    pub fn of(traces: &[Vec<Look>], calm: Vec<Range<u64>>) -> Self {
        let mut replay = Self { calm, ..Self::default() };
        for _ in traces {
            replay.seats.push(Seat::default());
            replay.versions.push(Versions::default());
        }
        let mut order: Vec<(u64, usize, usize)> = Vec::new();
        for (n, looks) in traces.iter().enumerate() {
            order.extend(looks.iter().enumerate().map(|(i, look)| (look.at, n, i)));
        }
        order.sort_unstable();
        for (_, n, i) in order {
            replay.step(n, &traces[n][i]);
        }
        replay
    }

    /// What was acknowledged without a warning.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    fn found(&mut self, look: &Look, breach: Option<Breach>) {
        if let Some(breach) = breach
            && self.breaches.len() < MAX_BREACHES
        {
            self.breaches.push((look.wall.0, breach));
        }
    }

    fn is_calm(&self, look: &Look) -> bool {
        self.calm.iter().any(|range| range.contains(&look.wall.0))
    }

    fn step(&mut self, n: usize, look: &Look) {
        for seen in &look.seen {
            self.judge(n, look, seen);
            self.seats[n].take(look, seen);
        }
        self.judge_decisions(n, look);
        if look.at >= self.forgot_at + FORGET_EVERY_US {
            self.forgot_at = look.at;
            let mut budgets = std::mem::take(&mut self.budgets);
            budgets.forget(|service, slot| self.is_over(service, slot));
            self.budgets = budgets;
        }
    }

    fn judge(&mut self, n: usize, look: &Look, seen: &Seen) {
        let breach = match seen {
            Seen::Boot { promised, .. } => {
                self.versions[n].clear();
                let sent = self.seats[n].promised;
                sent.filter(|sent| promised < sent).map(|sent| {
                    let (disk, sent) = (promised.round, sent.round);
                    Breach::of("L4", format!("n{n} promised {sent}, and its disk says {disk} at its next start"))
                })
            }
            Seen::Holds { term, .. } => self.judge_holder(n, look, *term),
            Seen::Record { key, stamp, tombstone, value } => {
                self.judge_record(n, key, *stamp, *tombstone, value.as_deref())
            }
            Seen::Gone { key } => Some(Breach::of("S2", format!("n{n}: {key:?} is gone, tombstone and all"))),
            Seen::Accepted { index, pending: false } => {
                if let Some(id) = self.seats[n].id {
                    self.acknowledged.insert((id, *index));
                }
                None
            }
            Seen::Stops { task } => {
                for breach in self.judge_stop(n, look, *task) {
                    self.found(look, Some(breach));
                }
                None
            }
            Seen::Full => Some(Breach::of("trace", format!("the trace of n{n} is full: what follows isn't judged"))),
            Seen::Lost { .. } | Seen::Promised { .. } | Seen::Accepted { .. } | Seen::Routed { .. } => None,
        };
        self.found(look, breach);
    }

    fn judge_holder(&mut self, n: usize, look: &Look, term: Term) -> Option<Breach> {
        if self.seats[n].holds.is_none_or(|holds| holds.term != term) {
            self.terms.push((look.wall.0, n, term));
        }
        let holds = |(o, seat): (usize, &Seat)| Some((o, seat.holds.filter(|h| o != n && h.until > look.at)?.term));
        let others: Vec<(usize, Term)> = self.seats.iter().enumerate().filter_map(holds).collect();
        self.holders.begins(n, term, others)
    }

    fn judge_record(
        &mut self,
        n: usize,
        key: &Key,
        stamp: Stamp,
        tombstone: bool,
        value: Option<&Value>,
    ) -> Option<Breach> {
        self.written.entry((stamp.author, stamp.hlc)).or_default().insert(key.clone());
        if let Some(Value::Revision(revision)) = value {
            self.budgets.learn(revision.service, revision.id, &revision.spec_json);
        }
        let moved = match value {
            Some(Value::Task(task)) => task.node.and_then(|node| {
                let home = *self.homes.entry(task.id).or_insert(node);
                let text = format!("n{n} has {:?} on {node:?}, which was on {home:?}", task.id);
                (home != node).then(|| Breach::of("P2", text))
            }),
            _ => None,
        };
        let back = self.versions[n].see(key, super::records::version(value, stamp), tombstone);
        let said = match (value, self.seats[n].records.get(key).and_then(|held| held.value.as_deref())) {
            (Some(Value::TaskStatus(new)), Some(Value::TaskStatus(old))) => goes_back(old, new),
            _ => None,
        };
        back.or(said).map(|Breach { law, text }| Breach::of(law, format!("n{n}: {text}"))).or(moved)
    }

    /// The engine of `n` is told to stop a task's container.
    fn judge_stop(&mut self, n: usize, look: &Look, id: TaskId) -> Vec<Breach> {
        let seat = &self.seats[n];
        let Some(task) = seat.task(id).cloned() else { return Vec::new() };
        if task.desired.is_live() || !self.stopping.insert(id) || !seat.says_running(id) {
            return Vec::new();
        }
        let calm = self.is_calm(look);
        let mut breaches = Vec::new();
        if calm {
            self.planned_stops += 1;
            let leads = self.seats.iter().position(|seat| seat.routed.contains(&id));
            breaches.extend(leads.map(|other| {
                Breach::of("E1", format!("n{n} stops {id:?} while n{other} still routes to it: {}", task.message))
            }));
        }
        let replaced = is_replaced(&task) && seat.service(task.service).is_some();
        if !is_replaced(&task) {
            self.budgets.dropped(&task);
        }
        let takes_over = |t: &Task| {
            let same = t.id != id && t.service == task.service && t.slot == task.slot;
            same && t.desired.is_live() && seat.says_running(t.id)
        };
        if !replaced || seat.tasks().any(takes_over) || self.is_served(task.service, task.slot) {
            return breaches;
        }
        let mut budgets = std::mem::take(&mut self.budgets);
        let found = budgets.stopped(&task, look.at, |service, slot| self.is_over(service, slot));
        self.budgets = budgets;
        if calm {
            breaches.extend(found.into_iter().map(|Breach { law, text }| Breach::of(law, format!("n{n}: {text}"))));
        }
        breaches
    }

    /// Some task of this slot serves, in the eyes of its own node.
    fn is_served(&self, service: ServiceId, slot: Slot) -> bool {
        self.seats.iter().any(|seat| {
            seat.tasks().any(|t| {
                t.service == service
                    && t.slot == slot
                    && t.node.is_some()
                    && t.node == seat.id
                    && seat.says_running(t.id)
                    && !self.stopping.contains(&t.id)
            })
        })
    }

    fn is_over(&self, service: ServiceId, slot: Slot) -> bool {
        self.is_served(service, slot)
            || self.seats.iter().any(|seat| {
                let of_slot = |t: &&Task| t.service == service && t.slot == slot && t.desired.is_live();
                let failed = |t: &Task| seat.status(t.id).is_some_and(|s| s.ever_failed() || s.is_over());
                let mut live = seat.tasks().filter(of_slot).peekable();
                live.peek().is_none() || live.any(failed)
            })
    }

    /// What this very node has just decided, judged by what it knows itself.
    fn judge_decisions(&mut self, n: usize, look: &Look) {
        let seat = &self.seats[n];
        let mut new = Vec::new();
        let mut breaches = Vec::new();
        for seen in &look.seen {
            let Seen::Record { stamp, value: Some(value), .. } = seen else { continue };
            let Value::Task(task) = value.as_ref() else { continue };
            new.push(task.id);
            let own = Some(stamp.author) == seat.id && task.node.is_some() && task.desired.is_live();
            if !own || self.known.contains(&task.id) {
                continue;
            }
            let (rollout, service) = (seat.rollout(task.service), seat.service(task.service));
            let spec = |revision| spec::parse(seat.spec_json(task.service, revision)?).ok();
            if spreads_a_paused_release(task, rollout, service.map(|s| s.current), spec) {
                let text = format!("n{n} made {:?} of a release that is paused", task.id);
                breaches.push(Breach::of("U3", text));
            }
        }
        self.known.extend(new);
        for breach in breaches {
            self.found(look, Some(breach));
        }
    }

    /// In the end: S1 every node has the same, S3 and that what was acknowledged is there.
    pub fn at_the_end(&self) -> Vec<Breach> {
        let mut breaches = Vec::new();
        for (n, seat) in self.seats.iter().enumerate() {
            if let Some(key) = self.seats.first().and_then(|first| first.differs(seat)) {
                breaches.push(Breach::of("S1", format!("n0 and n{n} differ in {key:?}")));
            }
            for (author, index) in &self.acknowledged {
                for key in self.written.get(&(*author, *index)).into_iter().flatten() {
                    let held = seat.records.get(key).map(|held| held.version);
                    if !covers(held, *index) {
                        let text = format!("n{n} has {held:?} of {key:?}, but {index:?} was acknowledged");
                        breaches.push(Breach::of("S3", text));
                    }
                }
            }
        }
        breaches.truncate(MAX_BREACHES);
        breaches
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
