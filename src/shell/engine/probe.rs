//! Waits until a container accepts a TCP connection: the readiness of what has no health check.

use super::refused;
use crate::model::container::OpError;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// Connections tried before the engine is asked again whether the container still runs.
const TRIES_PER_LOOK: u32 = 4;

/// What the engine says of the container that is probed.
pub(super) enum Seen {
    /// It has not started yet.
    NotYet,
    At(IpAddr),
    /// It can't answer any more, and why.
    Never(String),
}

pub(super) async fn probe<F, L>(port: u16, within: Duration, mut look: F) -> Result<(), OpError>
where
    F: FnMut() -> L + Send,
    L: Future<Output = Result<Seen, OpError>> + Send,
{
    let deadline = Instant::now() + within;
    let mut pause = FIRST_PAUSE;
    let mut last = "it has not started".to_owned();
    loop {
        match look().await? {
            Seen::Never(why) => return Err(refused(why)),
            Seen::NotYet => sleep(pause).await,
            Seen::At(ip) => {
                for _ in 0..TRIES_PER_LOOK {
                    match knock(ip, port).await {
                        Ok(()) => return Ok(()),
                        Err(why) => last = why,
                    }
                    if Instant::now() >= deadline {
                        break;
                    }
                    sleep(pause).await;
                }
            }
        }
        if Instant::now() >= deadline {
            return Err(OpError::TimedOut(format!("port {port} accepted no connection within {within:?}: {last}")));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn knock(ip: IpAddr, port: u16) -> Result<(), String> {
    match timeout(CONNECT_LIMIT, TcpStream::connect((ip, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
