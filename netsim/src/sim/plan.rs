//! A run as data: how big the cluster is, what the weather is like, what operators do and what breaks, each with its
//! time. It is drawn from the seed before the run (see [`super::chaos`]) or read from a file, and nothing else decides
//! what a run is: so a run can be told again, cut down and kept.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// For what is drawn on the way: latencies, losses, which writes a crash tears.
    pub seed: u64,
    pub profile: String,
    /// What happened when this was found, for a file that is kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub story: String,
    /// The law that it guards: the id of the check that failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub guards: String,
    pub nodes: usize,
    /// Faults end here; then the cluster must settle.
    pub secs: u64,
    pub weather: Weather,
    #[serde(default)]
    pub ops: Vec<PlannedOp>,
    #[serde(default)]
    pub faults: Vec<PlannedFault>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weather {
    /// One way, at least.
    pub floor_us: u64,
    /// Mean of what comes on top.
    pub jitter_us: u64,
    pub loss_permille: u32,
    pub double_permille: u32,
    pub disk_us: u64,
    pub engine_us: u64,
    /// How far each node's clock may run off, either way.
    pub drift_ppm: u32,
    /// Each node's wall clock is wrong by up to this.
    pub wall_off_ms: u64,
    /// Mean time between two requests of the cluster's users; 0 for none.
    pub client_every_ms: u64,
    /// Nodes that are down when the faults end may stay down, as long as a majority of the voters is left.
    pub leave_dead: bool,
    /// How long tombstones are kept; Swarm's users would wait a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_s: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedOp {
    pub at_ms: u64,
    /// Whom the operator asks; the next living node if that one is down.
    pub node: usize,
    /// The client, none the wiser, sends the very same request again after this, to another node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_ms: Option<u64>,
    #[serde(flatten)]
    pub op: Op,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    Create {
        service: String,
        spec: SpecKnobs,
    },
    /// Reads the spec from its node, changes what is named, and writes it back.
    Update {
        service: String,
        change: Change,
    },
    Rollback {
        service: String,
    },
    RemoveService {
        service: String,
    },
    Availability {
        target: usize,
        to: String,
    },
    /// Of a node that is down for good in the plan, or forced.
    RemoveNode {
        target: usize,
    },
    /// A machine that was not there before. They come after the first `nodes`, in the order of their times.
    Join,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpecKnobs {
    pub image: String,
    /// None: one on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
    /// 0 for no published port.
    pub port: u16,
    pub health: bool,
    pub start_first: bool,
    pub parallelism: u64,
    pub on_failure: String,
    pub monitor_ms: u64,
    pub restart_ms: u64,
    /// Reserved by each task; a simulated machine has four CPUs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reserve_milli_cpus: u64,
    /// Bound on the machine itself; 0 for none.
    #[serde(default, skip_serializing_if = "is_no_port")]
    pub host_port: u16,
    /// Not on the node of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_on: Option<String>,
}

impl SpecKnobs {
    /// A service that asks for nothing special.
    pub fn plain(replicas: u64, port: u16) -> Self {
        Self {
            image: "app:1".to_owned(),
            replicas: Some(replicas),
            port,
            health: false,
            start_first: false,
            parallelism: 1,
            on_failure: "pause".to_owned(),
            monitor_ms: 500,
            restart_ms: 1_000,
            reserve_milli_cpus: 0,
            host_port: 0,
            not_on: None,
        }
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_no_port(n: &u16) -> bool {
    *n == 0
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Image(String),
    Replicas(u64),
    Force,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedFault {
    pub at_ms: u64,
    #[serde(flatten)]
    pub fault: Fault,
}

/// Each with its end, so that neither half can be lost when a plan is cut down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// The agent's process dies and is started again; with `power` the machine does.
    Bounce {
        node: usize,
        down_ms: u64,
        power: bool,
    },
    BounceHolder {
        down_ms: u64,
    },
    /// SIGTERM, and started again.
    Restart {
        node: usize,
        down_ms: u64,
    },
    /// Nothing gets from these to those; with `both`, nor back.
    Cut {
        from: Vec<usize>,
        to: Vec<usize>,
        both: bool,
        for_ms: u64,
    },
    /// The holder is cut off, and all others are restarted meanwhile.
    CutHolderBounceRest {
        for_ms: u64,
        down_ms: u64,
    },
    CutHolder {
        for_ms: u64,
        both: bool,
    },
    Loss {
        permille: u32,
        for_ms: u64,
    },
    Latency {
        extra_ms: u64,
        for_ms: u64,
    },
    /// Everything waits: a stopped process, a suspended machine.
    Pause {
        node: usize,
        for_ms: u64,
    },
    PauseHolder {
        for_ms: u64,
    },
    /// Each event costs this much.
    Slow {
        node: usize,
        cost_us: u64,
        for_ms: u64,
    },
    WallJump {
        node: usize,
        by_ms: i64,
    },
    /// The wall clock is off by days for a while. Who was ahead has written stamps that others refuse for as many days, also
    /// when its clock is right again: so `kept_ms` after that its machine is given up, and another takes its place.
    WallLeap {
        node: usize,
        by_ms: i64,
        for_ms: u64,
        kept_ms: u64,
    },
    DiskSlow {
        node: usize,
        extra_ms: u64,
        for_ms: u64,
    },
    DiskFull {
        node: usize,
        for_ms: u64,
    },
    /// The machine dies and comes back with its disk as it was a while before.
    Rewind {
        node: usize,
        back_ms: u64,
        down_ms: u64,
    },
    EngineDown {
        node: usize,
        for_ms: u64,
    },
    /// The engine ends, its containers with it.
    EngineRestart {
        node: usize,
        for_ms: u64,
    },
    EngineHang {
        node: usize,
        for_ms: u64,
    },
    PullsFail {
        node: usize,
        for_ms: u64,
    },
    StartsFail {
        node: usize,
        for_ms: u64,
    },
    RepliesLost {
        node: usize,
        for_ms: u64,
    },
    HintsLost {
        node: usize,
        for_ms: u64,
    },
    KillContainer {
        node: usize,
        nth: usize,
    },
    /// Nothing gets out of or into this node until the end, and then all of it does.
    Clog {
        node: usize,
        for_ms: u64,
    },
    /// Several nodes are clogged, one after the other, and let go in another order.
    Swizzle {
        clogs: Vec<Clogging>,
    },
    /// Every link carries so many bytes a second; what finds a long queue is lost, or waits if it must arrive.
    Narrow {
        bytes_per_s: u64,
        for_ms: u64,
    },
    /// Each node hears its neighbours in this ring, a majority with itself, and no two hear the same.
    Ring {
        order: Vec<usize>,
        for_ms: u64,
    },
    /// What was delivered comes again, up to some seconds later.
    Redeliver {
        permille: u32,
        for_ms: u64,
    },
    /// The whole machine stands still, its containers too; its clock runs on (CLOCK_BOOTTIME).
    Suspend {
        node: usize,
        for_ms: u64,
    },
    /// The machine is lost with its disk; another one in its place joins under an id of its own.
    Wipe {
        node: usize,
        down_ms: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clogging {
    pub node: usize,
    /// Both after the fault's beginning.
    pub from_ms: u64,
    pub until_ms: u64,
}

impl Fault {
    /// Keeps nodes from hearing each other, or from answering in time: who can't write a new life down, can't speak either.
    pub fn is_deafening(&self) -> bool {
        use Fault::*;
        matches!(
            self,
            Cut { .. }
                | CutHolder { .. }
                | CutHolderBounceRest { .. }
                | Loss { .. }
                | Latency { .. }
                | Pause { .. }
                | PauseHolder { .. }
                | Slow { .. }
                | DiskFull { .. }
                | DiskSlow { .. }
                | Clog { .. }
                | Swizzle { .. }
                | Narrow { .. }
                | Ring { .. }
                | Suspend { .. }
        )
    }

    /// The nodes that it names; none for what concerns all, or whoever holds the lease.
    pub fn nodes(&self) -> Vec<usize> {
        use Fault::*;
        match self {
            Cut { from, to, .. } => from.iter().chain(to).copied().collect(),
            Swizzle { clogs } => clogs.iter().map(|c| c.node).collect(),
            Bounce { node, .. } | Restart { node, .. } | Pause { node, .. } | Slow { node, .. } => vec![*node],
            WallJump { node, .. } | DiskSlow { node, .. } | DiskFull { node, .. } | Rewind { node, .. } => vec![*node],
            EngineDown { node, .. } | EngineRestart { node, .. } | EngineHang { node, .. } => vec![*node],
            PullsFail { node, .. } | StartsFail { node, .. } | RepliesLost { node, .. } => vec![*node],
            HintsLost { node, .. } | KillContainer { node, .. } | Clog { node, .. } => vec![*node],
            Suspend { node, .. } | Wipe { node, .. } | WallLeap { node, .. } => vec![*node],
            BounceHolder { .. } | CutHolder { .. } | CutHolderBounceRest { .. } | PauseHolder { .. } => Vec::new(),
            Loss { .. } | Latency { .. } | Narrow { .. } | Ring { .. } | Redeliver { .. } => Vec::new(),
        }
    }

    pub fn lasts_ms(&self) -> u64 {
        use Fault::*;
        match self {
            Bounce { down_ms, .. } | BounceHolder { down_ms } | Restart { down_ms, .. } | Rewind { down_ms, .. } => {
                *down_ms
            }
            CutHolderBounceRest { for_ms, .. }
            | Cut { for_ms, .. }
            | CutHolder { for_ms, .. }
            | Loss { for_ms, .. }
            | Latency { for_ms, .. } => *for_ms,
            Pause { for_ms, .. } | PauseHolder { for_ms } | Slow { for_ms, .. } | DiskSlow { for_ms, .. } => *for_ms,
            DiskFull { for_ms, .. } | EngineDown { for_ms, .. } | EngineRestart { for_ms, .. } => *for_ms,
            EngineHang { for_ms, .. } | PullsFail { for_ms, .. } | StartsFail { for_ms, .. } => *for_ms,
            RepliesLost { for_ms, .. } | HintsLost { for_ms, .. } => *for_ms,
            WallJump { .. } | KillContainer { .. } => 0,
            WallLeap { for_ms, .. } => *for_ms,
            Clog { for_ms, .. } | Narrow { for_ms, .. } | Ring { for_ms, .. } => *for_ms,
            Redeliver { for_ms, .. } | Suspend { for_ms, .. } => *for_ms,
            Wipe { down_ms, .. } => *down_ms,
            Swizzle { clogs } => clogs.iter().map(|c| c.until_ms).max().unwrap_or(0),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("not a plan: {0}")]
    Read(#[from] toml::de::Error),
    #[error("can't write the plan: {0}")]
    Write(#[from] toml::ser::Error),
    #[error("a plan has 1 to 5000 nodes, not {0}")]
    Nodes(usize),
}

impl Plan {
    /// All that ever take part.
    pub fn all_nodes(&self) -> usize {
        self.nodes + self.ops.iter().filter(|o| o.op == Op::Join).count()
    }

    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text)?;
        if plan.nodes == 0 || plan.nodes > 5_000 {
            return Err(PlanError::Nodes(plan.nodes));
        }
        Ok(plan)
    }

    pub fn to_toml(&self) -> Result<String, PlanError> {
        Ok(toml::to_string(self)?)
    }
}
