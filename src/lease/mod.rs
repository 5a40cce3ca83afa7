//! The lease: which one node may place tasks now, and which few nodes vote on it.
//!
//! This is the protocol "QL": PaxosLease with durable promises, a refusal to promise while a grant lives,
//! renewal under one ballot, and an electorate that the holder changes one voter at a time. The law it keeps:
//! at any instant at most one node gets `Some` from [`Lease::held`], and the terms of successive holders grow.
//!
//! A pure state machine: messages, the time and the members' liveness go in; what to persist and send comes
//! out in order. A send that stands behind a persist leaves only once that persist is durable: the driver's
//! promise, and all that "promise" and "accept" rest on. It knows nothing of records, transport or tasks.
//!
//! `acceptor` is what a voter does, `proposer` what a candidate and a holder do, `electorate` how the holder
//! keeps the set of voters healthy, `outline` what of all that a model checker tells apart.

mod acceptor;
mod doubt;
mod electorate;
mod outline;
mod proposer;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use crate::ids::NodeId;
use crate::model::lease::{Electorate, ElectorateId};
use crate::model::node::Liveness;
use crate::model::record::Term;
use crate::plant::{Bug, is_planted};
use crate::time::Mono;
use crate::wire::message::LeaseMessage;
use acceptor::Grant;
use doubt::Doubt;
use electorate::Members;
use proposer::Role;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// An electorate larger than this comes from no holder of ours.
pub const MAX_VOTERS: usize = 16;
/// Voters of a recovered electorate; more would only slow it down.
const MAX_RECOVERED_VOTERS: usize = 5;
/// A round past this is garbage: it would leave no room for the next ones.
const MAX_ROUND: u64 = u64::MAX / 2;
/// A recovery outbids whatever rounds the lost voters may have gone through unseen.
const RECOVERY_ROUNDS: u64 = 1_000;

/// The clocks of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a voter's grant lives, from receipt.
    pub acceptor: Duration,
    /// How long the holder trusts it, from before it asked. With clocks whose rates lie within 1 ± r this must
    /// be at most `acceptor * (1 - r) / (1 + r)`; it is cut to 94 %, which allows r = 3 %.
    pub holder: Duration,
    /// How often the holder renews; at least three times within `holder`.
    pub renew: Duration,
}

impl Timing {
    fn bounded(self) -> Self {
        let acceptor = self.acceptor.max(Duration::from_millis(10));
        let holder = self.holder.min(acceptor * 94 / 100).max(Duration::from_millis(6));
        let renew = self.renew.clamp(Duration::from_millis(1), holder / 3);
        let holder = if is_planted(Bug::PastTheLease) { acceptor * 2 } else { holder };
        let holder = if is_planted(Bug::NoDriftMargin) { acceptor } else { holder };
        Self { acceptor, holder, renew }
    }

    /// The holder stops acting this long before its lease ends: time for what it has just decided to get out.
    fn margin(self) -> Duration {
        self.holder / 18
    }

    /// Candidates stand this far apart, so that the first is usually through before the second tries.
    fn slot(self) -> Duration {
        self.renew / 8
    }

    /// What was not answered within this is said again.
    fn resend(self) -> Duration {
        self.renew / 3
    }
}

/// When the holder touches the set of voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// A voter must be down, and silent towards the holder, this long before it is replaced.
    /// Short values replace voters that only restart.
    pub replace_after: Duration,
    /// A voter that is alive but answers no lease message (a stalled disk, say) is replaced after this,
    /// if another node does answer.
    pub replace_mute_after: Duration,
    /// A node must have been alive this long before it becomes a voter.
    pub admit_after: Duration,
    /// Likewise while there are fewer than three voters: who is alone is lost with all that the cluster has.
    pub admit_first_after: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            replace_after: Duration::from_secs(10),
            replace_mute_after: Duration::from_secs(30),
            admit_after: Duration::from_secs(2),
            admit_first_after: Duration::from_millis(200),
        }
    }
}

