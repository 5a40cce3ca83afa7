//! The table that the data plane follows, kept up as records and members change: only what has changed is looked at again.

use super::deliveries::Target;
use super::*;
use crate::ids::ServiceId;
use crate::routes::{self, Endpoint, Router};
use std::net::IpAddr;

/// The table that the data plane was last given, and how far it has come.
pub(super) struct Routes {
    pub version: u64,
    pub applied: u64,
    router: Router,
    tasks: BTreeMap<ServiceId, BTreeSet<TaskId>>,
    service_of: BTreeMap<TaskId, ServiceId>,
    dirty: BTreeSet<ServiceId>,
    /// Who the members are, or which of them are down, has changed.
    members_dirty: bool,
    /// This node's containers, as they were last observed.
    addresses: BTreeMap<TaskId, IpAddr>,
}

impl Routes {
    pub fn new(me: NodeId) -> Self {
        Self {
            version: 0,
            applied: 0,
            router: Router::new(me),
            tasks: BTreeMap::new(),
            service_of: BTreeMap::new(),
            dirty: BTreeSet::new(),
            members_dirty: true,
            addresses: BTreeMap::new(),
        }
    }

    /// `service`: whose it is, or none if the task is no more.
    pub fn task_changed(&mut self, task: TaskId, service: Option<ServiceId>) {
        let was = match service {
            Some(service) => self.service_of.insert(task, service),
            None => self.service_of.remove(&task),
        };
        if let Some(was) = was.filter(|was| Some(*was) != service) {
            self.dirty.insert(was);
            if let Some(tasks) = self.tasks.get_mut(&was) {
                tasks.remove(&task);
                if tasks.is_empty() {
                    self.tasks.remove(&was);
                }
            }
        }
        if let Some(service) = service {
            self.tasks.entry(service).or_default().insert(task);
            self.dirty.insert(service);
        }
    }

    pub fn status_changed(&mut self, task: TaskId) {
        self.dirty.extend(self.service_of.get(&task));
    }

    pub fn service_changed(&mut self, service: ServiceId) {
        self.dirty.insert(service);
    }

    #[cfg(test)]
    pub fn router_table(&self) -> &Arc<routes::RouteTable> {
        self.router.table()
    }

    pub fn service_of(&self, task: TaskId) -> Option<ServiceId> {
        self.service_of.get(&task).copied()
    }

    pub fn members_changed(&mut self) {
        self.members_dirty = true;
        self.all_changed();
    }

    /// Something that all of them rest on.
    pub fn all_changed(&mut self) {
        self.dirty.extend(self.tasks.keys());
    }
}

impl Core {
    /// Recomputes the table after what it rests on has changed. True if it is another.
    pub(super) fn publish_routes(&mut self) -> bool {
        if self.routes.dirty.is_empty() {
            return false;
        }
        let (mut changed, mut retold) = (false, false);
        for service in std::mem::take(&mut self.routes.dirty) {
            let targets = self.targets(service);
            let tasks: Vec<TaskId> = self.routes.tasks.get(&service).into_iter().flatten().copied().collect();
            for task in &tasks {
                if self.routes.addresses.contains_key(task) {
                    targets.iter().for_each(|target| self.deliveries.give(*task, *target));
                }
                retold |= self.retell(*task);
            }
            let endpoints: Vec<Endpoint> = if targets.is_empty() {
                Vec::new()
            } else {
                tasks.iter().filter_map(|id| self.endpoint(*id, &targets)).collect()
            };
            let published = self.store.service(service).map(|s| s.ports.as_slice()).unwrap_or_default();
            changed |= self.routes.router.update(service, published, endpoints.into_iter());
        }
        // Without a port nobody asks who the members are.
        if !self.routes.router.table().ports.is_empty() && std::mem::take(&mut self.routes.members_dirty) {
            let members = self.members_by_address();
            changed |= self.routes.router.set_members(members);
        }
        if changed {
            self.routes.version += 1;
            let effect = Effect::Publish { version: self.routes.version, table: self.routes.router.table().clone() };
            self.outbox.push_now(effect);
        }
        changed || retold
    }

    /// The engine was looked at: a container whose address is another one is reached there from now on, and one that has
    /// just got one is made ready to be delivered to before others hear that it runs.
    pub(super) fn note_addresses(&mut self) {
        let mine = self.worker.addresses();
        let old = std::mem::replace(&mut self.routes.addresses, mine);
        let changed = |task: &&TaskId| old.get(*task) != self.routes.addresses.get(*task);
        let changed: Vec<TaskId> = old.keys().chain(self.routes.addresses.keys()).filter(changed).copied().collect();
        for task in changed {
            self.routes.status_changed(task);
        }
    }

    /// Every other member that was not removed, and whether it is thought to be up.
    fn members_by_address(&self) -> BTreeMap<IpAddr, bool> {
        let mut members = BTreeMap::new();
        for member in self.membership.members().filter(|m| m.node != self.me && !self.removed.contains(&m.node)) {
            *members.entry(member.addr.ip()).or_default() |= member.liveness != Liveness::Down;
        }
        members
    }

    fn endpoint(&self, id: TaskId, targets: &[Target]) -> Option<Endpoint> {
        let task = self.store.task(id)?;
        let node = task.node?;
        let local = if node == self.me { self.worker.observed(id) } else { None };
        let liveness = self.liveness_of(node);
        Some(Endpoint {
            task: id,
            node,
            node_addr: self.address(node)?,
            routable: routes::is_routable(task, self.store.status(id), liveness),
            liveness,
            local_ip: local.and_then(|c| c.address),
            deliveries: match self.store.status(id) {
                _ if node == self.me => self.deliveries.of(id, targets),
                Some(status) => status.deliveries().to_vec(),
                None => Vec::new(),
            },
        })
    }

    /// As [`Core::liveness`] has it.
    fn liveness_of(&self, node: NodeId) -> Liveness {
        if node == self.me {
            return Liveness::Alive;
        }
        let member = self.membership.member(node).filter(|_| !self.removed.contains(&node));
        member.map_or(Liveness::Down, |m| m.liveness)
    }
}
