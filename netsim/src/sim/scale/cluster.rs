//! A cluster of one size and what is measured on it, one row after the other on the same world: real cores, all at once.

use crate::sim::plan::{Change, Op, Plan, PlannedOp, SpecKnobs, Weather};
use crate::sim::rng::Rng;
use crate::sim::world::{Ev, MS, SECOND, World};
use peer::ids::ServiceId;
use peer::model::node::Liveness;
use peer::model::record::{Key, Record};
use peer::wire::codec;
use std::collections::BTreeSet;

/// A crash that somebody hasn't seen by then counts as this long.
const UNSEEN_US: u64 = 30 * SECOND;

pub struct Cluster {
    world: World,
    rng: Rng,
}

/// In order.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<u64>);

impl Times {
    fn new(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// In seconds.
    pub fn at(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share).round() as usize).map_or(0.0, |us| *us as f64 / 1e6)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Rest {
    pub bytes: f64,
    pub messages: f64,
    /// Of the bytes, those of membership, of records and of the lease.
    pub parts: [f64; 3],
}

fn plan(nodes: usize, seed: u64) -> Plan {
    let weather = Weather {
        floor_us: 100,
        jitter_us: 300,
        loss_permille: 0,
        double_permille: 0,
        disk_us: 1_000,
        engine_us: 20_000,
        drift_ppm: 100,
        wall_off_ms: 50,
        client_every_ms: 0,
        leave_dead: false,
        retention_s: None,
    };
    let (profile, story, guards) = ("scale".to_owned(), String::new(), String::new());
    Plan { seed, profile, story, guards, nodes, secs: u64::MAX / SECOND, weather, ops: Vec::new(), faults: Vec::new() }
}

impl Cluster {
    /// One founder; all others start at one instant a second later, and this returns when all see all: after how long
    /// they did, and after how long all held the records of all.
    pub fn join(nodes: usize, seed: u64) -> (Self, f64, f64) {
        let mut world = World::measured(plan(nodes, seed), SECOND);
        // Figures are taken here, the laws of calm times are judged by the sweeps.
        world.disturbed_until = u64::MAX;
        let mut cluster = Self { world, rng: Rng::of(seed, "scale") };
        cluster.run(SECOND + 1);
        let start = cluster.world.now;
        let met = cluster.until(120 * SECOND, 50 * MS, Self::all_see_all);
        let told = cluster.until(120 * SECOND, 50 * MS, Self::all_hold_all);
        let since = |at: u64| (at - start) as f64 / 1e6;
        (cluster, since(met), since(told))
    }

    /// Likewise, until three of them vote: two have taken that on.
    pub fn comes_of_age(nodes: usize, seed: u64) -> f64 {
        let mut world = World::measured(plan(nodes, seed), SECOND);
        world.disturbed_until = u64::MAX;
        let mut cluster = Self { world, rng: Rng::of(seed, "scale") };
        cluster.run(SECOND + 1);
        let start = cluster.world.now;
        let grown = |c: &Self| c.world.live().filter(|(_, core)| core.electorate().voters.len() >= 3).count() >= 2;
        (cluster.until(120 * SECOND, 10 * MS, grown) - start) as f64 / 1e6
    }

    fn size(&self) -> usize {
        self.world.nodes.len()
    }

    pub fn run(&mut self, us: u64) {
        let end = self.world.now + us;
        self.world.run_to(end);
    }

    /// The first look at which it is true, or the end of patience.
    fn until(&mut self, patience: u64, look: u64, done: impl Fn(&Self) -> bool) -> u64 {
        let end = self.world.now + patience;
        while self.world.now < end && !done(self) {
            self.run(look);
        }
        self.world.now
    }

    fn all_see_all(&self) -> bool {
        let up = self.world.live().count();
        self.world.live().all(|(_, core)| core.members().filter(|m| m.liveness == Liveness::Alive).count() + 1 == up)
    }

