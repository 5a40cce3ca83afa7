//! What operators ask for: checked whole before anything is written, written all or none, answered when a majority
//! of the electorate holds it durably, or with a warning when that can't be had soon (DESIGN rule 4).

use super::face::{Accepted, Refused, Reply, Request, RequestId};
use super::*;
use crate::ids::{ObjectId, ServiceId};
use crate::model::node::Availability;
use crate::model::object::Object;
use crate::model::record::{ClusterSettings, Hlc, Record};
use crate::model::service::{Revision, Service};
use crate::model::spec::{self, PublishedPort};

/// Where "any port" is chosen from; Swarm's range.
const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// A command doesn't wait for voters that are known to be gone, only this long for those that may still answer.
const NO_QUORUM_WAIT: Duration = Duration::from_millis(60);
/// From the goodbye to the end, so that both still get out.
const STOP_LINGER: Duration = Duration::from_millis(200);

/// Written and durable-or-soon here; the operator waits to hear that it is safe.
pub(super) struct PendingWrite {
    request: RequestId,
    accepted: Accepted,
    /// What it is about; `accepted.index` is the version that this write gave it.
    key: Key,
    /// The last of our writes that it consists of.
    seq: u64,
    persist: PersistId,
    /// When to stop waiting for the voters.
    deadline: Mono,
    /// When to stop waiting for our own disk.
    given_up: Mono,
}

impl PendingWrite {
    /// Before both it is looked at whenever anything happens.
    pub(super) fn next_look(&self, now: Mono) -> Mono {
        if self.deadline > now { self.deadline } else { self.given_up }
    }
}

pub(super) type Changes = Vec<(Key, Option<Value>)>;

/// What an accepted request comes to.
pub(super) struct Decision {
    /// The id of what it is about.
    object: String,
    /// Whose version the client is told.
    key: Key,
    changes: Changes,
    warnings: Vec<String>,
}

impl Decision {
    /// Written together with `changes`, which it tells of.
    pub(super) fn with(mut self, changes: Changes, warnings: Vec<String>) -> Self {
        self.changes.extend(changes);
        self.warnings.extend(warnings);
        self
    }

    pub(super) fn new(object: impl ToString, key: Key, changes: Changes) -> Self {
        Self { object: object.to_string(), key, changes, warnings: Vec::new() }
    }
}

impl Core {
    pub(super) fn handle_request(&mut self, id: RequestId, request: Request, now: Now) {
        if self.removed.contains(&self.me) {
            let gone = "this node was removed from the cluster: start it with a fresh data directory and --join";
            self.reply(id, Err(Refused::Unavailable(gone.to_owned())));
            return;
        }
        let outcome = match request {
            Request::CreateService { spec_json, auth } => self.create_service(spec_json, auth, now),
            Request::UpdateService { id, version, spec_json, auth } => {
                self.update_service(id, version, spec_json, auth, now)
            }
            Request::RollbackService { id, version, to } => self.roll_back(id, version, to, now),
            Request::RemoveService { id } => self.remove_service(id),
            Request::CreateObject { kind, spec_json, data } => self.create_object(kind, spec_json, data, now),
            Request::UpdateObject { kind, id, version, spec_json } => {
                self.update_object(kind, id, version, spec_json, now)
            }
            Request::RenewObject { kind, old, spec_json, data } => self.renew_object(kind, &old, spec_json, data, now),
            Request::RemoveObject { kind, id } => self.remove_object(kind, id),
            Request::UpdateNode { id, version, availability, labels } => {
                self.update_node(id, version, availability, labels)
            }
            Request::RemoveNode { id, force } => self.remove_node(id, force),
            Request::RotateToken { secret } => self.rotate_token(secret),
            Request::Recover => self.recover(now),
            Request::Stop => self.stop(now),
        };
        match outcome {
            Ok(decision) => self.accept(id, decision, now),
            Err(refused) => self.reply(id, Err(refused)),
        }
    }

    fn accept(&mut self, request: RequestId, decision: Decision, now: Now) {
        let Decision { object, key, changes, warnings } = decision;
        self.store.write(changes, Term::ZERO, now);
        // The store's outputs hold the write itself; only behind it does the gate know about it.
        while let Some(output) = self.store.poll_output() {
            self.on_store(output, now);
        }
        let quorum = self.has_quorum();
        let patience = if quorum { limits::WRITE_TIMEOUT } else { NO_QUORUM_WAIT };
        let index = self.store.record(&key).map_or(Hlc(0), |r| r.stamp.hlc);
        self.pending.push(PendingWrite {
            request,
            accepted: Accepted { id: object, index, warnings },
            key,
            seq: self.store.own_seq(),
            persist: self.outbox.last_persist(),
            deadline: now.mono + patience,
            given_up: now.mono + limits::WRITE_TIMEOUT,
        });
    }

