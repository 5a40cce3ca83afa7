//! From a doubt to a verdict: Lifeguard (Dadgar, Phillips, Currey 2018) round foca's suspicion, and the rules that keep
//! a node which was itself cut off from blaming others.
//!
//! - **Accuse.** Whoever misses an answer accuses. A dead connection or another's word is a hint, not a proof: the node
//!   is asked for a sign of life first, and only its silence makes it suspect. The accused is told, over a stream and
//!   again and again, and so are some witnesses, who ask it themselves and say what they found.
//! - **Deliver a verdict.** An accuser alone waits three times as long as one whom all witnesses confirm; what lies
//!   between goes by the logarithm of their number. Who was heard since he was accused isn't dead: the time runs anew.
//! - **Never in silence.** While we hear nobody it may be us. Verdicts that fall due are held back, and when the silence
//!   ends every accusation is told again and gets time to be refuted: what we said meanwhile reached nobody. Only if all
//!   others are due at once, or the silence lasts, do they fall, all together: then we start over as one who was alone.
//! - **Weigh a word.** That somebody is down is not believed of a node that we have just heard; in small clusters not
//!   before it was asked in vain. So two parts that meet again don't bury those who live.
//! - **Know thyself.** Who misses probes while he hears nobody, or has to refute suspicions, probes more slowly.

use super::identity::{self, Member as FocaMember, Timer};
use super::timers::Pending;
use super::{Membership, Scope};
use crate::ids::NodeId;
use crate::model::node::Liveness;
use crate::time::Mono;
use rand::RngExt;
use rand::seq::IteratorRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Lifeguard's K: so many are asked to confirm a suspicion.
const WITNESSES: usize = 3;
/// An accuser whom nobody confirms waits this many times as long.
const UNCONFIRMED: u32 = 3;
/// Up to this many live nodes all who hear of a suspicion ask the suspect themselves; in larger clusters a few.
const ALL_ASK: usize = 32;
const FEW: u32 = 4;
/// So many probe periods without a word from anybody are silence.
const SILENT_PERIODS: u32 = 3;
/// After so long a silence it is us.
const ALONE_AFTER: Duration = Duration::from_secs(6);
/// A node in doubt of itself probes at most so many times as slowly.
const MAX_DOUBT: u32 = 4;

/// What this node holds against others, and how sure it is of itself. Times are the detector's.
#[derive(Debug, Default)]
pub(super) struct Docket {
    accusations: BTreeMap<NodeId, Accusation>,
    checks: BTreeMap<NodeId, Check>,
    last_heard: Mono,
    /// When the probe that is under way began.
    probed: Mono,
    /// Lifeguard's local health score: 0 is well.
    doubt: u32,
}

#[derive(Debug)]
struct Accusation {
    /// Which foca carries out as its own.
    verdict: Timer,
    since: Mono,
    due: Mono,
    asked: BTreeSet<NodeId>,
    confirmed: BTreeSet<NodeId>,
}

/// A node was asked for a sign of life.
#[derive(Debug, Default)]
struct Check {
    answered: bool,
    /// Its silence makes it suspect.
    doubted: bool,
    /// Another has found it dead: its silence is the end.
    condemned: bool,
    /// Who wants to know.
    asked_by: BTreeSet<NodeId>,
}

impl Docket {
    pub fn new(now: Mono) -> Self {
        Self { last_heard: now, probed: now, ..Self::default() }
    }

    /// When the accusation of this node comes to its verdict, if there is one.
    pub fn due(&self, node: NodeId) -> Option<Mono> {
        self.accusations.get(&node).map(|accusation| accusation.due)
    }

    /// A new life: what the old one held against others is worthless.
    pub fn dismiss(&mut self) {
        self.accusations.clear();
    }

    pub fn drop_all_about(&mut self, node: NodeId) {
        self.accusations.remove(&node);
        self.checks.remove(&node);
    }

    /// How many times as slowly to probe.
    pub fn patience(&self) -> u32 {
        1 + self.doubt
    }

    fn doubt_more(&mut self) {
        self.doubt = (self.doubt + 1).min(MAX_DOUBT);
    }
}

