//! The live stream: a picture first, then what changes, to every open page. Costs nothing while no page is open: only then,
//! too, are the nodes asked how busy their machines are.

use super::Shared;
use super::picture::Picture;
use crate::core::face::Refused;
use crate::ids::NodeId;
use crate::model::node::Liveness;
use crate::shell::api::{Answer, Failure, Snapshot, Want};
use crate::shell::events::{Batch, Events};
use crate::shell::handle::AgentHandle;
use crate::shell::vitals::{Usage, Vitals};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Notify, broadcast};
use tokio_util::sync::CancellationToken;

/// How often the agent is asked for changes while a page is open: what people see as at once.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A look that takes long (with thousands of tasks) is followed by a rest of so many times as long: all looks together take no
/// more than that share of a processor.
const REST: u32 = 9;
/// Every so many looks the whole picture is compared, for what [`crate::core::Core::changes`] does not count.
const LOOK_WHOLE: u32 = 20;
/// Between two rounds in which every node is asked how busy its machine is.
const USAGE_EVERY: Duration = Duration::from_secs(5);
/// Asked at the same time, and at all: no page shows more nodes than that well.
const USAGE_AT_ONCE: usize = 16;
const USAGE_OF: usize = 500;
/// Changes that a slow page may fall behind before it is sent a whole picture instead.
const MAX_BEHIND: usize = 64;
/// Events of the past that a page begins with.
const LOOK_BACK: u64 = 200;
/// Open pages of one node.
const MAX_PAGES: usize = 200;
/// So that a page finds out that its agent has gone, and proxies leave the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Watch {
    agent: AgentHandle,
    vitals: Vitals,
    events: Events,
    seen: Arc<Mutex<Seen>>,
    /// The last round's answers.
    usage: Arc<std::sync::Mutex<BTreeMap<NodeId, Usage>>>,
    /// A page was opened.
    opened: Arc<Notify>,
    changes: broadcast::Sender<Arc<str>>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Seen {
    /// [`crate::core::Core::changes`] when `picture` was taken.
    at: Option<u64>,
    /// Looks since the whole picture was compared.
    looks: u32,
    picture: Picture,
}

impl Watch {
    pub fn start(agent: AgentHandle, vitals: Vitals, events: Events, stop: CancellationToken) -> Self {
        let changes = broadcast::Sender::new(MAX_BEHIND);
        let (seen, usage, opened) = <(Arc<_>, Arc<_>, Arc<_>)>::default();
        let watch = Self { agent, vitals, events, seen, usage, opened, changes, stop };
        let asking = watch.clone();
        tokio::spawn(async move { asking.stop.run_until_cancelled(asking.ask_usage()).await });
        let looking = watch.clone();
        tokio::spawn(async move { looking.stop.run_until_cancelled(looking.look_again()).await });
        watch
    }

    /// Until somebody looks.
    async fn is_open(&self) {
        loop {
            // Before the count is read, so that no page that is opened in between is missed.
            let opened = self.opened.notified();
            if self.changes.receiver_count() > 0 {
                return;
            }
            opened.await;
        }
    }

    /// Look after look while a page is open.
    async fn look_again(&self) {
        loop {
            self.is_open().await;
            let begun = Instant::now();
            if self.look(&mut *self.seen.lock().await).await.is_err() {
                return; // The agent has ended.
            }
            tokio::time::sleep(LOOK_EVERY.max(begun.elapsed() * REST)).await;
        }
    }

    /// Round after round while a page is open. Who doesn't answer has no numbers until it does.
    async fn ask_usage(&self) {
        loop {
            self.is_open().await;
            let Ok(nodes) = self.agent.query(crate::core::Core::nodes).await else { return };
            let there = nodes.into_iter().filter(|node| node.liveness == Liveness::Alive);
            let there = there.filter_map(|node| Some((node.id, node.fact?.addr))).take(USAGE_OF);
            let answers = stream::iter(there).map(|(node, addr)| async move {
                let usage = self.vitals.usage(node, addr).await;
                usage.ok().map(|usage| (node, usage))
            });
            let round = answers.buffer_unordered(USAGE_AT_ONCE).filter_map(std::future::ready).collect().await;
            *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = round;
            tokio::time::sleep(USAGE_EVERY).await;
        }
    }

    /// Brings `seen` up to date, and tells the open pages what is new.
    async fn look(&self, seen: &mut Seen) -> Result<(), Refused> {
        seen.looks += 1;
        let last = seen.at.filter(|_| seen.looks < LOOK_WHOLE);
        let question = move |core: &crate::core::Core| {
            let at = core.changes();
            (Some(at) != last).then(|| (at, Snapshot::of(core, Want::ALL)))
        };
        let Some((at, snapshot)) = self.agent.query(question).await? else { return Ok(()) };
        let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let picture = Picture::of(&snapshot, &usage);
        let delta = picture.since(&seen.picture);
        if !delta.0.is_empty() {
            // Nobody may be listening yet.
            let _ = self.changes.send(text(&delta));
        }
        *seen = Seen { at: Some(at), looks: 0, picture };
        Ok(())
    }

    /// The picture as it is now, and every change from there on.
    async fn join(&self) -> Result<(Arc<str>, broadcast::Receiver<Arc<str>>), Refused> {
        let mut seen = self.seen.lock().await;
        self.look(&mut seen).await?;
        let changes = self.changes.subscribe();
        self.opened.notify_waiters();
        Ok((text(&seen.picture), changes))
    }

    /// Ends when the agent does.
    async fn stream(self) -> Result<impl Stream<Item = Result<Event, Infallible>>, Refused> {
        let (picture, changes) = self.join().await?;
        let stop = self.stop.clone();
        let mut listener = self.events.listen_after(LOOK_BACK);
        let before = happened(&listener.take());
        let first = stream::iter([event("picture", &picture), before]);
        let happens = stream::unfold(listener, |mut listener| async move {
            // What happens at about the same time is told at one go: twenty pages are twenty times as many writes.
            tokio::time::sleep(LOOK_EVERY).await;
            let batch = listener.next().await;
            Some((happened(&batch), listener))
        });
        let rest = stream::unfold((self, changes), |(watch, mut changes)| async move {
            match changes.recv().await {
                Ok(delta) => Some((event("change", &delta), (watch, changes))),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let (picture, changes) = watch.join().await.ok()?;
                    Some((event("picture", &picture), (watch, changes)))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        Ok(first.chain(stream::select(rest, happens)).map(Ok).take_until(stop.cancelled_owned()))
    }
}

/// Docker's messages, in a list.
fn happened(batch: &Batch) -> Event {
    event("happened", &serde_json::Value::from(batch.messages(|_| true)).to_string())
}

fn event(name: &str, data: &str) -> Event {
    Event::default().event(name).data(data)
}

fn text(picture: &Picture) -> Arc<str> {
    // A map with text for keys can always be written.
    serde_json::to_string(&picture.0).unwrap_or_default().into()
}

/// `GET /live`.
pub async fn stream(State(page): State<Arc<Shared>>, headers: HeaderMap) -> Answer {
    page.guard.may_look(&headers)?;
    if page.watch.changes.receiver_count() >= MAX_PAGES {
        return Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{MAX_PAGES} pages are open on this node: close one, or open another node's"),
        ));
    }
    let stream = page.watch.clone().stream().await?;
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}
