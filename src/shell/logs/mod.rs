//! What containers said, of any task on any node, as one stream in the order of time. [`node`] reads this machine's
//! engine, [`remote`] asks another node over a QUIC stream, [`merge`] puts streams together. A node that can't be
//! asked costs its own lines and one line that says so, nothing else.
//!
//! Who may see what is no question here: whoever reaches the API, and every member, may read every task's log.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod merge;
mod node;
mod remote;

pub use merge::merge;
pub use remote::KIND;

use crate::ids::{NodeId, TaskId};
use crate::model::container::Owner;
use crate::shell::engine::AnyEngine;
use crate::shell::net::Net;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Lines on their way; beyond it the engine waits for the reader.
const WAITING_LINES: usize = 64;
/// Of one line; the rest of a longer one is left out.
const MAX_LINE_BYTES: usize = 256 * 1024;
/// Readers from other nodes at once.
const MAX_SERVED: usize = 128;
/// Tasks asked for at once.
const MAX_TASKS: usize = 50_000;

/// Which lines of which tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAsk {
    pub tasks: Vec<TaskId>,
    /// Go on with what is said from now on, by later attempts too.
    pub follow: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Nanoseconds since 1970; lines from then on.
    pub since_ns: u64,
    /// Lines before then; 0: no bound.
    pub until_ns: u64,
    /// The last so many of each container.
    pub tail: Option<u64>,
}

impl LogAsk {
    pub fn takes(&self, line: &LogLine) -> bool {
        line.at_ns >= self.since_ns && (self.until_ns == 0 || line.at_ns < self.until_ns)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub task: TaskId,
    pub stderr: bool,
    pub at_ns: u64,
    /// With its newline, if it had one.
    pub text: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogItem {
    Line(LogLine),
    /// Lines of this task, and of what was asked for with it, are missing.
    Trouble {
        task: TaskId,
        why: String,
    },
}

pub type LogStream = mpsc::Receiver<LogItem>;

/// Where the API gets logs from.
pub trait LogSource: Send + Sync + 'static {
    /// Lines in the order of time; ends when there is no more to come. Dropping it ends the reading.
    fn open(&self, node: NodeId, addr: SocketAddr, ask: LogAsk) -> LogStream;
}

#[derive(Clone)]
pub struct Logs {
    engine: AnyEngine,
    owner: Owner,
    net: Net,
    served: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Logs {
    pub fn new(engine: AnyEngine, owner: Owner, net: Net, stop: CancellationToken) -> Self {
        Self { engine, owner, net, served: Arc::new(Semaphore::new(MAX_SERVED)), stop }
    }

    /// Another node asks; the stream's first byte, [`KIND`], has been read.
    pub async fn serve(&self, send: quinn::SendStream, recv: quinn::RecvStream) {
        let Ok(_place) = self.served.try_acquire() else { return };
        tokio::select! {
            () = remote::serve(self, send, recv) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn here(&self, ask: LogAsk) -> LogStream {
        node::open(self.engine.clone(), self.owner, ask)
    }
}

impl LogSource for Logs {
    fn open(&self, node: NodeId, addr: SocketAddr, ask: LogAsk) -> LogStream {
        if node == self.owner.node {
            return self.here(ask);
        }
        let (out, stream) = mpsc::channel(WAITING_LINES);
        let (net, stop) = (self.net.clone(), self.stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            remote::ask(&net, node, addr, ask, out).await;
        }));
        stream
    }
}
