//! The connections that our rules have led somewhere, as the kernel tracks them: found by the mark that the rules set.

use super::netlink::{Attributes, Netlink, be16, be32, put};
use super::rules::MARK;
use crate::model::spec::Protocol;
use crate::shell::mesh::table::QUIET_AFTER;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

const AF_INET: u8 = 2;
const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_MARK_MASK: u16 = 21;
const CTA_FILTER: u16 = 25;
const CTA_STATUS_MASK: u16 = 26;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_FILTER_BY_SOURCE: u32 = 1;
/// With a kind: attributes are in it.
const NESTED: u16 = 0x8000;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const SEEN_REPLY: u32 = 1 << 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who answers: the replica, or its delivery port on another node.
    pub at: SocketAddrV4,
    pub flow: Flow,
    pub replied: bool,
    /// The kernel forgets it in so many seconds if nothing comes.
    left_s: u32,
    /// What tells the kernel which one is meant: who answers whom. Not who asked whom: a client that uses its port again
    /// asks the same, and the kernel's number for the new connection is the old one's if it lies in the same memory.
    key: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Udp,
    SynSent,
    SynReceived,
    Established,
    FinWait,
    CloseWait,
    /// Both sides have said that they are done.
    Over,
    /// Reset: by an answer to a try, too, where the same ports had been connected before.
    Closed,
}

impl Entry {
    /// What the kernel still knows of a connection that carries nothing any more.
    pub fn is_over(&self) -> bool {
        matches!(self.flow, Flow::Over | Flow::Closed)
    }
}

/// Which of ours are wanted: the kernel picks them out, so that of a big table only these are copied and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    /// Nothing has come back yet.
    Unanswered,
    /// Those that this address answers.
    At(Ipv4Addr),
}

/// The connections that our rules have led somewhere.
pub fn ours(netlink: &mut Netlink, which: Which) -> io::Result<Vec<Entry>> {
    let mut filter = Vec::new();
    put(&mut filter, CTA_MARK, &MARK.to_be_bytes());
    put(&mut filter, CTA_MARK_MASK, &MARK.to_be_bytes());
    match which {
        Which::All => {}
        Which::Unanswered => {
            put(&mut filter, CTA_STATUS, &0u32.to_be_bytes());
            put(&mut filter, CTA_STATUS_MASK, &SEEN_REPLY.to_be_bytes());
        }
        Which::At(ip) => {
            let address = nested(CTA_TUPLE_IP, &[(CTA_IP_V4_SRC, &ip.octets())]);
            put(&mut filter, CTA_TUPLE_REPLY | NESTED, &address);
            let by_source = CTA_FILTER_BY_SOURCE.to_ne_bytes();
            filter.extend(nested(CTA_FILTER, &[(CTA_FILTER_REPLY_FLAGS, &by_source)]));
        }
    }
    // An older kernel that doesn't know a filter passes over it.
    let is_wanted = |entry: &Entry| match which {
        Which::All => true,
        Which::Unanswered => !entry.replied,
        Which::At(ip) => *entry.at.ip() == ip,
    };
    let mut entries = Vec::new();
    netlink.dump(CT_GET, AF_INET, &filter, |attributes| entries.extend(decode(attributes).filter(is_wanted)))?;
    Ok(entries)
}

