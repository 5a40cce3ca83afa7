//! HTTP-aware ports: a server to the client, a client to the replicas, and each request picked for by itself.
//!
//! The mesh's law, by request: a request counts as open on its replica from the pick to the last byte of its answer, and
//! an idle connection that is kept for the next one doesn't count and is closed when its replica leaves the table. A
//! client's connection ends only by its own will, at its time limits, or at a boundary between requests when the port or
//! the agent goes. What a replica never answered goes to another one where that is safe ([`forward`]).

mod body;
mod forward;
mod headers;
mod pool;
#[cfg(test)]
mod tests;

pub use forward::MAX_REPLAYS;
pub use pool::Pool;

use super::copy::IDLE_TIMEOUT;
use super::table::Shared;
use super::tunnel::Tunnels;
use crate::routes::Port;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A request's head must be here within this, counted from the connection's beginning or the answer before: a slow head and
/// a connection that is kept for later alike.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
/// Requests at once on one h2c connection.
const MAX_STREAMS: u32 = 128;
/// A client that hears nothing else for this long is asked whether it is there, over h2c.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests that are under way when the port or the agent goes get this long.
const CLOSE_GRACE: Duration = Duration::from_secs(10);

/// What all requests share.
pub struct Gate {
    pub shared: Arc<Shared>,
    pub tunnels: Arc<dyn Tunnels>,
    pub pool: Arc<Pool>,
    /// Requests at once, whatever the connections.
    pub requests: Arc<Semaphore>,
    /// Bodies that are held whole, so that they can be sent again.
    pub replays: Arc<Semaphore>,
    pub stop: CancellationToken,
}

/// Where a request came in.
pub struct Entry {
    pub port: Port,
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// The connection's place; an upgraded connection keeps it.
    pub _place: Arc<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

/// One client's connection. `stop` ends it at a boundary.
pub async fn serve(client: TcpStream, gate: Arc<Gate>, entry: Entry, stop: CancellationToken) {
    let seen = Arc::new(Seen { started: Instant::now(), last_ms: AtomicU64::new(0), asked: AtomicBool::new(false) });
    let entry = Arc::new(entry);
    let service = service_fn(|request| {
        seen.asked.store(true, Ordering::Relaxed);
        let (gate, entry) = (gate.clone(), entry.clone());
        async move { Ok::<_, Infallible>(forward::answer(gate, entry, request).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let io = TokioIo::new(Watched { inner: client, seen: seen.clone() });
    let mut connection = pin!(server.serve_connection_with_upgrades(io, service));
    let mut look = pin!(tokio::time::sleep(HEAD_TIMEOUT));
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            // The end of the agent is nobody's boundary.
            () = gate.stop.cancelled() => return,
            // What goes wrong on a client's connection is the client's to notice.
            _ = connection.as_mut() => return,
            () = stop.cancelled(), if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
                look.as_mut().reset(Instant::now() + CLOSE_GRACE);
            }
            () = look.as_mut() => match seen.idle() {
                _ if closing || !seen.asked.load(Ordering::Relaxed) => return,
                idle if idle >= IDLE_TIMEOUT => return,
                idle => look.as_mut().reset(Instant::now() + IDLE_TIMEOUT.saturating_sub(idle)),
            },
        }
    }
}

/// What came over a client's connection.
struct Seen {
    started: Instant,
    /// When bytes last moved, after `started`.
    last_ms: AtomicU64,
    /// A whole head has been read.
    asked: AtomicBool,
}

impl Seen {
    fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

struct Watched {
    inner: TcpStream,
    seen: Arc<Seen>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.seen.touch();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if matches!(polled, Poll::Ready(Ok(_))) {
            self.seen.touch();
        }
        polled
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        if matches!(polled, Poll::Ready(Ok(_))) {
            self.seen.touch();
        }
        polled
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
