//! What the engine has: lists, events and the state of one container.
//!
//! A list alone lacks pids, exit codes and reasons, and lags behind an exit: the engine announces a death, then takes
//! the container's network down, and only then writes the new state into what lists are answered from. An inspection
//! waits for that, so it is the truth; it is remembered until the list's own words or an event say that something
//! changed. A list never waits long for an inspection: what is late comes as another hint.

use super::{DockerEngine, failed, ours};
use crate::model::container::{ContainerState, Health, LABEL_CLUSTER, LABEL_NODE, ObservedContainer, OpError, Owner};
use crate::model::spec::HOST_NETWORK;
use crate::shell::engine::probe::Seen;
use crate::shell::engine::{Changes, clip};
use crate::time::Wall;
use bollard::models::{
    ContainerInspectResponse, ContainerState as DockerState, ContainerStateStatusEnum as Status, ContainerSummary,
    ContainerSummaryStateEnum as ListState, EndpointSettings, EventMessage, HealthStatusEnum,
};
use bollard::query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder};
use futures_util::{StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

/// The headers of the event stream come at once.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Inspections at once.
const INSPECTIONS: usize = 8;
/// How long one list waits for its inspections.
const INSPECTION_LIMIT: Duration = Duration::from_millis(250);
/// Events from a little before the call are told again: better twice than not at all.
const OVERLAP: Duration = Duration::from_secs(2);
/// What changes a container as we see it; health checks alone would make three events each.
const EVENTS: [&str; 12] = [
    "create",
    "start",
    "die",
    "stop",
    "kill",
    "oom",
    "pause",
    "unpause",
    "restart",
    "rename",
    "destroy",
    "health_status",
];

/// What inspections said, by container id.
#[derive(Default)]
pub(super) struct SeenContainers {
    state: Mutex<SeenState>,
    /// A late inspection came in.
    news: Notify,
}

#[derive(Default)]
struct SeenState {
    /// Counts touches.
    clock: u64,
    entries: BTreeMap<String, Entry>,
    /// When a container was last touched.
    touched: BTreeMap<String, u64>,
}

struct Entry {
    /// Nothing has touched the container since.
    fresh: bool,
    /// The words of the list when it was inspected.
    words: Words,
    observed: ObservedContainer,
}

/// The part of a list's line that changes only when the container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words {
    state: ListState,
    health: Health,
}

impl SeenContainers {
    fn with<T>(&self, f: impl FnOnce(&mut SeenState) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was seen of this container no longer counts: an event or an operation of ours has changed it.
    pub(super) fn touch(&self, id: &str) {
        self.with(|state| {
            state.clock += 1;
            if let Some(entry) = state.entries.get_mut(id) {
                entry.fresh = false;
            }
            state.touched.insert(id.to_owned(), state.clock);
        });
    }

    /// Nothing that was seen counts any more: events may have been missed.
    fn forget_all(&self) {
        self.with(|state| {
            state.clock += 1;
            for (id, entry) in &mut state.entries {
                entry.fresh = false;
                state.touched.insert(id.clone(), state.clock);
            }
        });
    }

    fn clock(&self) -> u64 {
        self.with(|state| state.clock)
    }

    fn remembered(&self, id: &str, words: Words) -> Option<ObservedContainer> {
        self.with(|state| state.entries.get(id).filter(|e| e.fresh && e.words == words).map(|e| e.observed.clone()))
    }

    /// What a list alone says, with the process id that was last seen.
    fn best_guess(&self, sketch: ObservedContainer) -> ObservedContainer {
        let pid = self.with(|state| state.entries.get(&sketch.id).and_then(|e| e.observed.pid));
        ObservedContainer { pid: pid.filter(|_| running(&sketch.state)), ..sketch }
    }

    /// Unless an event came after `asked`: then the answer may be older than the event.
    fn remember(&self, asked: u64, words: Words, observed: ObservedContainer) {
        self.with(|state| {
            if state.touched.get(&observed.id).is_none_or(|touched| *touched <= asked) {
                state.entries.insert(observed.id.clone(), Entry { fresh: true, words, observed });
            }
        });
    }

    fn forget_all_but(&self, listed: &BTreeSet<&str>, asked: u64) {
        self.with(|state| {
            state.entries.retain(|id, _| listed.contains(id.as_str()));
            state.touched.retain(|id, touched| listed.contains(id.as_str()) || *touched > asked);
        });
    }
}

impl DockerEngine {
    pub(super) async fn observe(&self, owner: Owner) -> Result<Vec<ObservedContainer>, OpError> {
        let asked = self.inner.seen.clock();
        let options = ListContainersOptionsBuilder::default().all(true).filters(&owner_filter(owner)).build();
        let client = self.client(CALL_LIMIT)?;
        let listed = client.list_containers(Some(options)).await.map_err(|error| failed(&error))?;
        let mine: Vec<(Words, ObservedContainer)> = listed.iter().filter_map(|line| sketch(owner, line)).collect();
        self.inner.seen.forget_all_but(&mine.iter().map(|(_, c)| c.id.as_str()).collect(), asked);

        let mut known: Vec<ObservedContainer> = Vec::with_capacity(mine.len());
        let mut unknown = BTreeMap::new();
        for (words, sketch) in mine {
            match self.inner.seen.remembered(&sketch.id, words) {
                Some(observed) => known.push(observed),
                // Not started, so there is nothing that a list doesn't say; and while it starts an inspection would wait.
                None if words.state == ListState::CREATED => known.push(sketch),
                None => {
                    unknown.insert(sketch.id.clone(), (words, sketch));
                }
            }
        }
        known.extend(self.inspect_all(owner, asked, unknown).await?);
        known.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(known)
    }