/// What comes next of its connection is looked at as if it were a new one.
pub fn delete(netlink: &mut Netlink, entry: &Entry) -> io::Result<()> {
    match netlink.act(CT_DELETE, AF_INET, &entry.key) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn decode(attributes: &[u8]) -> Option<Entry> {
    let (mut at, mut status, mut left_s, mut state, mut mark) = (None, 0, 0, 0, 0);
    let mut key = Vec::new();
    for (kind, value) in Attributes(attributes) {
        match kind {
            CTA_ID => put(&mut key, CTA_ID, value),
            CTA_TUPLE_REPLY => {
                at = source(value);
                put(&mut key, CTA_TUPLE_REPLY | NESTED, value);
            }
            CTA_STATUS => status = be32(value)?,
            CTA_TIMEOUT => left_s = be32(value)?,
            CTA_MARK => mark = be32(value)?,
            CTA_PROTOINFO => {
                let tcp = Attributes(value).find(|(kind, _)| *kind == CTA_PROTOINFO_TCP);
                let of = tcp.and_then(|(_, tcp)| Attributes(tcp).find(|(kind, _)| *kind == CTA_PROTOINFO_TCP_STATE));
                state = of.and_then(|(_, state)| state.first().copied()).unwrap_or(0);
            }
            _ => {}
        }
    }
    let (protocol, at) = at?;
    let flow = match (protocol, state) {
        (Protocol::Udp, _) => Flow::Udp,
        // Seen from both sides at once, too.
        (_, 1 | 9) => Flow::SynSent,
        (_, 2) => Flow::SynReceived,
        (_, 3) => Flow::Established,
        (_, 4) => Flow::FinWait,
        (_, 5) => Flow::CloseWait,
        (_, 8) => Flow::Closed,
        _ => Flow::Over,
    };
    // An old kernel may not know the filter.
    (mark & MARK == MARK).then_some(Entry { at, flow, replied: status & SEEN_REPLY != 0, left_s, key })
}

/// An attribute made of others.
fn nested(kind: u16, parts: &[(u16, &[u8])]) -> Vec<u8> {
    let mut value = Vec::new();
    for (kind, part) in parts {
        put(&mut value, *kind, part);
    }
    let mut whole = Vec::new();
    put(&mut whole, kind | NESTED, &value);
    whole
}

fn source(tuple: &[u8]) -> Option<(Protocol, SocketAddrV4)> {
    let part = |of: &'_ [u8], wanted: u16| Attributes(of).find(|(kind, _)| *kind == wanted).map(|(_, v)| v.to_vec());
    let (ip, proto) = (part(tuple, CTA_TUPLE_IP)?, part(tuple, CTA_TUPLE_PROTO)?);
    let protocol = match *part(&proto, CTA_PROTO_NUM)?.first()? {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        _ => return None,
    };
    let address = Ipv4Addr::from(be32(&part(&ip, CTA_IP_V4_SRC)?)?);
    Some((protocol, SocketAddrV4::new(address, be16(&part(&proto, CTA_PROTO_SRC_PORT)?)?)))
}

/// In seconds. One of them may be the kernel's rounding.
const JUST_ENDED_S: u32 = 2;

/// How long the kernel keeps a quiet connection, by its state: what is gone of that is how long it has been quiet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    syn_sent: u32,
    syn_received: u32,
    established: u32,
    fin_wait: u32,
    close_wait: u32,
    time_wait: u32,
    /// Shorter, while something isn't acknowledged or was sent again, whatever the state.
    unacknowledged: u32,
    retransmitted: u32,
    udp: u32,
    udp_both_ways: u32,
}

impl Timeouts {
    /// Of this network namespace.
    pub fn read() -> Self {
        let of = |name: &str, usual: u32| {
            let text = std::fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
            text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(usual)
        };
        Self {
            syn_sent: of("tcp_timeout_syn_sent", 120),
            syn_received: of("tcp_timeout_syn_recv", 60),
            established: of("tcp_timeout_established", 432_000),
            fin_wait: of("tcp_timeout_fin_wait", 120),
            close_wait: of("tcp_timeout_close_wait", 60),
            time_wait: of("tcp_timeout_time_wait", 120),
            unacknowledged: of("tcp_timeout_unacknowledged", 300),
            retransmitted: of("tcp_timeout_max_retrans", 300),
            udp: of("udp_timeout", 30),
            udp_both_ways: of("udp_timeout_stream", 120),
        }
    }

    /// Both sides ended it not longer than [`JUST_ENDED_S`] ago.
    pub fn has_just_ended(&self, entry: &Entry) -> bool {
        entry.flow == Flow::Over && self.time_wait.saturating_sub(entry.left_s) <= JUST_ENDED_S
    }

    /// Nobody answers it: it was never answered, or what was sent over it has not been acknowledged for a second or more. (While
    /// something isn't, an established connection has a shorter timeout.) A UDP flow doesn't tell, and is taken for it.
    pub fn is_stuck(&self, entry: &Entry) -> bool {
        match entry.flow {
            Flow::Udp | Flow::SynSent | Flow::SynReceived | Flow::Over | Flow::Closed => true,
            // The kernel rounds what is left down.
            Flow::Established => entry.left_s.saturating_add(2) <= self.unacknowledged.max(self.retransmitted),
            Flow::FinWait | Flow::CloseWait => !self.is_busy(entry),
        }
    }

