//! Keeps the core's picture of one engine true.
//!
//! Level over edge: events are hints that it is time to list again, a slow periodic list makes up for any that
//! is lost. An engine that hangs, restarts or vanishes is reported once as unreachable, then looked for until it
//! answers again; then come `Reachable` and `Observed`, in this order and with nothing between.

use super::runner::Shared;
use super::{Changes, Engine};
use crate::model::container::{EngineEvent, EngineInfo, ObservedContainer, OpError, OpId};
use futures_util::StreamExt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};

const PING_EVERY: Duration = Duration::from_secs(2);
const PING_LIMIT: Duration = Duration::from_secs(2);
/// For the second try. One that refuses is gone at once; one that is only slow, on a machine that is busy, isn't: what it
/// runs would be run elsewhere.
const SECOND_PING_LIMIT: Duration = Duration::from_secs(6);
const LIST_EVERY: Duration = Duration::from_secs(10);
const LIST_LIMIT: Duration = Duration::from_secs(5);
/// Hints collect for this long before the engine is asked; longer where a list takes long, so that listing
/// stays the smaller part of what the engine does.
const DEBOUNCE: Duration = Duration::from_millis(25);
const LONGEST_DEBOUNCE: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A list that was overtaken by an operation is taken again this often before operations have to wait for it.
const FREE_LISTS: u32 = 2;

pub(super) struct Watcher<E> {
    shared: Arc<Shared<E>>,
    lists: mpsc::UnboundedReceiver<OpId>,
    /// `List` operations to be answered by the next list.
    waiting: Vec<OpId>,
    /// What the last list took.
    cost: Duration,
}

impl<E: Engine> Watcher<E> {
    pub fn new(shared: Arc<Shared<E>>, lists: mpsc::UnboundedReceiver<OpId>) -> Self {
        Self { shared, lists, waiting: Vec::new(), cost: Duration::ZERO }
    }

    pub async fn run(mut self) {
        loop {
            let changes = self.come_up().await;
            let why = self.follow(changes).await;
            self.declare_down(why).await;
        }
    }

    async fn come_up(&mut self) -> Changes {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_up().await {
                Ok(changes) => return changes,
                Err(error) => self.declare_down(error.to_string()).await,
            }
            self.rest(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_up(&mut self) -> Result<Changes, OpError> {
        let info = within(PING_LIMIT, self.shared.engine.info()).await?;
        let changes = self.shared.engine.changes(self.shared.owner);
        self.publish(Some(info)).await?;
        Ok(changes)
    }

    /// Says so once, and fails the lists that wait.
    async fn declare_down(&mut self, why: String) {
        let why = bare(why);
        if self.shared.down().is_none() {
            self.shared.set_down(Some(why.clone()));
            self.send(EngineEvent::Unreachable(why.clone())).await;
        }
        for op in std::mem::take(&mut self.waiting) {
            self.send(EngineEvent::Done { op, result: Err(OpError::Unreachable(why.clone())) }).await;
        }
    }

    /// Waits, and answers lists with what is known: that the engine is out of reach.
    async fn rest(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                Some(op) = self.lists.recv() => {
                    self.waiting.push(op);
                    self.declare_down(self.shared.down().unwrap_or_default()).await;
                }
            }
        }
    }

    /// While the engine is up. Returns why it no longer is.
    async fn follow(&mut self, mut changes: Changes) -> String {
        let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut list_at = Instant::now() + LIST_EVERY;
        let mut reopen = FIRST_PAUSE;
        loop {
            let soon = (self.cost * 2).clamp(DEBOUNCE, LONGEST_DEBOUNCE);
            let trouble = tokio::select! {
                () = sleep_until(list_at) => {
                    list_at = Instant::now() + LIST_EVERY;
                    self.publish_patiently().await
                }
                hint = changes.next() => {
                    list_at = list_at.min(Instant::now() + soon);
                    if matches!(hint, Some(Ok(()))) {
                        reopen = FIRST_PAUSE;
                        Ok(())
                    } else {
                        // The stream broke: the engine may have gone, or only said something we can't read.
                        let alive = self.check().await;
                        changes = self.reopened(reopen);
                        reopen = (reopen * 2).min(LONGEST_PAUSE);
                        alive
                    }
                }
                Some(op) = self.lists.recv() => {
                    self.waiting.push(op);
                    list_at = Instant::now();
                    Ok(())
                }
                () = self.shared.trouble.notified() => self.check().await,
                _ = ping.tick() => self.check().await,
            };
            if let Err(error) = trouble {
                return error.to_string();
            }
        }
    }

    /// A fresh stream after a pause; its first hint makes up for what was missed meanwhile.
    fn reopened(&self, pause: Duration) -> Changes {
        let shared = self.shared.clone();
        let opened = async move {
            sleep(pause).await;
            let changes = shared.engine.changes(shared.owner);
            futures_util::stream::once(async { Ok(()) }).chain(changes)
        };
        futures_util::stream::once(opened).flatten().boxed()
    }

    /// One missed answer may be an accident; two are not.
    async fn check(&self) -> Result<(), OpError> {
        if within(PING_LIMIT, self.shared.engine.ping()).await.is_ok() {
            return Ok(());
        }
        sleep(FIRST_PAUSE).await;
        within(SECOND_PING_LIMIT, self.shared.engine.ping()).await
    }

    async fn publish_patiently(&mut self) -> Result<(), OpError> {
        if self.publish(None).await.is_ok() {
            return Ok(());
        }
        sleep(FIRST_PAUSE).await;
        self.publish(None).await
    }

    /// Lists and delivers; with `info`, as the news that the engine is back.
    async fn publish(&mut self, info: Option<EngineInfo>) -> Result<(), OpError> {
        while let Ok(op) = self.lists.try_recv() {
            self.waiting.push(op);
        }
        let shared = self.shared.clone();
        let mut free = FREE_LISTS;
        loop {
            let mut turn = shared.settled.lock().await;
            let before = *turn;
            let containers = if free > 0 {
                drop(turn);
                let containers = self.list().await?;
                turn = shared.settled.lock().await;
                containers
            } else {
                self.list().await?
            };
            if *turn != before {
                // An operation ended while the engine was listing: what it did may not be in the list.
                free -= 1;
                continue;
            }
            return self.deliver(info, containers).await;
        }
    }

    async fn list(&mut self) -> Result<Vec<ObservedContainer>, OpError> {
        let began = Instant::now();
        let containers = within(LIST_LIMIT, self.shared.engine.list(self.shared.owner)).await;
        self.cost = began.elapsed();
        containers
    }

    async fn deliver(&mut self, info: Option<EngineInfo>, containers: Vec<ObservedContainer>) -> Result<(), OpError> {
        if let Some(info) = info {
            self.shared.set_down(None);
            self.send(EngineEvent::Reachable(info)).await;
        }
        self.send(EngineEvent::Observed(containers)).await;
        for op in std::mem::take(&mut self.waiting) {
            self.send(EngineEvent::Done { op, result: Ok(()) }).await;
        }
        Ok(())
    }

    async fn send(&self, event: EngineEvent) {
        // Fails only when the agent has gone; the token ends this task too.
        let _ = self.shared.events.send(event).await;
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, OpError>>) -> Result<T, OpError> {
    match timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(OpError::Unreachable(format!("no answer within {} s", limit.as_secs()))),
    }
}

/// The reason without the prefix that [`OpError`] shows: the event already says "unreachable".
fn bare(why: String) -> String {
    why.strip_prefix("engine unreachable: ").map_or(why.clone(), str::to_owned)
}
