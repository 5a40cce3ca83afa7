//! A small HTTP client, and the page's stream as a page reads it.
#![allow(dead_code)]

use peer::core::face::Request;
use peer::shell::demo::Demo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where a node's page is, and its token.
pub fn link_of(demo: &Demo, node: usize) -> (SocketAddr, String) {
    let link = demo.agent(node).unwrap().page.clone().expect("the demo serves pages");
    let (addr, token) = link.strip_prefix("http://").unwrap().split_once("/#token=").unwrap();
    (addr.parse().unwrap(), token.to_owned())
}

pub async fn deploy(demo: &Demo, replicas: u32) -> String {
    let spec = json!({
        "Name": "greeters",
        "TaskTemplate": {"ContainerSpec": {"Image": "demo/greeter:1", "Env": ["PASSWORD=SECRET"]}},
        "Mode": {"Replicated": {"Replicas": replicas}},
        "UpdateConfig": {"Parallelism": 2, "Order": "start-first", "Monitor": 100_000_000u64},
    });
    let create = Request::CreateService { spec_json: spec.to_string(), auth: None };
    demo.agent(0).unwrap().handle.request(create).await.unwrap().id
}

fn head(method: &str, addr: SocketAddr, path: &str, token: Option<&str>, body: &str) -> String {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{token}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    length.is_some_and(|length| body.len() >= length)
}

/// Status and body.
pub async fn http(
    addr: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<Value>,
) -> (u16, String) {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let call = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(head(method, addr, path, token, &body).as_bytes()).await.unwrap();
        // Not until the end: some servers leave the connection open, whatever they are told.
        let mut answer = Vec::new();
        while !is_whole(&answer) && stream.read_buf(&mut answer).await.unwrap() > 0 {}
        String::from_utf8(answer).unwrap()
    };
    let answer = timeout(PATIENCE, call).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// `GET /live`, and what it has added up to.
pub struct Stream {
    socket: TcpStream,
    /// All that came, as it came.
    pub text: String,
    read: usize,
    pub seen: BTreeMap<String, Value>,
    /// What happened, in its order.
    pub happened: Vec<Value>,
}

impl Stream {
    /// With its first picture.
    pub async fn open(addr: SocketAddr, token: Option<&str>) -> Self {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        socket.write_all(head("GET", addr, "/live", token, "").as_bytes()).await.unwrap();
        let mut stream = Self { socket, text: String::new(), read: 0, seen: BTreeMap::new(), happened: Vec::new() };
        assert!(stream.next().await);
        stream
    }

    pub fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.seen.iter().filter(move |(key, _)| key.starts_with(kind)).map(|(_, value)| value)
    }

    /// Takes one event in; false at the stream's end.
    pub async fn next(&mut self) -> bool {
        let mut buffer = [0u8; 16 * 1024];
        loop {
            // The data of an event is one line; chunk sizes stand on lines of their own.
            if let Some(end) = self.text[self.read..].find("\n\n") {
                let event = self.text[self.read..self.read + end].to_owned();
                self.read += end + 2;
                let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
                if event.contains("event: happened") {
                    self.happened.extend(serde_json::from_str::<Vec<Value>>(data).unwrap());
                } else {
                    self.take(event.contains("event: picture"), data);
                }
                return true;
            }
            match timeout(PATIENCE, self.socket.read(&mut buffer)).await.expect("the page says something now and then")
            {
                Ok(0) | Err(_) => return false,
                Ok(count) => self.text.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
            }
        }
    }

    fn take(&mut self, whole: bool, data: &str) {
        if whole {
            self.seen.clear();
        }
        let entries: BTreeMap<String, Value> = serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}"));
        for (key, value) in entries {
            match value {
                Value::Null => drop(self.seen.remove(&key)),
                value => drop(self.seen.insert(key, value)),
            }
        }
    }
}
