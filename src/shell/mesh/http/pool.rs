//! Connections to replicas that are kept from one request to the next.
//!
//! An idle connection is kept only while its replica is behind the port that it served; what is looked at and put in
//! under one lock, and taken out after each change of the table, so that none is left over.

use super::body::Outgoing;
use crate::ids::TaskId;
use crate::routes::{Port, RouteTable};
use crate::shell::mesh::reach::Replica;
use crate::shell::mesh::table::Shared;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Less than servers usually keep idle connections, so that it is rarely the server who ends one as it is used again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Idle connections to one replica.
const MAX_IDLE: usize = 256;
/// A connection that has just answered may take a moment to be ready for more.
const READY_WAIT: Duration = Duration::from_millis(50);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Of an answer.
const MAX_HEAD_BYTES: usize = 256 * 1024;
const MAX_HEADERS: usize = 256;

/// A port's connections to a replica.
type Way = (Port, TaskId);

pub struct Pool {
    shared: Arc<Shared>,
    kept: Mutex<Kept>,
    filled: Notify,
}

#[derive(Default)]
struct Kept {
    idle: BTreeMap<Way, Vec<(http1::SendRequest<Outgoing>, Instant)>>,
    /// One for all requests; who sends holds the mark.
    h2: BTreeMap<Way, (http2::SendRequest<Outgoing>, Arc<()>, Instant)>,
}

pub enum Sender {
    H1(http1::SendRequest<Outgoing>),
    H2 { sender: http2::SendRequest<Outgoing>, _mark: Arc<()> },
}

impl Sender {
    /// The request comes back if nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        match self {
            Self::H1(sender) => sender.try_send_request(request).await,
            Self::H2 { sender, .. } => sender.try_send_request(request).await,
        }
    }
}

/// A connection in use by one request (h2c: shared with others).
pub struct Lease {
    pub sender: Sender,
    /// It was kept from an earlier request: its end may have been on the way.
    pub is_used: bool,
    way: Way,
    pool: Arc<Pool>,
    /// The request's body has been sent to its end.
    all_sent: Arc<AtomicBool>,
}

impl Lease {
    /// To be set when the request's body is through.
    pub fn all_sent(&self) -> Arc<AtomicBool> {
        self.all_sent.clone()
    }

    /// The answer has passed whole.
    pub fn give_back(self) {
        if let Sender::H1(sender) = self.sender
            && self.all_sent.load(Ordering::Relaxed)
            && !sender.is_closed()
        {
            self.pool.keep(self.way, sender);
        }
    }
}

impl Pool {
    pub fn start(shared: Arc<Shared>, stop: CancellationToken) -> Arc<Self> {
        let pool = Arc::new(Self { shared, kept: Mutex::default(), filled: Notify::new() });
        let swept = pool.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = swept.sweep() => {}
                () = stop.cancelled() => {}
            }
        });
        pool
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is kept for the next request.
    pub async fn take(self: &Arc<Self>, port: Port, task: TaskId, h2: bool) -> Option<Lease> {
        let way = (port, task);
        let lease = |sender| Lease {
            sender,
            is_used: true,
            way,
            pool: self.clone(),
            all_sent: Arc::new(AtomicBool::new(true)),
        };
        if h2 {
            let mut kept = self.lock();
            let (sender, mark, last) = kept.h2.get_mut(&way)?;
            if !sender.is_closed() {
                *last = Instant::now();
                return Some(lease(Sender::H2 { sender: sender.clone(), _mark: mark.clone() }));
            }
            kept.h2.remove(&way);
            return None;
        }
        loop {
            let next = self.lock().idle.get_mut(&way).and_then(Vec::pop);
            let (mut sender, _) = next?;
            if sender.is_ready() || matches!(timeout(READY_WAIT, sender.ready()).await, Ok(Ok(()))) {
                return Some(lease(Sender::H1(sender)));
            }
        }
    }

    /// A new one over this stream.
    pub async fn open(
        self: &Arc<Self>,
        port: Port,
        task: TaskId,
        h2: bool,
        stream: Replica,
    ) -> Result<Lease, hyper::Error> {
        let way = (port, task);
        let io = TokioIo::new(stream);
        let sender = if h2 {
            let mut client = http2::Builder::new(TokioExecutor::new());
            client.timer(TokioTimer::new()).max_header_list_size(MAX_HEAD_BYTES as u32);
            let (sender, connection) = client.handshake(io).await?;
            tokio::spawn(connection);
            let mark = Arc::new(());
            self.keep_h2(way, sender.clone(), mark.clone());
            Sender::H2 { sender, _mark: mark }
        } else {
            let mut client = http1::Builder::new();
            client.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
            let (sender, connection) = client.handshake(io).await?;
            tokio::spawn(connection.with_upgrades());
            Sender::H1(sender)
        };
        Ok(Lease { sender, is_used: false, way, pool: self.clone(), all_sent: Arc::new(AtomicBool::new(true)) })
    }

    fn keep(&self, way: Way, sender: http1::SendRequest<Outgoing>) {
        let mut kept = self.lock();
        if !self.shared.is_routed(way.0, way.1) {
            return;
        }
        let idle = kept.idle.entry(way).or_default();
        if idle.len() < MAX_IDLE {
            idle.push((sender, Instant::now()));
            self.filled.notify_one();
        }
    }

    fn keep_h2(&self, way: Way, sender: http2::SendRequest<Outgoing>, mark: Arc<()>) {
        let mut kept = self.lock();
        if self.shared.is_routed(way.0, way.1) {
            kept.h2.insert(way, (sender, mark, Instant::now()));
            self.filled.notify_one();
        }
    }

    /// Its connections were found dead, or it answers nonsense: the next request begins with a new one.
    pub fn forget(&self, port: Port, task: TaskId) {
        let mut kept = self.lock();
        kept.idle.remove(&(port, task));
        kept.h2.remove(&(port, task));
    }

    /// After the table has changed: closes what is kept for replicas that it hasn't any more.
    pub fn follow(&self, table: &RouteTable) {
        let has = |(port, task): &Way| table.ports.get(port).is_some_and(|of| of.iter().any(|b| b.task == *task));
        let mut kept = self.lock();
        kept.idle.retain(|way, _| has(way));
        // Its requests that are under way end; their clones of the sender keep it until then.
        kept.h2.retain(|way, _| has(way));
    }

    /// Closes what nobody has used for a while; at rest while nothing is kept.
    async fn sweep(&self) {
        loop {
            let filled = self.filled.notified();
            if self.drop_old() {
                tokio::time::sleep(IDLE_TIMEOUT / 2).await;
            } else {
                filled.await;
            }
        }
    }

    /// True if something is left.
    fn drop_old(&self) -> bool {
        let now = Instant::now();
        let is_fresh = |last: &Instant| now.duration_since(*last) < IDLE_TIMEOUT;
        let mut kept = self.lock();
        kept.idle.retain(|_, idle| {
            idle.retain(|(sender, last)| !sender.is_closed() && is_fresh(last));
            !idle.is_empty()
        });
        kept.h2
            .retain(|_, (sender, mark, last)| !sender.is_closed() && (is_fresh(last) || Arc::strong_count(mark) > 1));
        !kept.idle.is_empty() || !kept.h2.is_empty()
    }
}

/// A handshake that takes longer has failed.
pub async fn in_time<T>(handshake: impl Future<Output = Result<T, hyper::Error>>) -> Option<T> {
    timeout(HANDSHAKE_TIMEOUT, handshake).await.ok()?.ok()
}
