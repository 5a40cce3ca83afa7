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
//! that two halves which meet again don't bury each other. See `heal.rs` for what happens when we were cut off, and
//! `timers.rs` for what happens when we were stalled.

mod heal;
mod identity;
#[cfg(test)]
mod sim;
mod swim;
mod table;
#[cfg(test)]
mod tests;
mod timers;

use crate::ids::NodeId;
use crate::limits::{MAX_MEMBERS, RESTART_GRACE};
use crate::model::node::Liveness;
use crate::time::Mono;
use crate::wire::message::{MemberEntry, MemberState, Message};
use heal::Schedule;
use identity::{Identity, Member as FocaMember};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use swim::{Swim, Wanted};
use table::{Change, Table};
use timers::{Pending, Timers};

/// How many of those who hear a rumour of suspicion ask the suspect themselves, on average.
const WITNESSES: u32 = 4;

/// The timing of the failure detector. A crash shows after about two probe periods and `suspect_to_down`.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Each node probes one other per period. More than twice `probe_rtt`, or indirect probes have no time to succeed.
    pub probe_period: Duration,
    /// A high percentile of the round trip; a probe that takes longer is tried through three others.
    pub probe_rtt: Duration,
    /// What a suspect has to refute. Shorter than the usual stall of a process, and stalls look like crashes.
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
    /// Asked for a sign of life and silent since.
    checks: BTreeSet<NodeId>,
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
            checks: BTreeSet::new(),
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

    pub fn member(&self, node: NodeId) -> Option<Member> {
        let known = self.table.get(node)?;
        Some(Member { node, addr: known.addr, liveness: known.liveness, since: known.since })
    }

    /// The others that are alive or suspect.
    pub fn live_count(&self) -> usize {
        self.table.live()
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
        let telling = peek.updates > 0 || self.table.liveness(from) != Some(Liveness::Alive);
        let (wanted, rumours) = if self.table.len() + usize::from(peek.updates) < MAX_MEMBERS {
            (self.swim.packet(packet), None)
        } else if self.admit(&FocaMember::alive(header.src.clone())) {
            let rumours = peek.rumours().into_iter().filter(|member| self.admit(member)).collect();
            (self.swim.packet(peek.bare()), Some(rumours))
        } else {
            return self.reject();
        };
        self.settle(wanted, telling, Some(from));
        if let Some(rumours) = rumours {
            let wanted = self.swim.apply(rumours, true);
            self.settle(wanted, true, None);
        }
        if header.dst.bump < self.me.bump && header.message != foca::Message::Announce {
            // It talks to a life of ours that is over, and would take its silence for death.
            let wanted = self.swim.announce(header.src.clone());
            self.settle(wanted, false, None);
        }
    }

    pub fn handle_members(&mut self, from: NodeId, members: Vec<MemberEntry>, reply: bool, now: Mono) {
        if !self.enter(now) || !self.concerns_another(from) {
            return;
        }
        if members.len() > MAX_MEMBERS {
            return self.reject();
        }
        self.heard(from);
        let asks_for_us_alone =
            matches!(members.as_slice(), [us, asker] if us.node == self.me.node && asker.node == from);
        let mut news = self.take_what_concerns_us(&members, from);
        let mut accused = Vec::new();
        for entry in &members {
            let stale = self.table.get(entry.node).is_some_and(|known| known.bump > entry.bump);
            if stale || !self.concerns_another(entry.node) {
                continue;
            }
            if entry.state == MemberState::Down && self.lives_on_our_word(entry) {
                accused.push(entry.node);
                continue;
            }
            let member = identity::from_entry(entry);
            if entry.bump > identity::MAX_BUMP || !self.admit(&member) {
                self.rejected += 1;
            } else {
                news.push(member);
            }
        }
        let wanted = self.swim.apply(news, true);
        self.settle(wanted, true, None);
        for node in accused {
            self.accuse(node);
        }
        if asks_for_us_alone && reply {
            self.tell(from, vec![self.own_entry()], false);
        } else if reply {
            self.tell(from, self.spoken(), false);
        } else if self.table.liveness(from).is_some_and(|liveness| liveness >= Liveness::Away) {
            // It doesn't know that we hold it for dead, and is the only one who can change that.
            self.tell_of_itself(from, false);
        }
    }

    /// Answers a suspicion, outdoes a verdict. Returns what foca is to hear about us.
    fn take_what_concerns_us(&mut self, members: &[MemberEntry], from: NodeId) -> Vec<FocaMember> {
        let mut suspected = None;
        let mut highest = self.me.bump;
        let mut dead = false;
        for entry in members.iter().filter(|entry| entry.node == self.me.node && entry.bump <= identity::MAX_BUMP) {
            if entry.bump > highest {
                (highest, dead) = (entry.bump, true);
            } else if entry.bump == self.me.bump && entry.state == MemberState::Down {
                dead = true;
            } else if entry.bump == self.me.bump && entry.state == MemberState::Suspect {
                suspected = Some(FocaMember::new(self.me.clone(), entry.incarnation, foca::State::Suspect));
            }
        }
        if dead {
            self.renew(highest.saturating_add(1), Some(from));
            return Vec::new();
        }
        suspected.into_iter().collect()
    }

    /// The same life that another calls down has not been found dead by us.
    fn lives_on_our_word(&self, entry: &MemberEntry) -> bool {
        self.table.liveness(entry.node).is_some_and(|liveness| liveness < Liveness::Away)
            && self.table.get(entry.node).is_some_and(|known| known.bump == entry.bump)
    }

    /// Graceful: away for the restart grace, or down at once.
    pub fn handle_leaving(&mut self, from: NodeId, for_good: bool, now: Mono) {
        if !self.enter(now) || !self.concerns_another(from) {
            return;
        }
        self.checks.remove(&from);
        let change = match self.table.liveness(from) {
            Some(_) if for_good => self.table.set_down(from, now),
            Some(Liveness::Alive | Liveness::Suspect) => self.table.set_away(from, now + RESTART_GRACE, now),
            _ => return,
        };
        self.report(change, None);
        // Not spread when it means to return: whoever missed the goodbye had better not know before the detector does.
        let over = self.swim.find(from).map(|member| FocaMember::down(member.id().clone()));
        let wanted = self.swim.apply(over.into_iter().collect(), for_good);
        self.settle(wanted, true, None);
    }

    /// Forgotten for good by an operator: never announced to, never alive again whatever rumours say.
    pub fn remove(&mut self, node: NodeId) {
        if node == self.me.node || !self.removed.insert(node) {
            return;
        }
        self.checks.remove(&node);
        if let Some(known) = self.table.remove(node)
            && known.liveness != Liveness::Down
        {
            self.out.push_back(Output::Changed { node, from: Some(known.liveness), to: Liveness::Down });
        }
        let wanted = self.swim.apply(vec![FocaMember::down(Identity::tombstone(node))], false);
        self.settle(wanted, true, None);
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
        let mine = [self.timers.deadline(), self.table.next_grace_end()];
        mine.into_iter().flatten().chain(self.schedule.deadline()).min()
    }

    pub fn handle_deadline(&mut self, now: Mono) {
        if !self.enter(now) {
            return;
        }
        while let Some(pending) = self.timers.pop_due(now) {
            match pending {
                Pending::Foca(timer) if self.swim.is_moot(&timer) => {}
                Pending::Foca(timer) => {
                    let wanted = self.swim.timer(timer);
                    self.settle(wanted, false, None);
                }
                Pending::Check(node) => {
                    if self.checks.remove(&node) {
                        self.accuse(node);
                    }
                }
            }
        }
        while let Some(node) = self.table.overdue(now) {
            let change = self.table.set_down(node, now);
            self.report(change, None);
        }
        self.keep_schedule();
    }

    pub fn poll_output(&mut self) -> Option<Output> {
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

    fn heard(&mut self, node: NodeId) {
        self.checks.remove(&node);
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
            self.settle(wanted, false, None);
        }
        self.table.candidate(member.id(), false, self.now)
    }

    /// Carries out what foca wants. `telling`: the input may have changed states that foca doesn't report;
    /// `heard`: whom it came from, if a member spoke for itself.
    fn settle(&mut self, wanted: Wanted, telling: bool, heard: Option<NodeId>) {
        if wanted.failed {
            self.rejected += 1;
        }
        for (to, packet) in wanted.sends {
            if self.concerns_another(to.node) {
                let message = Message::Gossip(packet);
                self.out.push_back(Output::Send { to: to.node, addr: to.addr, message, datagram: true });
            }
        }
        let mut suspects = Vec::new();
        for (after, timer) in wanted.timers {
            if let identity::Timer::ChangeSuspectToDown { member_id, .. } = &timer {
                suspects.push(member_id.node);
            }
            self.timers.put(Pending::Foca(timer), after, self.now);
        }
        if telling || wanted.changed || !suspects.is_empty() {
            self.compare(heard);
        }
        for node in suspects {
            self.tell_of_itself(node, true);
        }
        if wanted.idle {
            self.table.hope();
        }
        if wanted.idle || wanted.defunct {
            self.renew(self.me.bump.saturating_add(1), heard.filter(|_| wanted.defunct));
        }
    }

    /// Brings our table in step with foca's list, whatever the reason for the difference.
    fn compare(&mut self, heard: Option<NodeId>) {
        let mut changes = Vec::new();
        for member in self.swim.members() {
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
            Liveness::Suspect => {
                let live = u32::try_from(self.table.live()).unwrap_or(u32::MAX).max(1);
                if self.rng.random_range(0..live) < WITNESSES {
                    self.tell_of_itself(node, true);
                }
            }
            _ => {}
        }
    }

    fn tell(&mut self, to: NodeId, members: Vec<MemberEntry>, reply: bool) {
        let Some(known) = self.table.get(to) else { return };
        let message = Message::Members { members, reply };
        self.out.push_back(Output::Send { to, addr: known.addr, message, datagram: false });
    }

    /// Tells a node how we see it, over a stream, which loss can't stop. A suspect refutes, one held for dead
    /// renews itself; with `reply` it shows us its own state in turn.
    fn tell_of_itself(&mut self, node: NodeId, reply: bool) {
        if let Some(entry) = self.swim.find(node).map(identity::to_entry) {
            self.tell(node, vec![entry, self.own_entry()], reply);
        }
    }
}
