//! What takes more than counting notices: how long things took, how much was sent, for how long who has led. Kept since the
//! agent's start. Whatever is told apart by a label has few values, all of which stand in the code.

use super::metrics::{Text, labels};
use crate::core::chronicle::{Happening, Kind};
use crate::core::face::{Reply, RequestId};
use crate::model::container::{EngineEvent, EngineOp, OpId};
use crate::wire::message::family;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Seconds. An engine's answer takes milliseconds, a pull minutes.
const ENGINE_BOUNDS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];
/// From a disk's fsync and a round trip to the timeout after which a command is pending.
const REQUEST_BOUNDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5];
const ROLLOUT_BOUNDS: &[f64] = &[1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and not added up.
    counts: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    fn observe(&mut self, seconds: f64) {
        if let Some(at) = self.bounds.iter().position(|bound| seconds <= *bound) {
            self.counts[at] += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }

    fn write(&self, text: &mut Text, name: &str, label: (&str, &str)) {
        let mut below = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            below += count;
            text.row(&format!("{name}_bucket"), &labels(&[label, ("le", &bound.to_string())]), below);
        }
        text.row(&format!("{name}_bucket"), &labels(&[label, ("le", "+Inf")]), self.count);
        text.row(&format!("{name}_sum"), &labels(&[label]), format!("{:.6}", self.sum));
        text.row(&format!("{name}_count"), &labels(&[label]), self.count);
    }
}

