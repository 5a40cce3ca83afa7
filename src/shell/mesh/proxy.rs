//! The userspace data plane: a TCP listener per published port, and per connection a copy loop or, on an HTTP-aware port,
//! a server ([`super::http`]).

use super::copy::{break_off, copy, tune};
use super::http::{self, Entry, Gate, Pool};
use super::table::{Pick, Shared};
use super::tunnel::{self, Tunnels};
use super::view::View;
use super::{DataPlane, Events, proxy_header, reach};
use crate::core::face::MeshEvent;
use crate::ids::{NodeId, TaskId};
use crate::model::spec::Protocol;
use crate::routes::{Port, RouteTable};
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections open at once through one node's mesh.
const MAX_CONNECTIONS: usize = 16_384;
/// And through one of its ports, so that one alone doesn't take all places.
const MAX_PORT_CONNECTIONS: usize = 12_288;
/// Requests at once through HTTP-aware ports, whatever the connections.
const MAX_REQUESTS: usize = 16_384;
/// A port that is full is told of this often.
const FULL_AGAIN: Duration = Duration::from_secs(10);
/// Replicas tried for one connection or request before the client is turned away.
pub const MAX_TRIES: usize = 4;
/// A client waits this long for a port's first replica, or for another one after all failed.
pub const EMPTY_WAIT: Duration = Duration::from_secs(2);
/// When the agent stops, what is under way gets this long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// A port that something else holds is tried again this often.
const REBIND_EVERY: Duration = Duration::from_secs(2);
/// How often a withdrawn replica's connections are looked at.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// Picks by an older table that take longer than this no longer hold up the new one.
const PICKING_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Userspace {
    shared: Arc<Shared>,
    /// Clients' connections to HTTP-aware ports.
    clients: TaskTracker,
    /// Ends listening, and what can be ended at a boundary.
    closing: CancellationToken,
    tables: mpsc::UnboundedSender<(u64, Arc<RouteTable>)>,
    drains: mpsc::UnboundedSender<TaskId>,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Userspace {
    /// Listens on `bind` for the ports of the tables that are applied, until `stop`. UDP isn't carried here: `no_udp` says
    /// why, unless somebody else carries it.
    pub fn start(
        bind: IpAddr,
        no_udp: Option<String>,
        tunnels: Arc<dyn Tunnels>,
        events: Events,
        stop: CancellationToken,
    ) -> Self {
        let shared = Shared::new();
        let (tables, table_queue) = mpsc::unbounded_channel();
        let (drains, drain_queue) = mpsc::unbounded_channel();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let gate = Arc::new(Gate {
            shared: shared.clone(),
            tunnels,
            pool: Pool::start(shared.clone(), stop.clone()),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            replays: Arc::new(Semaphore::new(http::MAX_REPLAYS)),
            stop: stop.clone(),
        });
        let (clients, closing) = (TaskTracker::new(), stop.child_token());
        let listeners = Listeners {
            bind,
            no_udp,
            gate,
            events: events.clone(),
            slots: slots.clone(),
            clients: clients.clone(),
            stop: closing.clone(),
            open: BTreeMap::new(),
            blocked: BTreeMap::new(),
        };
        tokio::spawn(listeners.run(table_queue));
        tokio::spawn(watch_drains(shared.clone(), drain_queue, events, stop.clone()));
        Self { shared, clients, closing, tables, drains, slots, stop }
    }
}

impl DataPlane for Userspace {
    fn apply(&self, version: u64, table: Arc<RouteTable>) {
        // Refused only after the stop, when nobody waits for an answer.
        let _ = self.tables.send((version, table));
    }

    fn await_drained(&self, task: TaskId, _everywhere: bool) {
        let _ = self.drains.send(task);
    }

    fn accept(&self, _from: NodeId, send: quinn::SendStream, recv: quinn::RecvStream) {
        self.take_tunnel(false, send, recv);
    }

    fn accept_held(&self, _from: NodeId, send: quinn::SendStream, recv: quinn::RecvStream) {
        self.take_tunnel(true, send, recv);
    }

    fn view(&self) -> View {
        self.shared.view()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let (shared, clients) = (self.shared.clone(), self.clients.clone());
        self.closing.cancel();
        clients.close();
        Box::pin(async move {
            let ended = async {
                clients.wait().await;
                while !shared.is_all_quiet() {
                    tokio::time::sleep(DRAIN_LOOK).await;
                }
            };
            // What takes longer is cut.
            let _ = timeout(CLOSE_TIMEOUT, ended).await;
        })
    }
}

impl Userspace {
    #[cfg(test)]
    pub fn is_quiet(&self, task: TaskId) -> bool {
        self.shared.is_quiet(task)
    }

    fn take_tunnel(&self, held: bool, send: quinn::SendStream, recv: quinn::RecvStream) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else { return };
        let (shared, stop) = (self.shared.clone(), self.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                broken = tunnel::serve(shared, held, send, recv) => {
                    if let Err(mut send) = broken {
                        // Refused only where the connection has gone, and the stream with it.
                        let _ = send.reset(quinn::VarInt::from_u32(0));
                    }
                }
                () = stop.cancelled() => {}
            }
            drop(slot);
        });
    }
}

