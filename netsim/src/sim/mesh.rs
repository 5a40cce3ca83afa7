//! The data plane of a node and its users: tables come into force after a moment, connections are counted, requests are
//! spread over the replicas of a table, tried elsewhere when one refuses, and wait a little at a port without any.

use super::world::{Ev, MS, SECOND, World};
use peer::core::face::{Event, MeshEvent};
use peer::ids::{NodeId, TaskId};
use peer::model::spec::Protocol;
use peer::routes::RouteTable;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// As the agent's data plane has them.
const MAX_TRIES: usize = 4;
const EMPTY_WAIT_US: u64 = 2 * SECOND;
const QUIET_US: u64 = 3 * SECOND;
const PICKING_US: u64 = 2 * SECOND;
const CONNECT_US: u64 = SECOND;

#[derive(Debug, Default)]
pub struct Mesh {
    /// In force.
    pub table: Arc<RouteTable>,
    turn: usize,
    /// Open connections to replicas here, and when each last carried something.
    open: BTreeMap<TaskId, BTreeMap<u64, u64>>,
    applies_at: u64,
    /// Until then picks by the table in force may still be on their way.
    picked_until: u64,
}

#[derive(Debug)]
pub enum MeshEv {
    Apply(u64, Arc<RouteTable>),
    Applied(u64),
    LookDrained(TaskId, u64),
}

#[derive(Debug)]
pub struct Request {
    port: u16,
    node: usize,
    life: u32,
    tried: BTreeSet<TaskId>,
    came: u64,
    /// Why the tries so far failed.
    trouble: Vec<String>,
    /// With whom it is, and which run of its container.
    at: Option<(usize, String, u32)>,
}

#[derive(Debug, Default)]
pub struct Clients {
    pub open: BTreeMap<u64, Request>,
    next: u64,
    pub answered: u64,
    pub failed: u64,
}

impl World {
    fn mesh_push(&mut self, node: usize, after: u64, ev: MeshEv) {
        let life = self.nodes[node].life;
        self.push_in(after, Ev::Mesh { node, life, ev });
    }

    pub(super) fn mesh_publish(&mut self, node: usize, version: u64, table: Arc<RouteTable>) {
        let takes = 200 + self.rng.around(2 * MS);
        let mesh = &mut self.nodes[node].mesh;
        // One after the other.
        mesh.applies_at = (self.now + takes).max(mesh.applies_at);
        let after = mesh.applies_at - self.now;
        self.mesh_push(node, after, MeshEv::Apply(version, table));
    }

    pub(super) fn mesh_await(&mut self, node: usize, task: TaskId) {
        let began = self.now;
        self.mesh_push(node, MS, MeshEv::LookDrained(task, began));
    }

    pub(super) fn mesh_event(&mut self, node: usize, ev: MeshEv) {
        let now = self.now;
        let mesh = &mut self.nodes[node].mesh;
        match ev {
            MeshEv::Apply(version, table) => {
                self.check_not_emptied(node, &table);
                let mesh = &mut self.nodes[node].mesh;
                mesh.table = table;
                let wait = mesh.picked_until.saturating_sub(now).min(PICKING_US);
                self.mesh_push(node, wait + 50, MeshEv::Applied(version));
            }
            MeshEv::Applied(version) => self.feed(node, Event::Mesh(MeshEvent::Applied { version })),
            MeshEv::LookDrained(task, began) => {
                let quiet = mesh.open.get(&task).is_none_or(|open| open.values().all(|last| now - last >= QUIET_US));
                if quiet {
                    self.feed(node, Event::Mesh(MeshEvent::Drained { task }));
                } else {
                    self.mesh_push(node, 20 * MS, MeshEv::LookDrained(task, began));
                }
            }
        }
    }

    // ---- users

