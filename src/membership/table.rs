//! Every other node we know, by its stable id: where it is and how it lives, in our words. Foca's list is one source
//! of it; graceful goodbyes, candidates from the last life and an operator's removal are the others. Bounded.

use super::identity::{Identity, Member, to_entry};
use crate::ids::NodeId;
use crate::limits::MAX_MEMBERS;
use crate::model::node::Liveness;
use crate::time::Mono;
use crate::wire::message::{MemberEntry, MemberState};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

#[derive(Debug, Clone)]
pub(super) struct Known {
    pub addr: SocketAddr,
    /// The latest life we have heard of.
    pub bump: u64,
    pub liveness: Liveness,
    pub since: Mono,
    /// Not heard in this life of ours, but it lived when last known: announced to before the long dead.
    pub hopeful: bool,
    /// When it last spoke to us itself, in the detector's time.
    pub heard: Option<Mono>,
    /// It was asked for a sign of life and has given none since.
    pub mute: bool,
    /// As foca holds it in the life `bump`, where it does.
    held: Option<(u16, MemberState)>,
    away_until: Option<Mono>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub node: NodeId,
    pub from: Option<Liveness>,
    pub to: Liveness,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    known: BTreeMap<NodeId, Known>,
    away: BTreeSet<(Mono, NodeId)>,
    live: usize,
    /// Who was added since somebody asked.
    added: BTreeSet<NodeId>,
    /// How often somebody was taken out.
    taken_out: u64,
}

fn is_live(liveness: Liveness) -> bool {
    matches!(liveness, Liveness::Alive | Liveness::Suspect)
}

impl Table {
    pub fn get(&self, node: NodeId) -> Option<&Known> {
        self.known.get(&node)
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Known)> {
        self.known.iter().map(|(node, known)| (*node, known))
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn take_added(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.added)
    }

    pub fn taken_out(&self) -> u64 {
        self.taken_out
    }

    pub fn live(&self) -> usize {
        self.live
    }

    pub fn liveness(&self, node: NodeId) -> Option<Liveness> {
        self.known.get(&node).map(|known| known.liveness)
    }

    /// An address to announce to. Not heard yet, so not alive; refused when there is no room.
    pub fn candidate(&mut self, identity: &Identity, hopeful: bool, now: Mono) -> bool {
        if self.known.len() >= MAX_MEMBERS && !self.known.contains_key(&identity.node) {
            return false;
        }
        let added = &mut self.added;
        let known = self.known.entry(identity.node).or_insert_with(|| {
            added.insert(identity.node);
            Known {
                addr: identity.addr,
                bump: identity.bump,
                liveness: Liveness::Down,
                since: now,
                hopeful,
                heard: None,
                mute: false,
                held: None,
                away_until: None,
            }
        });
        if identity.bump > known.bump && !is_live(known.liveness) {
            (known.addr, known.bump, known.held) = (identity.addr, identity.bump, None);
        }
        true
    }

    /// foca was told exactly this, and would learn nothing.
    pub fn holds(&self, entry: &MemberEntry) -> bool {
        let Some(known) = self.known.get(&entry.node) else { return false };
        known.bump == entry.bump
            && known.addr == entry.addr
            && known.held.is_some_and(|(incarnation, state)| {
                state == entry.state && (incarnation == entry.incarnation || state == MemberState::Down)
            })
    }

    /// foca starts over and has forgotten all.
    pub fn forget_held(&mut self) {
        self.known.values_mut().for_each(|known| known.held = None);
    }

    pub fn hear(&mut self, node: NodeId, now: Mono) {
        if let Some(known) = self.known.get_mut(&node) {
            (known.heard, known.mute) = (Some(now), false);
        }
    }

    pub fn found_mute(&mut self, node: NodeId) {
        if let Some(known) = self.known.get_mut(&node) {
            known.mute = true;
        }
    }

    /// The node that has been down the longest, which has to make room for a live one.
    pub fn longest_down(&self) -> Option<NodeId> {
        let down = self.known.iter().filter(|(_, known)| known.liveness == Liveness::Down);
        down.min_by_key(|(node, known)| (known.since, **node)).map(|(node, _)| *node)
    }

    /// What foca holds of a member. Says whether the address is new to us, too.
    pub fn observe(&mut self, member: &Member, now: Mono) -> (Option<Change>, bool) {
        let identity = member.id();
        let before = self.liveness(identity.node);
        if before.is_none() && !self.candidate(identity, false, now) {
            return (None, false);
        }
        let Some(known) = self.known.get_mut(&identity.node) else { return (None, false) };
        let to = match member.state() {
            foca::State::Alive => Liveness::Alive,
            foca::State::Suspect => Liveness::Suspect,
            foca::State::Down if known.away_until.is_some() => Liveness::Away,
            foca::State::Down => Liveness::Down,
        };
        let mut moved = false;
        if identity.bump >= known.bump {
            moved = before.is_some() && known.addr != identity.addr;
            (known.addr, known.bump) = (identity.addr, identity.bump);
            let entry = to_entry(member);
            known.held = Some((entry.incarnation, entry.state));
        }
        if before == Some(to) && to != Liveness::Down {
            return (None, moved);
        }
        if to == Liveness::Down {
            known.hopeful = false;
        }
        (self.turn(identity.node, before, to, now), moved)
    }

