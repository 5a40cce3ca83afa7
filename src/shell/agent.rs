//! One agent: the core in its loop, and the drivers around it. The loop owns the core; everything else talks to it
//! through channels, so there is no lock and no await inside a decision.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod first;
mod fresh;
mod options;
mod plane;
mod remote;
mod run;
#[cfg(test)]
mod tests;

pub use fresh::{Before, answers};
pub use options::{AgentConfig, Dashboard, EngineChoice, Join, MeshChoice, MeshTransport, StartOptions};
pub use run::run;

use crate::core::Core;
use crate::core::face::{Boot, Effect, Event, MeshEvent, Notice, PersistId, Reply, Request, RequestId};
use crate::ids::NodeId;
use crate::model::container::{EngineEvent, OpId, Owner};
use crate::model::record::Term;
use crate::shell::api::{self, Api, Front};
use crate::shell::clock::Clock;
use crate::shell::disk::{Disk, DiskEvent};
use crate::shell::engine::{self, AnyEngine, EngineHandle};
use crate::shell::events::Events;
use crate::shell::handle::{AgentHandle, Command};
use crate::shell::identity::token::same_secret;
use crate::shell::identity::{DataDir, Identity, random};
use crate::shell::logs::{self, LogSource, Logs};
use crate::shell::mesh::{self, DataPlane, TunnelFuture, Tunnels};
use crate::shell::net::{JoinAsk, JoinRefusal, JoinService, Net, NetConfig, NetError, NetEvent};
use crate::shell::page::{self, Counters, Measured, Page, Sources};
use crate::shell::trace::Trace;
use crate::shell::vault::Vault;
use crate::shell::vitals::{self, Vitals};
use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Engine and mesh events that wait for the loop; beyond it their drivers wait.
const MAX_EVENTS: usize = 1_024;
const MAX_COMMANDS: usize = 256;
/// A connection that was being made when its agent ended drains for about three seconds.
const PORT_WAIT: Duration = Duration::from_secs(4);
const PORT_AGAIN: Duration = Duration::from_millis(50);

/// An agent that runs in this process.
pub struct Agent {
    pub handle: AgentHandle,
    pub node: NodeId,
    pub identity: Arc<Identity>,
    /// Where other nodes reach it.
    pub addr: SocketAddr,
    /// This was the node's very first start.
    pub first_start: bool,
    /// With this start it founded its cluster.
    pub founded: bool,
    /// What a person opens to see the cluster.
    pub page: Option<String>,
    net: Net,
    stop: CancellationToken,
    task: JoinHandle<Ended>,
}

/// Why it doesn't start, where something else than another try helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct StartError {
    pub why: String,
    pub hint: &'static str,
}

/// Why an agent came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Stopped,
    /// The node was removed from the cluster.
    Removed,
    /// It was removed because somebody asked it to leave.
    Left,
}

impl Agent {
    /// Starts an agent. It is up when this returns: its socket answers, its neighbours hear of it.
    pub async fn start(config: AgentConfig, engine: AnyEngine) -> anyhow::Result<Self> {
        Self::start_behind(config, engine, None).await
    }

    /// Likewise, on a socket that is bound already and goes on when this agent ends.
    pub async fn start_behind(
        config: AgentConfig,
        engine: AnyEngine,
        front: Option<Arc<Front>>,
    ) -> anyhow::Result<Self> {
        let clock = Clock::new();
        let dir = DataDir::open(&config.data_dir)?;
        let start = first::identity(&dir, &config, clock.now().wall).await?;
        let (first_start, path) = (start.first_start, dir.path().to_owned());
        let started = Self::start_in(dir, start, clock, config, engine, front).await;
        if started.is_err() && first_start {
            // Nobody knows of this node yet: what was to be its first start can still be another.
            first::undo(&path);
        }
        started
    }

