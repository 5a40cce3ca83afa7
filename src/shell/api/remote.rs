//! The API over TCP, for those who hold a client's certificate of this cluster, and for nobody else: both sides are proven
//! before a byte of a request is read. Behind that it is the same API within the same bounds as on the unix socket.
//! Whether the certificate was revoked is asked for each request, and every few seconds while a long answer runs or a
//! connection that was handed to the engine (`exec -it`) is open.

use super::engine::Upgrades;
use super::handle::cert;
use super::reply::Failure;
use super::{Api, dispatch};
use crate::shell::identity::ClientName;
use crate::shell::listen;
use crate::shell::places::{Complaints, Place, Places};
use anyhow::Context;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Of clients that have proven themselves; one more is turned away.
const MAX_CONNECTIONS: usize = 256;
/// Of those that have not.
const MAX_HANDSHAKES: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a request's head; its body has a bound of its own.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_FOR_REVOCATION: Duration = Duration::from_secs(5);
/// Long before the certificate that is shown ends, another is made.
const RENEW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Makes the configuration anew, with a fresh certificate.
pub type MakeTls = Box<dyn Fn() -> anyhow::Result<Arc<ServerConfig>> + Send>;

pub async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| format!("--api tcp://{addr}: can't listen there"))
}

pub async fn serve(api: Arc<Api>, listener: TcpListener, make_tls: MakeTls, stop: CancellationToken) {
    let callers = Arc::new(Callers {
        unproven: Places::new(MAX_HANDSHAKES),
        proven: Semaphore::new(MAX_CONNECTIONS),
        complaints: Mutex::default(),
    });
    let mut made: Option<(Instant, TlsAcceptor)> = None;
    while let Some((stream, from)) = listen::next(&listener, "the API over TCP", &stop).await {
        let Some(place) = callers.unproven.take(from.ip()) else {
            callers.complain(Some(from), "too many others are proving themselves");
            continue;
        };
        if made.as_ref().is_none_or(|(at, _)| at.elapsed() > RENEW) {
            match make_tls() {
                Ok(tls) => made = Some((Instant::now(), TlsAcceptor::from(tls))),
                Err(error) => tracing::error!("the API over TCP has no certificate to show: {error:#}"),
            }
        }
        let Some((_, acceptor)) = made.clone() else { continue };
        let (api, stop, callers) = (api.clone(), stop.clone(), callers.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(api, stream, acceptor, place, &callers) => {}
            }
        });
    }
}

struct Callers {
    unproven: Arc<Places>,
    proven: Semaphore,
    complaints: Mutex<Complaints>,
}

impl Callers {
    fn complain(&self, from: Option<SocketAddr>, why: &str) {
        if self.complaints.lock().unwrap_or_else(PoisonError::into_inner).may_complain(Instant::now()) {
            tracing::info!(?from, "turned away from the API: {why}");
        }
    }
}

async fn connection(api: Arc<Api>, stream: TcpStream, acceptor: TlsAcceptor, place: Place, callers: &Callers) {
    let peer = stream.peer_addr().ok();
    let shaken = tokio::select! {
        () = place.lost() => return callers.complain(peer, "slower to prove itself than others that came"),
        shaken = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => shaken,
    };
    let tls = match shaken {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return callers.complain(peer, &error.to_string()),
        Err(_) => return callers.complain(peer, "too slow to prove itself"),
    };
    // A member's certificate is signed by the same CA, but it is no client's.
    let chain = tls.get_ref().1.peer_certificates();
    let Some(client) = chain.and_then(|chain| ClientName::of(chain.first()?).ok()) else {
        return callers.complain(peer, "a certificate that is no client's");
    };
    drop(place);
    let Ok(_one_of_them) = callers.proven.try_acquire() else {
        return callers.complain(peer, &format!("{MAX_CONNECTIONS} connections of clients are open (MAX_CONNECTIONS)"));
    };
    tracing::debug!(?peer, client = client.name, "a client of the API connects");
    serve_client(api, tls, client, LOOK_FOR_REVOCATION).await;
}

/// To the end of the connection and of all that it was upgraded to, or until the client's certificate is revoked.
pub(super) async fn serve_client<S>(api: Arc<Api>, stream: S, client: ClientName, look_every: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = Arc::new(client);
    let (upgrades, mut all_over) = Upgrades::new();
    let cut = upgrades.cut.clone();
    let asked = (api.clone(), client.clone(), upgrades);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (api, client, upgrades) = asked.clone();
        async move {
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(upgrades);
            Ok::<_, Infallible>(match cert::check(&api, &client).await {
                Ok(()) => dispatch::entry(State(api), request).await,
                Err(failure) => failure.into_response(),
            })
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let serving = async {
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
            tracing::debug!(client = client.name, %error, "a connection to the API broke");
        }
        // What was upgraded goes on by itself, and holds an end of this until it is over.
        all_over.recv().await;
    };
    tokio::select! {
        () = serving => {}
        () = revoked(&api, &client, look_every) => {
            cut.cancel();
            tracing::warn!(client = client.name, "its certificate was revoked: cut off");
        }
    }
}

async fn revoked(api: &Api, client: &ClientName, look_every: Duration) {
    loop {
        tokio::time::sleep(look_every).await;
        if let Err(Failure { status: StatusCode::FORBIDDEN, .. }) = cert::check(api, client).await {
            return;
        }
    }
}
