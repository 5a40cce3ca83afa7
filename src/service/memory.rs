//! What the holder has seen with its own clock. Soft: a new holder starts without it and at worst waits again.

use super::*;

/// More than a third of the nodes gone within this: more likely our own trouble than theirs.
const MASS_WINDOW: Duration = Duration::from_secs(10);
/// How long such a loss is waited out before tasks are moved: three probes more. That it isn't our own trouble is shown
/// already by the lease, which a majority renews.
const MASS_WAIT: Duration = Duration::from_millis(1_500);
/// Tasks moved off lost nodes in a second: this many, or a tenth of all if that is more.
const MOVES_PER_SECOND: usize = 5;
const MOVE_PERIOD: Duration = Duration::from_secs(1);
/// A service at rest is looked at again after this, should something that it rests on have changed unnoticed.
const REST_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Default, Clone)]
pub struct Memory {
    running: BTreeMap<TaskId, Mono>,
    starting: BTreeMap<TaskId, Mono>,
    ended: BTreeMap<TaskId, Mono>,
    unplaced: BTreeMap<TaskId, Mono>,
    /// Services that are to go back to what isn't known here.
    lost_way: BTreeMap<ServiceId, Mono>,
    down: BTreeMap<NodeId, Mono>,
    engine_down: BTreeMap<NodeId, Mono>,
    moves_since: Option<Mono>,
    moves_left: usize,
    hold_moves_until: Option<Mono>,
    at_rest: BTreeMap<ServiceId, Rest>,
}

/// The last plan changed nothing of a service: planning it again changes nothing either, until something stirs it.
#[derive(Debug, Clone, Copy)]
struct Rest {
    since: Mono,
    /// By then time alone may have changed that.
    wake: Option<Mono>,
}

fn keep<K: Ord + Copy>(map: &mut BTreeMap<K, Mono>, holds: &BTreeSet<K>, now: Mono) {
    map.retain(|key, _| holds.contains(key));
    for key in holds {
        map.entry(*key).or_insert(now);
    }
}

impl Memory {
    /// Something of this service has changed.
    pub fn stir(&mut self, service: ServiceId) {
        self.at_rest.remove(&service);
    }

    /// Something that all services rest on has changed.
    pub fn stir_all(&mut self) {
        self.at_rest.clear();
    }

    /// The service need not be planned now, but at the instant that is returned, if any.
    pub(super) fn rests(&self, service: ServiceId, now: Mono) -> Option<Option<Mono>> {
        let rest = self.at_rest.get(&service)?;
        let over = now.since(rest.since) >= REST_LIMIT || rest.wake.is_some_and(|at| at <= now);
        (!over).then_some(rest.wake)
    }

    pub(super) fn rest(&mut self, service: ServiceId, wake: Option<Mono>, now: Mono) {
        self.at_rest.insert(service, Rest { since: now, wake });
    }

    /// Notes since when each thing is as it is.
    pub(super) fn observe(&mut self, view: &View, now: Mono) {
        let (mut running, mut starting, mut ended, mut unplaced) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (task, status) in view.services.values().flat_map(|s| &s.tasks) {
            match status.map_or(TaskPhase::Pending, |s| s.phase) {
                TaskPhase::Running => _ = running.insert(task.id),
                TaskPhase::Ready | TaskPhase::Starting if task.desired == Desired::Running => {
                    _ = starting.insert(task.id)
                }
                phase if phase >= TaskPhase::Complete => _ = ended.insert(task.id),
                _ => {}
            }
            if task.node.is_none() && task.desired.is_live() {
                unplaced.insert(task.id);
            }
        }
        keep(&mut self.running, &running, now);
        keep(&mut self.starting, &starting, now);
        keep(&mut self.ended, &ended, now);
        keep(&mut self.unplaced, &unplaced, now);
        let lost_way = view.services.iter().filter(|(_, state)| state.lacks_the_way_back()).map(|(id, _)| *id);
        keep(&mut self.lost_way, &lost_way.collect(), now);
        let down = view.nodes.values().filter(|n| n.liveness == Liveness::Down && !n.policy.removed).map(|n| n.id);
        keep(&mut self.down, &down.collect(), now);
        let engine_down =
            view.nodes.values().filter(|n| matches!(n.fact.engine, EngineState::Unreachable(_))).map(|n| n.id);
        keep(&mut self.engine_down, &engine_down.collect(), now);
    }

    pub(super) fn running_for(&self, task: TaskId, now: Mono) -> Option<Duration> {
        self.running.get(&task).map(|since| now.since(*since))
    }

    pub(super) fn running_since(&self, task: TaskId) -> Option<Mono> {
        self.running.get(&task).copied()
    }

    pub(super) fn starting_since(&self, task: TaskId) -> Option<Mono> {
        self.starting.get(&task).copied()
    }

    pub(super) fn ended_since(&self, task: TaskId) -> Option<Mono> {
        self.ended.get(&task).copied()
    }

    pub(super) fn unplaced_since(&self, task: TaskId) -> Option<Mono> {
        self.unplaced.get(&task).copied()
    }

    pub(super) fn lost_way_since(&self, service: ServiceId) -> Option<Mono> {
        self.lost_way.get(&service).copied()
    }

    pub(super) fn down_for(&self, node: NodeId, now: Mono) -> Option<Duration> {
        self.down.get(&node).map(|since| now.since(*since))
    }

    pub(super) fn engine_gone(&self, node: NodeId, now: Mono) -> bool {
        self.engine_down.get(&node).is_some_and(|since| now.since(*since) >= ENGINE_GRACE)
    }

    /// When the next engine that doesn't answer is taken for gone.
    pub(super) fn next_engine_loss(&self, now: Mono) -> Option<Mono> {
        self.engine_down.values().map(|since| *since + ENGINE_GRACE).filter(|at| *at > now).min()
    }

    /// Refills the allowance for moving tasks off lost nodes, and holds it back after a mass loss.
    pub(super) fn begin_moves(&mut self, view: &View, now: Mono) {
        let recent: Vec<Mono> = self.down.values().copied().filter(|since| now.since(*since) < MASS_WINDOW).collect();
        // One node is one node, however small the cluster.
        let mass = recent.len() >= 2 && recent.len() * 3 > view.nodes.values().filter(|n| !n.policy.removed).count();
        let hold = recent.into_iter().max().filter(|_| mass).map(|last| last + MASS_WAIT);
        if std::mem::replace(&mut self.hold_moves_until, hold) != hold {
            // It may end sooner than it said, as losses grow old.
            self.stir_all();
        }
        if self.moves_since.is_none_or(|since| now.since(since) >= MOVE_PERIOD) {
            let tasks: usize =
                view.services.values().map(|s| s.tasks.iter().filter(|(t, _)| t.desired.is_live()).count()).sum();
            self.moves_since = Some(now);
            self.moves_left = MOVES_PER_SECOND.max(tasks / 10);
        }
    }

    /// Takes one move from the allowance, or says when to ask again.
    pub(super) fn take_move(&mut self, now: Mono) -> Result<(), Mono> {
        if let Some(until) = self.hold_moves_until.filter(|until| *until > now) {
            return Err(until);
        }
        if self.moves_left == 0 {
            return Err(self.moves_since.map_or(now, |since| since + MOVE_PERIOD));
        }
        self.moves_left -= 1;
        Ok(())
    }
}
