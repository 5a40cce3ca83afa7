//! What can happen next, and what comes of it.

use super::state::{Letter, Peer, State, index, node_id, term};
use super::{World, properties};
use crate::law::Breach;
use peer::lease::{Durable, Output};
use peer::plant::{Bug, is_planted};
use peer::wire::message::LeaseMessage;
use stateright::{Model, Property};
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The letter at this place arrives. It stays: it may arrive again.
    Arrive { letter: usize, dies: Dies },
    /// A node acts on a deadline that has come.
    Wake { node: usize, dies: Dies },
    /// Time passes: every clock moves on by one step, or by two where the node's bit is set.
    Tick { fast: u32 },
    /// A node ends, and starts again from its disk.
    Restart { node: usize },
}

/// Before which of the writes that come of it, if any, the node dies: that one is lost, and what waited for it.
pub type Dies = Option<u8>;

/// More writes than this come of no event.
const MOST_WRITES: u8 = 3;

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(&self.scenario)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // What follows on a broken law proves nothing.
        if state.breach.is_some() || self.is_over() {
            return;
        }
        let bounds = self.scenario.bounds;
        let deaths = if state.spent.restarts < bounds.restarts { MOST_WRITES } else { 0 };
        let ends = || std::iter::once(None).chain((0..deaths).map(Some));
        for (node, peer) in state.nodes.iter().enumerate() {
            let may = node < bounds.candidates || peer.lease.ballot().is_some() || peer.lease.is_in_doubt();
            if may && peer.lease.deadline().is_some_and(|at| at <= peer.now) {
                actions.extend(ends().map(|dies| Action::Wake { node, dies }));
            }
            if deaths > 0 {
                actions.push(Action::Restart { node });
            }
        }
        let paced = |fast: u32| state.nodes.iter().enumerate().all(|(n, p)| fast >> n & 1 == 0 || p.has_a_pace());
        let paces = if bounds.fast { 1 << state.nodes.len() } else { 1 };
        actions.extend((0..paces).filter(|fast| paced(*fast)).map(|fast| Action::Tick { fast }));
        for letter in 0..state.letters.len() {
            actions.extend(ends().map(|dies| Action::Arrive { letter, dies }));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        match action {
            Action::Arrive { letter, dies } => {
                let letter = &last.letters[letter];
                self.happen(last, letter.to, dies, Some(letter))
            }
            Action::Wake { node, dies } => self.happen(last, node, dies, None),
            Action::Tick { fast } => {
                let mut next = last.clone();
                let mut same = true;
                for (node, peer) in next.nodes.iter_mut().enumerate() {
                    if let Some(older) = peer.older(fast >> node & 1 == 1) {
                        same = false;
                        *peer = Arc::new(older);
                    }
                }
                (!same).then_some(next)
            }
            Action::Restart { node } => {
                let mut next = last.clone();
                self.restart(&mut next, node);
                Some(next)
            }
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.scenario)
    }
}

impl World {
    /// Something happens to `node`, and all that comes of it at once: what it tells itself arrives when its writes are done.
    /// `None` if that changes nothing or lies outside the bounds.
    fn happen(&self, last: &State, node: usize, dies: Dies, letter: Option<&Letter>) -> Option<State> {
        let mut peer = Peer::clone(&last.nodes[node]);
        match letter {
            Some(Letter { from, message, .. }) => peer.lease.handle(node_id(*from), message.clone(), peer.now),
            None => peer.lease.handle_deadline(peer.now),
        }
        let mut writes = 0;
        let mut breach = None;
        let mut dead = false;
        let mut posted = Vec::new();
        let mut in_force = Vec::new();
        let mut to_itself = VecDeque::new();
        let mut elections = 0;
        loop {
            while let Some(output) = peer.lease.poll_output() {
                match output {
                    Output::Persist(durable) => {
                        dead |= dies == Some(writes);
                        writes += 1;
                        if !dead {
                            breach = breach.or_else(|| goes_back(&peer.disk, &durable));
                            elections += u8::from(durable.round_used > peer.disk.round_used);
                            peer.disk = durable;
                        }
                    }
                    Output::Send { .. } if dead && !is_planted(Bug::AckBeforeFsync) => {}
                    Output::Send { to, message } if index(to) == node => to_itself.push_back(message),
                    Output::Send { message: LeaseMessage::Held { .. } | LeaseMessage::Newer { .. }, .. }
                        if !self.scenario.refusals => {}
                    Output::Send { to, message } => posted.push(Letter::new(node, index(to), message)),
                    Output::Electorate(electorate) => in_force.push(electorate),
                    Output::Acquired(_) | Output::Lost(_) => {}
                }
            }
            let Some(message) = to_itself.pop_front().filter(|_| !dead) else { break };
            peer.lease.handle(node_id(node), message, peer.now);
        }
        // A death that no write was under way for is a restart after the event.
        if dies.is_some() != dead {
            return None;
        }
        peer.settle();
        let before = &last.nodes[node];
        // Saying again what was said changes nothing, as no letter is ever lost for good.
        let goes_on = writes == 0 && peer.held == before.held && peer.lease.ballot() == before.lease.ballot();
        let same = peer.is_like(before) || (letter.is_none() && goes_on);
        let mut next = last.clone();
        next.spent.elections += elections;
        note(&mut next, breach);
        let before = last.nodes[node].disk.electorate.id;
        if peer.disk.electorate.id != before {
            self.check_stored(&mut next, &peer);
        }
        next.nodes[node] = Arc::new(peer);
        for electorate in in_force {
            let breach = Arc::make_mut(&mut next.electorates).comes_into_force(&electorate);
            note(&mut next, breach);
            // The records carry it, to whom and whenever.
            if self.scenario.changes {
                for to in (0..self.scenario.nodes).filter(|to| *to != node) {
                    let message = LeaseMessage::Newer { electorate: electorate.clone() };
                    posted.push(Letter::new(node, to, message));
                }
            }
        }
        let refusals = self.scenario.refusals;
        next.forget_spent(node, refusals);
        let mut news = false;
        for letter in posted {
            if self.is_beyond(&letter) {
                return None;
            }
            if !next.is_spent(&letter, refusals) {
                news |= next.post(letter);
            }
        }
        if dead {
            self.restart(&mut next, node);
        } else if same && !news {
            return None;
        } else {
            begin_holding(&mut next, last, node);
        }
        (next.spent.elections <= self.scenario.bounds.elections).then_some(next)
    }

