//! What foca doesn't do: find those it has lost, mend its list, and start over when we were the one who was lost.
//!
//! - **Announce for ever.** Foca stops when nobody is left, and never tries the dead. Every few seconds some of the
//!   nodes that we don't see alive are announced to; faster while we are alone and young.
//! - **Push-pull.** Rumours die out with a long tail, so tables are compared with a random live node every few
//!   seconds (`sync.rs`), and shown whole at once to a node that comes up.
//! - **Start over.** When everybody seems dead, or somebody tells us that we are, the error is ours: the network cut us
//!   off, or we stood still. What we hold about the death of others is then worthless, and if we kept it each of them would
//!   have to renew itself, too. A fresh foca under a raised bump keeps those that live and takes the rest as candidates.

use super::identity::{self, Identity, Member as FocaMember};
use super::{Membership, Output, Scope, Swim};
use crate::ids::NodeId;
use crate::model::node::Liveness;
use crate::plant::{Bug, is_planted};
use crate::time::Mono;
use crate::wire::message::{MemberEntry, MemberState};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::{IteratorRandom, SliceRandom};
use std::time::Duration;

const ANNOUNCE_PERIOD: Duration = Duration::from_secs(5);
/// While alone, for [`YOUTH`] after a start.
const ANNOUNCE_PERIOD_ALONE: Duration = Duration::from_secs(1);
const YOUTH: Duration = Duration::from_secs(10);
const ANNOUNCES_PER_TICK: usize = 32;
const EXCHANGE_PERIOD: Duration = Duration::from_secs(5);
/// For [`YOUTH`] after a start, when many may have started with us.
const EXCHANGE_PERIOD_YOUNG: Duration = Duration::from_millis(700);
/// Tables sent unasked to nodes that come up.
const MEETINGS_PER_SECOND: u32 = 4;
/// Old suspects reminded per exchange.
const REMINDERS_PER_TICK: usize = 8;
/// A suspicion this many times as old as the shortest verdict has lost its accuser.
const STUCK_AFTER: u32 = 4;
/// Two agents under one id would bury each other without end; this makes it slow.
const RENEW_GAP: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Schedule {
    announce_at: Mono,
    exchange_at: Mono,
    young_until: Mono,
    /// Alternates: the hopeful first, then anyone.
    hopeful_first: bool,
    renewed_at: Option<Mono>,
    renew_due: Option<(Mono, u64, Option<NodeId>)>,
    meeting_window: Mono,
    meetings: u32,
}

impl Schedule {
    pub fn new(now: Mono) -> Self {
        Self {
            announce_at: now,
            exchange_at: now + EXCHANGE_PERIOD_YOUNG,
            young_until: now + YOUTH,
            hopeful_first: true,
            renewed_at: None,
            renew_due: None,
            meeting_window: now,
            meetings: 0,
        }
    }

    pub fn deadline(&self) -> Mono {
        let next = self.announce_at.min(self.exchange_at);
        self.renew_due.as_ref().map_or(next, |(at, ..)| next.min(*at))
    }

    pub fn announces_at(&self) -> Mono {
        self.announce_at
    }

    pub fn announce_now(&mut self, now: Mono) {
        self.announce_at = now;
        self.hopeful_first = true;
    }

    pub fn exchange_now(&mut self, now: Mono) {
        self.exchange_at = now;
    }

    fn may_meet(&mut self, now: Mono) -> bool {
        if now.since(self.meeting_window) >= Duration::from_secs(1) {
            (self.meeting_window, self.meetings) = (now, 0);
        }
        self.meetings += 1;
        self.meetings <= MEETINGS_PER_SECOND
    }
}

fn jittered(period: Duration, rng: &mut ChaCha8Rng) -> Duration {
    period.mul_f64(rng.random_range(0.8..1.2))
}

impl Membership {
    pub(super) fn keep_schedule(&mut self) {
        if let Some((_, bump, told_by)) = self.schedule.renew_due.take_if(|(at, ..)| *at <= self.now) {
            self.renew(bump, told_by);
        }
        if self.schedule.announce_at <= self.now {
            self.announce_to_the_lost();
        }
        if self.schedule.exchange_at <= self.now {
            self.exchange_with_one();
        }
    }

    fn announce_to_the_lost(&mut self) {
        let hopeful_first = self.schedule.hopeful_first;
        self.schedule.hopeful_first = !hopeful_first;
        let lost = self.table.iter().filter(|(_, known)| known.liveness >= Liveness::Away);
        let lost = lost.filter(|_| !is_planted(Bug::NoReannounce));
        let mut lost: Vec<(bool, Identity)> =
            lost.map(|(node, known)| (known.hopeful, Identity::new(node, known.addr, known.bump))).collect();
        lost.shuffle(&mut self.rng);
        if hopeful_first {
            lost.sort_by_key(|(hopeful, _)| !hopeful);
        }
        for (_, identity) in lost.into_iter().take(ANNOUNCES_PER_TICK) {
            let wanted = self.swim.announce(identity);
            self.settle(wanted, Scope::Nobody, None);
        }
        let alone = self.swim.active_count() == 0 && self.now < self.schedule.young_until;
        let period = if alone { ANNOUNCE_PERIOD_ALONE } else { ANNOUNCE_PERIOD };
        self.schedule.announce_at = self.now + jittered(period, &mut self.rng);
    }

