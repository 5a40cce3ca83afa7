//! The one queue in which effects leave, and the gate in it: what is pushed while a write is under way is held
//! back until that write is durable. So a promise, an acknowledgement or a digest never tells others what a
//! power cut could still take back, and no part of the core has to think of it (DESIGN rules 4 and 7).
//!
//! A write that fails is tried again, together with all that were issued after it, until it succeeds: until then
//! the gate stays shut and this node promises nothing.

use super::face::{Effect, PersistId};
use crate::limits::{self, MAX_GATED_EFFECTS};
use crate::plant::{Bug, is_planted};
use crate::time::Mono;
use crate::wire::message::LeaseMessage;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const RETRY_AFTER: Duration = Duration::from_secs(1);

pub type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Default)]
pub struct Outbox {
    ready: VecDeque<Effect>,
    gated: VecDeque<(PersistId, Held)>,
    /// Issued and not yet known to be durable, each with what it writes; an entry stays until all before it are done.
    outstanding: BTreeMap<PersistId, Outstanding>,
    last: u64,
    retry: Option<(Mono, PersistId)>,
    trouble: Option<String>,
}

struct Outstanding {
    /// The first write that it carries: its own id, or that of a failed one it took over.
    from: PersistId,
    writes: Writes,
    done: bool,
}

pub enum Held {
    Effect(Effect),
    /// A lease message to ourselves: a voter's own promise counts only once it is durable.
    Loopback(LeaseMessage),
}

impl Outbox {
    /// Issues a write; everything pushed from now on waits for it.
    pub fn persist(&mut self, writes: Writes) -> PersistId {
        self.last += 1;
        let id = PersistId(self.last);
        // While a failed write waits to be tried again, later ones join it, so that none overtakes it.
        if let Some((at, held)) = self.retry {
            let (from, mut all) = self.outstanding.remove(&held).map_or((id, Writes::new()), |o| (o.from, o.writes));
            all.extend(writes);
            self.outstanding.insert(id, Outstanding { from, writes: all, done: false });
            self.retie(id);
            self.retry = Some((at, id));
        } else {
            self.ready.push_back(Effect::Persist { id, writes: writes.clone() });
            self.outstanding.insert(id, Outstanding { from: id, writes, done: false });
        }
        id
    }

    /// Queues an effect behind every write issued so far.
    pub fn push(&mut self, effect: Effect) {
        self.hold(Held::Effect(effect));
    }

    pub fn loop_back(&mut self, message: LeaseMessage) {
        self.hold(Held::Loopback(message));
    }

    /// Queues an effect that promises nothing.
    pub fn push_now(&mut self, effect: Effect) {
        self.ready.push_back(effect);
    }

    fn hold(&mut self, held: Held) {
        match (self.outstanding.last_key_value(), held) {
            (Some(_), Held::Effect(effect)) if is_planted(Bug::AckBeforeFsync) => self.ready.push_back(effect),
            (None, Held::Effect(effect)) if self.gated.is_empty() => self.ready.push_back(effect),
            (last, held) => {
                let tie = last.map_or(PersistId(self.last), |(id, _)| *id);
                self.gated.push_back((tie, held));
                if self.gated.len() > MAX_GATED_EFFECTS {
                    self.gated.pop_front();
                }
            }
        }
    }

    /// A write that failed is durable when the one that took it over is.
    pub fn is_durable(&self, id: PersistId) -> bool {
        self.outstanding.first_key_value().is_none_or(|(_, lowest)| lowest.from > id)
    }

    pub fn last_persist(&self) -> PersistId {
        PersistId(self.last)
    }

    /// Held back for a write.
    pub fn gated(&self) -> usize {
        self.gated.len()
    }

    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub fn persisted(&mut self, id: PersistId) {
        if let Some(entry) = self.outstanding.get_mut(&id) {
            entry.done = true;
        }
        while self.outstanding.first_key_value().is_some_and(|(_, entry)| entry.done) {
            self.outstanding.pop_first();
        }
        if self.outstanding.is_empty() {
            self.trouble = None;
        }
    }

