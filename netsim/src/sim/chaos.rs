//! Draws a plan from a seed: first what operators do all run long, then what breaks, by the profile.

use super::plan::*;
use super::rng::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Nothing breaks.
    Calm,
    /// One kind of fault, often.
    One,
    /// Each kind on or off by a coin, each with its own rate.
    Swarm,
    /// Everything at once.
    Storm,
    /// Disks that come back as they were a while before, among the rest.
    Rewind,
}

impl Profile {
    pub const ALL: [Profile; 5] = [Profile::Calm, Profile::One, Profile::Swarm, Profile::Storm, Profile::Rewind];

    pub fn name(self) -> &'static str {
        match self {
            Profile::Calm => "calm",
            Profile::One => "one",
            Profile::Swarm => "swarm",
            Profile::Storm => "storm",
            Profile::Rewind => "rewind",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == text)
    }
}

/// How big a run is to be.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub nodes: usize,
    pub secs: u64,
}

impl Default for Size {
    fn default() -> Self {
        Self { nodes: 5, secs: 300 }
    }
}

/// Kinds of faults that a profile turns on and off.
const KINDS: usize = 27;
const REWIND: usize = 14;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

pub fn draw(seed: u64, profile: Profile, size: Size) -> Plan {
    let mut rng = Rng::of(seed, "plan");
    let calm = profile == Profile::Calm;
    let weather = Weather {
        floor_us: rng.between(50, 500),
        jitter_us: if calm { rng.between(50, 500) } else { *rng.pick(&[100, 400, 2_000, 10_000]).unwrap_or(&400) },
        loss_permille: if calm { 0 } else { *rng.pick(&[0, 0, 5, 20, 50]).unwrap_or(&0) },
        double_permille: if calm { 0 } else { *rng.pick(&[0, 10, 100]).unwrap_or(&0) },
        disk_us: *rng.pick(&[300, 2_000, 15_000]).unwrap_or(&300),
        engine_us: *rng.pick(&[10_000, 50_000, 300_000]).unwrap_or(&10_000),
        drift_ppm: if calm { 100 } else { *rng.pick(&[100, 1_000, 20_000]).unwrap_or(&100) },
        wall_off_ms: if calm { 50 } else { *rng.pick(&[50, 5_000, 600_000]).unwrap_or(&50) },
        client_every_ms: 100,
        leave_dead: rng.permille(500),
        // A disk that is put back by more than the retention may bring back what was removed.
        retention_s: rng.pick(&[None, Some(15), Some(40)]).copied().flatten().filter(|_| profile != Profile::Rewind),
    };
    let mut plan = Plan {
        seed,
        profile: profile.name().to_owned(),
        story: String::new(),
        guards: String::new(),
        nodes: size.nodes,
        secs: size.secs,
        weather,
        ops: Vec::new(),
        faults: Vec::new(),
    };
    operators(&mut plan, &mut rng);
    let mut rng = Rng::of(seed, "faults");
    let on: Vec<bool> = match profile {
        Profile::Calm => vec![false; KINDS],
        Profile::One => {
            let one = (REWIND + 1 + rng.index(KINDS - 1)) % KINDS;
            (0..KINDS).map(|k| k == one).collect()
        }
        Profile::Swarm => (0..KINDS).map(|_| rng.permille(350)).collect(),
        Profile::Storm => vec![true; KINDS],
        Profile::Rewind => (0..KINDS).map(|_| rng.permille(150)).collect(),
    };
    let rewinds = profile == Profile::Rewind;
    let kinds: Vec<usize> = (0..KINDS).filter(|k| if *k == REWIND { rewinds } else { on[*k] }).collect();
    let every_ms = rng.between(4_000, 25_000);
    let mut at_ms = 15_000;
    while at_ms + 5_000 < size.secs * 1_000 && !kinds.is_empty() {
        if let Some(kind) = rng.pick(&kinds).copied() {
            let fault = fault(kind, size.nodes, &mut rng);
            plan.faults.push(PlannedFault { at_ms, fault });
        }
        at_ms += rng.between(every_ms / 4, every_ms * 2);
    }
    for rare in RARE {
        rare.add_to(&mut plan, profile);
    }
    plan.faults.sort_by_key(|fault| fault.at_ms);
    plan
}

