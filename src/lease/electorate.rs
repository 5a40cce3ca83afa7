//! How the holder keeps the set of voters healthy (R6, R8): grow it with the cluster, replace voters that
//! are gone, shrink it while nobody can replace them, so that losing nodes one after another never loses
//! the majority.
//!
//! A lost voter is dropped once its successor votes (three, four, three): till then it may come back and vote, and another
//! may be lost that nobody knows of yet. Only where nobody can succeed it is it dropped first.
//!
//! One voter a step, each step in force (accepted by a majority of the new set) before the next. A step that
//! finds no majority soon, or before the lease ends, is taken back: the voters return to the set before it under a later
//! id. All sets that anybody may then believe in (before, tried, before) have pairwise intersecting majorities, as after any step.

use super::proposer::{Change, Leading, Role};
use super::{Lease, Upkeep};
use crate::ids::NodeId;
use crate::law;
use crate::model::lease::Electorate;
use crate::model::node::Liveness;
use crate::plant::{Bug, is_planted};
use crate::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Nodes asked at a time whether they would do as voters.
const SPARES_TRIED: usize = 4;
/// Fewer voters don't outlive the loss of one.
const YOUNG: usize = 3;

/// The members as membership sees them, and since when.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    pub states: BTreeMap<NodeId, (Liveness, Mono)>,
    /// Were members in this life and are no more. A voter merely not heard of yet is not among them.
    pub gone: BTreeSet<NodeId>,
}

impl Members {
    pub fn set_live(&mut self, live: &BTreeMap<NodeId, Liveness>, now: Mono) {
        let before = std::mem::take(&mut self.states);
        let since = |node, state| match before.get(node) {
            Some((old, since)) if *old == state => *since,
            _ => now,
        };
        self.states = live.iter().map(|(node, state)| (*node, (*state, since(node, *state)))).collect();
        self.gone.extend(before.into_keys());
        self.gone.retain(|node| !live.contains_key(node));
    }

    /// Of one that it knows, or not yet.
    pub fn saw(&mut self, node: NodeId, state: Liveness, now: Mono) {
        self.gone.remove(&node);
        let known = self.states.entry(node).or_insert((state, now));
        if known.0 != state {
            *known = (state, now);
        }
    }

    /// Not known to be down or stopped.
    pub fn may_be_up(&self, node: NodeId) -> bool {
        !matches!(self.states.get(&node), Some((Liveness::Down | Liveness::Away, _)))
    }

    pub fn all(&self) -> impl Iterator<Item = NodeId> {
        self.states.keys().copied()
    }

    /// It was told of them in this life: at least of this node itself.
    pub fn are_known(&self) -> bool {
        !self.states.is_empty()
    }

    fn knows(&self, node: NodeId) -> bool {
        self.states.contains_key(&node)
    }

    fn been(&self, node: NodeId, state: Liveness, at_least: Duration, now: Mono) -> bool {
        self.states.get(&node).is_some_and(|(is, since)| *is == state && now.since(*since) >= at_least)
    }
}

/// 1 for one or two nodes (a second voter would only add a second way to lose the majority), else 3, else 5.
fn target_size(nodes: usize) -> usize {
    match nodes {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Add(NodeId),
    Remove(NodeId),
}

/// All that a step is decided on.
struct Survey<'a> {
    me: NodeId,
    electorate: &'a Electorate,
    members: &'a Members,
    leading: &'a Leading,
    upkeep: Upkeep,
    /// An acceptance counts as a sign of life for this long.
    fresh: Duration,
    now: Mono,
}

