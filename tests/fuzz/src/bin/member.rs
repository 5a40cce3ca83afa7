//! A hostile member: whatever it sends, whenever, the node that hears it goes on, and its disk can be started from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peer::core::face::Event;
use peer_fuzz::{Node, boot, frames, id};
use std::time::Duration;

/// An input that fills memory by its length alone shows nothing.
const MAX_EVENTS: usize = 200;

fuzz_target!(|data: &[u8]| {
    let mut node = Node::founder();
    for (tag, body) in frames(data).take(MAX_EVENTS) {
        match tag & 7 {
            0 => node.feed(Event::LinkLost { node: id(2) }),
            1 => node.wait(Duration::from_millis(body.len() as u64)),
            2 => node.wait(Duration::from_secs(body.len() as u64 & 63)),
            3 => node.feed(Event::Message { from: id(3), bytes: body.to_vec() }),
            _ => node.feed(Event::Message { from: id(2), bytes: body.to_vec() }),
        }
    }
    Node::start(boot(1, node.disk, None)).expect("it reads what it wrote itself");
});
