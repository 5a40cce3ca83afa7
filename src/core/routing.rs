//! The table that the data plane follows, kept up as records and members change: only what has changed is looked at again.

use super::*;
use crate::ids::ServiceId;
use crate::routes::{self, Endpoint, Router};

/// The table that the data plane was last given, and how far it has come.
pub(super) struct Routes {
    pub version: u64,
    pub applied: u64,
    router: Router,
    tasks: BTreeMap<ServiceId, BTreeSet<TaskId>>,
    service_of: BTreeMap<TaskId, ServiceId>,
    dirty: BTreeSet<ServiceId>,
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

    pub fn service_of(&self, task: TaskId) -> Option<ServiceId> {
        self.service_of.get(&task).copied()
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
        let mut changed = false;
        for service in std::mem::take(&mut self.routes.dirty) {
            let published = self.store.service(service).map(|s| s.ports.as_slice()).unwrap_or_default();
            let tasks = self.routes.tasks.get(&service).into_iter().flatten();
            let endpoints: Vec<Endpoint> =
                if published.is_empty() { Vec::new() } else { tasks.filter_map(|id| self.endpoint(*id)).collect() };
            changed |= self.routes.router.update(service, published, endpoints.into_iter());
        }
        if changed {
            self.routes.version += 1;
            let effect = Effect::Publish { version: self.routes.version, table: self.routes.router.table().clone() };
            self.outbox.push_now(effect);
        }
        changed
    }

    fn endpoint(&self, id: TaskId) -> Option<Endpoint> {
        let task = self.store.task(id)?;
        let node = task.node?;
        // Of most tasks that there are, past ones and those still on their way, the table says nothing.
        if node != self.me && !task.desired.is_live() {
            return None;
        }
        let local = if node == self.me { self.worker.observed(id) } else { None };
        let liveness = self.liveness_of(node);
        Some(Endpoint {
            task: id,
            node,
            node_addr: self.address(node)?,
            routable: routes::is_routable(task, self.store.status(id), liveness),
            liveness,
            local_ip: local.and_then(|c| c.address),
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
