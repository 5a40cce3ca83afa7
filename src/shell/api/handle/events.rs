//! `/events`: the cluster's events and those of the node's engine, as one stream. The cluster's flow while the engine is
//! away, and the engine's come back when it does. What is asked of the engine alone passes untouched.

use super::logs::time;
use crate::core::chronicle::Kind;
use crate::shell::api::filters::Filters;
use crate::shell::api::incoming::Query;
use crate::shell::api::reply::{Answer, Failure};
use crate::shell::api::{Api, escaped};
use crate::shell::events::{Batch, ClusterEvent, Listener};
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::StreamExt;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Lines that wait for the client.
const WAITING_LINES: usize = 64;
/// One event of the engine: a container's with all its labels.
const MAX_LINE_BYTES: usize = 1024 * 1024;
/// An engine that went away is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long after `until` the engine's last events are waited for.
const LINGER: Duration = Duration::from_secs(1);
/// Docker's filters.
const KNOWN: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];
/// What only an engine's events can match.
const ENGINES: &[&str] = &["container", "daemon", "image", "plugin", "volume"];
/// The types that only the cluster's events have.
const OURS: &[Kind] =
    &[Kind::Node, Kind::Service, Kind::Task, Kind::Rollout, Kind::Lease, Kind::Secret, Kind::Config, Kind::Client];

pub async fn stream(api: &Arc<Api>, request: Request) -> Answer {
    let query = Query::of(request.uri());
    let wanted = query.and_then(|query| Wanted::read(&query));
    let wanted = match (wanted, &api.engine) {
        (Ok(wanted), Some(engine)) if !wanted.of_cluster() => return engine.pass(request).await,
        (Ok(wanted), _) => wanted,
        // It says what is wrong in Docker's words.
        (Err(_), Some(engine)) => return engine.pass(request).await,
        (Err(failure), None) => return Err(failure),
    };
    let mut listener = match (wanted.since, wanted.until) {
        (None, None) => api.extra.events.listen(),
        (since, _) => api.extra.events.listen_since(since.unwrap_or(0)),
    };
    let path = request.uri().path().to_owned();
    let engine = match &api.engine {
        Some(engine) if wanted.of_engine() => match engine.pass(request).await {
            Ok(response) if response.status() == StatusCode::OK => Engine::Flows(Lines::of(response)),
            // Too old a version, or a filter that this engine doesn't know.
            Ok(response) if response.status().is_client_error() => return Ok(response),
            Ok(_) | Err(_) => Engine::Away(Instant::now() + ASK_AGAIN),
        },
        _ => Engine::None,
    };
    let (lines, waiting) = mpsc::channel(WAITING_LINES);
    let first = listener.take();
    let pump = Pump { api: api.clone(), wanted, path, engine, lines };
    tokio::spawn(pump.run(first, listener));
    let body = futures_util::stream::unfold(waiting, |mut waiting: mpsc::Receiver<Bytes>| async {
        let line = waiting.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), waiting))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// What the client asked for.
struct Wanted {
    filters: Filters,
    filters_text: String,
    /// Nanoseconds. Without it, and without `until`, from now on.
    since: Option<u64>,
    until: Option<u64>,
}

impl Wanted {
    fn read(query: &Query) -> Result<Self, Failure> {
        let (since, until) = (time(query, "since")?, time(query, "until")?);
        if until > 0 && since > until {
            return Err(Failure::invalid(format!(
                "`since` time ({}) cannot be after `until` time ({})",
                since / 1_000_000_000,
                until / 1_000_000_000
            )));
        }
        let filters = Filters::of(query, KNOWN)?;
        let filters_text = query.text("filters").unwrap_or_default().to_owned();
        let since = query.text("since").map(|_| since);
        Ok(Self { filters, filters_text, since, until: Some(until).filter(|until| *until > 0) })
    }

    fn of_cluster(&self) -> bool {
        let ours = |kind: &str| kind == Kind::Network.as_str() || OURS.iter().any(|own| own.as_str() == kind);
        ENGINES.iter().all(|key| self.filters.values(key).is_none())
            && self.filters.equals("scope", "swarm")
            && self.filters.values("type").is_none_or(|types| types.iter().any(|kind| ours(kind)))
    }

    fn of_engine(&self) -> bool {
        let theirs = |kind: &str| OURS.iter().all(|own| own.as_str() != kind);
        self.filters.equals("scope", "local")
            && self.filters.values("type").is_none_or(|types| types.iter().any(|kind| theirs(kind)))
    }

