//! Who is in the cluster and who lives: foca (SWIM) behind our identity, and what foca lacks.
//!
//! Owned here: the member table, failure detection, joining by list, the push-pull of tables, announcing to the dead
//! for ever, graceful goodbyes, and the renewal of our own identity when the others took us for dead. Not known here:
//! records, the lease, connections, disks. The caller proves who a message is from, carries what [`Output`] asks for
//! and persists [`Output::Bump`].
//!
//! Laws: a member is named by its stable id, never by foca's identity, so a restart noticed early is no event. Nothing
//! is believed about ourselves; a rumour that we are suspect, down or further on is answered by a higher incarnation
//! or a higher bump. Another node's *word* that somebody is down makes him suspect here, never down at once, so
//! that two halves which meet again don't bury each other. See `suspicion.rs` for how a doubt becomes a verdict, `heal.rs`
//! for what happens when we were cut off, and `timers.rs` for what happens when we were stalled.

mod heal;
mod identity;
#[cfg(test)]
mod sim;
mod suspicion;
#[cfg(test)]
mod sweeps;
mod swim;
mod sync;
mod table;
#[cfg(test)]
mod tests;
mod timers;

use crate::ids::NodeId;
use crate::limits::{self, MAX_MEMBERS, RESTART_GRACE};
use crate::model::node::Liveness;
use crate::time::Mono;
use crate::wire::message::{MemberEntry, MemberState, Message};
use heal::Schedule;
use identity::{Identity, Member as FocaMember};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use suspicion::Docket;
use swim::{Swim, Wanted};
pub use sync::MembersPart;
use table::{Change, Table};
use timers::{Pending, Timers};

/// News are passed on so soon after they came: together with what comes in the same moment.
const SPREAD_AFTER: Duration = Duration::from_millis(10);

/// The timing of the failure detector. A crash shows after about two probe periods and `suspect_to_down`.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Each node probes one other per period. More than twice `probe_rtt`, or indirect probes have no time to succeed.
    pub probe_period: Duration,
    /// A high percentile of the round trip; a probe that takes longer is tried through three others.
    pub probe_rtt: Duration,
    /// What a suspect has to refute once others have asked it in vain, too; an accuser alone waits longer. Shorter than
    /// the usual stall of a process, and stalls look like crashes.
    pub suspect_to_down: Duration,
}

/// Another node, as this one sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    pub addr: SocketAddr,
    pub liveness: Liveness,
    /// When it became so, or when we first heard of it.
    pub since: Mono,
}

/// What speaks for and against another node, at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    pub node: NodeId,
    pub liveness: Liveness,
    /// How long it has been so.
    pub since: Duration,
    /// How long ago it spoke to this node itself; `None` if it never did in this life.
    pub heard: Option<Duration>,
    /// It was asked for a sign of life and has given none since.
    pub mute: bool,
    /// It is down unless it is heard within this.
    pub verdict: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Send {
        to: NodeId,
        addr: SocketAddr,
        message: Message,
        datagram: bool,
    },
    /// `from` is `None` for a node never heard of before. A candidate that we only know by name counts as down.
    Changed {
        node: NodeId,
        from: Option<Liveness>,
        to: Liveness,
    },
    /// Our identity was renewed to this life: persist it.
    Bump(u64),
    AddrChanged {
        node: NodeId,
        addr: SocketAddr,
    },
}

/// Whose state an input may have changed without foca's reporting it.
enum Scope {
    Nobody,
    These(Vec<NodeId>),
    All,
}

pub struct Membership {
    me: Identity,
    config: Config,
    seed: u64,
    rng: ChaCha8Rng,
    /// The latest time we were told.
    now: Mono,
    swim: Swim,
    timers: Timers,
    table: Table,
    removed: BTreeSet<NodeId>,
    docket: Docket,
    spread_at: Option<Mono>,
    schedule: Schedule,
    left: bool,
    rejected: u64,
    out: VecDeque<Output>,
}

