//! Requests to the sockets of a lab's engines and agents. HTTP/1.0, so that no answer comes in chunks and the end of
//! the connection is the end of the answer.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The answer's body if it was a success; its message otherwise.
pub fn ask(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<String> {
    ask_within(LIMIT, socket, method, path, body)
}

/// Likewise, but an error if nothing comes for so long.
pub fn ask_within(limit: Duration, socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<String> {
    let (status, answer) = exchange(limit, socket, method, path, body)
        .with_context(|| format!("{method} {path} at {}", socket.display()))?;
    if !(200..300).contains(&status) {
        bail!("{method} {path}: {status} {}", answer.trim());
    }
    Ok(answer)
}

pub fn json(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    json_within(LIMIT, socket, method, path, body)
}

pub fn json_within(limit: Duration, socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let answer = ask_within(limit, socket, method, path, body)?;
    if answer.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&answer)?) }
}

fn exchange(limit: Duration, socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: lab\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}
