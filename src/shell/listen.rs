//! Taking connections from a listener, through the troubles of the system (no descriptors left) and until it is to stop.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// After such a trouble before the next try: the backlog waits while connections end.
const PAUSE: Duration = Duration::from_millis(100);

/// The next that comes; `None` once it is to stop. `who` takes it, for the log.
pub async fn next(listener: &TcpListener, who: &str, stop: &CancellationToken) -> Option<(TcpStream, SocketAddr)> {
    loop {
        match stop.run_until_cancelled(listener.accept()).await? {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                tracing::warn!(%error, "{who} can't take a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