    fn takes(&self, event: &ClusterEvent) -> bool {
        let happening = &event.happening;
        let attribute = |name: &str| happening.attributes.get(name).map(String::as_str).unwrap_or_default();
        let own = [happening.id.as_str(), attribute("name")];
        let placed = matches!(happening.kind, Kind::Node | Kind::Lease);
        let of_service = match happening.kind {
            Kind::Service | Kind::Rollout => own,
            _ => [attribute("com.docker.swarm.service.id"), attribute("com.docker.swarm.service.name")],
        };
        let of_node = if placed { own } else { [attribute("com.docker.swarm.node.id"), attribute("node.name")] };
        let begins = |key: &str, texts: [&str; 2]| {
            self.filters.values(key).is_none_or(|values| {
                values.iter().any(|value| texts.iter().any(|text| text.starts_with(value.as_str())))
            })
        };
        let of_kind = |kind: Kind| begins(kind.as_str(), if happening.kind == kind { own } else { ["", ""] });
        let labels = happening.attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.until.is_none_or(|until| event.time_nano <= until)
            && self.filters.equals("type", happening.kind.as_str())
            && self.filters.equals("event", happening.action)
            && begins("service", of_service)
            && begins("node", of_node)
            && [Kind::Secret, Kind::Config, Kind::Network, Kind::Client].into_iter().all(of_kind)
            && self.filters.labels("label", &labels)
    }
}

enum Engine {
    /// There is none, or nothing is wanted of it.
    None,
    Flows(Lines),
    Away(Instant),
}

/// The engine's events, line by line.
struct Lines {
    body: BodyDataStream,
    begun: Vec<u8>,
}

impl Lines {
    fn of(response: Response) -> Self {
        Self { body: response.into_body().into_data_stream(), begun: Vec::new() }
    }

    /// Whole lines, one or more; nothing at the end, however it came.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let chunk = self.body.next().await?.ok()?;
            self.begun.extend_from_slice(&chunk);
            if let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.begun.split_off(end + 1);
                return Some(Bytes::from(std::mem::replace(&mut self.begun, rest)));
            }
            if self.begun.len() > MAX_LINE_BYTES {
                tracing::warn!("the engine sent an event of more than {MAX_LINE_BYTES} bytes (MAX_LINE_BYTES)");
                return None;
            }
        }
    }
}

struct Pump {
    api: Arc<Api>,
    wanted: Wanted,
    path: String,
    engine: Engine,
    lines: mpsc::Sender<Bytes>,
}

/// What came next.
enum Next {
    Cluster(Batch),
    Engine(Option<Bytes>),
    AskAgain,
    Until,
    Over,
}

impl Pump {
    async fn run(mut self, first: Batch, mut listener: Listener) {
        if !self.tell(&first).await {
            return;
        }
        let mut until = self.wanted.until.map(|until| Instant::now() + left(until));
        let mut open = true;
        loop {
            match self.next(&mut listener, open, until).await {
                Next::Cluster(batch) => {
                    if !self.tell(&batch).await {
                        return;
                    }
                }
                Next::Engine(Some(lines)) => {
                    if !self.send(lines).await {
                        return;
                    }
                }
                Next::Engine(None) if open => self.engine = Engine::Away(Instant::now() + ASK_AGAIN),
                Next::AskAgain => self.ask_again().await,
                Next::Until if open => {
                    // What has come in since the last look.
                    let rest = listener.take();
                    if !self.tell(&rest).await || !matches!(self.engine, Engine::Flows(_)) {
                        return;
                    }
                    open = false;
                    until = Some(Instant::now() + LINGER);
                }
                Next::Engine(None) | Next::Until | Next::Over => return,
            }
        }
    }

