//! Engines: what runs containers on this machine, behind one small trait.
//!
//! [`docker`] drives a Docker Engine over its unix socket, [`demo`] pretends to be one inside this process.
//! [`runner`] turns the core's operations into calls and the answers into [`EngineEvent`](crate::model::container::EngineEvent)s,
//! [`watch`] keeps the core's picture true: the list is the truth, events only say when to ask again.
//! Nothing here knows services, slots or policies, and nothing here ever touches a container that
//! lacks one of the owner's labels.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod demo;
pub mod docker;
mod probe;
pub mod runner;
#[cfg(test)]
mod stories;
mod watch;

pub use demo::DemoEngine;
pub use docker::DockerEngine;
pub use runner::{EngineHandle, spawn};

use crate::ids::TaskId;
use crate::limits::MAX_ERROR_CHARS;
use crate::model::container::{
    EngineInfo, EngineOp, LABEL_ATTEMPT, LABEL_CLUSTER, LABEL_NODE, LABEL_TASK, ObservedContainer, OpError, Owner,
};
use crate::shell::logs::{LogAsk, LogItem};
use futures_util::stream::BoxStream;
use std::future::Future;
use std::path::Path;
use tokio::sync::mpsc;

/// Hints that something about the owner's containers may have changed. Ends, or yields an error,
/// when the engine's own stream breaks.
pub type Changes = BoxStream<'static, Result<(), OpError>>;

/// Calls may take as long as they like: whoever calls sets the bound. All are safe to abandon.
pub trait Engine: Send + Sync + 'static {
    /// Does it answer at all? Must be cheap.
    fn ping(&self) -> impl Future<Output = Result<(), OpError>> + Send;

    fn info(&self) -> impl Future<Output = Result<EngineInfo, OpError>> + Send;

    /// Every operation but `List`, which is [`Engine::list`].
    fn execute(&self, owner: Owner, op: EngineOp) -> impl Future<Output = Result<(), OpError>> + Send;

    /// What has come of every operation that ended before this call shows in the answer.
    fn list(&self, owner: Owner) -> impl Future<Output = Result<Vec<ObservedContainer>, OpError>> + Send;

    /// Covers what happens from this call on, even if the stream is first polled later.
    fn changes(&self, owner: Owner) -> Changes;
}

/// The engine that `--engine` names.
#[derive(Clone)]
pub enum AnyEngine {
    Docker(DockerEngine),
    Demo(DemoEngine),
}

impl AnyEngine {
    /// `demo`, `unix:///path/to/docker.sock` or just the path. A socket that is missing now is no error: it may come.
    pub fn parse(text: &str, hostname: &str) -> Result<Self, String> {
        if text == "demo" {
            return Ok(Self::Demo(DemoEngine::new().on_host(hostname)));
        }
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if !Path::new(path).is_absolute() {
            return Err(format!("invalid engine {text:?}: want unix:///path/to/docker.sock or demo"));
        }
        Ok(Self::Docker(DockerEngine::new(path)))
    }
}

impl AnyEngine {
    /// Sends what the container has said and, if asked to follow, will say; returns when that is all.
    pub async fn container_logs(
        &self,
        owner: Owner,
        container: &ObservedContainer,
        ask: &LogAsk,
        out: &mpsc::Sender<LogItem>,
    ) -> Result<(), OpError> {
        match self {
            Self::Docker(engine) => engine.container_logs(container, ask, out).await,
            Self::Demo(engine) => engine.container_logs(owner, container, ask, out).await,
        }
    }
}

impl Engine for AnyEngine {
    async fn ping(&self) -> Result<(), OpError> {
        match self {
            Self::Docker(engine) => engine.ping().await,
            Self::Demo(engine) => engine.ping().await,
        }
    }

    async fn info(&self) -> Result<EngineInfo, OpError> {
        match self {
            Self::Docker(engine) => engine.info().await,
            Self::Demo(engine) => engine.info().await,
        }
    }

    async fn execute(&self, owner: Owner, op: EngineOp) -> Result<(), OpError> {
        match self {
            Self::Docker(engine) => engine.execute(owner, op).await,
            Self::Demo(engine) => engine.execute(owner, op).await,
        }
    }

    async fn list(&self, owner: Owner) -> Result<Vec<ObservedContainer>, OpError> {
        match self {
            Self::Docker(engine) => engine.list(owner).await,
            Self::Demo(engine) => engine.list(owner).await,
        }
    }

    fn changes(&self, owner: Owner) -> Changes {
        match self {
            Self::Docker(engine) => engine.changes(owner),
            Self::Demo(engine) => engine.changes(owner),
        }
    }
}

/// The task and attempt of a container with these labels, if it is the owner's.
fn ours<'a>(owner: Owner, label: impl Fn(&str) -> Option<&'a str>) -> Option<(TaskId, u32)> {
    let is = |key: &str, want: &str| label(key) == Some(want);
    if !is(LABEL_CLUSTER, &owner.cluster.to_string()) || !is(LABEL_NODE, &owner.node.to_string()) {
        return None;
    }
    Some((label(LABEL_TASK)?.parse().ok()?, label(LABEL_ATTEMPT)?.parse().ok()?))
}

/// The engine's words, short enough to keep.
fn refused(words: impl AsRef<str>) -> OpError {
    OpError::Refused(clip(words.as_ref()))
}

fn clip(words: &str) -> String {
    words.trim().chars().take(MAX_ERROR_CHARS).collect()
}

fn not_ours(name: &str) -> OpError {
    refused(format!("container {name:?} does not belong to this node: it lacks its labels"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, NodeId};
    use std::collections::BTreeMap;

    #[test]
    fn engine_names_are_parsed() {
        assert!(matches!(AnyEngine::parse("demo", "a"), Ok(AnyEngine::Demo(_))));
        assert!(matches!(AnyEngine::parse("unix:///run/docker.sock", "a"), Ok(AnyEngine::Docker(_))));
        assert!(matches!(AnyEngine::parse("/run/docker.sock", "a"), Ok(AnyEngine::Docker(_))));
        assert!(AnyEngine::parse("tcp://1.2.3.4:2375", "a").is_err());
        assert!(AnyEngine::parse("", "a").is_err());
    }

    #[test]
    fn a_container_is_ours_only_with_every_label() {
        let owner = Owner { cluster: ClusterId::from_u128(1), node: NodeId::from_u128(2) };
        let all: BTreeMap<&str, String> = BTreeMap::from([
            (LABEL_CLUSTER, owner.cluster.to_string()),
            (LABEL_NODE, owner.node.to_string()),
            (LABEL_TASK, TaskId::from_u128(3).to_string()),
            (LABEL_ATTEMPT, "4".to_owned()),
        ]);
        assert_eq!(ours(owner, |k| all.get(k).map(String::as_str)), Some((TaskId::from_u128(3), 4)));
        for missing in all.keys() {
            let rest = |k: &str| all.get(k).filter(|_| k != *missing).map(String::as_str);
            assert_eq!(ours(owner, rest), None, "without {missing}");
        }
        let other = Owner { node: NodeId::from_u128(9), ..owner };
        assert_eq!(ours(other, |k| all.get(k).map(String::as_str)), None);
    }
}
