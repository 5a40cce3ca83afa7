//! The userspace data plane: a TCP listener per published port, a copy loop per connection.

use super::table::{Pick, Shared};
use super::tunnel::{self, Tunnels};
use super::{DataPlane, Events, watched};
use crate::core::face::MeshEvent;
use crate::ids::{NodeId, TaskId};
use crate::model::spec::Protocol;
use crate::routes::{Reach, RouteTable};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Connections open at once through one node's mesh.
const MAX_CONNECTIONS: usize = 16_384;
/// Replicas tried for one connection before the client is turned away.
const MAX_TRIES: usize = 4;
/// A client waits this long for a port's first replica, or for another one after all failed.
const EMPTY_WAIT: Duration = Duration::from_secs(2);
/// A port that something else holds is tried again this often.
const REBIND_EVERY: Duration = Duration::from_secs(2);
/// How often a withdrawn replica's connections are looked at.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// Picks by an older table that take longer than this no longer hold up the new one.
const PICKING_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Userspace {
    shared: Arc<Shared>,
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
        let listeners = Listeners {
            bind,
            no_udp,
            shared: shared.clone(),
            tunnels,
            events: events.clone(),
            slots: slots.clone(),
            stop: stop.clone(),
            open: BTreeMap::new(),
            blocked: BTreeMap::new(),
        };
        tokio::spawn(listeners.run(table_queue));
        tokio::spawn(watch_drains(shared.clone(), drain_queue, events, stop.clone()));
        Self { shared, tables, drains, slots, stop }
    }
}

impl DataPlane for Userspace {
    fn apply(&self, version: u64, table: Arc<RouteTable>) {
        // Refused only after the stop, when nobody waits for an answer.
        let _ = self.tables.send((version, table));
    }

    fn await_drained(&self, task: TaskId) {
        let _ = self.drains.send(task);
    }

    fn accept(&self, _from: NodeId, send: quinn::SendStream, recv: quinn::RecvStream) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else { return };
        let (shared, stop) = (self.shared.clone(), self.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = tunnel::serve(shared, send, recv) => {}
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
    shared: Arc<Shared>,
    tunnels: Arc<dyn Tunnels>,
    events: Events,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
    open: BTreeMap<(Protocol, u16), CancellationToken>,
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
            let version = next.map(|(version, table)| (version, self.shared.swap(table)));
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
        let wanted: BTreeSet<(Protocol, u16)> =
            self.shared.ports().into_iter().filter(|(p, _)| *p == Protocol::Tcp).collect();
        self.open.retain(|port, listener| {
            let keep = wanted.contains(port);
            if !keep {
                listener.cancel();
            }
            keep
        });
        let mut blocked = BTreeMap::new();
        if let Some(why) = &self.no_udp {
            let udp = self.shared.ports().into_iter().filter(|(p, _)| *p == Protocol::Udp);
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
                    tokio::spawn(accept_loop(
                        listener,
                        port,
                        self.shared.clone(),
                        self.tunnels.clone(),
                        self.slots.clone(),
                        stop,
                    ));
                }
                Err(error) => drop(blocked.insert(port.1, error.to_string())),
            }
        }
        if blocked != self.blocked {
            self.blocked.clone_from(&blocked);
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

async fn accept_loop(
    listener: TcpListener,
    port: (Protocol, u16),
    shared: Arc<Shared>,
    tunnels: Arc<dyn Tunnels>,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let client = match accepted {
            Ok((client, _)) => client,
            Err(error) => {
                // Out of descriptors, most likely: the backlog waits while connections end.
                tracing::warn!(port = port.1, %error, "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (shared, tunnels) = (shared.clone(), tunnels.clone());
        tokio::spawn(async move {
            carry(client, port, shared, tunnels).await;
            drop(slot);
        });
    }
}

/// One client's connection: to the next replica, or another one if that can't be reached. While there is none it
/// waits a little for the table to change: a replica may be ready that this node has not yet heard of.
async fn carry(client: TcpStream, port: (Protocol, u16), shared: Arc<Shared>, tunnels: Arc<dyn Tunnels>) {
    let _ = client.set_nodelay(true);
    let patience = Instant::now() + EMPTY_WAIT;
    let mut tried = Vec::new();
    let mut tries = 0;
    while tries < MAX_TRIES {
        // Before the look, so that no swap falls in between.
        let swap = shared.next_swap();
        let Some(Pick { backend, counted, picking }) = shared.pick(port, &tried) else {
            if tokio::time::timeout_at(patience, swap).await.is_err() {
                break;
            }
            tried.clear();
            continue;
        };
        tries += 1;
        match backend.reach {
            Reach::Local(ip) => {
                let connect = TcpStream::connect(SocketAddr::new(ip, backend.target));
                if let Ok(Ok(replica)) = timeout(tunnel::CONNECT_TIMEOUT, connect).await {
                    drop(picking);
                    let _ = replica.set_nodelay(true);
                    return watched::copy(shared.clone(), counted, client, replica).await;
                }
            }
            Reach::Remote { agent, .. } => {
                let connect = tunnel::connect(&*tunnels, backend.node, agent, backend.task, backend.target);
                if let Ok((send, recv)) = connect.await {
                    drop(picking);
                    return watched::copy(shared.clone(), counted, client, tokio::io::join(recv, send)).await;
                }
            }
        }
        tracing::debug!(port = port.1, task = %backend.task, "a replica could not be reached; trying another");
        tried.push(backend.task);
    }
    // Nobody to serve it: a reset tells the client at once.
    let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
}
