//! The lab's test image: a static HTTP server on port 5000 that tells its version. `greeter VERSION [MODE]`.
//! Modes: `crash` exits with 1 at once; `exit` dies at once on SIGTERM; otherwise requests in flight are finished first.
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

static STOP: AtomicBool = AtomicBool::new(false);
static BUSY: AtomicUsize = AtomicUsize::new(0);
const SIGTERM: i32 = 15;

extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
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
    if mode == "crash" {
        std::process::exit(1);
    }
    unsafe { signal(SIGTERM, if mode == "exit" { die } else { finish }) };
    let listener = TcpListener::bind("0.0.0.0:5000").unwrap();
    std::thread::spawn(|| loop {
        std::thread::sleep(Duration::from_millis(10));
        if STOP.load(Ordering::SeqCst) && BUSY.load(Ordering::SeqCst) == 0 {
            std::process::exit(0);
        }
    });
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    for stream in listener.incoming().flatten() {
        let (mut stream, body) = (stream, format!("Hello from greeter {version} {}\n", host.trim()));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
                BUSY.fetch_add(1, Ordering::SeqCst);
                let close = if STOP.load(Ordering::SeqCst) { "Connection: close\r\n" } else { "" };
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes());
                BUSY.fetch_sub(1, Ordering::SeqCst);
            }
        });
    }
}
