//! The kernel data plane: nftables leads a published port's connections to replicas here and on other nodes, without this
//! process in between; what it can't lead is taken by the userspace listener of the same port, which is always open
//! behind the rules. The rules stay when the agent ends, and are replaced once its next life knows a table.
//!
//! It keeps the mesh's law by the kernel's connection tracking: a table is [`MeshEvent::Applied`] once its rules are in
//! force and no connection tries a replica that they don't lead to, [`MeshEvent::Drained`] is a replica without an entry
//! that carried something lately. Entries of a replica or node that is gone are deleted, so that no client hangs on them.

mod conntrack;
mod host;
mod netlink;
mod rules;
#[cfg(test)]
mod tests;

use super::{DataPlane, Events, Tunnels, Userspace, View};
use crate::core::face::MeshEvent;
use crate::ids::{NodeId, TaskId};
use crate::model::spec::Protocol;
use crate::routes::{Port, RouteTable};
use conntrack::{Entry, Flow, Timeouts, Which};
use futures_util::future::BoxFuture;
use host::Lock;
pub use host::examine;
use netlink::Netlink;
use rules::Rules;
pub use rules::Style;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

/// Connections that try a replica which is not in the table any more hold up its withdrawal no longer than this.
const TRYING_TIMEOUT: Duration = Duration::from_secs(2);
/// Such a try that got no answer for this long is forgotten: its client's next packet is led elsewhere.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often connections are looked at while somebody waits for them.
const LOOK: Duration = Duration::from_millis(50);
/// So often at least, however long a look takes: who waits for it stops its replica in the end.
const MAX_LOOK: Duration = Duration::from_secs(1);
/// The first look after a change: connections that the old rules have just led are tracked by then.
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// A look at a big table that changes meanwhile may miss an entry: so many in a row must agree that a replica is quiet.
const QUIET_LOOKS: u32 = 3;
/// How often the rules themselves are looked at.
const GUARD: Duration = Duration::from_secs(2);
/// After so many of them the engine's filter is looked at in any case.
const FILTER_TICKS: u32 = 5;
/// After so many of them, connections that the rules don't lead where they go any more are looked for in any case, and after
/// each while the rules have changed within [`ASTRAY_FOR`]: what had ended by then the kernel has forgotten (TIME_WAIT).
const ASTRAY_TICKS: u32 = 15;
const ASTRAY_FOR: Duration = Duration::from_secs(130);
/// The rules of an earlier life stay this long for a table that has a replica for every port and what they deliver to.
const ADOPTED_FOR: Duration = Duration::from_secs(2);
/// Events of the userspace plane that wait for us.
const MAX_EVENTS: usize = 64;

pub struct Kernel {
    user: Userspace,
    tables: mpsc::UnboundedSender<(u64, Arc<RouteTable>)>,
    drains: mpsc::UnboundedSender<(TaskId, bool)>,
    writer: Arc<Writer>,
    led: Arc<std::sync::Mutex<Led>>,
}

/// Where the rules in force lead each port's connections: for who looks at them.
type Led = BTreeMap<Port, BTreeMap<TaskId, SocketAddrV4>>;

/// Writes rules, one at a time, until they are given up.
struct Writer {
    style: Style,
    /// None once the rules were given up.
    lock: Mutex<Option<Lock>>,
}

/// A kernel that can carry the mesh, and is ours to use.
pub struct Found {
    style: Style,
    lock: Lock,
}

