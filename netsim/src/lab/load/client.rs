//! One client: a request, its answer, and the next one.

use super::{Kind, MAX_TOLD, Mode, Shared};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// After a request that failed, so that a port nobody listens on isn't asked a hundred thousand times.
const PAUSE: Duration = Duration::from_millis(5);
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

struct Failed {
    kind: Kind,
    why: String,
}

impl Failed {
    fn new(kind: Kind, why: impl ToString) -> Self {
        Self { kind, why: why.to_string() }
    }
}

pub fn run(shared: &Shared, target: SocketAddr) {
    let mut kept: Option<TcpStream> = None;
    while !shared.end.load(Ordering::Relaxed) {
        if kept.as_ref().is_some_and(|stream| !is_open(stream)) {
            kept = None;
            shared.report().ended += 1;
        }
        let began = Instant::now();
        let outcome = request(shared, target, &mut kept);
        let took = began.elapsed();
        let failed = outcome.is_err();
        {
            let mut report = shared.report();
            match outcome {
                Ok(()) => {
                    report.answered += 1;
                    report.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
                }
                Err(Failed { kind, why }) => {
                    *report.failed.entry(kind).or_default() += 1;
                    let at = shared.began.elapsed();
                    report.last_in_vain = report.last_in_vain.max(Some(at.saturating_sub(took)));
                    report.failing = Some((report.failing.map_or(at, |(first, _)| first), at));
                    if report.told.len() < MAX_TOLD {
                        let ms = at.as_millis();
                        report.told.push(format!("{ms} ms, {target}: {} ({why}) after {took:.1?}", kind.word()));
                    }
                }
            }
        }
        shared.made.fetch_add(1, Ordering::Relaxed);
        if failed {
            kept = None;
        }
        std::thread::sleep(if failed { PAUSE.max(shared.config.rest) } else { shared.config.rest });
    }
}

/// Nobody has ended it since the last answer.
pub fn is_open(stream: &TcpStream) -> bool {
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let is_open = matches!(looked, Err(error) if error.kind() == ErrorKind::WouldBlock);
    is_open && stream.set_nonblocking(false).is_ok()
}

fn request(shared: &Shared, target: SocketAddr, kept: &mut Option<TcpStream>) -> Result<(), Failed> {
    let config = &shared.config;
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => connect(target, config.patience)?,
    };
    let path = if config.mode == Mode::Slow { "/slow" } else { "/" };
    let close = if config.mode == Mode::KeepAlive { "" } else { "Connection: close\r\n" };
    let head = format!("GET {path} HTTP/1.1\r\nHost: lab\r\n{close}\r\n");
    let deadline = Instant::now() + config.patience;
    stream.write_all(head.as_bytes()).map_err(|error| Failed::new(kind_of(&error), error))?;
    let (head, body) = answer(&mut stream, deadline)?;
    if !head.starts_with("HTTP/1.1 200 ") || !body.starts_with(config.expect.as_bytes()) {
        let line = head.lines().next().unwrap_or_default();
        return Err(Failed::new(Kind::Wrong, format!("{line}: {}", String::from_utf8_lossy(&body).trim())));
    }
    if config.mode == Mode::KeepAlive && !head.to_ascii_lowercase().contains("\r\nconnection: close\r\n") {
        *kept = Some(stream);
    }
    Ok(())
}

fn connect(target: SocketAddr, patience: Duration) -> Result<TcpStream, Failed> {
    let stream = TcpStream::connect_timeout(&target, patience).map_err(|error| {
        let kind = if error.kind() == ErrorKind::TimedOut { Kind::TimedOut } else { Kind::Connect };
        Failed::new(kind, error)
    })?;
    let set = stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(patience)));
    set.map_err(|error| Failed::new(Kind::Connect, error))?;
    Ok(stream)
}

/// The head with its end, and the body: to its length, or to the end of the connection where none is told.
fn answer(stream: &mut TcpStream, deadline: Instant) -> Result<(String, Vec<u8>), Failed> {
    let mut bytes = Vec::new();
    let mut expected: Option<(usize, Option<usize>)> = None;
    loop {
        if let Some((head, Some(length))) = expected
            && bytes.len() >= head + length
        {
            break;
        }
        let mut buffer = [0; 16 * 1024];
        let count = match read(stream, &mut buffer, deadline) {
            Ok(count) => count,
            Err(error) if bytes.is_empty() || kind_of(&error) == Kind::TimedOut => {
                return Err(Failed::new(kind_of(&error), error));
            }
            Err(error) => return Err(Failed::new(Kind::Truncated, error)),
        };
        match (count, expected) {
            (0, Some((_, None))) => break,
            (0, _) if bytes.is_empty() => return Err(Failed::new(Kind::Reset, "ended without an answer")),
            (0, _) => return Err(Failed::new(Kind::Truncated, format!("ended after {} bytes", bytes.len()))),
            (count, _) => bytes.extend(buffer.get(..count).unwrap_or_default()),
        }
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err(Failed::new(Kind::Wrong, "an endless answer"));
        }
        if expected.is_none()
            && let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(bytes.get(..end + 4).unwrap_or_default()).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            expected = Some((end + 4, length));
        }
    }
    let at = expected.map_or(0, |(head, _)| head);
    let body = bytes.split_off(at.min(bytes.len()));
    Ok((String::from_utf8_lossy(&bytes).into_owned(), body))
}

fn read(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    stream.read(buffer)
}

fn kind_of(error: &io::Error) -> Kind {
    match error.kind() {
        // What a socket's timeout is called depends on the system.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Kind::TimedOut,
        _ => Kind::Reset,
    }
}

/// A connection to keep.
pub fn open(target: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    connect(target, patience).map_err(|failed| io::Error::other(failed.why))
}

/// One request on it.
pub fn exchange(stream: &mut TcpStream, patience: Duration) -> io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    answer(stream, Instant::now() + patience).map(drop).map_err(|failed| io::Error::other(failed.why))
}
