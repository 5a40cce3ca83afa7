//! Reading an answer: the pages of a delta, and what of it may be taken.
//!
//! An answer claims that nothing is missing up to where it ends, and that rests on all of it: what one log lacks may have
//! been superseded by another's record, which a later page holds. So pages are kept in memory until the last is here,
//! and taken at once. An answer lost half way leaves nothing behind, and is asked for again with the next exchange.

use super::Store;
use crate::ids::NodeId;
use crate::limits::MAX_ANSWER_PAGES;
use crate::model::record::{Log, Record};
use crate::time::{Mono, Now};
use crate::wire::message::{Digest, Message, Scope};
use std::collections::BTreeSet;
use std::time::Duration;

/// After so long without a page an answer is given up for another's.
const PAGE_OVERDUE: Duration = Duration::from_secs(3);

/// [`Message::Delta`] taken apart.
#[derive(Debug)]
pub struct Delta {
    pub nonce: u64,
    pub scope: Scope,
    pub base: Digest,
    pub records: Vec<Record>,
    pub upto: Digest,
    pub more: bool,
}

/// The pages of one answer that are here so far, as one.
#[derive(Debug)]
pub(super) struct Reading {
    from: NodeId,
    so_far: Delta,
    /// What the next page was asked for with, and begins from.
    read: Digest,
    pages: usize,
    last: Mono,
}

impl Reading {
    pub fn is_of(&self, node: NodeId) -> bool {
        self.from == node
    }

    /// Whether this is the page that was asked for: it begins where the last one ended.
    fn goes_on_with(&self, from: NodeId, page: &Delta) -> bool {
        let begins = |log: &Log, number: &u32| self.read.get(log).is_none_or(|read| read == number);
        self.from == from
            && (self.so_far.nonce, &self.so_far.scope) == (page.nonce, &page.scope)
            && !page.base.is_empty()
            && page.base.iter().all(|(log, number)| begins(log, number))
    }

    fn add(&mut self, page: Delta) {
        for (log, begins) in page.base {
            self.so_far.base.entry(log).or_insert(begins);
        }
        self.so_far.records.extend(page.records);
        self.so_far.upto.extend(page.upto);
        self.so_far.more = page.more;
    }
}

impl Store {
    /// Merges an answer to [`Store::ask`] once it is here whole, and asks for its next page till then. True if all of it was taken,
    /// but for what its own author's clock puts too far ahead: what others have taken of that, and we refuse, shows that it
    /// is our own clock that is wrong, and what `from` holds isn't known here.
    pub fn handle_delta(&mut self, from: NodeId, page: Delta, now: Now) -> bool {
        self.notice_rewind(&page.upto);
        self.peers.note(from, &page.upto);
        match self.whole_answer(from, page, now.mono) {
            Some(answer) => self.merge_answer(from, answer, now),
            None => false,
        }
    }

    /// An answer of several pages is read from one node at a time: others would mostly give the same.
    pub fn is_reading(&self, now: Mono) -> bool {
        self.reading.as_ref().is_some_and(|reading| now < reading.last + PAGE_OVERDUE)
    }

    fn whole_answer(&mut self, from: NodeId, page: Delta, now: Mono) -> Option<Delta> {
        let more = page.more;
        let mut reading = match self.reading.take() {
            Some(mut reading) if reading.goes_on_with(from, &page) => {
                reading.add(page);
                reading
            }
            another if !more => {
                self.reading = another;
                return Some(page);
            }
            Some(another) if another.from != from && now < another.last + PAGE_OVERDUE => {
                self.reading = Some(another);
                return None;
            }
            // A later page that comes late is no first one.
            another if self.lacks_some(&page.base) => {
                self.reading = another;
                return None;
            }
            _ => Reading { from, so_far: page, read: Digest::new(), pages: 0, last: now },
        };
        if !more {
            return Some(reading.so_far);
        }
        reading.pages += 1;
        reading.last = now;
        if reading.pages < MAX_ANSWER_PAGES {
            reading.read = self.held.within(&reading.so_far.scope, &reading.so_far.upto);
            for (log, upto) in &reading.so_far.upto {
                let read = reading.read.entry(*log).or_insert(0);
                *read = (*read).max(*upto);
            }
            let (nonce, scope, read) = (reading.so_far.nonce, reading.so_far.scope.clone(), reading.read.clone());
            self.send(from, Message::AskOn { nonce, scope, read });
            self.reading = Some(reading);
        }
        None
    }