    fn reply(&mut self, id: RequestId, reply: Reply) {
        self.outbox.push_now(Effect::Reply { id, reply });
    }

    /// Answers the writes that are safe by now, or have waited long enough.
    pub(super) fn check_pending(&mut self, now: Now) {
        let mut at = 0;
        while at < self.pending.len() {
            let write = &self.pending[at];
            let durable = self.outbox.is_durable(write.persist);
            let holders = self.holders(write.seq, durable);
            let electorate = self.lease.electorate();
            let safe = durable && electorate.is_majority(&holders);
            let waits = if durable { now.mono < write.deadline } else { now.mono < write.given_up };
            if !safe && waits {
                at += 1;
                continue;
            }
            let mut write = self.pending.swap_remove(at);
            let reply = if !safe && !durable {
                let why = self.outbox.trouble().unwrap_or("it takes too long");
                Err(Refused::Unavailable(format!(
                    "this node can't write its disk ({why}): mend that, or use another node"
                )))
            } else {
                write.accepted.warnings.extend((!safe).then(|| self.held_by(write.seq)));
                write.accepted.warnings.extend(self.superseded(&write.key, write.accepted.index));
                Ok(write.accepted)
            };
            self.reply(write.request, reply);
        }
    }

    /// Of two changes that were taken on different nodes at the same time the later is in force, whole: who made the
    /// other one hears of it, if the later is here before the answer.
    fn superseded(&self, key: &Key, index: Hlc) -> Option<String> {
        let now = self.store.record(key).map(|record| record.stamp)?;
        (now.hlc != index && now.author != self.me).then(|| {
            let by = self.hostname(now.author);
            format!("superseded: {by} took another change of this at the same time, which is later and in force")
        })
    }

    /// Who turns this node away holds what removed it. If that was the node's own write it holds this, for it was the last.
    fn is_held_by(&self, node: NodeId, seq: u64) -> bool {
        let removal = || self.store.record(&Key::NodePolicy(self.me)).filter(|_| self.policy(self.me).removed);
        let is_in_it = |removal: &Record| removal.stamp.author == self.me && removal.seq <= seq;
        let heard_of_it = self.turned_away_by.contains(&node) && removal().is_some_and(is_in_it);
        heard_of_it || self.store.peer_holds(node, self.me, seq)
    }

    /// The voters, and this node, that hold our writes up to `seq`.
    fn holders(&self, seq: u64, durable_here: bool) -> BTreeSet<NodeId> {
        let voters = self.lease.electorate().voters.iter().copied();
        let mut holders: BTreeSet<NodeId> = voters.filter(|v| *v != self.me && self.is_held_by(*v, seq)).collect();
        if durable_here {
            holders.insert(self.me);
        }
        holders
    }

    pub(super) fn held_by(&self, seq: u64) -> String {
        let nodes = self.liveness().len();
        let others = self.membership.members().filter(|m| self.is_held_by(m.node, seq)).count();
        format!("pending: held by {} of {nodes} nodes; spreads when they return", others + 1)
    }

    /// Voters that have not yet acknowledged what an operator waits for.
    pub(super) fn voters_owing(&self) -> impl Iterator<Item = NodeId> {
        let seq = self.pending.iter().map(|p| p.seq).max();
        let voters = self.lease.electorate().voters.iter().copied();
        voters.filter(move |v| *v != self.me && seq.is_some_and(|seq| !self.store.peer_holds(*v, self.me, seq)))
    }

    /// A node came back: what it missed goes to it at once if somebody waits for it.
    pub(super) fn resend_unacknowledged(&mut self, node: NodeId, _now: Now) {
        if self.voters_owing().any(|v| v == node) {
            self.store.compare(node);
        }
    }

    pub(super) fn has_quorum(&self) -> bool {
        let is_up = |node: &NodeId| {
            let live = || self.membership.member(*node).is_some_and(|member| member.liveness <= Liveness::Suspect);
            *node == self.me || (!self.removed.contains(node) && live())
        };
        let electorate = self.lease.electorate();
        electorate.is_majority(electorate.voters.iter().filter(|voter| is_up(voter)))
    }

