//! The network between agents, as QUIC looks from above. A link is one node's view of its connection to another: it is
//! dialed when first needed, takes a round trip, carries datagrams that may be lost and messages that are repeated until
//! they arrive, dies after a silence, and may be half open after the other side has died.

use super::rng::Rng;
use super::scale::gauge::{self, Traffic};
use super::trace::Mark;
use super::world::{Ev, MS, SECOND, World};
use peer::core::face::Event;
use peer::limits::MAX_MESSAGE_BYTES;
use peer::wire::codec;
use peer::wire::message::{LeaseMessage, Message};
use std::rc::Rc;

/// The agent's transport: silence that ends a connection, and how long a handshake may take.
const IDLE_US: u64 = 15 * SECOND;
const HANDSHAKE_US: u64 = 3 * SECOND;
/// A lost packet of a message is sent again after about this.
const RESEND_US: u64 = 60 * MS;
/// A datagram that would wait longer than this on a narrow link is lost.
const QUEUE_US: u64 = 200 * MS;
/// What comes again comes within this.
const AGAIN_US: u64 = 8 * SECOND;
/// Waiting for a connection; beyond it the oldest go.
const MAX_QUEUED: usize = 1_024;

pub type Bytes = Rc<[u8]>;

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Dialing(Vec<(bool, Bytes)>),
    Up {
        /// Which life of the other side it was made with.
        life: u32,
    },
}

#[derive(Debug, Default)]
struct Link {
    state: State,
    epoch: u32,
    /// Sent while the way was cut, to be repeated when it is not.
    stalled: Vec<Bytes>,
    /// When the silence ends it, if nothing is heard before.
    dies_at: Option<u64>,
    /// How many cuts are on this way.
    cuts: u16,
    /// When all that was put on it has left.
    free_at: u64,
}

pub struct Net {
    nodes: usize,
    /// Of thousands of nodes each talks with some.
    links: Vec<Option<Box<Link>>>,
    rng: Rng,
    pub loss_permille: u32,
    pub extra_us: u64,
    /// Bytes that each link carries in a second; 0 for as many as come.
    pub bytes_per_s: u64,
    pub redeliver_permille: u32,
    /// Nodes that hear and say nothing, each from then to then.
    pub clogs: Vec<(usize, u64, u64)>,
    pub sent: u64,
    pub bytes: u64,
    pub(super) traffic: Traffic,
}

impl Net {
    pub fn new(nodes: usize, seed: u64, loss_permille: u32) -> Self {
        let links = (0..nodes * nodes).map(|_| None).collect();
        Self {
            nodes,
            links,
            rng: Rng::of(seed, "net"),
            loss_permille,
            extra_us: 0,
            bytes_per_s: 0,
            redeliver_permille: 0,
            clogs: Vec::new(),
            sent: 0,
            bytes: 0,
            traffic: Traffic::default(),
        }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        self.links[from * self.nodes + to].get_or_insert_default()
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links[from * self.nodes + to].as_ref().is_some_and(|link| link.cuts > 0)
    }

    /// Until when nothing gets from here to there.
    fn clogged_until(&self, from: usize, to: usize, now: u64) -> Option<u64> {
        let on = self
            .clogs
            .iter()
            .filter(|(node, began, until)| (*node == from || *node == to) && (*began..*until).contains(&now));
        on.map(|(_, _, until)| *until).max()
    }

    /// How long this waits for those before it on a narrow link; `None` if the queue is too long for what may be lost.
    fn queue(&mut self, from: usize, to: usize, datagram: bool, bytes: usize, now: u64) -> Option<u64> {
        if self.bytes_per_s == 0 {
            return Some(0);
        }
        let takes = bytes as u64 * SECOND / self.bytes_per_s;
        let link = self.link(from, to);
        let waits = link.free_at.saturating_sub(now);
        if datagram && waits > QUEUE_US {
            return None;
        }
        link.free_at = now + waits + takes;
        Some(waits + takes)
    }

    pub fn is_cut_any(&self, a: usize, b: usize) -> bool {
        self.is_cut(a, b) || self.is_cut(b, a)
    }
}