    fn exchange_with_one(&mut self) {
        let young = self.now < self.schedule.young_until;
        let period = if young { EXCHANGE_PERIOD_YOUNG } else { EXCHANGE_PERIOD };
        self.schedule.exchange_at = self.now + jittered(period, &mut self.rng);
        // Also the moment to catch any difference that went unnoticed.
        self.compare(None, None);
        self.remind_old_suspects();
        if let Some(node) = self.random_live() {
            self.offer_table(node);
        }
    }

    fn random_live(&mut self) -> Option<NodeId> {
        self.swim.active().map(|member| member.id().node).choose(&mut self.rng)
    }

    /// A suspect whose accuser died or whose refutation was lost would stay one for ever: only the accuser has the timer.
    fn remind_old_suspects(&mut self) {
        let old = STUCK_AFTER * self.config.suspect_to_down;
        let suspects = self.table.iter().filter(|(_, known)| known.liveness == Liveness::Suspect);
        let stuck = suspects.filter(|(_, known)| self.now.since(known.since) > old).map(|(node, _)| node);
        let stuck: Vec<NodeId> = stuck.take(REMINDERS_PER_TICK).collect();
        for node in stuck {
            self.accuse(node);
        }
    }

    /// A node has come up and spoke to us itself.
    pub(super) fn meet(&mut self, node: NodeId) {
        if self.schedule.may_meet(self.now) {
            self.tell(node, self.spoken(), true);
        }
    }

    /// A node speaks in an earlier life than we know of: its disk has forgotten the later one, or what it sent then came
    /// late. It is told, renews itself beyond both in the first case, and until then is not what we know as that node.
    pub(super) fn tell_of_a_later_life(&mut self, node: NodeId) {
        let Some(known) = self.table.get(node) else { return };
        let (addr, bump) = (known.addr, known.bump);
        // Alive, so that nothing is news to one that lives in it.
        let later = MemberEntry { node, addr, bump, incarnation: 0, state: MemberState::Alive };
        self.tell(node, vec![later, self.own_entry()], false);
    }

    /// Starts over as a new life of this node.
    pub(super) fn renew(&mut self, bump: u64, told_by: Option<NodeId>) {
        let bump = bump.max(self.me.bump.saturating_add(1));
        if bump > identity::MAX_BUMP {
            self.rejected += 1;
            return;
        }
        if let Some(free) = self.schedule.renewed_at.map(|at| at + RENEW_GAP).filter(|free| *free > self.now) {
            let bump = self.schedule.renew_due.as_ref().map_or(bump, |(_, due, _)| bump.max(*due));
            self.schedule.renew_due = Some((free, bump, told_by));
            return;
        }
        self.schedule.renewed_at = Some(self.now);
        self.schedule.renew_due = None;
        self.me.bump = bump;
        self.out.push_back(Output::Bump(bump));

        let carried = self.carried_over();
        self.timers.drop_focas();
        self.docket.dismiss();
        self.table.forget_held();
        let seed = self.seed.wrapping_add(bump.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.swim = Swim::new(self.me.clone(), self.config, seed);
        let wanted = self.swim.apply(carried, false);
        self.settle(wanted, Scope::All, None);
        self.introduce_ourselves(told_by);
    }

    /// What the new life knows of the old one: the living, those who said goodbye, and the removed.
    fn carried_over(&self) -> Vec<FocaMember> {
        let kept = self.swim.members().filter(|member| self.concerns_another(member.id().node));
        let kept = kept.filter_map(|member| match self.table.liveness(member.id().node)? {
            // A suspicion of ours is worth as little as a verdict.
            Liveness::Alive | Liveness::Suspect => {
                Some(FocaMember::new(member.id().clone(), member.incarnation(), foca::State::Alive))
            }
            Liveness::Away => Some(FocaMember::down(member.id().clone())),
            Liveness::Down => None,
        });
        kept.chain(self.removed.iter().map(|node| FocaMember::down(Identity::tombstone(*node)))).collect()
    }

    fn introduce_ourselves(&mut self, told_by: Option<NodeId>) {
        self.schedule.announce_now(self.now);
        if self.swim.active_count() == 0 {
            self.schedule.young_until = self.now + YOUTH;
        } else {
            let wanted = self.swim.gossip();
            self.settle(wanted, Scope::Nobody, None);
        }
        if let Some(node) = told_by.filter(|node| self.concerns_another(*node)).or_else(|| self.random_live()) {
            self.tell(node, self.spoken(), true);
        }
    }
}