    /// Gathers what failed and all that came after it into one write, to be tried again in a while.
    pub fn persist_failed(&mut self, id: PersistId, why: String, now: Mono) {
        self.trouble = Some(why);
        if !self.outstanding.contains_key(&id) {
            return; // Part of an earlier failure, gathered already.
        }
        let entries = self.outstanding.split_off(&id);
        let from = entries.values().next().map_or(id, |o| o.from);
        let all: Writes = entries.into_values().flat_map(|o| o.writes).collect();
        self.last += 1;
        let again = PersistId(self.last);
        self.outstanding.insert(again, Outstanding { from, writes: all, done: false });
        for (tie, _) in self.gated.iter_mut().filter(|(tie, _)| *tie >= id) {
            *tie = again;
        }
        self.retry = Some((now + RETRY_AFTER, again));
    }

    fn retie(&mut self, to: PersistId) {
        if let Some((_, from)) = self.retry {
            for (tie, _) in self.gated.iter_mut().filter(|(tie, _)| *tie >= from) {
                *tie = to;
            }
        }
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.retry.map(|(at, _)| at)
    }

    pub fn handle_deadline(&mut self, now: Mono) {
        if let Some((_, id)) = self.retry.take_if(|(at, _)| *at <= now)
            && let Some(entry) = self.outstanding.get(&id)
        {
            self.ready.push_back(Effect::Persist { id, writes: entry.writes.clone() });
        }
    }

    /// Opens the gate as far as it may; returns what was addressed to ourselves.
    pub fn release(&mut self) -> Vec<LeaseMessage> {
        let mut to_self = Vec::new();
        let lowest = self.outstanding.first_key_value().map(|(id, _)| *id);
        while let Some((_, held)) = self.gated.pop_front_if(|(tie, _)| lowest.is_none_or(|lowest| *tie < lowest)) {
            match held {
                Held::Effect(effect) => self.ready.push_back(effect),
                Held::Loopback(message) => to_self.push(message),
            }
        }
        to_self
    }

    pub fn poll(&mut self) -> Option<Effect> {
        limits::give_back(&mut self.ready);
        limits::give_back(&mut self.gated);
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::face::Notice;

    fn effect(n: u32) -> Effect {
        Effect::Notice(Notice::Warning(n.to_string()))
    }

    fn drain(outbox: &mut Outbox) -> Vec<String> {
        outbox.release();
        std::iter::from_fn(|| outbox.poll())
            .map(|effect| match effect {
                Effect::Persist { id, writes } => format!("persist {} ({})", id.0, writes.len()),
                Effect::Notice(Notice::Warning(text)) => text,
                other => format!("{other:?}"),
            })
            .collect()
    }

    fn write() -> Writes {
        vec![(vec![1], None)]
    }

    #[test]
    fn effects_wait_for_the_writes_before_them() {
        let mut outbox = Outbox::default();
        outbox.push(effect(1));
        let first = outbox.persist(write());
        outbox.push(effect(2));
        outbox.push_now(effect(3));
        let second = outbox.persist(write());
        outbox.push(effect(4));
        assert_eq!(drain(&mut outbox), ["1", "persist 1 (1)", "3", "persist 2 (1)"]);
        outbox.persisted(first);
        assert_eq!(drain(&mut outbox), ["2"]);
        assert!(outbox.is_durable(first) && !outbox.is_durable(second));
        outbox.persisted(second);
        assert_eq!(drain(&mut outbox), ["4"]);
    }

    #[test]
    fn a_failed_write_is_tried_again_with_all_that_followed_and_nothing_leaves_before() {
        let mut outbox = Outbox::default();
        let first = outbox.persist(write());
        outbox.push(effect(1));
        let second = outbox.persist(write());
        outbox.push(effect(2));
        drain(&mut outbox);
        outbox.persisted(second);
        outbox.persist_failed(first, "disk full".into(), Mono(0));
        outbox.persist(write());
        outbox.push(effect(3));
        assert_eq!(outbox.trouble(), Some("disk full"));
        assert!(!outbox.is_durable(first) && !outbox.is_durable(second), "another write carries them now");
        assert_eq!(drain(&mut outbox), Vec::<String>::new());
        outbox.handle_deadline(Mono(2_000_000));
        assert_eq!(drain(&mut outbox), ["persist 4 (3)"]);
        outbox.persisted(PersistId(4));
        assert_eq!(drain(&mut outbox), ["1", "2", "3"]);
        assert!(outbox.is_durable(second));
        assert_eq!(outbox.trouble(), None);
    }
}
