//! The only composer of the pure parts. An event goes in with the time, effects come out in order; nothing
//! here blocks, fails, reads a clock, a file or a random device. *Persist before send* is decided here
//! ([`outbox`]).
//!
//! [`Core::handle`] gives the event to the part it concerns and then lets the parts' outputs flow into each
//! other until all are at rest: membership tells the lease who lives, the store tells everybody what changed,
//! the worker's statuses become records, the lease holder plans.

mod boot;
pub mod chronicle;
mod deliveries;
pub mod face;
mod leader;
mod objects;
mod outbox;
mod replication;
mod requests;
mod routing;
mod steady;
#[cfg(test)]
mod tests;
pub mod view;
mod views;
mod withdraw;
pub mod witness;

pub use boot::BootError;

use crate::ids::{ClusterId, NodeId, TaskId};
use crate::lease::{self, Lease};
use crate::limits;
use crate::membership::{self, Membership};
use crate::model::container::{EngineEvent, EngineInfo};
use crate::model::node::{EngineState, Liveness, NodeFact, NodePolicy};
use crate::model::record::{Key, RevisionId, Term, Value};
use crate::model::spec::{self, PublishMode, ServiceSpec};
use crate::model::task::{TaskPhase, TaskStatus};
use crate::plant::{Bug, is_planted};
use crate::store::{self, Store};
use crate::time::{Mono, Now};
use crate::wire::codec;
use crate::wire::message::Message;
use crate::worker::{self, Assignment, Worker};
use face::{Effect, Event, MeshEvent, Notice, PersistId};
use outbox::Outbox;
use rand::rngs::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Keys on disk beside the store's: one value each.
const DISK_BUMP: &[u8] = b"bump";
const DISK_LEASE: &[u8] = b"lease";
const DISK_VOWS: &[u8] = b"vows";
const DISK_MEMBERS: &[u8] = b"members";

/// So long a wall clock must have gone on undisturbed before tombstones are collected by it: longer than a message is ever under way.
const STEADY_FOR: Duration = Duration::from_secs(600);
/// One random live node is asked for what we lack this often.
const EXCHANGE_EVERY: Duration = Duration::from_millis(1_000);
/// In a big cluster, for a while after the start: when many start at once nobody is there yet to be pushed to, and all that
/// all hold spreads by comparing.
const EXCHANGE_EVERY_YOUNG: Duration = Duration::from_millis(300);
const YOUTH: Duration = Duration::from_secs(10);
/// Housekeeping: persisting the member table, collecting tombstones.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// A node that was removed has this long to stop its containers.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

pub struct Core {
    cluster: ClusterId,
    me: NodeId,
    addr: SocketAddr,
    outbox: Outbox,
    rng: ChaCha8Rng,
    membership: Membership,
    /// Until this is durable our identity must not be seen: gossip waits for it.
    bump_persist: PersistId,
    store: Store,
    lease: Lease,
    worker: Worker,
    fact: NodeFact,
    leading: Option<Box<leader::Leading>>,
    specs: BTreeMap<RevisionId, Arc<ServiceSpec>>,
    statuses: Vec<TaskStatus>,
    deliveries: deliveries::Deliveries,
    pending: Vec<requests::PendingWrite>,
    withdrawals: withdraw::Withdrawals,
    routes: routing::Routes,
    removed: BTreeSet<NodeId>,
    /// Members that say that this node was removed: they hold the record that says so.
    turned_away_by: BTreeSet<NodeId>,
    ban_due: bool,
    tombstone_retention: Duration,
    steady: steady::Steady,
    members_persisted: Vec<u8>,
    passing: replication::Passing,
    /// How many nodes that had come up were compared with within the second that began then.
    greeted: (Mono, usize),
    next_exchange: Mono,
    young_until: Mono,
    next_tidy: Mono,
    stopping: Option<Mono>,
    liveness_dirty: bool,
    /// Whose liveness has changed since the lease was told.
    liveness_news: BTreeSet<NodeId>,
    /// [`Membership::taken_out`] when the lease was told of all.
    told_of_all: Option<u64>,
    /// For whoever counts: how often others were suspected, and how often for nothing.
    suspicions: u64,
    refuted: u64,
    /// Only where somebody wants to know what happens.
    chronicle: Option<chronicle::Chronicle>,
    /// Raised by whatever shows in a view.
    changes: u64,
    /// When the last event came: what questions about holding a lease, and about when others were heard, are answered with.
    last_now: Now,
}

