//! `/services/ID/logs` and `/tasks/ID/logs`: lines of all the tasks, wherever they ran, in Docker's multiplexed stream.
//! A node that can't be asked is named in a line of its own; the rest comes as if it were not there.

use crate::core::view::{NodeView, TaskView};
use crate::ids::{NodeId, ServiceId, TaskId};
use crate::model::node::Liveness;
use crate::shell::api::backend::{Backend, Snapshot, Want};
use crate::shell::api::incoming::{Call, Query};
use crate::shell::api::render::task::{Row, rows};
use crate::shell::api::reply::{Answer, Failure};
use crate::shell::api::{Api, ApiVersion, lookup};
use crate::shell::logs::{LogAsk, LogItem, LogSource, LogStream, merge};
use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a follower looks for new tasks and for nodes that are back.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A node that failed to answer is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Frames that wait for the client.
const WAITING_FRAMES: usize = 64;
/// From here on the stream's type says what it is.
const NAMED_STREAMS: ApiVersion = ApiVersion { major: 1, minor: 42 };

#[derive(Clone, Copy)]
enum Of {
    Service(ServiceId),
    Task(TaskId),
}

impl Of {
    fn takes(self, view: &TaskView) -> bool {
        match self {
            Of::Service(id) => view.task.service == id,
            Of::Task(id) => view.task.id == id,
        }
    }
}

pub async fn of_service(api: &Api, text: &str, call: &Call) -> Answer {
    let snapshot = api.backend.snapshot(Want::ALL).await?;
    let service = lookup::service(&snapshot, text)?;
    let tty = service.spec.task.container.tty;
    answer(api, Of::Service(service.service.id), snapshot.clone(), tty, call)
}

pub async fn of_task(api: &Api, text: &str, call: &Call) -> Answer {
    let snapshot = api.backend.snapshot(Want::ALL).await?;
    let found = {
        let all: Vec<Row<'_>> = snapshot.tasks.iter().flat_map(rows).collect();
        let row = lookup::find(&all, "task", text, |row| row.id.to_string(), |row| row.name() == text)?;
        (row.view.task.id, row.view.spec.as_ref().is_some_and(|spec| spec.task.container.tty))
    };
    answer(api, Of::Task(found.0), snapshot, found.1, call)
}

fn answer(api: &Api, of: Of, snapshot: Snapshot, tty: bool, call: &Call) -> Answer {
    let wanted = Wanted::read(&call.query, tty)?;
    let (frames, waiting) = mpsc::channel(WAITING_FRAMES);
    let reader = Reader {
        of,
        wanted,
        backend: api.backend.clone(),
        source: api.extra.logs.clone(),
        nodes: BTreeMap::new(),
        tasks: BTreeMap::new(),
    };
    tokio::spawn(reader.run(snapshot, frames, api.stop.clone()));
    let body = futures_util::stream::unfold(waiting, |mut waiting: mpsc::Receiver<Vec<u8>>| async {
        let frame = waiting.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(frame)), waiting))
    });
    let mut response = Response::new(Body::from_stream(body));
    let named = call.version.is_none_or(|version| version >= NAMED_STREAMS);
    let kind =
        if named && !tty { "application/vnd.docker.multiplexed-stream" } else { "application/vnd.docker.raw-stream" };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// What the client asked for.
#[derive(Debug, Clone)]
struct Wanted {
    /// Without its tasks.
    ask: LogAsk,
    timestamps: bool,
    details: bool,
    /// A terminal's output has no frames.
    tty: bool,
}

impl Wanted {
    fn read(query: &Query, tty: bool) -> Result<Self, Failure> {
        let ask = LogAsk {
            tasks: Vec::new(),
            follow: query.flag("follow"),
            stdout: query.flag("stdout"),
            stderr: query.flag("stderr"),
            since_ns: time(query, "since")?,
            until_ns: time(query, "until")?,
            tail: match query.text("tail") {
                None | Some("all") => None,
                // As Docker reads it: what is no number means all.
                Some(text) => text.parse().ok(),
            },
        };
        if !ask.stdout && !ask.stderr {
            return Err(Failure::invalid("Bad parameters: you must choose at least one stream"));
        }
        Ok(Self { ask, timestamps: query.flag("timestamps"), details: query.flag("details"), tty })
    }
}