#[derive(Default)]
pub struct Measured(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    calls: BTreeMap<&'static str, Histogram>,
    call_errors: BTreeMap<&'static str, u64>,
    /// What the engine was asked for and has not answered: as many as the core has in flight.
    calling: BTreeMap<OpId, (&'static str, Instant)>,
    requests: BTreeMap<&'static str, Histogram>,
    asking: BTreeMap<RequestId, Instant>,
    /// By direction and family: messages and bytes.
    traffic: BTreeMap<(&'static str, &'static str), (u64, u64)>,
    rollouts: BTreeMap<&'static str, Histogram>,
    rollout_failures: u64,
    lease_changes: u64,
}

impl Measured {
    fn kept<T>(&self, then: impl FnOnce(&mut Kept) -> T) -> T {
        then(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn sent(&self, bytes: &[u8]) {
        self.kept(|kept| kept.travelled("sent", bytes));
    }

    pub fn received(&self, bytes: &[u8]) {
        self.kept(|kept| kept.travelled("received", bytes));
    }

    pub fn engine_is_asked(&self, op: OpId, what: &EngineOp) {
        self.kept(|kept| kept.calling.insert(op, (call_name(what), Instant::now())));
    }

    pub fn engine_said(&self, event: &EngineEvent) {
        let EngineEvent::Done { op, result } = event else { return };
        self.kept(|kept| {
            let Some((name, since)) = kept.calling.remove(op) else { return };
            let calls = kept.calls.entry(name).or_insert_with(|| Histogram::new(ENGINE_BOUNDS));
            calls.observe(since.elapsed().as_secs_f64());
            *kept.call_errors.entry(name).or_default() += u64::from(result.is_err());
        });
    }

    pub fn is_asked(&self, id: RequestId) {
        self.kept(|kept| kept.asking.insert(id, Instant::now()));
    }

    pub fn answers(&self, id: RequestId, reply: &Reply) {
        let result = match reply {
            Ok(accepted) if accepted.warnings.iter().any(|warning| warning.starts_with("pending: ")) => "pending",
            Ok(_) => "acknowledged",
            Err(_) => "refused",
        };
        self.kept(|kept| {
            let Some(since) = kept.asking.remove(&id) else { return };
            let requests = kept.requests.entry(result).or_insert_with(|| Histogram::new(REQUEST_BOUNDS));
            requests.observe(since.elapsed().as_secs_f64());
        });
    }

    pub fn happened(&self, happened: &[Happening]) {
        for happening in happened {
            match (happening.kind, happening.action) {
                (Kind::Lease, "acquire") => self.kept(|kept| kept.lease_changes += 1),
                (Kind::Rollout, "failure") => self.kept(|kept| kept.rollout_failures += 1),
                (Kind::Rollout, state) => {
                    let seconds = happening.attributes.get("seconds").and_then(|text| text.parse().ok());
                    if let Some(seconds) = seconds {
                        self.kept(|kept| {
                            let rollouts = kept.rollouts.entry(state);
                            rollouts.or_insert_with(|| Histogram::new(ROLLOUT_BOUNDS)).observe(seconds);
                        });
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn write(&self, text: &mut Text) {
        self.kept(|kept| kept.write(text));
    }
}

impl Kept {
    fn travelled(&mut self, direction: &'static str, bytes: &[u8]) {
        let (messages, total) = self.traffic.entry((direction, family(bytes))).or_default();
        *messages += 1;
        *total += bytes.len() as u64;
    }

    fn write(&self, text: &mut Text) {
        text.head(
            "engine_call_seconds",
            "histogram",
            "How long this node's engine took for each kind of call, waiting for its turn included.",
        );
        self.calls.iter().for_each(|(name, calls)| calls.write(text, "engine_call_seconds", ("call", name)));
        let errors = self.call_errors.iter().map(|(name, count)| (labels(&[("call", name)]), *count));
        text.metric("engine_call_errors_total", "counter", "Calls that this node's engine failed.", errors);

        text.head(
            "request_seconds",
            "histogram",
            "How long commands to this node took, by whether a majority of the electorate acknowledged the write, only some \
             voters hold it yet (pending), or it was refused.",
        );
        self.requests.iter().for_each(|(result, took)| took.write(text, "request_seconds", ("result", result)));

        let traffic = |of: fn(&(u64, u64)) -> u64| {
            let row = move |((direction, family), amount): (&(&'static str, &'static str), &(u64, u64))| {
                (labels(&[("direction", direction), ("family", family)]), of(amount))
            };
            self.traffic.iter().map(row).collect::<Vec<_>>()
        };
        text.metric(
            "messages_total",
            "counter",
            "Messages between this agent and others, by what they are about.",
            traffic(|amount| amount.0),
        );
        text.metric(
            "message_bytes_total",
            "counter",
            "Bytes of those messages, before encryption and resends.",
            traffic(|amount| amount.1),
        );

        text.head(
            "rollout_seconds",
            "histogram",
            "How long rollouts took that ended while this node looked on, by how. Every node counts them.",
        );
        self.rollouts.iter().for_each(|(state, took)| took.write(text, "rollout_seconds", ("state", state)));
        text.one(
            "rollout_task_failures_total",
            "counter",
            "Times tasks of a rollout were seen to have failed. Every node counts them.",
            self.rollout_failures,
        );

        text.one("lease_changes_total", "counter", "Times this node saw the lease change hands.", self.lease_changes);
    }
}

fn call_name(what: &EngineOp) -> &'static str {
    match what {
        EngineOp::Pull { .. } => "pull",
        EngineOp::Create(_) => "create",
        EngineOp::Start { .. } => "start",
        EngineOp::Stop { .. } => "stop",
        EngineOp::Remove { .. } => "remove",
        EngineOp::Probe { .. } => "probe",
        EngineOp::List => "list",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::face::Refused;

    #[test]
    fn a_histograms_buckets_add_up_and_the_slowest_are_in_the_last() {
        let mut histogram = Histogram::new(&[0.1, 1.0]);
        [0.05, 0.1, 0.5, 7.0].into_iter().for_each(|seconds| histogram.observe(seconds));
        let mut text = Text::default();
        histogram.write(&mut text, "x_seconds", ("call", "a"));
        let expected = [
            "peer_x_seconds_bucket{call=\"a\",le=\"0.1\"} 2",
            "peer_x_seconds_bucket{call=\"a\",le=\"1\"} 3",
            "peer_x_seconds_bucket{call=\"a\",le=\"+Inf\"} 4",
            "peer_x_seconds_sum{call=\"a\"} 7.650000",
            "peer_x_seconds_count{call=\"a\"} 4",
        ];
        assert_eq!(text.0.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_was_answered_is_told_apart_by_how() {
        let measured = Measured::default();
        let accepted = |warnings: &[&str]| {
            let warnings = warnings.iter().map(|text| (*text).to_owned()).collect();
            Ok(crate::core::face::Accepted { id: String::new(), index: Default::default(), warnings })
        };
        let replies = [
            accepted(&[]),
            accepted(&["published port 80 is taken on node2"]),
            accepted(&["pending: held by 1 of 3 nodes; spreads when they return"]),
            Err(Refused::OutOfSequence),
        ];
        for (n, reply) in replies.iter().enumerate() {
            measured.is_asked(RequestId(n as u64));
            measured.answers(RequestId(n as u64), reply);
        }
        let mut text = Text::default();
        measured.write(&mut text);
        for (result, count) in [("acknowledged", 2), ("pending", 1), ("refused", 1)] {
            let line = format!("peer_request_seconds_count{{result=\"{result}\"}} {count}\n");
            assert!(text.0.contains(&line), "{}", text.0);
        }
    }
}
