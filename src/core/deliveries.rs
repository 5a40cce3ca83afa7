//! The ports of this node at which the kernels of other nodes reach its replicas: one for each published target of each
//! task, so that whoever withdraws a backend withdraws exactly one replica.
//!
//! The law: a port is given to one target at a time; a task keeps its ports as long as it runs, over restarts of the
//! agent too; what becomes free is given again as late as can be, since somebody may still have the old word.

use super::*;
use crate::limits::DELIVERY_PORTS;
use crate::model::spec::Protocol;
use crate::model::task::{Delivery, Standing};

/// A port's protocol and number in the container.
pub(super) type Target = (Protocol, u16);

#[derive(Default)]
pub(super) struct Deliveries {
    /// This node's data plane has them.
    on: bool,
    given: BTreeMap<(TaskId, Target), u16>,
    used: BTreeSet<u16>,
    /// How many were given so far.
    turn: usize,
}

impl Deliveries {
    pub fn new(on: bool, seed: u64) -> Self {
        Self { on, turn: seed as usize % DELIVERY_PORTS.len(), ..Self::default() }
    }

    /// What an earlier life gave.
    pub fn remember(&mut self, status: &TaskStatus) {
        for delivery in status.deliveries().iter().filter(|_| self.on) {
            let fits = DELIVERY_PORTS.contains(&delivery.port) && self.used.insert(delivery.port);
            if fits {
                self.given.insert((status.task, (delivery.protocol, delivery.target)), delivery.port);
            }
        }
    }

    /// Makes sure that the task's target has a port, while there are any.
    pub fn give(&mut self, task: TaskId, target: Target) {
        if !self.on || self.given.contains_key(&(task, target)) {
            return;
        }
        let count = DELIVERY_PORTS.len();
        let in_turn = (0..count).map(|n| DELIVERY_PORTS.start() + ((self.turn + n) % count) as u16);
        if let Some(port) = in_turn.into_iter().find(|port| !self.used.contains(port)) {
            self.turn = usize::from(port - DELIVERY_PORTS.start()) + 1;
            self.used.insert(port);
            self.given.insert((task, target), port);
        }
    }

    pub fn forget(&mut self, task: TaskId) {
        let used = &mut self.used;
        self.given.retain(|(of, _), port| {
            let keep = *of != task;
            if !keep {
                used.remove(port);
            }
            keep
        });
    }

    pub fn of(&self, task: TaskId, targets: &[Target]) -> Vec<Delivery> {
        let port = |target: &Target| self.given.get(&(task, *target)).copied();
        let delivery = |target: &Target| Some(Delivery { protocol: target.0, target: target.1, port: port(target)? });
        targets.iter().filter_map(delivery).collect()
    }
}

impl Core {
    /// What the mesh carries of a service to each of its tasks.
    pub(super) fn targets(&self, service: crate::ids::ServiceId) -> Vec<Target> {
        let ports = self.store.service(service).map(|s| s.ports.as_slice()).unwrap_or_default();
        let routed = ports.iter().filter(|p| crate::routes::is_routed(p)).map(|p| (p.protocol, p.target));
        routed.collect::<BTreeSet<Target>>().into_iter().collect()
    }

    /// The worker's word on a task, with what it doesn't know: where the task is delivered to.
    pub(super) fn with_deliveries(&mut self, mut status: TaskStatus) -> TaskStatus {
        if status.phase == TaskPhase::Running {
            let targets = self.routes.service_of(status.task).map(|service| self.targets(service)).unwrap_or_default();
            let deliveries = self.deliveries.of(status.task, &targets);
            status.standing = if deliveries.is_empty() { Standing::Plain } else { Standing::Delivers(deliveries) };
        } else if let Standing::Delivers(_) = status.standing {
            status.standing = Standing::Plain;
        }
        if status.is_over() {
            self.deliveries.forget(status.task);
        }
        status
    }

    /// A running task of this node whose recorded deliveries are not what they should be is to be told of again.
    /// True if there is one.
    pub(super) fn retell(&mut self, task: TaskId) -> bool {
        let Some(said) = self.worker.status(task).filter(|s| s.phase == TaskPhase::Running).cloned() else {
            return false;
        };
        let told = self.store.status(task).filter(|s| (s.phase, s.attempt) == (said.phase, said.attempt));
        let Some(told) = told.map(|s| s.standing.clone()) else { return false };
        let wrong = self.with_deliveries(said.clone()).standing != told;
        if wrong {
            self.statuses.push(said);
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(n: u128) -> TaskId {
        TaskId::from_u128(n)
    }

    const WEB: Target = (Protocol::Tcp, 80);

    #[test]
    fn ports_are_kept_shared_with_nobody_and_reused_late() {
        let mut deliveries = Deliveries::new(true, 3_998);
        for n in 1..=4 {
            deliveries.give(task(n), WEB);
            deliveries.give(task(n), WEB);
        }
        let ports = |d: &Deliveries, n| d.of(task(n), &[WEB]).iter().map(|d| d.port).collect::<Vec<_>>();
        assert_eq!([1, 2, 3, 4].map(|n| ports(&deliveries, n)[0]), [64_998, 64_999, 61_000, 61_001]);
        deliveries.forget(task(2));
        deliveries.give(task(5), WEB);
        assert_eq!((ports(&deliveries, 2), ports(&deliveries, 5)), (vec![], vec![61_002]));

        let mut status = TaskStatus::new(task(3), NodeId::from_u128(1), crate::time::Wall(0));
        status.standing = Standing::Delivers(deliveries.of(task(3), &[WEB]));
        let mut next_life = Deliveries::new(true, 0);
        next_life.remember(&status);
        next_life.give(task(9), WEB);
        assert_eq!((ports(&next_life, 3), ports(&next_life, 9)), (vec![61_000], vec![61_001]));
        let mut without = Deliveries::new(false, 0);
        without.remember(&status);
        without.give(task(9), WEB);
        assert!(without.given.is_empty());
    }

    #[test]
    fn when_all_are_given_there_is_none() {
        let mut deliveries = Deliveries::new(true, 0);
        let count = DELIVERY_PORTS.len() as u128;
        for n in 0..=count {
            deliveries.give(task(n), WEB);
        }
        assert_eq!(deliveries.used.len() as u128, count);
        assert!(deliveries.of(task(count), &[WEB]).is_empty());
    }
}
