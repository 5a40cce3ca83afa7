//! `/events` with an engine that comes and goes: a socket and a few lines stand in for Docker.

use super::Server;
use crate::core::chronicle::{Happening, Kind};
use crate::shell::events::Events;
use crate::time::Wall;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// Says the n-th time what n containers did, cut in two in the middle of a line, and hangs up when told to.
async fn engine(dir: &Path, mut hang_up: mpsc::Receiver<()>) -> (PathBuf, mpsc::Receiver<String>) {
    let path = dir.join("docker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (asked, requests) = mpsc::channel(8);
    tokio::spawn(async move {
        let mut count = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let line = String::from_utf8(head).unwrap().lines().next().unwrap().to_owned();
            if !line.contains("/events") {
                continue;
            }
            asked.send(line).await.unwrap();
            count += 1;
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            let event = format!("{{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{{\"ID\":\"c{count}\"}}}}\n");
            for part in [&event[..20], &event[20..]] {
                stream.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
            hang_up.recv().await;
        }
    });
    (path, requests)
}

fn happened(events: &Events, id: &str) {
    let attributes = BTreeMap::from([("name", "web".to_owned())]);
    let happening = Happening { at: Wall(5_000), kind: Kind::Service, action: "update", id: id.to_owned(), attributes };
    events.add([happening]);
}

struct Client(Lines<BufReader<UnixStream>>);

impl Client {
    async fn open(server: &Server, path: &str) -> Self {
        let mut stream = UnixStream::connect(server.socket()).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n").as_bytes()).await.unwrap();
        let mut client = Self(BufReader::new(stream).lines());
        assert!(client.line().await.unwrap().starts_with("HTTP/1.1 200"));
        client
    }

    async fn line(&mut self) -> Option<String> {
        tokio::time::timeout(Duration::from_secs(20), self.0.next_line()).await.expect("a line in 20 s").unwrap()
    }

    /// The id of what the next event happened to; nothing at the stream's end.
    async fn next(&mut self) -> Option<String> {
        loop {
            let line = self.line().await?;
            if line == "0" {
                return None;
            }
            if let Ok(event) = serde_json::from_str::<Value>(&line)
                && event.is_object()
            {
                return Some(event["Actor"]["ID"].as_str().unwrap().to_owned());
            }
        }
    }
}

#[tokio::test]
async fn the_clusters_events_and_the_engines_are_one_stream_and_either_survives_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let (hang_up, told) = mpsc::channel(1);
    let (path, mut requests) = engine(dir.path(), told).await;
    let server = Server::start(Some(path)).await;
    let mut client = Client::open(&server, "/v1.41/events?filters=%7B%22label%22%3A%5B%5D%7D").await;
    assert_eq!(client.next().await.unwrap(), "c1", "whole, though it came in two");
    assert!(requests.recv().await.unwrap().starts_with("GET /v1.41/events?filters="), "as the client said it");
    happened(&server.events, "s1");
    assert_eq!(client.next().await.unwrap(), "s1");
    hang_up.send(()).await.unwrap();
    happened(&server.events, "s2");
    assert_eq!(client.next().await.unwrap(), "s2", "the engine is away");
    assert_eq!(client.next().await.unwrap(), "c2", "and it is back");
    let again = requests.recv().await.unwrap();
    assert!(again.contains("since=") && again.contains("filters=%7B%22label"), "{again}");
    server.stop().await;
}

#[tokio::test]
async fn what_was_kept_is_told_and_ends_where_it_was_asked_to() {
    let server = Server::start(None).await;
    for id in ["s1", "s2", "s3"] {
        happened(&server.events, id);
    }
    // One nanosecond apart, since the clock said the same.
    let mut client = Client::open(&server, "/events?since=5.000000001&until=5.000000002").await;
    assert_eq!(client.next().await.unwrap(), "s2");
    assert_eq!(client.next().await.unwrap(), "s3");
    assert_eq!(client.next().await, None);
    let mut none = Client::open(&server, "/events?since=1&until=6&filters=%7B%22service%22%3A%5B%22db%22%5D%7D").await;
    assert_eq!(none.next().await, None);
    server.stop().await;
}

#[tokio::test]
async fn an_engine_that_is_gone_takes_no_event_of_the_cluster_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Some(dir.path().join("nobody.sock"))).await;
    let mut client = Client::open(&server, "/events").await;
    happened(&server.events, "s1");
    assert_eq!(client.next().await.unwrap(), "s1");
    server.stop().await;
}