impl Kernel {
    pub async fn start(
        found: Found,
        bind: IpAddr,
        tunnels: Arc<dyn Tunnels>,
        events: Events,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let Found { style, lock } = found;
        let netlink = Netlink::open()?;
        let left = host::left().await;
        let (sink, user_events) = mpsc::channel(MAX_EVENTS);
        let user = Userspace::start(bind, None, tunnels, sink, stop.clone());
        let (tables, table_queue) = mpsc::unbounded_channel();
        let (drains, drain_queue) = mpsc::unbounded_channel();
        let writer = Arc::new(Writer { style, lock: Mutex::new(Some(lock)) });
        let led: Arc<std::sync::Mutex<Led>> = Arc::default();
        let follower = Follower {
            led: led.clone(),
            bind,
            writer: writer.clone(),
            netlink,
            timeouts: Timeouts::read(),
            events,
            version: 0,
            table: Arc::default(),
            user_version: 0,
            user_ports: BTreeSet::new(),
            user_blocked: BTreeMap::new(),
            udp: BTreeMap::new(),
            udp_blocked: BTreeMap::new(),
            told_blocked: BTreeMap::new(),
            in_force: Rules::default(),
            changed: Instant::now(),
            stale: left.is_some(),
            adopted: left
                .map(|left| Adopted { until: Instant::now() + ADOPTED_FOR, deliveries: rules::deliveries_in(&left) }),
            generation: None,
            filter_is_open: false,
            complaint: String::new(),
            settling: Vec::new(),
            draining: BTreeMap::new(),
        };
        tokio::spawn(follower.run(table_queue, drain_queue, user_events, stop));
        Ok(Self { user, tables, drains, writer, led })
    }
}

impl DataPlane for Kernel {
    fn apply(&self, version: u64, table: Arc<RouteTable>) {
        self.user.apply(version, table.clone());
        // Refused only after the stop, when nobody waits for an answer.
        let _ = self.tables.send((version, table));
    }

    fn await_drained(&self, task: TaskId, everywhere: bool) {
        self.user.await_drained(task, everywhere);
        let _ = self.drains.send((task, everywhere));
    }

    fn accept(&self, from: NodeId, send: quinn::SendStream, recv: quinn::RecvStream) {
        self.user.accept(from, send, recv);
    }

    fn accept_held(&self, from: NodeId, send: quinn::SendStream, recv: quinn::RecvStream) {
        self.user.accept_held(from, send, recv);
    }

    fn view(&self) -> View {
        let mut view = View { plane: "kernel", ..self.user.view() };
        let led = self.led.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What the kernel won't say now is shown as nothing open.
        let dump = || conntrack::ours(&mut Netlink::open()?, Which::All);
        let entries = tokio::task::block_in_place(dump).unwrap_or_default();
        let mut open: BTreeMap<SocketAddrV4, u64> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| !entry.is_over()) {
            *open.entry(entry.at).or_default() += 1;
        }
        for port in &mut view.ports {
            let Some(led) = led.get(&(port.protocol, port.port)) else { continue };
            port.path = "kernel";
            for replica in &mut port.replicas {
                let here = led.get(&replica.task).and_then(|at| open.get(at)).copied().unwrap_or(0);
                replica.open += here;
                port.totals.open += here;
            }
        }
        view
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.user.close()
    }

    fn retire(&self) -> BoxFuture<'static, ()> {
        let writer = self.writer.clone();
        Box::pin(async move { writer.give_up().await })
    }
}

impl Writer {
    async fn write(&self, rules: &Rules) -> Result<(), String> {
        let lock = self.lock.lock().await;
        if lock.is_none() {
            return Err("this node has left".to_owned());
        }
        if !rules.is_empty() {
            host::forward().map_err(|error| format!("net.ipv4.ip_forward: {error}"))?;
        }
        host::write(rules, &self.style).await
    }

    async fn open_engine_filter(&self) -> bool {
        let lock = self.lock.lock().await;
        lock.is_some() && host::open_engine_filter().await
    }

    async fn give_up(&self) {
        let mut lock = self.lock.lock().await;
        if lock.take().is_some() {
            remove().await;
        }
    }
}

async fn remove() {
    if let Err(error) = host::write(&Rules::default(), &Style { publish_on: None, own: None, plain: false }).await {
        tracing::warn!(error, "can't remove the rules of the mesh (nft delete table ip {})", rules::TABLE);
    }
    host::close_engine_filter().await;
}