/// What happens seldom and tells most: elections and goodbyes.
fn worth_drawing(bytes: &[u8]) -> Option<&'static str> {
    match codec::decode(bytes, MAX_MESSAGE_BYTES).ok()? {
        Message::Lease(LeaseMessage::Prepare { .. }) => Some("prepare"),
        Message::Lease(LeaseMessage::Promise { .. }) => Some("promise"),
        Message::Lease(LeaseMessage::Held { .. }) => Some("refused: held"),
        Message::Lease(LeaseMessage::Newer { .. }) => Some("refused: newer electorate"),
        Message::Lease(LeaseMessage::Release { .. }) => Some("release"),
        Message::Leaving { .. } => Some("goodbye"),
        _ => None,
    }
}

impl World {
    pub fn latency(&mut self) -> u64 {
        let weather = &self.plan.weather;
        weather.floor_us + self.net.rng.around(weather.jitter_us) + self.net.extra_us
    }

    fn lost(&mut self) -> bool {
        let chance = self.net.loss_permille;
        self.net.rng.permille(chance)
    }

    pub fn send(&mut self, from: usize, to: usize, datagram: bool, bytes: Vec<u8>) {
        self.net.sent += 1;
        self.net.bytes += bytes.len() as u64;
        gauge::count(&mut self.net.traffic, &bytes);
        if self.nodes[from].banned.contains(&self.nodes[to].id) {
            return;
        }
        let bytes: Bytes = bytes.into();
        match &mut self.net.link(from, to).state {
            State::Up { life } => {
                let life = *life;
                self.transmit(from, to, life, datagram, bytes);
            }
            State::Dialing(queue) => {
                queue.push((datagram, bytes));
                if queue.len() > MAX_QUEUED {
                    queue.remove(0);
                }
            }
            State::Idle => {
                let link = self.net.link(from, to);
                link.epoch += 1;
                link.state = State::Dialing(vec![(datagram, bytes)]);
                let epoch = link.epoch;
                let mut takes = self.latency() + self.latency() + self.latency();
                while takes < HANDSHAKE_US && (self.lost() || self.lost()) {
                    takes += 200 * MS;
                }
                self.push_in(takes, Ev::Dialed { from, to, epoch, began: self.now });
            }
        }
    }

    pub(super) fn dialed(&mut self, from: usize, to: usize, epoch: u32, began: u64) {
        if self.net.link(from, to).epoch != epoch || !matches!(self.net.link(from, to).state, State::Dialing(_)) {
            return;
        }
        let (us, them) = (self.nodes[from].id, self.nodes[to].id);
        let refused = self.nodes[to].banned.contains(&us) || self.nodes[from].banned.contains(&them);
        let there =
            self.nodes[to].core.is_some() && !self.net.is_cut_any(from, to) && self.nodes[to].paused_until <= self.now;
        if !there || refused {
            let until = began + HANDSHAKE_US;
            if !refused && until > self.now {
                // The handshake's packets are repeated until it is given up.
                let again = (self.now - began).max(50 * MS);
                self.push_in(again.min(until - self.now), Ev::Dialed { from, to, epoch, began });
                return;
            }
            self.net.link(from, to).state = State::Idle;
            if there && self.nodes[to].banned.contains(&us) {
                self.told_of_removal(from, to);
            }
            return;
        }
        let (our_life, their_life) = (self.nodes[from].life, self.nodes[to].life);
        let link = self.net.link(from, to);
        let queue = match std::mem::replace(&mut link.state, State::Up { life: their_life }) {
            State::Dialing(queue) => queue,
            _ => Vec::new(),
        };
        link.dies_at = None;
        // The other side has it too, in place of any with an earlier life of ours.
        let back = self.net.link(to, from);
        if !matches!(back.state, State::Dialing(_)) {
            if !matches!(back.state, State::Up { life } if life == our_life) {
                back.stalled.clear();
            }
            back.state = State::Up { life: our_life };
            back.epoch += 1;
            back.dies_at = None;
        }
        for (datagram, bytes) in queue {
            self.transmit(from, to, their_life, datagram, bytes);
        }
    }