    fn all_hold_all(&self) -> bool {
        let everyone = self.size();
        self.world.live().all(|(_, core)| core.store().nodes().len() >= everyone)
    }

    pub fn lose(&mut self, permille: u32) {
        self.world.net.loss_permille = permille;
    }

    // ---- the rows

    pub fn at_rest(&mut self, secs: u64) -> Rest {
        let before = self.world.net.traffic;
        self.run(secs * SECOND);
        let after = self.world.net.traffic;
        let per = |n: u64| n as f64 / (secs * self.size() as u64) as f64;
        let messages = after.iter().zip(&before).map(|(a, b)| per(a.0 - b.0)).sum();
        let parts: [f64; 3] = std::array::from_fn(|n| per(after[n].1 - before[n].1));
        Rest { bytes: parts.iter().sum(), messages, parts }
    }

    /// What the records of one core take, about: what hangs on a record is as long as it is encoded.
    pub fn record_bytes(&self) -> u64 {
        let records = self.world.live().next().into_iter().flat_map(|(_, core)| core.store().records());
        let bytes = |record: &Record| size_of::<Record>() + codec::encode(record).len();
        records.map(|record| bytes(record) as u64).sum()
    }

    fn operate(&mut self, node: usize, op: Op) {
        self.world.plan.ops.push(PlannedOp { at_ms: 0, node, again_ms: None, op });
        let number = self.world.plan.ops.len() - 1;
        self.world.operate(number);
    }

    /// From an operator's write on some node until each holds it.
    pub fn spread_of_updates(&mut self, updates: usize) -> Times {
        let name = "scale".to_owned();
        let spec = SpecKnobs::plain(3, 8_080);
        self.operate(0, Op::Create { service: name.clone(), spec });
        self.run(20 * SECOND);
        let key = Key::Service(ServiceId::of_name(self.world.cluster, &name));
        let mut took = Vec::new();
        for n in 0..updates {
            let node = self.rng.index(self.size());
            let image = format!("app:{}", n + 2);
            let start = self.world.now;
            self.operate(node, Op::Update { service: name.clone(), change: Change::Image(image) });
            let version = self.world.nodes[node].core.as_ref().and_then(|c| c.store().index(&key));
            self.world.watch(key.clone(), version.unwrap_or_default());
            self.run(10 * SECOND);
            let reached = self.world.gauge.as_ref().map(|g| g.reached.clone()).unwrap_or_default();
            took.extend(reached.into_iter().map(|at| at.map_or(UNSEEN_US, |at| at - start)));
        }
        self.world.watch_nothing();
        Times::new(took)
    }

    /// Power cuts of single nodes, without a word from the network: from each to the moment at which each of the others
    /// has the node for down. Besides, how many nodes were taken for down that were not.
    pub fn detection(&mut self, crashes: usize) -> (Times, usize) {
        let (mut took, mut wrong) = (Vec::new(), 0);
        for _ in 0..crashes {
            let pause = SECOND + self.rng.below(SECOND);
            self.run(pause);
            let victim = self.rng.index(self.size());
            wrong += self.false_downs();
            let id = self.world.nodes[victim].id;
            let start = self.world.now;
            self.world.end(victim, false, true);
            let others = self.size() - 1;
            let told = move |c: &Self| {
                let downs = c.world.gauge.iter().flat_map(|g| &g.downs).filter(|(.., about)| *about == id);
                downs.map(|(_, by, _)| *by).collect::<BTreeSet<_>>().len() == others
            };
            self.until(UNSEEN_US, 100 * MS, told);
            let downs = self.world.gauge.as_mut().map(|g| std::mem::take(&mut g.downs)).unwrap_or_default();
            let mut first = vec![None; self.size()];
            for (at, by, about) in downs {
                if about == id {
                    first[by].get_or_insert(at - start);
                } else {
                    wrong += 1;
                }
            }
            let seen = first.into_iter().enumerate().filter(|(n, _)| *n != victim);
            took.extend(seen.map(|(_, at)| at.unwrap_or(UNSEEN_US)));
            self.world.push_in(0, Ev::Start { node: victim });
            self.until(30 * SECOND, 100 * MS, Self::all_see_all);
        }
        (Times::new(took), wrong)
    }