/// What must survive a restart, persisted as one value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Durable {
    /// The highest ballot this voter promised; it accepts nothing below.
    pub promised: Term,
    /// The latest electorate it knows.
    pub electorate: Electorate,
    /// The highest round it ever stood for election with.
    pub round_used: u64,
    /// What others had promised when this node was in doubt what it had itself: it promises nothing below. Kept apart
    /// from `promised`, which tells to whom a grant may be owed. (And apart on disk.)
    #[serde(skip, default = "nothing")]
    pub floor: Term,
    /// The disk was seen to be put back to an earlier state, and what it forgot is not yet made up for.
    #[serde(skip)]
    pub put_back: bool,
}

fn nothing() -> Term {
    Term::ZERO
}

impl Durable {
    pub fn new(electorate: Electorate) -> Self {
        Self { promised: Term::ZERO, electorate, round_used: 0, floor: Term::ZERO, put_back: false }
    }

    /// Nothing below it may be promised or accepted.
    fn least(&self) -> Term {
        self.promised.max(self.floor)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Make this durable; every later `Send` waits for it.
    Persist(Durable),
    /// Best effort. May go to this node itself.
    Send { to: NodeId, message: LeaseMessage },
    /// This node leads from now on, as long as [`Lease::held`] says so.
    Acquired(Term),
    /// It no longer does. A later election gives a later term.
    Lost(Term),
    /// In force: a majority of it has accepted it. The holder writes it to the records, at the start of its
    /// term and after each change.
    Electorate(Electorate),
}

/// Where jitter is drawn from; without it there is none, nor any courtesy.
#[derive(Debug)]
struct Chance(Option<ChaCha8Rng>);

impl Clone for Chance {
    fn clone(&self) -> Self {
        Self(self.0.as_ref().map(|rng| ChaCha8Rng::deserialize_state(&rng.serialize_state())))
    }
}

#[derive(Debug, Clone)]
pub struct Lease {
    me: NodeId,
    timing: Timing,
    upkeep: Upkeep,
    durable: Durable,
    /// A persist failed: the next send that rests on durable state brings its own.
    unsaved: bool,

    // As a voter.
    /// Until it is resolved this node promises and accepts nothing.
    doubt: Option<Doubt>,
    /// The doubt ended by time alone.
    trusts_its_disk: bool,
    /// Taken from the cluster for good: nobody waits for their word.
    removed: BTreeSet<NodeId>,
    grant: Option<Grant>,
    /// The ballot that was given up last: proposals under it that arrive late renew nothing.
    released: Option<Term>,

    // As a candidate and holder.
    role: Role,
    /// When to stand for election next, unless something happens before.
    campaign_at: Option<Mono>,
    /// Campaigns since the last election that worked out.
    failures: u32,
    /// The highest round seen anywhere.
    highest_round: u64,
    /// Who holds the lease by what other voters said, and until when they may be believed.
    hearsay: Option<(Term, Mono)>,
    /// This life ends: vote, but don't lead again.
    retired: bool,
    changes_allowed: bool,
    members: Members,

    chance: Chance,
    outputs: VecDeque<Output>,
}

impl Lease {
    /// `first_life`: this node has never promised anything, so nobody can hold a grant of an earlier life.
    pub fn new(me: NodeId, timing: Timing, durable: Durable, first_life: bool, seed: u64, now: Mono) -> Self {
        let timing = timing.bounded();
        let forgets = is_planted(Bug::ForgottenPromise) && !first_life;
        let durable = if forgets { Durable { promised: Term::ZERO, ..durable } } else { durable };
        let grant = if first_life || is_planted(Bug::NoBootWait) {
            None
        } else {
            Grant::of_an_earlier_life(&durable, timing, now)
        };
        let mut lease = Self {
            me,
            timing,
            upkeep: Upkeep::default(),
            highest_round: durable.round_used.max(durable.least().round).max(durable.electorate.id.term.round),
            durable,
            unsaved: false,
            doubt: None,
            trusts_its_disk: false,
            removed: BTreeSet::new(),
            grant,
            released: None,
            role: Role::Follower,
            campaign_at: None,
            failures: 0,
            hearsay: None,
            retired: false,
            changes_allowed: true,
            members: Members::default(),
            chance: Chance(Some(ChaCha8Rng::seed_from_u64(seed))),
            outputs: VecDeque::new(),
        };
        // Each of these bugs would be made up for by the others' answers.
        let made_up_for =
            [Bug::NoBootWait, Bug::ForgottenPromise, Bug::AckBeforeFsync, Bug::OldElectorates, Bug::NoDoubt];
        let certain = made_up_for.into_iter().any(is_planted);
        if !first_life && !certain {
            let nonce = lease.draw();
            lease.doubt = Some(Doubt::new(nonce, now + timing.acceptor, now));
        }
        lease.plan_campaign(now);
        lease
    }

