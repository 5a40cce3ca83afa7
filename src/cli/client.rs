//! Asks the agent over its unix socket, or from afar ([`super::remote`]): one connection a request, JSON both ways, everything within bounds of size
//! and time. Knows HTTP and the agent's way of saying no; what is asked is the commands' affair.

use super::error::CliError;
use super::remote::{Remote, TlsFiles};
pub use crate::shell::api::escaped;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// Ten thousand tasks with a large spec each stay below it.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);
/// Where the agent of the system listens.
pub const SYSTEM_SOCKET: &str = "/run/peer/peer.sock";

#[derive(Debug, Clone)]
pub struct Client {
    way: Way,
    /// Who named the socket, if it isn't the usual one.
    named_by: Option<&'static str>,
}

#[derive(Debug, Clone)]
enum Way {
    Socket(PathBuf),
    Remote(Remote),
}

/// Whichever way it goes.
trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

/// The agent that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub host: String,
    /// The flag or variable.
    pub by: &'static str,
    pub tls: TlsFiles,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// The agent answered no, and why.
    Refused {
        status: u16,
        message: String,
    },
    /// Nobody answered. `sent`: the request may have been taken all the same.
    Unreachable {
        error: CliError,
        sent: bool,
    },
    Garbled(String),
}

impl ApiError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, ApiError::Refused { status: 404, .. })
    }

    /// Somebody else wrote between our read and our write.
    pub fn is_out_of_sequence(&self) -> bool {
        matches!(self, ApiError::Refused { message, .. } if message.contains("out of sequence"))
    }
}

/// What people are to read of a refusal: docker's clients get Swarm's wrapping, in which the reason stands last.
fn plain(message: &str) -> &str {
    let wrapped = message.strip_prefix("rpc error: code = ").and_then(|rest| rest.split_once(" desc = "));
    let told = wrapped.map_or(message, |(_, told)| told);
    told.strip_prefix("name conflicts with an existing object: ").unwrap_or(told)
}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Refused { message, .. } if message.contains("out of sequence") => {
                CliError::new("somebody else changed it at the same moment")
                    .hint("look at what is there now, and try again")
            }
            ApiError::Refused { status: 404, message } => match missing(&message) {
                Some((noun, name)) => no_such(noun, name),
                None => CliError::new(message),
            },
            ApiError::Refused { status: 409, message } if message.contains("already exists") => {
                CliError::new(plain(&message)).hint(change_it(plain(&message)))
            }
            ApiError::Refused { status: 400, message } if message.starts_with("invalid filter ") => {
                CliError::misuse(format!("--filter: {message}"))
            }
            ApiError::Refused { message, .. } => CliError::new(plain(&message)),
            ApiError::Unreachable { error, .. } => error,
            ApiError::Garbled(why) => CliError::new(format!("the agent's answer makes no sense: {why}"))
                .hint("are the agent and this command of the same version?"),
        }
    }
}

/// Of "secret token already exists".
fn change_it(message: &str) -> String {
    let mut words = message.split(' ');
    match (words.next(), words.next()) {
        (Some("service"), Some(name)) => {
            format!("change it with: peer service update {name}, or choose another --name")
        }
        (Some(noun @ ("secret" | "config")), Some(name)) => {
            format!("to give it new content: peer {noun} update {name} FILE")
        }
        _ => "choose another name".to_owned(),
    }
}

/// The one wording for a name that nothing has; docker's clients are told another one.
pub fn no_such(noun: &str, name: &str) -> CliError {
    let error = CliError::new(format!("no such {noun}: {name}"));
    match noun {
        "service" | "node" | "secret" | "config" | "stack" => {
            error.hint(format!("see what there is with: peer {noun} ls"))
        }
        "network" => error.hint("see what there is with: docker network ls"),
        _ => error,
    }
}

/// What was looked for, of the agent's "service web not found".
fn missing(message: &str) -> Option<(&str, &str)> {
    let (noun, name) = message.strip_suffix(" not found")?.split_once(' ')?;
    let known = ["service", "node", "task", "secret", "config", "network"].contains(&noun);
    (known && !name.contains(' ')).then_some((noun, name))
}

pub type Answer<T = Value> = Result<T, ApiError>;

