//! The node's own Docker Engine, for everything that isn't ours: requests and answers pass untouched, as streams both
//! ways, upgraded connections (attach, exec, build) included. One connection a request, as Docker's own CLI does it.

use super::ApiVersion;
use super::reply::{Answer, Failure};
use crate::limits::MAX_API_BODY_BYTES;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use futures_util::StreamExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What a connection's requests are upgraded to: ended when it is `cut`, and known to be over when nobody holds one of
/// these any more.
#[derive(Clone)]
pub struct Upgrades {
    pub cut: CancellationToken,
    _open: mpsc::Sender<()>,
}

impl Upgrades {
    /// And what ends when all are over.
    pub fn new() -> (Self, mpsc::Receiver<()>) {
        let (open, all_over) = mpsc::channel(1);
        (Self { cut: CancellationToken::new(), _open: open }, all_over)
    }
}

/// What we ask the engine for ourselves must come within this; a hung engine must not hang `docker node ls`.
const ASK_TIMEOUT: Duration = Duration::from_millis(1_500);
const PING_TIMEOUT: Duration = Duration::from_millis(500);

pub struct Engine {
    socket: PathBuf,
    stop: CancellationToken,
    /// Its newest API, from the last answer seen.
    api: Mutex<Option<ApiVersion>>,
}

impl Engine {
    pub fn new(socket: PathBuf, stop: CancellationToken) -> Self {
        Self { socket, stop, api: Mutex::new(None) }
    }

    /// `None` until it has answered once.
    pub fn api_version(&self) -> Option<ApiVersion> {
        *self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The headers of its answer to a ping.
    pub async fn ping(&self) -> Option<HeaderMap> {
        let response = tokio::time::timeout(PING_TIMEOUT, self.ask(Method::HEAD, "/_ping")).await.ok()?.ok()?;
        Some(response.headers().clone())
    }

    /// Its answer to `GET path`, parsed; an error says why there is none.
    pub async fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let asking = async {
            let response = self.ask(Method::GET, path).await.map_err(|failure| failure.message)?;
            if response.status() != StatusCode::OK {
                return Err(format!("it answered {}", response.status()));
            }
            let body = Body::new(response.into_body());
            let bytes = axum::body::to_bytes(body, MAX_API_BODY_BYTES).await.map_err(|error| error.to_string())?;
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())
        };
        match tokio::time::timeout(ASK_TIMEOUT, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("it didn't answer within {} ms", ASK_TIMEOUT.as_millis())),
        }
    }

    async fn ask(&self, method: Method, path: &str) -> Result<hyper::Response<hyper::body::Incoming>, Failure> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or(Uri::from_static("/_ping"));
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("docker"));
        self.send(request).await
    }

    /// Hands the request over and streams the answer back; if both sides agree to an upgrade, joins the two connections.
    pub async fn pass(&self, mut request: Request) -> Answer {
        let client = request.extensions_mut().remove::<OnUpgrade>();
        let upgrades = request.extensions_mut().remove::<Upgrades>();
        *request.uri_mut() = origin_form(request.uri());
        let mut response = self.send(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let engine = response.extensions_mut().remove::<OnUpgrade>();
            if let Some((client, engine)) = client.zip(engine) {
                tokio::spawn(join(client, engine, self.stop.clone(), upgrades));
            }
            return Ok(response.map(|_| Body::empty()));
        }
        // Logs and events go on for ever: they must not keep the agent from stopping.
        let stop = self.stop.clone();
        Ok(response
            .map(|body| Body::from_stream(Body::new(body).into_data_stream().take_until(stop.cancelled_owned()))))
    }

    async fn send(&self, request: Request) -> Result<hyper::Response<hyper::body::Incoming>, Failure> {
        let trouble = |error: &dyn std::fmt::Display| {
            Failure::unavailable(format!(
                "the Docker Engine of this node ({}) doesn't answer: {error}",
                self.socket.display()
            ))
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| trouble(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| trouble(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to the engine ended");
            }
        });
        let response = sender.send_request(request).await.map_err(|error| trouble(&error))?;
        self.learn(response.headers());
        Ok(response)
    }

    fn learn(&self, headers: &HeaderMap) {
        let version = headers.get("api-version").and_then(|value| value.to_str().ok()).and_then(ApiVersion::parse);
        if version.is_some() {
            *self.api.lock().unwrap_or_else(PoisonError::into_inner) = version;
        }
    }
}

/// Path and query alone, as a server expects them.
fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().and_then(|path| path.as_str().parse().ok()).unwrap_or(Uri::from_static("/"))
}

/// Copies between two upgraded connections until both have ended, each half by itself (a client that has sent all its
/// input still reads the output), or until its client may no longer be here.
async fn join(client: OnUpgrade, engine: OnUpgrade, stop: CancellationToken, upgrades: Option<Upgrades>) {
    let cut = upgrades.as_ref().map(|upgrades| upgrades.cut.clone()).unwrap_or_default();
    let joined = async {
        let (client, engine) = tokio::try_join!(client, engine).map_err(std::io::Error::other)?;
        tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(engine)).await
    };
    tokio::select! {
        result = joined => if let Err(error) = result {
            tracing::debug!(%error, "upgraded connection broke");
        },
        () = stop.cancelled() => {}
        () = cut.cancelled() => {}
    }
}
