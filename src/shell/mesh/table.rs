//! The table in force, who is picked by it, the connections counted against it, and who waits for what.

use super::pick::choose;
use super::view::{PortView, ReplicaState, ReplicaView, Totals, View};
use crate::ids::{NodeId, TaskId};
use crate::model::spec::PortOptions;
use crate::routes::{Backend, Port, Reach, RouteTable};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// A connection that has carried nothing for this long doesn't hold up its replica's stop: a request that takes
/// longer is the server's to finish after SIGTERM.
pub const QUIET_AFTER: Duration = Duration::from_secs(3);

/// Held by every connection that was picked by a generation of the table and isn't established yet.
pub type Picking = mpsc::Sender<()>;

pub struct Shared {
    started: Instant,
    inner: Mutex<Inner>,
    swapped: Notify,
}

struct Inner {
    table: Arc<RouteTable>,
    /// Cloned into every connection that this table is picked for; the receiver closes when all are gone.
    picking: (Picking, mpsc::Receiver<()>),
    /// Round robin per port.
    turns: BTreeMap<Port, usize>,
    open: BTreeMap<TaskId, BTreeMap<u64, Arc<Activity>>>,
    next_id: u64,
    /// Since the agent's start, for as long as the port is in the table.
    totals: BTreeMap<Port, Arc<Counts>>,
    /// Of what is in the table, and of what has left it for as long as connections last.
    replicas: BTreeMap<(Port, TaskId), Replica>,
    /// Ports that can't be opened here, and why.
    blocked: BTreeMap<u16, String>,
}