    async fn start_in(
        dir: DataDir,
        start: first::Start,
        clock: Clock,
        config: AgentConfig,
        engine: AnyEngine,
        front: Option<Arc<Front>>,
    ) -> anyhow::Result<Self> {
        let identity = Arc::new(start.identity);
        let (disk_events, disk_queue) = mpsc::unbounded_channel();
        let report = move |event| drop(disk_events.send(event));
        if !start.first_start {
            first::check_state(&dir)?;
        }
        let (disk, durable) = Disk::open(dir.state_path(), report)?;
        let addr = start.addr;
        let first =
            if start.first.is_none() && durable.is_empty() { first::again(&dir, &config)? } else { start.first };
        if first.is_none() {
            first::is_over(&dir)?;
        }
        let (first_start, founded) = (first.is_some(), first.as_ref().is_some_and(|first| first.members.is_none()));
        let plane = plane::choose(&config, addr).await?;
        let promised = Core::lease_on_disk(&durable).map_or(Term::ZERO, |lease| lease.promised);
        let boot = Boot {
            cluster: identity.cluster(),
            node: identity.node(),
            boot: random::number()?,
            hostname: config.hostname.clone(),
            addr,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            timing: config.timing,
            delivers: plane.delivers(addr),
            durable,
            first,
            keep: Arc::new,
        };
        let mut core = Core::boot(boot, clock.now())
            .with_context(|| format!("{} is left as it was", dir.state_path().display()))?;
        core.keep_chronicle(clock.now());
        if !first_start
            && let Some(unheeded) = core.node(identity.node()).and_then(|me| first::unheeded(&config, &me.policy))
        {
            tracing::warn!("{unheeded}");
        }
        let mut trace = config.trace_file.as_deref().map(Trace::open).transpose()?;
        if let Some(trace) = &mut trace {
            trace.boot(&core, promised, clock.now());
        }

        let stop = CancellationToken::new();
        let (commands, command_queue) = mpsc::channel(MAX_COMMANDS);
        let handle = AgentHandle::new(commands);
        let (net, net_events) = start_net(&config, &identity, core.removed(), &handle).await?;
        let (engine_sink, engine_events) = mpsc::channel(MAX_EVENTS);
        let owner = Owner { cluster: identity.cluster(), node: identity.node() };
        let logs = Logs::new(engine.clone(), owner, net.clone(), stop.clone());
        let engine = engine::spawn(engine, owner, engine_sink, stop.clone());
        let (mesh_sink, mesh_events) = mpsc::channel(MAX_EVENTS);
        let tunnels = Arc::new(NetTunnels(net.clone()));
        let carried_by = plane.in_words();
        let mesh = plane.start(config.publish_on, tunnels, mesh_sink, stop.clone()).await?;

        let (counters, events) = (Arc::new(Counters::default()), Events::default());
        let measured = Arc::new(Measured::default());
        let vitals = Vitals::new(identity.node(), handle.clone(), net.clone(), stop.clone());
        let sources = Sources {
            agent: handle.clone(),
            counters: counters.clone(),
            measured: measured.clone(),
            events: events.clone(),
            logs: Arc::new(logs.clone()),
            mesh: mesh.clone(),
            vitals: vitals.clone(),
        };
        let page = serve_page(config.dashboard, &dir, sources, stop.clone()).await?;
        let link = page.map(|page| page.link(addr.ip()));
        let vault = Arc::new(Vault::new(&identity.pem().ca_key));
        let said = Arc::new(logs.clone());
        let extra = api_extra(
            &identity,
            clock.clone(),
            link.clone(),
            vault.clone(),
            said,
            events.clone(),
            (mesh.clone(), carried_by),
        );
        let api = Api::of_agent(&config.api_config(), handle.clone(), extra, stop.clone());
        remote::open(&config, addr, &identity, clock.clone(), api.clone(), stop.clone()).await?;
        match front {
            Some(front) => front.member(api),
            None => serve_api(&config, api).await?,
        }
        let kept = net.clone();
        let driver = Driver {
            node: identity.node(),
            core,
            clock,
            net,
            disk,
            engine,
            mesh,
            logs,
            vitals,
            replies: BTreeMap::new(),
            next_request: 0,
            ended: None,
            removed: false,
            leaves: false,
            first_life: first_start,
            counters,
            measured,
            events,
            disk_events: disk_queue,
            net_events,
            engine_events,
            mesh_events,
            commands: command_queue,
            vault,
            stop: stop.clone(),
            trace,
            dir,
        };
        let task = tokio::spawn(driver.run());
        let node = identity.node();
        Ok(Self { handle, node, identity, addr, first_start, founded, page: link, net: kept, stop, task })
    }

