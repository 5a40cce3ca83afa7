//! U3: a paused update is not spread.

use peer::model::record::RevisionId;
use peer::model::rollout::Rollout;
use peer::model::task::Task;

/// `task` was made of the release whose rollout is paused, though there is an older one to go on with: `kept` tells
/// whether a revision is still there, `current` is what the operators want.
pub fn spreads_a_paused_release(
    task: &Task,
    rollout: Option<&Rollout>,
    current: Option<RevisionId>,
    kept: impl FnOnce(RevisionId) -> bool,
) -> bool {
    rollout.is_some_and(|r| {
        r.state.is_paused()
            && Some(r.to) == current
            && task.revision == r.to
            && r.from.is_some_and(|from| from != r.to && kept(from))
    })
}
