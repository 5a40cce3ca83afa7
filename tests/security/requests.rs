//! Messages that are too long, too slow or have no end: on the API's socket and in tunnels. (Those between members and before a
//! handshake are tried in `net_links.rs` and `net_join.rs`, and those of crowds in `crowd.rs`.)

use crate::agents::{Process, command, spawn, start, without_a_core};
use crate::net_support::{DEADLINE, Rogue, until};
use peer::wire::codec;
use peer::wire::message::Message;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

async fn agent(dir: &Path) -> Process {
    spawn(command(dir, 1, &["--dashboard", "none"]), dir.join("1.sock")).await
}

fn connect(agent: &Process) -> UnixStream {
    let stream = UnixStream::connect(&agent.socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends the head, then the piece again and again until the agent has had enough: how much it took, and what it answered.
fn endless(agent: &Process, head: &str, piece: &[u8]) -> (usize, String) {
    const TOO_MUCH: usize = 256 * 1024 * 1024;
    let mut stream = connect(agent);
    stream.write_all(head.as_bytes()).unwrap();
    let mut taken = 0;
    while !piece.is_empty() && taken < TOO_MUCH && stream.write_all(piece).is_ok() {
        taken += piece.len();
    }
    let mut answer = Vec::new();
    // It may be cut off with bytes of ours unread.
    let _ = stream.read_to_end(&mut answer);
    (taken, String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_end_are_ended_and_others_are_served() {
    const MIB: usize = 1024 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path()).await;
    let before = agent.resident_kib();
    let _silent: Vec<UnixStream> = (0..500).map(|_| connect(&agent)).collect();
    let piece = vec![b'a'; 64 * 1024];

    let (taken, answer) = endless(&agent, "GET /", &piece);
    assert!(taken < 8 * MIB, "a line of {taken} bytes");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");

    let header: Vec<u8> = b"X-More: and more\r\n".repeat(1_000);
    let (taken, answer) = endless(&agent, "GET /_ping HTTP/1.1\r\nHost: peer\r\n", &header);
    assert!(taken < 8 * MIB, "a head of {taken} bytes");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");

    let chunk = [b"10000\r\n", piece.as_slice(), b"\r\n"].concat();
    let (taken, answer) =
        endless(&agent, "POST /services/create HTTP/1.1\r\nHost: peer\r\nTransfer-Encoding: chunked\r\n\r\n", &chunk);
    assert!(taken < 16 * MIB, "a body of {taken} bytes");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");

    let head = format!("POST /services/create HTTP/1.1\r\nHost: peer\r\nContent-Length: {}\r\n\r\n", usize::MAX / 2);
    let (taken, answer) = endless(&agent, &head, &piece);
    assert!(taken < 16 * MIB, "a body of {taken} bytes");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");

    let (_, answer) = endless(&agent, "\u{16}\u{3}\u{1}\u{2}\u{0} not HTTP at all\r\n\r\n", b"");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");

    assert!(agent.peer(&["node", "ls"]).0);
    let growth = agent.resident_kib().saturating_sub(before);
    assert!(growth < 64 * 1024, "{growth} KiB more");
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_to_nowhere_end_and_hold_up_no_message() {
    let dir = tempfile::tempdir().unwrap();
    let one = start(dir.path(), 1, None).await;
    let identity = one.joined_with(&one.token().await).await.unwrap().identity;
    let conn = Rogue::new(Some(&identity), b"peer/1").call_as_member(one.id(), one.agent.addr).await;
    let mut streams = Vec::new();
    for kind in 0..=255u8 {
        // One that never says whose it is. (It is there as soon as a later one is.)
        let (send, recv) = conn.open_bi().await.unwrap();
        streams.push((kind, send, recv));
        for rest in [&b""[..], &[0xff; 3], &[0xff; 4_000]] {
            let (mut send, recv) = conn.open_bi().await.unwrap();
            send.write_all(&[&[kind], rest].concat()).await.unwrap();
            // Kept open: it is for the agent to end it.
            streams.push((kind, send, recv));
        }
    }
    // Messages of others pass by all of them.
    let other = without_a_core(one.joined_with(&one.token().await).await.unwrap().identity);
    let refused = one.ask(|core| core.cluster().refused_records).await;
    other.net.send(one.id(), one.agent.addr, codec::encode(&Message::Compare { hash: 1 }), false);
    until("the other is connected", || other.net.is_connected(one.id())).await;
    assert_eq!(one.ask(|core| core.cluster().refused_records).await, refused);
    for (kind, _send, mut recv) in streams {
        let ends = timeout(DEADLINE, recv.read_to_end(1_000));
        let said = ends.await.unwrap_or_else(|_| panic!("a stream of kind {kind} is never ended"));
        // Some are answered: there is no such replica, no such task.
        assert!(said.is_err() || said.is_ok_and(|bytes| bytes.len() < 200), "kind {kind}");
    }
    assert!(timeout(Duration::from_millis(1), conn.closed()).await.is_err(), "the link lives on");
}
