//! The binary as a shell runs it: what depends on the environment and can't be tried in a process of many tests.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::process::Command;

/// A script that says `PEER_HOST= peer status` means the usual socket.
#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let code = |host: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_peer")).arg("status").env("PEER_HOST", host).output().unwrap();
        output.status.code()
    };
    assert_eq!(code("tcp://10.0.0.1:2375"), Some(2), "misused");
    assert_ne!(code(""), Some(2));
}