    /// It is open and has carried something lately. What can't be told counts as lately.
    pub fn is_busy(&self, entry: &Entry) -> bool {
        let (full, others): (u32, &[u32]) = match entry.flow {
            Flow::Over | Flow::Closed => return false,
            Flow::Udp => (self.udp_both_ways, &[self.udp]),
            Flow::SynSent => (self.syn_sent, &[]),
            Flow::SynReceived => (self.syn_received, &[]),
            Flow::Established => (self.established, &[self.unacknowledged, self.retransmitted]),
            Flow::FinWait => (self.fin_wait, &[self.unacknowledged, self.retransmitted]),
            Flow::CloseWait => (self.close_wait, &[self.unacknowledged, self.retransmitted]),
        };
        let quiet_s = others.iter().chain([&full]).filter_map(|timeout| timeout.checked_sub(entry.left_s)).min();
        // The kernel rounds what is left down.
        quiet_s.is_none_or(|quiet| u64::from(quiet) <= QUIET_AFTER.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CTA_TUPLE_ORIG: u16 = 1;

    fn tuple(kind: u16, from: [u8; 4], port: u16) -> Vec<u8> {
        let ip = nested(CTA_TUPLE_IP, &[(CTA_IP_V4_SRC, &from), (2, &[10, 0, 0, 9])]);
        let number = [TCP];
        let proto = nested(CTA_TUPLE_PROTO, &[(CTA_PROTO_NUM, &number), (CTA_PROTO_SRC_PORT, &port.to_be_bytes())]);
        let mut whole = Vec::new();
        put(&mut whole, kind | NESTED, &[ip, proto].concat());
        whole
    }

    fn bytes(state: u8, left_s: u32, status: u32, mark: u32) -> Vec<u8> {
        let mut bytes = tuple(CTA_TUPLE_ORIG, [10, 0, 0, 9], 40_000);
        bytes.extend(tuple(CTA_TUPLE_REPLY, [172, 17, 0, 2], 8080));
        put(&mut bytes, CTA_STATUS, &status.to_be_bytes());
        put(&mut bytes, CTA_TIMEOUT, &left_s.to_be_bytes());
        put(&mut bytes, CTA_MARK, &mark.to_be_bytes());
        let tcp = nested(CTA_PROTOINFO_TCP, &[(CTA_PROTOINFO_TCP_STATE, &[state])]);
        put(&mut bytes, CTA_PROTOINFO | NESTED, &tcp);
        put(&mut bytes, CTA_ID, &[1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn an_entry_is_read_and_one_cut_short_anywhere_is_no_other() {
        let whole = bytes(3, 431_999, SEEN_REPLY, MARK | 5);
        let entry = decode(&whole).unwrap();
        assert_eq!((entry.at, entry.flow), ("172.17.0.2:8080".parse().unwrap(), Flow::Established));
        assert_eq!((entry.replied, entry.left_s), (true, 431_999));
        assert!(entry.key.starts_with(&tuple(CTA_TUPLE_REPLY, [172, 17, 0, 2], 8080)));
        assert!(entry.key.ends_with(&[1, 2, 3, 4]));
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_none_or(|cut| cut.at == entry.at));
        }
        assert!(!decode(&bytes(1, 100, 0, MARK)).unwrap().replied);
        assert_eq!(decode(&bytes(3, 100, 0, MARK >> 1)), None, "somebody else's");
    }

    #[test]
    fn what_is_left_of_its_time_tells_how_long_a_connection_has_been_quiet() {
        let timeouts = Timeouts {
            syn_sent: 120,
            syn_received: 60,
            established: 432_000,
            fin_wait: 120,
            close_wait: 60,
            time_wait: 120,
            unacknowledged: 300,
            retransmitted: 300,
            udp: 30,
            udp_both_ways: 120,
        };
        let busy = |state, left_s| timeouts.is_busy(&decode(&bytes(state, left_s, SEEN_REPLY, MARK)).unwrap());
        assert!(busy(3, 431_999) && busy(3, 431_997) && !busy(3, 431_996));
        assert!(busy(3, 299) && !busy(3, 296), "its last bytes were not acknowledged");
        assert!(busy(2, 60) && busy(5, 58) && !busy(4, 90));
        assert!(busy(3, 500_000), "somebody has lowered the timeout");
        assert!(!busy(7, 120) && !busy(8, 10), "closed");
        let stuck = |state, left_s| timeouts.is_stuck(&decode(&bytes(state, left_s, SEEN_REPLY, MARK)).unwrap());
        assert!(stuck(3, 298) && !stuck(3, 299) && !stuck(3, 431_000), "one that rests is left alone");
        assert!(stuck(1, 120) && stuck(5, 40) && !stuck(5, 60));
        let ended = |state, left_s| timeouts.has_just_ended(&decode(&bytes(state, left_s, SEEN_REPLY, MARK)).unwrap());
        assert!(ended(7, 119) && !ended(7, 116) && !ended(3, 119));
    }
}
