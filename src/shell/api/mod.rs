//! Docker's Engine API for nodes, services and tasks on a unix socket, and a few paths of our own under `/peer`.
//!
//! Handlers are thin: parse, ask the agent, render. What they ask is one [`backend::Snapshot`] taken in the agent's
//! loop, or one [`crate::core::face::Request`]; nothing here decides anything about the cluster. Whatever is not
//! ours goes to the node's own Docker Engine untouched (see [`engine`]), so the socket is a superset of Docker's.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod backend;
mod dispatch;
mod engine;
mod filters;
mod front;
mod handle;
mod incoming;
mod lookup;
pub mod remote;
mod render;
mod reply;
pub(in crate::shell) mod request_id;
mod socket;
mod standby;
#[cfg(test)]
mod tests;

use crate::shell::events::Events;
use crate::shell::handle::AgentHandle;
use crate::shell::logs::LogSource;
use crate::shell::mesh::DataPlane;
use crate::shell::vault::Vault;
use backend::Backend;
pub(in crate::shell) use backend::{Snapshot, Want};
use engine::Engine;
pub use front::Front;
pub(in crate::shell) use reply::{Answer, Failure, ok};
pub use standby::{Ask, Begin, ON_STANDBY, What};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The newest Docker API that we speak, and the oldest.
pub(crate) const API_VERSION: ApiVersion = ApiVersion { major: 1, minor: 50 };
pub(crate) const MIN_API_VERSION: ApiVersion = ApiVersion { major: 1, minor: 24 };
/// Answers that are under way when the agent stops get this long to end.
const STOP_GRACE: Duration = Duration::from_secs(2);

pub struct ApiConfig {
    /// Where to listen.
    pub socket: PathBuf,
    /// The node's own Docker socket, to which everything that isn't ours is passed on. `None`: there is no Docker here.
    pub engine: Option<PathBuf>,
    pub agent_version: String,
}

/// Makes a certificate and its key, or says why not.
pub type ClientCert = Arc<dyn Fn(&str, u64) -> Result<(String, String), String> + Send + Sync>;

/// What the API needs of the node and can't learn from the core.
#[derive(Clone)]
pub struct Extra {
    /// The join token's text, from the cluster's join secret.
    pub token: Arc<dyn Fn(&str) -> String + Send + Sync>,
    /// Draws a new join secret.
    pub new_secret: Arc<dyn Fn() -> String + Send + Sync>,
    /// The cluster's CA certificate, in PEM.
    pub ca: Arc<str>,
    /// Seals secrets before they become records.
    pub vault: Arc<Vault>,
    /// What tasks say, on whatever node.
    pub logs: Arc<dyn LogSource>,
    /// What happens in the cluster.
    pub events: Events,
    /// A certificate and its key for a client of this name and generation, as PEM.
    pub client_cert: ClientCert,
    /// The cluster page's link, with its token.
    pub page: Option<String>,
    /// What carries published ports here.
    pub mesh: Arc<dyn DataPlane>,
    /// The same in words.
    pub carried_by: String,
}

/// Binds the socket; what it returns answers on it until `stop`, then lets what is under way end.
pub async fn bind(
    config: &ApiConfig,
    api: Arc<Api>,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
    let socket = socket::bind(&config.socket).await?;
    Ok(serve(socket, api))
}

async fn serve(socket: socket::Socket, api: Arc<Api>) -> anyhow::Result<()> {
    let stop = api.stop.clone();
    serve_on(socket, axum::Router::new().fallback(dispatch::entry).with_state(api), stop).await
}

async fn serve_on(socket: socket::Socket, router: axum::Router, stop: CancellationToken) -> anyhow::Result<()> {
    let serving =
        axum::serve(socket.listener, router).with_graceful_shutdown(stop.clone().cancelled_owned()).into_future();
    let result = tokio::select! {
        result = serving => result,
        () = async { stop.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => Ok(()),
    };
    socket.file.remove();
    Ok(result?)
}

/// What every handler has at hand.
pub struct Api {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) engine: Option<Engine>,
    pub(crate) extra: Extra,
    pub(crate) agent_version: String,
    pub(crate) stop: CancellationToken,
}

impl Api {
    pub fn of_agent(config: &ApiConfig, agent: AgentHandle, extra: Extra, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self::new(config, Arc::new(agent), extra, stop))
    }

    fn new(config: &ApiConfig, backend: Arc<dyn Backend>, extra: Extra, stop: CancellationToken) -> Self {
        Self {
            backend,
            engine: config.engine.clone().map(|path| Engine::new(path, stop.clone())),
            extra,
            agent_version: config.agent_version.clone(),
            stop,
        }
    }

    /// What we tell clients to speak: no more than the engine understands, because the rest of what they say goes there.
    pub(crate) fn api_version(&self) -> ApiVersion {
        self.engine.as_ref().and_then(Engine::api_version).map_or(API_VERSION, |engine| engine.min(API_VERSION))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    pub major: u32,
    pub minor: u32,
}

impl ApiVersion {
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Text as one segment of a path or one value of a query.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
