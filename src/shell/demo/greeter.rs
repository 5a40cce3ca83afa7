//! The demo's greeter as a process of its own: what the containers of `peer demo` run over a Docker Engine. It is the
//! same server that the built-in engine plays, with the same four ways to be.

use crate::shell::engine::demo::greeter::{Order, serve};
use anyhow::Context;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub const PORT: u16 = 5000;
/// How long the bad one lasts.
const BAD_LASTS: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeter {
    Version(u8),
    /// Exits soon after its start.
    Bad,
    /// Serves, but its health check never passes.
    Sick,
}

impl Greeter {
    pub const ALL: [Self; 4] = [Self::Version(1), Self::Version(2), Self::Bad, Self::Sick];

    pub fn tag(self) -> String {
        match self {
            Self::Version(version) => version.to_string(),
            Self::Bad => "bad".to_owned(),
            Self::Sick => "sick".to_owned(),
        }
    }
}

impl FromStr for Greeter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|greeter| greeter.tag() == text)
            .ok_or_else(|| format!("no greeter {text:?}: want 1, 2, bad or sick"))
    }
}

/// Serves until SIGTERM, and then finishes what it has begun. The exit code.
pub async fn run(greeter: Greeter) -> anyhow::Result<i64> {
    if greeter == Greeter::Bad {
        tokio::time::sleep(BAD_LASTS).await;
        eprintln!("greeter bad: it exits with 1, as it always does");
        return Ok(1);
    }
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(PORT);
    let hello = std::env::var("GREETING").unwrap_or_else(|_| "Hello".to_owned());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let door = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.with_context(|| format!("port {port}"))?;
    let (orders, heard) = watch::channel(Order::Run);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        // Fails only when the server has gone.
        let _ = orders.send(Order::Term);
    });
    Ok(serve(vec![door], &format!("{hello} from greeter {} (container {host})\n", greeter.tag()), heard).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greeters_are_known_by_their_tags() {
        for greeter in Greeter::ALL {
            assert_eq!(greeter.tag().parse(), Ok(greeter));
        }
        assert!("3".parse::<Greeter>().is_err());
    }
}