    /// Graceful: hands the lease over, says goodbye, leaves the containers running.
    pub async fn stop(self) -> Ended {
        // If the agent has ended already there is nothing to ask for.
        let _ = self.handle.request(Request::Stop).await;
        self.wait().await
    }

    /// Ends at once, without a goodbye and without handing anything over. (Unlike a real crash it closes its
    /// connections, so the others notice a little sooner.)
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        self.stop.cancel();
        self.net.close().await;
    }

    /// Until the agent ends by itself.
    pub async fn wait(self) -> Ended {
        self.task.await.unwrap_or(Ended::Stopped)
    }

    pub async fn ended(&mut self) -> Ended {
        (&mut self.task).await.unwrap_or(Ended::Stopped)
    }

    /// The join token as it is now.
    pub async fn token(&self) -> anyhow::Result<String> {
        let secret = self.handle.query(|core| core.cluster().join_secret).await?;
        Ok(self.identity.token(&secret)?.to_string())
    }
}

async fn serve_api(config: &AgentConfig, api: Arc<Api>) -> anyhow::Result<()> {
    let api = api::bind(&config.api_config(), api).await?;
    tokio::spawn(async move {
        if let Err(error) = api.await {
            tracing::error!(%error, "the API has ended");
        }
    });
    Ok(())
}

/// An agent that has only just ended in this process may hold the port on while its connections drain.
async fn start_net(
    config: &AgentConfig,
    identity: &Arc<Identity>,
    removed: &BTreeSet<NodeId>,
    handle: &AgentHandle,
) -> Result<(Net, mpsc::Receiver<NetEvent>), NetError> {
    let deadline = Instant::now() + PORT_WAIT;
    loop {
        let net_config = NetConfig { banned: removed.clone(), ..NetConfig::new(config.listen, identity.clone()) };
        match Net::start(net_config, join_service(handle.clone())) {
            Err(NetError::Listen { error, .. })
                if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline =>
            {
                tokio::time::sleep(PORT_AGAIN).await;
            }
            result => return result,
        }
    }
}

fn api_extra(
    identity: &Arc<Identity>,
    clock: Clock,
    page: Option<String>,
    vault: Arc<Vault>,
    logs: Arc<dyn LogSource>,
    events: Events,
    (mesh, carried_by): (Arc<dyn DataPlane>, String),
) -> api::Extra {
    let (signer, issuer) = (identity.clone(), identity.clone());
    api::Extra {
        token: Arc::new(move |secret| signer.token(secret).map_or_else(|_| String::new(), |t| t.to_string())),
        new_secret: Arc::new(|| random::secret().unwrap_or_default()),
        ca: identity.pem().ca.as_str().into(),
        vault,
        logs,
        events,
        client_cert: Arc::new(move |name, generation| {
            issuer.issue_client(name, generation, clock.now().wall).map_err(|error| error.to_string())
        }),
        page,
        mesh,
        carried_by,
    }
}

const PAGE_TOKEN_FILE: &str = "dashboard-token";

const PAGE_ADDR_FILE: &str = "dashboard-addr";