    // ---- services

    fn create_service(&mut self, spec_json: String, auth: Option<String>, now: Now) -> Result<Decision, Refused> {
        let (spec, warnings) = parse(&spec_json)?;
        let id = ServiceId::of_name(self.cluster, &spec.name);
        if self.store.service(id).is_some() {
            return Err(Refused::Conflict(format!(
                "name conflicts with an existing object: service {} already exists",
                spec.name
            )));
        }
        self.check_references(&spec, None)?;
        let ports = self.assign_ports(id, &spec.ports, &[])?;
        let revision = self.new_revision(now);
        let service = Service {
            id,
            name: spec.name,
            created: now.wall,
            updated: now.wall,
            current: revision,
            previous: None,
            rolled_back: false,
            ports,
        };
        let record = Revision { service: id, id: revision, spec_json, registry_auth: auth, created: now.wall };
        // One of this name that was removed has the same id: its history is not this one's. (Until now its last tasks
        // may have needed it; a task that knows its spec keeps it.)
        let before: Changes = self.store.revisions(id).map(|r| (Key::Revision(id, r.id), None)).collect();
        let changes = before.into_iter().chain(revision_and_service(record, service)).collect();
        Ok(Decision { warnings, ..Decision::new(id, Key::Service(id), changes) })
    }

    fn update_service(
        &mut self,
        id: ServiceId,
        version: Option<Hlc>,
        spec_json: String,
        auth: Option<String>,
        now: Now,
    ) -> Result<Decision, Refused> {
        self.change_service(id, version, spec_json, auth, None, now)
    }

    /// `made`: an object that is written together with this.
    fn change_service(
        &mut self,
        id: ServiceId,
        version: Option<Hlc>,
        spec_json: String,
        auth: Option<String>,
        made: Option<ObjectId>,
        now: Now,
    ) -> Result<Decision, Refused> {
        let mut service = self.service_at(id, version)?;
        let (spec, warnings) = parse(&spec_json)?;
        if spec.name != service.name {
            return Err(Refused::Invalid(format!(
                "Name: renaming services is not supported ({} -> {})",
                service.name, spec.name
            )));
        }
        let effective = self.effective_revision(&service);
        if let Some(current) = self.spec(id, effective)
            && std::mem::discriminant(&current.mode) != std::mem::discriminant(&spec.mode)
        {
            return Err(Refused::Invalid("Mode: service mode change is not allowed".to_owned()));
        }
        self.check_references(&spec, made)?;
        service.ports = self.assign_ports(id, &spec.ports, &service.ports)?;
        service.updated = now.wall;
        let old = self.store.revision(id, effective);
        let auth = auth.or_else(|| old.and_then(|r| r.registry_auth.clone()));
        let paused = self
            .store
            .rollout(id)
            .is_some_and(|r| r.to == service.current && (r.state.is_paused() || r.state.is_rollback()));
        // Unlike Swarm's, a write that changes nothing leaves the rollback target alone.
        if !paused && old.is_some_and(|r| r.spec_json == spec_json && r.registry_auth == auth) {
            return Ok(Decision { warnings, ..Decision::new(id, Key::Service(id), self.kept_revision(service)) });
        }
        // Credentials alone make no revision: what is to run is the same, only later pulls differ. (The docker CLI sends the
        // spec as it reads it, so what is compared is its meaning.)
        let old = old.cloned();
        if let Some(old) = old.filter(|old| !paused && effective == service.current && old.registry_auth != auth)
            && self.spec(id, effective).as_deref() == Some(&spec)
        {
            let record = Revision { registry_auth: auth, ..old };
            return Ok(Decision {
                warnings,
                ..Decision::new(id, Key::Service(id), revision_and_service(record, service))
            });
        }
        // Another try of what has paused is no change, either: the way back leads past both.
        let again = self.spec(id, effective).as_deref() == Some(&spec);
        let revision = self.new_revision(now);
        service.previous = service.previous.filter(|_| again).or(Some(effective));
        service.current = revision;
        service.rolled_back = false;
        let record = Revision { service: id, id: revision, spec_json, registry_auth: auth, created: now.wall };
        Ok(Decision { warnings, ..Decision::new(id, Key::Service(id), revision_and_service(record, service)) })
    }