    async fn next(&mut self, listener: &mut Listener, open: bool, until: Option<Instant>) -> Next {
        let Self { api, engine, lines, .. } = self;
        let again = match engine {
            Engine::Away(at) if open => Some(*at),
            _ => None,
        };
        let now = Instant::now();
        let engine = async {
            match engine {
                Engine::Flows(lines) => lines.next().await,
                Engine::None | Engine::Away(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = api.stop.cancelled() => Next::Over,
            () = lines.closed() => Next::Over,
            batch = listener.next(), if open => Next::Cluster(batch),
            said = engine => Next::Engine(said),
            () = tokio::time::sleep_until(again.unwrap_or(now)), if again.is_some() => Next::AskAgain,
            () = tokio::time::sleep_until(until.unwrap_or(now)), if until.is_some() => Next::Until,
        }
    }

    /// False when nobody reads any more.
    async fn tell(&mut self, batch: &Batch) -> bool {
        let mut text = String::new();
        for message in batch.messages(|event| self.wanted.takes(event)) {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{message}");
        }
        text.is_empty() || self.send(Bytes::from(text)).await
    }

    async fn send(&mut self, lines: Bytes) -> bool {
        tokio::select! {
            () = self.api.stop.cancelled() => false,
            sent = self.lines.send(lines) => sent.is_ok(),
        }
    }

    /// For what it has had to say since it went: those moments are lost only if it forgot them itself.
    async fn ask_again(&mut self) {
        let Some(engine) = &self.api.engine else { return };
        let since = crate::shell::clock::wall().0.saturating_sub(u64::try_from(ASK_AGAIN.as_millis()).unwrap_or(0));
        let mut uri = format!("{}?since={}.{:03}", self.path, since / 1_000, since % 1_000);
        if !self.wanted.filters_text.is_empty() {
            let _ = write!(uri, "&filters={}", escaped(&self.wanted.filters_text));
        }
        if let Some(until) = self.wanted.until {
            let _ = write!(uri, "&until={}.{:09}", until / 1_000_000_000, until % 1_000_000_000);
        }
        let request = Request::get(uri).header(HOST, "docker").body(Body::empty());
        self.engine = match request {
            Ok(request) => match engine.pass(request).await {
                Ok(response) if response.status() == StatusCode::OK => Engine::Flows(Lines::of(response)),
                Ok(_) | Err(_) => Engine::Away(Instant::now() + ASK_AGAIN),
            },
            // It was a request before: it is one again.
            Err(_) => Engine::None,
        };
    }
}

fn left(until: u64) -> Duration {
    let now = crate::shell::clock::wall().0.saturating_mul(1_000_000);
    Duration::from_nanos(until.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::chronicle::Happening;
    use crate::time::Wall;

    fn wanted(filters: &str) -> Wanted {
        let uri = format!("/events?filters={}", escaped(filters));
        Wanted::read(&Query::of(&uri.parse().unwrap()).unwrap()).unwrap()
    }

    fn task() -> ClusterEvent {
        let attributes = [
            ("name", "web.1"),
            ("com.docker.swarm.service.id", "s1"),
            ("com.docker.swarm.service.name", "web"),
            ("com.docker.swarm.node.id", "n1"),
            ("node.name", "node1"),
        ];
        let attributes = attributes.map(|(name, value)| (name, value.to_owned())).into();
        let happening = Happening { at: Wall(1), kind: Kind::Task, action: "update", id: "t1".to_owned(), attributes };
        ClusterEvent { time_nano: 1_000_000, happening }
    }

    #[test]
    fn a_task_is_found_by_its_service_and_by_its_node() {
        for filters in [
            "{}",
            r#"{"service":["web"]}"#,
            r#"{"service":["s1"],"type":["task"]}"#,
            r#"{"node":["node1"]}"#,
            r#"{"event":["update"],"scope":["swarm"]}"#,
            r#"{"label":["name=web.1"]}"#,
        ] {
            assert!(wanted(filters).takes(&task()), "{filters}");
        }
        for filters in [
            r#"{"service":["db"]}"#,
            r#"{"type":["service"]}"#,
            r#"{"node":["node2"]}"#,
            r#"{"event":["create"]}"#,
            r#"{"secret":["s"]}"#,
            r#"{"label":["name=db.1"]}"#,
        ] {
            assert!(!wanted(filters).takes(&task()), "{filters}");
        }
    }

    #[test]
    fn what_only_one_side_can_answer_is_asked_of_that_side() {
        let sides = |filters: &str| (wanted(filters).of_cluster(), wanted(filters).of_engine());
        assert_eq!(sides("{}"), (true, true));
        assert_eq!(sides(r#"{"type":["container"]}"#), (false, true));
        assert_eq!(sides(r#"{"container":["x"]}"#), (false, true));
        assert_eq!(sides(r#"{"type":["task","service"]}"#), (true, false));
        assert_eq!(sides(r#"{"type":["network"]}"#), (true, true));
        assert_eq!(sides(r#"{"scope":["swarm"]}"#), (true, false));
        assert_eq!(sides(r#"{"scope":["local"]}"#), (false, true));
    }

    #[test]
    fn times_that_make_no_sense_are_told() {
        let read = |text: &str| Wanted::read(&Query::of(&text.parse().unwrap()).unwrap()).map(|_| ());
        let failure = read("/events?since=5&until=4").unwrap_err();
        assert_eq!(failure.message, "`since` time (5) cannot be after `until` time (4)");
        assert!(read("/events?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D").unwrap_err().message.contains("colour"));
    }
}
