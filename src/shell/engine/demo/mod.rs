//! An engine inside this process: no Docker, no root. For `peer demo`, for tests, and for trying peer out.
//!
//! It has five images: `demo/greeter:1` and `:2` (a small HTTP server that finishes its requests on SIGTERM), `:bad` (exits
//! with 1 soon after its start), `:sick` (serves, but its health check never passes) and `demo/job:1` (greets into its log and
//! exits with 0 soon after its start). A container listens on the port
//! in its environment's `PORT`, or its first host-mode port's target, or 5000; `GREETING` replaces its "Hello".
//!
//! Each container has a loopback address of its own (127.77.x.y): Linux answers on all of 127/8. Elsewhere there is only
//! 127.0.0.1, so the first container gets the port and the next one is refused and says why.
//! Each node has two of the generic resource `demo-slot`.
//! The containers live in the world, not in the agent: agents that share clones of one engine come and go.

pub(in crate::shell) mod greeter;
mod log;
mod world;

use super::probe::{Seen, probe};
use super::{Changes, Engine, refused};
use crate::ids::TaskId;
use crate::model::container::{ContainerState, EngineInfo, EngineOp, ObservedContainer, OpError, Owner};
use crate::model::generic;
use crate::shell::logs::{LogAsk, LogItem};
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use world::{Reach, World};

// About what a local Docker Engine takes, a little less.
const PULL_TAKES: Duration = Duration::from_millis(60);
const CREATE_TAKES: Duration = Duration::from_millis(20);
const START_TAKES: Duration = Duration::from_millis(30);
const STOP_TAKES: Duration = Duration::from_millis(10);
const REMOVE_TAKES: Duration = Duration::from_millis(10);

/// Clones share one world of containers.
#[derive(Clone)]
pub struct DemoEngine {
    world: Arc<World>,
    /// Which machine this pretends to be; the greeters say it.
    host: String,
}

impl Default for DemoEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl DemoEngine {
    pub fn new() -> Self {
        Self { world: Arc::new(World::new()), host: "localhost".to_owned() }
    }

    /// The same world, seen from a machine of this name.
    pub fn on_host(&self, host: &str) -> Self {
        Self { world: self.world.clone(), host: host.to_owned() }
    }

    /// Crashes the task's running containers from outside, as `kill -9` would. False if there is none.
    pub fn kill(&self, task: TaskId) -> bool {
        self.world.kill(task)
    }

    /// What an agent has here.
    pub fn containers(&self, owner: Owner) -> Vec<ObservedContainer> {
        self.world.list(owner)
    }

    /// What a secret or config holds in the task's container, as its greeter would read it.
    pub fn file(&self, task: TaskId, target: &str) -> Option<Vec<u8>> {
        self.world.file(task, target)
    }

    pub async fn container_logs(
        &self,
        owner: Owner,
        container: &ObservedContainer,
        ask: &LogAsk,
        out: &mpsc::Sender<LogItem>,
    ) -> Result<(), OpError> {
        self.world.reached().await?;
        // Removed meanwhile: so be it.
        if let Some(log) = self.world.log(owner, &container.name)? {
            log.read(ask, out).await;
        }
        Ok(())
    }

    /// Makes the engine unreachable, or reachable again; its containers run on.
    pub fn set_down(&self, down: bool) {
        self.world.set_reach(if down { Reach::Down } else { Reach::Up });
    }

    /// Makes the engine take calls and never answer them, or answer again.
    pub fn set_hung(&self, hung: bool) {
        self.world.set_reach(if hung { Reach::Hung } else { Reach::Up });
    }

    async fn probe(&self, owner: Owner, name: &str, port: u16, within: Duration) -> Result<(), OpError> {
        probe(port, within, || async move {
            self.world.reached().await?;
            let Some(container) = self.world.find(owner, name)? else {
                return Ok(Seen::Never(format!("No such container: {name}")));
            };
            Ok(match (container.state, container.address) {
                (ContainerState::Exited { code, .. }, _) => Seen::Never(format!("the container exited with {code}")),
                (ContainerState::Running { .. }, Some(ip)) => Seen::At(ip),
                _ => Seen::NotYet,
            })
        })
        .await
    }
}

