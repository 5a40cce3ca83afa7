//! A task's engine operation in flight, and what its answer, or the lack of one, means. A reply that is lost
//! never decides anything: the task looks at the next observation and does again what was not done.

use super::World;
use super::task::{Machine, Step};
use crate::model::container::*;
use crate::plant::{Bug, is_planted};
use crate::time::Mono;
use std::time::Duration;

/// A container that could not be removed is tried again after this.
const REMOVE_AGAIN: Duration = Duration::from_secs(10);
const REMOVE_TIMEOUT: Duration = Duration::from_secs(60);
/// A probe that ended early is repeated after this.
const PROBE_AGAIN: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Pull,
    Create,
    Start,
    Probe,
    Stop,
    Remove(String),
}

#[derive(Debug)]
pub(super) struct Flight {
    pub op: OpId,
    pub kind: Kind,
    pub deadline: Mono,
}

impl Machine {
    pub(super) fn issue(&mut self, kind: Kind, what: EngineOp, within: Duration, w: &mut World<'_>) {
        debug_assert!(self.flight.is_none(), "one operation at a time");
        // What is about to be done is said before it is done.
        self.say(w);
        let op = w.out.engine(what);
        self.flight = Some(Flight { op, kind, deadline: w.now.mono + within });
    }

    pub(super) fn awaits(&self, op: OpId) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.op == op)
    }

    /// Awaits no longer what changes nothing by ending later.
    pub(super) fn let_go(&mut self) {
        if self.flight.as_ref().is_some_and(|f| matches!(f.kind, Kind::Pull | Kind::Probe)) {
            self.flight = None;
        }
    }

    /// The operation in flight has been answered, or counts as lost.
    pub(super) fn answered(&mut self, result: Result<(), OpError>, w: &mut World<'_>) {
        let Some(flight) = self.flight.take() else { return };
        self.last_done = Some(w.now.mono);
        match result {
            Ok(()) => self.succeeded(flight.kind, w),
            Err(error) => self.failed(flight.kind, error, w),
        }
    }

    fn succeeded(&mut self, kind: Kind, w: &mut World<'_>) {
        self.tries = 0;
        match (kind, self.step) {
            (Kind::Pull, Step::Pull) => {
                self.run.must_pull = false;
                self.step = Step::Create;
            }
            (Kind::Create, Step::Create) => self.step = Step::Hold,
            (Kind::Start, Step::Start) => self.enter_starting(w),
            (Kind::Probe, Step::Probe { .. }) => self.serve(w),
            (Kind::Stop, _) => self.run.stopped = true,
            (Kind::Remove(name), _) => {
                if self.container_name(w).is_some_and(|own| own == name) {
                    self.run.removed = true;
                    self.run.stopped = true;
                    self.run.exists = false;
                }
                self.litter.remove(&name);
            }
            _ => {}
        }
    }

    fn failed(&mut self, kind: Kind, error: OpError, w: &mut World<'_>) {
        match (kind, error) {
            (Kind::Remove(name), error) => {
                self.litter.insert(name, w.now.mono + REMOVE_AGAIN);
                if !matches!(error, OpError::Refused(_)) {
                    self.look = Some(w.observations);
                }
            }
            (Kind::Pull, OpError::TimedOut(_)) => self.reject("pull timed out", w),
            (Kind::Pull | Kind::Create, OpError::Refused(why)) => self.reject(&why, w),
            (Kind::Start, OpError::Refused(why)) => {
                self.run.may_run = false;
                self.reject(&why, w);
            }
            (Kind::Probe, OpError::Refused(_) | OpError::TimedOut(_)) => {
                // It may have exited: that is said only after a look.
                self.look = Some(w.observations);
                self.pause = Some(w.now.mono + PROBE_AGAIN);
            }
            (kind, error) => self.stumble(&kind, &error, w),
        }
    }

    /// What the engine did is unknown, or it could not do what it must: look, wait a little, try again.
    fn stumble(&mut self, kind: &Kind, error: &OpError, w: &mut World<'_>) {
        if is_planted(Bug::DuplicateAfterLostReply) && *kind == Kind::Start {
            self.status.attempt += 1;
            self.run.may_run = false;
            self.step = Step::Create;
            return;
        }
        self.tries = self.tries.saturating_add(1);
        self.trouble = error.to_string();
        self.look = Some(w.observations);
        self.pause = match self.tries {
            1 => None,
            more => Some(w.now.mono + Duration::from_secs(1 << (more - 2).min(5)).min(MAX_PAUSE)),
        };
        if *kind == Kind::Stop && !matches!(error, OpError::Unreachable(_)) {
            let text = format!("the container can't be stopped yet: {error}");
            self.status.message = text.chars().take(crate::limits::MAX_ERROR_CHARS).collect();
        }
    }

    // Containers that are in the way.

    /// Those of other attempts than the current one.
    pub(super) fn collect_litter(&mut self, w: &World<'_>) {
        if self.step == Step::Look || is_planted(Bug::DuplicateAfterLostReply) {
            return;
        }
        for (attempt, container) in w.containers {
            if *attempt != self.status.attempt {
                self.litter.entry(container.name.clone()).or_insert(w.now.mono);
            }
        }
    }

    /// Sends the removal of one, if there is one and it may be sent.
    pub(super) fn sweep(&mut self, w: &mut World<'_>) -> bool {
        if !self.can_issue(w) {
            return false;
        }
        let due = self.litter.iter().find(|(_, at)| **at <= w.now.mono).map(|(name, _)| name.clone());
        let Some(name) = due else { return false };
        self.issue(Kind::Remove(name.clone()), EngineOp::Remove { name }, REMOVE_TIMEOUT, w);
        true
    }
}
