//! Reading one link until it ends: datagrams and whole streams become messages, a bidirectional stream is a tunnel,
//! which the mesh reads. A stream that is too long or too slow is stopped; the link lives on. When nobody takes the
//! events, reading stops, and QUIC's flow control tells the sender.

use super::NetEvent;
use super::knock;
use super::links::Link;
use super::reason::{self, STREAM_TOO_LARGE, STREAM_TOO_SLOW};
use super::shared::Shared;
use crate::limits::MAX_MESSAGE_BYTES;
use quinn::{ConnectionError, ReadToEndError, RecvStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often each link is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let error = read(&shared, &link).await;
    tracing::debug!(node = %link.node, addr = %link.remote(), "link ended: {}", reason::explain(&error));
    shared.unregister(&link);
}

async fn read(shared: &Arc<Shared>, link: &Arc<Link>) -> ConnectionError {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Traffic::default();
    loop {
        let arrived = tokio::select! {
            datagram = link.conn.read_datagram() => datagram.map(|bytes| Some(message(link, bytes.to_vec()))),
            stream = link.conn.accept_uni() => stream.map(|recv| {
                link.touch();
                link.busy.fetch_add(1, Ordering::Relaxed);
                shared.tasks.spawn(read_message(shared.clone(), link.clone(), recv));
                None
            }),
            stream = link.conn.accept_bi() => stream.map(|(send, recv)| {
                link.tunnels.store(true, Ordering::Relaxed);
                Some(NetEvent::Tunnel { from: link.node, send, recv })
            }),
            _ = look.tick() => {
                look_after(shared, link, &mut seen);
                Ok(None)
            }
        };
        match arrived {
            Ok(Some(event)) => {
                // Nobody listens any more once the agent has stopped.
                let _ = shared.events.send(event).await;
            }
            Ok(None) => {}
            Err(error) => return error,
        }
    }
}

/// Packets in and out so far.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Traffic {
    sent: u64,
    received: u64,
}

/// Closes a link that another one makes superfluous; asks after a peer that has not answered what was sent.
fn look_after(shared: &Arc<Shared>, link: &Arc<Link>, seen: &mut Traffic) {
    if shared.is_redundant(link) {
        reason::close(&link.conn, reason::SETTLED);
    }
    let stats = link.conn.stats();
    let now = Traffic { sent: stats.udp_tx.datagrams, received: stats.udp_rx.datagrams };
    let unanswered = now.sent > seen.sent && now.received == seen.received;
    *seen = now;
    if unanswered && !link.knocking.swap(true, Ordering::Relaxed) {
        shared.tasks.spawn(ask_after(link.clone()));
    }
}

async fn ask_after(link: Arc<Link>) {
    if knock::is_shut(link.remote()).await {
        reason::close(&link.conn, reason::GONE);
    }
    link.knocking.store(false, Ordering::Relaxed);
}

fn message(link: &Link, bytes: Vec<u8>) -> NetEvent {
    link.touch();
    NetEvent::Message { from: link.node, bytes }
}

async fn read_message(shared: Arc<Shared>, link: Arc<Link>, mut recv: RecvStream) {
    let node = link.node;
    match timeout(shared.timing.message, recv.read_to_end(MAX_MESSAGE_BYTES)).await {
        Ok(Ok(bytes)) => {
            let _ = shared.events.send(message(&link, bytes)).await;
        }
        Ok(Err(ReadToEndError::TooLong)) => {
            tracing::warn!(%node, "refused a message of more than {MAX_MESSAGE_BYTES} bytes");
            // Fails only if the stream has ended by itself.
            let _ = recv.stop(STREAM_TOO_LARGE);
        }
        // Reset by the sender, or the connection ended.
        Ok(Err(ReadToEndError::Read(_))) => {}
        Err(_) => {
            tracing::warn!(%node, "gave up on a message that took too long");
            let _ = recv.stop(STREAM_TOO_SLOW);
        }
    }
    link.busy.fetch_sub(1, Ordering::Relaxed);
}
