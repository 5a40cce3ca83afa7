//! The whole API over a real unix socket, with a made-up agent behind it.

mod docker_cli;
mod fake;
mod http;
mod passing;
pub mod views;

use super::{ApiConfig, Extra, serve, socket};
use crate::ids::NodeId;
use crate::shell::logs::{LogAsk, LogItem, LogLine, LogSource, LogStream};
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

/// An API on a socket of its own.
struct Server {
    dir: tempfile::TempDir,
    agent: Arc<Fake>,
    stop: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    async fn start(engine: Option<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let agent = Arc::new(Fake::new(views::snapshot()));
        let stop = CancellationToken::new();
        let (agent_version, mesh) = ("0.1.0".to_owned(), "userspace".to_owned());
        let config = ApiConfig { socket: dir.path().join("peer.sock"), engine, agent_version, mesh };
        let extra = Extra {
            token: Arc::new(|secret| format!("PEERTKN-1-{secret}")),
            new_secret: Arc::new(|| "fresh".to_owned()),
            ca: "-----BEGIN CERTIFICATE-----\n".into(),
            vault: Arc::new(Vault::new("test")),
            logs: Arc::new(Said),
            page: Some("http://127.0.0.1:7373/#token=t".to_owned()),
        };
        let bound = socket::bind(&config.socket).await.unwrap();
        let serving = tokio::spawn(serve(config, bound, agent.clone(), extra, stop.clone()));
        let server = Self { dir, agent, stop, serving };
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
