//! What a task's machine says of it: phases only rise, texts are bounded, and what was already said is not
//! said again. Several changes of one call become one status.

use super::task::Machine;
use super::{Output, World};
use crate::law;
use crate::limits::MAX_ERROR_CHARS;
use crate::model::container::ContainerState;
use crate::model::task::TaskPhase;

impl Machine {
    /// Moves up to `phase`; does nothing if the attempt is there already, or further.
    pub(super) fn raise(&mut self, phase: TaskPhase, message: &str, w: &World<'_>) {
        if self.status.phase < phase {
            self.status.phase = phase;
            self.status.since = w.now.wall;
            self.status.message = message.to_owned();
        }
    }

    pub(super) fn finish(&mut self, phase: TaskPhase, error: &str, w: &World<'_>) {
        let message = match phase {
            TaskPhase::Complete => "finished",
            TaskPhase::Shutdown => "shutdown",
            TaskPhase::Rejected => "could not be started",
            _ => "failed",
        };
        if self.status.phase < phase {
            self.raise(phase, message, w);
            self.status.error = error.chars().take(MAX_ERROR_CHARS).collect();
        }
    }

    /// The container's id and process, once they are seen.
    pub(super) fn note_container(&mut self, w: &World<'_>) {
        let Some(container) = self.current(w.containers) else { return };
        let (id, pid) = (container.id.clone(), container.pid);
        self.status.container_id = Some(id);
        if let (Some(_), ContainerState::Running { .. }) = (pid, &container.state) {
            self.status.pid = pid;
        }
    }

    /// The exit code of a container that we stopped, when it is seen only afterwards.
    pub(super) fn note_exit_code(&mut self, w: &World<'_>) {
        let ours = matches!(self.status.phase, TaskPhase::Shutdown | TaskPhase::Failed);
        if !ours || self.status.exit_code.is_some() {
            return;
        }
        if let Some(ContainerState::Exited { code, .. }) = self.current(w.containers).map(|c| &c.state) {
            self.status.exit_code = Some(*code);
            self.note_container(w);
        }
    }

    /// Gives the status out if it says anything new.
    pub(super) fn say(&mut self, w: &mut World<'_>) {
        let news = self.status.phase > TaskPhase::Assigned && self.said.as_ref() != Some(&self.status);
        if !news || self.forgotten {
            return;
        }
        debug_assert!(
            self.said.as_ref().is_none_or(|old| law::status_moves_forward(old, &self.status)),
            "a status went back: {:?} to {:?}",
            self.said,
            self.status
        );
        self.said = Some(self.status.clone());
        w.out.queue.push_back(Output::Status(self.status.clone()));
    }
}
