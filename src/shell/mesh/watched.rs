//! Copies between a client and a replica, noting when bytes last moved.

use super::table::{Counted, Shared};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Each direction's buffer.
const BUFFER_BYTES: usize = 16 * 1024;

struct Watched<T> {
    inner: T,
    shared: Arc<Shared>,
    last: Arc<AtomicU64>,
}

impl<T> Watched<T> {
    fn touch(&self) {
        self.last.store(self.shared.now_ms(), Ordering::Relaxed);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.touch();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Both directions until both have ended; half-closes are passed on. An error on either side ends both.
pub async fn copy<A, B>(shared: Arc<Shared>, counted: Option<Counted>, mut client: A, replica: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let last = counted.as_ref().map_or_else(Arc::default, |c| c.last_active.clone());
    // Every byte is read once on one of the two sides.
    let mut client = Watched { inner: &mut client, shared: shared.clone(), last: last.clone() };
    let mut replica = Watched { inner: replica, shared, last };
    // A broken connection is the client's to notice: there is nobody else to tell.
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut replica, BUFFER_BYTES, BUFFER_BYTES).await;
    drop(counted);
}
