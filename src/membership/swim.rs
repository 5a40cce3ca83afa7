//! One foca instance and what it wants done. Drained after every call; nothing of foca's lives longer than a call
//! but the instance itself. What foca hides and we need (its timer token, our own incarnation) is read off its
//! timers and packets.

use super::Config;
use super::identity::{Identity, Member, PacketCodec, Timer, peek_incarnation};
use crate::ids::NodeId;
use crate::limits::MAX_GOSSIP_PACKET_BYTES;
use foca::{Foca, NoCustomBroadcast, Notification, PeriodicParams};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::time::Duration;

// The `unwrap`s below run in the compiler.
const GOSSIP_PERIOD: Duration = Duration::from_millis(200);
const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();
/// Small clusters repeat a rumour more often than foca's formula says: it costs nothing there, and they have few paths.
const MIN_TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(8).unwrap();
const PACKET_BYTES: NonZeroUsize = NonZeroUsize::new(MAX_GOSSIP_PACKET_BYTES).unwrap();

/// What one call to foca brought up.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub sends: Vec<(Identity, Vec<u8>)>,
    pub timers: Vec<(Duration, Timer)>,
    /// Members that foca reports a change of.
    pub changed: Vec<NodeId>,
    /// Nobody is left alive: it is us who were cut off.
    pub idle: bool,
    /// The others hold us for down.
    pub defunct: bool,
    /// foca refused the input.
    pub failed: bool,
}

impl foca::Runtime<Identity> for Wanted {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(id) | Notification::MemberDown(id) | Notification::Rename(_, id) => {
                self.changed.push(id.node);
            }
            Notification::Idle => self.idle = true,
            Notification::Defunct => self.defunct = true,
            // Rejoin can't happen: our identity doesn't renew itself.
            Notification::Active | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer, after: Duration) {
        self.timers.push((after, event));
    }
}

type Inner = Foca<Identity, PacketCodec, ChaCha8Rng, NoCustomBroadcast>;

pub(super) struct Swim {
    foca: Inner,
    config: Config,
    /// The cluster size that the configuration was made for, a power of two.
    size: u32,
    /// Ours, as last seen in a packet that foca built.
    incarnation: u16,
    /// Goes with every timer of foca's that is valid.
    token: foca::TimerToken,
    /// Where in foca's list a member was last found, which saves looking through all of it. Foca shuffles its list once
    /// a round of probes, so that this is mostly right, and it is never trusted.
    places: BTreeMap<NodeId, u32>,
}

impl Swim {
    pub fn new(me: Identity, config: Config, seed: u64) -> Self {
        let size = quantised(1);
        let foca = Foca::new(me, foca_config(config, size), ChaCha8Rng::seed_from_u64(seed), PacketCodec);
        Self { foca, config, size, incarnation: 0, token: 0, places: BTreeMap::new() }
    }

    fn call(&mut self, act: impl FnOnce(&mut Inner, &mut Wanted) -> Result<(), foca::Error>) -> Wanted {
        let mut wanted = Wanted::default();
        wanted.failed = act(&mut self.foca, &mut wanted).is_err();
        if let Some(token) = wanted.timers.iter().rev().find_map(|(_, timer)| token_of(timer)) {
            self.token = token;
        }
        if let Some(incarnation) = wanted.sends.last().and_then(|(_, packet)| peek_incarnation(packet)) {
            self.incarnation = incarnation;
        }
        wanted
    }

    pub fn packet(&mut self, packet: &[u8]) -> Wanted {
        self.call(|foca, wanted| foca.handle_data(packet, wanted))
    }

    pub fn timer(&mut self, timer: Timer) -> Wanted {
        self.call(|foca, wanted| foca.handle_timer(timer, wanted))
    }

    /// `spread`: these are news to the cluster, not only to us.
    pub fn apply(&mut self, members: Vec<Member>, spread: bool) -> Wanted {
        self.call(|foca, wanted| foca.apply_many(members.into_iter(), spread, wanted))
    }

    pub fn announce(&mut self, to: Identity) -> Wanted {
        self.call(|foca, wanted| foca.announce(to, wanted))
    }

    /// There are rumours to spread.
    pub fn has_news(&self) -> bool {
        self.foca.updates_backlog() > 0
    }

    pub fn gossip(&mut self) -> Wanted {
        self.call(|foca, wanted| foca.gossip(wanted))
    }

