//! The model check can fail: each known bug of the lease, planted, breaks a law. In one test, as a planted bug is the whole
//! process's.

use netsim::model::hunt::{OF_THE_LEASE, hunt};
use peer::plant::plant;

#[test]
fn every_planted_bug_of_the_lease_is_caught() {
    let mut missed = Vec::new();
    for (bug, scenario) in OF_THE_LEASE {
        plant(Some(*bug));
        match hunt(scenario) {
            Some((law, steps)) => println!("{}: {law}, {scenario}, {steps} steps", bug.name()),
            None => missed.push(bug.name()),
        }
    }
    plant(None);
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
