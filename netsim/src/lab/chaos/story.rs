//! What happens, as it happens: for people, a line each, and for the verdict.

use crate::law::Breach;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub struct Story {
    began: Instant,
    breaches: Mutex<Vec<String>>,
}

impl Story {
    pub fn begin() -> Self {
        Self { began: Instant::now(), breaches: Mutex::new(Vec::new()) }
    }

    pub fn say(&self, who: &str, text: &str) {
        let mut lines = text.lines();
        println!("{:>7.1} s  {who:<9} {}", self.began.elapsed().as_secs_f64(), lines.next().unwrap_or_default());
        for line in lines {
            println!("{:21} {line}", "");
        }
    }

    pub fn broken(&self, breach: &Breach) {
        self.say("BROKEN", &format!("{}: {}", breach.law, breach.text));
        locked(&self.breaches).push(format!("{}: {}", breach.law, breach.text));
    }

    pub fn breaches(&self) -> Vec<String> {
        locked(&self.breaches).clone()
    }
}

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970, as the agents' traces count.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