impl Survey<'_> {
    /// How long the holder has had no acceptance from it, within this term.
    fn silence(&self, node: NodeId) -> Duration {
        self.now.since(self.leading.heard.get(&node).copied().unwrap_or(self.leading.began))
    }

    fn answers(&self, node: NodeId) -> bool {
        node == self.me || self.leading.heard.get(&node).is_some_and(|at| self.now.since(*at) <= self.fresh)
    }

    fn is_voter(&self, node: NodeId) -> bool {
        self.electorate.voters.contains(&node)
    }

    fn voters(&self) -> impl Iterator<Item = NodeId> {
        let me = self.me;
        self.electorate.voters.iter().copied().filter(move |n| *n != me)
    }

    /// Taken from the cluster, seen or inferred: no member that this node knows, and silent.
    fn removed(&self, node: NodeId) -> bool {
        let unknown = !self.members.knows(node);
        self.members.gone.contains(&node) || (unknown && self.silence(node) >= self.upkeep.replace_after)
    }

    /// Down, and silent too: membership alone may be wrong about a voter that still answers here.
    fn dead(&self, node: NodeId) -> bool {
        let after = self.upkeep.replace_after;
        self.members.been(node, Liveness::Down, after, self.now)
            && (!self.is_voter(node) || self.silence(node) >= after)
    }

    fn mute(&self, node: NodeId) -> bool {
        self.silence(node) >= self.upkeep.replace_mute_after
    }

    /// Nodes to count on for some time: those that are merely suspect, stopped for a moment or freshly down too.
    fn lasting(&self) -> usize {
        let unheard_of = self.voters().filter(|n| !self.members.knows(*n) && !self.removed(*n)).count();
        self.members.states.keys().filter(|n| !self.dead(**n)).count() + unheard_of
    }

    fn target(&self) -> usize {
        target_size(self.lasting())
    }

    /// How long one must have been alive to be tried as a voter.
    fn admit_after(&self) -> Duration {
        let Upkeep { admit_after, admit_first_after, .. } = self.upkeep;
        if self.electorate.voters.len() < YOUNG { admit_first_after } else { admit_after }
    }

    /// When the next of those will have been that are alive and yet too new to be tried.
    fn next_admitted(&self) -> Option<Mono> {
        let alive =
            self.members.states.iter().filter(|(n, (state, _))| *state == Liveness::Alive && !self.is_voter(**n));
        alive.map(|(_, (_, since))| *since + self.admit_after()).filter(|at| *at > self.now).min()
    }

    /// Could be tried as a voter.
    fn spares(&self) -> Vec<NodeId> {
        let alive = |n: &NodeId| self.members.been(*n, Liveness::Alive, self.admit_after(), self.now);
        self.members.states.keys().copied().filter(|n| !self.is_voter(*n) && alive(n)).collect()
    }

    /// Tried, and answers as a voter would: its disk and the way there and back work.
    fn fit_spares(&self) -> Vec<NodeId> {
        self.spares().into_iter().filter(|n| self.answers(*n)).collect()
    }

    /// Early for one that is down, so that who could succeed it is known when that is due.
    fn wants_spares(&self) -> bool {
        let may_be_lost = |n| self.members.been(n, Liveness::Down, Duration::ZERO, self.now) && !self.answers(n);
        self.electorate.voters.len() < self.target()
            || self.voters().any(|n| self.removed(n) || may_be_lost(n) || self.mute(n))
    }

    /// A majority of the voters after the step answers by now.
    fn stands(&self, step: Step) -> bool {
        let mut voters = self.electorate.voters.clone();
        match step {
            Step::Add(node) => voters.insert(node),
            Step::Remove(node) => voters.remove(&node),
        };
        let answering = voters.iter().filter(|n| self.answers(**n)).count();
        answering > voters.len() / 2
    }

    /// The next step towards an electorate that is right, if one is needed and safe to take.
    fn next_step(&self) -> Option<Step> {
        if !self.members.knows(self.me) || !self.is_voter(self.me) {
            return None;
        }
        // One that was removed can't vote any more: to wait for its successor would be for nothing.
        let removed = self.voters().find(|n| self.removed(*n)).map(Step::Remove);
        let step = removed.or_else(|| self.finish_pair()).or_else(|| self.replace_lost()).or_else(|| self.resize());
        step.filter(|step| self.stands(*step))
    }

    /// An even set tolerates no more than the odd one below it: complete what made it even before anything else begins.
    fn finish_pair(&self) -> Option<Step> {
        let size = self.electorate.voters.len();
        let wanted = size.is_multiple_of(2) && size < self.target();
        if wanted { self.fit_spares().first().copied().map(Step::Add) } else { None }
    }

    fn lost(&self) -> Option<NodeId> {
        let dead = self.voters().find(|n| self.dead(*n));
        dead.or_else(|| self.voters().find(|n| self.mute(*n)))
    }

    fn replace_lost(&self) -> Option<Step> {
        let lost = self.lost()?;
        if self.electorate.voters.len() > self.target() {
            return Some(Step::Remove(lost));
        }
        let successor = self.fit_spares().first().copied().map(Step::Add);
        // One that is alive but mute only in exchange for one that answers.
        successor.or_else(|| self.dead(lost).then_some(Step::Remove(lost)))
    }

    fn resize(&self) -> Option<Step> {
        let (size, target) = (self.electorate.voters.len(), self.target());
        if size < target {
            let fit = self.fit_spares();
            // From an odd size it takes two to reach the next; one alone would only weaken it.
            let enough = if size.is_multiple_of(2) { 1 } else { 2 };
            return if fit.len() >= enough { fit.first().copied().map(Step::Add) } else { None };
        }
        if size > target {
            return self.weakest().map(Step::Remove);
        }
        None
    }

    /// Of the voters but this node: one that doesn't answer, else one not alive, else the last by id.
    fn weakest(&self) -> Option<NodeId> {
        let alive = |n: NodeId| self.members.been(n, Liveness::Alive, Duration::ZERO, self.now);
        self.voters().min_by_key(|n| (self.answers(*n), alive(*n), std::cmp::Reverse(*n)))
    }
}

