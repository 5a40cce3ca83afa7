//! Whoever calls: limits first, then TLS, then by protocol to the member's hello or to the join desk. Nothing that a
//! caller sends is read before that.

use super::reason::{self, close};
use super::shared::{MAX_HANDSHAKES, Shared};
use super::{dial, join_desk, tls, transport};
use crate::shell::places::Place;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Incoming};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::timeout;

pub async fn run(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let crowded = shared.handshakes.free() < MAX_HANDSHAKES / 2;
        if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            // It was checked that a retry is possible.
            let _ = incoming.retry();
            continue;
        }
        match shared.handshakes.take(incoming.remote_address().ip()) {
            Some(place) => drop(shared.tasks.spawn(meet(shared.clone(), incoming, place))),
            None => incoming.refuse(),
        }
    }
}

async fn meet(shared: Arc<Shared>, incoming: Incoming, place: Place) {
    let from = dial::canonical(incoming.remote_address());
    let conn = tokio::select! {
        () = place.lost() => return tracing::debug!(%from, "a handshake made way for another"),
        conn = handshake(&shared, incoming, from) => conn,
    };
    let Some(conn) = conn else { return };
    match protocol(&conn).as_deref() {
        Some(tls::ALPN_MEMBER) => {
            tokio::select! {
                () = place.lost() => close(&conn, reason::BUSY),
                () = welcome(&shared, conn.clone(), from) => {}
            }
        }
        Some(tls::ALPN_JOIN) => {
            drop(place);
            join_desk::serve(shared, conn, from).await;
        }
        // TLS agrees on one of the two or on nothing.
        _ => close(&conn, reason::PROTOCOL),
    }
}

async fn handshake(shared: &Shared, incoming: Incoming, from: SocketAddr) -> Option<Connection> {
    let shaken = async { incoming.accept()?.await };
    match timeout(shared.timing.handshake, shaken).await {
        Ok(Ok(conn)) => return Some(conn),
        Ok(Err(e)) => shared.complain(from, &reason::explain(&e).to_string()),
        Err(_) => tracing::debug!(%from, "a handshake took too long"),
    }
    None
}

fn protocol(conn: &Connection) -> Option<Vec<u8>> {
    conn.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

async fn welcome(shared: &Arc<Shared>, conn: Connection, from: SocketAddr) {
    let Some(node) = tls::proven_node(&conn) else {
        shared.complain(from, "a connection without a certificate");
        return close(&conn, reason::NO_CERTIFICATE);
    };
    if shared.banned.contains(node) {
        shared.complain(from, "a node that was removed");
        return close(&conn, reason::BANNED);
    }
    if node == shared.us {
        shared.complain(from, "a node that shows our own certificate: was our data directory copied?");
        return close(&conn, reason::PROTOCOL);
    }
    transport::trust(&conn);
    match timeout(shared.timing.handshake, dial::greet(&conn, shared.instance)).await {
        Ok(Ok(instance)) => shared.register(conn, node, node, instance),
        Ok(Err(why)) => {
            tracing::debug!(%from, %node, "a member's hello failed: {why}");
            close(&conn, reason::PROTOCOL);
        }
        Err(_) => {
            tracing::debug!(%from, %node, "a member said no hello in time");
            close(&conn, reason::PROTOCOL);
        }
    }
}
