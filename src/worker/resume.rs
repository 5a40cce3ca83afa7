//! Where a task starts in this life of the agent: from what was recorded about it and what the engine has.
//! A container that runs is adopted, and one that should run and does not has failed. A record can be older
//! than the containers (the agent died between an act and its record), never the other way round for long.

use super::World;
use super::task::{Machine, Step};
use crate::model::container::*;
use crate::model::task::TaskPhase;

impl Machine {
    /// The engine's containers are known for the first time since this task is.
    pub(super) fn resume(&mut self, w: &mut World<'_>) {
        self.catch_up_with_containers(w);
        self.choose_step(w);
        self.collect_litter(w);
    }

    fn choose_step(&mut self, w: &mut World<'_>) {
        let current = self.current(w.containers).map(|c| c.state.clone());
        self.run.exists = current.is_some();
        let ran = matches!(current, Some(ContainerState::Running { .. } | ContainerState::Exited { .. }));
        self.run.adopted = ran || self.status.phase >= TaskPhase::Starting;
        self.run.may_run = ran;
        self.step = match (self.status.phase, current) {
            (phase, _) if phase >= TaskPhase::Complete => self.resume_over(w),
            (TaskPhase::Running, Some(ContainerState::Running { .. } | ContainerState::Exited { .. })) => Step::Serve,
            // It was forgotten, and all that is known is that it runs.
            (_, Some(ContainerState::Running { .. })) if self.order.is_none() => Step::Serve,
            (_, _) if self.order.is_none() => Step::Over,
            (_, Some(ContainerState::Running { .. } | ContainerState::Exited { .. })) => {
                self.enter_starting(w);
                return;
            }
            (TaskPhase::Running, _) | (TaskPhase::Starting, None) => {
                if !self.wants_stop() {
                    self.end(TaskPhase::Failed, "container is gone", w);
                    return;
                }
                Step::Stop
            }
            (TaskPhase::Starting, Some(ContainerState::Created)) => Step::Start,
            (_, Some(ContainerState::Created)) => Step::Hold,
            (_, None) => Step::Pull,
        };
    }

    /// A container of a later attempt than the record tells of: the record of it was lost.
    fn catch_up_with_containers(&mut self, w: &World<'_>) {
        let latest = w.containers.keys().next_back().copied().unwrap_or(0);
        if latest > self.status.attempt {
            self.next_attempt(latest, w);
        }
    }

    fn resume_over(&mut self, w: &World<'_>) -> Step {
        // The delay that was under way goes on by the wall clock, within what it can have been at most.
        if let Some(at) = self.status.retry_at {
            let delay = self.spec().map_or(std::time::Duration::ZERO, |spec| spec.task.restart.delay);
            let left = at.since(w.now.wall).min(delay);
            self.retry = Some(w.now.mono + left);
        }
        Step::Over
    }
}