    /// Moves every service from the objects `old` to `object`, which is not there before.
    pub(super) fn move_services(
        &mut self,
        old: &BTreeSet<ObjectId>,
        object: &Object,
        now: Now,
    ) -> Result<(Changes, Vec<String>), Refused> {
        let (mut changes, mut warnings) = (Vec::new(), Vec::new());
        let services: Vec<Service> = self.store.services().cloned().collect();
        for service in services {
            let effective = self.effective_revision(&service);
            let Some(spec) = self.spec(service.id, effective) else { continue };
            let Some(revision) = self.store.revision(service.id, effective) else { continue };
            if !spec.task.container.files.iter().any(|f| f.kind == object.kind && old.contains(&f.object)) {
                continue;
            }
            let spec_json = spec::with_files_of(&revision.spec_json, object.kind, old, (object.id, &object.name));
            let decision = self.change_service(service.id, None, spec_json, None, Some(object.id), now)?;
            changes.extend(decision.changes);
            warnings.extend(decision.warnings);
        }
        warnings.sort();
        warnings.dedup();
        Ok((changes, warnings))
    }

    fn roll_back(
        &mut self,
        id: ServiceId,
        version: Option<Hlc>,
        to: Option<RevisionId>,
        now: Now,
    ) -> Result<Decision, Refused> {
        let mut service = self.service_at(id, version)?;
        let effective = self.effective_revision(&service);
        let target = match to {
            Some(to) => to,
            None => service.previous.filter(|p| *p != effective).ok_or_else(|| no_previous(&service.name))?,
        };
        // What was read before may be known here still, though its record has gone.
        let kept = self.store.revision(id, target).is_some();
        let Some(spec) = self.spec(id, target).filter(|_| kept) else { return Err(no_previous(&service.name)) };
        self.check_references(&spec, None)?;
        service.ports = self.assign_ports(id, &spec.ports, &service.ports)?;
        service.previous = Some(effective);
        service.rolled_back = true;
        service.updated = now.wall;
        // Of a job each revision is a run: what it goes back to is run again.
        if let Some(old) = self.store.revision(id, target).filter(|_| spec.mode.is_job()).cloned() {
            let revision = Revision { id: self.new_revision(now), created: now.wall, ..old };
            service.current = revision.id;
            return Ok(Decision::new(id, Key::Service(id), revision_and_service(revision, service)));
        }
        service.current = target;
        Ok(Decision::new(id, Key::Service(id), self.kept_revision(service)))
    }

    /// The service with a revision that is there already, written again: where this write wins over a removal of the
    /// service, what it refers to must win, too.
    fn kept_revision(&self, service: Service) -> Changes {
        match self.store.revision(service.id, service.current).cloned() {
            Some(record) => revision_and_service(record, service),
            None => vec![(Key::Service(service.id), Some(Value::Service(service)))],
        }
    }

    fn remove_service(&mut self, id: ServiceId) -> Result<Decision, Refused> {
        self.service_at(id, None)?;
        Ok(Decision::new(id, Key::Service(id), vec![(Key::Service(id), None)]))
    }

    fn service_at(&self, id: ServiceId, version: Option<Hlc>) -> Result<Service, Refused> {
        let service = self.store.service(id).ok_or_else(|| Refused::NotFound(format!("service {id} not found")))?;
        if version.is_some() && version != self.store.index(&Key::Service(id)) {
            return Err(Refused::OutOfSequence);
        }
        Ok(service.clone())
    }

    /// What the service's slots are to run: what an automatic rollback went back to, or the operators' choice.
    pub(super) fn effective_revision(&self, service: &Service) -> RevisionId {
        let rollout = self.store.rollout(service.id).filter(|r| r.to == service.current);
        let target = rollout.map(|r| r.target(service.rolled_back));
        // What a rollback goes back to may have been cleared away elsewhere: see `ServicePlan::cant_go_back`.
        target.filter(|target| self.store.revision(service.id, *target).is_some()).unwrap_or(service.current)
    }

    fn new_revision(&mut self, now: Now) -> RevisionId {
        RevisionId { hlc: self.store.tick(now), author: self.me }
    }

