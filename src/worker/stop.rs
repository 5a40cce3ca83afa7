//! Stopping a task (DESIGN rule 6): routing is withdrawn, open connections may end, then SIGTERM; each wait has
//! its bound. What never ran is only removed. And what follows the end of an attempt: another one, or cleaning up.

use super::ops::Kind;
use super::task::{Machine, Step};
use super::{Output, World};
use crate::limits::{DRAIN_GRACE, WITHDRAW_TIMEOUT};
use crate::model::container::*;
use crate::model::spec::{DEFAULT_STOP_GRACE, PublishMode};
use crate::model::task::{Desired, TaskPhase};
use crate::plant::{Bug, is_planted};
use crate::time::Mono;
use std::time::Duration;

/// Beyond the grace, an engine may take this long to kill a container and say so.
const STOP_SLACK: Duration = Duration::from_secs(30);

impl Machine {
    /// Desired is Shutdown or more, and the task is somewhere on its way up.
    pub(super) fn turn_to_stop(&mut self, w: &mut World<'_>) -> bool {
        match self.step {
            Step::Look if w.ready => self.resume(w),
            Step::Look => return false,
            Step::Pull | Step::Create | Step::Hold | Step::Start => {
                self.let_go();
                if self.flight.is_some() {
                    return false;
                }
                if self.may_be_running(w) {
                    self.step = Step::Stop;
                } else {
                    self.finish_stop(w);
                }
            }
            Step::Serve if self.is_published() && !is_planted(Bug::StopBeforeWithdraw) => {
                w.out.queue.push_back(Output::Withdraw(self.id));
                self.step = Step::Withdraw { until: w.now.mono + WITHDRAW_TIMEOUT };
            }
            _ => {
                // Not serving yet, or reached through no port of ours: nobody routes to it.
                self.let_go();
                self.step = Step::Stop;
            }
        }
        true
    }

    fn is_published(&self) -> bool {
        let in_spec = self.spec().is_some_and(|s| s.ports.iter().any(|p| p.mode == PublishMode::Ingress));
        // Of a task that was forgotten before it was known, nothing says that it is not.
        in_spec || self.order.as_ref().is_none_or(|order| order.ingress)
    }

    pub(super) fn withdrawn(&mut self, w: &mut World<'_>) {
        if matches!(self.step, Step::Withdraw { .. }) {
            self.enter_drain(true, w);
        }
    }

    pub(super) fn drained(&mut self, _: &mut World<'_>) {
        if matches!(self.step, Step::Drain { .. }) {
            self.step = Step::Stop;
        }
    }

    pub(super) fn withdraw_round(&mut self, until: Mono, w: &mut World<'_>) -> bool {
        if !self.may_be_running(w) {
            self.step = Step::Stop;
        } else if w.now.mono >= until {
            self.enter_drain(false, w);
        } else {
            return false;
        }
        true
    }

    fn enter_drain(&mut self, everywhere: bool, w: &mut World<'_>) {
        w.out.queue.push_back(Output::AwaitDrained { task: self.id, everywhere });
        self.step = Step::Drain { until: w.now.mono + self.stop_grace().min(DRAIN_GRACE) };
    }

    pub(super) fn drain_round(&mut self, until: Mono, w: &mut World<'_>) -> bool {
        let over = !self.may_be_running(w) || w.now.mono >= until;
        if over {
            self.step = Step::Stop;
        }
        over
    }

    pub(super) fn stop_round(&mut self, w: &mut World<'_>) -> bool {
        if !self.may_be_running(w) {
            self.finish_stop(w);
            return true;
        }
        self.stop_container(w);
        false
    }

    fn stop_container(&mut self, w: &mut World<'_>) {
        let Some(name) = self.container_name(w).filter(|_| self.can_act(w)) else { return };
        let grace = self.stop_grace();
        let signal = self.spec().and_then(|spec| spec.task.container.stop_signal.clone());
        self.issue(Kind::Stop, EngineOp::Stop { name, signal, grace }, grace.saturating_add(STOP_SLACK), w);
    }

    fn stop_grace(&self) -> Duration {
        self.spec().map_or(DEFAULT_STOP_GRACE, |spec| spec.task.container.stop_grace())
    }

    /// It does not run, as ordered. An exit on the way counts as that too.
    fn finish_stop(&mut self, w: &World<'_>) {
        self.finish(TaskPhase::Shutdown, "", w);
        self.note_exit_code(w);
        self.tries = 0;
        self.pause = None;
        self.step = Step::Over;
    }

    /// Runs, or may: it was started and has not been seen to end.
    pub(super) fn may_be_running(&self, w: &World<'_>) -> bool {
        !self.run.stopped
            && match self.current(w.containers).map(|c| &c.state) {
                Some(ContainerState::Running { .. }) => true,
                Some(ContainerState::Exited { .. }) => false,
                Some(ContainerState::Created) | None => self.run.may_run,
            }
    }

    pub(super) fn over_round(&mut self, w: &mut World<'_>) -> bool {
        if self.may_be_running(w) {
            self.clear_retry_if_unwanted();
            self.stop_container(w);
            return false;
        }
        self.note_exit_code(w);
        self.clear_retry_if_unwanted();
        if self.is_to_be_removed() {
            self.discard(w);
        }
        if self.desired() == Desired::Running && self.restart_round(w) {
            return true;
        }
        self.sweep(w);
        if self.forgotten && w.ready && self.flight.is_none() && self.look.is_none() && self.litter.is_empty() {
            self.step = Step::Gone;
        }
        false
    }

    fn clear_retry_if_unwanted(&mut self) {
        if self.wants_stop() {
            self.retry = None;
            self.status.retry_at = None;
        }
    }

    /// An ended container stays for its logs until the task itself goes; one that never ran has none.
    fn is_to_be_removed(&self) -> bool {
        match self.desired() {
            Desired::Remove => true,
            Desired::Shutdown => !self.run.may_run && self.status.phase == TaskPhase::Shutdown,
            _ => false,
        }
    }

    fn discard(&mut self, w: &World<'_>) {
        if !self.run.exists && self.current(w.containers).is_none() {
            return;
        }
        if let Some(name) = self.container_name(w) {
            self.litter.entry(name).or_insert(w.now.mono);
        }
    }
}
