//! A connection to a replica on another node rides in a QUIC stream between the two agents, encrypted and under their
//! certificates. The stream opens with a header (version, task, port); the other side answers with one byte once
//! it has connected. It connects to its own replicas' published targets and to nothing else, whatever is asked.

use super::table::Shared;
use crate::ids::{NodeId, TaskId};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The first byte of every tunnel; other streams between nodes begin with others.
pub const VERSION: u8 = 1;
const TUNNEL_HEADER_BYTES: usize = 1 + 16 + 2;
const CONNECTED: u8 = 0;
const NOT_HERE: u8 = 1;
const REFUSED: u8 = 2;

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For a stream to a node: it may have to be dialled first.
pub const TUNNEL_TIMEOUT: Duration = Duration::from_secs(3);

pub type Streams = (quinn::SendStream, quinn::RecvStream);
pub type TunnelFuture = Pin<Box<dyn Future<Output = io::Result<Streams>> + Send>>;

/// Opens a stream to a member; the network's part of a tunnel.
pub trait Tunnels: Send + Sync + 'static {
    fn open(&self, to: NodeId, addr: SocketAddr) -> TunnelFuture;
}

/// The asking side: a stream that is connected to the replica when this returns.
pub async fn connect(
    tunnels: &dyn Tunnels,
    node: NodeId,
    addr: SocketAddr,
    task: TaskId,
    target: u16,
) -> io::Result<Streams> {
    let open = async {
        let (mut send, mut recv) = tunnels.open(node, addr).await?;
        let header = encode(task, target);
        send.write_all(&header).await?;
        match recv.read_u8().await? {
            CONNECTED => Ok((send, recv)),
            NOT_HERE => Err(io::Error::other("the replica is not on that node")),
            _ => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
        }
    };
    timeout(TUNNEL_TIMEOUT, open).await.map_err(|_| io::ErrorKind::TimedOut)?
}

pub fn encode(task: TaskId, target: u16) -> [u8; TUNNEL_HEADER_BYTES] {
    let mut header = [0; TUNNEL_HEADER_BYTES];
    header[0] = VERSION;
    header[1..17].copy_from_slice(&task.as_u128().to_be_bytes());
    header[17..].copy_from_slice(&target.to_be_bytes());
    header
}

/// A header without its version.
fn decode(header: [u8; TUNNEL_HEADER_BYTES - 1]) -> (TaskId, u16) {
    let (mut task, mut target) = ([0; 16], [0; 2]);
    task.copy_from_slice(&header[..16]);
    target.copy_from_slice(&header[16..]);
    (TaskId::from_u128(u128::from_be_bytes(task)), u16::from_be_bytes(target))
}

/// The answering side, until the connection ends. The first byte, [`VERSION`], has been read.
pub async fn serve<S, R>(shared: Arc<Shared>, mut send: S, mut recv: R)
where
    S: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let mut header = [0; TUNNEL_HEADER_BYTES - 1];
    match timeout(TUNNEL_TIMEOUT, recv.read_exact(&mut header)).await {
        Ok(Ok(_)) => {}
        _ => return,
    }
    let (task, target) = decode(header);
    let Some((address, counted)) = shared.admit(task, target) else {
        let _ = send.write_u8(NOT_HERE).await;
        return;
    };
    let Ok(Ok(replica)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await else {
        let _ = send.write_u8(REFUSED).await;
        return;
    };
    let _ = replica.set_nodelay(true);
    if send.write_u8(CONNECTED).await.is_ok() {
        super::watched::copy(shared, Some(counted), tokio::io::join(recv, send), replica).await;
    }
}
