//! The table that the data plane follows, kept up as records and members change: only what has changed is looked at again.

use super::deliveries::Target;
use super::*;
use crate::ids::ServiceId;
use crate::model::spec::PortOptions;
use crate::model::task::Task;
use crate::routes::{self, Endpoint, Router};
use std::net::IpAddr;

/// The table that the data plane was last given, and how far it has come.
pub(super) struct Routes {
    pub version: u64,
    pub applied: u64,
    me: NodeId,
    router: Router,
    /// Those that a table may lead to: not the past ones of other nodes, which are most.
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
            me,
            router: Router::new(me),
            tasks: BTreeMap::new(),
            service_of: BTreeMap::new(),
            dirty: BTreeSet::new(),
            members_dirty: true,
            addresses: BTreeMap::new(),
        }
    }

    /// As it is now; none if it is no more.
    pub fn task_changed(&mut self, id: TaskId, task: Option<&Task>) {
        let service = task.map(|t| t.service);
        let was = match service {
            Some(service) => self.service_of.insert(id, service),
            None => self.service_of.remove(&id),
        };
        let matters = |t: &&Task| t.desired.is_live() || t.node == Some(self.me);
        let stays = task.filter(matters).map(|t| t.service);
        for left in was.into_iter().chain(service).filter(|s| Some(*s) != stays) {
            if let Some(tasks) = self.tasks.get_mut(&left) {
                tasks.remove(&id);
                if tasks.is_empty() {
                    self.tasks.remove(&left);
                }
            }
        }
        if let Some(service) = stays {
            self.tasks.entry(service).or_default().insert(id);
        }
        self.dirty.extend(was.into_iter().chain(service));
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

    /// Something that the services with a task on this node rest on. Those with one of ours, too, are looked at again: where
    /// our own containers are reached may have changed without a word to anybody.
    pub fn node_changed(&mut self, node: NodeId, store: &Store) {
        self.members_dirty = true;
        let concerned = |t: &&Task| t.node.is_some_and(|n| n == node || n == self.me);
        self.dirty.extend(store.tasks().filter(concerned).map(|t| t.service));
    }
}

impl Core {
    /// Recomputes the table after what it rests on has changed. True if it is another.
    pub(super) fn publish_routes(&mut self) -> bool {
        if self.routes.dirty.is_empty() && !self.routes.members_dirty {
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
            let asked = self.port_options(service);
            changed |= self.routes.router.set_options(service, &asked);
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

    /// What the service's operators ask for its ports.
    fn port_options(&mut self, service: ServiceId) -> BTreeMap<routes::Port, PortOptions> {
        let Some((current, ports)) = self.store.service(service).map(|s| (s.current, s.ports.clone())) else {
            return BTreeMap::new();
        };
        let Some(spec) = self.spec(service, current).filter(|_| !ports.is_empty()) else { return BTreeMap::new() };
        ports.iter().map(|port| ((port.protocol, port.published), spec.options(port))).collect()
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
            routable: routes::is_routable(task, self.store.status_of(task), liveness),
            liveness,
            local_ip: local.and_then(|c| c.address),
            deliveries: match self.store.status_of(task) {
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
