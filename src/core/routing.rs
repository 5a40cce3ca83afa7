//! The table that the data plane follows, kept up as records and members change: only what has changed is looked at again.

use super::*;
use crate::ids::ServiceId;
use crate::model::spec::PortOptions;
use crate::model::task::Task;
use crate::routes::{self, Endpoint, Router};

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

    pub fn service_of(&self, task: TaskId) -> Option<ServiceId> {
        self.service_of.get(&task).copied()
    }

    /// Something that the services with a task on this node rest on. Those with one of ours, too, are looked at again: where
    /// our own containers are reached may have changed without a word to anybody.
    pub fn node_changed(&mut self, node: NodeId, store: &Store) {
        let concerned = |t: &&Task| t.node.is_some_and(|n| n == node || n == self.me);
        self.dirty.extend(store.tasks().filter(concerned).map(|t| t.service));
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
            let asked = self.port_options(service);
            changed |= self.routes.router.set_options(service, &asked);
        }
        if changed {
            self.routes.version += 1;
            let effect = Effect::Publish { version: self.routes.version, table: self.routes.router.table().clone() };
            self.outbox.push_now(effect);
        }
        changed
    }

    /// What the service's operators ask for its ports.
    fn port_options(&mut self, service: ServiceId) -> BTreeMap<routes::Port, PortOptions> {
        let Some((current, ports)) = self.store.service(service).map(|s| (s.current, s.ports.clone())) else {
            return BTreeMap::new();
        };
        let Some(spec) = self.spec(service, current).filter(|_| !ports.is_empty()) else { return BTreeMap::new() };
        ports.iter().map(|port| ((port.protocol, port.published), spec.options(port))).collect()
    }

    fn endpoint(&self, id: TaskId) -> Option<Endpoint> {
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
