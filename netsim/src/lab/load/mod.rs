//! Load on published ports, as many clients would make it, which tells apart how requests fail: for showing that none
//! does while services change, and how many do when something breaks.

mod client;
pub mod faults;
pub mod stories;

use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Failures of which a report has the words.
const MAX_TOLD: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Mode {
    /// A connection a request, as `ab` makes them.
    New,
    /// Requests one after the other on a connection that is kept, as `wrk` makes them.
    KeepAlive,
    /// A connection a request, each of which takes the server 1.5 s.
    Slow,
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No connection.
    Connect,
    /// The connection ended, and nothing of an answer had come.
    Reset,
    /// It ended in the middle of the answer.
    Truncated,
    TimedOut,
    /// An answer, but not the server's.
    Wrong,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Connect, Self::Reset, Self::Truncated, Self::TimedOut, Self::Wrong];

    fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::TimedOut => "timed out",
            Self::Wrong => "wrong",
        }
    }
}

/// What a load is made of.
#[derive(Debug, Clone)]
pub struct LoadConfig {
    /// Each gets as many clients.
    pub targets: Vec<SocketAddr>,
    pub mode: Mode,
    /// At once, at each target.
    pub clients: usize,
    /// A request takes no longer.
    pub patience: Duration,
    /// A client rests this long after each answer, so that the load isn't what the machine is short of.
    pub rest: Duration,
    /// What every answer begins with.
    pub expect: String,
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    began: Instant,
}

struct Shared {
    config: LoadConfig,
    began: Instant,
    /// Requests that have ended, one way or the other.
    made: AtomicU64,
    end: AtomicBool,
    report: Mutex<Report>,
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub answered: u64,
    pub failed: BTreeMap<Kind, u64>,
    /// The first ones, with when and where.
    pub told: Vec<String>,
    /// Kept connections that the other side ended between two requests, which is its right.
    pub ended: u64,
    /// Of answers, in microseconds, sorted.
    pub latencies_us: Vec<u32>,
    pub lasted: Duration,
    /// When requests that failed ended, after the beginning: the first and the last.
    pub failing: Option<(Duration, Duration)>,
    /// When the last request was begun that failed, after the beginning.
    pub last_in_vain: Option<Duration>,
}

impl Load {
    pub fn start(config: LoadConfig) -> Result<Self> {
        ensure!(!config.targets.is_empty() && config.clients > 0, "a load wants a target and a client");
        let began = Instant::now();
        let (targets, count) = (config.targets.clone(), config.clients);
        let shared = Arc::new(Shared {
            config,
            began,
            made: AtomicU64::new(0),
            end: AtomicBool::new(false),
            report: Mutex::default(),
        });
        let start = |target: SocketAddr| {
            let shared = shared.clone();
            std::thread::spawn(move || client::run(&shared, target))
        };
        let clients = (0..count).flat_map(|_| targets.iter().copied()).map(start).collect();
        Ok(Self { shared, clients, began })
    }

    pub fn made(&self) -> u64 {
        self.shared.made.load(Ordering::Relaxed)
    }

    /// Lets every client end its request.
    pub fn end(self) -> Report {
        self.shared.end.store(true, Ordering::Relaxed);
        let lasted = self.began.elapsed();
        for client in self.clients {
            if client.join().is_err() {
                self.shared.report().told.push("a client panicked".to_owned());
            }
        }
        let mut report = self.shared.report().clone();
        report.lasted = lasted;
        report.latencies_us.sort_unstable();
        report
    }
}

impl Shared {
    fn report(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    pub fn requests(&self) -> u64 {
        self.answered + self.failures()
    }

    /// Those of another load, of the same kind, after this one.
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        for (kind, count) in other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
        let left = MAX_TOLD.saturating_sub(self.told.len());
        self.told.extend(other.told.into_iter().take(left));
        self.ended += other.ended;
        self.latencies_us.extend(other.latencies_us);
        self.latencies_us.sort_unstable();
        self.failing = match (self.failing, other.failing) {
            (Some((first, _)), Some((_, last))) => Some((first, self.lasted + last)),
            (None, Some((first, last))) => Some((self.lasted + first, self.lasted + last)),
            (failing, None) => failing,
        };
        self.last_in_vain = other.last_in_vain.map(|last| self.lasted + last).or(self.last_in_vain);
        self.lasted += other.lasted;
    }

