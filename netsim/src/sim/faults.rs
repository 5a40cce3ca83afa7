//! Breaking things, as the plan says, and putting them back.

use super::disk::Image;
use super::plan::{Clogging, Fault};
use super::trace::Mark;
use super::world::{Ev, MS, SECOND, World};
use peer::core::Core;
use peer::core::face::{Event, Request, RequestId};
use peer::ids::NodeId;
use peer::model::lease::Electorate;

/// How long after a disturbance things may still be in its wake.
const WAKE_US: u64 = 45 * SECOND;

/// After nodes could not hear each other, how long they may hold each other for down.
const DEAF_US: u64 = 15 * SECOND;

impl World {
    pub(super) fn disturb(&mut self, for_us: u64) {
        self.disturbed_until = self.disturbed_until.max(self.now + for_us + WAKE_US);
    }

    /// Nothing is broken, and nothing was lately.
    pub fn is_calm(&self) -> bool {
        self.now >= self.disturbed_until && self.now > 10 * SECOND
    }

    pub(super) fn break_something(&mut self, number: usize) {
        if self.healed {
            return;
        }
        let fault = self.plan.faults[number].fault.clone();
        let count = self.nodes.len();
        let us = fault.lasts_ms() * MS;
        self.disturb(us);
        if fault.is_deafening() {
            self.shaken_until = self.shaken_until.max(self.now + us + DEAF_US);
        }
        self.trace.say(self.now, None, || format!("fault: {fault:?}"));
        let (now, holder) = (self.now, if self.trace.on { self.holder() } else { None });
        self.trace.mark(now, || {
            let nodes = if fault.nodes().is_empty() { holder.into_iter().collect() } else { fault.nodes() };
            let everywhere = matches!(
                fault,
                Fault::Loss { .. }
                    | Fault::Latency { .. }
                    | Fault::Narrow { .. }
                    | Fault::Ring { .. }
                    | Fault::Redeliver { .. }
            );
            let nodes = if everywhere { Vec::new() } else { nodes };
            let nodes = nodes.into_iter().map(|n| n % count).collect();
            Mark::Fault { nodes, until: now + us, what: format!("{fault:?}") }
        });
        let ends = |world: &mut Self| world.push_in(us, Ev::End(number));
        let until = self.now + us;
        match fault {
            Fault::Bounce { node, power, .. } => self.bounce(node % count, us, power),
            Fault::BounceHolder { .. } => {
                if let Some(node) = self.holder() {
                    self.bounce(node, us, false);
                }
            }
            Fault::Restart { node, .. } => self.restart(node % count, us),
            Fault::Cut { from, to, both, .. } => {
                let pairs: Vec<(usize, usize)> =
                    from.iter().flat_map(|a| to.iter().map(move |b| (a % count, b % count))).collect();
                self.cut_pairs(number, pairs, both);
                ends(self);
            }
            Fault::CutHolder { both, .. } => {
                if let Some(holder) = self.holder() {
                    let pairs = (0..count).filter(|n| *n != holder).map(|n| (holder, n)).collect();
                    self.cut_pairs(number, pairs, both);
                    ends(self);
                }
            }
            Fault::CutHolderBounceRest { down_ms, .. } => {
                if let Some(holder) = self.holder() {
                    let rest: Vec<usize> = (0..count).filter(|n| *n != holder).collect();
                    self.cut_pairs(number, rest.iter().map(|n| (holder, *n)).collect(), true);
                    ends(self);
                    for node in rest {
                        self.bounce(node, down_ms * MS, false);
                    }
                }
            }
            Fault::Loss { permille, .. } => {
                self.net.loss_permille = permille;
                ends(self);
            }
            Fault::Latency { extra_ms, .. } => {
                self.net.extra_us = extra_ms * MS;
                ends(self);
            }
            Fault::Pause { node, .. } => self.pause(node % count, until),
            Fault::PauseHolder { .. } => {
                if let Some(node) = self.holder() {
                    self.pause(node, until);
                }
            }
            Fault::Slow { node, cost_us, .. } => {
                self.nodes[node % count].slow_until = until;
                self.nodes[node % count].slow_cost = cost_us;
            }
            Fault::WallJump { node, by_ms } => self.nodes[node % count].clock.jump(by_ms),
            Fault::WallLeap { node, by_ms, .. } => {
                if self.leap(node % count, by_ms) {
                    ends(self);
                }
            }
            Fault::DiskSlow { node, extra_ms, .. } => {
                self.nodes[node % count].disk.slow_until = until;
                self.nodes[node % count].disk.slow_us = extra_ms * MS;
            }
            Fault::DiskFull { node, .. } => self.nodes[node % count].disk.full_until = until,
            Fault::Rewind { node, back_ms, .. } => {
                let node = node % count;
                if self.nodes[node].gone || self.nobody_could_tell(node) {
                    return;
                }
                self.end(node, false, true);
                let now = self.now;
                self.nodes[node].disk.rewind(now, back_ms * MS);
                self.check.disks[node].put_back(self.nodes[node].disk.image());
                self.nodes[node].lost_disk = true;
                self.check.disk_was_lost(node);
                self.push_in(us, Ev::Start { node });
            }
            Fault::EngineDown { node, .. } => self.engine_down(node % count, us, false),
            Fault::EngineRestart { node, .. } => self.engine_down(node % count, us, true),
            Fault::EngineHang { node, .. } => self.engine_hang(node % count, us),
            Fault::PullsFail { node, .. } => self.nodes[node % count].engine.pulls_fail_until = until,
            Fault::StartsFail { node, .. } => self.nodes[node % count].engine.starts_fail_until = until,
            Fault::RepliesLost { node, .. } => self.nodes[node % count].engine.replies_lost_until = until,
            Fault::HintsLost { node, .. } => self.nodes[node % count].engine.hints_lost_until = until,
            Fault::Clog { node, .. } => self.net.clogs.push((node % count, self.now, until)),
            Fault::Swizzle { clogs } => {
                let of = |c: &Clogging| (c.node % count, self.now + c.from_ms * MS, self.now + c.until_ms * MS);
                let clogs: Vec<_> = clogs.iter().map(of).collect();
                self.net.clogs.extend(clogs);
            }
            Fault::Narrow { bytes_per_s, .. } => {
                self.net.bytes_per_s = bytes_per_s.max(1_000);
                ends(self);
            }
            Fault::Ring { order, .. } => {
                let ring: Vec<usize> = order.iter().map(|n| n % count).collect();
                // So many on each side make a majority with the node itself.
                let hears = (ring.len() / 2).div_ceil(2);
                let apart = |a: usize, b: usize| a.abs_diff(b).min(ring.len() - a.abs_diff(b)) > hears;
                let all = (0..ring.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
                let pairs = all.filter(|(a, b)| apart(*a, *b)).map(|(a, b)| (ring[a], ring[b])).collect();
                self.cut_pairs(number, pairs, true);
                ends(self);
            }
            Fault::Redeliver { permille, .. } => {
                self.net.redeliver_permille = permille;
                ends(self);
            }
            Fault::Suspend { node, .. } => {
                let node = node % count;
                self.probes.hit("a machine was suspended");
                self.pause(node, until);
                self.nodes[node].clock.suspend(self.now);
                self.engine_hang(node, us);
                ends(self);
            }
            Fault::Wipe { node, .. } => self.wipe(node % count, us),
            Fault::KillContainer { node, nth } => {
                let node = node % count;
                let running = self.nodes[node].engine.containers.iter().filter(|(_, c)| c.is_running());
                let running: Vec<(String, u32)> = running.map(|(name, c)| (name.clone(), c.run)).collect();
                if let Some((name, run)) = running.get(nth % running.len().max(1)) {
                    self.engine_exit(node, name, *run, 137, true);
                }
            }
        }
    }

    pub(super) fn end_fault(&mut self, number: usize) {
        match &self.plan.faults[number].fault {
            Fault::WallLeap { node, kept_ms, .. } => {
                let (node, kept_ms) = (node % self.nodes.len(), *kept_ms);
                self.end_leap(number, node, kept_ms);
            }
            Fault::Cut { .. } | Fault::CutHolder { .. } | Fault::CutHolderBounceRest { .. } => self.mend_pairs(number),
            Fault::Loss { .. } => self.net.loss_permille = self.plan.weather.loss_permille,
            Fault::Latency { .. } => self.net.extra_us = 0,
            Fault::Ring { .. } => self.mend_pairs(number),
            Fault::Narrow { .. } => self.net.bytes_per_s = 0,
            Fault::Redeliver { .. } => self.net.redeliver_permille = 0,
            Fault::Suspend { node, .. } => {
                let node = node % self.nodes.len();
                self.nodes[node].clock.resume(self.now);
            }
            _ => {}
        }
    }

    /// Never for less than it stands still already: what waits for its end keeps its order.
    fn pause(&mut self, node: usize, until: u64) {
        self.nodes[node].paused_until = self.nodes[node].paused_until.max(until);
    }

    /// One at a time, and one ahead only where the others can do without it: what it writes is lost with it.
    fn leap(&mut self, n: usize, by_ms: i64) -> bool {
        let is_ahead = by_ms > 0;
        let another = self.nodes.iter().any(|node| node.leapt_ms != 0 || node.is_refused);
        if another || self.nodes[n].core.is_none() || (is_ahead && !self.can_do_without(n, &[])) {
            return false;
        }
        self.probes.hit(if is_ahead { "a wall clock was days ahead" } else { "a wall clock was days behind" });
        self.nodes[n].clock.jump(by_ms);
        self.nodes[n].leapt_ms = by_ms;
        self.nodes[n].is_refused = is_ahead;
        true
    }

    /// Its clock is set; and later, as soon as the others can do without it, its machine is given up if it was ahead.
    fn end_leap(&mut self, number: usize, n: usize, kept_ms: u64) {
        if self.nodes[n].leapt_ms != 0 {
            self.set_clock(n);
            if self.nodes[n].is_refused {
                self.disturb(kept_ms * MS);
                self.push_in(kept_ms * MS, Ev::End(number));
            }
        } else if self.nodes[n].gone {
            self.nodes[n].is_refused = false;
        } else if self.nodes[n].is_refused {
            self.wipe(n, SECOND);
            if self.nodes[n].is_refused {
                self.disturb(SECOND);
                self.push_in(SECOND, Ev::End(number));
            }
        }
    }

    fn set_clock(&mut self, n: usize) {
        let off = std::mem::take(&mut self.nodes[n].leapt_ms);
        self.nodes[n].clock.jump(-off);
    }

    /// The machine is lost, and one in its place joins as anybody would: the agent draws its id at its first start. With
    /// the id and without the records it refuses to start.
    fn wipe(&mut self, n: usize, us: u64) {
        if self.nodes[n].gone || self.nodes[n].life == 0 || !self.can_do_without(n, &[]) {
            return;
        }
        self.end(n, false, true);
        let now = self.now;
        let boot = self.boot(n, Image::new(), None);
        if Core::boot(boot, self.nodes[n].clock.now(now)).is_ok() {
            return self.violate("boot", || format!("n{n} starts without what it promised"));
        }
        let id = NodeId::from_u128(self.rng.draw_u128());
        let old = std::mem::replace(&mut self.nodes[n].id, id);
        self.by_id.remove(&old);
        self.replaced.push(old);
        self.by_id.insert(id, n);
        self.nodes[n].first = None;
        self.nodes[n].banned.clear();
        self.set_clock(n);
        self.nodes[n].clock.is_anothers();
        self.nodes[n].is_refused = false;
        self.nodes[n].disk.wipe();
        self.check.disks[n].put_back(self.nodes[n].disk.image());
        self.nodes[n].engine.wipe();
        self.check.is_another(n);
        self.probes.hit("a node was replaced by one with an empty disk");
        self.push_in(us, Ev::Start { node: n });
    }

    fn bounce(&mut self, node: usize, us: u64, power: bool) {
        if self.nodes[node].core.is_some() {
            self.trace.say(self.now, Some(node), || if power { "POWER CUT".into() } else { "KILLED".into() });
            self.end(node, false, power);
            self.push_in(us, Ev::Start { node });
        }
    }

    fn restart(&mut self, node: usize, us: u64) {
        if self.nodes[node].core.is_none() || self.nodes[node].back_at.is_some() {
            return;
        }
        // The goodbye takes a moment; whoever hangs in it is killed.
        let back = self.now + us.max(SECOND);
        self.nodes[node].back_at = Some(back);
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.feed(node, Event::Request { id, request: Request::Stop });
        self.push_at(back, Ev::Start { node });
    }

    fn cut_pairs(&mut self, number: usize, pairs: Vec<(usize, usize)>, both: bool) {
        let mut cut = Vec::new();
        for (a, b) in pairs.into_iter().filter(|(a, b)| a != b) {
            cut.push((a, b));
            if both {
                cut.push((b, a));
            }
        }
        for (a, b) in &cut {
            self.cut(*a, *b);
        }
        self.cuts.insert(number, cut);
    }

    fn mend_pairs(&mut self, number: usize) {
        for (a, b) in self.cuts.remove(&number).unwrap_or_default() {
            self.mend(a, b);
        }
    }

    /// The faults are over: what is healed is healed, what is dead stays dead if the rest can do without it.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.disturb(0);
        for number in self.cuts.keys().copied().collect::<Vec<_>>() {
            self.mend_pairs(number);
        }
        self.net.loss_permille = self.plan.weather.loss_permille;
        self.net.extra_us = 0;
        self.net.bytes_per_s = 0;
        self.net.redeliver_permille = 0;
        self.net.clogs.clear();
        let now = self.now;
        for n in 0..self.nodes.len() {
            self.nodes[n].clock.resume(now);
            self.set_clock(n);
            // Who is paused is so to the end of it: what waits for that keeps its order.
            let node = &mut self.nodes[n];
            node.slow_until = 0;
            node.disk.full_until = 0;
            node.disk.slow_until = 0;
            node.engine_back_at = now;
            node.engine.hung_until = node.engine.hung_until.min(now);
            node.engine.pulls_fail_until = 0;
            node.engine.starts_fail_until = 0;
            node.engine.replies_lost_until = 0;
            node.engine.hints_lost_until = 0;
            if !node.engine.up {
                self.engine_back(n);
            }
        }
        let down: Vec<usize> =
            (0..self.nodes.len()).filter(|n| self.nodes[*n].core.is_none() && !self.nodes[*n].gone).collect();
        let mut dead = Vec::new();
        for node in down {
            if self.plan.weather.leave_dead && self.nodes[node].life > 0 && self.can_do_without(node, &dead) {
                dead.push(node);
                self.nodes[node].gone = true;
                self.check.left_dead.insert(self.nodes[node].id);
            } else {
                self.push_in(MS, Ev::Start { node });
            }
        }
        self.trace.say(now, None, || format!("HEALED; left dead: {dead:?}"));
        self.remove_replaced();
    }

