//! A way to a replica: straight to a container of this node, or through a tunnel to the node that runs it.

use super::copy::{break_off, tune};
use super::tunnel::{self, CONNECT_TIMEOUT, Tunnels};
use crate::routes::{Backend, Reach};
use quinn::{RecvStream, SendStream};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub enum Replica {
    Local(TcpStream),
    Remote(Join<RecvStream, SendStream>),
}

/// `version` is the tunnel's, if it takes one.
pub async fn connect(tunnels: &dyn Tunnels, backend: &Backend, version: u8) -> io::Result<Replica> {
    match backend.reach {
        Reach::Local(ip) => {
            let connect = TcpStream::connect(SocketAddr::new(ip, backend.target));
            let stream = timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| io::ErrorKind::TimedOut)??;
            tune(&stream);
            Ok(Replica::Local(stream))
        }
        Reach::Remote { agent: addr, .. } => {
            let open = tunnel::connect(tunnels, backend.node, addr, backend.task, backend.target, version);
            let (send, recv) = open.await?;
            Ok(Replica::Remote(tokio::io::join(recv, send)))
        }
    }
}

impl Replica {
    /// Resets it, once dropped, instead of ending it.
    pub fn break_off(&mut self) {
        match self {
            Self::Local(stream) => break_off(stream),
            // Refused only where the connection has gone, and the stream with it.
            Self::Remote(stream) => _ = stream.writer_mut().reset(quinn::VarInt::from_u32(0)),
        }
    }
}

impl AsyncRead for Replica {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Local(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Remote(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Replica {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Local(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Remote(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Local(stream) => Pin::new(stream).poll_flush(cx),
            Self::Remote(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Local(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Remote(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