/// How long an accusation waits that `confirmed` of `asked` witnesses stand by.
fn patience_with(least: Duration, confirmed: usize, asked: usize) -> Duration {
    let most = least * UNCONFIRMED;
    if asked == 0 || confirmed >= asked {
        return least;
    }
    let share = (confirmed as f64 + 1.0).ln() / (asked as f64 + 1.0).ln();
    most - (most - least).mul_f64(share)
}

// What is heard, and what isn't.
impl Membership {
    /// A sign of life that this node gave itself.
    pub(super) fn heard(&mut self, node: NodeId) {
        let now = self.timers.clock(self.now);
        self.table.hear(node, now);
        if let Some(check) = self.docket.checks.get_mut(&node) {
            check.answered = true;
        }
        let silence = now.since(self.docket.last_heard);
        self.docket.last_heard = now;
        if silence > self.silence() {
            self.reopen();
        }
    }

    fn silence(&self) -> Duration {
        self.config.probe_period * SILENT_PERIODS
    }

    fn is_silent(&self) -> bool {
        self.timers.clock(self.now).since(self.docket.last_heard) > self.silence()
    }

    /// The silence is over: nobody has heard what we said in it, nor could answer.
    fn reopen(&mut self) {
        let now = self.timers.clock(self.now);
        let least = self.config.suspect_to_down;
        let mut open = Vec::new();
        for (node, accusation) in &mut self.docket.accusations {
            accusation.since = now;
            accusation.due = accusation.due.max(now + least);
            open.push((*node, accusation.due));
        }
        for (node, due) in open {
            self.timers.put(Pending::Verdict(node), due.since(now), self.now);
            self.tell_of_itself(node, true);
            self.ask_witnesses(node);
        }
    }

    /// foca is about to end a probe and begin the next. `failed` is known afterwards.
    pub(super) fn judge_ourselves(&mut self, failed: bool) {
        let heard_nobody = self.docket.last_heard <= self.docket.probed;
        if failed && heard_nobody {
            self.docket.doubt_more();
        } else if !failed {
            self.docket.doubt = self.docket.doubt.saturating_sub(1);
        }
        self.docket.probed = self.timers.clock(self.now);
    }

    /// Others suspect us: perhaps rightly.
    pub(super) fn was_suspected(&mut self) {
        self.docket.doubt_more();
    }
}

// Asking for a sign of life.
impl Membership {
    /// A connection to it died. If it stays silent for two round trips it is accused.
    pub fn hint_unreachable(&mut self, node: NodeId, now: Mono) {
        if !self.enter(now) || self.table.liveness(node) != Some(Liveness::Alive) {
            return;
        }
        if let Some(check) = self.check(node) {
            check.doubted = true;
        }
    }

    /// Asks it, unless it was asked already.
    fn check(&mut self, node: NodeId) -> Option<&mut Check> {
        if !self.docket.checks.contains_key(&node) {
            let identity = self.swim.find(node)?.id().clone();
            self.timers.put(Pending::Check(node), 2 * self.config.probe_rtt, self.now);
            self.tell_of_itself(node, true);
            let wanted = self.swim.announce(identity);
            self.settle(wanted, Scope::Nobody, None);
        }
        Some(self.docket.checks.entry(node).or_default())
    }

    pub(super) fn end_check(&mut self, node: NodeId) {
        let Some(check) = self.docket.checks.remove(&node) else { return };
        if !check.answered {
            self.table.found_mute(node);
        }
        let lives = self.table.liveness(node).is_some_and(|liveness| liveness < Liveness::Away);
        if !check.answered && check.condemned && lives && !self.is_silent() {
            self.bring_down(node);
        } else if !check.answered && check.doubted {
            self.accuse(node);
        }
        if let Some(entry) = self.swim.find(node).map(identity::to_entry) {
            for by in check.asked_by {
                self.tell(by, vec![entry.clone()], false);
            }
        }
    }