    /// Gives every ingress port of 0 a number, the one it had if it had one, and refuses what another service has.
    fn assign_ports(
        &self,
        id: ServiceId,
        wanted: &[PublishedPort],
        had: &[PublishedPort],
    ) -> Result<Vec<PublishedPort>, Refused> {
        let others = || self.store.services().filter(|s| s.id != id);
        let mut ports = wanted.to_vec();
        for port in ports.iter().filter(|p| p.published != 0) {
            let same = |p: &&PublishedPort| (p.protocol, p.published) == (port.protocol, port.published);
            // On one node two services may each have it in host mode: that is the placement's to see to.
            let meets = |p: &&PublishedPort| p.mode == PublishMode::Ingress || port.mode == PublishMode::Ingress;
            let of = |s: &Service| s.ports.iter().filter(same).find(meets).map(|p| p.mode);
            if let Some((other, mode)) = others().find_map(|s| Some((s, of(s)?))) {
                let how = match mode {
                    PublishMode::Ingress => "an ingress port",
                    PublishMode::Host => "a host-published port",
                };
                return Err(Refused::Invalid(format!(
                    "EndpointSpec.Ports: port '{}' is already in use by service '{}' ({}) as {how}",
                    port.published, other.name, other.id
                )));
            }
        }
        let taken: BTreeSet<(spec::Protocol, u16)> =
            others().flat_map(|s| &s.ports).map(|p| (p.protocol, p.published)).collect();
        let fixed: Vec<(spec::Protocol, u16)> = ports.iter().map(|p| (p.protocol, p.published)).collect();
        let mut chosen: BTreeSet<(spec::Protocol, u16)> = fixed.into_iter().collect();
        for port in ports.iter_mut().filter(|p| p.mode == PublishMode::Ingress && p.published == 0) {
            let same =
                |p: &&PublishedPort| p.mode == port.mode && p.protocol == port.protocol && p.target == port.target;
            let before = had.iter().find(same).map(|p| p.published);
            let free = |n: &u16| !taken.contains(&(port.protocol, *n)) && !chosen.contains(&(port.protocol, *n));
            let number = before.into_iter().chain(DYNAMIC_PORTS).find(free);
            port.published = number.ok_or_else(|| Refused::Conflict("no free port left in 30000-32767".to_owned()))?;
            chosen.insert((port.protocol, port.published));
        }
        Ok(ports)
    }

    // ---- nodes and the cluster

    fn update_node(
        &mut self,
        id: NodeId,
        version: Option<Hlc>,
        availability: Option<Availability>,
        labels: Option<BTreeMap<String, String>>,
    ) -> Result<Decision, Refused> {
        self.known_node(id)?;
        let key = Key::NodePolicy(id);
        if version.is_some() && version != Some(self.store.index(&key).unwrap_or_default()) {
            return Err(Refused::OutOfSequence);
        }
        let old = self.policy(id);
        let policy = NodePolicy {
            availability: availability.unwrap_or(old.availability),
            labels: labels.unwrap_or_else(|| old.labels.clone()),
            ..old
        };
        Ok(Decision::new(id, key.clone(), vec![(key, Some(Value::NodePolicy(policy)))]))
    }

    fn remove_node(&mut self, id: NodeId, force: bool) -> Result<Decision, Refused> {
        self.known_node(id)?;
        let down = id != self.me && self.membership.member(id).is_none_or(|m| m.liveness == Liveness::Down);
        if !down && !force {
            let name = self.hostname(id);
            return Err(Refused::Invalid(format!(
                "node {name} is not down and can't be removed: let it leave (peer leave, on it), stop its agent first, or use --force"
            )));
        }
        if !down {
            self.may_spare_voter(id)?;
        }
        let policy = NodePolicy { removed: true, ..self.policy(id) };
        let key = Key::NodePolicy(id);
        Ok(Decision::new(id, key.clone(), vec![(key, Some(Value::NodePolicy(policy)))]))
    }

    /// A node's hostname, or its id where that isn't known.
    pub(super) fn hostname(&self, id: NodeId) -> String {
        match self.store.get(&Key::NodeFact(id)) {
            Some(Value::NodeFact(fact)) if !fact.hostname.is_empty() => fact.hostname.clone(),
            _ => id.to_string(),
        }
    }