/// Takes away what an agent that is not here any more has left, for one that does without the kernel.
pub async fn sweep() {
    let Ok(_lock) = Lock::take() else { return };
    if host::left().await.is_some() {
        tracing::info!("removing the rules that an earlier agent left for the mesh");
        return remove().await;
    }
    // It may have had a rule for the engine and none of its own.
    host::close_engine_filter().await;
}

/// Rules of an earlier life, in force until we know better.
struct Adopted {
    until: Instant,
    /// What other nodes send to; our containers may not have been seen yet.
    deliveries: BTreeSet<Port>,
}

/// A table that is in force but not yet said to be.
struct Settling {
    version: u64,
    since: Instant,
}

/// A task whose connections are to end.
#[derive(Default)]
struct Draining {
    /// No node leads new ones to it.
    everywhere: bool,
    /// The userspace plane has said so for its part.
    user: bool,
    /// So many looks in a row have found nothing.
    quiet_looks: u32,
}

struct Follower {
    led: Arc<std::sync::Mutex<Led>>,
    bind: IpAddr,
    writer: Arc<Writer>,
    netlink: Netlink,
    timeouts: Timeouts,
    events: Events,
    /// The newest table.
    version: u64,
    table: Arc<RouteTable>,
    /// What of it the userspace plane follows.
    user_version: u64,
    user_ports: BTreeSet<Port>,
    user_blocked: BTreeMap<u16, String>,
    /// Held, so that nobody else takes them; nothing is read from them.
    udp: BTreeMap<u16, UdpSocket>,
    udp_blocked: BTreeMap<u16, String>,
    told_blocked: BTreeMap<u16, String>,
    in_force: Rules,
    /// When that was put in force.
    changed: Instant,
    adopted: Option<Adopted>,
    /// The kernel's count of changes when our last one was made, if nobody's came in between.
    generation: Option<u32>,
    /// Our rule stands in the engine's filter.
    filter_is_open: bool,
    /// What is in force may not be `in_force`.
    stale: bool,
    /// The last thing that went wrong, so that it is said once.
    complaint: String,
    settling: Vec<Settling>,
    draining: BTreeMap<TaskId, Draining>,
}

