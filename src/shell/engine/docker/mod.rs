//! The Docker Engine of this machine, over its unix socket.
//!
//! Every call opens its own connection, so an engine that restarts costs the calls of that moment and no more.
//! bollard speaks without a version in the path, so each engine answers in its own newest format: what is read here
//! is held to fields that 20.10 and later have. Lists are the truth and events are hints.
//! Containers are addressed by name, looked at, and then changed by id: never one without our labels.

mod create;
mod files;
mod logs;
mod networks;
mod observe;
mod pull;

use super::probe::{Seen, probe};
use super::{Changes, Engine, clip, not_ours, ours, refused};
use crate::model::container::{ContainerPlan, EngineInfo, EngineOp, ObservedContainer, OpError, Owner};
use crate::model::generic::{self, Generic};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, GenericResourcesInner, GenericResourcesInnerDiscreteResourceSpec,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder, WaitContainerOptions,
};
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Until the response's headers, for calls that nobody bounds more tightly. The runner bounds all of them.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// Added to a container's grace for the engine's own part of stopping it.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// Between looks at a container that is on its way out.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One per agent (agents may share an engine, not this): it remembers the owner's containers. Cheap to clone.
#[derive(Clone)]
pub struct DockerEngine {
    inner: Arc<Inner>,
}

struct Inner {
    socket: PathBuf,
    client: OnceLock<Docker>,
    seen: observe::SeenContainers,
    pulls: pull::Pulls,
    files: files::Files,
    networks: networks::Lock,
}

