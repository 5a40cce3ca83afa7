//! Chaos on real agents and engines, a minute from a fixed seed and a minute from a fresh one, which is printed and can be
//! given again by `PEER_CHAOS_SEED`. Skipped, loudly, where there is no root or no dockerd.
#![allow(clippy::disallowed_methods)]

mod common;

use netsim::lab::Lab;
use netsim::lab::chaos::{ChaosConfig, run};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn hold(seed: u64) {
    let peer = common::peer_binary();
    let missing = Lab::missing().or_else(|| (!peer.exists()).then(|| format!("{} is not built", peer.display())));
    if let Some(why) = missing {
        eprintln!("SKIPPED: the chaos on real engines did not run: {why}");
        return;
    }
    let before = common::everything();
    let dir = PathBuf::from(format!("/tmp/pl{}", std::process::id()));
    let config = ChaosConfig { dir, peer, nodes: 5, lasts: Duration::from_secs(60), seed, out: None };
    let verdict = run(&config).unwrap();
    assert_eq!(common::everything(), before, "left behind");
    assert!(verdict.breaches.is_empty(), "seed {seed}: {:#?}", verdict.breaches);
}

#[test]
fn nothing_is_lost_with_a_fixed_seed() {
    hold(1);
}

#[test]
fn nothing_is_lost_with_a_fresh_seed() {
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 1_000_000;
    let seed = std::env::var("PEER_CHAOS_SEED").map_or_else(|_| fresh(), |given| given.parse().unwrap());
    println!("PEER_CHAOS_SEED={seed}");
    hold(seed);
}
