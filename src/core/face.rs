//! What goes into the core and what comes out. The agent and the simulator speak exactly this.

use crate::ids::{ClusterId, NodeId, ObjectId, ServiceId, TaskId};
use crate::limits;
use crate::model::container::{EngineEvent, EngineOp, OpId};
use crate::model::node::Availability;
use crate::model::object::ObjectKind;
use crate::model::record::{Hlc, RevisionId};
use crate::routes::RouteTable;
pub use crate::store::Keep;
use crate::wire::message::MemberEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a life of the agent starts from.
#[derive(Debug, Clone)]
pub struct Boot {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Drawn at random for this life.
    pub boot: u64,
    pub hostname: String,
    pub addr: SocketAddr,
    pub agent_version: String,
    pub timing: Timing,
    /// The data plane takes what other nodes' kernels send to the delivery ports of [`RouteTable::deliveries`].
    pub delivers: bool,
    /// Everything that was ever persisted and not deleted since, by key.
    pub durable: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Set at a node's very first start.
    pub first: Option<FirstBoot>,
    /// `Arc::new`, unless many cores live in this process.
    pub keep: Keep,
}

#[derive(Debug, Clone)]
pub struct FirstBoot {
    /// `None` founds the cluster; otherwise whom to announce to, from the answer to the join.
    pub members: Option<Vec<MemberEntry>>,
    /// The join secret of a cluster that is being founded.
    pub join_secret: String,
    pub availability: Availability,
    pub labels: BTreeMap<String, String>,
}

/// The clocks of the protocols. The defaults suit a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub probe_period: Duration,
    pub probe_rtt: Duration,
    pub suspect_to_down: Duration,
    /// How long an acceptor's grant lives.
    pub lease_acceptor: Duration,
    /// How long the holder acts on it; shorter than the grant by the clock-drift margin.
    pub lease_holder: Duration,
    pub lease_renew: Duration,
    /// A tombstone younger than this is kept, whoever has it.
    pub tombstone_retention: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_millis(450),
            probe_rtt: Duration::from_millis(200),
            suspect_to_down: Duration::from_millis(1_400),
            lease_acceptor: Duration::from_millis(3_000),
            lease_holder: Duration::from_millis(2_700),
            lease_renew: Duration::from_millis(750),
            tombstone_retention: limits::TOMBSTONE_RETENTION,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// Chosen by the driver, never by a client; ties a reply to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

#[derive(Debug)]
pub enum Event {
    /// Bytes from a member; `from` was proven by the connection.
    Message {
        from: NodeId,
        bytes: Vec<u8>,
    },
    /// A connection to or from this member died.
    LinkLost {
        node: NodeId,
    },
    /// This member, proven by its connection, says that this node was removed from the cluster, and takes nothing
    /// from it any more: the record of the removal may never get here.
    TurnedAway {
        by: NodeId,
    },
    /// The instant that [`super::Core::deadline`] named has come.
    Wake,
    Persisted(PersistId),
    PersistFailed {
        id: PersistId,
        why: String,
    },
    Engine(EngineEvent),
    Mesh(MeshEvent),
    Request {
        id: RequestId,
        request: Request,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshEvent {
    /// The data plane follows this version of the table (or a later one).
    Applied { version: u64 },
    /// No connection through this node to the task is open any more.
    Drained { task: TaskId },
    /// These published ports can't be opened here, with the reason; replaces the last such report.
    Blocked(BTreeMap<u16, String>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Best effort and at most once; `datagram` where size allows and order doesn't matter.
    Send {
        to: NodeId,
        addr: SocketAddr,
        datagram: bool,
        bytes: Vec<u8>,
    },
    /// Put (`Some`) or delete (`None`) each key, all or none, durably; then report the id.
    /// Ids complete in order.
    Persist {
        id: PersistId,
        writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    },
    Engine {
        op: OpId,
        what: EngineOp,
    },
    Publish {
        version: u64,
        table: Arc<RouteTable>,
    },
    /// Report [`MeshEvent::Drained`] for this task, now or as soon as it is so. `everywhere`: all nodes have said that
    /// they lead no new connections to it; else one that is late still may.
    AwaitDrained {
        task: TaskId,
        everywhere: bool,
    },
    Reply {
        id: RequestId,
        reply: Reply,
    },
    /// Close the connections of these nodes and take none from them again.
    Ban(BTreeSet<NodeId>),
    Notice(Notice),
    /// The graceful stop that was asked for is complete.
    Stopped,
}

/// Something worth a line in the log and an entry in the event stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    NodeUp(NodeId),
    NodeDown(NodeId),
    LeaseAcquired {
        term: u64,
    },
    LeaseLost {
        term: u64,
    },
    ElectorateChanged {
        voters: Vec<NodeId>,
    },
    TaskStatus {
        task: TaskId,
        phase: &'static str,
        error: String,
    },
    RolloutState {
        service: ServiceId,
        state: &'static str,
        message: String,
    },
    /// This node was removed from the cluster.
    Removed,
    Warning(String),
}

/// What operators ask for. Text is still unchecked here.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    CreateService {
        spec_json: String,
        auth: Option<String>,
    },
    /// `version`: the `Version.Index` the client read; refused when stale. `None` forces.
    UpdateService {
        id: ServiceId,
        version: Option<Hlc>,
        spec_json: String,
        auth: Option<String>,
    },
    /// To `to`, or to the revision before the current one.
    RollbackService {
        id: ServiceId,
        version: Option<Hlc>,
        to: Option<RevisionId>,
    },
    RemoveService {
        id: ServiceId,
    },
    UpdateNode {
        id: NodeId,
        version: Option<Hlc>,
        availability: Option<Availability>,
        labels: Option<BTreeMap<String, String>>,
    },
    /// `spec_json`: Docker's spec without `Data`. `data`: a config's content, or a secret's, sealed.
    CreateObject {
        kind: ObjectKind,
        spec_json: String,
        data: Vec<u8>,
    },
    /// Only the labels may change; the name must be the same.
    UpdateObject {
        kind: ObjectKind,
        id: ObjectId,
        version: Option<Hlc>,
        spec_json: String,
    },
    /// A new secret or config takes the place of `old` in every service that refers to one of them: the new object and the
    /// services' new revisions are one write, all or none. The old ones stay, for those who roll back.
    RenewObject {
        kind: ObjectKind,
        old: BTreeSet<ObjectId>,
        spec_json: String,
        data: Vec<u8>,
    },
    /// Refused while a service uses it.
    RemoveObject {
        kind: ObjectKind,
        id: ObjectId,
    },
    /// Only a node that is down, unless forced.
    RemoveNode {
        id: NodeId,
        force: bool,
    },
    /// Ends the validity of the old join secret.
    RotateToken {
        secret: String,
    },
    /// Forms a new electorate from the nodes that live now; for when a majority of the old one is lost for good.
    Recover,
    /// SIGTERM: hand the lease over, say goodbye, keep the containers.
    Stop,
}

pub type Reply = Result<Accepted, Refused>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The id of what was created or changed.
    pub id: String,
    /// Its new `Version.Index`.
    pub index: Hlc,
    /// Says so when no majority of the electorate holds the write yet, and what else the operator should know.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    /// The field's name and what is wrong with it.
    #[error("{0}")]
    Invalid(String),
    #[error("update out of sequence")]
    OutOfSequence,
    /// Not now: the reason and what to do.
    #[error("{0}")]
    Unavailable(String),
}
