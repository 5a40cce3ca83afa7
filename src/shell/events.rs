//! The cluster's last events as this node saw them, for whoever listens: `/events`, the page, and through them `peer events`
//! and `peer top`. They come from one place, [`crate::core::chronicle`].
//!
//! The law: what is kept is bounded, nobody who listens slows the agent down, and who is too slow is told how many went by.

use crate::core::chronicle::Happening;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What a listener can look back on. Some 400 bytes each.
pub const MAX_KEPT: usize = 2_048;
/// Taken at one go.
const MAX_BATCH: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterEvent {
    /// Rises with every event of this node, and so tells them apart.
    pub time_nano: u64,
    pub happening: Happening,
}

impl ClusterEvent {
    /// Docker's Message.
    pub fn json(&self) -> Value {
        let Happening { kind, action, id, attributes, .. } = &self.happening;
        message(kind.as_str(), action, id, &json!(attributes), self.time_nano)
    }
}

fn message(kind: &str, action: &str, id: &str, attributes: &Value, time_nano: u64) -> Value {
    json!({
        "Type": kind,
        "Action": action,
        "Actor": { "ID": id, "Attributes": attributes },
        "scope": "swarm",
        "time": time_nano / 1_000_000_000,
        "timeNano": time_nano,
    })
}

/// Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Events(Arc<Inner>);

#[derive(Default)]
struct Inner {
    kept: Mutex<Kept>,
    /// How many there have been.
    count: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    events: VecDeque<Arc<ClusterEvent>>,
    /// How many there have been.
    count: u64,
    last_nano: u64,
}

impl Kept {
    /// The number of the oldest that is kept.
    fn first(&self) -> u64 {
        self.count - self.events.len() as u64
    }
}

/// What a listener has not had yet.
#[derive(Debug, Default)]
pub struct Batch {
    /// That many before these are no longer kept.
    pub lost: u64,
    pub events: Vec<Arc<ClusterEvent>>,
}

impl Batch {
    /// As Docker's messages; of what was lost there is one, too.
    pub fn messages(&self, takes: impl Fn(&ClusterEvent) -> bool) -> Vec<Value> {
        let at = self.events.first().map_or(0, |event| event.time_nano.saturating_sub(1));
        let lost =
            (self.lost > 0).then(|| message("events", "lost", "", &json!({ "count": self.lost.to_string() }), at));
        let events = self.events.iter().filter(|event| takes(event)).map(|event| event.json());
        lost.into_iter().chain(events).collect()
    }
}

impl Events {
    pub fn add(&self, happened: impl IntoIterator<Item = Happening>) {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.count;
        for happening in happened {
            // A wall clock counts milliseconds here, and may go back.
            let time_nano = happening.at.0.saturating_mul(1_000_000).max(kept.last_nano + 1);
            kept.last_nano = time_nano;
            kept.count += 1;
            if kept.events.len() == MAX_KEPT {
                kept.events.pop_front();
            }
            kept.events.push_back(Arc::new(ClusterEvent { time_nano, happening }));
        }
        if kept.count > before {
            self.0.count.send_replace(kept.count);
        }
    }

    /// Hears what happens from now on.
    pub fn listen(&self) -> Listener {
        let next = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).count;
        Listener { events: self.clone(), next, count: self.0.count.subscribe() }
    }

    /// Hears what is kept from `nano` on, too.
    pub fn listen_since(&self, nano: u64) -> Listener {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = kept.events.partition_point(|event| event.time_nano < nano);
        let next = kept.first() + earlier as u64;
        Listener { events: self.clone(), next, count: self.0.count.subscribe() }
    }

    /// Hears the last `count` of what is kept, too.
    pub fn listen_after(&self, count: u64) -> Listener {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let next = kept.count.saturating_sub(count).max(kept.first());
        Listener { events: self.clone(), next, count: self.0.count.subscribe() }
    }
}

pub struct Listener {
    events: Events,
    /// The number of the next one.
    next: u64,
    count: watch::Receiver<u64>,
}

impl Listener {
    /// What there is; maybe nothing.
    pub fn take(&mut self) -> Batch {
        let kept = self.events.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = kept.first().saturating_sub(self.next);
        let from = (self.next + lost - kept.first()) as usize;
        let events: Vec<_> = kept.events.iter().skip(from).take(MAX_BATCH).cloned().collect();
        self.next += lost + events.len() as u64;
        Batch { lost, events }
    }

    /// Waits for something.
    pub async fn next(&mut self) -> Batch {
        loop {
            self.count.borrow_and_update();
            let batch = self.take();
            if !batch.events.is_empty() {
                return batch;
            }
            // The sender lives in `events`: this can't fail.
            if self.count.changed().await.is_err() {
                return batch;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::chronicle::Kind;
    use crate::time::Wall;
    use std::collections::BTreeMap;

    fn happening(at: u64) -> Happening {
        Happening { at: Wall(at), kind: Kind::Node, action: "update", id: at.to_string(), attributes: BTreeMap::new() }
    }

    fn ids(batch: &Batch) -> Vec<&str> {
        batch.events.iter().map(|event| event.happening.id.as_str()).collect()
    }

    #[tokio::test]
    async fn a_listener_hears_what_comes_and_one_that_looks_back_what_was() {
        let events = Events::default();
        events.add([happening(1), happening(2)]);
        let (mut from_now, mut since, mut last) =
            (events.listen(), events.listen_since(2_000_000), events.listen_after(1));
        assert_eq!(ids(&since.next().await), ["2"]);
        assert_eq!(ids(&last.take()), ["2"]);
        assert!(from_now.take().events.is_empty());
        let later = tokio::spawn({
            let events = events.clone();
            async move { events.add([happening(3)]) }
        });
        assert_eq!(ids(&from_now.next().await), ["3"]);
        later.await.unwrap();
        assert_eq!(ids(&since.next().await), ["3"]);
    }

    #[test]
    fn who_is_too_slow_is_told_how_many_went_by() {
        let events = Events::default();
        let mut slow = events.listen();
        for n in 0..MAX_KEPT as u64 + 10 {
            events.add([happening(n)]);
        }
        let batch = slow.take();
        assert_eq!((batch.lost, batch.events.len(), ids(&batch)[0]), (10, MAX_BATCH, "10"));
        let messages = batch.messages(|_| true);
        assert_eq!(
            (&messages[0]["Action"], &messages[0]["Actor"]["Attributes"]["count"]),
            (&json!("lost"), &json!("10"))
        );
        assert_eq!(slow.take().lost, 0);
    }

    #[test]
    fn times_rise_even_if_the_clock_does_not() {
        let events = Events::default();
        events.add([happening(5), happening(5), happening(4)]);
        let times: Vec<u64> = events.listen_after(9).take().events.iter().map(|event| event.time_nano).collect();
        assert_eq!(times, [5_000_000, 5_000_001, 5_000_002]);
    }
}
