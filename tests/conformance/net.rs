//! Links between members: whole messages, each at most once, from whom they say; an end of a link is told.

use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Message {
        from: usize,
        bytes: Vec<u8>,
    },
    /// No link with this node is left.
    Lost(usize),
}

/// Three members, 0 to 2.
pub trait Subject {
    /// `datagram`: may be lost, and is not too large for a packet.
    fn send(&mut self, from: usize, to: usize, datagram: bool, bytes: &[u8]);
    /// What the node hears next of what these stories sent.
    fn next(&mut self, at: usize) -> Heard;
    /// Ends with a goodbye.
    fn close(&mut self, node: usize);
    /// Ends without, on a machine that lives on, and starts again under the same name and address.
    fn bounce(&mut self, node: usize);
    /// `by` takes nothing more from `node`, nor says anything to it.
    fn ban(&mut self, by: usize, node: usize);
}

fn hears(net: &mut impl Subject, at: usize, from: usize) -> Vec<u8> {
    loop {
        match net.next(at) {
            Heard::Message { from: who, bytes } => {
                assert_eq!(who, from);
                return bytes;
            }
            // Two that dial each other at once may let go of one of the two links.
            Heard::Lost(_) => {}
        }
    }
}

fn is_told_of_the_loss(net: &mut impl Subject, at: usize, of: usize) {
    while net.next(at) != Heard::Lost(of) {}
}

pub fn messages_arrive_whole_both_ways_and_say_from_whom(net: &mut impl Subject) {
    net.send(0, 1, false, b"the first needs a link");
    assert_eq!(hears(net, 1, 0), b"the first needs a link");
    net.send(1, 0, false, b"back");
    assert_eq!(hears(net, 0, 1), b"back");
    let large: Vec<u8> = (0..700_000u32).map(|n| n as u8).collect();
    net.send(0, 1, false, &large);
    assert!(hears(net, 1, 0) == large);
    net.send(2, 1, false, b"and from another");
    assert_eq!(hears(net, 1, 2), b"and from another");
}

pub fn a_burst_arrives_whole_and_nothing_of_it_twice(net: &mut impl Subject) {
    let wanted: BTreeSet<Vec<u8>> = (0..200).map(|n| format!("message {n}").into_bytes()).collect();
    for bytes in &wanted {
        net.send(0, 1, false, bytes);
    }
    let mut heard = BTreeSet::new();
    while heard.len() < wanted.len() {
        assert!(heard.insert(hears(net, 1, 0)), "one came twice");
    }
    assert_eq!(heard, wanted);
}

/// They may be lost on the way, not changed; some get through.
pub fn datagrams_arrive_as_they_were_sent(net: &mut impl Subject) {
    for n in 0..50u8 {
        net.send(0, 1, true, &[n; 900]);
    }
    net.send(0, 1, false, b"the end");
    let mut heard = BTreeSet::new();
    let mut ended = false;
    // The order between them is nobody's promise.
    while !ended || heard.is_empty() {
        match hears(net, 1, 0) {
            end if end == b"the end" => ended = true,
            packet => {
                assert!(packet.len() == 900 && packet.iter().all(|b| *b == packet[0]), "a changed datagram");
                heard.insert(packet[0]);
            }
        }
    }
}

pub fn a_goodbye_is_told_to_the_others(net: &mut impl Subject) {
    net.send(0, 1, false, b"hello");
    net.send(0, 2, false, b"hello");
    assert_eq!(hears(net, 1, 0), b"hello");
    assert_eq!(hears(net, 2, 0), b"hello");
    net.close(0);
    is_told_of_the_loss(net, 1, 0);
    is_told_of_the_loss(net, 2, 0);
    net.send(1, 2, false, b"we go on");
    assert_eq!(hears(net, 2, 1), b"we go on");
}

pub fn a_new_life_hears_nothing_that_was_meant_for_the_old(net: &mut impl Subject) {
    net.send(0, 1, false, b"before");
    assert_eq!(hears(net, 1, 0), b"before");
    net.bounce(1);
    net.send(0, 1, false, b"to the old link");
    is_told_of_the_loss(net, 0, 1);
    net.send(0, 1, false, b"after");
    assert_eq!(hears(net, 1, 0), b"after");
    net.send(1, 0, false, b"here I am");
    assert_eq!(hears(net, 0, 1), b"here I am");
}

pub fn nothing_gets_past_a_ban(net: &mut impl Subject) {
    net.send(1, 0, false, b"before");
    assert_eq!(hears(net, 0, 1), b"before");
    net.ban(0, 1);
    net.send(1, 0, false, b"let me in");
    net.send(0, 1, false, b"to nobody");
    net.send(2, 0, false, b"from a friend");
    assert_eq!(hears(net, 0, 2), b"from a friend");
    net.send(1, 0, false, b"please");
    net.send(2, 0, false, b"another");
    assert_eq!(hears(net, 0, 2), b"another");
}
