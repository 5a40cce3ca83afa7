//! Sending what waits for one peer: one task per peer while there is something to send. It opens streams one after the
//! other but does not wait for them to finish, so that a slow message holds up nobody.

use super::links::{Link, MAX_IN_FLIGHT_BYTES, Outgoing};
use super::reason::STREAM_TOO_SLOW;
use super::shared::{Shared, Step};
use crate::ids::NodeId;
use bytes::Bytes;
use quinn::SendStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Even an empty message costs this much of what may be in flight.
const MIN_COST: usize = 4 * 1024;

pub async fn run(shared: Arc<Shared>, node: NodeId) {
    loop {
        match shared.next_step(node) {
            Step::Done => return,
            // Fails when the peer was banned; the next step sees it.
            Step::Wait(mut changed) => drop(changed.changed().await),
            Step::Send { link, item, in_flight } => send(&shared, link, item, in_flight).await,
        }
    }
}

/// Whether the connection took it: it has room and the message fits.
pub fn try_datagram(link: &Link, bytes: &Bytes) -> bool {
    let fits = link.conn.max_datagram_size().is_some_and(|max| bytes.len() <= max);
    let room = link.conn.datagram_send_buffer_space() >= bytes.len();
    let sent = fits && room && link.conn.send_datagram(bytes.clone()).is_ok();
    if sent {
        link.touch();
    }
    sent
}

async fn send(shared: &Arc<Shared>, link: Arc<Link>, item: Outgoing, in_flight: Arc<Semaphore>) {
    if item.datagram && try_datagram(&link, &item.bytes) {
        return;
    }
    let cost = u32::try_from(item.bytes.len().clamp(MIN_COST, MAX_IN_FLIGHT_BYTES)).unwrap_or(u32::MAX);
    let open = async {
        let permit = in_flight.acquire_many_owned(cost).await.ok()?;
        Some((link.conn.open_uni().await.ok()?, permit))
    };
    match timeout(shared.timing.message, open).await {
        Ok(Some((stream, permit))) => {
            link.touch();
            link.busy.fetch_add(1, Ordering::Relaxed);
            shared.tasks.spawn(write(shared.clone(), link, stream, item.bytes, permit));
        }
        Ok(None) => shared.give_back(link.node, item),
        Err(_) => tracing::warn!(node = %link.node, "dropped a message: the peer does not read"),
    }
}

/// Holds the permit until the other side has acknowledged all of it.
async fn write(
    shared: Arc<Shared>,
    link: Arc<Link>,
    mut stream: SendStream,
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
) {
    let whole = async {
        stream.write_all(&bytes).await.ok()?;
        stream.finish().ok()?;
        stream.stopped().await.ok()?
    };
    match timeout(shared.timing.message, whole).await {
        Ok(Some(code)) => tracing::warn!(node = %link.node, code = code.into_inner(), "a message was refused"),
        // Received, or the connection ended.
        Ok(None) => {}
        Err(_) => {
            tracing::warn!(node = %link.node, "a message took too long");
            // Fails only if it ended meanwhile.
            let _ = stream.reset(STREAM_TOO_SLOW);
        }
    }
    link.touch();
    link.busy.fetch_sub(1, Ordering::Relaxed);
}
