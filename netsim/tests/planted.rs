//! The net catches fish: each known bug, planted, breaks a law within a fixed number of seeds of each profile; which law,
//! and in how many seeds, is printed (`--nocapture`, or `netsim planted`).
#![allow(clippy::disallowed_methods)]

use std::process::Command;

#[test]
fn every_planted_bug_is_caught() {
    let output = Command::new(env!("CARGO_BIN_EXE_netsim")).args(["planted", "--seeds", "10", "--jobs", "2"]).output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    println!("{told}");
    assert!(output.status.success(), "{told}");
}