/// The token is kept, and where it is served if nobody says so, so that a page that is open stays so when its agent restarts.
async fn serve_page(
    where_to: Dashboard,
    dir: &DataDir,
    sources: Sources,
    stop: CancellationToken,
) -> anyhow::Result<Option<Page>> {
    let addr = match where_to {
        Dashboard::None => return Ok(None),
        Dashboard::Default => page::DEFAULT_ADDR,
        Dashboard::On(addr) => addr,
    };
    let token = match dir.read_private(PAGE_TOKEN_FILE)?.map(String::from_utf8) {
        Some(Ok(token)) if !token.is_empty() => token,
        _ => {
            let token = random::secret()?;
            dir.write_private(PAGE_TOKEN_FILE, token.as_bytes())?;
            token
        }
    };
    let serve = |addr| page::serve(addr, token.clone(), sources.clone(), stop.clone());
    if where_to != Dashboard::Default {
        return serve(addr).await.map(Some);
    }
    let last = dir.read_private(PAGE_ADDR_FILE)?.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    let last = last.filter(|last: &SocketAddr| last.ip() == addr.ip());
    let mut served = serve(last.unwrap_or(addr)).await;
    for addr in [addr, SocketAddr::new(addr.ip(), 0)] {
        if served.is_err() {
            served = serve(addr).await;
        }
    }
    if let Ok(page) = &served {
        dir.write_private(PAGE_ADDR_FILE, page.addr.to_string().as_bytes())?;
    }
    served.map(Some)
}

/// Who may join: whoever knows the cluster's secret, under a node id that nobody has.
fn join_service(agent: AgentHandle) -> JoinService {
    Arc::new(move |ask: JoinAsk| {
        let agent = agent.clone();
        Box::pin(async move {
            let stopping = |e: crate::core::face::Refused| JoinRefusal::Other(e.to_string());
            let (cluster, taken, members) = agent
                .query(move |core| (core.cluster(), core.node(ask.node).is_some(), core.member_table()))
                .await
                .map_err(stopping)?;
            if cluster.join_secret.is_empty() {
                return Err(JoinRefusal::Other(
                    "this node has only just joined itself: try again in a moment".to_owned(),
                ));
            }
            if !same_secret(&ask.secret, &cluster.join_secret) {
                return Err(JoinRefusal::WrongToken);
            }
            if taken {
                return Err(JoinRefusal::Other(format!("node id {} is in use", ask.node)));
            }
            tracing::info!(node = %ask.node, hostname = ask.hostname, addr = %ask.addr, "a node joins");
            Ok(members)
        })
    })
}

struct NetTunnels(Net);

impl Tunnels for NetTunnels {
    fn open(&self, to: NodeId, addr: SocketAddr) -> TunnelFuture {
        let net = self.0.clone();
        Box::pin(async move { net.open_tunnel(to, addr).await.map_err(io::Error::other) })
    }
}

/// The loop and what it drives.
struct Driver {
    node: NodeId,
    core: Core,
    clock: Clock,
    net: Net,
    disk: Disk,
    engine: EngineHandle,
    mesh: Arc<dyn DataPlane>,
    logs: Logs,
    vitals: Vitals,
    /// Who waits for an answer, and the span that it is logged in.
    replies: BTreeMap<RequestId, (oneshot::Sender<Reply>, tracing::Span)>,
    next_request: u64,
    ended: Option<Ended>,
    removed: bool,
    /// It was asked here to remove itself.
    leaves: bool,
    /// Nothing of this node is durable yet.
    first_life: bool,
    counters: Arc<Counters>,
    measured: Arc<Measured>,
    events: Events,
    disk_events: mpsc::UnboundedReceiver<DiskEvent>,
    net_events: mpsc::Receiver<NetEvent>,
    engine_events: mpsc::Receiver<EngineEvent>,
    mesh_events: mpsc::Receiver<MeshEvent>,
    commands: mpsc::Receiver<Command>,
    vault: Arc<Vault>,
    stop: CancellationToken,
    trace: Option<Trace>,
    /// Held for its lock on the data directory.
    dir: DataDir,
}