/// What takes more luck than a fault at any time: each drawn from randomness of its own, on top, so that the rest of a seed
/// stays what it was.
struct Rare {
    purpose: &'static str,
    /// In how many seeds of one, swarm, storm and rewind, in permille.
    permille: [u32; 4],
    fault: fn(&Plan, &mut Rng) -> Option<PlannedFault>,
}

const RARE: [Rare; 4] = [
    Rare { purpose: "wall leap", permille: [60, 150, 300, 150], fault: wall_leap },
    Rare { purpose: "very narrow", permille: [60, 150, 300, 100], fault: very_narrow },
    Rare { purpose: "full at work", permille: [60, 150, 300, 150], fault: full_at_work },
    Rare { purpose: "cut at work", permille: [60, 150, 300, 150], fault: cut_at_work },
];

impl Rare {
    fn add_to(&self, plan: &mut Plan, profile: Profile) {
        let mut rng = Rng::of(plan.seed, &format!("{} of {}", self.purpose, plan.profile));
        let permille = match profile {
            Profile::Calm => 0,
            Profile::One => self.permille[0],
            Profile::Swarm => self.permille[1],
            Profile::Storm => self.permille[2],
            Profile::Rewind => self.permille[3],
        };
        if rng.permille(permille) {
            plan.faults.extend((self.fault)(plan, &mut rng));
        }
    }
}

/// Some time between the start and the end of the faults.
fn some_time(plan: &Plan, rng: &mut Rng) -> u64 {
    rng.between(15_000, (plan.secs * 1_000).saturating_sub(5_000).max(15_000))
}

/// Far beyond `limits::MAX_CLOCK_DRIFT`, which is a day.
fn wall_leap(plan: &Plan, rng: &mut Rng) -> Option<PlannedFault> {
    let at_ms = some_time(plan, rng);
    let by_ms = rng.between(2 * DAY_MS, 30 * DAY_MS) as i64;
    let by_ms = if rng.permille(600) { by_ms } else { -by_ms };
    let (for_ms, kept_ms) = (rng.between(1_000, 40_000), rng.between(1_000, 20_000));
    let fault = Fault::WallLeap { node: rng.index(plan.nodes), by_ms, for_ms, kept_ms };
    Some(PlannedFault { at_ms, fault })
}

/// Hardly enough for what nodes say to each other at rest.
fn very_narrow(plan: &Plan, rng: &mut Rng) -> Option<PlannedFault> {
    let at_ms = some_time(plan, rng);
    let fault = Fault::Narrow { bytes_per_s: rng.between(1_000, 4_000), for_ms: rng.between(5_000, 30_000) };
    Some(PlannedFault { at_ms, fault })
}

/// The disk of the node that an operator asks is full just then, and has room again while he waits.
fn full_at_work(plan: &Plan, rng: &mut Rng) -> Option<PlannedFault> {
    let op = rng.pick(&plan.ops).filter(|op| op.op != Op::Join)?;
    let fault = Fault::DiskFull { node: op.node, for_ms: rng.between(50, 800) };
    Some(PlannedFault { at_ms: op.at_ms.saturating_sub(20), fault })
}

/// The holder hears of a change to a service, and is cut off with what it makes of it: the next holder makes it again.
fn cut_at_work(plan: &Plan, rng: &mut Rng) -> Option<PlannedFault> {
    let changes: Vec<&PlannedOp> = plan.ops.iter().filter(|op| matches!(op.op, Op::Update { .. })).collect();
    let at_ms = rng.pick(&changes)?.at_ms + rng.between(0, 20);
    let fault = Fault::CutHolder { for_ms: rng.between(6_000, 20_000), both: true };
    Some(PlannedFault { at_ms, fault })
}

fn knobs(rng: &mut Rng, port: u16) -> SpecKnobs {
    SpecKnobs {
        image: "app:1".to_owned(),
        replicas: if rng.permille(800) { Some(rng.between(1, 6)) } else { None },
        port,
        health: rng.permille(300),
        start_first: rng.permille(400),
        parallelism: *rng.pick(&[1, 1, 2, 0]).unwrap_or(&1),
        on_failure: (*rng.pick(&["pause", "continue", "rollback"]).unwrap_or(&"pause")).to_owned(),
        monitor_ms: *rng.pick(&[0, 1_000, 5_000]).unwrap_or(&1_000),
        restart_ms: *rng.pick(&[500, 5_000]).unwrap_or(&500),
        reserve_milli_cpus: *rng.pick(&[0, 0, 0, 0, 250, 1_500]).unwrap_or(&0),
        host_port: if rng.permille(80) { port + 1_000 } else { 0 },
        not_on: if rng.permille(100) { Some(format!("n{}", rng.below(4))) } else { None },
    }
}

