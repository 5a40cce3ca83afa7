//! What is compared: the rows of the table, in its order, each with what issue 7 wants of peer. All are better small.

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    pub name: &'static str,
    pub unit: &'static str,
    /// For peer's median.
    pub aim: Option<f64>,
}

/// What one measurement found of a row; `None`: it was not so within the limit.
pub type Figure = (Row, Option<f64>);

const fn seconds(name: &'static str, aim: Option<f64>) -> Row {
    Row { name, unit: "s", aim }
}

pub const FORMED: Row = seconds("5 nodes formed, one join after another", Some(1.5));
pub const SETTLED: Row =
    seconds("- until the leader's loss can be survived (three managers in place; peer: five voters)", None);
pub const CREATE_1: Row = seconds("create 1 replica, until it runs", Some(0.6));
pub const CREATE_5: Row = seconds("create 5, until all run", Some(1.2));
pub const CREATE_50: Row = seconds("create 50, until all run", Some(11.0));
pub const CONTAINER_CPU: Row =
    Row { name: "create 50: processor time of all nodes, per container", unit: "CPU s", aim: None };
pub const SCALE_20: Row = seconds("scale 5 -> 20", None);
pub const SCALE_50: Row = seconds("scale 20 -> 50", None);
pub const SCALE_DOWN: Row = seconds("scale 50 -> 5, containers gone", None);
pub const REMOVE: Row = seconds("remove a service of 50, containers gone", None);

pub const ROLLING_5: Row = seconds("rolling update of 5, one by one, monitor 100 ms: completed", Some(3.0));
pub const ROLLING_5_AT_ONCE: Row = seconds("- parallelism 5", None);
pub const ROLLING_5_DEFAULT: Row = seconds("- one by one, monitor by default (5 s)", None);
pub const ROLLING_10: Row = seconds("rolling update of 10, one by one, monitor 100 ms: completed", Some(6.0));
pub const ROLLING_10_BY_5: Row = seconds("- of 10, parallelism 5", None);
pub const START_FIRST: Row = seconds("rolling update of 5, start-first, one by one: all replaced", Some(3.0));
pub const ROLLBACK: Row = seconds("rollback of 5, one by one, monitor 100 ms: completed", None);
pub const CLI_CREATE_DEFAULT: Row = seconds("`docker service create` of 5, the command itself", None);
pub const CLI_CREATE: Row = seconds("- with `--update-monitor 100ms`", None);
pub const CLI_CREATE_OWN: Row =
    seconds("- each side's own command (`docker`, `peer`) with `--update-monitor 0s`", Some(1.5));
pub const CLI_UPDATE: Row =
    seconds("`docker service update` of 5, one by one, monitor 100 ms, the command itself", None);
pub const DRAIN: Row = seconds("drain of a node with 8 of 40 tasks: they run elsewhere, the node is empty", Some(3.0));
/// The policy is one at a time.
pub const DRAIN_MISSING: Row = Row { name: "- replicas missing meanwhile, at worst", unit: "of 40", aim: Some(1.0) };
pub const WORKER_POWER: Row = seconds("worker's power cut: its 2 of 10 tasks run elsewhere", Some(4.0));
pub const WORKER_ENGINE: Row = seconds("worker's engine killed, link up: its tasks run elsewhere", Some(3.0));
pub const WORKER_CRASH: Row =
    seconds("worker's engine and (peer) agent killed, link up: its tasks run elsewhere", None);
pub const LEADER_UPDATE: Row =
    seconds("power cut of the leader (peer: lease holder): a change is taken elsewhere", Some(0.1));
pub const LEADER_SCHEDULE: Row = seconds("- and is carried out", None);
pub const LEADER_TASKS: Row = seconds("- its 2 of 10 tasks run elsewhere", Some(5.0));
pub const PARTITION_UPDATE: Row =
    seconds("leader and a worker cut off from three: a change is taken by the majority", Some(0.1));
pub const PARTITION_TASKS: Row = seconds("- their 4 of 10 tasks run in the majority", Some(5.0));
pub const PARTITION_READY: Row = seconds("- healed: all nodes ready", Some(5.0));
pub const PARTITION_SURPLUS: Row = seconds("- healed: surplus containers gone", None);
pub const TWO_LOST_UPDATE: Row =
    seconds("two of three managers lost: a change is taken by the third (45 s of tries)", Some(0.1));
pub const TWO_LOST_RETURN: Row = seconds("- one gets its power back: the change is carried out", None);

pub const FAILED_UPDATE: Row = Row {
    name: "failed requests in a rolling update of 5, 100/s to each node (Swarm: host-mode port, peer: mesh)",
    unit: "failed",
    aim: Some(0.0),
};
pub const LOADED_UPDATE: Row = seconds("- until that update is completed, under that load", None);
pub const FAILED_UPDATE_HOST: Row = Row { name: "- host-mode port on both", unit: "failed", aim: None };
pub const FAILED_DRAIN: Row = Row {
    name: "failed requests in 10 s from a drain on, 100/s to each node (Swarm: host-mode port, peer: mesh)",
    unit: "failed",
    aim: Some(0.0),
};
pub const IDLE_MEMORY_LEADER: Row =
    Row { name: "idle: memory that it adds to the leader", unit: "MB RSS", aim: Some(25.0) };
pub const IDLE_MEMORY_WORKER: Row = Row { name: "- memory, to a worker", unit: "MB RSS", aim: Some(25.0) };
pub const IDLE_CPU_LEADER: Row =
    Row { name: "idle: processor time that it adds to the leader", unit: "CPU s/min", aim: Some(0.15) };
pub const IDLE_CPU_WORKER: Row = Row { name: "- processor time, to a worker", unit: "CPU s/min", aim: Some(0.15) };
pub const IDLE_BYTES_LEADER: Row =
    Row { name: "idle: bytes over the leader's cable, both ways", unit: "kB/min", aim: Some(60.0) };
pub const IDLE_BYTES_WORKER: Row = Row { name: "- over a worker's cable", unit: "kB/min", aim: Some(60.0) };

pub const ALL: &[Row] = &[
    FORMED,
    SETTLED,
    CREATE_1,
    CREATE_5,
    CREATE_50,
    CONTAINER_CPU,
    SCALE_20,
    SCALE_50,
    SCALE_DOWN,
    REMOVE,
    ROLLING_5,
    ROLLING_5_AT_ONCE,
    ROLLING_5_DEFAULT,
    ROLLING_10,
    ROLLING_10_BY_5,
    START_FIRST,
    ROLLBACK,
    CLI_CREATE_DEFAULT,
    CLI_CREATE,
    CLI_CREATE_OWN,
    CLI_UPDATE,
    DRAIN,
    DRAIN_MISSING,
    WORKER_POWER,
    WORKER_ENGINE,
    WORKER_CRASH,
    LEADER_UPDATE,
    LEADER_SCHEDULE,
    LEADER_TASKS,
    PARTITION_UPDATE,
    PARTITION_TASKS,
    PARTITION_READY,
    PARTITION_SURPLUS,
    TWO_LOST_UPDATE,
    TWO_LOST_RETURN,
    FAILED_UPDATE,
    LOADED_UPDATE,
    FAILED_UPDATE_HOST,
    FAILED_DRAIN,
    IDLE_MEMORY_LEADER,
    IDLE_MEMORY_WORKER,
    IDLE_CPU_LEADER,
    IDLE_CPU_WORKER,
    IDLE_BYTES_LEADER,
    IDLE_BYTES_WORKER,
];
