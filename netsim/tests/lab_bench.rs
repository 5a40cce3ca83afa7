//! Docker Swarm and peer on the same real engines, once each, by one short measurement: both are formed, driven and cleared
//! away, and the page and the figures are written. Skipped, loudly, where there is no root or no dockerd.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod common;

use common::peer_binary;
use netsim::lab::Lab;
use netsim::lab::against::{AgainstConfig, run};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

#[test]
fn both_sides_are_measured_and_the_page_is_written() {
    let peer = peer_binary();
    let missing = Lab::missing().or_else(|| (!peer.exists()).then(|| format!("{} is not built", peer.display())));
    if let Some(why) = missing {
        eprintln!("SKIPPED: the comparison on real engines did not run: {why}");
        return;
    }
    let docs = tempfile::tempdir().unwrap();
    fs::write(docs.path().join("benchmarks.md"), "# Benchmarks\n\nwritten by hand\n").unwrap();
    let dir = PathBuf::from(format!("/tmp/pl{}", std::process::id()));
    let steps = vec!["rollback".to_owned()];
    run(&AgainstConfig { dir, peer, rounds: 1, steps, docs: docs.path().to_owned() }).unwrap();
    let figures: Value =
        serde_json::from_str(&fs::read_to_string(docs.path().join("benchmarks.json")).unwrap()).unwrap();
    let rows = figures["rows"].as_array().unwrap();
    for wanted in ["5 nodes formed", "rollback of 5"] {
        let row = rows.iter().find(|row| row["name"].as_str().unwrap().starts_with(wanted));
        let row = row.unwrap_or_else(|| panic!("no row {wanted:?} in {figures}"));
        assert!(row["swarm"].is_f64() && row["peer"].is_f64() && row["ratio"].is_f64(), "{row}");
    }
    assert!(figures["versions"]["dockerd"].as_str().unwrap().starts_with("Docker version"), "{figures}");
    let page = fs::read_to_string(docs.path().join("benchmarks.md")).unwrap();
    assert!(page.contains("written by hand") && page.contains("| rollback of 5"), "{page}");
}