    fn merge_answer(&mut self, from: NodeId, answer: Delta, now: Now) -> bool {
        let Delta { base, records, upto, .. } = answer;
        // What we don't hold up to where the answer begins would have a gap: nothing may be left of the log, or it was an earlier
        // life of ours that asked, and our disk has been put back since. A log without a beginning is one that the asker had all of.
        let begins = |log: &Log| base.get(log).is_some_and(|before| self.held.ever(*log) >= *before);
        let joins_on: BTreeSet<Log> = upto.keys().filter(|log| begins(log)).copied().collect();
        let all_join_on = !self.lacks_some(&base);
        let mut early = BTreeSet::new();
        for record in &records {
            let (log, number) = record.place();
            if number > self.held.of(log) && self.is_early(record, now) {
                early.insert((log, number));
            }
        }
        // That nothing is missing up to here rests on all that the answer holds and begins from: what a refused record superseded, in
        // whichever log, is neither in it nor here. Then only what joins on number by number is taken.
        let by_number = !early.is_empty() || !all_join_on;
        let mut passed_over = false;
        let mut reached = Digest::new();
        let mut fresh = Vec::new();
        let mut collected = Vec::new();
        for record in records {
            let (log, number) = record.place();
            let due = number > self.held.of(log) && upto.get(&log).is_some_and(|upto| number <= *upto);
            if !due || !joins_on.contains(&log) {
                continue;
            }
            if by_number {
                let reached = reached.entry(log).or_insert(self.held.of(log));
                if early.contains(&(log, number)) {
                    continue;
                }
                if number != reached.saturating_add(1) {
                    passed_over = true;
                    continue;
                }
                *reached = number;
            }
            if self.has_collected(&record) {
                collected.push((log, number));
            } else if self.merge(&record) {
                fresh.push(record);
            }
        }
        let mut moved = BTreeSet::new();
        for (log, number) in upto.iter().filter(|(log, _)| joins_on.contains(log)) {
            // A log of which nothing is left, here or there, is not taken up again.
            let number = if by_number { reached.get(log).unwrap_or(&0) } else { number };
            if *number > self.held.of(*log) && (self.held.of(*log) > 0 || self.has_records(*log)) {
                self.held.set(*log, *number);
                moved.insert(*log);
            }
        }
        let mut held: Digest = moved.iter().map(|log| (*log, self.held.of(*log))).collect();
        let has_ended =
            |(log, number): &(&Log, &u32)| self.held.of(**log) < **number && **number <= self.held.ever(**log);
        held.extend(upto.iter().filter(has_ended));
        self.commit(&fresh, moved);
        if !collected.is_empty() {
            self.send(from, Message::Collected { places: collected });
        }
        if !held.is_empty() {
            self.send(from, Message::PushAck { held });
        }
        all_join_on && !passed_over && early.iter().all(|(log, _)| log.author == from)
    }

    /// Not all that an answer begins from was ever held here.
    fn lacks_some(&self, base: &Digest) -> bool {
        base.iter().any(|(log, before)| self.held.ever(*log) < *before)
    }

    /// A tombstone that was here and has gone, since every member had it. (A live record in its place is taken: only a disk
    /// that was put back by more than the retention can hold one.)
    fn has_collected(&self, record: &Record) -> bool {
        let (log, number) = record.place();
        record.value.is_none() && number <= self.held.ever(log) && !self.records.contains_key(&record.key)
    }
}
