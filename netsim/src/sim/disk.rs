//! A disk that keeps what it acknowledged. Writes are groups, all or none and in order, like the agent's transactions:
//! a crash loses the groups that were not acknowledged, but for some that had already arrived.

use super::rng::Rng;
use peer::core::face::PersistId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// What is written once is shared by all that remember it: the disk, its earlier images, and the check of both.
pub type Blob = Rc<[u8]>;
pub type Image = BTreeMap<Blob, Blob>;
pub type Writes = Vec<(Blob, Option<Blob>)>;

/// Images kept for a rewind, one every so often.
const IMAGE_EVERY_US: u64 = 10_000_000;
const IMAGES: usize = 12;

#[derive(Debug, Default)]
pub struct Disk {
    image: Image,
    pending: VecDeque<(PersistId, Writes)>,
    /// What was written since somebody last asked; all of it may have changed if nobody has, or since it was put back.
    touched: Option<BTreeSet<Blob>>,
    old: VecDeque<(u64, Image)>,
    keeps_images: bool,
    pub full_until: u64,
    pub slow_until: u64,
    pub slow_us: u64,
    /// When the last write that was issued will be done: writes end in order.
    pub busy_until: u64,
}

fn apply(image: &mut Image, touched: &mut Option<BTreeSet<Blob>>, writes: Writes) {
    for (key, value) in writes {
        if let Some(touched) = touched
            && !touched.contains(&key)
        {
            touched.insert(key.clone());
        }
        match value {
            Some(value) => drop(image.insert(key, value)),
            None => drop(image.remove(&key)),
        }
    }
}

impl Disk {
    pub fn new(keeps_images: bool) -> Self {
        Self { keeps_images, ..Self::default() }
    }

    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The keys that were written since the last call, or none if everything may be another than it was.
    pub fn touched(&mut self) -> Option<BTreeSet<Blob>> {
        self.touched.replace(BTreeSet::new())
    }

    pub fn issue(&mut self, id: PersistId, writes: Writes) {
        self.pending.push_back((id, writes));
    }

    /// The write is durable now, and with it all before it.
    pub fn complete(&mut self, id: PersistId, now: u64) {
        if self.keeps_images && self.old.back().is_none_or(|(at, _)| now - at >= IMAGE_EVERY_US) {
            self.old.push_back((now, self.image.clone()));
            if self.old.len() > IMAGES {
                self.old.pop_front();
            }
        }
        while self.pending.front().is_some_and(|(first, _)| *first <= id) {
            if let Some((_, writes)) = self.pending.pop_front() {
                apply(&mut self.image, &mut self.touched, writes);
            }
        }
    }

    /// Nothing of it reached the disk.
    pub fn refuse(&mut self, id: PersistId) {
        self.pending.retain(|(other, _)| *other != id);
    }

    /// The process is gone: some of what was under way had arrived.
    pub fn crash(&mut self, rng: &mut Rng) {
        let arrived = rng.index(self.pending.len() + 1);
        for (_, writes) in self.pending.drain(..).take(arrived).collect::<Vec<_>>() {
            apply(&mut self.image, &mut self.touched, writes);
        }
        self.busy_until = 0;
    }

    /// Another disk, with nothing on it.
    pub fn wipe(&mut self) {
        *self = Self::new(self.keeps_images);
    }

    /// The disk as it was about `back` ago; false if it was not there yet.
    pub fn rewind(&mut self, now: u64, back: u64) -> bool {
        self.touched = None;
        let Some((_, image)) = self.old.iter().rev().find(|(at, image)| at + back <= now && !image.is_empty()) else {
            return false;
        };
        self.image = image.clone();
        self.old.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(n: u8) -> Writes {
        vec![([n].into(), Some([n].into()))]
    }

    #[test]
    fn a_crash_keeps_what_was_acknowledged_and_a_prefix_of_the_rest() {
        for seed in 0..50 {
            let mut disk = Disk::new(false);
            for n in 1..=5 {
                disk.issue(PersistId(u64::from(n)), put(n));
            }
            disk.complete(PersistId(2), 1);
            disk.crash(&mut Rng::of(seed, "disk"));
            let kept: Vec<u8> = disk.image().keys().map(|k| k[0]).collect();
            assert!(kept.len() >= 2 && kept.iter().copied().eq(1..=kept.len() as u8), "{kept:?}");
        }
    }

    #[test]
    fn a_rewound_disk_is_an_earlier_one() {
        let mut disk = Disk::new(true);
        for n in 1..=5u8 {
            disk.issue(PersistId(u64::from(n)), put(n));
            disk.complete(PersistId(u64::from(n)), u64::from(n) * IMAGE_EVERY_US);
        }
        assert!(disk.rewind(5 * IMAGE_EVERY_US, 2 * IMAGE_EVERY_US));
        assert_eq!(disk.image().len(), 2);
        assert!(!disk.rewind(5 * IMAGE_EVERY_US, 0), "it was all forgotten");
    }
}