/// "1136073600.000000001"; 0 where there is none.
pub(super) fn time(query: &Query, key: &str) -> Result<u64, Failure> {
    let Some(text) = query.text(key) else { return Ok(0) };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos = format!("{fraction:0<9.9}");
    let parsed = seconds.parse::<u64>().ok().zip(nanos.parse::<u64>().ok());
    let total = parsed.and_then(|(seconds, nanos)| seconds.checked_mul(1_000_000_000)?.checked_add(nanos));
    total.ok_or_else(|| Failure::invalid(format!("invalid {key} {text:?}: want seconds since 1970, as 1136073600.5")))
}

struct Reader {
    of: Of,
    wanted: Wanted,
    backend: Arc<dyn Backend>,
    source: Arc<dyn LogSource>,
    nodes: BTreeMap<NodeId, Asked>,
    /// Those that were asked for, by node.
    tasks: BTreeMap<TaskId, (NodeId, ServiceId)>,
}

/// How it stands with one node.
#[derive(Default)]
struct Asked {
    /// The time of its last line.
    heard_ns: u64,
    trouble: Option<(Instant, String)>,
}

impl Reader {
    async fn run(mut self, snapshot: Snapshot, frames: mpsc::Sender<Vec<u8>>, stop: CancellationToken) {
        let (more, later) = mpsc::channel(16);
        let (out, mut items) = mpsc::channel(WAITING_FRAMES);
        let first = self.open(&snapshot);
        drop(snapshot);
        tokio::spawn(merge(first, later, out));
        let mut more = Some(more).filter(|_| self.wanted.ask.follow);
        let mut look = Instant::now() + LOOK_AGAIN;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = frames.closed() => return,
                item = items.recv() => match item {
                    None => return,
                    Some(item) => {
                        if let Some(frame) = self.frame(item)
                            && frames.send(frame).await.is_err()
                        {
                            return;
                        }
                    }
                },
                () = tokio::time::sleep_until(look), if more.is_some() => {
                    look = Instant::now() + LOOK_AGAIN;
                    match self.look().await {
                        None => more = None,
                        Some(streams) => {
                            for stream in streams {
                                if let Some(more) = &more
                                    && more.send(stream).await.is_err()
                                {
                                    return;
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// `None` when there is nothing left to follow.
    async fn look(&mut self) -> Option<Vec<LogStream>> {
        let snapshot = self.backend.snapshot(Want::ALL).await.ok()?;
        let there = match self.of {
            Of::Service(id) => snapshot.services.iter().any(|view| view.service.id == id),
            Of::Task(id) => snapshot.tasks.iter().any(|view| view.task.id == id),
        };
        there.then(|| self.open(&snapshot))
    }

    /// Asks for the tasks that were not asked for yet, and again where a node that failed may answer now.
    fn open(&mut self, snapshot: &Snapshot) -> Vec<LogStream> {
        let mut wanted: BTreeMap<NodeId, (LogAsk, bool)> = BTreeMap::new();
        let of = self.of;
        for view in snapshot.tasks.iter().filter(|view| of.takes(view)) {
            // Without a node it has said nothing yet.
            let Some(node) = view.task.node else { continue };
            let asked = self.nodes.entry(node).or_default();
            let again = asked.trouble.as_ref().is_some_and(|(at, _)| at.elapsed() >= ASK_AGAIN)
                && snapshot.node(node).is_some_and(|node| node.liveness == Liveness::Alive);
            let known = self.tasks.insert(view.task.id, (node, view.task.service)).is_some();
            if known && !again {
                continue;
            }
            let (ask, _) = wanted.entry(node).or_insert_with(|| (self.wanted.ask.clone(), again));
            ask.tasks.push(view.task.id);
        }
        let mut streams = Vec::new();
        for (node, (mut ask, again)) in wanted {
            let asked = self.nodes.entry(node).or_default();
            if again {
                ask.since_ns = ask.since_ns.max(asked.heard_ns + 1);
                ask.tail = None;
                if let Some((at, _)) = &mut asked.trouble {
                    *at = Instant::now();
                }
            }
            streams.push(self.ask(snapshot.node(node), node, ask));
        }
        streams
    }

    fn ask(&self, view: Option<&NodeView>, node: NodeId, ask: LogAsk) -> LogStream {
        let addr = view.and_then(|view| view.fact.as_ref()).map(|fact| fact.addr);
        match addr.filter(|_| view.is_some_and(|view| view.is_self || view.liveness != Liveness::Down)) {
            Some(addr) => self.source.open(node, addr, ask),
            None => {
                let (out, stream) = mpsc::channel(1);
                if let Some(task) = ask.tasks.first() {
                    // The channel has room for one.
                    let _ = out.try_send(LogItem::Trouble { task: *task, why: "it is down".to_owned() });
                }
                stream
            }
        }
    }

    /// Nothing for what was said before.
    fn frame(&mut self, item: LogItem) -> Option<Vec<u8>> {
        let (task, stderr, at_ns, text) = match item {
            LogItem::Line(line) => (line.task, line.stderr, line.at_ns, line.text),
            LogItem::Trouble { task, why } => {
                let (node, _) = self.tasks.get(&task)?;
                let asked = self.nodes.entry(*node).or_default();
                let told = asked.trouble.as_ref().is_some_and(|(_, said)| *said == why);
                asked.trouble = Some((Instant::now(), why.clone()));
                if told {
                    return None;
                }
                let text = format!("peer: lines of node {node} are missing: {why}\n");
                (task, true, 0, text.into_bytes())
            }
        };
        let (node, service) = *self.tasks.get(&task)?;
        if at_ns > 0 {
            let asked = self.nodes.entry(node).or_default();
            asked.heard_ns = asked.heard_ns.max(at_ns);
        }
        let mut message = Vec::with_capacity(text.len() + 160);
        if self.wanted.timestamps {
            message.extend_from_slice(rfc3339_nanos(at_ns).as_bytes());
            message.push(b' ');
        }
        if self.wanted.details {
            let details = format!(
                "com.docker.swarm.node.id={node},com.docker.swarm.service.id={service},com.docker.swarm.task.id={task} "
            );
            message.extend_from_slice(details.as_bytes());
        }
        message.extend_from_slice(&text);
        if self.wanted.tty {
            return Some(message);
        }
        // Of a line that fits in memory.
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut frame = vec![if stderr { 2 } else { 1 }, 0, 0, 0];
        frame.extend_from_slice(&length);
        frame.append(&mut message);
        Some(frame)
    }
}

/// With nine digits always, as Docker writes it.
fn rfc3339_nanos(at_ns: u64) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(at_ns)).unwrap_or_default();
    format!("{at:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/x?{text}").parse().unwrap()).unwrap()
    }

    #[test]
    fn times_have_nine_digits_in_and_out() {
        assert_eq!(time(&query("since=12.5"), "since").unwrap(), 12_500_000_000);
        assert_eq!(time(&query("since=12.000000001"), "since").unwrap(), 12_000_000_001);
        assert_eq!(time(&query("since=12"), "since").unwrap(), 12_000_000_000);
        assert_eq!(time(&query(""), "since").unwrap(), 0);
        assert!(time(&query("since=yesterday"), "since").unwrap_err().message.contains("invalid since"));
        assert_eq!(rfc3339_nanos(1_795_379_847_953_532_810), "2026-11-22T20:37:27.953532810Z");
        assert_eq!(rfc3339_nanos(1_000_000_000), "1970-01-01T00:00:01.000000000Z");
    }

    #[test]
    fn a_question_is_read_as_docker_reads_it() {
        let wanted = Wanted::read(&query("stdout=1&follow=1&tail=5&details=1"), false).unwrap();
        assert_eq!((wanted.ask.follow, wanted.ask.stderr, wanted.ask.tail), (true, false, Some(5)));
        assert_eq!(Wanted::read(&query("stdout=1&tail=all"), false).unwrap().ask.tail, None);
        assert!(Wanted::read(&query("tail=5"), false).unwrap_err().message.contains("at least one stream"));
    }
}