    /// Nobody is down: how many were taken for it since the last look.
    fn false_downs(&mut self) -> usize {
        self.world.gauge.as_mut().map_or(0, |g| std::mem::take(&mut g.downs).len())
    }

    pub fn peace(&mut self, secs: u64) -> usize {
        self.false_downs();
        self.run(secs * SECOND);
        self.false_downs()
    }

    /// Single nodes stand still, one after the other. How many of the stalls made anybody take the node for down, how many
    /// others were blamed, and how long after the stall's end all saw all.
    pub fn stalls(&mut self, stalls: usize, length_ms: u64) -> (usize, usize, Times) {
        let (mut seen, mut wrong, mut back) = (0, self.false_downs(), Vec::new());
        for _ in 0..stalls {
            let node = self.rng.index(self.size());
            let id = self.world.nodes[node].id;
            self.world.nodes[node].paused_until = self.world.now + length_ms * MS;
            self.run(length_ms * MS);
            let end = self.world.now;
            back.push(self.until(30 * SECOND, 10 * MS, Self::all_see_all) - end);
            self.run(3 * SECOND);
            let downs = self.world.gauge.as_mut().map(|g| std::mem::take(&mut g.downs)).unwrap_or_default();
            seen += usize::from(downs.iter().any(|(.., about)| *about == id));
            wrong += downs.iter().filter(|(.., about)| *about != id).count();
        }
        (seen, wrong, Times::new(back))
    }

    /// From the end of a cut between halves until all see all.
    pub fn heal_of_halves(&mut self, cut_secs: u64) -> f64 {
        let half = self.size() / 2;
        let pairs: Vec<(usize, usize)> = (0..half).flat_map(|a| (half..self.size()).map(move |b| (a, b))).collect();
        for (a, b) in &pairs {
            self.world.cut(*a, *b);
            self.world.cut(*b, *a);
        }
        self.run(cut_secs * SECOND);
        for (a, b) in &pairs {
            self.world.mend(*a, *b);
            self.world.mend(*b, *a);
        }
        let start = self.world.now;
        let healed = self.until(120 * SECOND, 50 * MS, Self::all_see_all);
        self.run(20 * SECOND);
        self.false_downs();
        (healed - start) as f64 / 1e6
    }

    /// The holder's machine loses its power: until another holds the lease, has read what a majority of the voters
    /// holds, and may decide.
    pub fn new_holders(&mut self, crashes: usize) -> Times {
        let mut took = Vec::new();
        for _ in 0..crashes {
            let pause = 5 * SECOND + self.rng.below(SECOND);
            self.run(pause);
            self.until(60 * SECOND, 10 * MS, |c| c.acting().is_some());
            let Some(holder) = self.acting() else { continue };
            let start = self.world.now;
            self.world.end(holder, false, true);
            let acts = self.until(UNSEEN_US, MS, |c| c.acting().is_some());
            took.push(acts - start);
            self.run(15 * SECOND);
            self.world.push_in(0, Ev::Start { node: holder });
            self.run(5 * SECOND);
        }
        self.until(60 * SECOND, 100 * MS, Self::all_see_all);
        self.false_downs();
        Times::new(took)
    }

    fn acting(&self) -> Option<usize> {
        self.world
            .live()
            .find(|(n, core)| core.decides(self.world.nodes[*n].clock.now(self.world.now).mono))
            .map(|l| l.0)
    }

    pub fn violation(&self) -> Option<String> {
        self.world.violation.as_ref().map(|v| format!("{}: {}", v.id, v.text))
    }
}
