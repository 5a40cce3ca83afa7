//! The suite that the simulator's disk passes too (`tests/conformance/disk.rs`), on redb over a platter that tears what
//! was not synced.

#[path = "../../../tests/conformance/disk.rs"]
mod suite;

use super::crash::{TestDisk, formatted, next, start};
use super::{Disk, DiskEvent, read};
use crate::core::face::PersistId;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::mpsc::Receiver;
use suite::{Contents, Report, Subject, Writes};

struct OnPlatter {
    platter: TestDisk,
    writer: Disk,
    reports: Receiver<DiskEvent>,
    rng: ChaCha8Rng,
}

impl OnPlatter {
    fn new(seed: u64) -> Self {
        let platter = formatted();
        let (writer, reports) = start(&platter, |_| {});
        Self { platter, writer, reports, rng: ChaCha8Rng::seed_from_u64(seed) }
    }
}

impl Subject for OnPlatter {
    fn persist(&mut self, id: PersistId, writes: Writes) {
        self.writer.persist(id, writes);
    }

    fn next(&mut self) -> Report {
        match next(&self.reports) {
            DiskEvent::Done(id) => Report::Done(id),
            DiskEvent::Failed { id, .. } => Report::Failed(id),
        }
    }

    fn crash(&mut self) -> Contents {
        self.platter = self.platter.after_cut(&mut self.rng);
        let contents = read(Path::new("test"), &self.platter.open().expect("the file opens after a cut"));
        // The old writer goes on with the old platter, which nobody sees any more.
        (self.writer, self.reports) = start(&self.platter, |_| {});
        contents.expect("and reads")
    }

    fn set_full(&mut self, full: bool) {
        self.platter.set_failing(full.then_some(ErrorKind::StorageFull));
    }
}

/// Each with several ways of tearing.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        $(
            #[test]
            fn $story() {
                for seed in 0..8 {
                    suite::$story(&mut OnPlatter::new(seed));
                }
            }
        )*
    };
}

stories!(
    writes_are_reported_in_their_order,
    what_was_reported_survives_and_of_the_rest_a_beginning,
    what_is_replaced_or_deleted_stays_so,
    the_next_life_goes_on_from_what_it_found,
    a_full_disk_says_so_and_takes_writes_again_once_freed,
);