impl Follower {
    async fn run(
        mut self,
        mut tables: mpsc::UnboundedReceiver<(u64, Arc<RouteTable>)>,
        mut drains: mpsc::UnboundedReceiver<(TaskId, bool)>,
        mut user_events: mpsc::Receiver<MeshEvent>,
        stop: CancellationToken,
    ) {
        let mut guard = interval(GUARD);
        guard.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut look, mut tick) = (Instant::now(), 0u32);
        loop {
            let waits = !self.settling.is_empty() || !self.draining.is_empty();
            tokio::select! {
                () = stop.cancelled() => return,
                next = tables.recv() => {
                    let Some(mut next) = next else { return };
                    while let Ok(newer) = tables.try_recv() {
                        next = newer;
                    }
                    self.follow(next.0, next.1).await;
                    look = Instant::now() + FIRST_LOOK;
                }
                task = drains.recv() => {
                    let Some((task, everywhere)) = task else { return };
                    self.draining.entry(task).or_default().everywhere = everywhere;
                    self.timeouts = Timeouts::read();
                    look = Instant::now();
                }
                event = user_events.recv() => {
                    let Some(event) = event else { return };
                    self.on_user(event).await;
                }
                () = sleep_until(look), if waits => {
                    let began = Instant::now();
                    self.look().await;
                    // A big table takes long to look through.
                    look = Instant::now() + (began.elapsed() * 4).clamp(LOOK, MAX_LOOK);
                }
                _ = guard.tick() => {
                    tick = tick.wrapping_add(1);
                    self.guard(tick).await;
                }
            }
        }
    }

    async fn follow(&mut self, version: u64, table: Arc<RouteTable>) {
        let before = std::mem::replace(&mut self.table, table);
        self.version = version;
        self.note_user_ports();
        self.reserve_udp().await;
        self.write().await;
        self.forget_the_gone(&before);
    }

    async fn on_user(&mut self, event: MeshEvent) {
        match event {
            MeshEvent::Applied { version } => {
                self.user_version = version;
                self.note_user_ports();
                self.write().await;
            }
            MeshEvent::Blocked(blocked) => {
                self.user_blocked = blocked;
                self.tell_blocked().await;
                self.write().await;
            }
            MeshEvent::Drained { task } => {
                if let Some(draining) = self.draining.get_mut(&task) {
                    draining.user = true;
                }
            }
        }
    }

    /// Its word on the newest table may come before that table does.
    fn note_user_ports(&mut self) {
        if self.user_version == self.version {
            self.user_ports = self.table.ports.keys().copied().collect();
        }
    }

    /// A UDP port has no listener that could find it taken.
    async fn reserve_udp(&mut self) {
        let wanted: BTreeSet<u16> =
            self.table.ports.keys().filter(|(p, _)| *p == Protocol::Udp).map(|(_, port)| *port).collect();
        self.udp.retain(|port, _| wanted.contains(port));
        self.udp_blocked.clear();
        for port in wanted {
            if self.udp.contains_key(&port) {
                continue;
            }
            match UdpSocket::bind(SocketAddr::new(self.bind, port)) {
                Ok(socket) => drop(self.udp.insert(port, socket)),
                Err(error) => drop(self.udp_blocked.insert(port, error.to_string())),
            }
        }
        self.tell_blocked().await;
    }

    async fn tell_blocked(&mut self) {
        let mut blocked = self.user_blocked.clone();
        blocked.extend(self.udp_blocked.clone());
        if blocked != self.told_blocked {
            self.told_blocked.clone_from(&blocked);
            let _ = self.events.send(MeshEvent::Blocked(blocked)).await;
        }
    }

    /// Those that are this node's: what somebody else holds is not led away from them.
    fn open(&self) -> BTreeSet<Port> {
        let udp = self.udp.keys().map(|port| (Protocol::Udp, *port));
        let tcp =
            self.user_ports.iter().filter(|(p, port)| *p == Protocol::Tcp && !self.user_blocked.contains_key(port));
        tcp.copied().chain(udp).collect()
    }

    /// Puts what is known in force.
    async fn write(&mut self) {
        if self.adopted.as_ref().is_some_and(|adopted| Instant::now() < adopted.until && !self.knows_better(adopted)) {
            return;
        }
        self.adopted = None;
        let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
        let rules = Rules::of(&self.table, &self.writer.style, &self.open(), &routes);
        if self.stale || rules != self.in_force {
            if !self.filter_is_open && !rules.is_empty() {
                self.filter_is_open = self.writer.open_engine_filter().await;
            }
            let before = self.netlink.generation().ok();
            if let Err(error) = self.writer.write(&rules).await {
                // The guard tries again; meanwhile nobody is told that it is in force.
                self.stale = true;
                return self.complain(error);
            }
            // Anybody else's change in between may have been one of our table.
            let after = self.netlink.generation().ok();
            self.generation = after.filter(|after| before.is_some_and(|before| before.wrapping_add(1) == *after));
            self.note_led(&rules);
            self.in_force = rules;
            self.changed = Instant::now();
            self.stale = false;
            self.complaint.clear();
        }
        if self.settling.last().is_none_or(|last| last.version < self.version) {
            self.settling.push(Settling { version: self.version, since: Instant::now() });
        }
    }

    fn knows_better(&self, adopted: &Adopted) -> bool {
        let ports = &self.table.ports;
        let all_served = !ports.is_empty() && ports.values().all(|backends| !backends.is_empty());
        let all_delivered = adopted.deliveries.iter().all(|port| self.table.deliveries.contains_key(port));
        all_served && all_delivered && self.user_version == self.version
    }

    fn note_led(&self, rules: &Rules) {
        let plain = self.writer.style.plain;
        let replicas = |port: &Port| {
            let backends = self.table.ports.get(port).into_iter().flat_map(|backends| backends.iter());
            backends.filter_map(|backend| Some((backend.task, rules::led_to(backend, plain)?))).collect()
        };
        let led = rules.ports.keys().map(|port| (*port, replicas(port))).collect();
        *self.led.lock().unwrap_or_else(PoisonError::into_inner) = led;
    }

    fn complain(&mut self, error: String) {
        if self.complaint != error {
            tracing::warn!(error, "the mesh's rules are not as they should be; trying again");
            self.complaint = error;
        }
    }

    /// Rules that somebody has changed or flushed are written again, and the engine's filter is opened again.
    async fn guard(&mut self, tick: u32) {
        let due = self.adopted.as_ref().is_some_and(|adopted| adopted.until <= Instant::now());
        let rules_changed = match self.netlink.generation() {
            Ok(generation) => self.generation != Some(generation),
            Err(_) => true,
        };
        let held = self.adopted.is_some() && !due;
        // An engine that starts makes its filter anew; one of the old kind changes rules that aren't counted.
        self.filter_is_open &= !rules_changed && !tick.is_multiple_of(FILTER_TICKS);
        if !self.filter_is_open && !self.in_force.is_empty() && (rules_changed || tick.is_multiple_of(FILTER_TICKS)) {
            self.filter_is_open = self.writer.open_engine_filter().await;
        }
        if !held && (due || self.stale || rules_changed && !self.in_force.is_empty()) {
            self.stale = true;
            self.write().await;
        }
        if !self.udp_blocked.is_empty() {
            self.reserve_udp().await;
            self.write().await;
        }
        let some_down = self.table.members.values().any(|up| !up);
        let fresh = self.changed.elapsed() < ASTRAY_FOR || some_down;
        if !self.in_force.is_empty() && (fresh || tick.is_multiple_of(ASTRAY_TICKS)) {
            self.forget_astray();
        }
    }

    /// A client that uses its ports again is led where its earlier connection went, be that replica there or not: the kernel
    /// forgets a refused try only where no earlier one was answered. What the rules don't lead there any more is forgotten here,
    /// so that its next try goes elsewhere. So is what a node that is down doesn't answer.
    fn forget_astray(&mut self) {
        let Some(entries) = self.entries(Which::All) else { return };
        let is_try = |e: &Entry| matches!(e.flow, Flow::SynSent | Flow::Closed);
        let goes_nowhere = |e: &Entry| is_down(&self.table, e.at) && self.timeouts.is_stuck(e);
        for entry in entries.iter().filter(|e| is_try(e) && !self.in_force.leads_to(e.at) || goes_nowhere(e)) {
            let _ = conntrack::delete(&mut self.netlink, entry);
        }
    }

    async fn look(&mut self) {
        if !self.settling.is_empty() {
            let tries = self.entries(Which::Unanswered);
            self.settle(tries.as_deref()).await;
        }
        if !self.draining.is_empty() {
            self.drain().await;
        }
    }

    /// None if they can't be had.
    fn entries(&mut self, which: Which) -> Option<Vec<Entry>> {
        match tokio::task::block_in_place(|| conntrack::ours(&mut self.netlink, which)) {
            Ok(entries) => Some(entries),
            Err(error) => {
                self.complain(format!("connection tracking: {error}"));
                None
            }
        }
    }

    async fn settle(&mut self, entries: Option<&[Entry]>) {
        let known = entries.is_some();
        let astray = |entry: &&Entry| entry.flow == Flow::SynSent && !self.in_force.leads_to(entry.at);
        let astray: Vec<&Entry> = entries.unwrap_or_default().iter().filter(astray).collect();
        if let Some(oldest) = self.settling.first()
            && oldest.since.elapsed() >= TRY_AGAIN_AFTER
        {
            for entry in &astray {
                let _ = conntrack::delete(&mut self.netlink, entry);
            }
        }
        let is_settled = |s: &Settling| known && astray.is_empty() || s.since.elapsed() >= TRYING_TIMEOUT;
        let user_version = self.user_version;
        let done = self.settling.iter().take_while(|s| is_settled(s) && s.version <= user_version).count();
        if let Some(newest) = self.settling.drain(..done).next_back() {
            let _ = self.events.send(MeshEvent::Applied { version: newest.version }).await;
        }
    }

    /// Also forgets what is over of the connections to a replica that drains, before its container ends. dockerd clears an
    /// ended container's connections by who asked whom, out of a list it made earlier: where a client has used its port
    /// again by then that is another connection, which would be cut or hang. So it must find none.
    async fn drain(&mut self) {
        let local = self.table.local.iter().filter(|((task, _), _)| self.draining.contains_key(task));
        let leads_to: BTreeMap<SocketAddrV4, TaskId> =
            local.filter_map(|((task, _), at)| Some((rules::v4(at)?, *task))).collect();
        let mut held_up = BTreeSet::new();
        for ip in leads_to.keys().map(|at| *at.ip()).collect::<BTreeSet<_>>() {
            // What isn't known isn't so: the worker's bound ends the waiting.
            let Some(entries) = self.entries(Which::At(ip)) else { return };
            let just_ended = entries.iter().any(|entry| self.timeouts.has_just_ended(entry));
            for entry in &entries {
                let Some(task) = leads_to.get(&entry.at) else { continue };
                // While a node that is late still leads some here, what was over may have begun anew.
                let everywhere = self.draining.get(task).is_some_and(|draining| draining.everywhere);
                if entry.is_over() && (everywhere || !just_ended) {
                    let _ = conntrack::delete(&mut self.netlink, entry);
                }
                if entry.is_over() || self.timeouts.is_busy(entry) {
                    held_up.insert(*task);
                }
            }
        }
        for (task, draining) in &mut self.draining {
            let is_quiet = draining.user && !held_up.contains(task);
            draining.quiet_looks = if is_quiet { draining.quiet_looks + 1 } else { 0 };
        }
        let is_done = |draining: &Draining| draining.quiet_looks >= QUIET_LOOKS;
        let quiet: Vec<TaskId> = self.draining.iter().filter(|(_, d)| is_done(d)).map(|(task, _)| *task).collect();
        for task in quiet {
            self.draining.remove(&task);
            let _ = self.events.send(MeshEvent::Drained { task }).await;
        }
    }

    /// A container that has ended answers nobody any more: what the kernel still leads there is led elsewhere, or told that it
    /// is over. So is what a node that is down doesn't answer. It may be its agent alone that is down: what goes on, or rests,
    /// is left alone, and looked at again by [`Self::forget_astray`].
    fn forget_the_gone(&mut self, before: &RouteTable) {
        let local = |table: &RouteTable| table.local.values().filter_map(rules::v4).collect::<BTreeSet<_>>();
        let ended = &local(before) - &local(&self.table);
        let up = |table: &RouteTable, ip: &IpAddr| table.members.get(ip).copied().unwrap_or(false);
        let down: BTreeSet<Ipv4Addr> = before
            .members
            .keys()
            .filter(|ip| up(before, ip) && !up(&self.table, ip))
            .filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None })
            .collect();
        let timeouts = self.timeouts.clone();
        let is_gone =
            |entry: &Entry| ended.contains(&entry.at) || down.contains(entry.at.ip()) && timeouts.is_stuck(entry);
        for ip in ended.iter().map(|at| *at.ip()).chain(down.iter().copied()).collect::<BTreeSet<_>>() {
            let Some(entries) = self.entries(Which::At(ip)) else { return };
            for entry in entries.iter().filter(|entry| is_gone(entry)) {
                let _ = conntrack::delete(&mut self.netlink, entry);
            }
        }
    }
}

/// No agent at that address is thought to be up.
fn is_down(table: &RouteTable, at: SocketAddrV4) -> bool {
    table.members.get(&IpAddr::V4(*at.ip())) == Some(&false)
}
