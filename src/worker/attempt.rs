//! How an attempt ends and whether another begins: exits, failures, and the step from one attempt to the next.

use super::World;
use super::restart::{Ended, Verdict};
use super::task::{Machine, Run, Step};
use crate::limits::MAX_PAST_ATTEMPTS;
use crate::model::task::{PastAttempt, Standing, TaskPhase, TaskStatus};
use crate::time::Mono;
use std::time::Duration;

/// Lost replies in a row after which an attempt is given up rather than tried again.
const MAX_TRIES: u32 = 5;

impl Machine {
    pub(super) fn exited(&mut self, code: i64, error: &str, w: &mut World<'_>) {
        self.run.stopped = true;
        self.note_container(w);
        self.status.exit_code = Some(code);
        match code {
            // Engines and machines that go down stop their containers, which may well end with 0. A service
            // that is restarted on failure only must not stay down for that.
            0 if self.away => {
                self.end(TaskPhase::Failed, "container stopped while the engine or the agent was away", w)
            }
            0 => self.end(TaskPhase::Complete, "", w),
            _ if error.is_empty() => self.end(TaskPhase::Failed, &format!("task: non-zero exit ({code})"), w),
            _ => self.end(TaskPhase::Failed, &format!("task: non-zero exit ({code}): {error}"), w),
        }
    }

    pub(super) fn reject(&mut self, why: &str, w: &mut World<'_>) {
        self.end(TaskPhase::Rejected, why, w);
    }

    pub(super) fn tried_enough(&mut self, w: &mut World<'_>) -> bool {
        let enough = self.tries >= MAX_TRIES;
        if enough {
            let why = std::mem::take(&mut self.trouble);
            self.reject(&format!("gave up after {MAX_TRIES} tries: {why}"), w);
        }
        enough
    }

    /// The attempt is over. What may still run of it is stopped next.
    pub(super) fn end(&mut self, phase: TaskPhase, error: &str, w: &World<'_>) {
        self.let_go();
        self.finish(phase, error, w);
        let ran = self.run.started.map_or(Duration::ZERO, |at| w.now.mono.since(at));
        self.history.note_end((!self.run.adopted).then_some(ran));
        self.run.blameless = self.away;
        self.retry = None;
        self.tries = 0;
        self.pause = None;
        self.step = Step::Over;
    }

    /// The attempt is over, desired is Running: is there to be another, and is it time?
    pub(super) fn restart_round(&mut self, w: &mut World<'_>) -> bool {
        let Some(spec) = self.spec().filter(|_| !self.status.is_given_up() && self.status.phase != TaskPhase::Shutdown)
        else {
            return false;
        };
        if self.retry.is_none() {
            let ended = Ended { attempt: self.status.attempt, phase: self.status.phase, blameless: self.run.blameless };
            match self.history.verdict(&spec.task.restart, ended, w.now.mono) {
                Verdict::GiveUp => self.status.standing = Standing::GivenUp,
                Verdict::After(delay) => self.retry_at(w.now.mono + delay, w),
            }
        }
        if !self.can_act(w) || self.retry.is_none_or(|at| at > w.now.mono) {
            return false;
        }
        self.begin_attempt(w);
        true
    }

    pub(super) fn retry_at(&mut self, at: Mono, w: &World<'_>) {
        self.retry = Some(at);
        self.status.retry_at = Some(w.now.wall_at(at));
    }

    fn begin_attempt(&mut self, w: &mut World<'_>) {
        // Before it becomes the past: others shall see that it failed.
        self.say(w);
        if let Some(name) = self.container_name(w).filter(|_| self.run.exists) {
            self.litter.insert(name, w.now.mono);
        }
        let must_pull = self.status.phase == TaskPhase::Rejected;
        self.next_attempt(self.status.attempt.saturating_add(1), w);
        self.run = Run { must_pull, ..Run::default() };
        self.history.note_restart(w.now.mono);
        self.retry = None;
        self.step = Step::Pull;
        self.collect_litter(w);
    }

    /// Turns the status into that of another attempt, which is being prepared.
    pub(super) fn next_attempt(&mut self, attempt: u32, w: &World<'_>) {
        let old = TaskStatus::new(self.id, self.status.node, w.now.wall);
        let old = std::mem::replace(&mut self.status, old);
        self.status.past = old.past;
        if old.phase > TaskPhase::Assigned {
            self.status.past.push(PastAttempt {
                attempt: old.attempt,
                phase: old.phase,
                since: old.since,
                error: old.error,
                exit_code: old.exit_code,
                container_id: old.container_id,
            });
        }
        let too_many = self.status.past.len().saturating_sub(MAX_PAST_ATTEMPTS);
        self.status.past.drain(..too_many);
        self.status.attempt = attempt;
        self.status.phase = TaskPhase::Preparing;
        self.status.message = "preparing".to_owned();
    }
}