    pub fn with_upkeep(mut self, upkeep: Upkeep) -> Self {
        self.upkeep = upkeep;
        self
    }

    /// Draws no delays and waits for nothing that only courtesy asks for: a deadline is as early as grants and the lease allow.
    /// For a model checker, which tries itself what comes of calling later.
    pub fn impatient(mut self, now: Mono) -> Self {
        self.chance = Chance(None);
        self.plan_campaign(now);
        self
    }

    // What it knows.

    /// The term under which this node may act at this instant. To be asked again before each decision.
    pub fn held(&self, now: Mono) -> Option<Term> {
        match &self.role {
            Role::Leading(leading) if leading.in_force(now, self.timing) => Some(leading.ballot),
            _ => None,
        }
    }

    /// Likewise, and from when on it may not unless a renewal succeeds.
    pub fn held_until(&self, now: Mono) -> Option<(Term, Mono)> {
        match &self.role {
            Role::Leading(leading) if leading.in_force(now, self.timing) => {
                Some((leading.ballot, leading.lapses_at(self.timing)))
            }
            _ => None,
        }
    }

    /// Who leads, as far as this node can tell. For people: nothing may be decided on it.
    pub fn holder(&self, now: Mono) -> Option<(NodeId, Term)> {
        if let Some(term) = self.held(now) {
            return Some((self.me, term));
        }
        // After a start a grant to nobody may stand for those that were forgotten: it names no holder.
        let held_by = |g: &Grant| g.expires > now && g.ballot.node != self.me && g.ballot.node != doubt::NOBODY;
        let by_grant = self.grant.filter(held_by).map(|g| g.ballot);
        let by_hearsay = self.hearsay.filter(|(_, until)| *until > now).map(|(term, _)| term);
        // A node without a vote hears no renewals; it names whoever wrote the latest electorate.
        let author = self.durable.electorate.id.term;
        let by_record =
            (!self.is_voter() && author != Term::ZERO && self.members.may_be_up(author.node)).then_some(author);
        let term = by_grant.or(by_hearsay).or(by_record)?;
        (term.node != self.me).then_some((term.node, term))
    }

    /// The highest ballot that this voter promised.
    pub fn promised(&self) -> Term {
        self.durable.promised
    }

    /// To whose ballot this voter's grant goes, and until when, if one lives.
    pub fn granted(&self, now: Mono) -> Option<(Term, Mono)> {
        self.grant.filter(|g| g.expires > now).map(|g| (g.ballot, g.expires))
    }

    /// The ballot that it stands for, proposes or holds under.
    pub fn ballot(&self) -> Option<Term> {
        self.role.ballot()
    }

    /// The ballot under which it proposes, whether or not that gave it the lease.
    pub fn proposes(&self) -> Option<Term> {
        match &self.role {
            Role::Leading(leading) => Some(leading.ballot),
            _ => None,
        }
    }

    pub fn electorate(&self) -> &Electorate {
        &self.durable.electorate
    }

    pub fn is_voter(&self) -> bool {
        self.durable.electorate.voters.contains(&self.me)
    }

