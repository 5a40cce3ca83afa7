//! The table in force, the connections counted against it, and who waits for what.

use crate::ids::TaskId;
use crate::model::spec::Protocol;
use crate::routes::{Backend, RouteTable};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc};

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
    turns: BTreeMap<(Protocol, u16), usize>,
    open: BTreeMap<TaskId, BTreeMap<u64, Arc<AtomicU64>>>,
    next_id: u64,
}

/// One connection to a replica that runs here; counted from before the connect until it is dropped.
pub struct Counted {
    shared: Arc<Shared>,
    task: TaskId,
    id: u64,
    /// Milliseconds since `Shared::started` at which bytes last moved.
    pub last_active: Arc<AtomicU64>,
}

pub struct Pick {
    pub backend: Backend,
    pub counted: Option<Counted>,
    pub picking: Picking,
}

impl Shared {
    pub fn new() -> Arc<Self> {
        let picking = mpsc::channel(1);
        let inner = Inner { table: Arc::default(), picking, turns: BTreeMap::new(), open: BTreeMap::new(), next_id: 0 };
        Arc::new(Self { started: Instant::now(), inner: Mutex::new(inner), swapped: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock; if something did, counts are at worst stale.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Puts a table in force. The receiver closes once every connection picked before is established or given up.
    pub fn swap(&self, table: Arc<RouteTable>) -> mpsc::Receiver<()> {
        let mut inner = self.lock();
        inner.table = table;
        let (_, before) = std::mem::replace(&mut inner.picking, mpsc::channel(1));
        drop(inner);
        self.swapped.notify_waiters();
        before
    }

    /// Completes at the next swap after this call.
    pub fn next_swap(&self) -> Notified<'_> {
        self.swapped.notified()
    }

    /// The next replica for a connection to this port, leaving out those already tried.
    pub fn pick(self: &Arc<Self>, port: (Protocol, u16), tried: &[TaskId]) -> Option<Pick> {
        let mut inner = self.lock();
        let table = inner.table.clone();
        let backends = table.ports.get(&port)?;
        let turn = inner.turns.entry(port).or_default();
        let start = *turn;
        *turn = turn.wrapping_add(1);
        let mut order = (0..backends.len()).map(|n| &backends[start.wrapping_add(n) % backends.len()]);
        let backend = order.find(|b| !tried.contains(&b.task))?.clone();
        let picking = inner.picking.0.clone();
        let counted =
            matches!(backend.reach, crate::routes::Reach::Local(_)).then(|| self.count(&mut inner, backend.task));
        Some(Pick { backend, counted, picking })
    }

    /// A tunnel from another node asks for one of our replicas: its address, if it is one, counted at once.
    pub fn admit(self: &Arc<Self>, task: TaskId, target: u16) -> Option<(SocketAddr, Counted)> {
        let mut inner = self.lock();
        let address = *inner.table.local.get(&(task, target))?;
        Some((address, self.count(&mut inner, task)))
    }

    fn count(self: &Arc<Self>, inner: &mut Inner, task: TaskId) -> Counted {
        inner.next_id += 1;
        let id = inner.next_id;
        let last_active = Arc::new(AtomicU64::new(self.now_ms()));
        inner.open.entry(task).or_default().insert(id, last_active.clone());
        Counted { shared: self.clone(), task, id, last_active }
    }

    /// No connection to the task has carried anything lately.
    pub fn is_quiet(&self, task: TaskId) -> bool {
        let quiet = QUIET_AFTER.as_millis() as u64;
        let now = self.now_ms();
        let inner = self.lock();
        let open = inner.open.get(&task);
        open.is_none_or(|open| open.values().all(|last| now.saturating_sub(last.load(Ordering::Relaxed)) >= quiet))
    }

    pub fn ports(&self) -> Vec<(Protocol, u16)> {
        self.lock().table.ports.keys().copied().collect()
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
    }
}
