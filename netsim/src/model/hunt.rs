//! A planted bug must break a law somewhere.

use super::scenarios::{brief, closed, of_rivals, open};
use super::walk::walk;
use super::{Reach, search};
use peer::plant::Bug;

/// Known bugs of the lease, and the scenario that finds each soon. The simulator finds the first four too, and is asked for all
/// others.
pub const OF_THE_LEASE: &[(Bug, &str)] = &[
    (Bug::ForgottenPromise, "rivals"),
    (Bug::NoBootWait, "rivals"),
    (Bug::PastTheLease, "elections"),
    (Bug::AckBeforeFsync, "rivals"),
    (Bug::NoDriftMargin, "elections"),
    (Bug::PromiseWhileGranted, "renewals"),
    (Bug::OldElectorates, "left-behind"),
    (Bug::NoStepDown, "three"),
    (Bug::NoRestamp, "elections"),
    (Bug::ChangesOverlap, "growth"),
    (Bug::WithoutTheOldMajority, "replacement"),
];

/// The simulator is not asked for it: what it costs to leave this rule out takes a coincidence that only a model check arranges.
pub fn is_the_model_checks(bug: Bug) -> bool {
    OF_THE_LEASE[4..].iter().any(|(other, _)| *other == bug)
}

/// The law that it breaks, and the steps of the story. Searched for briefly first, then as far as is searched, then at random.
pub fn hunt(scenario: &str) -> Option<(&'static str, usize)> {
    let searched =
        brief().into_iter().chain(closed()).chain([of_rivals()]).filter(|s| s.name == scenario).find_map(|s| {
            let (law, story) = search(s, Reach::default()).violation?;
            Some((law, story.len()))
        });
    searched.or_else(|| {
        let scenario = open().into_iter().find(|s| s.name == scenario)?;
        let (_, law, story) = walk(scenario, 0..5_000, None).violation?;
        Some((law, story.len()))
    })
}
