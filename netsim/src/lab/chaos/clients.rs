//! The cluster's users: a bounded load of new connections to published ports of every node.

use super::story::{locked, wall_ms};
use crate::lab::address;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
/// Between two requests to one node.
const EVERY: Duration = Duration::from_millis(100);
const MAX_KEPT: usize = 20_000;

#[derive(Debug, Clone)]
pub struct Failure {
    pub began: u64,
    pub ended: u64,
    pub node: usize,
    pub port: u16,
    pub why: String,
}

#[derive(Default)]
pub struct Clients {
    pub answered: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

impl Clients {
    /// One user of one node, until told to end.
    pub fn run(&self, node: usize, ports: &[u16], end: &AtomicBool) {
        for port in ports.iter().cycle() {
            if end.load(Ordering::Relaxed) {
                return;
            }
            let began = wall_ms();
            match request(node, *port) {
                Ok(()) => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
                Err(why) => {
                    let failure = Failure { began, ended: wall_ms(), node, port: *port, why };
                    let mut failures = locked(&self.failures);
                    if failures.len() < MAX_KEPT {
                        failures.push(failure);
                    }
                }
            }
            thread::sleep(EVERY);
        }
    }

    pub fn failed(&self) -> usize {
        locked(&self.failures).len()
    }

    /// Of requests that lay within one of these spans from beginning to end.
    pub fn failed_within(&self, spans: &[Range<u64>]) -> Vec<Failure> {
        let within = |f: &&Failure| spans.iter().any(|s| s.contains(&f.began) && s.contains(&f.ended));
        locked(&self.failures).iter().filter(within).cloned().collect()
    }
}

/// As by somebody outside; any greeter's answer will do.
pub fn request(node: usize, port: u16) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    let ip: IpAddr = address(node).parse().map_err(|_| "no address".to_owned())?;
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ip, port), PATIENCE).map_err(told)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(told)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").map_err(told)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(told)?;
    let answer = String::from_utf8_lossy(&answer);
    if answer.contains("Hello from greeter ") { Ok(()) } else { Err(format!("answered {answer:?}")) }
}
