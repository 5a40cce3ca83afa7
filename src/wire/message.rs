//! Every message between two members. Who sent it is known from the connection's certificate and never read
//! from the message itself.

use crate::ids::NodeId;
use crate::model::lease::Electorate;
use crate::model::record::{Log, Record, Term};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// log -> the number up to which nothing of it is missing.
pub type Digest = BTreeMap<Log, u32>;

/// What agents before the logs of lives counted by: author -> highest sequence number up to which nothing is missing.
pub type OldDigest = BTreeMap<NodeId, u64>;

/// Which logs an exchange is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    All,
    /// Those whose digest comes with it. Nobody asks so any more: what one log lacks may be superseded by another's.
    Listed,
    /// Those that fall into these of `of` buckets.
    Buckets {
        of: u16,
        which: Vec<u16>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A foca packet.
    Gossip(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The sender's whole member table; `reply` asks for the receiver's in turn. The receiver's own entry and the sender's
    /// alone: how the sender sees the receiver, who answers with its own. A third node's entry alone: with `reply`, "I
    /// suspect it, can you reach it?", and without, what came of that.
    Members {
        members: Vec<MemberEntry>,
        reply: bool,
    },
    /// The sender stops on purpose and means to be back within the restart grace; or leaves for good.
    Leaving {
        for_good: bool,
    },

    /// Of agents that knew no lives: not answered any more, nor are the two other `Old` ones.
    OldAsk {
        nonce: u64,
        digest: OldDigest,
        in_return: bool,
    },
    OldDelta {
        nonce: u64,
        base: OldDigest,
        records: Vec<Record>,
        upto: OldDigest,
        more: bool,
    },
    /// New records, pushed as they are written: contiguous numbers per log.
    Push {
        records: Vec<Record>,
    },
    OldPushAck {
        held: OldDigest,
    },
    /// "Tell me when you hold `author`'s writes up to `seq` and your routes follow them."
    SeenAsk {
        author: NodeId,
        seq: u64,
    },
    Seen {
        author: NodeId,
        seq: u64,
    },

    Lease(LeaseMessage),

    /// The hash of what the sender holds, durably. Answered with `Same`, or with what tells where the difference is.
    Compare {
        hash: u64,
    },
    /// The sender holds just what has this hash.
    Same {
        hash: u64,
    },
    /// The sender holds something else than was asked about: the hash of each bucket of it.
    Differs {
        buckets: Vec<u64>,
    },
    /// What the sender holds, durably, in this scope: the receiver answers with a `Delta`, and asks `in_return` if it
    /// lacks something itself (a question in return is never returned).
    Ask {
        nonce: u64,
        scope: Scope,
        digest: Digest,
        in_return: bool,
    },
    /// Records of the scope above the digest of the question `nonce`, of which `base` is that part which they add to;
    /// after merging, the asker holds all up to `upto`. Without `more`, `upto` is all that the sender holds in the
    /// scope; with it, this is one page, and the asker asks on: it merges all pages at once. Of a later page `base` lists
    /// all that the asker had read.
    Delta {
        nonce: u64,
        scope: Scope,
        base: Digest,
        records: Vec<Record>,
        upto: Digest,
        more: bool,
    },
    /// The sender holds, durably, everything of these logs up to these numbers.
    PushAck {
        held: Digest,
    },

    /// The sender's member table in short, one hash for each of so many buckets: the receiver shows, and asks for, those
    /// in which its own differs.
    MembersHash {
        buckets: Vec<u32>,
    },
    /// All that the sender holds in these of `of` buckets; `reply` asks for what the receiver holds in them.
    MembersPart {
        of: u8,
        buckets: BTreeSet<u8>,
        members: Vec<MemberEntry>,
        reply: bool,
    },

    /// The tombstones at these places of a `Delta` were here and have been collected, or what took their place has.
    Collected {
        places: Vec<(Log, u32)>,
    },
    /// For the next page of a `Delta` with `more`: what the asker has read of the scope so far, and doesn't hold yet.
    AskOn {
        nonce: u64,
        scope: Scope,
        read: Digest,
    },
}

/// What an encoded message is about, read off its tag, for whoever counts: nothing is decoded.
pub fn family(bytes: &[u8]) -> &'static str {
    match bytes.get(2) {
        Some(0..=2 | 16 | 17) => "membership",
        Some(3..=6 | 10..=15 | 18 | 19) => "records",
        Some(7 | 8) => "withdrawal",
        Some(9) => "lease",
        _ => "other",
    }
}

/// One member as membership knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberEntry {
    pub node: NodeId,
    pub addr: SocketAddr,
    /// Which life of the node this is; only grows.
    pub bump: u64,
    /// foca's own counter within that life.
    pub incarnation: u16,
    pub state: MemberState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    Alive,
    Suspect,
    Down,
}

/// The lease protocol, "QL": PaxosLease (Trencseni, Gazso, Reinhardt 2012) with durable promises and a versioned electorate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LeaseMessage {
    Prepare {
        ballot: Term,
        electorate: Electorate,
    },
    Promise {
        ballot: Term,
    },
    /// Refused: this electorate is later than yours.
    Newer {
        electorate: Electorate,
    },
    /// Refused: a grant to `holder` lives for about this much longer, or a higher ballot was promised.
    Held {
        promised: Term,
        holder: Option<NodeId>,
        remaining_ms: u32,
    },
    Propose {
        ballot: Term,
        seq: u64,
        electorate: Electorate,
    },
    Accepted {
        ballot: Term,
        seq: u64,
    },
    Release {
        ballot: Term,
    },
    /// From a voter that is new in this life: what is promised by now?
    Recall {
        nonce: u64,
    },
    /// The highest ballot that the sender promised or stands with; `sure`: it has nothing to ask itself.
    Recalled {
        nonce: u64,
        promised: Term,
        electorate: Electorate,
        sure: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::encode;

    #[test]
    fn families_are_read_off_the_tags() {
        let author = NodeId::from_u128(1);
        for (message, wanted) in [
            (Message::Gossip(Vec::new()), "membership"),
            (Message::Leaving { for_good: true }, "membership"),
            (Message::MembersHash { buckets: Vec::new() }, "membership"),
            (Message::Push { records: Vec::new() }, "records"),
            (Message::Compare { hash: 1 }, "records"),
            (Message::Differs { buckets: Vec::new() }, "records"),
            (Message::PushAck { held: Digest::new() }, "records"),
            (Message::Collected { places: Vec::new() }, "records"),
            (Message::AskOn { nonce: 1, scope: Scope::All, read: Digest::new() }, "records"),
            (Message::SeenAsk { author, seq: 1 }, "withdrawal"),
            (Message::Seen { author, seq: 1 }, "withdrawal"),
            (Message::Lease(LeaseMessage::Release { ballot: Term { round: 0, node: author } }), "lease"),
        ] {
            assert_eq!(family(&encode(&message)), wanted, "{message:?}");
        }
        assert_eq!(family(&[]), "other");
    }
}