    /// Inspects side by side, for a limited time; what comes later is remembered and hinted at.
    async fn inspect_all(
        &self,
        owner: Owner,
        asked: u64,
        mut unknown: BTreeMap<String, (Words, ObservedContainer)>,
    ) -> Result<Vec<ObservedContainer>, OpError> {
        if unknown.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + INSPECTION_LIMIT;
        let (answers, mut answered) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(INSPECTIONS));
        for (id, (words, _)) in &unknown {
            tokio::spawn(inspect_one(self.clone(), owner, asked, id.clone(), *words, answers.clone(), places.clone()));
        }
        drop(answers);
        let mut observed = Vec::with_capacity(unknown.len());
        while !unknown.is_empty() {
            // Only of what the list calls running is its word good enough for now: an exit needs its code.
            let bounded = unknown.values().all(|(_, sketch)| running(&sketch.state));
            let answer = if bounded { timeout_at(deadline, answered.recv()).await } else { Ok(answered.recv().await) };
            let Ok(Some((id, answer))) = answer else { break };
            unknown.remove(&id);
            observed.extend(answer?);
        }
        observed.extend(unknown.into_values().map(|(_, sketch)| self.inner.seen.best_guess(sketch)));
        Ok(observed)
    }

    pub(super) fn follow(&self, owner: Owner) -> Changes {
        self.inner.seen.forget_all();
        let engine = self.clone();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(OVERLAP);
        let mut filters = owner_filter(owner);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert("event".to_owned(), EVENTS.map(str::to_owned).to_vec());
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
        let events = match self.client(CALL_LIMIT) {
            Ok(client) => client.events(Some(options)).boxed(),
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let news = stream::unfold(self.clone(), |engine| async {
            engine.inner.seen.news.notified().await;
            Some((Ok(()), engine))
        });
        let events = events.map(move |event| match event {
            Ok(event) => {
                engine.note(&event);
                Ok(())
            }
            Err(error) => Err(failed(&error)),
        });
        // The end of the engine's stream must end this one, whatever else there is to say.
        let ended = stream::once(async { Err(OpError::Unreachable("the event stream ended".to_owned())) });
        stream::select(events.chain(ended), news).boxed()
    }

    fn note(&self, event: &EventMessage) {
        if let Some(id) = event.actor.as_ref().and_then(|actor| actor.id.as_deref()) {
            self.inner.seen.touch(id);
        }
    }
}

type Answer = (String, Result<Option<ObservedContainer>, OpError>);

async fn inspect_one(
    engine: DockerEngine,
    owner: Owner,
    asked: u64,
    id: String,
    words: Words,
    answers: mpsc::UnboundedSender<Answer>,
    places: Arc<Semaphore>,
) {
    // Never closed, so this never fails.
    let _place = places.acquire().await;
    let answer = engine.inspect(&id).await.map(|found| found.and_then(|inspect| observed(owner, &inspect)));
    if let Ok(Some(observed)) = &answer {
        engine.inner.seen.remember(asked, words, observed.clone());
    }
    if answers.send((id, answer)).is_err() {
        engine.inner.seen.news.notify_one();
    }
}

fn owner_filter(owner: Owner) -> HashMap<String, Vec<String>> {
    let labels = vec![format!("{LABEL_CLUSTER}={}", owner.cluster), format!("{LABEL_NODE}={}", owner.node)];
    HashMap::from([("label".to_owned(), labels)])
}

/// As much of a container as a list's line tells.
fn sketch(owner: Owner, line: &ContainerSummary) -> Option<(Words, ObservedContainer)> {
    let labels = line.labels.as_ref();
    let (task, attempt) = ours(owner, |key| labels?.get(key).map(String::as_str))?;
    let words = Words { state: line.state?, health: health_in(line.status.as_deref().unwrap_or_default()) };
    let state = match words.state {
        ListState::CREATED => ContainerState::Created,
        ListState::RUNNING | ListState::PAUSED | ListState::STOPPING => {
            ContainerState::Running { health: words.health }
        }
        _ => ContainerState::Exited { code: 0, error: String::new(), at: Wall(0) },
    };
    let networks = line.network_settings.as_ref().and_then(|n| n.networks.as_ref());
    let observed = ObservedContainer {
        name: bare_name(line.names.as_ref()?.first()?),
        id: line.id.clone()?,
        task,
        attempt,
        pid: None,
        address: running(&state).then(|| address(networks)).flatten(),
        state,
    };
    Some((words, observed))
}

/// "Up 5 seconds (health: starting)", "Up 2 minutes (healthy)".
fn health_in(status: &str) -> Health {
    if status.ends_with("(healthy)") {
        Health::Healthy
    } else if status.ends_with("(unhealthy)") {
        Health::Unhealthy
    } else if status.ends_with("(health: starting)") {
        Health::Starting
    } else {
        Health::None
    }
}

fn observed(owner: Owner, inspect: &ContainerInspectResponse) -> Option<ObservedContainer> {
    let labels = inspect.config.as_ref().and_then(|c| c.labels.as_ref());
    let (task, attempt) = ours(owner, |key| labels?.get(key).map(String::as_str))?;
    let docker = inspect.state.as_ref()?;
    let state = state(docker);
    let is_running = running(&state);
    Some(ObservedContainer {
        name: bare_name(inspect.name.as_deref()?),
        id: inspect.id.clone()?,
        task,
        attempt,
        pid: docker.pid.filter(|pid| is_running && *pid > 0),
        address: is_running.then(|| address_of(inspect)).flatten(),
        state,
    })
}

/// Paused is still running: it holds its place, and whoever paused it will want it back. A container that its engine
/// restarts (not by our policy) has exited. Dead and half removed ones won't run again.
fn state(docker: &DockerState) -> ContainerState {
    match docker.status {
        Some(Status::RUNNING | Status::PAUSED | Status::STOPPING) => ContainerState::Running { health: health(docker) },
        Some(Status::CREATED) => ContainerState::Created,
        _ => {
            let error = docker.error.as_deref().unwrap_or_default();
            let error = match (error, docker.oom_killed) {
                ("", Some(true)) => "killed: out of memory",
                (error, _) => error,
            };
            let at = docker.finished_at.as_deref().map_or(Wall(0), wall);
            ContainerState::Exited { code: docker.exit_code.unwrap_or(0), error: clip(error), at }
        }
    }
}

fn health(docker: &DockerState) -> Health {
    match docker.health.as_ref().and_then(|health| health.status) {
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
        _ => Health::None,
    }
}

fn running(state: &ContainerState) -> bool {
    matches!(state, ContainerState::Running { .. })
}

pub(super) fn is_running(inspect: &ContainerInspectResponse) -> bool {
    inspect.state.as_ref().is_some_and(|docker| running(&state(docker)))
}

pub(super) fn seen(inspect: &ContainerInspectResponse) -> Seen {
    match inspect.state.as_ref().map(state) {
        None | Some(ContainerState::Created) => Seen::NotYet,
        Some(ContainerState::Running { .. }) => match address_of(inspect) {
            Some(ip) => Seen::At(ip),
            None => Seen::Never("the container has no address on this machine".to_owned()),
        },
        Some(ContainerState::Exited { code, error, .. }) if error.is_empty() => {
            Seen::Never(format!("the container exited with {code}"))
        }
        Some(ContainerState::Exited { code, error, .. }) => {
            Seen::Never(format!("the container exited with {code}: {error}"))
        }
    }
}

fn address_of(inspect: &ContainerInspectResponse) -> Option<IpAddr> {
    address(inspect.network_settings.as_ref().and_then(|settings| settings.networks.as_ref()))
}

/// Its address on the default bridge, or else on the first network that gives one.
///
/// On the node's own network it has none of its own: its ports are this machine's.
fn address(networks: Option<&HashMap<String, EndpointSettings>>) -> Option<IpAddr> {
    let networks: BTreeMap<&String, &EndpointSettings> = networks?.iter().collect();
    if networks.keys().any(|name| *name == HOST_NETWORK) {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bridge = networks.iter().find(|(name, _)| name.as_str() == "bridge").map(|(_, network)| *network);
    bridge.into_iter().chain(networks.values().copied()).find_map(|network| {
        let v4 = network.ip_address.as_deref().and_then(|ip| ip.parse().ok());
        v4.or_else(|| network.global_ipv6_address.as_deref().and_then(|ip| ip.parse().ok()))
    })
}

/// Docker's zero time, the year 1, becomes 0.
fn wall(text: &str) -> Wall {
    let ms = text.parse::<jiff::Timestamp>().map_or(0, |at| at.as_millisecond());
    Wall(u64::try_from(ms).unwrap_or(0))
}

fn bare_name(name: &str) -> String {
    name.strip_prefix('/').unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TaskId;

    #[test]
    fn on_the_nodes_network_a_container_is_reached_on_this_machine() {
        let on = |name: &str, ip: &str| {
            let endpoint = EndpointSettings { ip_address: Some(ip.to_owned()), ..Default::default() };
            address(Some(&HashMap::from([(name.to_owned(), endpoint)])))
        };
        assert_eq!(on("host", ""), Some([127, 0, 0, 1].into()));
        assert_eq!(on("front", "172.18.0.2"), Some([172, 18, 0, 2].into()));
        assert_eq!(on("front", ""), None);
    }

    #[test]
    fn health_is_read_from_the_words_of_a_list() {
        assert_eq!(health_in("Up 5 seconds (health: starting)"), Health::Starting);
        assert_eq!(health_in("Up About a minute (healthy)"), Health::Healthy);
        assert_eq!(health_in("Up 3 days (unhealthy)"), Health::Unhealthy);
        assert_eq!(health_in("Up 3 days"), Health::None);
    }

    #[test]
    fn states_are_mapped() {
        let docker = |status, exit_code| DockerState {
            status: Some(status),
            exit_code: Some(exit_code),
            finished_at: Some("2024-05-01T10:00:00.5Z".to_owned()),
            ..Default::default()
        };
        assert_eq!(state(&docker(Status::CREATED, 0)), ContainerState::Created);
        assert_eq!(state(&docker(Status::PAUSED, 0)), ContainerState::Running { health: Health::None });
        let at = Wall(1_714_557_600_500);
        for status in [Status::EXITED, Status::DEAD, Status::REMOVING, Status::RESTARTING] {
            assert_eq!(state(&docker(status, 3)), ContainerState::Exited { code: 3, error: String::new(), at });
        }
        let oom = DockerState { oom_killed: Some(true), ..docker(Status::EXITED, 137) };
        let error = "killed: out of memory".to_owned();
        assert_eq!(state(&oom), ContainerState::Exited { code: 137, error, at });
    }

    #[test]
    fn dockers_zero_time_is_zero() {
        assert_eq!(wall("0001-01-01T00:00:00Z"), Wall(0));
        assert_eq!(wall("nonsense"), Wall(0));
    }

    #[test]
    fn an_answer_older_than_an_event_is_not_kept() {
        let seen = SeenContainers::default();
        let words = Words { state: ListState::RUNNING, health: Health::None };
        let container = ObservedContainer {
            name: "a".into(),
            id: "1".into(),
            task: TaskId::from_u128(1),
            attempt: 0,
            state: ContainerState::Running { health: Health::None },
            pid: Some(1),
            address: None,
        };
        let asked = seen.clock();
        seen.touch("1");
        seen.remember(asked, words, container.clone());
        assert_eq!(seen.remembered("1", words), None);
        seen.remember(seen.clock(), words, container.clone());
        assert_eq!(seen.remembered("1", words), Some(container));
        let other = Words { health: Health::Healthy, ..words };
        assert_eq!(seen.remembered("1", other), None, "the list's words changed");
    }
}
