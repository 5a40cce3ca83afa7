//! The lease's own code under the model checker: each scenario to its end, and random walks where there is none.
//! The bounds of an optimised build, which are those of `netsim model`, are wider than those of a debug build.

use netsim::model::scenarios::{brief, closed, open};
use netsim::model::walk::walk;
use netsim::model::{Reach, search};

fn holds(name: &str) {
    let scenarios = if cfg!(debug_assertions) { brief() } else { closed() };
    let scenario = scenarios.into_iter().find(|s| s.name == name).unwrap();
    let report = search(scenario, Reach::default());
    println!("{report}");
    assert_eq!(report.violation, None);
    assert!(report.exhaustive);
    assert!(report.never.is_empty(), "proves little: {:?}", report.never);
    assert!(report.states > 10_000, "{} states", report.states);
}

#[test]
fn every_order_of_elections_keeps_the_laws() {
    holds("elections");
}

#[test]
fn every_order_of_renewals_keeps_the_laws() {
    holds("renewals");
}

#[test]
fn a_restart_at_any_moment_keeps_the_laws() {
    holds("restarts");
}

#[test]
fn an_electorate_that_grows_keeps_the_laws() {
    holds("growth");
}

#[test]
fn an_electorate_whose_voters_are_replaced_keeps_the_laws() {
    holds("replacement");
}

#[test]
fn an_electorate_that_shrinks_to_its_holder_keeps_the_laws() {
    holds("shrinking");
}

#[test]
fn a_voter_left_behind_with_an_old_electorate_keeps_the_laws() {
    holds("left-behind");
}

#[test]
fn random_walks_keep_the_laws() {
    let mut reigns = 0;
    for scenario in open() {
        let walked = walk(scenario, 10_000..10_200, None);
        println!("{walked}");
        assert_eq!(walked.violation, None);
        reigns += walked.reigns;
    }
    assert!(reigns > 200, "too few to prove anything: {reigns}");
}