impl Lease {
    fn survey(&self, now: Mono) -> Option<Survey<'_>> {
        let Role::Leading(leading) = &self.role else { return None };
        Some(Survey {
            me: self.me,
            electorate: &self.durable.electorate,
            members: &self.members,
            leading,
            upkeep: self.upkeep,
            fresh: self.timing.acceptor,
            now,
        })
    }

    /// Nodes without a vote that get the next proposal too, because one of them may be needed as a voter.
    /// Only one that accepts it is taken: a step onto a node that doesn't answer could cost the majority.
    pub(super) fn spares_to_try(&self, now: Mono) -> Vec<NodeId> {
        let Some(survey) = self.survey(now).filter(Survey::wants_spares) else { return Vec::new() };
        let mut spares = survey.spares();
        let (answering, silent): (Vec<_>, Vec<_>) = spares.drain(..).partition(|n| survey.answers(*n));
        // Silent ones take turns, those that answer are kept fresh.
        let turn = survey.leading.turn() * SPARES_TRIED % silent.len().max(1);
        let taking_turns = silent.iter().cycle().skip(turn).take(silent.len().min(SPARES_TRIED)).copied();
        answering.into_iter().take(SPARES_TRIED).chain(taking_turns).collect()
    }

    /// Takes the next step of the electorate, or takes back one that found no majority. True if it proposed.
    pub(super) fn maintain(&mut self, now: Mono) -> bool {
        let patience = self.timing.holder / 3;
        if self.held(now).is_none() {
            return false;
        }
        let Role::Leading(leading) = &self.role else { return false };
        if let Some(change) = &leading.change {
            if is_planted(Bug::ChangesOverlap) {
                return self.step(now);
            }
            let late = now >= change.since + patience;
            let Some(previous) = change.previous.clone().filter(|_| late) else { return false };
            self.take_back(previous, now);
            return true;
        }
        if leading.committed != Some(self.durable.electorate.id)
            || !self.changes_allowed
            || now < leading.no_change_before
        {
            return false;
        }
        if self.step(now) {
            return true;
        }
        self.try_the_next_in_time(now);
        false
    }

    /// While there are fewer than three voters who could be one is tried as soon as that may be, not with the next renewal.
    fn try_the_next_in_time(&mut self, now: Mono) {
        let young = self.survey(now).filter(|survey| survey.electorate.voters.len() < YOUNG && survey.wants_spares());
        let at = young.and_then(|survey| survey.next_admitted());
        if let (Some(at), Some(leading)) = (at, self.leading()) {
            leading.renew_at = leading.renew_at.min(at);
        }
    }

    fn step(&mut self, now: Mono) -> bool {
        let Some(step) = self.survey(now).and_then(|survey| survey.next_step()) else { return false };
        let previous = self.durable.electorate.voters.clone();
        let mut voters: BTreeSet<NodeId> = previous.clone();
        match step {
            Step::Add(node) => voters.insert(node),
            Step::Remove(node) => voters.remove(&node),
        };
        if is_planted(Bug::WithoutTheOldMajority) && matches!(step, Step::Add(_)) {
            let lost = self.survey(now).and_then(|survey| survey.lost());
            lost.inspect(|lost| _ = voters.remove(lost));
        }
        debug_assert!(
            is_planted(Bug::WithoutTheOldMajority) || law::majorities_meet(&previous, &voters),
            "{previous:?} {voters:?}"
        );
        self.change_electorate(voters, Change { since: now, previous: Some(previous) }, now);
        true
    }

    fn take_back(&mut self, previous: BTreeSet<NodeId>, now: Mono) {
        let pause = self.upkeep.replace_after;
        if let Some(leading) = self.leading() {
            leading.no_change_before = now + pause;
        }
        self.change_electorate(previous, Change { since: now, previous: None }, now);
    }
}
