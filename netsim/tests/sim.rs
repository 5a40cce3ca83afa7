//! Whole clusters on virtual time: a fresh slice of seeds, the same run twice, and what was once found.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use netsim::sim::chaos::{Profile, Size, draw};
use netsim::sim::plan::Plan;
use netsim::sim::run::{Tell, run};
use netsim::sim::scale::cluster::Cluster;
use std::path::Path;

const SIZE: Size = Size { nodes: 5, secs: 60 };

/// A few seeds of a profile, each of which must hold.
fn hold(profile: Profile, seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let outcome = run(&draw(seed, profile, SIZE), Tell::Nothing);
        let replay = format!("netsim replay {seed} --profile {} --secs {}", profile.name(), SIZE.secs);
        assert_eq!(outcome.violation, None, "seed {seed}: {replay}");
        assert!(outcome.requests > 0 || outcome.events > 1_000, "seed {seed} did nothing");
    }
}

#[test]
fn calm_clusters_keep_every_promise() {
    hold(Profile::Calm, 1..9);
}

#[test]
fn one_kind_of_fault_breaks_no_promise() {
    hold(Profile::One, 1..13);
}

#[test]
fn some_kinds_of_faults_break_no_promise() {
    hold(Profile::Swarm, 1..13);
}

#[test]
fn all_faults_at_once_break_no_promise() {
    hold(Profile::Storm, 1..13);
}

#[test]
fn disks_that_are_put_back_break_no_promise() {
    hold(Profile::Rewind, 1..13);
}

#[test]
fn the_same_plan_goes_the_same_way() {
    for profile in Profile::ALL {
        let plan = draw(4, profile, SIZE);
        let (first, second) = (run(&plan, Tell::Nothing), run(&plan, Tell::Story));
        assert_eq!((first.hash, first.events, first.violation), (second.hash, second.events, second.violation));
    }
}

#[test]
fn a_plan_survives_its_file() {
    for profile in Profile::ALL {
        let plan = draw(7, profile, SIZE);
        assert_eq!(Plan::parse(&plan.to_toml().unwrap()).unwrap(), plan);
    }
}

/// Until then the founder is the only voter: if it is lost for good, so is the cluster.
#[test]
fn a_young_cluster_soon_has_three_voters() {
    for seed in 1..21 {
        let took = Cluster::comes_of_age(3, seed);
        println!("seed {seed}: {took} s");
        assert!(took <= 1.0, "seed {seed}: three vote after {took} s");
    }
}

/// Each file tells in its `story` what was found, and in `guards` which law it broke.
#[test]
fn what_was_once_found_stays_mended() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "toml")) {
        let plan = Plan::parse(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert!(!plan.guards.is_empty(), "{}: which law does it guard?", file.display());
        let outcome = run(&plan, Tell::Nothing);
        assert_eq!(outcome.violation, None, "{}: {}", file.display(), plan.story);
    }
}