    /// Somebody wants to know whether we can reach this node, too.
    pub(super) fn bear_witness(&mut self, to: NodeId, about: NodeId) {
        if self.table.liveness(about).is_some_and(|liveness| liveness < Liveness::Away)
            && let Some(check) = self.check(about)
        {
            check.asked_by.insert(to);
        } else if let Some(entry) = self.swim.find(about).map(identity::to_entry) {
            self.tell(to, vec![entry], false);
        }
    }

    /// We have come to know of a suspicion.
    pub(super) fn look_into(&mut self, node: NodeId) {
        let live = u32::try_from(self.table.live()).unwrap_or(u32::MAX).max(1);
        if self.table.live() <= ALL_ASK || self.rng.random_range(0..live) < FEW {
            self.check(node);
        }
    }

    /// Whether to take another's word that this life of a node is over. If not, it is asked itself.
    pub(super) fn believes_in_the_death_of(&mut self, node: NodeId, bump: u64) -> bool {
        let Some(known) = self.table.get(node) else { return true };
        if known.liveness >= Liveness::Away || known.bump != bump || known.mute {
            return true;
        }
        let (heard, fresh) = (known.heard, self.config.probe_period + self.config.suspect_to_down);
        let fresh = heard.is_some_and(|at| self.timers.clock(self.now).since(at) + self.config.probe_rtt < fresh);
        if !fresh && self.table.live() > ALL_ASK {
            return true;
        }
        match self.check(node) {
            Some(check) => {
                check.condemned = true;
                false
            }
            None => true,
        }
    }

    /// Another's table has it dead, who knows since when: in small clusters it is asked, in large ones it becomes suspect.
    pub(super) fn take_for_dead(&mut self, node: NodeId) {
        if self.table.live() > ALL_ASK {
            self.accuse(node);
        } else if self.table.get(node).is_some_and(|known| known.mute) {
            self.bring_down(node);
        } else if let Some(check) = self.check(node) {
            check.condemned = true;
        }
    }

    /// To take it for dead once more would change nothing: it answers the suspicion, or is down when that ends.
    pub(super) fn is_being_judged(&self, node: NodeId) -> bool {
        self.table.live() > ALL_ASK && self.table.liveness(node) == Some(Liveness::Suspect)
    }

    fn bring_down(&mut self, node: NodeId) {
        let down = self.swim.find(node).map(|m| FocaMember::new(m.id().clone(), m.incarnation(), foca::State::Down));
        let wanted = self.swim.apply(down.into_iter().collect(), true);
        self.settle(wanted, Scope::These(vec![node]), None);
    }
}

// Accusations.
impl Membership {
    /// Makes a live member suspect, as a failed probe would.
    pub(super) fn accuse(&mut self, node: NodeId) {
        let Some(member) = self.swim.find(node).filter(|member| member.state() != foca::State::Down) else { return };
        let suspect = FocaMember::new(member.id().clone(), member.incarnation(), foca::State::Suspect);
        let verdict = self.swim.verdict_on(&suspect);
        let wanted = self.swim.apply(vec![suspect], true);
        self.settle(wanted, Scope::These(vec![node]), None);
        self.open(node, verdict);
    }

    /// From now on we hold it against this node that it doesn't answer.
    pub(super) fn open(&mut self, node: NodeId, verdict: Timer) {
        if self.docket.accusations.get(&node).is_some_and(|open| open.verdict == verdict) {
            return; // foca comes back to it with every probe that fails.
        }
        let live = self.swim.active().map(|member| member.id().node);
        let others = live.filter(|n| *n != node && self.table.liveness(*n) == Some(Liveness::Alive));
        let asked: BTreeSet<NodeId> = others.sample(&mut self.rng, WITNESSES).into_iter().collect();
        let now = self.timers.clock(self.now);
        let wait = patience_with(self.config.suspect_to_down, 0, asked.len());
        let accusation = Accusation { verdict, since: now, due: now + wait, asked, confirmed: BTreeSet::new() };
        self.docket.accusations.insert(node, accusation);
        self.timers.put(Pending::Verdict(node), wait, self.now);
        self.timers.put(Pending::Remind(node), self.config.probe_period, self.now);
        self.tell_of_itself(node, true);
        self.ask_witnesses(node);
    }

