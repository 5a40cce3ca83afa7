//! How busy this machine is, from what Linux tells every process: `/proc/stat` and `/proc/meminfo`. They speak of the whole
//! machine, also in a container, as the engine does when it says what the machine has. Elsewhere there is nothing to read.

use super::{Usage, Used};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Over less than this a share of processor time says little: whoever asks sooner is told the last one.
const AT_LEAST: Duration = Duration::from_secs(1);
/// What was counted longer ago says little of now: the next question brings a number.
const AT_MOST: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Machine(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    counted: Option<(Instant, Times)>,
    cpu: Option<Used>,
}

/// Ticks since the machine's start, of all processors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    processors: u64,
    busy: u64,
    all: u64,
}

impl Machine {
    pub(super) fn usage(&self) -> Usage {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let cpu = self.0.lock().unwrap_or_else(PoisonError::into_inner).cpu(|| times(&read("/proc/stat")?));
        Usage { cpu, memory: read("/proc/meminfo").and_then(|text| memory(&text)) }
    }
}

impl Kept {
    fn cpu(&mut self, count: impl FnOnce() -> Option<Times>) -> Option<Used> {
        let age = self.counted.map(|(at, _)| at.elapsed());
        if age.is_some_and(|age| age < AT_LEAST) {
            return self.cpu;
        }
        let now = count().map(|times| (Instant::now(), times));
        let before = self.counted.filter(|_| age.is_some_and(|age| age <= AT_MOST));
        self.cpu = before.zip(now).and_then(|((_, before), (_, now))| between(before, now));
        self.counted = now;
        self.cpu
    }
}

fn between(before: Times, now: Times) -> Option<Used> {
    let (busy, all) = (now.busy.checked_sub(before.busy)?, now.all.checked_sub(before.all)?);
    let of = now.processors.saturating_mul(1_000);
    let used = u128::from(of) * u128::from(busy) / u128::from(all).max(1);
    (all > 0).then(|| Used { used: u64::try_from(used).unwrap_or(of).min(of), of })
}

/// user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in the first two.
fn times(text: &str) -> Option<Times> {
    let mut lines = text.lines().take_while(|line| line.starts_with("cpu"));
    let all: Vec<u64> = lines.next()?.split_whitespace().skip(1).take(8).map_while(|word| word.parse().ok()).collect();
    let [_, _, _, idle, waiting, ..] = all[..] else { return None };
    let processors = lines.count() as u64;
    let sum = all.iter().fold(0u64, |sum, ticks| sum.saturating_add(*ticks));
    let busy = sum.saturating_sub(idle).saturating_sub(waiting);
    (processors > 0).then_some(Times { processors, busy, all: sum })
}

fn memory(text: &str) -> Option<Used> {
    let bytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let of = bytes("MemTotal:")?;
    Some(Used { used: of.saturating_sub(bytes("MemAvailable:")?), of })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 50 0 25 400 25 0 0 0 0 0\ncpu1 50 0 25 400 25 0 0 0 0 0\nintr 5\n";

    #[test]
    fn what_is_busy_is_what_is_neither_idle_nor_waiting_for_a_disk() {
        let first = times(STAT).unwrap();
        assert_eq!(first, Times { processors: 2, busy: 150, all: 1_000 });
        // A quarter of the time of two processors since then.
        let later = Times { busy: 200, all: 1_200, ..first };
        assert_eq!(between(first, later), Some(Used { used: 500, of: 2_000 }));
        assert_eq!(between(later, first), None, "counters that went back say nothing");
        assert_eq!(between(first, first), None);
        for text in ["", "cpu", "cpu  1 2 3\ncpu0 1 2 3", "cpu  1 2 3 4 5 6 7 8\nintr"] {
            assert_eq!(times(text), None, "{text:?}");
        }
    }

    #[test]
    fn memory_in_use_is_what_is_not_available() {
        let text = "MemTotal:        1000 kB\nMemFree:          100 kB\nMemAvailable:     600 kB\n";
        assert_eq!(memory(text), Some(Used { used: 400 * 1024, of: 1_000 * 1024 }));
        assert_eq!(memory("MemTotal: 1000 kB\n"), None, "of an old kernel");
        assert_eq!(memory("MemTotal: many\nMemAvailable: few\n"), None);
    }

    #[test]
    fn a_share_needs_two_counts_that_are_neither_too_close_nor_too_far_apart() {
        let mut kept = Kept::default();
        let before = times(STAT).unwrap();
        let later = || Some(Times { busy: 350, all: 1_400, ..before });
        assert_eq!(kept.cpu(|| Some(before)), None, "there is only one");
        assert_eq!(kept.cpu(|| panic!("too soon to count again")), None);
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        kept.counted = Some((ago(5), before));
        assert_eq!(kept.cpu(later), Some(Used { used: 1_000, of: 2_000 }));
        assert_eq!(kept.cpu(|| panic!("too soon to count again")), Some(Used { used: 1_000, of: 2_000 }));
        kept.counted = Some((ago(120), before));
        assert_eq!(kept.cpu(later), None, "an average of two minutes isn't now");
        kept.counted = Some((ago(5), before));
        assert_eq!(kept.cpu(|| None), None, "nothing to read here");
    }
}