impl Engine for DemoEngine {
    async fn ping(&self) -> Result<(), OpError> {
        self.world.reached().await
    }

    async fn info(&self) -> Result<EngineInfo, OpError> {
        self.world.reached().await?;
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        Ok(EngineInfo {
            version: format!("demo-{}", env!("CARGO_PKG_VERSION")),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            nano_cpus: cpus.saturating_mul(1_000_000_000),
            memory_bytes: 8 << 30,
            labels: BTreeMap::from([(generic::LABEL.to_owned(), "demo-slot=2".to_owned())]),
        })
    }

    async fn execute(&self, owner: Owner, op: EngineOp) -> Result<(), OpError> {
        self.world.reached().await?;
        match op {
            EngineOp::Pull { image, .. } => {
                sleep(PULL_TAKES).await;
                Image::find(&image).map(drop).map_err(refused)
            }
            EngineOp::Create(plan) => {
                sleep(CREATE_TAKES).await;
                self.world.create(owner, &plan, &self.host)
            }
            EngineOp::Start { name } => {
                sleep(START_TAKES).await;
                World::start(&self.world, owner, &name).await
            }
            EngineOp::Stop { name, signal, grace } => {
                sleep(STOP_TAKES).await;
                self.world.stop(owner, &name, signal.as_deref(), grace).await
            }
            EngineOp::Remove { name } => {
                sleep(REMOVE_TAKES).await;
                self.world.remove(owner, &name).await
            }
            EngineOp::Probe { name, port, within } => self.probe(owner, &name, port, within).await,
            EngineOp::List => Ok(()),
        }?;
        // What was done stays done, but nobody hears of it from an engine that has gone meanwhile.
        self.world.reached().await
    }

    async fn list(&self, owner: Owner) -> Result<Vec<ObservedContainer>, OpError> {
        self.world.reached().await?;
        Ok(self.world.list(owner))
    }

    fn changes(&self, _: Owner) -> Changes {
        let watched = self.world.subscribe();
        stream::unfold(watched, |mut watched| async {
            let down = watched.borrow().reach == Reach::Down;
            if down {
                return Some((Err(gone()), watched));
            }
            // Fails only when the world has gone, and then so has everything that could change.
            watched.changed().await.ok()?;
            Some((Ok(()), watched))
        })
        .boxed()
    }
}

fn gone() -> OpError {
    OpError::Unreachable("the demo engine was taken down".to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    Greeter(u8),
    Bad,
    Sick,
    Job,
}

impl Image {
    fn find(reference: &str) -> Result<Self, String> {
        const HAS: &str = "(the demo engine has only demo/greeter:1, :2, :bad, :sick and demo/job:1)";
        let name = reference.split('@').next().unwrap_or_default();
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
        match name {
            "demo/greeter:1" => Ok(Self::Greeter(1)),
            "demo/greeter:2" => Ok(Self::Greeter(2)),
            "demo/greeter:bad" => Ok(Self::Bad),
            "demo/greeter:sick" => Ok(Self::Sick),
            "demo/job:1" => Ok(Self::Job),
            _ if repository == "demo/greeter" => Err(format!("manifest for {name} not found: manifest unknown {HAS}")),
            _ => Err(format!(
                "pull access denied for {repository}, repository does not exist or may require 'docker login' {HAS}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_or_refused_in_dockers_words() {
        assert_eq!(Image::find("demo/greeter:2"), Ok(Image::Greeter(2)));
        assert_eq!(Image::find("docker.io/demo/greeter:1@sha256:ab"), Ok(Image::Greeter(1)));
        assert!(Image::find("nginx:1").unwrap_err().starts_with("pull access denied for nginx, repository"));
        assert!(Image::find("demo/greeter").unwrap_err().contains("manifest unknown"));
    }
}