impl Driver {
    async fn run(mut self) -> Ended {
        self.drain();
        while self.ended.is_none() {
            let wait = self.core.deadline().map_or(Duration::from_secs(3600), |at| at.since(self.clock.now().mono));
            // Timers come first: a late one makes this node look ill to itself and to others.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(wait) => self.feed(Event::Wake),
                Some(event) = self.disk_events.recv() => self.on_disk(event),
                Some(event) = self.net_events.recv() => self.on_net(event),
                Some(event) = self.engine_events.recv() => {
                    self.measured.engine_said(&event);
                    self.feed(Event::Engine(event));
                }
                Some(event) = self.mesh_events.recv() => self.feed(Event::Mesh(event)),
                Some(command) = self.commands.recv() => self.on_command(command),
            }
        }
        self.commands.close();
        if self.ended == Some(Ended::Stopped) {
            self.mesh.close().await;
        }
        self.net.close().await;
        self.stop.cancel();
        if self.removed {
            self.mesh.retire().await;
        }
        tracing::debug!(dir = %self.dir.path().display(), "stopped");
        self.ended.unwrap_or(Ended::Stopped)
    }

    fn feed(&mut self, event: Event) {
        let now = self.clock.now();
        self.core.handle(event, now);
        if let Some(trace) = &mut self.trace {
            trace.look(&self.core, now);
        }
        let happened = self.core.take_happenings(now);
        self.measured.happened(&happened);
        self.events.add(happened);
        self.drain();
    }

    fn on_disk(&mut self, event: DiskEvent) {
        if self.first_life && matches!(event, DiskEvent::Done(_)) {
            self.first_life = false;
            if let Err(error) = first::is_over(&self.dir) {
                tracing::warn!(%error, "can't clear up after the first start");
            }
        }
        self.feed(match event {
            DiskEvent::Done(id) => Event::Persisted(id),
            DiskEvent::Failed { id, why } => Event::PersistFailed { id, why },
        });
    }

    fn on_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Message { from, bytes } => {
                self.measured.received(&bytes);
                self.feed(Event::Message { from, bytes });
            }
            NetEvent::LinkUp { node } => tracing::debug!(%node, "connected"),
            NetEvent::LinkLost { node } => self.feed(Event::LinkLost { node }),
            NetEvent::Tunnel { from, send, recv } => self.take_stream(from, send, recv),
            NetEvent::Refused { by, removed: true, why } => {
                tracing::warn!(%by, "a node turns us away: {why}");
                self.feed(Event::TurnedAway { by });
            }
            NetEvent::Refused { by, removed: false, why } => {
                tracing::warn!(%by, why, "a node does not take our connection")
            }
        }
    }

    /// Its first byte says whose it is.
    fn take_stream(&self, from: NodeId, send: quinn::SendStream, mut recv: quinn::RecvStream) {
        let (mesh, logs, vitals) = (self.mesh.clone(), self.logs.clone(), self.vitals.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(mesh::TUNNEL_TIMEOUT, recv.read_u8()).await {
                Ok(Ok(mesh::TUNNEL_KIND)) => mesh.accept(from, send, recv),
                Ok(Ok(mesh::HELD_TUNNEL_KIND)) => mesh.accept_held(from, send, recv),
                Ok(Ok(logs::KIND)) => logs.serve(send, recv).await,
                Ok(Ok(vitals::KIND)) => vitals.serve(send, recv).await,
                Ok(Ok(kind)) => tracing::debug!(%from, kind, "a stream of a kind that this build doesn't know"),
                // Gone before it said anything.
                Ok(Err(_)) | Err(_) => {}
            }
        });
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Question(question) => question(&self.core),
            Command::Request(request, span, reply) => {
                self.next_request += 1;
                let id = RequestId(self.next_request);
                self.replies.insert(id, (reply, span.clone()));
                self.measured.is_asked(id);
                self.leaves |= matches!(request, Request::RemoveNode { id, .. } if id == self.node);
                span.in_scope(|| self.feed(Event::Request { id, request }));
            }
        }
    }

    /// Carries out what the core asks for, in its order.
    fn drain(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            if let Some(trace) = &mut self.trace {
                trace.effect(&effect, self.clock.now());
            }
            match effect {
                Effect::Send { to, addr, datagram, bytes } => {
                    self.measured.sent(&bytes);
                    self.net.send(to, addr, bytes, datagram);
                }
                Effect::Persist { id, writes } => self.persist(id, writes),
                Effect::Engine { op, mut what } => {
                    self.vault.open_for(&mut what);
                    self.measured.engine_is_asked(op, &what);
                    self.span_of(op).in_scope(|| self.engine.submit(op, what));
                }
                Effect::Publish { version, table } => self.mesh.apply(version, table),
                Effect::AwaitDrained { task, everywhere } => self.mesh.await_drained(task, everywhere),
                Effect::Reply { id, reply } => {
                    self.measured.answers(id, &reply);
                    if let Some((waiting, span)) = self.replies.remove(&id) {
                        self.tell_accepted(&reply, &span);
                        // Whoever asked may have hung up.
                        let _ = waiting.send(reply);
                    }
                }
                Effect::Ban(nodes) => self.ban(&nodes),
                Effect::Notice(notice) => self.log(notice),
                Effect::Stopped => {
                    self.ended = Some(match (self.removed, self.leaves) {
                        (false, _) => Ended::Stopped,
                        (true, false) => Ended::Removed,
                        (true, true) => Ended::Left,
                    });
                }
            }
        }
    }

    fn persist(&self, id: PersistId, writes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        self.disk.persist(id, writes);
    }

    fn ban(&self, nodes: &BTreeSet<NodeId>) {
        self.net.ban(nodes);
    }

    /// In which the operation logs: whose task it is for, and which change of the service made that.
    fn span_of(&self, op: OpId) -> tracing::Span {
        match self.core.task_of(op) {
            Some(task) => {
                let change = self.core.change_of_task(task).unwrap_or_default();
                tracing::info_span!("engine", %task, change)
            }
            None => tracing::Span::none(),
        }
    }

    /// The word of a change that its name is followed from, in the span of the request that made it.
    fn tell_accepted(&self, reply: &Reply, asked: &tracing::Span) {
        let Ok(accepted) = reply else { return };
        let service = accepted.id.parse().ok().and_then(|id| self.core.change_of_service(id));
        let held = accepted.warnings.iter().find(|warning| warning.starts_with("pending: "));
        let held = held.map_or("acknowledged", String::as_str);
        if let Some((service, change)) = service {
            asked.record("change", &change);
            asked.in_scope(|| tracing::info!(service, change, held, "change accepted"));
        }
    }

    fn log(&mut self, notice: Notice) {
        self.counters.count(&notice);
        match notice {
            Notice::NodeUp(node) => tracing::info!(%node, "node is up"),
            Notice::NodeDown(node) => tracing::warn!(%node, "node is down"),
            Notice::LeaseAcquired { term } => tracing::info!(term, "this node holds the lease"),
            Notice::LeaseLost { term } => tracing::info!(term, "this node no longer holds the lease"),
            Notice::ElectorateChanged { voters } => tracing::info!(?voters, "the electorate is"),
            Notice::TaskStatus { task, phase, error } => {
                let change = self.core.change_of_task(task).unwrap_or_default();
                if error.is_empty() {
                    return tracing::info!(%task, change, phase, "task");
                }
                tracing::warn!(%task, change, phase, error, "task");
            }
            Notice::RolloutState { service, state, message } => {
                let change = self.core.change_of_service(service).map(|(_, change)| change).unwrap_or_default();
                // A line has one `message`, its own.
                tracing::info!(%service, change, state, detail = message, "rollout");
            }
            Notice::Removed => {
                self.removed = true;
                if self.leaves {
                    return tracing::info!("this node leaves the cluster: its containers are stopped");
                }
                tracing::error!(
                    "this node was removed from the cluster: its containers are stopped; to join again it needs a fresh data directory"
                );
            }
            Notice::Warning(text) => tracing::warn!("{text}"),
        }
    }
}
