//! The lab's test image: a static HTTP server on port 5000 that tells its version. `greeter VERSION [MODE]`.
//!
//! Modes: `crash` exits with 1 soon after its start; `exit` dies at once on SIGTERM; `slow` takes five seconds to stop;
//! otherwise requests in flight are finished first, and a kept connection is ended at the answer to its next request if
//! that comes within a second. SIGUSR1 means the same as SIGTERM; `DEAF=1` in the environment
//! ignores SIGTERM. A request for `/slow` takes 1.5 s. `greeter --check` exits with 0 once the port is open, and
//! `greeter --sick` with 1, for health checks.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

static STOP: AtomicBool = AtomicBool::new(false);
static BUSY: AtomicUsize = AtomicUsize::new(0);
static OPEN: AtomicUsize = AtomicUsize::new(0);
const SIGUSR1: i32 = 10;
const SIGTERM: i32 = 15;
const IGNORE: usize = 1;

extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
}

extern "C" fn finish(_: i32) {
    STOP.store(true, Ordering::SeqCst);
}

extern "C" fn die(_: i32) {
    std::process::exit(0);
}

fn main() {
    let version = std::env::args().nth(1).unwrap_or_default();
    let mode = std::env::args().nth(2).unwrap_or_default();
    match (version.as_str(), mode.as_str()) {
        ("--check", _) => std::process::exit(i32::from(TcpStream::connect("127.0.0.1:5000").is_err())),
        ("--sick", _) | (_, "crash") => std::process::exit(1),
        _ => {}
    }
    let stop = if mode == "exit" { die as extern "C" fn(i32) } else { finish } as usize;
    let deaf = std::env::var("DEAF").is_ok_and(|deaf| deaf == "1");
    unsafe {
        signal(SIGTERM, if deaf { IGNORE } else { stop });
        signal(SIGUSR1, stop);
    }
    let listener = TcpListener::bind("0.0.0.0:5000").unwrap();
    let slow_stop = mode == "slow";
    std::thread::spawn(move || {
        let mut lingered = 0;
        loop {
            std::thread::sleep(Duration::from_millis(10));
            lingered += usize::from(STOP.load(Ordering::SeqCst));
            let done = OPEN.load(Ordering::SeqCst) == 0 || lingered > 100;
            if lingered > 0 && done && BUSY.load(Ordering::SeqCst) == 0 {
                if slow_stop {
                    std::thread::sleep(Duration::from_secs(5));
                }
                std::process::exit(0);
            }
        }
    });
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    for stream in listener.incoming().flatten() {
        let (mut stream, body) = (stream, format!("Hello from greeter {version} {}\n", host.trim()));
        OPEN.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                BUSY.fetch_add(1, Ordering::SeqCst);
                if buffer[..count].starts_with(b"GET /slow ") {
                    std::thread::sleep(Duration::from_millis(1_500));
                }
                // Asked to, or because the end is near.
                let asked = String::from_utf8_lossy(&buffer[..count]).contains("\r\nConnection: close\r\n");
                let last = asked || STOP.load(Ordering::SeqCst);
                let close = if last { "Connection: close\r\n" } else { "" };
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes());
                BUSY.fetch_sub(1, Ordering::SeqCst);
                if last {
                    break;
                }
            }
            drop(stream);
            OPEN.fetch_sub(1, Ordering::SeqCst);
        });
    }
}
