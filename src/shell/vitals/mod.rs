//! What a node knows of itself and tells only who asks: how much of its machine is in use, and whom it hears. The pages of
//! other nodes ask while somebody looks, over a QUIC stream ([`remote`]). None of it is a record: it changes all the time
//! and matters for a moment.
//!
//! The law: an answer is bounded, a node that can't be asked in time costs its own numbers and nothing else, and what a
//! machine doesn't tell is absent, not zero.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod machine;
mod remote;

pub use remote::KIND;

use crate::core::view::Sighting;
use crate::ids::NodeId;
use crate::shell::handle::AgentHandle;
use crate::shell::net::Net;
use machine::Machine;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Another node that takes longer counts as one that doesn't answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Askers from other nodes at once.
const MAX_SERVED: usize = 128;
/// Of whom one answer tells.
const MAX_HEARD: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    Usage,
    Network,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    Usage(Usage),
    Network(Vec<Heard>),
}

/// Of the whole machine, whatever uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// In thousandths of a processor, over the last seconds.
    pub cpu: Option<Used>,
    /// In bytes: what is not available to a new process.
    pub memory: Option<Used>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    pub used: u64,
    pub of: u64,
}

/// Another node, as the one that was asked has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    pub node: NodeId,
    /// How long ago it spoke to it; `None`: never in this life.
    pub heard: Option<Duration>,
    /// It was asked for a sign of life and has given none since.
    pub silent: bool,
    /// It is down unless it is heard within this.
    pub verdict: Option<Duration>,
    /// Of the connection between the two, where there is one.
    pub round_trip: Option<Duration>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Vitals {
    node: NodeId,
    agent: AgentHandle,
    net: Net,
    machine: Arc<Machine>,
    served: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Vitals {
    pub fn new(node: NodeId, agent: AgentHandle, net: Net, stop: CancellationToken) -> Self {
        Self { node, agent, net, machine: Arc::default(), served: Arc::new(Semaphore::new(MAX_SERVED)), stop }
    }

    pub async fn usage(&self, node: NodeId, addr: SocketAddr) -> io::Result<Usage> {
        match self.ask(node, addr, Ask::Usage).await? {
            Said::Usage(usage) => Ok(usage),
            Said::Network(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    pub async fn network(&self, node: NodeId, addr: SocketAddr) -> io::Result<Vec<Heard>> {
        match self.ask(node, addr, Ask::Network).await? {
            Said::Network(heard) => Ok(heard),
            Said::Usage(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    async fn ask(&self, node: NodeId, addr: SocketAddr, ask: Ask) -> io::Result<Said> {
        if node == self.node {
            return self.here(ask).await;
        }
        let answer = timeout(ANSWER_WITHIN, remote::ask(&self.net, node, addr, ask));
        answer.await.map_err(|_| io::Error::other(format!("no answer within {} s", ANSWER_WITHIN.as_secs())))?
    }

    /// Another node asks; the stream's first byte, [`KIND`], has been read.
    pub async fn serve(&self, send: quinn::SendStream, recv: quinn::RecvStream) {
        let Ok(_place) = self.served.try_acquire() else { return };
        self.stop.run_until_cancelled(remote::serve(self, send, recv)).await;
    }

    async fn here(&self, ask: Ask) -> io::Result<Said> {
        match ask {
            Ask::Usage => Ok(Said::Usage(self.machine.usage())),
            Ask::Network => Ok(Said::Network(self.hears().await?)),
        }
    }

    /// Whom this node hears.
    pub async fn hears(&self) -> io::Result<Vec<Heard>> {
        let seen = self.agent.query(|core| core.neighbours()).await.map_err(io::Error::other)?;
        Ok(seen.iter().take(MAX_HEARD).map(|seen| self.heard(seen)).collect())
    }

    fn heard(&self, seen: &Sighting) -> Heard {
        Heard {
            node: seen.node,
            heard: seen.heard,
            silent: seen.mute,
            verdict: seen.verdict,
            round_trip: self.net.rtt(seen.node),
        }
    }
}
