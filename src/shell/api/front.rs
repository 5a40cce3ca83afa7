//! The socket of an agent that may be in a cluster or not (`peer start --standby`). It is bound once and outlives
//! memberships: each request, also the next one on the same connection, goes to whoever stands behind it at that
//! moment, the member's whole API or the few answers of a node on standby ([`super::standby`]).

use super::engine::Engine;
use super::standby::{self, Ask};
use super::{Api, ApiConfig, dispatch, incoming, serve_on, socket};
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Inits and joins that wait for the one before; more are told to wait themselves.
const MAX_ASKS: usize = 4;
/// `docker swarm leave` answers when the node is on standby again: after its containers have stopped, which the agent
/// bounds by half a minute.
const LEAVE_LIMIT: Duration = Duration::from_secs(45);

pub struct Front {
    /// Without one the node is on standby.
    member: watch::Sender<Option<Arc<Api>>>,
    pub(super) engine: Option<Engine>,
    pub(super) hostname: String,
    pub(super) agent_version: String,
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) stop: CancellationToken,
}

impl Front {
    /// Binds the socket. What it returns beside itself are the wishes of those who ask, and what answers until `stop`.
    pub async fn bind(
        config: ApiConfig,
        hostname: String,
        stop: CancellationToken,
    ) -> anyhow::Result<(Arc<Self>, mpsc::Receiver<Ask>, impl Future<Output = anyhow::Result<()>> + Send + 'static)>
    {
        let socket = socket::bind(&config.socket).await?;
        let (asks, asked) = mpsc::channel(MAX_ASKS);
        let front = Arc::new(Self {
            member: watch::Sender::new(None),
            engine: config.engine.map(|path| Engine::new(path, stop.clone())),
            hostname,
            agent_version: config.agent_version,
            asks,
            stop: stop.clone(),
        });
        let router = axum::Router::new().fallback(entry).with_state(front.clone());
        Ok((front, asked, serve_on(socket, router, stop)))
    }

    /// From now on this agent answers.
    pub fn member(&self, api: Arc<Api>) {
        self.member.send_replace(Some(api));
    }

    /// There is no membership any more.
    pub fn standby(&self) {
        self.member.send_replace(None);
    }
}

async fn entry(State(front): State<Arc<Front>>, request: Request) -> Response {
    let member = front.member.borrow().clone();
    let Some(member) = member else { return standby::entry(&front, request).await };
    let leaves = request.method() == "POST" && incoming::segments(request.uri()) == ["swarm", "leave"];
    let response = dispatch::entry(State(member), request).await;
    if leaves && response.status().is_success() {
        let mut member = front.member.subscribe();
        // Whoever leaves asks for something else next (`docker swarm join`); the front itself never goes.
        let _ = tokio::time::timeout(LEAVE_LIMIT, member.wait_for(Option::is_none)).await;
    }
    response
}
