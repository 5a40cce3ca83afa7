//! For tests: an agent that answers what the test says, and a console that remembers.

use super::client::Client;
use super::console::Console;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::net::UnixListener;

pub struct Asked {
    pub method: String,
    /// With the query, decoded as far as the tests need it.
    pub path: String,
    pub auth: Option<String>,
    pub body: Value,
}

pub struct FakeAgent {
    dir: tempfile::TempDir,
    serving: tokio::task::JoinHandle<()>,
    pub log: Arc<Mutex<Vec<String>>>,
}

impl FakeAgent {
    /// Answers on a socket of its own until it is dropped.
    pub fn start(answer: impl FnMut(Asked) -> (u16, Value) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("peer.sock")).unwrap();
        let answer = Arc::new(Mutex::new(answer));
        let log = Arc::new(Mutex::new(Vec::new()));
        let serving = tokio::spawn({
            let log = log.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (answer, log) = (answer.clone(), log.clone());
                    let service = service_fn(move |request| respond(request, answer.clone(), log.clone()));
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                    );
                }
            }
        });
        Self { dir, serving, log }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("peer.sock")
    }

    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// "GET /services" and so on, in the order asked.
    pub fn asked(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn respond<F: FnMut(Asked) -> (u16, Value)>(
    request: hyper::Request<Incoming>,
    answer: Arc<Mutex<F>>,
    log: Arc<Mutex<Vec<String>>>,
) -> Result<hyper::Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let asked = Asked {
        method: head.method.to_string(),
        path: decoded(&head.uri.to_string()),
        auth: head.headers.get("x-registry-auth").map(|v| v.to_str().unwrap().to_owned()),
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    };
    log.lock().unwrap().push(format!("{} {}", asked.method, asked.path));
    let (status, value) = (answer.lock().unwrap())(asked);
    let framed = value.get(FRAMES).and_then(Value::as_array);
    let lines = value.get(LINES).and_then(Value::as_array);
    let (kind, body) = match (framed, lines) {
        (_, Some(lines)) => {
            ("application/json", lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect())
        }
        (Some(bytes), None) => {
            let bytes = bytes.iter().map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()).collect();
            ("application/vnd.docker.multiplexed-stream", bytes)
        }
        (None, None) => ("application/json", value.to_string().into_bytes()),
    };
    let response = hyper::Response::builder().status(status).header("content-type", kind);
    Ok(response.body(Full::new(Bytes::from(body))).unwrap())
}

const FRAMES: &str = "frames of docker's multiplexed stream";

/// An answer that is these bytes and no JSON.
pub fn frames(bytes: &[u8]) -> Value {
    serde_json::json!({ FRAMES: bytes })
}

const LINES: &str = "lines of JSON";

/// An answer of one value a line.
pub fn lines(values: &[Value]) -> Value {
    serde_json::json!({ LINES: values })
}

fn decoded(text: &str) -> String {
    [("%7B", "{"), ("%7D", "}"), ("%22", "\""), ("%3A", ":"), ("%2C", ","), ("%2F", "/"), ("%40", "@")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[derive(Clone, Default)]
pub struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A console, and what was printed to its out and err.
pub fn console(terminal: bool) -> (Console, Buffer, Buffer) {
    let (out, err) = (Buffer::default(), Buffer::default());
    (Console::of_buffers(out.clone(), err.clone(), terminal), out, err)
}