impl DockerEngine {
    pub fn new(socket: impl AsRef<Path>) -> Self {
        let inner = Inner {
            socket: socket.as_ref().to_owned(),
            client: OnceLock::new(),
            seen: observe::SeenContainers::default(),
            pulls: pull::Pulls::default(),
            files: files::Files::default(),
            networks: networks::Lock::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A client that waits this long for the headers of an answer.
    fn client(&self, limit: Duration) -> Result<Docker, OpError> {
        let client = match self.inner.client.get() {
            Some(client) => client.clone(),
            // Fails while the socket's file is missing; once made it survives the engine.
            None => {
                let path = self.inner.socket.to_string_lossy();
                let made = Docker::connect_with_unix(&path, CALL_LIMIT.as_secs(), bollard::API_DEFAULT_VERSION)
                    .map_err(|error| failed(&error))?;
                self.inner.client.get_or_init(|| made).clone()
            }
        };
        Ok(client.with_timeout(limit))
    }

    async fn inspect(&self, name_or_id: &str) -> Result<Option<ContainerInspectResponse>, OpError> {
        let client = self.client(CALL_LIMIT)?;
        match client.inspect_container(name_or_id, None::<InspectContainerOptions>).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// The container of this name if there is one; an error if it isn't the owner's.
    async fn find(&self, owner: Owner, name: &str) -> Result<Option<Found>, OpError> {
        let Some(inspect) = self.inspect(name).await? else { return Ok(None) };
        let labels = inspect.config.as_ref().and_then(|c| c.labels.as_ref());
        let (task, attempt) = ours(owner, |key| labels?.get(key).map(String::as_str)).ok_or_else(|| not_ours(name))?;
        let id = inspect.id.clone().ok_or_else(|| refused(format!("the engine gave container {name:?} no id")))?;
        Ok(Some(Found { id, task, attempt, inspect }))
    }

    async fn create(&self, owner: Owner, plan: &ContainerPlan) -> Result<(), OpError> {
        // From the look at a network to the container on it, nobody may find the network of no use.
        let _ordered = if plan.networks.is_empty() { None } else { Some(self.inner.networks.lock().await) };
        self.ensure_networks(owner, plan).await?;
        let files = self.inner.files.put(owner, plan)?;
        let created = self.create_as(owner, plan, create::body(owner, plan, files)?).await;
        if created.is_err() {
            self.inner.files.remove(owner, &plan.name);
        }
        created?;
        self.join_networks(plan).await
    }

    async fn create_as(&self, owner: Owner, plan: &ContainerPlan, body: ContainerCreateBody) -> Result<(), OpError> {
        let client = self.client(CALL_LIMIT)?;
        let options = CreateContainerOptionsBuilder::default().name(&plan.name).build();
        // The second try is for a container of this name that was just then being removed.
        for last in [false, true] {
            let error = match client.create_container(Some(options.clone()), body.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if status(&error) != Some(409) {
                return Err(failed(&error));
            }
            match self.find(owner, &plan.name).await? {
                Some(found) if found.task == plan.task && found.attempt == plan.attempt => return Ok(()),
                None if !last => sleep(LOOK_AGAIN).await,
                _ => return Err(failed(&error)),
            }
        }
        Ok(())
    }

    async fn start(&self, owner: Owner, name: &str) -> Result<(), OpError> {
        let found = self.find(owner, name).await?.ok_or_else(|| refused(format!("No such container: {name}")))?;
        let client = self.client(CALL_LIMIT)?;
        let answer = client.start_container(&found.id, None::<StartContainerOptions>).await;
        self.inner.seen.touch(&found.id);
        match answer {
            // It runs already.
            Err(error) if status(&error) == Some(304) => Ok(()),
            other => other.map_err(|error| failed(&error)),
        }
    }

    async fn stop(&self, owner: Owner, name: &str, signal: Option<&str>, grace: Duration) -> Result<(), OpError> {
        let Some(found) = self.find(owner, name).await? else { return Ok(()) };
        if !found.is_running() {
            return Ok(());
        }
        match signal.filter(|wanted| !found.stops_with(wanted)) {
            Some(signal) => self.stop_with(&found.id, signal, grace).await?,
            None => {
                let seconds = grace.as_millis().div_ceil(1000).try_into().unwrap_or(i32::MAX);
                let options = StopContainerOptionsBuilder::default().t(seconds).build();
                let client = self.client(grace + STOP_MARGIN)?;
                gone_is_fine(client.stop_container(&found.id, Some(options)).await)?;
            }
        }
        let exited = self.await_exit(&found.id).await;
        self.inner.seen.touch(&found.id);
        exited
    }

    /// With a signal that isn't the container's own, which engines before API 1.42 can't be asked for.
    async fn stop_with(&self, id: &str, signal: &str, grace: Duration) -> Result<(), OpError> {
        self.kill(id, signal).await?;
        let client = self.client(grace + STOP_MARGIN)?;
        // The stream yields an error for every exit code but 0: anything it says means that it is over.
        let mut exit = client.wait_container(id, None::<WaitContainerOptions>).boxed();
        if timeout(grace, exit.next()).await.is_err() {
            self.kill(id, "SIGKILL").await?;
        }
        Ok(())
    }

    async fn kill(&self, id: &str, signal: &str) -> Result<(), OpError> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        match self.client(CALL_LIMIT)?.kill_container(id, Some(options)).await {
            // Not running any more.
            Err(error) if status(&error) == Some(409) => Ok(()),
            other => gone_is_fine(other),
        }
    }

    /// The engine answers a stop before it has written the exit down; asking for the container waits for that.
    async fn await_exit(&self, id: &str) -> Result<(), OpError> {
        let deadline = Instant::now() + STOP_MARGIN;
        loop {
            match self.inspect(id).await? {
                Some(inspect) if observe::is_running(&inspect) => {}
                _ => return Ok(()),
            }
            if Instant::now() >= deadline {
                return Err(OpError::TimedOut("the container still runs after SIGKILL".to_owned()));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn remove(&self, owner: Owner, name: &str) -> Result<(), OpError> {
        let networks = self.remove_container(owner, name).await?;
        self.inner.files.remove(owner, name);
        self.tidy_networks(owner, networks).await;
        Ok(())
    }

    /// Says which networks it was on.
    async fn remove_container(&self, owner: Owner, name: &str) -> Result<Vec<String>, OpError> {
        let Some(found) = self.find(owner, name).await? else { return Ok(Vec::new()) };
        let settings = found.inspect.network_settings.as_ref();
        let networks = settings.and_then(|s| s.networks.as_ref()).map(|n| n.keys().cloned().collect());
        let networks = networks.unwrap_or_default();
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.client(CALL_LIMIT)?.remove_container(&found.id, Some(options)).await {
            // Somebody else's removal of it is under way.
            Err(error) if status(&error) == Some(409) => {
                while self.inspect(&found.id).await?.is_some() {
                    sleep(LOOK_AGAIN).await;
                }
            }
            other => gone_is_fine(other)?,
        }
        Ok(networks)
    }

    async fn probe(&self, owner: Owner, name: &str, port: u16, within: Duration) -> Result<(), OpError> {
        probe(port, within, || async move {
            let found = match self.find(owner, name).await? {
                Some(found) => found,
                None => return Ok(Seen::Never(format!("No such container: {name}"))),
            };
            Ok(observe::seen(&found.inspect))
        })
        .await
    }
}

impl Engine for DockerEngine {
    async fn ping(&self) -> Result<(), OpError> {
        self.client(CALL_LIMIT)?.ping().await.map(drop).map_err(|error| failed(&error))
    }

    async fn info(&self) -> Result<EngineInfo, OpError> {
        let info = self.client(CALL_LIMIT)?.info().await.map_err(|error| failed(&error))?;
        let labels = info.labels.unwrap_or_default();
        let mut labels: BTreeMap<String, String> = labels
            .iter()
            .map(|label| label.split_once('=').unwrap_or((label.as_str(), "")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        // Those that the engine itself was told of (`node-generic-resources`) go before a label's.
        let generic = counted(&info.generic_resources.unwrap_or_default());
        if !generic.is_empty() {
            labels.insert(generic::LABEL.to_owned(), generic::text(&generic));
        }
        Ok(EngineInfo {
            version: info.server_version.unwrap_or_default(),
            os: info.os_type.unwrap_or_default(),
            arch: info.architecture.unwrap_or_default(),
            nano_cpus: u64::try_from(info.ncpu.unwrap_or(0)).unwrap_or(0).saturating_mul(1_000_000_000),
            memory_bytes: u64::try_from(info.mem_total.unwrap_or(0)).unwrap_or(0),
            labels,
        })
    }

    async fn execute(&self, owner: Owner, op: EngineOp) -> Result<(), OpError> {
        match op {
            EngineOp::Pull { image, auth } => self.pull(&image, auth).await,
            EngineOp::Create(plan) => self.create(owner, &plan).await,
            EngineOp::Start { name } => self.start(owner, &name).await,
            EngineOp::Stop { name, signal, grace } => self.stop(owner, &name, signal.as_deref(), grace).await,
            EngineOp::Remove { name } => self.remove(owner, &name).await,
            EngineOp::Probe { name, port, within } => self.probe(owner, &name, port, within).await,
            EngineOp::List => self.list(owner).await.map(drop),
        }
    }

    async fn list(&self, owner: Owner) -> Result<Vec<ObservedContainer>, OpError> {
        let found = self.observe(owner).await?;
        self.inner.files.sweep(owner, &found);
        Ok(found)
    }

    fn changes(&self, owner: Owner) -> Changes {
        self.follow(owner)
    }
}

/// One of the owner's containers.
struct Found {
    id: String,
    task: crate::ids::TaskId,
    attempt: u32,
    inspect: ContainerInspectResponse,
}

impl Found {
    fn is_running(&self) -> bool {
        observe::is_running(&self.inspect)
    }

    /// Whether its own stop signal is this one.
    fn stops_with(&self, signal: &str) -> bool {
        let own = self.inspect.config.as_ref().and_then(|c| c.stop_signal.as_deref()).filter(|s| !s.is_empty());
        signal_name(own.unwrap_or("SIGTERM")) == signal_name(signal)
    }
}

/// "SIGTERM", "term" and "15" are one signal; numbers other than the usual ones stay what they are.
fn signal_name(text: &str) -> String {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    match name {
        "1" => "HUP",
        "2" => "INT",
        "3" => "QUIT",
        "9" => "KILL",
        "10" => "USR1",
        "12" => "USR2",
        "15" => "TERM",
        other => other,
    }
    .to_owned()
}

/// Already so (304) and already gone (404) are what was wanted.
fn gone_is_fine(answer: Result<(), Error>) -> Result<(), OpError> {
    match answer {
        Err(error) if matches!(status(&error), Some(304 | 404)) => Ok(()),
        other => other.map_err(|error| failed(&error)),
    }
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// An engine that answered has refused; whatever else went wrong, what it did is unknown.
fn failed(error: &Error) -> OpError {
    match error {
        Error::DockerResponseServerError { status_code: 502..=504, message } => OpError::Unreachable(clip(message)),
        Error::DockerResponseServerError { message, .. } => refused(message),
        Error::DockerStreamError { error } | Error::DockerContainerWaitError { error, .. } => refused(error),
        Error::JsonDataError { message, .. } => refused(format!("the engine's answer can't be read: {message}")),
        Error::RequestTimeoutError => OpError::Unreachable("no answer in time".to_owned()),
        Error::SocketNotFoundError(path) => OpError::Unreachable(format!("no socket at {path}")),
        other => OpError::Unreachable(clip(&innermost(other))),
    }
}

/// The reason at the bottom: "Connection refused" says more than "client error (Connect)".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// How many of each kind; of those that have names (GPU=UUID1, GPU=UUID2), how many names.
fn counted(resources: &[GenericResourcesInner]) -> Generic {
    let mut out = Generic::new();
    for resource in resources {
        if let Some(GenericResourcesInnerDiscreteResourceSpec { kind: Some(kind), value: Some(value) }) =
            &resource.discrete_resource_spec
        {
            *out.entry(kind.clone()).or_default() += u64::try_from(*value).unwrap_or(0);
        }
        if let Some(kind) = resource.named_resource_spec.as_ref().and_then(|named| named.kind.clone()) {
            *out.entry(kind).or_default() += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::GenericResourcesInnerNamedResourceSpec;

    #[test]
    fn an_engines_generic_resources_are_counted() {
        let discrete = |kind: &str, value| GenericResourcesInner {
            discrete_resource_spec: Some(GenericResourcesInnerDiscreteResourceSpec {
                kind: Some(kind.to_owned()),
                value: Some(value),
            }),
            named_resource_spec: None,
        };
        let named = |kind: &str, value: &str| GenericResourcesInner {
            named_resource_spec: Some(GenericResourcesInnerNamedResourceSpec {
                kind: Some(kind.to_owned()),
                value: Some(value.to_owned()),
            }),
            discrete_resource_spec: None,
        };
        let counted = counted(&[discrete("ssd", 3), named("gpu", "UUID1"), named("gpu", "UUID2"), discrete("bad", -1)]);
        assert_eq!(generic::text(&counted), "bad=0,gpu=2,ssd=3");
    }

    #[test]
    fn signals_have_several_names() {
        assert_eq!(signal_name("SIGTERM"), signal_name("15"));
        assert_eq!(signal_name("sigusr1"), signal_name("USR1"));
        assert_ne!(signal_name("SIGINT"), signal_name("SIGTERM"));
        assert_eq!(signal_name("37"), "37");
    }

    #[test]
    fn answers_are_refusals_and_silence_is_not() {
        let answer = |status_code| Error::DockerResponseServerError { status_code, message: "no".to_owned() };
        assert_eq!(failed(&answer(404)), OpError::Refused("no".to_owned()));
        assert_eq!(failed(&answer(500)), OpError::Refused("no".to_owned()));
        assert_eq!(failed(&answer(503)), OpError::Unreachable("no".to_owned()));
        assert!(matches!(failed(&Error::RequestTimeoutError), OpError::Unreachable(_)));
        assert!(gone_is_fine(Err(answer(404))).is_ok());
        assert!(gone_is_fine(Err(answer(409))).is_err());
    }

    #[tokio::test]
    async fn a_missing_socket_is_an_unreachable_engine() {
        let engine = DockerEngine::new("/nonexistent/docker.sock");
        assert_eq!(engine.ping().await, Err(OpError::Unreachable("no socket at /nonexistent/docker.sock".to_owned())));
    }
}