async fn watch_drains(
    shared: Arc<Shared>,
    mut queue: mpsc::UnboundedReceiver<TaskId>,
    events: Events,
    stop: CancellationToken,
) {
    let mut waiting: BTreeSet<TaskId> = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            task = queue.recv() => match task {
                Some(task) => drop(waiting.insert(task)),
                None => return,
            },
            () = tokio::time::sleep(DRAIN_LOOK), if !waiting.is_empty() => {}
        }
        let quiet: Vec<TaskId> = waiting.iter().copied().filter(|task| shared.is_quiet(*task)).collect();
        for task in quiet {
            waiting.remove(&task);
            if events.send(MeshEvent::Drained { task }).await.is_err() {
                return;
            }
        }
    }
}

struct Listeners {
    bind: IpAddr,
    no_udp: Option<String>,
    gate: Arc<Gate>,
    events: Events,
    slots: Arc<Semaphore>,
    clients: TaskTracker,
    stop: CancellationToken,
    open: BTreeMap<Port, CancellationToken>,
    blocked: BTreeMap<u16, String>,
}

impl Listeners {
    async fn run(mut self, mut tables: mpsc::UnboundedReceiver<(u64, Arc<RouteTable>)>) {
        let mut rebind = Instant::now() + REBIND_EVERY;
        loop {
            let next = tokio::select! {
                () = self.stop.cancelled() => return,
                next = tables.recv() => match next { Some(next) => Some(next), None => return },
                () = tokio::time::sleep_until(rebind), if !self.blocked.is_empty() => None,
            };
            let version = next.map(|(version, table)| {
                let picked_before = self.gate.shared.swap(table.clone());
                self.gate.pool.follow(&table);
                (version, picked_before)
            });
            rebind = Instant::now() + REBIND_EVERY;
            self.follow_ports().await;
            if let Some((version, mut picked_before)) = version {
                // Closes when the last connection picked by the table before is with its replica.
                let _ = timeout(PICKING_TIMEOUT, picked_before.recv()).await;
                if self.events.send(MeshEvent::Applied { version }).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Opens what the table has and closes what it hasn't.
    async fn follow_ports(&mut self) {
        let wanted: BTreeSet<Port> =
            self.gate.shared.ports().into_iter().filter(|(p, _)| *p == Protocol::Tcp).collect();
        self.open.retain(|port, listener| {
            let keep = wanted.contains(port);
            if !keep {
                listener.cancel();
            }
            keep
        });
        let mut blocked = BTreeMap::new();
        if let Some(why) = &self.no_udp {
            let udp = self.gate.shared.ports().into_iter().filter(|(p, _)| *p == Protocol::Udp);
            blocked.extend(udp.map(|(_, port)| (port, why.clone())));
        }
        for port in wanted {
            if self.open.contains_key(&port) {
                continue;
            }
            match listen(SocketAddr::new(self.bind, port.1)) {
                Ok(listener) => {
                    let stop = self.stop.child_token();
                    self.open.insert(port, stop.clone());
                    let places = Places {
                        port: port.1,
                        here: Arc::new(Semaphore::new(MAX_PORT_CONNECTIONS)),
                        all: self.slots.clone(),
                        told: None,
                    };
                    let accept = accept_loop(listener, port, self.gate.clone(), places, self.clients.clone(), stop);
                    tokio::spawn(accept);
                }
                Err(error) => drop(blocked.insert(port.1, error.to_string())),
            }
        }
        if blocked != self.blocked {
            self.blocked.clone_from(&blocked);
            self.gate.shared.set_blocked(blocked.clone());
            let _ = self.events.send(MeshEvent::Blocked(blocked)).await;
        }
    }
}

/// On all IPv4 addresses means on all IPv6 ones too, where there are any and they are free.
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    if addr.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        && let Ok(listener) = listen_on(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), addr.port()))
    {
        return Ok(listener);
    }
    listen_on(addr)
}