#[derive(Default)]
pub struct Counts {
    connections: AtomicU64,
    open: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

struct Replica {
    node: NodeId,
    target: u16,
    local: bool,
    open: u64,
    total: u64,
    failures: u64,
}

/// What a connection does.
pub struct Activity {
    /// Milliseconds since `Shared::started` at which bytes last moved.
    last_ms: AtomicU64,
    /// It holds up its replica's stop until it ends, however quiet it is.
    holds: AtomicBool,
}

/// One connection to a replica, or one request; counted from before the connect until it is dropped.
pub struct Counted {
    shared: Arc<Shared>,
    task: TaskId,
    id: u64,
    activity: Arc<Activity>,
    /// None for what comes in through another node's port.
    port: Option<(Port, Arc<Counts>)>,
}

impl Counted {
    /// Towards the replica.
    pub fn sent(&self, bytes: usize) {
        if let Some((_, counts)) = &self.port {
            counts.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Towards the client.
    pub fn received(&self, bytes: usize) {
        if let Some((_, counts)) = &self.port {
            counts.received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// For what moves on while this is held elsewhere.
    pub fn meter(&self) -> Meter {
        Meter(self.port.as_ref().map(|(_, counts)| counts.clone()))
    }

    /// Whether it holds up its replica's stop until it ends, as a request does until it has its answer, or only while
    /// something moves.
    pub fn hold(&self, until_dropped: bool) {
        self.activity.holds.store(until_dropped, Ordering::Relaxed);
    }

    /// Bytes have moved.
    pub fn touch(&self) {
        self.activity.last_ms.store(self.shared.now_ms(), Ordering::Relaxed);
    }

    /// For so long nothing has moved.
    pub fn idle(&self) -> Duration {
        let last = self.activity.last_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.shared.now_ms().saturating_sub(last))
    }
}

/// Counts bytes.
pub struct Meter(Option<Arc<Counts>>);

impl Meter {
    /// Towards the replica.
    pub fn sent(&self, bytes: usize) {
        if let Some(counts) = &self.0 {
            counts.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

pub struct Pick {
    pub backend: Backend,
    pub options: PortOptions,
    pub counted: Counted,
    pub picking: Picking,
}

impl Shared {
    pub fn new() -> Arc<Self> {
        let inner = Inner {
            table: Arc::default(),
            picking: mpsc::channel(1),
            turns: BTreeMap::new(),
            open: BTreeMap::new(),
            next_id: 0,
            totals: BTreeMap::new(),
            replicas: BTreeMap::new(),
            blocked: BTreeMap::new(),
        };
        Arc::new(Self { started: Instant::now(), inner: Mutex::new(inner), swapped: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock; if something did, counts are at worst stale.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Puts a table in force. The receiver closes once every connection picked before is established or given up.
    pub fn swap(&self, table: Arc<RouteTable>) -> mpsc::Receiver<()> {
        let mut inner = self.lock();
        inner.table = table.clone();
        let has = |port: &Port, task: TaskId| table.ports.get(port).is_some_and(|of| of.iter().any(|b| b.task == task));
        inner.replicas.retain(|(port, task), replica| replica.open > 0 || has(port, *task));
        inner.totals.retain(|port, _| table.ports.contains_key(port));
        inner.turns.retain(|port, _| table.ports.contains_key(port));
        let (_, before) = std::mem::replace(&mut inner.picking, mpsc::channel(1));
        drop(inner);
        self.swapped.notify_waiters();
        before
    }

    /// Completes at the next swap after this call.
    pub fn next_swap(&self) -> Notified<'_> {
        self.swapped.notified()
    }

    /// Completes once the node of a replica elsewhere is thought to be down.
    pub async fn node_down(&self, backend: &Backend) {
        let Reach::Remote { agent, .. } = backend.reach else { return std::future::pending().await };
        loop {
            // Before the look, so that no swap falls in between.
            let swap = self.next_swap();
            if self.lock().table.members.get(&agent.ip()) == Some(&false) {
                return;
            }
            swap.await;
        }
    }

    /// The next replica for this client's connection to this port, leaving out those already tried.
    pub fn pick(self: &Arc<Self>, port: Port, client: IpAddr, tried: &[TaskId]) -> Option<Pick> {
        let mut inner = self.lock();
        let table = inner.table.clone();
        let backends = table.ports.get(&port)?;
        let options = table.options(port);
        let turn = inner.turns.entry(port).or_default();
        let start = *turn;
        *turn = turn.wrapping_add(1);
        let backend = choose(backends, &options, start, client, tried)?.clone();
        let picking = inner.picking.0.clone();
        let counts = inner.totals.entry(port).or_default().clone();
        let replica = inner.replicas.entry((port, backend.task)).or_insert_with(|| Replica::new(&backend));
        replica.open += 1;
        replica.total += 1;
        counts.open.fetch_add(1, Ordering::Relaxed);
        counts.connections.fetch_add(1, Ordering::Relaxed);
        let counted = self.count(&mut inner, backend.task, Some((port, counts)));
        Some(Pick { backend, options, counted, picking })
    }

    /// A tunnel from another node asks for one of our replicas: its address, if it is one, counted at once.
    pub fn admit(self: &Arc<Self>, task: TaskId, target: u16) -> Option<(SocketAddr, Counted)> {
        let mut inner = self.lock();
        let address = *inner.table.local.get(&(task, target))?;
        Some((address, self.count(&mut inner, task, None)))
    }

    fn count(self: &Arc<Self>, inner: &mut Inner, task: TaskId, port: Option<(Port, Arc<Counts>)>) -> Counted {
        inner.next_id += 1;
        let id = inner.next_id;
        let activity = Arc::new(Activity { last_ms: AtomicU64::new(self.now_ms()), holds: AtomicBool::new(false) });
        inner.open.entry(task).or_default().insert(id, activity.clone());
        Counted { shared: self.clone(), task, id, activity, port }
    }

    /// The replica didn't take, or didn't answer, what was sent its way; another one is tried.
    pub fn replica_failed(&self, port: Port, task: TaskId) {
        let mut inner = self.lock();
        if let Some(replica) = inner.replicas.get_mut(&(port, task)) {
            replica.failures += 1;
        }
        inner.totals.entry(port).or_default().retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A client was turned away, or told that it couldn't be served.
    pub fn client_failed(&self, port: Port) {
        self.lock().totals.entry(port).or_default().failures.fetch_add(1, Ordering::Relaxed);
    }

    /// No connection to the task has carried anything lately.
    pub fn is_quiet(&self, task: TaskId) -> bool {
        let inner = self.lock();
        inner.open.get(&task).is_none_or(|open| self.are_quiet(open))
    }

    /// Nor to any of this node's.
    pub fn is_all_quiet(&self) -> bool {
        self.lock().open.values().all(|open| self.are_quiet(open))
    }

    fn are_quiet(&self, open: &BTreeMap<u64, Arc<Activity>>) -> bool {
        let quiet = QUIET_AFTER.as_millis() as u64;
        let now = self.now_ms();
        let is_quiet = |activity: &Arc<Activity>| {
            let last = activity.last_ms.load(Ordering::Relaxed);
            !activity.holds.load(Ordering::Relaxed) && now.saturating_sub(last) >= quiet
        };
        open.values().all(is_quiet)
    }

    pub fn ports(&self) -> Vec<Port> {
        self.lock().table.ports.keys().copied().collect()
    }

    pub fn options(&self, port: Port) -> PortOptions {
        self.lock().table.options(port)
    }

    /// Whether new requests of the port may go to the task.
    pub fn is_routed(&self, port: Port, task: TaskId) -> bool {
        self.lock().table.ports.get(&port).is_some_and(|of| of.iter().any(|b| b.task == task))
    }

    pub fn set_blocked(&self, blocked: BTreeMap<u16, String>) {
        self.lock().blocked = blocked;
    }

    pub fn view(&self) -> View {
        let inner = self.lock();
        let port_view = |(port, backends): (&Port, &Arc<[Backend]>)| {
            let routed = backends.iter().map(|b| {
                let replica = inner.replicas.get(&(*port, b.task));
                replica.map_or_else(|| Replica::new(b), Replica::copy).view(b.task, ReplicaState::Routable)
            });
            let is_routed = |task: TaskId| backends.iter().any(|b| b.task == task);
            let of_port = inner.replicas.range((*port, TaskId::from_u128(0))..=(*port, TaskId::from_u128(u128::MAX)));
            let leaving = of_port
                .filter(|((_, task), replica)| replica.open > 0 && !is_routed(*task))
                .map(|((_, task), replica)| replica.view(*task, ReplicaState::Draining));
            PortView {
                protocol: port.0,
                port: port.1,
                options: inner.table.options(*port),
                path: "userspace",
                blocked: inner.blocked.get(&port.1).cloned(),
                totals: inner.totals.get(port).map(|counts| counts.totals()).unwrap_or_default(),
                replicas: routed.chain(leaving).collect(),
            }
        };
        View { plane: "userspace", ports: inner.table.ports.iter().map(port_view).collect() }
    }
}

impl Counts {
    fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            connections: read(&self.connections),
            open: read(&self.open),
            retries: read(&self.retries),
            failures: read(&self.failures),
            sent_bytes: read(&self.sent),
            received_bytes: read(&self.received),
        }
    }
}

impl Replica {
    fn new(backend: &Backend) -> Self {
        let local = matches!(backend.reach, Reach::Local(_));
        Self { node: backend.node, target: backend.target, local, open: 0, total: 0, failures: 0 }
    }

    fn copy(&self) -> Self {
        Self { ..*self }
    }

    fn view(&self, task: TaskId, state: ReplicaState) -> ReplicaView {
        ReplicaView {
            task,
            node: self.node,
            target: self.target,
            local: self.local,
            state,
            open: self.open,
            total: self.total,
            failures: self.failures,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        if let Some(open) = inner.open.get_mut(&self.task) {
            open.remove(&self.id);
            if open.is_empty() {
                inner.open.remove(&self.task);
            }
        }
        let Some((port, counts)) = &self.port else { return };
        counts.open.fetch_sub(1, Ordering::Relaxed);
        let key = (*port, self.task);
        let gone = inner.replicas.get_mut(&key).is_some_and(|replica| {
            replica.open = replica.open.saturating_sub(1);
            replica.open == 0
        });
        let routed = || inner.table.ports.get(port).is_some_and(|of| of.iter().any(|b| b.task == self.task));
        if gone && !routed() {
            inner.replicas.remove(&key);
        }
    }
}