impl Client {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { way: Way::Socket(socket.into()), named_by: None }
    }

    /// From `--host` or PEER_HOST, or where the agent of this user, or of the system, listens.
    pub fn of_host(said: Option<&Said>) -> Result<Self, CliError> {
        match said {
            Some(Said { host, by, tls }) => {
                let way = match host.strip_prefix("tcp://") {
                    Some(address) => Way::Remote(Remote::new(by, address, tls)?),
                    None if *tls != TlsFiles::default() => {
                        return Err(CliError::misuse(format!("{by} {host}: a socket takes no certificate"))
                            .hint("--tlscacert, --tlscert and --tlskey go with -H tcp://HOST:PORT"));
                    }
                    None => Way::Socket(socket_of(by, host)?),
                };
                Ok(Self { way, named_by: Some(by) })
            }
            None => Ok(Self::new(default_socket())),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        parsed(&self.get_text(path).await?)
    }

    pub async fn get_text(&self, path: &str) -> Answer<String> {
        self.send(Method::GET, path, None, None, TIMEOUT).await
    }

    /// For what may be slow and is not needed: nothing if it takes longer.
    pub async fn get_within(&self, path: &str, auth: Option<&str>, limit: Duration) -> Answer {
        parsed(&self.send(Method::GET, path, None, auth, limit).await?)
    }

    pub async fn post(&self, path: &str, body: Option<&Value>) -> Answer {
        self.post_with(path, body, None).await
    }

    /// `auth` is what X-Registry-Auth says.
    pub async fn post_with(&self, path: &str, body: Option<&Value>, auth: Option<&str>) -> Answer {
        parsed(&self.send(Method::POST, path, body, auth, TIMEOUT).await?)
    }

    pub async fn delete(&self, path: &str) -> Answer {
        parsed(&self.send(Method::DELETE, path, None, None, TIMEOUT).await?)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        auth: Option<&str>,
        limit: Duration,
    ) -> Answer<String> {
        let exchange = self.exchange(method, path, body, auth);
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(too_slow(limit)))
    }

    /// An answer that comes bit by bit, and may never end.
    pub async fn stream(&self, path: &str) -> Answer<Stream> {
        let opening = self.open(Method::GET, path, None, None);
        let opened = tokio::time::timeout(TIMEOUT, opening).await.unwrap_or_else(|_| Err(too_slow(TIMEOUT)));
        let (response, connection) = opened?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let framed = kind == Some("application/vnd.docker.multiplexed-stream");
        let status = response.status();
        let mut stream = Stream { body: response.into_body(), framed, connection };
        if status.is_success() {
            return Ok(stream);
        }
        let collected = Limited::new(&mut stream.body, MAX_ANSWER_BYTES).collect().await;
        let bytes = collected.map_err(|error| ApiError::Garbled(error.to_string()))?.to_bytes();
        Err(refusal(status, &String::from_utf8_lossy(&bytes)))
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        auth: Option<&str>,
    ) -> Answer<(Response<Incoming>, JoinHandle<hyper::Result<()>>)> {
        let unreachable = |error| ApiError::Unreachable { error, sent: false };
        let stream: Box<dyn Pipe> = match &self.way {
            Way::Socket(socket) => {
                let stream = UnixStream::connect(socket).await;
                Box::new(stream.map_err(|error| unreachable(self.no_agent(socket, &error)))?)
            }
            Way::Remote(remote) => Box::new(remote.connect().await.map_err(unreachable)?),
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Ends with the exchange; its error reaches us through the sender.
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request(method, path, body, auth)?).await.map_err(|error| broken(&error))?;
        Ok((response, connection))
    }

    /// Nobody answers at all: with which flag or variable another agent is named, and which one named this.
    fn no_agent(&self, socket: &Path, error: &std::io::Error) -> CliError {
        let error = no_agent(socket, error);
        let message = match self.named_by {
            Some(by) => format!("{by} unix://{}: {}", socket.display(), error.message()),
            None => error.message().to_owned(),
        };
        let hint = error.hint_text().unwrap_or("want the agent's socket");
        CliError::new(message)
            .hint(format!("{hint}; another agent's socket is named with --host (-H) or PEER_HOST, as unix:///PATH"))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>, auth: Option<&str>) -> Answer<String> {
        let (response, connection) = self.open(method, path, body, auth).await?;
        let status = response.status();
        let collected = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        connection.abort();
        let bytes = collected.map_err(|error| ApiError::Garbled(error.to_string()))?.to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status.is_success() { Ok(text) } else { Err(refusal(status, &text)) }
    }
}

