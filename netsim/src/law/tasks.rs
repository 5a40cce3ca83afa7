//! P5 one container a task; P2 a task runs on one node; U3 a paused update is not spread.

use super::Breach;
use peer::ids::TaskId;
use peer::model::record::RevisionId;
use peer::model::rollout::Rollout;
use peer::model::task::Task;

/// `n` runs a container of the task; `places` are the nodes of all its running containers, this one too.
pub fn runs_alone(task: TaskId, n: usize, places: impl IntoIterator<Item = usize>) -> Option<Breach> {
    let (here, elsewhere): (Vec<usize>, Vec<usize>) = places.into_iter().partition(|place| *place == n);
    if here.len() > 1 {
        return Some(Breach::of("P5", format!("n{n} runs {} containers of task {task:?}", here.len())));
    }
    let other = elsewhere.first()?;
    Some(Breach::of("P2", format!("task {task:?} runs on n{n} and on n{other}")))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_one_container_on_one_node() {
        let law = |places: &[usize]| {
            runs_alone(TaskId::from_u128(1), places[0], places.iter().copied()).map(|breach| breach.law)
        };
        assert_eq!(law(&[3]), None);
        assert_eq!(law(&[3, 3]), Some("P5"));
        assert_eq!(law(&[3, 4]), Some("P2"));
    }
}
