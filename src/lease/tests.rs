use super::sim::{MS, Network, Rule, SECOND, World, majorities_meet, node_id, timing};
use super::*;
use std::collections::BTreeSet;

fn set(nodes: &[u128]) -> BTreeSet<NodeId> {
    nodes.iter().map(|n| NodeId::from_u128(*n)).collect()
}

/// Votes of all nodes to begin with, quick upkeep, so that a short run sees much.
fn hasty(seed: u64, size: usize, voters: usize) -> World {
    let mut world = World::new(seed, size, voters);
    world.upkeep = Upkeep {
        replace_after: Duration::from_millis(1_500),
        replace_mute_after: Duration::from_secs(5),
        admit_after: Duration::from_millis(200),
    };
    world
}

/// One random fault.
fn strike(world: &mut World) {
    let size = world.nodes.len();
    let victim = world.rng.random_range(0..size);
    match world.rng.random_range(0..13) {
        0..=2 => world.crash(victim),
        3..=4 => {
            // A quick restart: the others may not even notice.
            world.crash(victim);
            world.run(200 * MS);
            world.start(victim);
        }
        5..=6 => (0..size).for_each(|node| world.start(node)),
        7 => {
            let side: Vec<usize> = (0..size).filter(|_| world.chance(50)).collect();
            world.split(&side);
        }
        8 => {
            let other = world.rng.random_range(0..size);
            world.cut.insert((victim, other));
        }
        9..=10 => world.heal(),
        11 => {
            let length = world.rng.random_range(SECOND..6 * SECOND);
            world.pause(victim, length);
        }
        _ if world.chance(50) => world.fail_writes(victim),
        _ => {
            world.call(victim, Lease::release);
            world.run(50 * MS);
            world.crash(victim);
        }
    }
}

/// Faults of every kind for a while; then they end, and a holder must be found. Says what went wrong.
fn rough_life(seed: u64, without: Option<Rule>) -> Result<u32, String> {
    let size = 3 + (seed % 4) as usize;
    let voters = [1, 3, size, 2][(seed / 4 % 4) as usize].min(size);
    let mut world = hasty(seed, size, voters);
    world.without = without;
    world.rumours = seed.is_multiple_of(3);
    world.network = Network {
        loss_percent: [0, 5, 25][(seed % 3) as usize],
        double_percent: 10,
        slow_percent: [0, 3, 20][(seed / 3 % 3) as usize],
        slow_us: 5 * SECOND,
    };
    for node in 0..size {
        world.start(node);
    }
    for _ in 0..16 {
        let pause = world.rng.random_range(50 * MS..3 * SECOND);
        world.run(pause);
        strike(&mut world);
        if let Some(violation) = world.check.violation {
            return Err(violation);
        }
    }

    // The faults end.
    world.network = Network::default();
    world.rumours = false;
    let retired: Vec<usize> = world.up().into_iter().filter(|n| world.nodes[*n].lease.as_ref().unwrap().retired).collect();
    retired.into_iter().for_each(|node| world.crash(node));
    (0..size).for_each(|node| world.start(node));
    world.heal();
    let since = world.now;
    world.run(8 * SECOND);
    let found = world.run_until(12 * SECOND, |w| w.holder().is_some());
    if let Some(violation) = world.check.violation {
        return Err(violation);
    }
    if !found {
        return Err(format!("seed {seed}: no holder {} s after the last fault", (world.now - since) / SECOND));
    }
    // And it stays.
    let reign = world.check.last;
    world.run(5 * SECOND);
    world.run(10 * SECOND);
    match world.check.violation {
        Some(violation) => Err(violation),
        None if world.holder().is_none() => Err(format!("seed {seed}: the holder {reign:?} was lost in calm weather")),
        None => Ok(world.check.reigns),
    }
}

fn first_violation(without: Rule, seeds: std::ops::Range<u64>) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| rough_life(seed, Some(without)).err().map(|what| (seed, what)))
}

#[test]
fn a_rough_life_never_sees_two_holders_and_always_finds_one_again() {
    let mut reigns = 0;
    for seed in 0..1_000 {
        reigns += rough_life(seed, None).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    assert!(reigns > 3_000, "the faults left too few elections to prove anything: {reigns}");
}