    /// Who is removed votes no more. While so many voters are down that those left would be no majority, removing one that
    /// lives takes the lease from the cluster for good; forcing it doesn't help that. Of two voters neither is spared: the
    /// holder is about to let one go, and may stand still just then. The last one's vote is inherited.
    pub(super) fn may_spare_voter(&self, id: NodeId) -> Result<(), Refused> {
        let electorate = self.lease.electorate();
        let voters = electorate.voters.len();
        if voters < 2 || !electorate.voters.contains(&id) {
            return Ok(());
        }
        let lives = |n: &NodeId| self.liveness().get(n).is_some_and(|l| *l <= Liveness::Suspect);
        let left: Vec<NodeId> = electorate.voters.iter().copied().filter(|n| *n != id && lives(n)).collect();
        if electorate.is_majority(&left) {
            return Ok(());
        }
        Err(Refused::Unavailable(format!(
            "without it only {} of {voters} voters would be left, which is no majority: bring back those that are down, \
             or wait until the cluster has replaced them",
            left.len()
        )))
    }

    fn known_node(&self, id: NodeId) -> Result<(), Refused> {
        let known = self.store.nodes().contains(&id) && !self.removed.contains(&id);
        if known { Ok(()) } else { Err(Refused::NotFound(format!("node {id} not found"))) }
    }

    fn rotate_token(&mut self, secret: String) -> Result<Decision, Refused> {
        let Some(Value::Cluster(settings)) = self.store.get(&Key::Cluster) else {
            return Err(Refused::Unavailable(
                "the cluster's settings have not reached this node yet: try again".to_owned(),
            ));
        };
        let settings = ClusterSettings { join_secret: secret, ..settings.clone() };
        Ok(Decision::new(self.cluster, Key::Cluster, vec![(Key::Cluster, Some(Value::Cluster(settings)))]))
    }

    fn recover(&mut self, now: Now) -> Result<Decision, Refused> {
        if self.has_quorum() {
            let text = "a majority of the voters is alive: there is nothing to recover";
            return Err(Refused::Invalid(text.to_owned()));
        }
        let live: Vec<NodeId> =
            self.liveness().into_iter().filter(|(_, l)| *l <= Liveness::Suspect).map(|(node, _)| node).collect();
        // This node first, then as many others as make a full electorate of odd size.
        let size = match live.len() {
            0..=2 => 1,
            3 | 4 => 3,
            _ => 5,
        };
        let others = live.into_iter().filter(|n| *n != self.me).take(size - 1);
        let voters: BTreeSet<NodeId> = others.chain([self.me]).collect();
        self.lease.recover(voters, now.mono);
        Ok(Decision::new(self.cluster, Key::Electorate, Vec::new()))
    }

    fn stop(&mut self, now: Now) -> Result<Decision, Refused> {
        self.lease.release(now.mono);
        self.membership.leave(false, now.mono);
        self.stopping.get_or_insert(now.mono + STOP_LINGER);
        Ok(Decision::new(self.me, Key::NodeFact(self.me), Vec::new()))
    }
}

fn parse(spec_json: &str) -> Result<(ServiceSpec, Vec<String>), Refused> {
    let (spec, warnings) = spec::parse_with_warnings(spec_json).map_err(|error| Refused::Invalid(error.to_string()))?;
    check_ports(&spec)?;
    Ok((spec, warnings))
}

/// What has no data plane is refused here and not in the spec's own check: records of such services must still load.
fn check_ports(spec: &ServiceSpec) -> Result<(), Refused> {
    let (first, last) = (limits::DELIVERY_PORTS.start(), limits::DELIVERY_PORTS.end());
    if let Some(port) = spec.ports.iter().find(|p| limits::DELIVERY_PORTS.contains(&p.published)) {
        return Err(Refused::Invalid(format!(
            "EndpointSpec.Ports: port {} can't be published: {first}-{last} is for traffic between nodes",
            port.published
        )));
    }
    let unserved = |p: &&PublishedPort| p.mode == PublishMode::Ingress && p.protocol == spec::Protocol::Sctp;
    let Some(port) = spec.ports.iter().find(unserved) else { return Ok(()) };
    let protocol = port.protocol.as_str();
    Err(Refused::Invalid(format!(
        "EndpointSpec.Ports: {protocol} ports in ingress mode are not supported yet ({}/{protocol}): publish it with mode=host",
        port.target
    )))
}

fn no_previous(name: &str) -> Refused {
    Refused::Invalid(format!("service {name} does not have a previous spec"))
}

fn revision_and_service(revision: Revision, service: Service) -> Changes {
    let key = Key::Revision(revision.service, revision.id);
    vec![(key, Some(Value::Revision(revision))), (Key::Service(service.id), Some(Value::Service(service)))]
}