    /// A voter whose disk was put back may have to wait for everybody's word. So where that happened operators do as they are
    /// told, and remove the machines that don't come back.
    fn remove_replaced(&mut self) {
        if !self.nodes.iter().any(|node| node.lost_disk) {
            return;
        }
        for id in std::mem::take(&mut self.replaced) {
            let Some(node) = self.answering(0) else { return };
            self.next_request += 1;
            let request = Request::RemoveNode { id, force: true };
            self.feed(node, Event::Request { id: RequestId(self.next_request), request });
        }
    }

    /// What it forgets takes all others to tell, or enough of those that are certain; some of all are lost for good without an
    /// operator's word, and enough would not be left (seed 32494 of rewind at 600 s).
    fn nobody_could_tell(&self, node: usize) -> bool {
        let lost = |voter: &NodeId| self.index_of(*voter).is_none_or(|n| self.nodes[n].gone);
        self.voters.iter().any(lost) && !self.can_do_without(node, &[])
    }

    /// A majority of every electorate that anyone may go by is left without these; of the one in force, too, which its holder goes
    /// back to if it doesn't hear in time that the next was accepted (seed 30368 of rewind at 600 s).
    fn can_do_without(&self, node: usize, dead: &[usize]) -> bool {
        let on_disk = |n: &super::world::Node| Core::lease_on_disk(n.disk.image()).map(|d| d.electorate);
        let in_use = |n: &super::world::Node| n.core.as_ref().map(|c| c.electorate().clone());
        let known: Vec<Electorate> = self.nodes.iter().flat_map(|n| [on_disk(n), in_use(n)]).flatten().collect();
        let latest = known.iter().map(|e| e.id).max();
        let all_of = |e: &&Electorate| Some(e.id) == latest || e.voters.contains(&self.nodes[node].id);
        let left: Vec<_> = (0..self.nodes.len())
            .filter(|n| *n != node && !dead.contains(n) && !self.nodes[*n].gone)
            // Whose disk was put back has no vote until enough others have told it what is promised.
            .filter(|n| self.nodes[*n].core.as_ref().is_none_or(|c| !c.is_in_doubt()))
            // Who is refused has to go, too; who was removed has gone for the others already (seed 234 of one).
            .filter(|n| !self.nodes[*n].is_refused)
            .filter(|n| !self.nodes.iter().any(|other| other.banned.contains(&self.nodes[*n].id)))
            .map(|n| self.nodes[n].id)
            .collect();
        let in_force = self.voters.iter().filter(|v| left.contains(v)).count() * 2 > self.voters.len();
        known.iter().filter(all_of).all(|e| e.is_majority(&left)) && in_force && left.len() >= 2
    }
}
