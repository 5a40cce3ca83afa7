//! Where strangers join: one request, one answer, within limits of size, time and number. The agent says whether the
//! secret is right and who the members are; the certificate is made here.

use super::guesses::Guesses;
use super::join::{JOIN_TIMEOUT, JoinAnswer, JoinReply, JoinRequest, MAX_HOSTNAME_BYTES, MAX_JOIN_REQUEST_BYTES};
use super::reason::{self, close, printable};
use super::shared::Shared;
use super::{JoinAsk, JoinRefusal};
use crate::shell::clock::wall;
use crate::wire::codec;
use crate::wire::message::MemberEntry;
use quinn::Connection;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::time::{Instant, timeout};

pub async fn serve(shared: Arc<Shared>, conn: Connection, from: SocketAddr) {
    let Some(place) = shared.joins.take(from.ip()) else {
        return close(&conn, reason::BUSY);
    };
    let done = tokio::select! {
        () = place.lost() => return close(&conn, reason::BUSY),
        done = timeout(JOIN_TIMEOUT, talk(&shared, &conn, from)) => done,
    };
    if !matches!(done, Ok(Some(()))) {
        shared.complain(from, "a join that was not completed");
    }
    close(&conn, reason::JOIN_OVER);
}

async fn talk(shared: &Shared, conn: &Connection, from: SocketAddr) -> Option<()> {
    let (mut send, mut recv) = conn.accept_bi().await.ok()?;
    let bytes = recv.read_to_end(MAX_JOIN_REQUEST_BYTES).await.ok()?;
    let reply = match decide(shared, &bytes, from).await {
        Ok(answer) => JoinReply::Welcome(Box::new(answer)),
        Err(why) => {
            shared.complain(from, &format!("a join: {why}"));
            JoinReply::Refused(why)
        }
    };
    send.write_all(&codec::encode(&reply)).await.ok()?;
    send.finish().ok()?;
    // Until it has all arrived.
    send.stopped().await.ok()?;
    Some(())
}

async fn decide(shared: &Shared, bytes: &[u8], from: SocketAddr) -> Result<JoinAnswer, String> {
    let source = from.ip();
    if let Some(wait) = guesses(shared).blocked(source, Instant::now()) {
        return Err(format!("too many wrong tokens from {source}: try again in {} s", wait.as_secs() + 1));
    }
    let request: JoinRequest =
        codec::decode(bytes, MAX_JOIN_REQUEST_BYTES).map_err(|e| format!("can't read the request: {e}"))?;
    check(&request)?;
    let node = request.node;
    if node == shared.us || shared.banned.contains(node) {
        return Err("this node id is taken".to_owned());
    }
    let addr =
        if request.addr.ip().is_unspecified() { SocketAddr::new(source, request.addr.port()) } else { request.addr };
    let ask = JoinAsk { secret: request.secret, node, hostname: request.hostname, addr, source };
    let members = (shared.join)(ask).await.map_err(|refusal| refuse(shared, from, refusal))?;
    tracing::info!(%from, %node, %addr, version = printable(request.version.as_bytes()), "admitted a node");
    answer(shared, &request.csr_der, node, members, from)
}

/// Names and numbers before anybody is asked.
fn check(request: &JoinRequest) -> Result<(), String> {
    let hostname = &request.hostname;
    if hostname.is_empty() || hostname.len() > MAX_HOSTNAME_BYTES || hostname.chars().any(char::is_control) {
        return Err("the host name is empty, too long or not printable".to_owned());
    }
    if request.addr.port() == 0 {
        return Err("the address to reach the node at has no port".to_owned());
    }
    Ok(())
}

fn refuse(shared: &Shared, from: SocketAddr, refusal: JoinRefusal) -> String {
    match refusal {
        JoinRefusal::Other(why) => why,
        JoinRefusal::WrongToken => {
            if guesses(shared).wrong(from.ip(), Instant::now()) {
                tracing::warn!(source = %from.ip(), "too many wrong join tokens: refusing joins from there for a while");
            }
            "wrong token (it may have been rotated: ask a member for `peer token`)".to_owned()
        }
    }
}

fn answer(
    shared: &Shared,
    csr_der: &[u8],
    node: crate::ids::NodeId,
    members: Vec<MemberEntry>,
    from: SocketAddr,
) -> Result<JoinAnswer, String> {
    let identity = shared.credentials().identity;
    // Only who knew the secret gets this far: nobody else has his request parsed.
    let cert_pem = identity.admit(node, csr_der, wall()).map_err(|e| e.to_string())?;
    Ok(JoinAnswer {
        cluster: identity.cluster(),
        ca_pem: identity.pem().ca.clone(),
        ca_key_pem: identity.pem().ca_key.clone(),
        cert_pem,
        members,
        seen: from.ip(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn guesses(shared: &Shared) -> MutexGuard<'_, Guesses> {
    shared.guesses.lock().unwrap_or_else(PoisonError::into_inner)
}