    fn turn(&mut self, node: NodeId, from: Option<Liveness>, to: Liveness, now: Mono) -> Option<Change> {
        let known = self.known.get_mut(&node)?;
        let was = known.liveness;
        if was == to && from.is_some() {
            return None;
        }
        known.liveness = to;
        if was != to {
            known.since = now;
        }
        if is_live(to)
            && let Some(until) = known.away_until.take()
        {
            self.away.remove(&(until, node));
        }
        if is_live(to) {
            known.hopeful = false;
        }
        self.live = self.live + usize::from(is_live(to)) - usize::from(is_live(was));
        // A dead stranger is no news.
        if from.is_none() && to == Liveness::Down { None } else { Some(Change { node, from, to }) }
    }

    /// It said goodbye and means to be back before `until`.
    pub fn set_away(&mut self, node: NodeId, until: Mono, now: Mono) -> Option<Change> {
        let known = self.known.get_mut(&node)?;
        if let Some(old) = known.away_until.replace(until) {
            self.away.remove(&(old, node));
        }
        self.away.insert((until, node));
        let from = Some(known.liveness);
        self.turn(node, from, Liveness::Away, now)
    }

    pub fn set_down(&mut self, node: NodeId, now: Mono) -> Option<Change> {
        let known = self.known.get_mut(&node)?;
        if let Some(until) = known.away_until.take() {
            self.away.remove(&(until, node));
        }
        let from = Some(known.liveness);
        self.turn(node, from, Liveness::Down, now)
    }

    pub fn next_grace_end(&self) -> Option<Mono> {
        self.away.first().map(|(until, _)| *until)
    }

    /// The next node whose grace is over.
    pub fn overdue(&self, now: Mono) -> Option<NodeId> {
        self.away.first().filter(|(until, _)| *until <= now).map(|(_, node)| *node)
    }

    /// We were the one who was cut off: all that we hold for down may well be alive.
    pub fn hope(&mut self) {
        for known in self.known.values_mut().filter(|known| known.liveness == Liveness::Down) {
            known.hopeful = true;
        }
    }

    pub fn remove(&mut self, node: NodeId) -> Option<Known> {
        let known = self.known.remove(&node)?;
        self.taken_out += 1;
        self.added.remove(&node);
        if let Some(until) = known.away_until {
            self.away.remove(&(until, node));
        }
        self.live -= usize::from(is_live(known.liveness));
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn member(n: u128, bump: u64, state: foca::State) -> Member {
        Member::new(Identity::new(NodeId::from_u128(n), ([10, 0, 0, 1], 1).into(), bump), 0, state)
    }

    #[test]
    fn a_goodbye_outlives_focas_verdict_and_ends_with_the_grace_or_the_return() {
        let node = NodeId::from_u128(1);
        let mut table = Table::default();
        let (up, _) = table.observe(&member(1, 1, foca::State::Alive), Mono(1));
        assert_eq!(up, Some(Change { node, from: None, to: Liveness::Alive }));
        let until = Mono(1) + Duration::from_secs(30);
        assert!(table.set_away(node, until, Mono(2)).is_some());
        assert_eq!(table.observe(&member(1, 1, foca::State::Down), Mono(3)), (None, false));
        assert_eq!((table.liveness(node), table.live()), (Some(Liveness::Away), 0));
        assert_eq!((table.next_grace_end(), table.overdue(Mono(3))), (Some(until), None));

        let (back, _) = table.observe(&member(1, 2, foca::State::Alive), Mono(4));
        assert_eq!(back, Some(Change { node, from: Some(Liveness::Away), to: Liveness::Alive }));
        assert_eq!((table.next_grace_end(), table.live()), (None, 1));

        table.set_away(node, until, Mono(5));
        assert_eq!(table.overdue(until), Some(node));
        let down = table.set_down(node, until);
        assert_eq!(down, Some(Change { node, from: Some(Liveness::Away), to: Liveness::Down }));
        assert_eq!(table.overdue(until), None);
    }

    /// Who is told of the newcomers alone must be told of all once somebody was taken out.
    #[test]
    fn newcomers_are_named_once_and_who_is_taken_out_is_counted() {
        let mut table = Table::default();
        table.candidate(member(1, 1, foca::State::Alive).id(), true, Mono(1));
        table.observe(&member(2, 1, foca::State::Alive), Mono(1));
        assert_eq!(table.take_added(), BTreeSet::from([1, 2].map(NodeId::from_u128)));
        table.observe(&member(2, 1, foca::State::Suspect), Mono(2));
        assert_eq!((table.take_added().len(), table.taken_out()), (0, 0));
        table.observe(&member(3, 1, foca::State::Alive), Mono(3));
        table.remove(NodeId::from_u128(3));
        assert_eq!((table.take_added().len(), table.taken_out()), (0, 1));
    }

    #[test]
    fn is_bounded_and_knows_who_has_to_make_room() {
        let mut table = Table::default();
        for n in 0..MAX_MEMBERS as u128 {
            assert!(table.candidate(member(n, 1, foca::State::Alive).id(), true, Mono(100 + n as u64)));
        }
        assert!(!table.candidate(member(u128::MAX, 1, foca::State::Alive).id(), true, Mono(0)));
        assert_eq!(table.observe(&member(u128::MAX, 1, foca::State::Alive), Mono(0)), (None, false));
        assert_eq!(table.longest_down(), Some(NodeId::from_u128(0)));
        table.remove(NodeId::from_u128(0));
        assert!(table.observe(&member(u128::MAX, 1, foca::State::Alive), Mono(0)).0.is_some());
    }
}