    pub(super) fn client_comes(&mut self) {
        let every = self.plan.weather.client_every_ms * MS;
        if every == 0 {
            return;
        }
        let wait = self.clients_rng.around(every).max(50);
        self.push_in(wait, Ev::Client);
        let up: Vec<usize> = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].core.is_some() && self.nodes[*n].paused_until <= self.now)
            .collect();
        let Some(node) = self.clients_rng.pick(&up).copied() else { return };
        let ports: Vec<u16> =
            self.nodes[node].mesh.table.ports.keys().filter(|(p, _)| *p == Protocol::Tcp).map(|(_, n)| *n).collect();
        let Some(port) = self.clients_rng.pick(&ports).copied() else { return };
        self.clients.next += 1;
        let id = self.clients.next;
        let request = Request {
            port,
            node,
            life: self.nodes[node].life,
            tried: BTreeSet::new(),
            came: self.now,
            trouble: Vec::new(),
            at: None,
        };
        self.clients.open.insert(id, request);
        self.client_try(id);
    }

    /// Picks a replica, or waits for one, or gives up.
    pub(super) fn client_try(&mut self, id: u64) {
        let now = self.now;
        let Some(request) = self.clients.open.get_mut(&id) else { return };
        let node = request.node;
        if self.nodes[node].core.is_none() || self.nodes[node].life != request.life {
            // Its own node died: nobody promised anything.
            self.clients.open.remove(&id);
            return;
        }
        let mesh = &mut self.nodes[node].mesh;
        let backends = mesh.table.ports.get(&(Protocol::Tcp, request.port));
        let Some(backends) = backends else {
            self.clients.open.remove(&id);
            return;
        };
        mesh.turn = mesh.turn.wrapping_add(1);
        let turn = mesh.turn;
        let order = (0..backends.len()).map(|n| &backends[turn.wrapping_add(n) % backends.len()]);
        let chosen = order.into_iter().find(|b| !request.tried.contains(&b.task)).cloned();
        let Some(backend) = chosen.filter(|_| request.tried.len() < MAX_TRIES) else {
            if now < request.came + EMPTY_WAIT_US {
                if request.tried.len() >= backends.len() {
                    request.tried.clear();
                }
                self.push_in(50 * MS, Ev::ClientTry(id));
            } else {
                self.client_failed(id, "no replica answered");
            }
            return;
        };
        request.tried.insert(backend.task);
        let target = self.index_of(backend.node);
        let takes = if target == Some(node) { 100 } else { self.latency() * 2 };
        let mesh = &mut self.nodes[node].mesh;
        mesh.picked_until = mesh.picked_until.max(now + takes);
        self.push_in(takes, Ev::ClientArrive { id, task: backend.task, at: backend.node, port: backend.target });
    }

    pub(super) fn client_arrives(&mut self, id: u64, task: TaskId, at: NodeId, port: u16) {
        let now = self.now;
        let Some(request) = self.clients.open.get(&id) else { return };
        let from = request.node;
        let Some(target) = self.index_of(at) else { return };
        let reachable = from == target || (!self.net.is_cut_any(from, target) && self.nodes[target].core.is_some());
        if !reachable || self.nodes[target].paused_until > now {
            self.client_refused(id, CONNECT_US, format!("n{target} does not answer"));
            return;
        }
        let node = &mut self.nodes[target];
        let admitted = from == target || node.mesh.table.local.contains_key(&(task, port));
        let serving = node.engine.containers.iter_mut().find(|(_, c)| c.plan.task == task && c.is_running());
        let Some((name, container)) = serving.filter(|(_, c)| admitted && c.accepts_at <= now && !c.stopping) else {
            let why = if admitted { "refuses" } else { "is not admitted" };
            self.client_refused(id, MS, format!("task {task} on n{target} {why}"));
            return;
        };
        container.requests += 1;
        let (name, run) = (name.clone(), container.run);
        node.mesh.open.entry(task).or_default().insert(id, now);
        if let Some(request) = self.clients.open.get_mut(&id) {
            request.at = Some((target, name, run));
        }
        let takes = MS + self.clients_rng.around(30 * MS);
        self.push_in(takes, Ev::ClientDone { id, task });
    }

    fn client_refused(&mut self, id: u64, after: u64, why: String) {
        if let Some(request) = self.clients.open.get_mut(&id) {
            request.trouble.push(why);
            self.push_in(after, Ev::ClientTry(id));
        }
    }

    pub(super) fn client_done(&mut self, id: u64, task: TaskId) {
        let Some((target, name, run)) = self.clients.open.get(&id).and_then(|r| r.at.clone()) else { return };
        let node = &mut self.nodes[target];
        if let Some(open) = node.mesh.open.get_mut(&task) {
            open.remove(&id);
            if open.is_empty() {
                node.mesh.open.remove(&task);
            }
        }
        let container = node.engine.containers.get_mut(&name).filter(|c| c.run == run);
        let (alive, killed) = match container {
            Some(c) => {
                c.requests = c.requests.saturating_sub(1);
                (c.is_running(), c.killed)
            }
            None => (false, false),
        };
        if alive {
            self.clients.answered += 1;
            self.clients.open.remove(&id);
        } else if killed {
            self.clients.open.remove(&id);
        } else {
            self.client_failed(id, "its replica ended under it");
        }
    }

    fn client_failed(&mut self, id: u64, why: &str) {
        let Some(request) = self.clients.open.remove(&id) else { return };
        self.clients.failed += 1;
        self.check_request(request.node, request.port, request.came, why, &request.trouble);
    }

    pub(super) fn mesh_reset(&mut self, node: usize) {
        self.nodes[node].mesh = Mesh::default();
    }
}
