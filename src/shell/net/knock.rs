//! Is anybody there at all? A machine whose agent died answers UDP with "port unreachable", which QUIC doesn't listen
//! for. One byte from a connected socket does: it tells a killed agent within a second, long before a timeout.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How long the answer may take. Silence means nothing: the port is open, or the answer was lost or filtered.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// True only when the machine says that nothing listens at this port.
pub async fn is_shut(addr: SocketAddr) -> bool {
    let any: IpAddr = match addr.ip().to_canonical() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let target = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let Ok(socket) = UdpSocket::bind(SocketAddr::new(any, 0)).await else { return false };
    if socket.connect(target).await.is_err() || socket.send(&[0]).await.is_err() {
        return false;
    }
    let answer = timeout(ANSWER_WITHIN, socket.recv(&mut [0; 16])).await;
    matches!(answer, Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused)
}

/// Ends only when the port is known to be shut.
pub async fn until_shut(addr: SocketAddr) {
    if !is_shut(addr).await {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_says_so_and_an_open_one_says_nothing() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        assert!(!is_shut(addr).await);
        drop(socket);
        assert!(is_shut(addr).await);
    }
}
