//! The cluster page: one HTTP listener on every node with the page itself, its live stream, its actions and the metrics.
//!
//! Who may do what: on a loopback address everybody on this machine may look; on any other address the page's token is
//! needed for that too. Changing anything always takes the token, since whoever may change a service may become root
//! on every node. The page shows no spec's environment, so that looking reveals no secret.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod act;
mod guard;
mod live;
mod look;
mod measured;
mod metrics;
mod picture;

pub use measured::Measured;
pub use metrics::Counters;

use crate::shell::api::request_id;
use crate::shell::events::Events;
use crate::shell::handle::AgentHandle;
use crate::shell::listen;
use crate::shell::logs::LogSource;
use crate::shell::mesh::DataPlane;
use crate::shell::places::Places;
use crate::shell::vitals::Vitals;
use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use guard::Guard;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use live::Watch;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Where the page is served unless it is said otherwise. (The agents' own port is the same number in UDP.)
pub const DEFAULT_ADDR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7373);

/// Connections at a time: all open pages, and some that ask for less.
const MAX_CONNECTIONS: usize = 512;
/// For a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A page that is being served.
pub struct Page {
    pub addr: SocketAddr,
    token: String,
}

impl Page {
    /// What a person opens: with the token, behind a `#`, so that no server or proxy sees it. A page on all of the machine's
    /// addresses is opened at the one by which the node is known.
    pub fn link(&self, known: IpAddr) -> String {
        let ip = if self.addr.ip().is_unspecified() { known } else { self.addr.ip() };
        format!("http://{}/#token={}", SocketAddr::new(ip, self.addr.port()), self.token)
    }
}

/// What the page shows, and where it comes from.
#[derive(Clone)]
pub struct Sources {
    pub agent: AgentHandle,
    pub counters: Arc<Counters>,
    pub measured: Arc<Measured>,
    pub events: Events,
    pub logs: Arc<dyn LogSource>,
    pub mesh: Arc<dyn DataPlane>,
    pub vitals: Vitals,
}

struct Shared {
    agent: AgentHandle,
    counters: Arc<Counters>,
    mesh: Arc<dyn DataPlane>,
    measured: Arc<Measured>,
    logs: Arc<dyn LogSource>,
    vitals: Vitals,
    watch: Watch,
    guard: Guard,
}

/// Binds `addr` and serves until `stop`. `token` is what actions need, and on other than loopback addresses every look.
///
/// # Errors
/// The address can't be bound.
pub async fn serve(addr: SocketAddr, token: String, sources: Sources, stop: CancellationToken) -> anyhow::Result<Page> {
    let listener = TcpListener::bind(addr).await.with_context(|| format!("--dashboard {addr}: can't listen there"))?;
    let addr = listener.local_addr()?;
    let Sources { agent, counters, measured, events, logs, mesh, vitals } = sources;
    let watch = Watch::start(agent.clone(), vitals.clone(), events, stop.clone());
    let guard = Guard::new(addr, token.clone());
    let shared = Arc::new(Shared { agent, counters, measured, logs, mesh, vitals, watch, guard });
    let router = Router::new()
        .route("/", get(|| asset("text/html; charset=utf-8", include_str!("assets/page.html"))))
        .route("/page.css", get(|| asset("text/css; charset=utf-8", include_str!("assets/page.css"))))
        .route("/page.js", get(|| asset("text/javascript; charset=utf-8", include_str!("assets/page.js"))))
        .route("/live", get(live::stream))
        .route("/metrics", get(metrics::serve))
        .route("/act", post(act::act))
        .route("/history/{service}", get(act::history))
        .route("/logs/{service}", get(look::logs))
        .route("/network/{node}", get(look::network))
        .layer(middleware::from_fn(named))
        .with_state(shared);
    tokio::spawn(answer(listener, router, stop));
    Ok(Page { addr, token })
}

/// What is logged of a request stands under its name, and its answer says it, a refusal too.
async fn named(request: Request, next: Next) -> Response {
    let id = request_id::of(request.headers());
    let span = request_id::span(&id, request.method(), request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    request_id::tell(&id, response.headers_mut());
    response
}

/// Anybody may connect, so connections are counted, and each must say soon what it wants.
async fn answer(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Places::new(MAX_CONNECTIONS);
    while let Some((stream, from)) = listen::next(&listener, "the page", &stop).await {
        let Some(place) = places.take(from.ip()) else { continue };
        let (service, stop) = (TowerToHyperService::new(router.clone()), stop.clone());
        tokio::spawn(async move {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            // An open page is a request without end: nothing is waited for.
            tokio::select! {
                () = stop.cancelled() => {}
                () = place.lost() => {}
                // A client that broke off is no news.
                _ = builder.serve_connection(TokioIo::new(stream), service) => {}
            }
        });
    }
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, text).into_response()
}