    /// Forgets a member that is down.
    pub fn forget_down(&mut self, node: NodeId) -> Wanted {
        match self.find(node).map(|member| member.id().clone()) {
            Some(identity) => self.timer(Timer::RemoveDown(identity)),
            None => Wanted::default(),
        }
    }

    /// Everyone foca has heard of in this life, ourselves in former lives and tombstones included.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.foca.iter_membership_state()
    }

    /// Alive or suspect.
    pub fn active(&self) -> impl Iterator<Item = &Member> {
        self.foca.iter_members()
    }

    pub fn active_count(&self) -> usize {
        self.foca.num_members()
    }

    pub fn find(&self, node: NodeId) -> Option<&Member> {
        self.foca.iter_membership_state().nth(self.place(node)?)
    }

    /// Those of them that foca has heard of, in the order of its list.
    pub fn find_all(&mut self, nodes: &BTreeSet<NodeId>) -> impl Iterator<Item = &Member> {
        let mut places = Vec::with_capacity(nodes.len());
        for node in nodes {
            if let Some(place) = self.place(*node) {
                self.places.insert(*node, place as u32);
                places.push(place);
            }
        }
        places.sort_unstable();
        places.into_iter().filter_map(|place| self.foca.iter_membership_state().nth(place))
    }

    fn place(&self, node: NodeId) -> Option<usize> {
        let is_it = |member: &Member| member.id().node == node;
        let last = self.places.get(&node).map(|place| *place as usize);
        let still = last.filter(|place| self.foca.iter_membership_state().nth(*place).is_some_and(is_it));
        still.or_else(|| self.foca.iter_membership_state().position(is_it))
    }

    /// Where everybody is now: foca shuffles its list.
    pub fn note_places(&mut self) {
        let places = (0..).zip(self.foca.iter_membership_state()).map(|(place, member)| (member.id().node, place));
        self.places = places.collect();
    }

    pub fn incarnation(&self) -> u16 {
        self.incarnation
    }

    /// The timer with which foca itself follows up a suspicion.
    pub fn verdict_on(&self, suspect: &Member) -> Timer {
        Timer::ChangeSuspectToDown {
            member_id: suspect.id().clone(),
            incarnation: suspect.incarnation(),
            token: self.token,
        }
    }

    /// A verdict whose suspect has refuted meanwhile. Foca 2.0.0 would change nothing but still tell him that he is
    /// down, and he would renew himself for nothing after every false suspicion.
    pub fn is_moot(&self, timer: &Timer) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else { return false };
        !self.members().any(|member| {
            member.id() == member_id && member.incarnation() == *incarnation && member.state() == foca::State::Suspect
        })
    }

    /// Follows the size of the cluster in powers of two, so that churn doesn't touch the configuration.
    pub fn fit(&mut self) {
        let size = quantised(self.foca.num_members() + 1);
        if size != self.size && self.foca.set_config(foca_config(self.config, size)).is_ok() {
            self.size = size;
        }
    }
}

pub(super) fn is_verdict(timer: &Timer) -> bool {
    matches!(timer, Timer::ChangeSuspectToDown { .. })
}

fn token_of(timer: &Timer) -> Option<foca::TimerToken> {
    match timer {
        Timer::ProbeRandomMember(token)
        | Timer::SendIndirectProbe { token, .. }
        | Timer::ChangeSuspectToDown { token, .. }
        | Timer::PeriodicAnnounce(token)
        | Timer::PeriodicAnnounceDown(token)
        | Timer::PeriodicGossip(token) => Some(*token),
        Timer::RemoveDown(_) => None,
    }
}

fn quantised(size: usize) -> u32 {
    u32::try_from(size).ok().and_then(u32::checked_next_power_of_two).unwrap_or(u32::MAX)
}

fn foca_config(config: Config, size: u32) -> foca::Config {
    let rtt = config.probe_rtt.max(Duration::from_millis(1));
    foca::Config {
        // The indirect stage must come before the next probe, or foca takes its own driver for broken.
        probe_period: config.probe_period.max(rtt + rtt / 2),
        probe_rtt: rtt,
        num_indirect_probes: THREE,
        max_transmissions: foca::Config::new_lan(NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN))
            .max_transmissions
            .max(MIN_TRANSMISSIONS),
        suspect_to_down_after: config.suspect_to_down,
        // A forgotten address can't be announced to, and an old rumour would bring the dead back.
        remove_down_after: None,
        max_packet_size: PACKET_BYTES,
        notify_down_members: true,
        // Both are ours: foca's stop when nobody is left.
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams { frequency: GOSSIP_PERIOD, num_members: THREE }),
    }
}
