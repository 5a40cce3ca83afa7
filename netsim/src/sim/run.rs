//! One run of a plan, and what came of it.

use super::plan::Plan;
use super::probes::Probes;
use super::trace::Trace;
use super::world::World;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[derive(Debug, Clone)]
pub struct Outcome {
    pub violation: Option<Broken>,
    /// Of all that happened.
    pub hash: u64,
    pub events: u64,
    /// Nodes times simulated seconds.
    pub node_secs: u64,
    /// From the end of the faults to the last thing out of order.
    pub settle_secs: u64,
    /// How many seconds after the faults each law was last seen unmet.
    pub pending: std::collections::BTreeMap<&'static str, u64>,
    pub requests: u64,
    pub failed_requests: u64,
    pub messages: u64,
    pub bytes: u64,
    pub probes: Probes,
    /// Rendered, if it was asked for.
    pub trace: String,
    /// As it was written, likewise: what a picture is drawn of.
    pub story: Trace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub law: String,
    pub at_us: u64,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    Nothing,
    Story,
    Everything,
}

/// A panic anywhere in a core is a violation like any other.
pub fn run(plan: &Plan, tell: Tell) -> Outcome {
    let mut world = World::new(plan.clone());
    world.trace.on = tell != Tell::Nothing;
    world.trace.verbose = tell == Tell::Everything;
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
        world.violate("panic", || text);
    }
    let violation = world.violation.take().map(|v| Broken { law: v.id.to_owned(), at_us: v.at, text: v.text });
    let secs = world.now / 1_000_000;
    Outcome {
        violation,
        hash: world.hash.0,
        events: world.events,
        node_secs: secs * world.nodes.len() as u64,
        settle_secs: world.settled.map_or(0, |at| at / 1_000_000).saturating_sub(plan.secs),
        pending: std::mem::take(&mut world.check.pending),
        requests: world.clients.answered,
        failed_requests: world.clients.failed,
        messages: world.net.sent,
        bytes: world.net.bytes,
        trace: if world.trace.on { world.trace.render(world.nodes.len()) } else { String::new() },
        probes: std::mem::take(&mut world.probes),
        story: std::mem::take(&mut world.trace),
    }
}
