//! Runs engine operations for the core: each within a time limit, those of different tasks side by side,
//! none of them ever in the way of the agent's loop.
//!
//! It keeps one promise that the core builds on: an `Observed` that is delivered after an operation's `Done`
//! shows what came of that operation (see [`Shared::settle`] and `watch`).

use super::Engine;
use super::watch::Watcher;
use crate::limits::{PULL_TIMEOUT, START_TIMEOUT};
use crate::model::container::{EngineEvent, EngineOp, OpError, OpId, Owner};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

/// Creating, starting and removing: what costs the engine most.
const WORK_LANE: usize = 16;
const PULL_LANE: usize = 4;
/// Stopping is mostly waiting for somebody else's grace; it must not hold up a start.
const STOP_LANE: usize = 64;
const PROBE_LANE: usize = 256;

/// How long an operation may take beyond what it is itself told to wait.
const MARGIN: Duration = Duration::from_secs(15);
const REMOVE_LIMIT: Duration = Duration::from_secs(60);

/// Where the core's operations go. Dropping it stops nothing; the cancellation token does.
#[derive(Clone)]
pub struct EngineHandle {
    queue: mpsc::UnboundedSender<(OpId, EngineOp, Span)>,
}

impl EngineHandle {
    /// Never blocks. The answer comes as [`EngineEvent::Done`]; after the token was cancelled none comes.
    /// The queue has no bound of its own: the core has at most one operation in flight per task. What the operation logs
    /// stands in the span of whoever submits it.
    pub fn submit(&self, op: OpId, what: EngineOp) {
        // It fails only when the runner has stopped, and then nobody waits for an answer.
        let _ = self.queue.send((op, what, Span::current()));
    }
}

/// Starts the runner and the watcher; both end when `stop` is cancelled.
pub fn spawn<E: Engine>(
    engine: E,
    owner: Owner,
    events: mpsc::Sender<EngineEvent>,
    stop: CancellationToken,
) -> EngineHandle {
    let shared = Arc::new(Shared {
        engine,
        owner,
        events,
        settled: Mutex::new(0),
        trouble: Notify::new(),
        down: StdMutex::new(None),
        lanes: Lanes::new(),
    });
    let (queue, orders) = mpsc::unbounded_channel();
    let (list, lists) = mpsc::unbounded_channel();
    let watcher = Watcher::new(shared.clone(), lists);
    tokio::spawn(stop.clone().run_until_cancelled_owned(watcher.run()));
    tokio::spawn(stop.run_until_cancelled_owned(dispatch(shared, orders, list)));
    EngineHandle { queue }
}

/// What the operations and the watcher of one engine share.
pub(super) struct Shared<E> {
    pub engine: E,
    pub owner: Owner,
    pub events: mpsc::Sender<EngineEvent>,
    /// Operations on containers that are over. Held while a `Done` or an `Observed` is sent, which orders the two.
    pub settled: Mutex<u64>,
    /// An operation found the engine unreachable: time to look.
    pub trouble: Notify,
    down: StdMutex<Option<String>>,
    lanes: Lanes,
}

impl<E: Engine> Shared<E> {
    /// Why the engine is out of reach, as far as the watcher knows.
    pub fn down(&self) -> Option<String> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_down(&self, why: Option<String>) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    async fn attempt(&self, what: EngineOp) -> Result<(), OpError> {
        if let Some(why) = self.down() {
            return Err(OpError::Unreachable(why));
        }
        let limit = time_limit(&what);
        let name = verb(&what);
        let result = match timeout(limit, self.engine.execute(self.owner, what)).await {
            Ok(result) => result,
            Err(_) => {
                self.trouble.notify_one();
                Err(OpError::TimedOut(format!("{name} took longer than {} s", limit.as_secs())))
            }
        };
        match result {
            Err(OpError::TimedOut(_)) if self.down().is_some() => {
                Err(OpError::Unreachable(self.down().unwrap_or_default()))
            }
            Err(OpError::Unreachable(why)) => {
                self.trouble.notify_one();
                Err(OpError::Unreachable(why))
            }
            other => other,
        }
    }

    /// From here on no list that began earlier is delivered, if the operation may have changed a container.
    async fn settle(&self, op: OpId, changed: bool, result: Result<(), OpError>) {
        let mut settled = self.settled.lock().await;
        *settled += u64::from(changed);
        // Fails only when the agent has gone.
        let _ = self.events.send(EngineEvent::Done { op, result }).await;
    }
}

async fn dispatch<E: Engine>(
    shared: Arc<Shared<E>>,
    mut orders: mpsc::UnboundedReceiver<(OpId, EngineOp, Span)>,
    lists: mpsc::UnboundedSender<OpId>,
) {
    // Dropped with this future, which aborts what still runs; the next life lists and settles it.
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some((op, EngineOp::List, _)) => { let _ = lists.send(op); }
                Some((op, what, span)) => { running.spawn(run(shared.clone(), op, what).instrument(span)); }
                None => break,
            },
            Some(_) = running.join_next() => {}
        }
    }
    while running.join_next().await.is_some() {}
}

async fn run<E: Engine>(shared: Arc<Shared<E>>, op: OpId, what: EngineOp) {
    // Never closed, so this never fails.
    let _place = shared.lanes.of(&what).acquire().await;
    let changes = !matches!(what, EngineOp::Pull { .. } | EngineOp::Probe { .. });
    let (name, begun) = (verb(&what), tokio::time::Instant::now());
    let result = shared.attempt(what).await;
    let took_ms = begun.elapsed().as_millis();
    match &result {
        Ok(()) => tracing::debug!(took_ms, "{name}: done"),
        Err(error) => tracing::debug!(took_ms, %error, "{name}: failed"),
    }
    shared.settle(op, changes, result).await;
}

struct Lanes {
    work: Semaphore,
    pull: Semaphore,
    stop: Semaphore,
    probe: Semaphore,
}

impl Lanes {
    fn new() -> Self {
        Self {
            work: Semaphore::new(WORK_LANE),
            pull: Semaphore::new(PULL_LANE),
            stop: Semaphore::new(STOP_LANE),
            probe: Semaphore::new(PROBE_LANE),
        }
    }

    fn of(&self, op: &EngineOp) -> &Semaphore {
        match op {
            EngineOp::Pull { .. } => &self.pull,
            EngineOp::Stop { .. } => &self.stop,
            EngineOp::Probe { .. } => &self.probe,
            EngineOp::Create(_) | EngineOp::Start { .. } | EngineOp::Remove { .. } | EngineOp::List => &self.work,
        }
    }
}

fn time_limit(op: &EngineOp) -> Duration {
    match op {
        EngineOp::Pull { .. } => PULL_TIMEOUT,
        EngineOp::Create(_) | EngineOp::Start { .. } => START_TIMEOUT,
        EngineOp::Stop { grace, .. } => *grace + MARGIN,
        EngineOp::Probe { within, .. } => *within + MARGIN,
        EngineOp::Remove { .. } | EngineOp::List => REMOVE_LIMIT,
    }
}

fn verb(op: &EngineOp) -> &'static str {
    match op {
        EngineOp::Pull { .. } => "pulling the image",
        EngineOp::Create(_) => "creating the container",
        EngineOp::Start { .. } => "starting the container",
        EngineOp::Stop { .. } => "stopping the container",
        EngineOp::Remove { .. } => "removing the container",
        EngineOp::Probe { .. } => "waiting for the port",
        EngineOp::List => "listing the containers",
    }
}