    fn transmit(&mut self, from: usize, to: usize, life: u32, datagram: bool, bytes: Bytes) {
        if self.nodes[to].life != life || self.nodes[to].core.is_none() {
            self.probes.hit("a link was half open");
            self.doom(from, to, IDLE_US);
            return;
        }
        if self.net.is_cut(from, to) {
            if !datagram {
                self.net.link(from, to).stalled.push(bytes);
            }
            self.doom(from, to, IDLE_US);
            return;
        }
        let mut takes = self.latency();
        let Some(queued) = self.net.queue(from, to, datagram, bytes.len(), self.now) else {
            self.probes.hit("a narrow link lost a datagram");
            return;
        };
        takes += queued;
        if !self.net.clogs.is_empty()
            && let Some(until) = self.net.clogged_until(from, to, self.now)
        {
            takes += until - self.now;
        }
        let again = self.net.redeliver_permille;
        if self.net.rng.permille(again) {
            let later = takes + self.net.rng.below(AGAIN_US);
            self.probes.hit("a message came again later");
            self.push_in(later, Ev::Deliver { from, to, life, bytes: bytes.clone() });
        }
        if datagram {
            if self.lost() {
                return;
            }
            let twice = self.plan.weather.double_permille;
            if self.net.rng.permille(twice) {
                let later = takes + self.latency();
                self.push_in(later, Ev::Deliver { from, to, life, bytes: bytes.clone() });
            }
        } else {
            // Each packet of it may be lost, and is repeated with growing patience.
            let packets = 1 + bytes.len() / 1_200;
            let mut wait = RESEND_US;
            for _ in 0..packets.min(8) {
                while wait < 4 * SECOND && self.lost() {
                    takes += wait;
                    wait *= 2;
                }
            }
            // Big ones take their time: about 100 MB a second.
            takes += bytes.len() as u64 / 100;
        }
        if self.trace.on
            && let Some(what) = worth_drawing(&bytes)
        {
            let arrives = self.now + takes;
            self.trace.mark(self.now, || Mark::Sent { from, to, arrives, what });
        }
        self.push_in(takes, Ev::Deliver { from, to, life, bytes });
    }

    fn doom(&mut self, from: usize, to: usize, after: u64) {
        let at = self.now + after;
        let link = self.net.link(from, to);
        if matches!(link.state, State::Up { .. }) && link.dies_at.is_none_or(|dies| dies > at) {
            link.dies_at = Some(at);
            let epoch = link.epoch;
            self.push_at(at, Ev::LinkDead { from, to, epoch });
        }
    }

    pub(super) fn link_dead(&mut self, from: usize, to: usize, epoch: u32) {
        let now = self.now;
        let link = self.net.link(from, to);
        if link.epoch != epoch || link.dies_at != Some(now) || !matches!(link.state, State::Up { .. }) {
            return;
        }
        link.state = State::Idle;
        link.stalled.clear();
        link.dies_at = None;
        let node = self.nodes[to].id;
        self.feed(from, Event::LinkLost { node });
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.net.link(from, to).cuts += 1;
        self.doom(from, to, IDLE_US);
        self.doom(to, from, IDLE_US);
    }

    pub(super) fn mend(&mut self, from: usize, to: usize) {
        let link = self.net.link(from, to);
        link.cuts = link.cuts.saturating_sub(1);
        if self.net.is_cut_any(from, to) {
            return;
        }
        for (a, b) in [(from, to), (to, from)] {
            let (life, alive) = (self.nodes[b].life, self.nodes[b].core.is_some());
            let link = self.net.link(a, b);
            let State::Up { life: made_with } = link.state else { continue };
            if made_with != life || !alive {
                continue;
            }
            link.dies_at = None;
            let stalled = std::mem::take(&mut link.stalled);
            for bytes in stalled {
                let takes = self.latency() + self.net.rng.around(500 * MS);
                self.push_in(takes, Ev::Deliver { from: a, to: b, life, bytes });
            }
        }
    }

    /// The process at `node` is gone. Its neighbours learn of it at once when it said goodbye, soon when its machine
    /// still answers for the closed port, or by silence.
    pub(super) fn links_of_the_dead(&mut self, node: usize, goodbye: bool, power: bool) {
        for other in (0..self.nodes.len()).filter(|o| *o != node) {
            let own = self.net.link(node, other);
            own.state = State::Idle;
            own.epoch += 1;
            own.stalled.clear();
            own.dies_at = None;
            let after = if goodbye {
                self.latency()
            } else if !power && self.net.rng.permille(500) {
                self.latency() * 2 + self.net.rng.around(SECOND)
            } else {
                IDLE_US
            };
            self.doom(other, node, after);
        }
    }

    /// Closes what a ban forbids.
    pub(super) fn close_banned(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            if !self.nodes[node].banned.contains(&self.nodes[other].id) {
                continue;
            }
            let link = self.net.link(node, other);
            let was_up = matches!(link.state, State::Up { .. });
            link.state = State::Idle;
            link.epoch += 1;
            link.stalled.clear();
            if was_up {
                let takes = self.latency();
                self.doom(other, node, takes);
            }
        }
    }
}
