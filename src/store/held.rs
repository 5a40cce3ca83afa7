//! What this node holds of each log, and the hashes by which two nodes find out where they differ without telling
//! each other all of it: one of everything, kept as it changes, and one a bucket of logs, made when asked for.

use crate::limits;
use crate::model::record::Log;
use crate::wire::message::{Digest, Scope};
use std::collections::BTreeSet;

/// About so many logs share a bucket: what one changed record makes two nodes tell each other.
const LOGS_PER_BUCKET: usize = 16;
/// More buckets than this would make the list of their hashes the bigger part.
pub(super) const MAX_BUCKETS: usize = 128;

/// The law: an entry is never zero, and `hash` is that of the entries.
#[derive(Debug, Default)]
pub(super) struct Held {
    logs: Digest,
    hash: u64,
    /// Logs of which nothing was left here, and how far they had come: in memory alone, the latest `limits::ENDED_LOGS`
    /// and up to as many before them. To forget one is to be sent what it held once more.
    ended: Digest,
    ended_before: Digest,
}

impl Held {
    pub fn logs(&self) -> &Digest {
        &self.logs
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn of(&self, log: Log) -> u32 {
        self.logs.get(&log).copied().unwrap_or(0)
    }

    /// How far this log was ever held since this node started, whether anything is left of it or not.
    pub fn ever(&self, log: Log) -> u32 {
        let all = [&self.logs, &self.ended, &self.ended_before];
        all.into_iter().filter_map(|logs| logs.get(&log)).copied().max().unwrap_or(0)
    }

    /// Zero takes the log out.
    pub fn set(&mut self, log: Log, number: u32) {
        let before = if number == 0 { self.logs.remove(&log) } else { self.logs.insert(log, number) };
        if let Some(before) = before {
            self.hash = self.hash.wrapping_sub(entry_hash(log, before));
            if number == 0 {
                self.end(log, before);
            }
        }
        if number != 0 {
            self.hash = self.hash.wrapping_add(entry_hash(log, number));
        }
    }

    fn end(&mut self, log: Log, number: u32) {
        if self.ended.len() >= limits::ENDED_LOGS {
            self.ended_before = std::mem::take(&mut self.ended);
        }
        self.ended.insert(log, number);
    }

    /// As many as are worth while for so many logs; one if there are few.
    pub fn bucket_count(&self) -> usize {
        (self.logs.len() / LOGS_PER_BUCKET).next_power_of_two().clamp(1, MAX_BUCKETS)
    }

    pub fn buckets(&self, of: usize) -> Vec<u64> {
        let mut buckets = vec![0u64; of];
        for (log, number) in &self.logs {
            if let Some(sum) = buckets.get_mut(bucket(*log, of)) {
                *sum = sum.wrapping_add(entry_hash(*log, *number));
            }
        }
        buckets
    }

    /// What is held in a scope; of a `Listed` one that which `listed` lists.
    pub fn within(&self, scope: &Scope, listed: &Digest) -> Digest {
        match scope {
            Scope::All => self.logs.clone(),
            Scope::Listed => listed.keys().filter_map(|log| Some((*log, *self.logs.get(log)?))).collect(),
            Scope::Buckets { of, which } => {
                let which: BTreeSet<u16> = which.iter().copied().collect();
                let within = |log: &Log| which.contains(&(bucket(*log, usize::from(*of)) as u16));
                self.logs.iter().filter(|(log, _)| within(log)).map(|(log, number)| (*log, *number)).collect()
            }
        }
    }
}

/// Which of `of` buckets a log falls into.
pub(super) fn bucket(log: Log, of: usize) -> usize {
    (log_hash(log) % of.max(1) as u64) as usize
}

fn log_hash(log: Log) -> u64 {
    let author = log.author.as_u128();
    mix(mix(mix((author >> 64) as u64) ^ author as u64) ^ u64::from(log.life))
}

fn entry_hash(log: Log, number: u32) -> u64 {
    mix(log_hash(log) ^ (u64::from(number) << 32 | 0x9e37_79b9))
}

/// The finalizer of splitmix64: every bit of the outcome depends on every bit of the input. Members trust each other,
/// so that nobody looks for collisions; by chance two of 2^64 meet.
fn mix(input: u64) -> u64 {
    let z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use proptest::prelude::*;

    fn log(n: u8) -> Log {
        Log { author: NodeId::from_u128(u128::from(n / 4)), life: u32::from(n % 4) }
    }

    proptest! {
        /// However it came about: equal entries have equal hashes, others don't, and the buckets find the difference.
        #[test]
        fn the_hashes_are_those_of_what_is_held(steps in proptest::collection::vec((any::<u8>(), 0u32..4), 0..200)) {
            let mut held = Held::default();
            for (n, number) in steps {
                held.set(log(n), number);
            }
            let mut other = Held::default();
            held.logs().iter().rev().for_each(|(log, number)| other.set(*log, *number));
            prop_assert_eq!(held.hash(), other.hash());
            prop_assert!(held.logs().values().all(|n| *n > 0));
            other.set(log(7), other.of(log(7)) + 1);
            prop_assert_ne!(held.hash(), other.hash());
            let (ours, theirs) = (held.buckets(8), other.buckets(8));
            let differ: Vec<usize> = (0..8).filter(|n| ours[*n] != theirs[*n]).collect();
            prop_assert_eq!(differ, vec![bucket(log(7), 8)]);
            let scope = Scope::Buckets { of: 8, which: vec![bucket(log(7), 8) as u16] };
            prop_assert!(other.within(&scope, &Digest::new()).contains_key(&log(7)));
        }
    }
}
