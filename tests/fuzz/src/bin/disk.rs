//! A start from a disk that holds anything: it is refused, or the node lives on it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peer_fuzz::{Disk, Node, boot, frames};
use std::time::Duration;

fuzz_target!(|data: &[u8]| {
    let mut disk = Disk::new();
    for (tag, body) in frames(data) {
        let (key, value) = body.split_at(usize::from(tag).min(body.len()));
        disk.insert(key.to_vec(), value.to_vec());
    }
    if let Some(mut node) = Node::start(boot(1, disk, None)) {
        node.wait(Duration::from_secs(10));
    }
});
