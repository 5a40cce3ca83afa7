//! What twenty open pages cost the agent that serves them: the binary in a process of its own, with the built-in engine, while
//! something changes twice a second; without pages and with them, in one run. Figures are printed, not judged: the machine
//! may be busy.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod page_support;

use page_support::{PATIENCE, Stream, http};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

const PAGES: usize = 20;
const TASKS: u32 = 50;
const MEASURE: Duration = Duration::from_secs(6);
const CHANGE_EVERY: Duration = Duration::from_millis(500);

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn peer(socket: &Path, args: &[&str]) -> String {
    let host = format!("unix://{}", socket.display());
    let output = Command::new(env!("CARGO_BIN_EXE_peer")).args(["-H", &host]).args(args).output().unwrap();
    assert!(output.status.success(), "peer {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The agent's own word on itself: CPU seconds, and resident bytes.
async fn usage(addr: SocketAddr) -> (f64, f64) {
    let (status, text) = http(addr, "GET", "/metrics", None, None).await;
    assert_eq!(status, 200);
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap();
    (value("peer_process_cpu_seconds_total "), value("peer_process_resident_memory_bytes "))
}

/// The share of one CPU, and bytes, while the service goes from one size to another and back.
async fn measured(addr: SocketAddr, token: &str, service: &str) -> (f64, f64) {
    let (before, _) = usage(addr).await;
    let begun = Instant::now();
    let (mut next, mut more) = (begun, false);
    while begun.elapsed() < MEASURE {
        let replicas = if more { TASKS } else { TASKS - 1 };
        more = !more;
        let act = json!({"do": "scale", "service": service, "replicas": replicas});
        assert_eq!(http(addr, "POST", "/act", Some(token), Some(act)).await.0, 200);
        next += CHANGE_EVERY;
        sleep_until(next).await;
    }
    let took = begun.elapsed().as_secs_f64();
    let (after, memory) = usage(addr).await;
    ((after - before) / took, memory)
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_open_pages_are_told_in_cpu_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("peer.sock");
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let page = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let agent = Command::new(env!("CARGO_BIN_EXE_peer"))
        .args(["start", "--engine", "demo", "--advertise-addr", "127.0.0.1", "--dashboard", &page.to_string()])
        .args(["--listen-addr", &free.to_string()])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .arg("--socket")
        .arg(&socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _agent = Agent(agent);
    let deadline = Instant::now() + PATIENCE;
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < deadline, "the agent's socket answers");
        sleep(Duration::from_millis(20)).await;
    }
    let (tasks, link) = (TASKS.to_string(), peer(&socket, &["dashboard"]));
    let (addr, token) = link.trim().strip_prefix("http://").unwrap().split_once("/#token=").unwrap();
    let (addr, token): (SocketAddr, _) = (addr.parse().unwrap(), token.to_owned());
    peer(
        &socket,
        &["service", "create", "-d", "--name", "web", "--replicas", &tasks, "--no-resolve-image", "demo/greeter:1"],
    );
    let mut stream = Stream::open(addr, None).await;
    let running = |stream: &Stream| stream.all("t/").filter(|task: &&Value| task["phase"] == "running").count();
    while running(&stream) < TASKS as usize {
        assert!(stream.next().await, "the stream goes on");
    }
    let service = stream.all("s/").next().unwrap()["id"].as_str().unwrap().to_owned();
    drop(stream);

    let alone = measured(addr, &token, &service).await;
    let pages: Vec<_> = (0..PAGES)
        .map(|_| {
            tokio::spawn(async move {
                let mut stream = Stream::open(addr, None).await;
                while stream.next().await {}
            })
        })
        .collect();
    let watched = measured(addr, &token, &service).await;
    pages.iter().for_each(|page| page.abort());
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    println!(
        "{PAGES} pages, {TASKS} tasks, a change every {} ms: {:.1} % of a CPU and {:.1} MiB with them, {:.1} % and {:.1} MiB without",
        CHANGE_EVERY.as_millis(),
        100.0 * watched.0,
        mib(watched.1),
        100.0 * alone.0,
        mib(alone.1),
    );
    assert!(watched.1 > 0.0 && alone.1 > 0.0);
}