    /// Milliseconds within which so many of a hundred answers came.
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let at = (self.latencies_us.len() * percent / 100).min(self.latencies_us.len().saturating_sub(1));
        self.latencies_us.get(at).map_or(0.0, |us| f64::from(*us) / 1e3)
    }
}

/// One line of a table, under [`HEADER`].
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = self.requests() as f64 / self.lasted.as_secs_f64().max(f64::EPSILON);
        write!(f, "{:>9}{:>8}", self.requests(), self.failures())?;
        for kind in Kind::ALL {
            write!(f, "{:>11}", self.failed.get(&kind).copied().unwrap_or_default())?;
        }
        let window = self.failing.map_or("-".to_owned(), |(first, last)| format!("{} ms", (last - first).as_millis()));
        write!(f, "{window:>10}{per_second:>9.0}{:>9.1}{:>9.1}", self.percentile_ms(50), self.percentile_ms(99))
    }
}

/// Above lines of reports.
pub fn header() -> String {
    let kinds: String = Kind::ALL.iter().map(|kind| format!("{:>11}", kind.word())).collect();
    format!("{:>9}{:>8}{kinds}{:>10}{:>9}{:>9}{:>9}", "requests", "failed", "failing", "req/s", "p50 ms", "p99 ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    /// What a server does with the n-th request.
    type Habit = fn(usize, &mut TcpStream) -> bool;

    fn served(habit: Habit) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut number = 0;
            for mut stream in listener.incoming().flatten() {
                let mut buffer = [0; 1024];
                while let Ok(1..) = stream.read(&mut buffer) {
                    number += 1;
                    if !habit(number, &mut stream) {
                        break;
                    }
                }
            }
        });
        addr
    }

    fn after(target: SocketAddr, mode: Mode, requests: u64) -> Report {
        let patience = Duration::from_millis(300);
        let config = LoadConfig {
            targets: vec![target],
            mode,
            clients: 1,
            patience,
            rest: Duration::ZERO,
            expect: "Hello".to_owned(),
        };
        let load = Load::start(config).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while load.made() < requests {
            assert!(Instant::now() < deadline, "{} requests of {requests}", load.made());
            std::thread::sleep(Duration::from_millis(1));
        }
        load.end()
    }

    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHello";

    fn too_late(_: usize, _: &mut TcpStream) -> bool {
        std::thread::sleep(Duration::from_secs(1));
        true
    }

    #[test]
    fn failures_are_told_apart() {
        let habits: [(Habit, Kind); 4] = [
            (|_, _| false, Kind::Reset),
            (|_, stream| stream.write_all(&GOOD[..30]).is_err(), Kind::Truncated),
            (too_late, Kind::TimedOut),
            (|_, stream| stream.write_all(b"HTTP/1.1 502 No\r\nContent-Length: 5\r\n\r\nHello").is_ok(), Kind::Wrong),
        ];
        for (habit, kind) in habits {
            let report = after(served(habit), Mode::New, 1);
            assert!(report.failures() >= 1 && report.answered == 0, "{kind:?}: {report:?}");
            assert_eq!(report.failed.keys().copied().collect::<Vec<_>>(), [kind], "{report:?}");
        }
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(after(nobody, Mode::New, 1).failed.contains_key(&Kind::Connect));
    }

    #[test]
    fn a_kept_connection_that_ends_between_two_requests_is_no_failure() {
        let habit: Habit = |number, stream| stream.write_all(GOOD).is_ok() && number % 3 != 0;
        // One that ends just as the next request is on its way is one: the count tells them apart.
        let report = after(served(habit), Mode::KeepAlive, 30);
        assert!(report.answered >= 20 && report.ended + report.failures() >= 8, "{report:?}");
        assert!(report.failed.keys().all(|kind| *kind == Kind::Reset), "{report:?}");
        let closes: Habit = |_, stream| {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nHello";
            stream.write_all(answer).unwrap();
            false
        };
        let report = after(served(closes), Mode::KeepAlive, 10);
        assert_eq!(report.failures(), 0, "{report:?}");
    }
}