    /// When [`Lease::handle_deadline`] wants to be called.
    pub fn deadline(&self) -> Option<Mono> {
        match &self.role {
            _ if self.doubt.is_some() => self.doubt.as_ref().map(|d| d.deadline(!self.durable.put_back)),
            Role::Follower => self.campaign_at,
            Role::Preparing(preparing) => Some(preparing.resend_at),
            Role::Leading(leading) => Some(leading.deadline(self.timing)),
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // What happens to it.

    /// A message from a member (`from` is proven), or from this node itself.
    pub fn handle(&mut self, from: NodeId, message: LeaseMessage, now: Mono) {
        self.step_down_if_lapsed(now);
        match message {
            LeaseMessage::Prepare { ballot, .. } | LeaseMessage::Propose { ballot, .. } if self.doubt.is_some() => {
                self.saw_round(ballot.round);
            }
            LeaseMessage::Prepare { ballot, electorate } => self.on_prepare(from, ballot, &electorate, now),
            LeaseMessage::Propose { ballot, seq, electorate } => self.on_propose(from, ballot, seq, electorate, now),
            LeaseMessage::Release { ballot } => self.on_release(from, ballot, now),
            LeaseMessage::Promise { ballot } => self.on_promise(from, ballot, now),
            LeaseMessage::Accepted { ballot, seq } => self.on_accepted(from, ballot, seq, now),
            LeaseMessage::Held { promised, holder, remaining_ms } => {
                self.on_held(from, promised, holder, Duration::from_millis(remaining_ms.into()), now);
            }
            LeaseMessage::Newer { electorate } => self.learn(electorate, now),
            LeaseMessage::Recall { nonce } => self.on_recall(from, nonce),
            LeaseMessage::Recalled { nonce, promised, electorate, sure } => {
                self.on_recalled(from, nonce, promised, electorate, sure, now);
            }
        }
    }

    pub fn handle_deadline(&mut self, now: Mono) {
        self.step_down_if_lapsed(now);
        match &self.role {
            _ if self.doubt.is_some() => self.doubt_on(now),
            Role::Follower if self.campaign_at.is_some_and(|at| at <= now) => self.campaign(now),
            Role::Follower => {}
            Role::Preparing(_) => self.prepare_again(now),
            Role::Leading(_) => self.lead_on(now),
        }
    }

    /// An electorate from the records or from a refusal. A later one replaces ours, and ends what we had
    /// under way in ours (R7).
    pub fn learn(&mut self, electorate: Electorate, now: Mono) {
        if electorate.id <= self.durable.electorate.id || !is_sane(&electorate) {
            return;
        }
        self.adopt(electorate);
        self.save(true);
        if is_planted(Bug::NoStepDown) {
            return;
        }
        self.step_down(now);
        // Somebody led when this was written and most likely still does: let its renewal arrive first.
        if self.is_voter() && self.durable.electorate.voters.len() > 1 {
            self.plan_campaign(now + self.courtesy(self.timing.acceptor));
        }
    }

    /// Somebody decided under this term. If it is later than what this node stands with (a lone voter whose disk was put back
    /// has forgotten its own), this node decides nothing below it.
    pub fn saw_term(&mut self, term: Term, now: Mono) {
        self.saw_round(term.round);
        if self.role.ballot().is_some_and(|own| own < term) {
            self.step_down(now);
        }
    }

    /// How this node sees every member that has not been removed, itself included.
    pub fn set_live(&mut self, live: &BTreeMap<NodeId, Liveness>, now: Mono) {
        self.members.set_live(live, now);
        self.resolve_doubt(now);
        self.maintain(now);
    }

    /// Likewise, of some that are new or whose state has changed; nobody was taken out since the last word about all.
    pub fn saw(&mut self, changed: &[(NodeId, Liveness)], now: Mono) {
        changed.iter().for_each(|(node, state)| self.members.saw(*node, *state, now));
        self.resolve_doubt(now);
        self.maintain(now);
    }

    /// From now on the holder leaves the electorate alone. For a driver that wants what the old voters
    /// acknowledged to have reached the new ones before the next change.
    pub fn forbid_changes(&mut self) {
        self.changes_allowed = false;
    }

    /// Ends that. True if the next change was waiting for it.
    pub fn allow_changes(&mut self, now: Mono) -> bool {
        self.changes_allowed = true;
        self.maintain(now)
    }

    /// A persist failed; what waited for it has been dropped. Nothing is answered from undurable state.
    pub fn persist_failed(&mut self) {
        self.unsaved = true;
    }

    /// A graceful stop: give the lease up so that another node can have it at once, and don't lead again.
    pub fn release(&mut self, now: Mono) {
        self.retired = true;
        if let Role::Leading(leading) = &self.role {
            let ballot = leading.ballot;
            for to in self.others() {
                self.send(to, LeaseMessage::Release { ballot });
            }
            if self.grant.is_some_and(|g| g.ballot == ballot) {
                self.grant = None;
            }
            self.released = Some(ballot);
        }
        self.step_down(now);
    }

    /// An operator's order, for when a majority of the voters is lost for good: these nodes (with this one)
    /// are the electorate, under a higher epoch which supersedes whatever the lost voters still believe.
    ///
    /// Two such orders on two nodes give two ids (each carries a round of its own), the later wins where they
    /// meet. If the old majority lives on behind a cut there are two holders until then: that is the operator's risk.
    pub fn recover(&mut self, voters: BTreeSet<NodeId>, now: Mono) {
        self.step_down(now);
        self.doubt = None;
        self.durable.put_back = false;
        self.retired = false;
        let others = voters.into_iter().filter(|n| *n != self.me).take(MAX_RECOVERED_VOTERS - 1);
        let voters: BTreeSet<NodeId> = others.chain([self.me]).collect();
        let round = self.highest_round.saturating_add(RECOVERY_ROUNDS).min(MAX_ROUND);
        self.highest_round = round;
        self.durable.round_used = round;
        let epoch = self.durable.electorate.id.epoch.saturating_add(1);
        let id = ElectorateId { epoch, term: Term { round, node: self.me }, version: 0 };
        self.durable.electorate = Electorate { id, voters };
        self.save(true);
        self.failures = 0;
        self.plan_campaign(now);
    }

    /// Every voter was removed for good, and this node votes in their place, alone. Whoever of them holds the lease may not
    /// have heard of it yet: nothing is promised before the lease is over that it may have renewed just now. (One that is cut
    /// off renews its own vote until it hears. Who removes it answers for that, as with [`Lease::recover`].)
    pub fn inherit(&mut self, now: Mono) {
        let before = self.durable.electorate.voters.iter().find(|n| **n != self.me).copied();
        self.recover(BTreeSet::from([self.me]), now);
        if let Some(node) = before {
            let ballot = Term { round: self.durable.promised.round, node };
            self.grant = Some(Grant { ballot, expires: now + self.timing.acceptor });
            self.plan_campaign(now);
        }
    }

    // Shared by the parts.

    /// Puts the durable state before whatever is sent next, if it changed or its last write failed.
    fn save(&mut self, changed: bool) {
        if changed || self.unsaved {
            self.unsaved = false;
            self.outputs.push_back(Output::Persist(self.durable.clone()));
        }
    }

    fn send(&mut self, to: NodeId, message: LeaseMessage) {
        self.outputs.push_back(Output::Send { to, message });
    }

    fn adopt(&mut self, electorate: Electorate) {
        self.saw_round(electorate.id.term.round);
        self.durable.electorate = electorate;
    }

    fn saw_round(&mut self, round: u64) {
        self.highest_round = self.highest_round.max(round.min(MAX_ROUND));
    }

    fn draw(&mut self) -> u64 {
        self.chance.0.as_mut().map_or(0, |rng| rng.random())
    }

    /// The other voters.
    fn others(&self) -> Vec<NodeId> {
        self.durable.electorate.voters.iter().copied().filter(|n| *n != self.me).collect()
    }

    /// A wait that spares the others work, or a candidate the company of another: no law rests on it.
    fn courtesy(&self, wait: Duration) -> Duration {
        if self.chance.0.is_some() { wait } else { Duration::ZERO }
    }

    fn jitter(&mut self, up_to: Duration) -> Duration {
        let micros = u64::try_from(up_to.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.chance.0.as_mut().map_or(0, |rng| rng.random_range(0..=micros)))
    }
}

fn is_sane(electorate: &Electorate) -> bool {
    (1..=MAX_VOTERS).contains(&electorate.voters.len()) && electorate.id.term.round <= MAX_ROUND
}
