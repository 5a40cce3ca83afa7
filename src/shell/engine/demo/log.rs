//! What a demo container has said: kept in memory while the container is there, the latest only.

use crate::ids::TaskId;
use crate::shell::logs::{LogAsk, LogItem, LogLine};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

const KEPT_LINES: usize = 1_000;

pub(super) struct Log {
    task: TaskId,
    lines: Mutex<Lines>,
    /// Counts what is said; [`ENDED`] is added when nothing more will be.
    told: watch::Sender<u64>,
}

const ENDED: u64 = 1 << 63;

#[derive(Default)]
struct Lines {
    /// How many were said before the first that is kept.
    gone: u64,
    kept: VecDeque<LogLine>,
}

impl Log {
    pub fn new(task: TaskId) -> Self {
        Self { task, lines: Mutex::default(), told: watch::Sender::new(0) }
    }

    pub fn say(&self, stderr: bool, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let at_ns = u64::try_from(now).unwrap_or(u64::MAX);
        let line = LogLine { task: self.task, stderr, at_ns, text: format!("{text}\n").into_bytes() };
        {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.kept.push_back(line);
            if lines.kept.len() > KEPT_LINES {
                lines.kept.pop_front();
                lines.gone += 1;
            }
        }
        self.told.send_modify(|told| *told += 1);
    }

    pub fn end(&self) {
        self.told.send_modify(|told| *told |= ENDED);
    }

    /// Those from the `from`-th on, and the number of the next.
    fn since(&self, from: u64) -> (Vec<LogLine>, u64) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = usize::try_from(from.saturating_sub(lines.gone)).unwrap_or(usize::MAX);
        (lines.kept.iter().skip(skip).cloned().collect(), lines.gone + lines.kept.len() as u64)
    }

    pub async fn read(&self, ask: &LogAsk, out: &mpsc::Sender<LogItem>) {
        let mut told = self.told.subscribe();
        let wanted = |line: &LogLine| ask.takes(line) && if line.stderr { ask.stderr } else { ask.stdout };
        let (mut lines, mut next) = self.since(0);
        lines.retain(wanted);
        let tail = ask.tail.and_then(|tail| usize::try_from(tail).ok()).unwrap_or(usize::MAX);
        lines.drain(..lines.len().saturating_sub(tail));
        loop {
            for line in lines {
                if out.send(LogItem::Line(line)).await.is_err() {
                    return;
                }
            }
            let seen = *told.borrow_and_update();
            (lines, next) = self.since(next);
            lines.retain(wanted);
            if !lines.is_empty() {
                continue;
            }
            if !ask.follow || seen & ENDED != 0 {
                return;
            }
            tokio::select! {
                () = out.closed() => return,
                changed = told.changed() => if changed.is_err() { return },
            }
        }
    }
}
