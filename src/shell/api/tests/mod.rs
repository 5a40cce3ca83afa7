//! The whole API over a real unix socket, with a made-up agent behind it.

mod docker_cli;
mod events;
mod fake;
mod http;
mod passing;
pub mod views;
mod visualizer;

use super::{Api, ApiConfig, Extra, serve, socket};
use crate::ids::{NodeId, TaskId};
use crate::model::spec::{PortOptions, Protocol};
use crate::routes::RouteTable;
use crate::shell::events::Events;
use crate::shell::logs::{LogAsk, LogItem, LogLine, LogSource, LogStream};
use crate::shell::mesh::{DataPlane, PortView, ReplicaState, ReplicaView, Totals, View};
use crate::shell::vault::Vault;
use fake::Fake;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Each task says its number, every other one on stderr, at a time of its own; the second node can't be asked.
struct Said;

impl LogSource for Said {
    fn open(&self, node: NodeId, _: SocketAddr, ask: LogAsk) -> LogStream {
        let (out, stream) = mpsc::channel(64);
        if node == views::node_id(2) {
            let trouble = LogItem::Trouble { task: ask.tasks[0], why: "cable cut".to_owned() };
            out.try_send(trouble).unwrap();
            return stream;
        }
        for (number, task) in ask.tasks.iter().enumerate() {
            let at_ns = 1_700_000_000_000_000_000 + number as u64;
            let text = format!("line {number}\n").into_bytes();
            out.try_send(LogItem::Line(LogLine { task: *task, stderr: number % 2 == 1, at_ns, text })).unwrap();
        }
        stream
    }
}

/// Carries the first service's port, with one replica and one that leaves.
struct Plane;

impl DataPlane for Plane {
    fn apply(&self, _: u64, _: Arc<RouteTable>) {}
    fn await_drained(&self, _: TaskId, _: bool) {}
    fn accept(&self, _: NodeId, _: quinn::SendStream, _: quinn::RecvStream) {}
    fn view(&self) -> View {
        let seen = views::snapshot();
        let replica = |n: usize, state| ReplicaView {
            task: seen.tasks[n].task.id,
            node: seen.tasks[n].task.node.unwrap(),
            target: 5000,
            local: n == 0,
            state,
            open: 2,
            total: 7,
            failures: 1,
        };
        let port = PortView {
            protocol: Protocol::Tcp,
            port: 30000,
            options: PortOptions { prefer_local: true, ..PortOptions::default() },
            path: "userspace",
            blocked: None,
            totals: Totals { connections: 14, open: 4, ..Totals::default() },
            replicas: vec![replica(0, ReplicaState::Routable), replica(1, ReplicaState::Draining)],
        };
        View { plane: "userspace", ports: vec![port] }
    }
}

/// An API on a socket of its own.
struct Server {
    api: Arc<Api>,
    dir: tempfile::TempDir,
    agent: Arc<Fake>,
    events: Events,
    stop: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    async fn start(engine: Option<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let agent = Arc::new(Fake::new(views::snapshot()));
        let (stop, events) = (CancellationToken::new(), Events::default());
        let config = ApiConfig { socket: dir.path().join("peer.sock"), engine, agent_version: "0.1.0".to_owned() };
        let extra = Extra {
            token: Arc::new(|secret| format!("PEERTKN-1-{secret}")),
            new_secret: Arc::new(|| "fresh".to_owned()),
            ca: "-----BEGIN CERTIFICATE-----\n".into(),
            vault: Arc::new(Vault::new("test")),
            logs: Arc::new(Said),
            events: events.clone(),
            client_cert: Arc::new(|name, generation| Ok((format!("cert of {name}"), generation.to_string()))),
            page: Some("http://127.0.0.1:7373/#token=t".to_owned()),
            mesh: Arc::new(Plane),
            carried_by: "userspace".to_owned(),
        };
        let bound = socket::bind(&config.socket).await.unwrap();
        let api = Arc::new(Api::new(&config, agent.clone(), extra, stop.clone()));
        let serving = tokio::spawn(serve(bound, api.clone()));
        let server = Self { api, dir, agent, events, stop, serving };
        server.reachable().await;
        server
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("peer.sock")
    }

    /// Until somebody answers.
    async fn reachable(&self) {
        let answering = async {
            while tokio::net::UnixStream::connect(self.socket()).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), answering).await.expect("the API's socket answers within 5 s");
    }

    async fn stop(self) {
        self.stop.cancel();
        let stopped = tokio::time::timeout(Duration::from_secs(10), self.serving).await;
        stopped.expect("the API stops within 10 s").unwrap().unwrap();
        assert!(!self.dir.path().join("peer.sock").exists(), "the socket is gone");
    }
}
