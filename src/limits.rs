//! Every bound in one place. Whatever comes from the network, a file or a person is held against these
//! before it is trusted; the error that a bound causes names it.

use std::collections::VecDeque;
use std::time::Duration;

/// One message between nodes, encoded. Bigger states travel as several deltas.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// One membership packet. A fresh QUIC connection carries about 1,160 bytes in a datagram.
pub const MAX_GOSSIP_PACKET_BYTES: usize = 1_100;
/// One record's key and value, encoded.
pub const MAX_RECORD_BYTES: usize = 1_200_000;
/// Record bytes put into one delta before it is closed and the next one asked for.
pub const MAX_DELTA_BYTES: usize = 512 * 1024;
/// Records put into one delta.
pub const MAX_DELTA_RECORDS: usize = 2_000;
/// Of one answer: more than the records of 1,000 nodes and 50,000 tasks take ten times over. They are kept until the last is here.
pub const MAX_ANSWER_PAGES: usize = 1_024;
/// One service spec as JSON text.
pub const MAX_SPEC_BYTES: usize = 1024 * 1024;
/// One secret, and one config; Docker's bounds.
pub const MAX_SECRET_BYTES: usize = 500 * 1024;
pub const MAX_CONFIG_BYTES: usize = 1000 * 1024;
/// Members one node will keep track of.
pub const MAX_MEMBERS: usize = 4_096;
/// Up to this many live nodes a new record is pushed to all of them at once.
pub const PUSH_TO_ALL_NODES: usize = 32;
/// Replicas of one service.
pub const MAX_REPLICAS: u64 = 50_000;
/// Body of one API request.
pub const MAX_API_BODY_BYTES: usize = 2 * 1024 * 1024;
/// Text of one error kept in a task's status.
pub const MAX_ERROR_CHARS: usize = 1_024;
/// Past attempts kept in a task's status, so that `ps` can show them.
pub const MAX_PAST_ATTEMPTS: usize = 4;
/// Revisions kept per service.
pub const MAX_REVISIONS: usize = 20;
/// Finished tasks kept per slot for `ps` (Swarm's task history limit counts the live one in and is 5).
pub const TASK_HISTORY: usize = 4;
/// Messages held back for a disk write that has not finished. Beyond it the oldest go: all are retried.
pub const MAX_GATED_EFFECTS: usize = 50_000;

/// Room that a drained queue keeps. What a burst needed (a join of thousands) isn't kept for ever.
const QUEUE_KEPT: usize = 64;

/// To be called where a queue is drained: an empty one gives back what it no longer needs.
pub fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() {
        queue.shrink_to(QUEUE_KEPT);
    }
}

/// How far ahead of ours a remote clock may stamp a record before the record is refused.
pub const MAX_CLOCK_DRIFT: Duration = Duration::from_secs(60 * 60 * 24);
/// A command waits this long for a majority of the electorate before it answers "pending".
pub const WRITE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A worker waits this long for every live node to withdraw a task before it stops it anyway.
pub const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(3);
/// Open connections of a withdrawn task get at most this long to end before SIGTERM, where the service sets no stop grace.
pub const DRAIN_GRACE: Duration = Duration::from_secs(10);
/// A task that was told to start must be running within this, or has failed (image pull not counted).
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Pulling an image may take this long.
pub const PULL_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A node that stopped gracefully keeps its tasks for this long before they run elsewhere.
pub const RESTART_GRACE: Duration = Duration::from_secs(30);
/// Of these ports a node gives one to each published target of its replicas, for the kernels of other nodes to send to:
/// above what Linux gives to outgoing connections, and beside what a service gets that names no port.
pub const DELIVERY_PORTS: std::ops::RangeInclusive<u16> = 61_000..=64_999;
/// Logs of which no record is left, remembered so that what was collected isn't taken again.
pub const ENDED_LOGS: usize = 2_048;
/// A tombstone older than this, seen by every member, may go.
pub const TOMBSTONE_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

const _: () = assert!(MAX_RECORD_BYTES > MAX_SPEC_BYTES);
const _: () = assert!(MAX_RECORD_BYTES > MAX_CONFIG_BYTES + 64 * 1024 && MAX_CONFIG_BYTES >= MAX_SECRET_BYTES);
const _: () = assert!(MAX_API_BODY_BYTES > MAX_CONFIG_BYTES / 3 * 4 + 64 * 1024);
const _: () = assert!(MAX_MESSAGE_BYTES > MAX_RECORD_BYTES + MAX_DELTA_BYTES);
const _: () = assert!(MAX_API_BODY_BYTES > MAX_SPEC_BYTES);