    fn is_beyond(&self, letter: &Letter) -> bool {
        matches!(letter.message, LeaseMessage::Propose { seq, .. } if seq > self.scenario.bounds.proposals)
    }

    fn restart(&self, state: &mut State, node: usize) {
        let peer = &state.nodes[node];
        state.spent.restarts += 1;
        state.spent.held_before_a_restart |= state.holders.last().is_some();
        let started = Peer::start(&self.scenario, node, peer.disk.clone(), state.spent.restarts, peer.now);
        state.nodes[node] = Arc::new(started);
    }

    /// One id names one set of voters, wherever it is written or on its way.
    fn check_stored(&self, state: &mut State, peer: &Peer) {
        let stored = &peer.disk.electorate;
        let sent = state.letters.iter().filter_map(|letter| match &letter.message {
            LeaseMessage::Prepare { electorate, .. }
            | LeaseMessage::Propose { electorate, .. }
            | LeaseMessage::Newer { electorate } => Some(electorate),
            _ => None,
        });
        let known = state.nodes.iter().map(|peer| &peer.disk.electorate).chain(sent);
        let mut others = known.filter(|other| other.id == stored.id && other.voters != stored.voters);
        let breach =
            others.next().map(|other| Breach::of("L6", format!("one id, two electorates: {stored:?} and {other:?}")));
        note(state, breach);
    }
}

/// What a voter's disk binds it to only grows.
fn goes_back(old: &Durable, new: &Durable) -> Option<Breach> {
    let grows =
        new.promised >= old.promised && new.electorate.id >= old.electorate.id && new.round_used >= old.round_used;
    (!grows).then(|| Breach::of("L4", format!("what a disk binds its voter to goes back: {old:?}, then {new:?}")))
}

fn begin_holding(next: &mut State, last: &State, node: usize) {
    let Some(held) = next.nodes[node].held else { return };
    if last.nodes[node].held == Some(held) {
        return;
    }
    let others: Vec<_> = next.nodes.iter().enumerate().filter_map(|(n, peer)| Some((n, peer.held?))).collect();
    let breach = next.holders.begins(node, held, others);
    note(next, breach);
}

fn note(state: &mut State, breach: Option<Breach>) {
    if state.breach.is_none() {
        state.breach = breach.map(Arc::new);
    }
}

/// A path for people.
pub fn story(path: Vec<(State, Option<Action>)>) -> Vec<String> {
    let mut lines: Vec<String> = path.windows(2).map(|pair| line(&pair[0].0, pair[0].1, &pair[1].0)).collect();
    lines.extend(path.last().and_then(|(state, _)| state.breach.as_ref()).map(|breach| breach.text.clone()));
    lines
}

fn line(before: &State, action: Option<Action>, after: &State) -> String {
    let death = |dies: Dies| dies.map_or(String::new(), |n| format!(" and dies before write {n} is durable"));
    let (node, text) = match action {
        None => return String::new(),
        Some(Action::Arrive { letter, dies }) => {
            let letter = &before.letters[letter];
            (letter.to, format!("{letter}{}", death(dies)))
        }
        Some(Action::Wake { node, dies }) => (node, format!("n{node} wakes{}", death(dies))),
        Some(Action::Tick { fast }) => return tick(before, fast, after),
        Some(Action::Restart { node }) => (node, format!("n{node} restarts")),
    };
    match (before.nodes[node].held, after.nodes[node].held) {
        (None, Some(held)) => format!("{text}: it holds the lease under {}", term(held)),
        (Some(held), None) => format!("{text}: it holds {} no more", term(held)),
        _ => text,
    }
}

fn tick(before: &State, fast: u32, after: &State) -> String {
    let mut text = "a step of time".to_owned();
    for (node, (old, new)) in before.nodes.iter().zip(&after.nodes).enumerate() {
        if fast >> node & 1 == 1 {
            text += &format!(", two for n{node}");
        }
        if let (Some(held), None) = (old.held, new.held) {
            text += &format!(" (n{node} holds {} no more)", term(held));
        }
    }
    text
}