fn operators(plan: &mut Plan, rng: &mut Rng) {
    let nodes = plan.nodes;
    let services: Vec<String> = (0..rng.between(1, 3)).map(|n| format!("s{n}")).collect();
    for (n, service) in services.iter().enumerate() {
        let port = if rng.permille(800) { 8_000 + n as u16 } else { 0 };
        let op = Op::Create { service: service.clone(), spec: knobs(rng, port) };
        plan.ops.push(PlannedOp { at_ms: 4_000 + 500 * n as u64, node: rng.index(nodes), again_ms: None, op });
    }
    let every_ms = rng.between(5_000, 40_000);
    let mut at_ms = 12_000;
    let mut version = 1;
    let mut removed = 0;
    while at_ms + 2_000 < plan.secs * 1_000 {
        let service = rng.pick(&services).cloned().unwrap_or_default();
        let node = rng.index(nodes);
        let target = rng.index(nodes);
        let op = match rng.below(100) {
            0..=39 => {
                version += 1;
                let kind = match rng.below(10) {
                    0 => "-bad",
                    1 => "-sick",
                    2 => "-missing",
                    3 => "-slow",
                    4 => "-stubborn",
                    _ => "",
                };
                Op::Update { service, change: Change::Image(format!("app:{version}{kind}")) }
            }
            40..=59 => Op::Update { service, change: Change::Replicas(rng.between(0, 7)) },
            60..=64 => Op::Update { service, change: Change::Force },
            65..=72 => Op::Rollback { service },
            73..=82 => Op::Availability { target, to: "drain".to_owned() },
            83..=85 => Op::Availability { target, to: "pause".to_owned() },
            86..=94 => Op::Availability { target, to: "active".to_owned() },
            95..=97 => {
                // Gone, and soon there again.
                let remove = Op::RemoveService { service: service.clone() };
                plan.ops.push(PlannedOp { at_ms, node, again_ms: None, op: remove });
                at_ms += rng.between(10, 20_000);
                let port = 8_000 + services.iter().position(|s| *s == service).unwrap_or(0) as u16;
                Op::Create { service, spec: knobs(rng, port) }
            }
            _ if removed == 0 && nodes > 3 => {
                removed += 1;
                if rng.permille(500) {
                    // `peer leave`: its tasks first, then the node, asked of itself.
                    let drain = Op::Availability { target, to: "drain".to_owned() };
                    plan.ops.push(PlannedOp { at_ms, node: target, again_ms: None, op: drain });
                    at_ms += rng.between(500, 25_000);
                }
                if rng.permille(500) {
                    let join = PlannedOp { at_ms: at_ms + rng.below(20_000), node, again_ms: None, op: Op::Join };
                    plan.ops.push(join);
                }
                Op::RemoveNode { target }
            }
            _ => Op::Update { service, change: Change::Force },
        };
        // Sometimes two operators want the same at once, on different nodes.
        if rng.permille(150)
            && let Op::Update { service, .. } = &op
        {
            let other = Op::Update { service: service.clone(), change: Change::Replicas(rng.between(1, 5)) };
            let at_ms = at_ms + rng.below(30);
            plan.ops.push(PlannedOp { at_ms, node: rng.index(nodes), again_ms: None, op: other });
        }
        let again_ms = if rng.permille(80) { Some(rng.between(1, 4_000)) } else { None };
        plan.ops.push(PlannedOp { at_ms, node, again_ms, op });
        at_ms += rng.between(every_ms / 5, every_ms * 2);
    }
    // At the end everything may run somewhere.
    for target in 0..nodes {
        if rng.permille(700) {
            let op = Op::Availability { target, to: "active".to_owned() };
            let at_ms = plan.secs * 1_000 - 1_500 + target as u64 * 10;
            plan.ops.push(PlannedOp { at_ms, node: target, again_ms: None, op });
        }
    }
}