impl Membership {
    /// `bump` is higher than any this node has used before.
    pub fn new(me: NodeId, addr: SocketAddr, bump: u64, config: Config, seed: u64, now: Mono) -> Self {
        let me = Identity::new(me, addr, bump.min(identity::MAX_BUMP));
        Self {
            swim: Swim::new(me.clone(), config, seed),
            me,
            config,
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x6d65_6d62_6572),
            now,
            timers: Timers::default(),
            table: Table::default(),
            removed: BTreeSet::new(),
            docket: Docket::new(now),
            spread_at: None,
            schedule: Schedule::new(now),
            left: false,
            rejected: 0,
            out: VecDeque::new(),
        }
    }

    /// Every other member we know, dead ones included.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.table.iter().map(|(node, known)| Member {
            node,
            addr: known.addr,
            liveness: known.liveness,
            since: known.since,
        })
    }

    /// How many times as slowly as usual this node probes: it doubts itself.
    pub fn patience(&self) -> u32 {
        self.docket.patience()
    }

    pub fn sightings(&self) -> impl Iterator<Item = Sighting> {
        // What is heard and judged is told by a clock that stands still in stalls.
        let clock = self.timers.clock(self.now);
        self.table.iter().map(move |(node, known)| Sighting {
            node,
            liveness: known.liveness,
            since: self.now.since(known.since),
            heard: known.heard.map(|at| clock.since(at)),
            mute: known.mute,
            verdict: self.docket.due(node).map(|at| at.since(clock)),
        })
    }

    pub fn member(&self, node: NodeId) -> Option<Member> {
        let known = self.table.get(node)?;
        Some(Member { node, addr: known.addr, liveness: known.liveness, since: known.since })
    }

    /// The others that are alive or suspect.
    pub fn live_count(&self) -> usize {
        self.table.live()
    }

    /// Who has become known since the last call, alive or not.
    pub fn take_added(&mut self) -> BTreeSet<NodeId> {
        self.table.take_added()
    }

    /// Another number whenever a member was taken out of those that are known.
    pub fn taken_out(&self) -> u64 {
        self.table.taken_out()
    }

    pub fn bump(&self) -> u64 {
        self.me.bump
    }

    /// The latest life of this member that we have heard of, and how it lives in our words.
    pub fn life(&self, node: NodeId) -> Option<(u64, Liveness)> {
        self.table.get(node).map(|known| (known.bump, known.liveness))
    }

    /// When those who are not seen alive are announced to next.
    pub fn announces_at(&self) -> Mono {
        self.schedule.announces_at()
    }

    /// Inputs dropped: malformed, not from whom they say, or beyond a limit.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// All we know, ourselves first: to persist, and to answer a join with. Only for [`Membership::restore`], which
    /// takes it as a list of addresses: who was not heard in this life is in it, too.
    pub fn table(&self) -> Vec<MemberEntry> {
        let mut entries = self.spoken();
        let told: BTreeSet<NodeId> = entries.iter().map(|entry| entry.node).collect();
        let unheard = self.table.iter().filter(|(node, _)| !told.contains(node)).map(|(node, known)| MemberEntry {
            node,
            addr: known.addr,
            bump: known.bump,
            incarnation: 0,
            state: if known.hopeful { MemberState::Suspect } else { MemberState::Down },
        });
        entries.extend(unheard);
        entries.truncate(MAX_MEMBERS);
        entries
    }

    /// What we can vouch for to others: foca's list and ourselves.
    fn spoken(&self) -> Vec<MemberEntry> {
        let others = self.swim.members().filter(|member| self.concerns_another(member.id().node));
        std::iter::once(self.own_entry()).chain(others.map(identity::to_entry)).take(MAX_MEMBERS).collect()
    }

    fn own_entry(&self) -> MemberEntry {
        let incarnation = self.swim.incarnation();
        identity::to_entry(&FocaMember::new(self.me.clone(), incarnation, foca::State::Alive))
    }

    fn concerns_another(&self, node: NodeId) -> bool {
        node != self.me.node && !self.removed.contains(&node)
    }

    /// Known from the last life, or from the answer to a join: announced to from now on, alive once heard. The first
    /// to answer ships its table, and then all are known at once.
    pub fn restore(&mut self, members: Vec<MemberEntry>, now: Mono) {
        self.now = now;
        for entry in members.iter().take(MAX_MEMBERS) {
            if self.concerns_another(entry.node) && entry.bump <= identity::MAX_BUMP {
                let identity = Identity::new(entry.node, entry.addr, entry.bump);
                let hopeful = entry.state != MemberState::Down;
                self.table.candidate(&identity, hopeful, now);
            } else if entry.node == self.me.node && entry.bump > self.me.bump {
                self.renew(entry.bump.saturating_add(1), None);
            }
        }
        self.schedule.announce_now(now);
    }

    pub fn handle_gossip(&mut self, from: NodeId, packet: &[u8], now: Mono) {
        if !self.enter(now) || !self.concerns_another(from) {
            return;
        }
        let Ok(peek) = identity::peek(packet) else { return self.reject() };
        let header = &peek.header;
        if header.src.node != from || header.dst.node != self.me.node {
            return self.reject();
        }
        self.heard(from);
        if header.dst.bump > self.me.bump {
            // Our disk forgot a life of ours, or another table was poisoned: go above it in one step, not by climbing.
            self.renew(header.dst.bump.saturating_add(1), Some(from));
        }
        if self.table.get(from).is_some_and(|known| known.bump > header.src.bump) {
            return self.tell_of_a_later_life(from);
        }
        let known = self.table.get(from);
        let as_known = known.is_some_and(|k| k.liveness == Liveness::Alive && k.bump == header.src.bump);
        let mut scope = if as_known { Vec::new() } else { vec![from] };
        let rumours = peek.rumours();
        let (kept, all) = self.sift(&rumours);
        let wanted = if all {
            scope.extend(rumours.iter().map(|member| member.id().node));
            self.swim.packet(packet)
        } else if self.admit(&FocaMember::alive(header.src.clone())) {
            self.swim.packet(peek.bare())
        } else {
            return self.reject();
        };
        self.settle(wanted, Scope::These(scope), Some(from));
        if !all && self.table.liveness(from).is_some_and(|liveness| liveness < Liveness::Away) {
            let kept: Vec<FocaMember> = kept.into_iter().filter(|member| self.admit(member)).collect();
            let about = kept.iter().map(|member| member.id().node).collect();
            let wanted = self.swim.apply(kept, true);
            self.settle(wanted, Scope::These(about), None);
        }
        if header.dst.bump < self.me.bump && header.message != foca::Message::Announce {
            // It talks to a life of ours that is over, and would take its silence for death.
            let wanted = self.swim.announce(header.src.clone());
            self.settle(wanted, Scope::Nobody, None);
        }
    }

    /// The rumours that may be taken as they are, and whether these are all. Of lives that are over there are none:
    /// foca may have forgotten the later one that the table knows, and what becomes of the earlier is not said of it.
    fn sift(&mut self, rumours: &[FocaMember]) -> (Vec<FocaMember>, bool) {
        let mut kept = Vec::new();
        for member in rumours {
            let (id, state) = (member.id(), member.state());
            if *id == self.me && state == foca::State::Suspect && member.incarnation() >= self.swim.incarnation() {
                self.was_suspected();
            }
            if self.table.get(id.node).is_some_and(|known| known.bump > id.bump) {
                continue;
            }
            let told = state != foca::State::Down || id.node == self.me.node;
            if told || self.believes_in_the_death_of(id.node, id.bump) {
                kept.push(member.clone());
            }
        }
        let all = kept.len() == rumours.len() && self.table.len() + rumours.len() < MAX_MEMBERS;
        (kept, all)
    }

    /// Graceful: away for the restart grace, or down at once.
    pub fn handle_leaving(&mut self, from: NodeId, for_good: bool, now: Mono) {
        if !self.enter(now) || !self.concerns_another(from) {
            return;
        }
        self.docket.drop_all_about(from);
        let change = match self.table.liveness(from) {
            Some(_) if for_good => self.table.set_down(from, now),
            Some(Liveness::Alive | Liveness::Suspect) => self.table.set_away(from, now + RESTART_GRACE, now),
            _ => return,
        };
        self.report(change, None);
        // Not spread when it means to return: whoever missed the goodbye had better not know before the detector does.
        let over = self.swim.find(from).map(|member| FocaMember::down(member.id().clone()));
        let wanted = self.swim.apply(over.into_iter().collect(), for_good);
        self.settle(wanted, Scope::These(vec![from]), None);
    }

    /// Forgotten for good by an operator: never announced to, never alive again whatever rumours say.
    pub fn remove(&mut self, node: NodeId) {
        if node == self.me.node || !self.removed.insert(node) {
            return;
        }
        self.docket.drop_all_about(node);
        if let Some(known) = self.table.remove(node)
            && known.liveness != Liveness::Down
        {
            self.out.push_back(Output::Changed { node, from: Some(known.liveness), to: Liveness::Down });
        }
        let wanted = self.swim.apply(vec![FocaMember::down(Identity::tombstone(node))], false);
        self.settle(wanted, Scope::These(vec![node]), None);
    }

    /// Says goodbye to all who live. Afterwards nothing is sent and nothing is heard.
    pub fn leave(&mut self, for_good: bool, now: Mono) {
        if !self.enter(now) {
            return;
        }
        let live: Vec<Identity> = self.swim.active().map(|member| member.id().clone()).collect();
        for Identity { node, addr, .. } in live {
            let message = Message::Leaving { for_good };
            self.out.push_back(Output::Send { to: node, addr, message, datagram: false });
        }
        self.left = true;
        self.timers.clear();
    }

    pub fn deadline(&self) -> Option<Mono> {
        if self.left {
            return None;
        }
        let mine = [self.timers.deadline(), self.table.next_grace_end(), self.spread_at];
        Some(mine.into_iter().flatten().fold(self.schedule.deadline(), Mono::min))
    }

    pub fn handle_deadline(&mut self, now: Mono) {
        if !self.enter(now) {
            return;
        }
        while let Some(pending) = self.timers.pop_due(now) {
            match pending {
                Pending::Foca(timer) => self.handle_focas(timer),
                Pending::Check(node) => self.end_check(node),
                Pending::Verdict(node) => self.reach_verdict(node),
                Pending::Remind(node) => self.remind(node),
            }
        }
        while let Some(node) = self.table.overdue(now) {
            let change = self.table.set_down(node, now);
            self.report(change, None);
        }
        if self.spread_at.take_if(|at| *at <= now).is_some() && self.swim.has_news() {
            let wanted = self.swim.gossip();
            self.settle(wanted, Scope::Nobody, None);
        }
        self.keep_schedule();
    }

    fn handle_focas(&mut self, timer: identity::Timer) {
        let probe = matches!(timer, identity::Timer::ProbeRandomMember(_));
        let wanted = self.swim.timer(timer);
        if probe {
            self.judge_ourselves(wanted.timers.iter().any(|(_, timer)| swim::is_verdict(timer)));
        }
        self.settle(wanted, Scope::Nobody, None);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        limits::give_back(&mut self.out);
        self.out.pop_front()
    }

    /// Every input comes through here. False when we have left.
    fn enter(&mut self, now: Mono) -> bool {
        self.now = self.now.max(now);
        if self.left {
            return false;
        }
        if let Some(late) = self.timers.notice_stall(now, self.config.probe_rtt)
            && late > self.config.suspect_to_down
        {
            // They may have buried us meanwhile: ask rather than wait to be told.
            self.schedule.exchange_now(now);
        }
        true
    }

    fn reject(&mut self) {
        self.rejected += 1;
    }

    /// A message that isn't ours to read came from this member: it lives.
    pub fn heard_from(&mut self, from: NodeId, now: Mono) {
        if self.enter(now) && self.concerns_another(from) {
            self.heard(from);
        }
    }

    /// Whether there is room for it. The longest dead makes room for a live stranger.
    fn admit(&mut self, member: &FocaMember) -> bool {
        let node = member.id().node;
        if node == self.me.node || self.table.get(node).is_some() {
            return true;
        }
        if !self.concerns_another(node) {
            return false;
        }
        if self.table.len() >= MAX_MEMBERS
            && member.state() != foca::State::Down
            && let Some(dead) = self.table.longest_down()
        {
            self.table.remove(dead);
            let wanted = self.swim.forget_down(dead);
            self.settle(wanted, Scope::Nobody, None);
        }
        self.table.candidate(member.id(), false, self.now)
    }

    /// Carries out what foca wants. `heard`: whom the input came from, if a member spoke for itself.
    fn settle(&mut self, wanted: Wanted, scope: Scope, heard: Option<NodeId>) {
        if wanted.failed {
            self.rejected += 1;
        }
        for (to, packet) in wanted.sends {
            if self.concerns_another(to.node) {
                let message = Message::Gossip(packet);
                self.out.push_back(Output::Send { to: to.node, addr: to.addr, message, datagram: true });
            }
        }
        let mut changed = wanted.changed;
        let mut suspects = Vec::new();
        for (after, timer) in wanted.timers {
            match &timer {
                identity::Timer::ChangeSuspectToDown { member_id, .. } => {
                    changed.push(member_id.node);
                    suspects.push((member_id.node, timer));
                    continue;
                }
                identity::Timer::ProbeRandomMember(_) | identity::Timer::SendIndirectProbe { .. } => {
                    self.timers.put(Pending::Foca(timer), after * self.docket.patience(), self.now);
                }
                _ => self.timers.put(Pending::Foca(timer), after, self.now),
            }
        }
        match scope {
            Scope::All => self.compare(None, heard),
            Scope::Nobody if changed.is_empty() => {}
            Scope::Nobody => self.compare(Some(changed), heard),
            Scope::These(nodes) => {
                changed.extend(nodes);
                if !changed.is_empty() {
                    self.compare(Some(changed), heard);
                }
            }
        }
        for (node, verdict) in suspects {
            self.open(node, verdict);
        }
        if wanted.idle {
            self.table.hope();
        }
        if wanted.idle || wanted.defunct {
            self.renew(self.me.bump.saturating_add(1), heard.filter(|_| wanted.defunct));
        }
    }

    /// Brings our table in step with foca's list, whatever the reason for the difference; `about` whom, if not all.
    fn compare(&mut self, about: Option<Vec<NodeId>>, heard: Option<NodeId>) {
        let members: Vec<FocaMember> = match about {
            Some(nodes) => self.swim.find_all(&nodes.into_iter().collect()).cloned().collect(),
            None => {
                self.swim.note_places();
                self.swim.members().cloned().collect()
            }
        };
        let mut changes = Vec::new();
        for member in &members {
            let identity = member.id();
            if identity.node == self.me.node || self.removed.contains(&identity.node) {
                continue;
            }
            let (change, moved) = self.table.observe(member, self.now);
            changes.extend(change);
            if moved {
                self.out.push_back(Output::AddrChanged { node: identity.node, addr: identity.addr });
            }
        }
        if !changes.is_empty() && self.spread_at.is_none() {
            self.spread_at = Some(self.now + SPREAD_AFTER);
        }
        for change in changes {
            self.report(Some(change), heard);
        }
        self.swim.fit();
    }

    fn report(&mut self, change: Option<Change>, heard: Option<NodeId>) {
        let Some(Change { node, from, to }) = change else { return };
        self.out.push_back(Output::Changed { node, from, to });
        match to {
            Liveness::Alive if from != Some(Liveness::Suspect) && heard == Some(node) => self.meet(node),
            Liveness::Suspect => self.look_into(node),
            _ => {}
        }
    }

    fn tell(&mut self, to: NodeId, members: Vec<MemberEntry>, reply: bool) {
        self.tell_message(to, Message::Members { members, reply }, false);
    }

    fn tell_message(&mut self, to: NodeId, message: Message, datagram: bool) {
        let Some(known) = self.table.get(to) else { return };
        self.out.push_back(Output::Send { to, addr: known.addr, message, datagram });
    }

    /// Tells a node how we see it, over a stream, which loss can't stop. A suspect refutes, one held for dead
    /// renews itself; with `reply` it shows us its own state in turn.
    fn tell_of_itself(&mut self, node: NodeId, reply: bool) {
        if let Some(entry) = self.swim.find(node).map(identity::to_entry) {
            self.tell(node, vec![entry, self.own_entry()], reply);
        }
    }
}