    fn ask_witnesses(&mut self, node: NodeId) {
        let Some(entry) = self.swim.find(node).map(identity::to_entry) else { return };
        let Some(open) = self.docket.accusations.get(&node) else { return };
        let silent: Vec<NodeId> = open.asked.difference(&open.confirmed).copied().collect();
        for witness in silent {
            self.tell(witness, vec![entry.clone()], true);
        }
    }

    /// A witness could not reach it either.
    pub(super) fn confirm(&mut self, node: NodeId, by: NodeId) {
        let now = self.timers.clock(self.now);
        let least = self.config.suspect_to_down;
        let Some(open) = self.docket.accusations.get_mut(&node).filter(|open| open.asked.contains(&by)) else { return };
        open.confirmed.insert(by);
        let due = open.since + patience_with(least, open.confirmed.len(), open.asked.len());
        if due < open.due {
            open.due = due;
            self.timers.put(Pending::Verdict(node), due.since(now), self.now);
        }
    }

    /// The accused is told again for as long as the accusation stands.
    pub(super) fn remind(&mut self, node: NodeId) {
        let Some(open) = self.docket.accusations.get(&node) else { return };
        if self.swim.is_moot(&open.verdict) {
            self.docket.accusations.remove(&node);
            return;
        }
        self.timers.put(Pending::Remind(node), self.config.probe_period, self.now);
        self.tell_of_itself(node, true);
    }

    pub(super) fn reach_verdict(&mut self, node: NodeId) {
        let now = self.timers.clock(self.now);
        let Some(open) = self.docket.accusations.get_mut(&node).filter(|open| open.due <= now) else { return };
        if self.swim.is_moot(&open.verdict) {
            self.docket.accusations.remove(&node);
            return;
        }
        if self.table.get(node).and_then(|known| known.heard).is_some_and(|at| at > open.since) {
            open.since = now;
            open.due = now + self.config.suspect_to_down;
            open.confirmed.clear();
            self.timers.put(Pending::Verdict(node), self.config.suspect_to_down, self.now);
            self.ask_witnesses(node);
            return;
        }
        if !self.is_silent() {
            return self.deliver(node);
        }
        if self.all_are_due(now) {
            let all: Vec<NodeId> = self.docket.accusations.keys().copied().collect();
            all.into_iter().for_each(|node| self.deliver(node));
        } else if now.since(self.docket.last_heard) > ALONE_AFTER {
            self.be_alone();
        } else {
            self.timers.put(Pending::Verdict(node), self.config.probe_period, self.now);
        }
    }

    fn all_are_due(&self, now: Mono) -> bool {
        let due = |node| self.docket.accusations.get(&node).is_some_and(|open| open.due <= now);
        self.swim.active().all(|member| due(member.id().node))
    }

    fn deliver(&mut self, node: NodeId) {
        let Some(open) = self.docket.accusations.remove(&node) else { return };
        if self.swim.is_moot(&open.verdict) {
            return;
        }
        let wanted = self.swim.timer(open.verdict);
        self.settle(wanted, Scope::Nobody, None);
    }

    /// Nobody has been heard for long: the one who is cut off is this node. foca falls idle, and we start over.
    fn be_alone(&mut self) {
        let dead = self.swim.active().map(|m| FocaMember::new(m.id().clone(), m.incarnation(), foca::State::Down));
        let dead = dead.collect();
        let wanted = self.swim.apply(dead, false);
        self.settle(wanted, Scope::All, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_shrinks_with_each_witness() {
        let least = Duration::from_secs(1);
        assert_eq!(patience_with(least, 0, 3), 3 * least);
        assert_eq!(patience_with(least, 3, 3), least);
        assert_eq!(patience_with(least, 0, 0), least, "nobody else could confirm");
        let steps: Vec<Duration> = (0..=3).map(|n| patience_with(least, n, 3)).collect();
        assert!(steps.is_sorted_by(|a, b| a > b));
        assert!(steps[0] - steps[1] > steps[1] - steps[2], "the first counts most");
    }
}
