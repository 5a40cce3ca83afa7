//! One request: to a replica, and its answer back.
//!
//! It goes to another replica when the one that was picked can't be reached, when nothing of the request was sent, or when
//! the connection ended before an answer began and the request may be done twice: an idempotent method with all of its body
//! here. Everything else that goes wrong is the client's to decide about, who is told in one line.

use super::body::{Answer, Outgoing, Passed};
use super::headers::{is_idempotent, towards_client, towards_replica, upgrade};
use super::pool::{Lease, in_time};
use super::{Entry, Gate};
use crate::model::spec::AppProtocol;
use crate::shell::mesh::copy::{IDLE_TIMEOUT, copy};
use crate::shell::mesh::proxy::{EMPTY_WAIT, MAX_TRIES};
use crate::shell::mesh::reach;
use crate::shell::mesh::table::{Counted, Pick};
use crate::shell::mesh::tunnel::HELD_VERSION;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, EXPECT, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

/// A body up to this long is taken whole before the request goes on, if it may be sent again.
const REPLAY_BYTES: u64 = 64 * 1024;
/// At once; with more of them bodies go on as they come, and can't be sent again.
pub const MAX_REPLAYS: usize = 256;
/// It must be here within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// What stands between a request and its answer.
struct Trouble {
    status: StatusCode,
    why: String,
}

impl Trouble {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

pub async fn answer(gate: Arc<Gate>, entry: Arc<Entry>, request: Request<Incoming>) -> Response<Answer> {
    match forward(&gate, &entry, request).await {
        Ok(response) => response,
        Err(Trouble { status, why }) => {
            tracing::debug!(port = entry.port.1, status = status.as_u16(), why, "a request is not passed on");
            if status.is_server_error() {
                gate.shared.client_failed(entry.port);
            }
            let mut response = Response::new(Answer::Ours(Some(Bytes::from(format!("{why}\n")))));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            response
        }
    }
}

async fn forward(gate: &Gate, entry: &Arc<Entry>, mut request: Request<Incoming>) -> Result<Response<Answer>, Trouble> {
    let port = entry.port.1;
    let Ok(place) = gate.requests.clone().try_acquire_owned() else {
        return Err(Trouble::new(StatusCode::SERVICE_UNAVAILABLE, format!("port {port}: too many requests at once")));
    };
    if request.method() == Method::CONNECT {
        return Err(Trouble::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("port {port}: CONNECT is not for published ports"),
        ));
    }
    let h2 = gate.shared.options(entry.port).protocol == AppProtocol::H2c;
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let asked = upgrade(&parts).filter(|_| !h2);
    let upgrades = asked.is_some();
    towards_replica(&mut parts, entry.from.ip(), entry.to, h2, asked)
        .map_err(|why| Trouble::new(StatusCode::BAD_REQUEST, format!("port {port}: the request is no good: {why}")))?;
    let mut load = Load::of(gate, &mut parts, body).await?;

    let patience = Instant::now() + EMPTY_WAIT;
    let mut tried = Vec::new();
    let mut last = Trouble::new(StatusCode::SERVICE_UNAVAILABLE, format!("port {port}: no replica is ready"));
    let (mut tries, mut stale) = (0, 0);
    while tries < MAX_TRIES {
        // Before the look, so that no swap falls in between.
        let swap = gate.shared.next_swap();
        let Some(Pick { backend, counted, picking, .. }) = gate.shared.pick(entry.port, entry.from.ip(), &tried) else {
            if tokio::time::timeout_at(patience, swap).await.is_err() {
                break;
            }
            tried.clear();
            continue;
        };
        counted.hold(true);
        let kept = gate.pool.take(entry.port, backend.task, h2).await;
        let mut lease = match kept {
            Some(lease) => lease,
            None => match open(gate, entry, &backend, h2).await {
                Ok(lease) => lease,
                Err(error) => {
                    let status = match error.kind() {
                        io::ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                        _ => StatusCode::BAD_GATEWAY,
                    };
                    last = Trouble::new(status, format!("port {port}: no replica could be reached: {error}"));
                    tries += 1;
                    tried.push(backend.task);
                    gate.shared.replica_failed(entry.port, backend.task);
                    continue;
                }
            },
        };
        // Counted where the replica runs, and held there until it has answered: no stop overtakes it.
        drop(picking);
        let request = load.request(&parts, &counted, &lease);
        let sent = tokio::select! {
            sent = timeout(IDLE_TIMEOUT, lease.sender.send(request)) => sent,
            // A tunnel takes a while to see that nobody is at its other end.
            () = gate.shared.node_down(&backend), if load.is_whole() => {
                gate.pool.forget(entry.port, backend.task);
                gate.shared.replica_failed(entry.port, backend.task);
                last = Trouble::new(StatusCode::BAD_GATEWAY, format!("port {port}: the replica's node is down"));
                tries += 1;
                tried.push(backend.task);
                continue;
            }
        };
        let mut error = match sent {
            Ok(Ok(response)) => {
                return Ok(pass(gate, entry, response, (counted, lease, place), upgrades.then_some(on_upgrade)));
            }
            Ok(Err(error)) => error,
            Err(_) => {
                let why = format!("port {port}: the replica has not answered within {} s", IDLE_TIMEOUT.as_secs());
                return Err(Trouble::new(StatusCode::GATEWAY_TIMEOUT, why));
            }
        };
        let why = error.error().to_string();
        let (garbage, used) = (error.error().is_parse(), lease.is_used);
        gate.pool.forget(entry.port, backend.task);
        let unsent = error.take_message();
        let again = unsent.is_some() || (!garbage && load.is_whole());
        if let Some(unsent) = unsent {
            load.restore(unsent.into_body());
        }
        if used && again && stale < MAX_TRIES {
            // Its end was on the way when it was used: nothing is wrong with the replica. Its other connections are
            // forgotten, so that it gets a new one if it is picked again.
            stale += 1;
            continue;
        }
        gate.shared.replica_failed(entry.port, backend.task);
        last = Trouble::new(StatusCode::BAD_GATEWAY, format!("port {port}: the replica did not answer: {why}"));
        if !again {
            break;
        }
        tries += 1;
        tried.push(backend.task);
    }
    Err(last)
}

