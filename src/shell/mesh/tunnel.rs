//! A connection to a replica on another node rides in a QUIC stream between the two agents, encrypted and under their
//! certificates. The stream opens with a header (version, task, port); the other side answers with one byte once
//! it has connected. It connects to its own replicas' published targets and to nothing else, whatever is asked.

use super::copy::copy;
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

/// The first byte of a tunnel; other streams between nodes begin with others.
pub const VERSION: u8 = 1;
/// Of a tunnel that carries requests one after the other: who opened it closes it as soon as its replica is withdrawn and
/// has answered, so until then it holds up the replica's stop, however quiet it is.
pub const HELD_VERSION: u8 = 3;
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
    version: u8,
) -> io::Result<Streams> {
    let open = async {
        let (mut send, mut recv) = tunnels.open(node, addr).await?;
        let header = encode(version, task, target);
        send.write_all(&header).await?;
        match recv.read_u8().await? {
            CONNECTED => Ok((send, recv)),
            NOT_HERE => Err(io::Error::other("the replica is not on that node")),
            _ => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
        }
    };
    timeout(TUNNEL_TIMEOUT, open).await.map_err(|_| io::ErrorKind::TimedOut)?
}

pub fn encode(version: u8, task: TaskId, target: u16) -> [u8; TUNNEL_HEADER_BYTES] {
    let mut header = [0; TUNNEL_HEADER_BYTES];
    header[0] = version;
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

/// The answering side, until the connection ends. The first byte has been read: `held` if it was [`HELD_VERSION`].
///
/// # Errors
/// The connection broke: the sending half, to be reset, so that what was sent doesn't look whole. The replica's is reset, too.
pub async fn serve<S, R>(shared: Arc<Shared>, held: bool, mut send: S, mut recv: R) -> Result<(), S>
where
    S: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let mut header = [0; TUNNEL_HEADER_BYTES - 1];
    match timeout(TUNNEL_TIMEOUT, recv.read_exact(&mut header)).await {
        Ok(Ok(_)) => {}
        _ => return Ok(()),
    }
    let (task, target) = decode(header);
    let Some((address, counted)) = shared.admit(task, target) else {
        let _ = send.write_u8(NOT_HERE).await;
        return Ok(());
    };
    counted.hold(held);
    let Ok(Ok(mut replica)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await else {
        let _ = send.write_u8(REFUSED).await;
        return Ok(());
    };
    super::copy::tune(&replica);
    if send.write_u8(CONNECTED).await.is_err() {
        return Ok(());
    }
    let mut tunnel = tokio::io::join(recv, send);
    copy(counted, &mut tunnel, &mut replica).await.map_err(|_| {
        super::copy::break_off(&replica);
        tunnel.into_inner().1
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::RouteTable;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

    /// What the answering side says to these bytes behind the first, and whether somebody came to the published target.
    async fn answered(bytes: &[u8], task: TaskId, target: u16, held: bool) -> (Vec<u8>, bool) {
        let published = TcpListener::bind((HERE, 0)).await.unwrap();
        let shared = Shared::new();
        let local = BTreeMap::from([((task, target), published.local_addr().unwrap())]);
        drop(shared.swap(Arc::new(RouteTable { local, ..RouteTable::default() })));
        let (mut peer, ours) = tokio::io::duplex(1024);
        let (recv, send) = tokio::io::split(ours);
        let talk = async {
            // It may have been turned away before it has said all.
            let _ = peer.write_all(bytes).await;
            let _ = peer.shutdown().await;
            let mut answer = Vec::new();
            let _ = peer.read_to_end(&mut answer).await;
            answer
        };
        let ends = async { tokio::join!(async { drop(serve(shared, held, send, recv).await) }, talk).1 };
        let mut ends = std::pin::pin!(ends);
        tokio::select! {
            answer = &mut ends => (answer, false),
            accepted = published.accept() => {
                drop(accepted);
                (ends.await, true)
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_header_reads_back(version: u8, task: u128, target: u16) {
            let header = encode(version, TaskId::from_u128(task), target);
            prop_assert_eq!(header[0], version);
            let rest: [u8; TUNNEL_HEADER_BYTES - 1] = header[1..].try_into().unwrap();
            prop_assert_eq!(decode(rest), (TaskId::from_u128(task), target));
        }

        #[test]
        fn whatever_comes_only_the_published_target_is_connected_to(
            bytes in proptest::collection::vec(any::<u8>(), 0..64), task: u128, target: u16, held: bool, honest: bool
        ) {
            let task = TaskId::from_u128(task);
            let mut sent = bytes;
            if honest {
                sent.splice(0..0, encode(VERSION, task, target)[1..].iter().copied());
            }
            let asked = sent.first_chunk::<{ TUNNEL_HEADER_BYTES - 1 }>().map(|header| decode(*header));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (answer, connected) = runtime.block_on(answered(&sent, task, target, held));
            prop_assert_eq!(connected, asked == Some((task, target)));
            match asked {
                Some(_) if connected => prop_assert_eq!(answer.first(), Some(&CONNECTED)),
                Some(_) => prop_assert_eq!(answer, [NOT_HERE]),
                None => prop_assert_eq!(answer, b""),
            }
        }
    }
}
