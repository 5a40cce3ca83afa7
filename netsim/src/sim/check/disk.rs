//! S5: a life begins with the state after some prefix of what was written, and that prefix has every acknowledged write;
//! and no node acknowledges records that its disk doesn't hold.

use super::World;
use crate::sim::disk::{Image, Writes};
use peer::core::Core;
use peer::core::face::PersistId;
use std::collections::VecDeque;

/// What one node's disk must hold, told by what was issued and acknowledged alone.
#[derive(Debug, Default)]
pub struct Ledger {
    acknowledged: Image,
    issued: VecDeque<(PersistId, Writes)>,
}

fn apply(image: &mut Image, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => drop(image.insert(key.clone(), value.clone())),
            None => drop(image.remove(key)),
        }
    }
}

impl Ledger {
    pub fn issue(&mut self, id: PersistId, writes: &Writes) {
        self.issued.push_back((id, writes.clone()));
    }

    /// This one is durable, and with it all before it.
    pub fn acknowledge(&mut self, id: PersistId) {
        while let Some((_, writes)) = self.issued.pop_front_if(|(first, _)| *first <= id) {
            apply(&mut self.acknowledged, &writes);
        }
    }

    pub fn refuse(&mut self, id: PersistId) {
        self.issued.retain(|(other, _)| *other != id);
    }

    /// A life begins from this.
    fn begin(&mut self, image: &Image) -> bool {
        let mut prefix = std::mem::take(&mut self.acknowledged);
        let mut fits = prefix == *image;
        for (_, writes) in self.issued.drain(..) {
            if !fits {
                apply(&mut prefix, &writes);
                fits = prefix == *image;
            }
        }
        self.acknowledged.clone_from(image);
        fits
    }

    /// The disk was put back on purpose.
    pub fn put_back(&mut self, image: &Image) {
        self.issued.clear();
        self.acknowledged.clone_from(image);
    }
}

impl World {
    pub(in crate::sim) fn check_boot(&mut self, n: usize) {
        if self.gauge.is_some() {
            return;
        }
        let fits = self.check.disks[n].begin(self.nodes[n].disk.image());
        if !fits {
            self.violate("S5", || format!("n{n} begins with what is no state after its acknowledged writes"));
        }
    }

    pub(in crate::sim) fn check_acknowledged(&mut self, n: usize, bytes: &[u8]) {
        let Some(held) = Core::acknowledged_in(bytes) else { return };
        let image = self.nodes[n].disk.image();
        // A log of which nothing is left is not on the disk any more.
        let on_disk = |log| Core::log_on_disk(image, log);
        let wrong = held.iter().find(|(log, number)| on_disk(**log).is_some_and(|disk| disk < **number));
        if let Some((log, number)) = wrong {
            let text = format!("n{n} acknowledges {number} of {log:?} while its disk has {:?}", on_disk(*log));
            self.violate("S5", || text);
        }
    }
}
