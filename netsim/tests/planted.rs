//! The net catches fish: each known bug, planted, breaks a law within a few seeds. One process a bug (nextest), or one
//! after the other: a planted bug is the whole process's. Some of the lease are left to the model check (`planted_model.rs`).

use netsim::model::hunt::is_the_model_checks;
use netsim::sim::chaos::{Profile, Size, draw};
use netsim::sim::run::{Tell, run};
use peer::plant::{Bug, plant};

const SIZE: Size = Size { nodes: 5, secs: 100 };
const SEEDS: u64 = 150;

/// The first seed that catches it, profile by profile, and the law that it broke.
fn caught(bug: Bug) -> Option<(Profile, u64, String)> {
    plant(Some(bug));
    let all = (1..SEEDS).flat_map(|seed| Profile::ALL.map(|profile| (profile, seed)));
    let mut broken = all.filter_map(|(profile, seed)| {
        let outcome = run(&draw(seed, profile, SIZE), Tell::Nothing);
        Some((profile, seed, outcome.violation?.law))
    });
    let first = broken.next();
    plant(None);
    first
}

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    for bug in Bug::ALL.iter().filter(|bug| !is_the_model_checks(**bug)) {
        match caught(*bug) {
            Some((profile, seed, law)) => println!("{}: {law}, {} seed {seed}", bug.name(), profile.name()),
            None => missed.push(bug.name()),
        }
    }
    assert!(missed.is_empty(), "not caught in {SEEDS} seeds a profile: {missed:?}");
}