/// The body of an answer as it comes.
pub struct Stream {
    body: Incoming,
    framed: bool,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Stream {
    /// In docker's frames, which tell stdout and stderr apart.
    pub fn is_framed(&self) -> bool {
        self.framed
    }

    pub async fn next(&mut self) -> Answer<Option<Bytes>> {
        loop {
            match self.body.frame().await.transpose().map_err(|error| broken(&error))? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn refusal(status: StatusCode, text: &str) -> ApiError {
    let said = serde_json::from_str::<Value>(text).ok();
    let message = said.as_ref().and_then(|said| said.get("message")).and_then(Value::as_str);
    let message = message.map_or_else(|| format!("the agent answered {status}"), str::to_owned);
    ApiError::Refused { status: status.as_u16(), message }
}

fn request(method: Method, path: &str, body: Option<&Value>, auth: Option<&str>) -> Answer<Request<Full<Bytes>>> {
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let unsendable = |error: &dyn std::fmt::Display| ApiError::Garbled(format!("can't ask for {path}: {error}"));
    let mut request = Request::new(Full::new(bytes));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|error: hyper::http::uri::InvalidUri| unsendable(&error))?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("peer"));
    if body.is_some() {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(auth) = auth {
        let value = HeaderValue::from_str(auth).map_err(|error| unsendable(&error))?;
        request.headers_mut().insert("x-registry-auth", value);
    }
    Ok(request)
}

fn parsed(text: &str) -> Answer {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(text).map_err(|error| ApiError::Garbled(error.to_string()))
}

fn too_slow(limit: Duration) -> ApiError {
    let error = CliError::new(format!("the agent didn't answer within {} s", limit.as_secs()))
        .hint("look at its log: journalctl -u peer");
    ApiError::Unreachable { error, sent: true }
}

fn broken(error: &hyper::Error) -> ApiError {
    let error = CliError::new(format!("the agent broke off: {error}")).hint("look at its log: journalctl -u peer");
    ApiError::Unreachable { error, sent: true }
}

fn no_agent(socket: &Path, error: &std::io::Error) -> CliError {
    let at = socket.display();
    match error.kind() {
        ErrorKind::NotFound => CliError::new(format!("no agent here: {at} does not exist"))
            .hint("is the agent running? start it with: peer start"),
        // The system says the same of it as of a socket on which nobody listens, or which one may not use.
        _ if is_something_else(socket) => CliError::new(format!("{at} is not a socket"))
            .hint("want the socket of a running agent, as unix:///run/peer/peer.sock"),
        ErrorKind::ConnectionRefused => {
            CliError::new(format!("no agent answers on {at}")).hint("is the agent running? start it with: peer start")
        }
        ErrorKind::PermissionDenied => CliError::new(format!("not allowed to speak to the agent on {at}"))
            .hint("use sudo or join the group peer: sudo usermod -aG peer \"$USER\""),
        _ => CliError::new(format!("can't speak to the agent on {at}: {error}")),
    }
}

fn is_something_else(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}

/// `unix:///path` or a path.
pub fn socket_of(by: &str, host: &str) -> Result<PathBuf, CliError> {
    let path = match host.split_once("://") {
        Some(("unix", path)) => path,
        None => host,
        Some((scheme, _)) => {
            return Err(CliError::misuse(format!("{by} {host}: {scheme}:// is not supported")).hint(
                "want the agent's socket, as unix:///run/peer/peer.sock, or tcp://HOST:PORT with a certificate",
            ));
        }
    };
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    Err(CliError::misuse(format!("{by} {host}: not the absolute path of a socket"))
        .hint("want the agent's socket, as unix:///run/peer/peer.sock"))
}

/// The socket that `peer start` of this user makes.
pub fn own_socket(data_dir: &Path) -> PathBuf {
    if is_root() {
        return PathBuf::from(SYSTEM_SOCKET);
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => Path::new(&dir).join("peer.sock"),
        None => data_dir.join("peer.sock"),
    }
}

/// A user's own agent if one was started, else the system's.
fn default_socket() -> PathBuf {
    let own = own_socket(&own_data_dir());
    if own.exists() || !Path::new(SYSTEM_SOCKET).exists() && !is_root() { own } else { PathBuf::from(SYSTEM_SOCKET) }
}

/// Where `peer start` of this user keeps its state.
pub fn own_data_dir() -> PathBuf {
    if is_root() {
        return PathBuf::from("/var/lib/peer");
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).unwrap_or_else(|| "/".into());
    Path::new(&home).join(".local/share/peer")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A path with parameters: `with_query("/services", &[("status", "true")])`.
pub fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    for (n, (key, value)) in parameters.iter().enumerate() {
        out.push(if n == 0 { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        out.push_str(&escaped(value));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::FakeAgent;
    use serde_json::json;

    #[test]
    fn hosts() {
        assert_eq!(socket_of("--host", "unix:///run/peer/peer.sock").unwrap(), Path::new("/run/peer/peer.sock"));
        assert_eq!(socket_of("--host", "/tmp/p.sock").unwrap(), Path::new("/tmp/p.sock"));
        for bad in ["ssh://10.0.0.1", "unix://", "peer.sock", ""] {
            assert_eq!(socket_of("--host", bad).unwrap_err().code(), 2, "{bad}");
        }
    }

    #[test]
    fn paths_and_parameters_are_escaped() {
        assert_eq!(
            with_query("/tasks", &[("filters", "{\"a\":1}"), ("b", "x")]),
            "/tasks?filters=%7B%22a%22%3A1%7D&b=x"
        );
        assert_eq!(escaped("my service/ü"), "my%20service%2F%C3%BC");
    }

    #[tokio::test]
    async fn a_missing_agent_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("none.sock");
        let error = CliError::from(Client::new(&socket).get("/nodes").await.unwrap_err());
        assert!(error.message().starts_with("no agent here"), "{error}");
        let hint = error.hint_text().unwrap();
        assert!(hint.contains("peer start") && hint.contains("--host (-H) or PEER_HOST"), "{hint}");
        let said = Said { host: socket.display().to_string(), by: "PEER_HOST", tls: TlsFiles::default() };
        let error = CliError::from(Client::of_host(Some(&said)).unwrap().get("/nodes").await.unwrap_err());
        assert!(error.message().starts_with("PEER_HOST unix:///"), "{error}");
        // A socket that nobody listens on any more.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let error = CliError::from(Client::new(&socket).get("/nodes").await.unwrap_err());
        assert!(error.message().starts_with("no agent answers on"), "{error}");
        // And what never was one.
        for path in [dir.path().to_owned(), dir.path().join("file")] {
            if path != dir.path() {
                std::fs::write(&path, "").unwrap();
            }
            let error = CliError::from(Client::new(&path).get("/nodes").await.unwrap_err());
            assert_eq!(error.message(), format!("{} is not a socket", path.display()));
            assert!(error.hint_text().unwrap().contains("unix:///run/peer/peer.sock"));
        }
        let denied = no_agent(&socket, &ErrorKind::PermissionDenied.into());
        assert!(denied.hint_text().unwrap().contains("use sudo or join the group peer"));
    }

    #[test]
    fn what_is_there_already_is_told_without_swarms_wrapping() {
        for (message, want, hint) in [
            (
                "rpc error: code = AlreadyExists desc = secret token already exists",
                "secret token already exists",
                "to give it new content: peer secret update token FILE",
            ),
            (
                "name conflicts with an existing object: service web already exists",
                "service web already exists",
                "change it with: peer service update web, or choose another --name",
            ),
        ] {
            let error = CliError::from(ApiError::Refused { status: 409, message: message.to_owned() });
            assert_eq!((error.message(), error.hint_text()), (want, Some(hint)));
        }
        let error =
            ApiError::Refused { status: 400, message: "rpc error: code = InvalidArgument desc = no".to_owned() };
        assert_eq!(CliError::from(error).message(), "no");
    }

    #[tokio::test]
    async fn a_refusal_comes_with_the_agents_words() {
        let agent = FakeAgent::start(|request| match request.path.as_str() {
            "/services/web" => (404, json!({ "message": "service web not found" })),
            _ => (200, json!({ "path": request.path, "body": request.body })),
        });
        let client = agent.client();
        let error = client.get("/services/web").await.unwrap_err();
        assert!(error.is_not_found());
        let error = CliError::from(error);
        assert_eq!(error.message(), "no such service: web");
        assert_eq!(error.hint_text(), Some("see what there is with: peer service ls"));
        let answer = client.post("/x?a=1", Some(&json!({ "k": "v" }))).await.unwrap();
        assert_eq!(answer, json!({ "path": "/x?a=1", "body": { "k": "v" } }));
    }
}