fn listen_on(addr: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

/// Of connections, one port's and the node's.
struct Places {
    port: u16,
    here: Arc<Semaphore>,
    all: Arc<Semaphore>,
    told: Option<Instant>,
}

impl Places {
    /// Waits for one: meanwhile clients wait in the listener's backlog.
    async fn take(&mut self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let free = self.here.available_permits().min(self.all.available_permits());
        if free == 0 && self.told.is_none_or(|told| told.elapsed() >= FULL_AGAIN) {
            self.told = Some(Instant::now());
            let whose = if self.here.available_permits() == 0 { "this port" } else { "this node's mesh" };
            tracing::warn!(
                port = self.port,
                "{whose} has as many connections as it may ({MAX_PORT_CONNECTIONS} a port, {MAX_CONNECTIONS} in all): new ones wait"
            );
        }
        let here = self.here.clone().acquire_owned().await.ok()?;
        Some((here, self.all.clone().acquire_owned().await.ok()?))
    }
}

async fn accept_loop(
    listener: TcpListener,
    port: Port,
    gate: Arc<Gate>,
    mut places: Places,
    clients: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (client, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: the backlog waits while connections end.
                tracing::warn!(port = port.1, %error, "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = tokio::select! {
            () = stop.cancelled() => return,
            place = places.take() => place,
        };
        let Some((here, slot)) = place else { return };
        tune(&client);
        // Gone already.
        let Ok(to) = client.local_addr() else { continue };
        // A listener for both families shows IPv4 clients in IPv6's clothes: replicas are to be told the plain address.
        let (from, to) = (plain(from), plain(to));
        if gate.shared.options(port).is_http() {
            let (gate, stop) = (gate.clone(), stop.clone());
            let entry = Entry { port, from, to, _place: Arc::new((here, slot)) };
            clients.spawn(http::serve(client, gate, entry, stop));
        } else {
            let gate = gate.clone();
            tokio::spawn(async move {
                carry(client, port, from, to, &gate).await;
                drop((here, slot));
            });
        }
    }
}

fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// One client's connection: to the next replica, or another one if that can't be reached. While there is none it
/// waits a little for the table to change: a replica may be ready that this node has not yet heard of. What breaks, or goes to
/// a node that is down, is reset: half an answer must not look like a whole one.
async fn carry(mut client: TcpStream, port: Port, from: SocketAddr, to: SocketAddr, gate: &Gate) {
    let shared = &gate.shared;
    let patience = Instant::now() + EMPTY_WAIT;
    let mut tried = Vec::new();
    let mut tries = 0;
    while tries < MAX_TRIES {
        // Before the look, so that no swap falls in between.
        let swap = shared.next_swap();
        let Some(Pick { backend, options, counted, picking }) = shared.pick(port, from.ip(), &tried) else {
            if tokio::time::timeout_at(patience, swap).await.is_err() {
                break;
            }
            tried.clear();
            continue;
        };
        tries += 1;
        let connected = async {
            // Both futures are of some size, and an idle connection is not to hold them.
            let mut replica = Box::pin(reach::connect(&*gate.tunnels, &backend, tunnel::VERSION)).await?;
            if let Some(version) = options.proxy_protocol {
                let header = proxy_header::encode(version, from, to);
                timeout(tunnel::CONNECT_TIMEOUT, replica.write_all(&header)).await??;
            }
            Ok::<_, io::Error>(replica)
        };
        match Box::pin(connected).await {
            Ok(mut replica) => {
                drop((picking, tried));
                let copied = Box::pin(async {
                    tokio::select! {
                        copied = copy(counted, &mut client, &mut replica) => copied,
                        // A tunnel takes a while to see that nobody is at its other end.
                        () = shared.node_down(&backend) => Err(io::ErrorKind::NotConnected.into()),
                    }
                });
                if copied.await.is_err() {
                    break_off(&client);
                    replica.break_off();
                }
                return;
            }
            Err(error) => {
                tracing::debug!(port = port.1, task = %backend.task, %error, "a replica could not be reached; trying another");
            }
        }
        shared.replica_failed(port, backend.task);
        tried.push(backend.task);
    }
    shared.client_failed(port);
    // Nobody to serve it: a reset tells the client at once.
    break_off(&client);
}
