//! The lease's own code under a model checker: every order of events that a bound allows, not the likely ones.
//!
//! What runs is [`peer::lease::Lease`] itself, without its jitter. Round it stands the least world that keeps the driver's
//! promise (a send leaves after the writes before it):
//!
//! - messages once sent may arrive at any time, in any order, any number of times, or never;
//! - a node may restart at any moment, also between a write and its becoming durable; one that stays down is one that restarts
//!   and then hears and does nothing;
//! - each node has a clock of its own; a step of time moves each by one step of its own or by two, whichever is worse;
//! - a node acts on a deadline at any time after it: what jitter, a stall or a slow disk would do.
//!
//! `state` is a moment of that world, `steps` what can happen in it, `properties` what must be true, `calm` whether a holder
//! is found once nothing fails any more, `walk` random walks where no search ends, `scenarios` what is looked at.
// How long a search takes is measured, and bounded, by the clock of whoever waits for it.
#![allow(clippy::disallowed_methods)]

mod calm;
pub mod cli;
pub mod hunt;
mod properties;
pub mod scenarios;
mod state;
mod steps;
pub mod walk;

use peer::lease::{Timing, Upkeep};
use peer::model::lease::Electorate;
use peer::model::node::Liveness;
use peer::time::Mono;
use stateright::{Checker, HasDiscoveries, Model};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use state::State;
pub use steps::Action;

/// The step of every clock here. Only the lease's times in steps matter.
pub const STEP: Duration = Duration::from_secs(1);
/// Where clocks begin: far from zero, so that no subtraction ends there.
const DAWN: Mono = Mono(1_000_000_000_000);

/// How much may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// While the slowest clock moves by one step others may move by two, now these, now those.
    pub fast: bool,
    /// Ballots that are stood for, by all nodes together.
    pub elections: u8,
    /// The first so many nodes stand for election.
    pub candidates: usize,
    /// Proposals under one ballot: the first, renewals, changes of the electorate.
    pub proposals: u64,
    pub restarts: u8,
}

/// Where a check begins, and what can happen.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub nodes: usize,
    pub first: Electorate,
    pub timing: Timing,
    pub upkeep: Upkeep,
    /// Whether a holder may change the electorate.
    pub changes: bool,
    /// How each node sees the others, right or wrong, all the time: row sees column.
    pub views: Vec<Vec<Liveness>>,
    /// Refusals arrive at times; else all are lost.
    pub refusals: bool,
    pub bounds: Bounds,
}

/// A scenario under exploration.
pub struct World {
    pub scenario: Scenario,
    until: Option<Instant>,
    /// Time was up before all was seen.
    cut: AtomicBool,
    /// Nothing is cut short any more: what was found is told.
    found: AtomicBool,
}

impl World {
    pub fn new(scenario: Scenario, time: Option<Duration>) -> Self {
        Self {
            scenario,
            until: time.map(|time| Instant::now() + time),
            cut: AtomicBool::new(false),
            found: AtomicBool::new(false),
        }
    }

    fn is_over(&self) -> bool {
        let over = !self.found.load(Ordering::Relaxed) && self.until.is_some_and(|until| Instant::now() >= until);
        if over {
            self.cut.store(true, Ordering::Relaxed);
        }
        over
    }
}

/// How far a search goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reach {
    pub depth: Option<usize>,
    pub time: Option<Duration>,
    pub threads: usize,
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Report {
    pub scenario: &'static str,
    pub states: usize,
    pub steps: usize,
    pub depth: usize,
    pub took: Duration,
    /// Every state within the bounds was seen.
    pub exhaustive: bool,
    /// The law that is broken, and the shortest story of it.
    pub violation: Option<(&'static str, Vec<String>)>,
    /// What ought to be possible and was never seen.
    pub never: Vec<&'static str>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, states, steps, depth, took, exhaustive, .. } = self;
        let how = if *exhaustive { "exhaustive" } else { "not exhaustive" };
        let secs = took.as_secs_f64();
        write!(f, "{scenario}: {states} states, {steps} steps, depth {depth}, {secs:.1} s, {how}")?;
        for name in &self.never {
            write!(f, "\n  NEVER {name}")?;
        }
        if let Some((law, story)) = &self.violation {
            write!(f, "\n  VIOLATION of {law:?}, {} steps:", story.len())?;
            for line in story {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}

/// Breadth first, so that the story of a violation is as short as can be.
pub fn search(scenario: Scenario, reach: Reach) -> Report {
    let name = scenario.name;
    let began = Instant::now();
    let world = World::new(scenario, reach.time);
    let mut builder = world.checker().threads(reach.threads.max(1)).finish_when(HasDiscoveries::AnyFailures);
    if let Some(depth) = reach.depth {
        builder = builder.target_max_depth(depth);
    }
    let checker = builder.spawn_bfs().join();
    checker.model().found.store(true, Ordering::Relaxed);
    let cut = checker.model().cut.load(Ordering::Relaxed);
    let mut discoveries = checker.discoveries();
    let mut never = Vec::new();
    let mut violation = None;
    for property in checker.model().properties() {
        let found = discoveries.remove(property.name);
        if !property.expectation.discovery_is_failure() {
            never.extend(found.is_none().then_some(property.name));
        } else if let Some(path) = found {
            violation.get_or_insert((property.name, steps::story(path.into_vec())));
        }
    }
    let depth = checker.max_depth();
    Report {
        scenario: name,
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth,
        took: began.elapsed(),
        exhaustive: !cut && violation.is_none() && reach.depth.is_none_or(|limit| depth < limit),
        violation,
        never,
    }
}
