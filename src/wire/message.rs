//! Every message between two members. Who sent it is known from the connection's certificate and never read
//! from the message itself.

use crate::ids::NodeId;
use crate::model::lease::Electorate;
use crate::model::record::{Record, Term};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// author -> highest sequence number up to which nothing is missing.
pub type Digest = BTreeMap<NodeId, u64>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A foca packet.
    Gossip(Vec<u8>),
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

    /// What the sender holds, durably: the receiver answers with a `Delta`, and asks `in_return` if it lacks
    /// something itself (a question in return is never returned).
    Ask {
        nonce: u64,
        digest: Digest,
        in_return: bool,
    },
    /// Records above `base`, which is the digest of the question `nonce`; after merging, the asker holds all up to
    /// `upto`. Without `more`, `upto` is all that the sender holds; with it, the asker asks again.
    Delta {
        nonce: u64,
        base: Digest,
        records: Vec<Record>,
        upto: Digest,
        more: bool,
    },
    /// New records, pushed as they are written: contiguous sequence numbers per author.
    Push {
        records: Vec<Record>,
    },
    /// The sender holds, durably, everything of these authors up to these numbers.
    PushAck {
        held: Digest,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}