async fn open(gate: &Gate, entry: &Entry, backend: &crate::routes::Backend, h2: bool) -> io::Result<Lease> {
    let stream = reach::connect(&*gate.tunnels, backend, HELD_VERSION).await?;
    let lease = in_time(gate.pool.open(entry.port, backend.task, h2, stream)).await;
    lease.ok_or_else(|| io::Error::other("it does not speak the port's protocol"))
}

/// A request's body, and whether it can be sent again.
enum Load {
    /// With its place among the bodies that are held.
    Whole(Option<(Bytes, OwnedSemaphorePermit)>),
    Stream(Option<Incoming>),
}

impl Load {
    async fn of(gate: &Gate, parts: &mut Parts, body: Incoming) -> Result<Self, Trouble> {
        let small = body.size_hint().upper().is_some_and(|bytes| bytes <= REPLAY_BYTES);
        if !small || !is_idempotent(&parts.method) {
            return Ok(Self::Stream(Some(body)));
        }
        if body.is_end_stream() {
            return Ok(Self::Whole(None));
        }
        let Ok(place) = gate.replays.clone().try_acquire_owned() else { return Ok(Self::Stream(Some(body))) };
        // We have said "continue" by reading it.
        parts.headers.remove(EXPECT);
        match timeout(BODY_TIMEOUT, body.collect()).await {
            Ok(Ok(body)) => Ok(Self::Whole(Some((body.to_bytes(), place)).filter(|(bytes, _)| !bytes.is_empty()))),
            Ok(Err(_)) => Err(Trouble::new(StatusCode::BAD_REQUEST, "the request's body broke off")),
            Err(_) => Err(Trouble::new(StatusCode::REQUEST_TIMEOUT, "the request's body is too slow")),
        }
    }

    fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    fn request(&mut self, parts: &Parts, counted: &Counted, lease: &Lease) -> Request<Outgoing> {
        let body = match self {
            Self::Whole(held) => {
                let bytes = held.as_ref().map(|(bytes, _)| bytes.clone());
                counted.sent(bytes.as_ref().map_or(0, Bytes::len));
                Outgoing::Whole(bytes)
            }
            Self::Stream(body) => match body.take() {
                Some(body) => {
                    let all_sent = lease.all_sent();
                    all_sent.store(body.is_end_stream(), Ordering::Relaxed);
                    Outgoing::Stream { body, meter: counted.meter(), all_sent }
                }
                None => Outgoing::Whole(None),
            },
        };
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.version_mut() = parts.version;
        *request.headers_mut() = parts.headers.clone();
        request
    }

    fn restore(&mut self, unsent: Outgoing) {
        if let (Self::Stream(body), Outgoing::Stream { body: unsent, .. }) = (self, unsent) {
            *body = Some(unsent);
        }
    }
}

/// The answer's head has come; its body passes as the client takes it.
fn pass(
    gate: &Gate,
    entry: &Arc<Entry>,
    mut response: Response<Incoming>,
    (counted, lease, place): (Counted, Lease, OwnedSemaphorePermit),
    client: Option<OnUpgrade>,
) -> Response<Answer> {
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    towards_client(response.headers_mut(), upgraded && client.is_some());
    if !upgraded {
        return response.map(|body| Answer::Passed(Passed::new(body, counted, lease, place)));
    }
    let Some(client) = client else {
        gate.shared.client_failed(entry.port);
        let mut response =
            Response::new(Answer::Ours(Some(Bytes::from_static(b"the replica changed the protocol unasked\n"))));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        return response;
    };
    let replica = hyper::upgrade::on(&mut response);
    let (entry, stop) = (entry.clone(), gate.stop.clone());
    tokio::spawn(async move {
        let joined = async {
            let (client, replica) = tokio::try_join!(client, replica)?;
            // From here on a connection like any other.
            counted.hold(false);
            // Its end is all that hyper lets us tell either side.
            let _ = copy(counted, TokioIo::new(client), TokioIo::new(replica)).await;
            Ok::<(), hyper::Error>(())
        };
        tokio::select! {
            // One that broke off in between has nobody to be told.
            _ = joined => {}
            () = stop.cancelled() => {}
        }
        drop(entry);
    });
    response.map(|_| Answer::Ours(None))
}