fn fault(kind: usize, nodes: usize, rng: &mut Rng) -> Fault {
    let node = rng.index(nodes);
    let brief = rng.between(50, 6_000);
    let long = rng.between(2_000, 45_000);
    let any = if rng.permille(500) { brief } else { long };
    match kind {
        0 => Fault::Bounce { node, down_ms: any, power: false },
        1 => Fault::Bounce { node, down_ms: any, power: true },
        2 => Fault::BounceHolder { down_ms: any },
        3 => Fault::Restart { node, down_ms: rng.between(1_500, 20_000) },
        4 => cut(nodes, any, rng),
        5 => Fault::CutHolder { for_ms: any, both: rng.permille(600) },
        6 => Fault::Loss { permille: rng.between(50, 500) as u32, for_ms: any },
        7 => Fault::Latency { extra_ms: rng.between(5, 800), for_ms: any },
        8 => Fault::Pause { node, for_ms: any },
        9 => Fault::PauseHolder { for_ms: rng.between(500, 8_000) },
        10 => Fault::Slow { node, cost_us: rng.between(100, 20_000), for_ms: any },
        11 => Fault::WallJump { node, by_ms: rng.between(0, 7_200_000) as i64 - 3_600_000 },
        12 => Fault::DiskSlow { node, extra_ms: rng.between(5, 2_000), for_ms: any },
        // Some so short that an operator still gets his answer.
        13 => Fault::DiskFull { node, for_ms: if rng.permille(500) { rng.between(200, 1_500) } else { any } },
        REWIND => Fault::Rewind { node, back_ms: rng.between(5_000, 60_000), down_ms: rng.between(500, 10_000) },
        15 => Fault::EngineDown { node, for_ms: any },
        16 => Fault::EngineRestart { node, for_ms: brief },
        17 => Fault::EngineHang { node, for_ms: any },
        18 => match rng.below(2) {
            0 => Fault::PullsFail { node, for_ms: long },
            _ => Fault::StartsFail { node, for_ms: long },
        },
        19 => match rng.below(2) {
            0 => Fault::RepliesLost { node, for_ms: long },
            _ => Fault::HintsLost { node, for_ms: long },
        },
        20 => Fault::CutHolderBounceRest { for_ms: rng.between(1_000, 8_000), down_ms: rng.between(20, 600) },
        21 => Fault::KillContainer { node, nth: rng.index(6) },
        22 => match rng.below(3) {
            0 => Fault::Clog { node, for_ms: any },
            1 => swizzle(nodes, rng),
            _ => Fault::Narrow { bytes_per_s: rng.between(2_000, 200_000), for_ms: any },
        },
        23 => Fault::Ring { order: shuffled(nodes, rng), for_ms: any },
        24 => Fault::Suspend { node, for_ms: any },
        25 => Fault::Wipe { node, down_ms: rng.between(1_000, 20_000) },
        _ => Fault::Redeliver { permille: rng.between(10, 300) as u32, for_ms: long },
    }
}

fn shuffled(nodes: usize, rng: &mut Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..nodes).collect();
    for n in (1..nodes).rev() {
        order.swap(n, rng.index(n + 1));
    }
    order
}

/// A random half, clogged at staggered times and let go in another order (FoundationDB's best finder of bugs).
fn swizzle(nodes: usize, rng: &mut Rng) -> Fault {
    let half = shuffled(nodes, rng).into_iter().take(nodes.div_ceil(2));
    let clogs = half.map(|node| {
        let from_ms = rng.between(0, 4_000);
        Clogging { node, from_ms, until_ms: rng.between(4_000, 12_000) }
    });
    Fault::Swizzle { clogs: clogs.collect() }
}

/// Halves, one alone, a bridge, two from each other, any of them one way too.
fn cut(nodes: usize, for_ms: u64, rng: &mut Rng) -> Fault {
    let order = shuffled(nodes, rng);
    let half = (nodes / 2).max(1);
    let (from, to) = match rng.below(4) {
        0 => (order[..half].to_vec(), order[half..].to_vec()),
        1 => (order[..1].to_vec(), order[1..].to_vec()),
        // The last of the middle is the bridge.
        2 => (order[..half].to_vec(), order[(half + 1).min(nodes)..].to_vec()),
        _ => (vec![order[0]], vec![order[nodes - 1]]),
    };
    Fault::Cut { from, to, both: rng.permille(650), for_ms }
}