impl Core {
    /// The next instant at which [`Event::Wake`] is due.
    pub fn deadline(&self) -> Option<Mono> {
        let sooner = |next: Mono, at: Option<Mono>| at.map_or(next, |at| at.min(next));
        let mut next = self.next_exchange.min(self.next_tidy);
        next = sooner(next, self.membership.deadline());
        next = sooner(next, self.lease.deadline());
        next = sooner(next, self.worker.deadline());
        next = sooner(next, self.outbox.deadline());
        next = sooner(next, self.stopping);
        next = sooner(next, self.withdrawals.deadline());
        next = sooner(next, self.passing.at);
        next = sooner(next, self.leading.as_ref().and_then(|l| l.deadline()));
        next = sooner(next, self.pending.iter().map(|p| p.next_look(self.last_now.mono)).min());
        Some(next)
    }

    /// Rises whenever a record, a node's liveness or the lease has changed. Two things that the views show come without
    /// it: another node's grants, and how many nodes hold a write.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// To be drained after every call of [`Core::handle`], and after the boot.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.outbox.poll()
    }

    pub fn handle(&mut self, event: Event, now: Now) {
        self.last_now = now;
        match event {
            Event::Message { from, bytes } => self.handle_message(from, &bytes, now),
            Event::LinkLost { node } => self.membership.hint_unreachable(node, now.mono),
            Event::TurnedAway { by } => self.handle_turned_away(by, now),
            Event::Wake => {}
            Event::Persisted(id) => self.outbox.persisted(id),
            Event::PersistFailed { id, why } => {
                self.notice(Notice::Warning(format!("disk write failed: {why}")));
                self.outbox.persist_failed(id, why, now.mono);
            }
            Event::Engine(event) => {
                let observed = matches!(event, EngineEvent::Observed(_));
                self.worker.handle_engine(event, now);
                if observed {
                    self.note_addresses();
                }
            }
            Event::Mesh(event) => self.handle_mesh(event, now),
            Event::Request { id, request } => self.handle_request(id, request, now),
        }
        self.handle_timers(now);
        self.settle(now);
    }

    fn handle_timers(&mut self, now: Now) {
        let due = |at: Option<Mono>| at.is_some_and(|at| at <= now.mono);
        if due(self.membership.deadline()) {
            self.membership.handle_deadline(now.mono);
        }
        if due(self.lease.deadline()) {
            self.lease.handle_deadline(now.mono);
        }
        if due(self.worker.deadline()) {
            self.worker.handle_deadline(now);
        }
        self.outbox.handle_deadline(now.mono);
        if due(Some(self.next_exchange)) {
            let crowd = self.membership.live_count() > limits::PUSH_TO_ALL_NODES;
            let young = crowd && now.mono < self.young_until;
            self.next_exchange = now.mono + self.jittered(if young { EXCHANGE_EVERY_YOUNG } else { EXCHANGE_EVERY });
            self.exchange_with_someone(now);
        }
        if due(Some(self.next_tidy)) {
            self.next_tidy = now.mono + TIDY_EVERY;
            self.tidy(now);
        }
        self.pass_on_what_came(now);
        self.resend_withdrawals(now);
        // If it was asked itself to remove itself, that has to get out before it ends: nobody else has the word.
        let cleared = self.removed.contains(&self.me) && self.worker.is_idle() && self.pending.is_empty();
        if self
            .stopping
            .is_some_and(|at| at <= now.mono || (cleared && self.outbox.is_durable(self.outbox.last_persist())))
        {
            self.stopping = None;
            self.outbox.push(Effect::Stopped);
        }
    }

    /// Lets outputs flow between the parts until none has any more.
    fn settle(&mut self, now: Now) {
        loop {
            let mut busy = false;
            for message in self.outbox.release() {
                self.lease.handle(self.me, message, now.mono);
                busy = true;
            }
            while let Some(output) = self.membership.poll_output() {
                self.on_membership(output, now);
                busy = true;
            }
            if std::mem::take(&mut self.liveness_dirty) {
                self.tell_lease_who_lives(now);
            }
            while let Some(output) = self.lease.poll_output() {
                self.on_lease(output, now);
                busy = true;
            }
            while let Some(output) = self.worker.poll_output() {
                self.on_worker(output, now);
                busy = true;
            }
            self.write_statuses(now);
            while let Some(output) = self.store.poll_output() {
                self.on_store(output, now);
                busy = true;
            }
            busy |= self.lead(now);
            busy |= self.publish_routes();
            busy |= self.check_withdrawals(now);
            busy |= self.answer_seen();
            self.check_pending(now);
            if !busy {
                break;
            }
        }
        if std::mem::take(&mut self.ban_due) {
            // Behind the write of the removal: whoever is turned away takes it for word that this node holds that durably.
            self.outbox.push(Effect::Ban(self.removed.clone()));
        }
    }

    fn on_membership(&mut self, output: membership::Output, now: Now) {
        match output {
            membership::Output::Send { to, addr, message, datagram } => {
                let effect = Effect::Send { to, addr, datagram, bytes: codec::encode(&message) };
                if self.outbox.is_durable(self.bump_persist) {
                    self.outbox.push_now(effect);
                } else {
                    self.outbox.push(effect);
                }
            }
            membership::Output::Changed { node, from, to } => self.on_liveness(node, from, to, now),
            membership::Output::Bump(bump) => {
                self.bump_persist = self.outbox.persist(vec![(DISK_BUMP.to_vec(), Some(codec::encode(&bump)))]);
            }
            membership::Output::AddrChanged { node, .. } => self.routes.node_changed(node, &self.store),
        }
    }

    fn on_liveness(&mut self, node: NodeId, from: Option<Liveness>, to: Liveness, now: Now) {
        self.changes += 1;
        self.routes.node_changed(node, &self.store);
        self.liveness_dirty = true;
        self.liveness_news.insert(node);
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.stir(node);
        }
        self.plan_all_soon();
        self.suspicions += u64::from(to == Liveness::Suspect && from != Some(Liveness::Suspect));
        self.refuted += u64::from(to == Liveness::Alive && from == Some(Liveness::Suspect));
        let was_up = from.is_some_and(|l| matches!(l, Liveness::Alive | Liveness::Suspect));
        match to {
            Liveness::Alive if !was_up => {
                self.notice(Notice::NodeUp(node));
                // Maybe in a new life, on an older disk: what it said before counts no more.
                self.store.forget_peer(node);
                if self.greets(now) {
                    self.store.compare(node);
                }
            }
            Liveness::Away | Liveness::Down => {
                self.withdrawals.node_gone(node);
                if to == Liveness::Down {
                    self.notice(Notice::NodeDown(node));
                }
            }
            Liveness::Alive | Liveness::Suspect => {}
        }
        if to == Liveness::Alive {
            self.resend_unacknowledged(node, now);
        }
    }

    /// All of them, or those whose liveness has changed if nobody has come or gone: in a big cluster that may happen to all,
    /// one after the other.
    fn tell_lease_who_lives(&mut self, now: Now) {
        // In a join of thousands there is a newcomer every moment: to tell of all each time is what would take longest.
        let mut news = std::mem::take(&mut self.liveness_news);
        news.append(&mut self.membership.take_added());
        let taken_out = Some(self.membership.taken_out());
        if std::mem::replace(&mut self.told_of_all, taken_out) != taken_out {
            let live = self.liveness();
            return self.lease.set_live(&live, now.mono);
        }
        let known = |node: NodeId| Some((node, self.membership.member(node)?.liveness));
        let changed: Vec<_> = news.into_iter().filter(|n| !self.removed.contains(n)).filter_map(known).collect();
        self.lease.saw(&changed, now.mono);
    }

    /// Every member that has not been removed, this node included.
    fn liveness(&self) -> BTreeMap<NodeId, Liveness> {
        let others = self.membership.members().map(|m| (m.node, m.liveness));
        let mut all: BTreeMap<NodeId, Liveness> = others.filter(|(node, _)| !self.removed.contains(node)).collect();
        all.insert(self.me, Liveness::Alive);
        all
    }

    fn on_lease(&mut self, output: lease::Output, now: Now) {
        match output {
            lease::Output::Persist(durable) => {
                let doubt = codec::encode(&(durable.floor, durable.put_back));
                let lease = (DISK_LEASE.to_vec(), Some(codec::encode(&durable)));
                self.outbox.persist(vec![lease, (DISK_VOWS.to_vec(), Some(doubt))]);
            }
            lease::Output::Send { to, message } if to == self.me => self.outbox.loop_back(message),
            lease::Output::Send { to, message } => self.send(to, &Message::Lease(message)),
            lease::Output::Acquired(term) => {
                self.changes += 1;
                self.start_leading(term, now);
            }
            lease::Output::Lost(term) => {
                self.changes += 1;
                self.stop_leading(term);
            }
            lease::Output::Electorate(electorate) => {
                self.changes += 1;
                self.notice(Notice::ElectorateChanged { voters: electorate.voters.iter().copied().collect() });
                self.store.remember(electorate.voters.clone());
                self.settle_electorate();
                if let Some(term) = self.lease.held(now.mono) {
                    self.store.write(vec![(Key::Electorate, Some(Value::Electorate(electorate)))], term, now);
                }
            }
        }
    }

    fn on_worker(&mut self, output: worker::Output, now: Now) {
        match output {
            worker::Output::Engine { op, what } => self.outbox.push(Effect::Engine { op, what }),
            worker::Output::Status(status) => self.statuses.push(status),
            worker::Output::Withdraw(task) => self.withdraw(task, now),
            worker::Output::AwaitDrained { task, everywhere } => {
                self.outbox.push_now(Effect::AwaitDrained { task, everywhere });
            }
            worker::Output::EngineState { state, info } => self.on_engine_state(state, info, now),
        }
    }

    fn on_engine_state(&mut self, state: EngineState, info: Option<EngineInfo>, now: Now) {
        match (&self.fact.engine, &state) {
            (EngineState::Unreachable(_), EngineState::Ready) => {
                self.notice(Notice::Warning("the engine answers again".to_owned()));
            }
            (old, EngineState::Unreachable(why)) if *old != state => self.notice(Notice::Warning(format!(
                "the engine is unreachable: {why}; its containers are left as they are"
            ))),
            _ => {}
        }
        self.fact.engine = state;
        if let Some(info) = info {
            self.fact.engine_version = info.version;
            self.fact.os = info.os;
            self.fact.arch = info.arch;
            self.fact.nano_cpus = info.nano_cpus;
            self.fact.memory_bytes = info.memory_bytes;
            self.fact.engine_labels = info.labels;
        }
        self.write_fact(now);
    }

    /// Writes this node's fact if it says something new.
    fn write_fact(&mut self, now: Now) {
        let key = Key::NodeFact(self.me);
        let value = Value::NodeFact(self.fact.clone());
        if self.store.get(&key) != Some(&value) {
            self.store.write(vec![(key, Some(value))], Term::ZERO, now);
        }
    }

    fn write_statuses(&mut self, now: Now) {
        // The last word on each task is enough: what came between never left this node.
        let latest: BTreeMap<TaskId, TaskStatus> =
            self.statuses.drain(..).map(|status| (status.task, status)).collect();
        let latest: Vec<TaskStatus> = latest.into_values().map(|status| self.with_deliveries(status)).collect();
        let changes: Vec<_> = latest
            .into_iter()
            .filter(|status| self.store.task(status.task).is_some() && self.store.status(status.task) != Some(status))
            .map(|status| (Key::TaskStatus(status.task), Some(Value::TaskStatus(status))))
            .collect();
        for (_, value) in &changes {
            if let Some(Value::TaskStatus(status)) = value {
                let before = self.store.status(status.task);
                // What else changes (where it answers, when it ended) is no news of the task.
                if before
                    .is_some_and(|b| (b.attempt, b.phase, &b.error) == (status.attempt, status.phase, &status.error))
                {
                    continue;
                }
                let (task, phase, error) = (status.task, status.phase.as_str(), status.error.clone());
                self.outbox.push_now(Effect::Notice(Notice::TaskStatus { task, phase, error }));
            }
        }
        if !changes.is_empty() {
            self.store.write(changes, Term::ZERO, now);
        }
    }

    fn on_store(&mut self, output: store::Output, now: Now) {
        match output {
            store::Output::Persist(writes) => drop(self.outbox.persist(writes)),
            store::Output::Send { to, message } => self.send(to, &message),
            store::Output::Push(records) => self.push_records(records),
            store::Output::Changed(key) => self.on_changed(key, now),
            store::Output::Rewound { had, peers_have } => {
                let text = format!(
                    "this node's disk was put back: it had {had} of the {peers_have} writes of an earlier life; it votes on nothing until the others have told it what is promised"
                );
                self.notice(Notice::Warning(text));
                self.lease.disk_was_put_back(now.mono);
            }
            store::Output::Refused { author, why } => {
                self.notice(Notice::Warning(format!("refused a record by node {author}: {why}")));
            }
        }
    }

    fn on_changed(&mut self, key: Key, now: Now) {
        self.changes += 1;
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.touch(&key);
        }
        if key.is_decision()
            && let Some(record) = self.store.record(&key)
        {
            self.lease.saw_term(record.stamp.term, now.mono);
        }
        match key {
            Key::Task(id) => {
                let (was, is) = (self.routes.service_of(id), self.store.task(id).map(|t| t.service));
                self.routes.task_changed(id, self.store.task(id));
                if is.is_none() {
                    self.deliveries.forget(id);
                }
                self.plan_soon(was.into_iter().chain(is));
                self.assign(id, now);
            }
            Key::TaskStatus(id) => {
                self.routes.status_changed(id);
                self.plan_soon(self.routes.service_of(id));
                self.insist(id);
            }
            Key::Service(id) => {
                self.routes.service_changed(id);
                self.plan_soon([id]);
            }
            Key::Rollout(service) => self.plan_soon([service]),
            Key::Revision(service, revision) => {
                // What it asks for its ports.
                self.routes.service_changed(service);
                self.plan_soon([service]);
                self.spec(service, revision);
                // What it asks for its ports.
                self.routes.service_changed(service);
                let waiting: Vec<TaskId> = self
                    .store
                    .tasks()
                    .filter(|t| t.node == Some(self.me) && t.revision == revision)
                    .map(|t| t.id)
                    .collect();
                for task in waiting {
                    self.assign(task, now);
                }
            }
            Key::NodeFact(node) => {
                if node == self.me {
                    // The last word on a node is its own, whatever came back or was made up in its name.
                    self.write_fact(now);
                }
                self.plan_all_soon();
            }
            Key::NodePolicy(node) => {
                self.plan_all_soon();
                self.check_removal(node, now);
            }
            Key::Electorate => {
                if let Some(Value::Electorate(electorate)) = self.store.get(&Key::Electorate) {
                    self.lease.learn(electorate.clone(), now.mono);
                }
            }
            Key::Object(kind, id) => self.on_object(kind, id, now),
            Key::Cluster => {}
        }
    }

    /// A holder that knew of a status but not yet of its task has cleared it away, or another node has spoken for a task that
    /// isn't its own: the node says it again.
    fn insist(&mut self, id: TaskId) {
        if !is_planted(Bug::NoInsisting)
            && self.store.status(id).is_none_or(|status| status.node != self.me)
            && self.store.task(id).is_some_and(|t| t.node == Some(self.me))
            && let Some(status) = self.worker.status(id)
        {
            self.statuses.push(status.clone());
        }
    }

    /// Hands a task to the worker, if it is this node's.
    fn assign(&mut self, id: TaskId, now: Now) {
        let Some(task) = self.store.task(id) else {
            self.worker.forget(id, now);
            return;
        };
        if task.node != Some(self.me) {
            // A later holder, who didn't know that it was given to this node, has overruled it.
            if self.worker.status(id).is_some() {
                self.worker.forget(id, now);
            }
            return;
        }
        let revision = self.store.revision(task.service, task.revision);
        let auth = revision.and_then(|r| r.registry_auth.clone());
        let task = task.clone();
        let spec = self.spec(task.service, task.revision);
        let service_name = match (self.store.service(task.service), &spec) {
            (Some(service), _) => service.name.clone(),
            (None, Some(spec)) => spec.name.clone(),
            (None, None) => String::new(),
        };
        let published = self.store.service(task.service).map(|s| s.ports.as_slice()).unwrap_or_default();
        let ingress = published.iter().any(|p| p.mode == PublishMode::Ingress);
        let recorded = self.store.status(id).filter(|s| s.node == self.me).cloned();
        // What stops needs no files any more.
        let wanted = spec.as_ref().filter(|_| task.desired.is_live());
        let referred = wanted.map(|spec| self.referred(spec, &service_name));
        // While some record is still on its way the task waits for it as for its spec.
        let spec = spec.filter(|_| referred != Some(None));
        let (files, networks) = referred.flatten().unwrap_or_default();
        self.worker.assign(Assignment { task, service_name, spec, auth, ingress, files, networks, recorded }, now);
    }

    /// The checked form of a revision, if its record is here. What a record holds was checked before it was written,
    /// so one that doesn't parse is from a newer version or a liar: its service stays as it is.
    fn spec(&mut self, service: crate::ids::ServiceId, id: RevisionId) -> Option<Arc<ServiceSpec>> {
        if let Some(spec) = self.specs.get(&id) {
            return Some(spec.clone());
        }
        let parsed = spec::parse(&self.store.revision(service, id)?.spec_json);
        match parsed {
            Ok(spec) => {
                let spec = Arc::new(spec);
                self.specs.insert(id, spec.clone());
                Some(spec)
            }
            Err(error) => {
                self.notice(Notice::Warning(format!("can't read a revision of service {service}: {error}")));
                None
            }
        }
    }

    fn policy(&self, node: NodeId) -> NodePolicy {
        match self.store.get(&Key::NodePolicy(node)) {
            Some(Value::NodePolicy(policy)) => policy.clone(),
            _ => NodePolicy::new(node),
        }
    }

    /// A node that an operator removed is no member any more, here and at once.
    fn check_removal(&mut self, node: NodeId, now: Now) {
        if !self.policy(node).removed {
            return;
        }
        if node == self.me {
            return self.end_membership(now);
        }
        if !self.removed.insert(node) {
            return;
        }
        self.membership.remove(node);
        self.store.forget_peer(node);
        self.lease.forget_voter(node, now.mono);
        self.withdrawals.node_gone(node);
        self.routes.node_changed(node, &self.store);
        self.liveness_dirty = true;
        self.ban_due = true;
        self.inherit_electorate(now);
    }

    /// A removed node is shut out at once, so it mostly hears of its removal like this and not by the record. (One member
    /// that lies could as well write that record.)
    fn handle_turned_away(&mut self, by: NodeId, now: Now) {
        if self.removed.contains(&by) {
            return;
        }
        self.turned_away_by.insert(by);
        self.end_membership(now);
    }

    /// This node was removed. Nobody will route to its containers or look after them any more: they end with its
    /// membership, and then the agent does.
    fn end_membership(&mut self, now: Now) {
        if !self.removed.insert(self.me) {
            return;
        }
        self.notice(Notice::Removed);
        self.lease.release(now.mono);
        let mine: Vec<TaskId> = self.store.tasks().filter(|t| t.node == Some(self.me)).map(|t| t.id).collect();
        for task in mine {
            self.worker.forget(task, now);
        }
        self.worker.abandon(now);
        self.stopping.get_or_insert(now.mono + REMOVAL_LIMIT);
    }

    /// When every voter was removed for good (a two-node cluster whose sole voter left), nobody is left who could
    /// hand the vote over, and nobody either who could still hold the lease: one survivor takes it.
    fn inherit_electorate(&mut self, now: Now) {
        let voters = &self.lease.electorate().voters;
        if voters.is_empty() || !voters.iter().all(|v| self.removed.contains(v)) {
            return;
        }
        let live = self.liveness();
        let first = live.iter().find(|(_, l)| **l <= Liveness::Suspect).map(|(node, _)| *node);
        if first == Some(self.me) {
            self.notice(Notice::Warning("every voter was removed: this node forms a new electorate".to_owned()));
            self.lease.inherit(now.mono);
        }
    }

    fn handle_mesh(&mut self, event: MeshEvent, now: Now) {
        match event {
            MeshEvent::Applied { version } => self.routes.applied = self.routes.applied.max(version),
            MeshEvent::Drained { task } => self.worker.handle_drained(task, now),
            MeshEvent::Blocked(ports) => {
                self.tell_blocked(&ports);
                self.fact.blocked_ports = ports;
                self.write_fact(now);
            }
        }
    }

    fn tell_blocked(&mut self, ports: &BTreeMap<u16, String>) {
        let named = |port: u16| {
            let publishes = |s: &&crate::model::service::Service| s.ports.iter().any(|p| p.published == port);
            match self.store.services().find(publishes) {
                Some(service) => format!("port {port} of service {}", service.name),
                None => format!("port {port}"),
            }
        };
        let old = &self.fact.blocked_ports;
        let blocked = ports.iter().filter(|(port, why)| old.get(*port) != Some(*why));
        let blocked = blocked.map(|(port, why)| format!("{} can't be opened here: {why}", named(*port)));
        let open = old.keys().filter(|port| !ports.contains_key(*port));
        let open = open.map(|port| format!("{} is open now", named(*port)));
        for text in blocked.chain(open).collect::<Vec<_>>() {
            self.notice(Notice::Warning(text));
        }
    }

    fn address(&self, node: NodeId) -> Option<SocketAddr> {
        if node == self.me { Some(self.addr) } else { self.membership.member(node).map(|m| m.addr) }
    }

    fn tidy(&mut self, now: Now) {
        let table = codec::encode(&self.membership.table());
        if table != self.members_persisted {
            self.members_persisted.clone_from(&table);
            self.outbox.persist(vec![(DISK_MEMBERS.to_vec(), Some(table))]);
        }
        let members: Vec<NodeId> = self.store.nodes().into_iter().filter(|n| !self.removed.contains(n)).collect();
        self.store.remember(self.lease.electorate().voters.clone());
        if self.steady.look(now) >= STEADY_FOR.min(self.tombstone_retention) {
            self.store.collect_tombstones(&members, self.tombstone_retention, now);
        }
        // Of services that are gone, too: their tasks hold their places until they have stopped.
        let known: BTreeSet<RevisionId> = self.store.all_revisions().map(|(_, revision)| revision).collect();
        self.specs.retain(|id, _| known.contains(id));
        self.routes.node_changed(self.me, &self.store);
    }

    fn notice(&mut self, notice: Notice) {
        self.outbox.push_now(Effect::Notice(notice));
    }

    fn jittered(&mut self, period: Duration) -> Duration {
        use rand::RngExt;
        period.mul_f64(self.rng.random_range(0.8..1.2))
    }
}

const _: () = assert!(limits::PUSH_TO_ALL_NODES >= 5, "every voter gets every push");
