//! P5 one container a task; P2 a task runs on one node; P4 and E2 what is given to a node fits there; U3 a paused update is
//! not spread, and nothing goes back to an old release by itself.

use super::Breach;
use peer::ids::TaskId;
use peer::model::record::RevisionId;
use peer::model::rollout::Rollout;
use peer::model::spec::{NodeAttribute, Protocol, ServiceSpec};
use peer::model::task::Task;
use std::collections::BTreeSet;

/// `n` runs a container of the task; `places` are the nodes of all its running containers, this one too.
pub fn runs_alone(task: TaskId, n: usize, places: impl IntoIterator<Item = usize>) -> Option<Breach> {
    let (here, elsewhere): (Vec<usize>, Vec<usize>) = places.into_iter().partition(|place| *place == n);
    if here.len() > 1 {
        return Some(Breach::of("P5", format!("n{n} runs {} containers of task {task:?}", here.len())));
    }
    let other = elsewhere.first()?;
    Some(Breach::of("P2", format!("task {task:?} runs on n{n} and on n{other}")))
}

/// `task` was made of the release whose rollout is paused, though there is an older one to go on with: `spec` gives that of
/// a revision that is still there, `current` is what the operators want. Two revisions that ask the same of a container are one release.
pub fn spreads_a_paused_release(
    task: &Task,
    rollout: Option<&Rollout>,
    current: Option<RevisionId>,
    spec: impl Fn(RevisionId) -> Option<ServiceSpec>,
) -> bool {
    let differ = |from, to| match (spec(from), spec(to)) {
        (Some(from), Some(to)) => to.needs_replacement(&from),
        (from, _) => from.is_some(),
    };
    rollout.is_some_and(|r| {
        r.state.is_paused()
            && Some(r.to) == current
            && task.revision == r.to
            && r.from.is_some_and(|from| from != r.to && differ(from, r.to))
    })
}

/// `task` takes the slot of one that runs what the rollout goes to, with what ran before, though nobody rolls back.
pub fn goes_back_a_release(
    task: &Task,
    replaced: Option<&Task>,
    rollout: Option<&Rollout>,
    current: Option<RevisionId>,
) -> bool {
    let (Some(replaced), Some(rollout)) = (replaced, rollout) else { return false };
    Some(rollout.to) == current
        && !rollout.state.is_rollback()
        && !rollout.state.is_paused()
        && rollout.from == Some(task.revision)
        && replaced.revision == rollout.to
        && rollout.from != Some(rollout.to)
}

/// A constraint on the node's name that the node doesn't meet; the simulator's services have no others.
pub fn unmet_constraint(spec: &ServiceSpec, hostname: &str) -> Option<String> {
    let of_name = spec.task.placement.constraints.iter().filter(|c| c.attribute == NodeAttribute::Hostname);
    let mut unmet = of_name.filter(|c| c.value.eq_ignore_ascii_case(hostname) != c.equal);
    unmet.next().map(|c| format!("node.hostname {} {}", if c.equal { "==" } else { "!=" }, c.value))
}

/// What the tasks of one node reserve.
#[derive(Debug, Default)]
pub struct Taken {
    nano_cpus: u64,
    memory: u64,
    ports: BTreeSet<(Protocol, u16)>,
    twice: Option<u16>,
}

impl Taken {
    pub fn add(&mut self, spec: &ServiceSpec) {
        self.nano_cpus += spec.task.resources.reserve_nano_cpus;
        self.memory += spec.task.resources.reserve_memory;
        for port in spec.host_ports().filter(|p| p.published != 0) {
            if !self.ports.insert((port.protocol, port.published)) {
                self.twice = Some(port.published);
            }
        }
    }

    /// More than the node has; a capacity of 0 is unknown.
    pub fn breach(&self, nano_cpus: u64, memory: u64) -> Option<(&'static str, String)> {
        if let Some(port) = self.twice {
            return Some(("E2", format!("two tasks bind its port {port}")));
        }
        let over = |what: &str, taken: u64, has: u64| {
            (taken > has && has > 0).then(|| ("P4", format!("{taken} {what} are reserved of {has}")))
        };
        over("nano CPUs", self.nano_cpus, nano_cpus).or_else(|| over("bytes", self.memory, memory))
    }
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
