//! Sweeps over many clusters: how fast a crash shows, that loss buries nobody, and that a cut leaves no healthy node
//! blamed. Each test is a bounded slice; `PEER_SWEEP=n` makes it n times as long. (The figures of real cores, of many
//! nodes too, are `netsim scale`'s.)

use super::sim::{MS, SEC, Sim};
use super::*;

fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

#[allow(clippy::disallowed_methods)] // A test's own setting.
fn times() -> u64 {
    std::env::var("PEER_SWEEP").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// From each crash to the moment at which each survivor holds the node for down, in order.
fn detections(count: usize, crashes: u64, loss: f64) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut sim = Sim::joined(count, 40 + count as u64);
    sim.loss = loss;
    for n in 0..crashes {
        let victim = (n as usize * 7) % count;
        sim.run(5 * SEC + Duration::from_millis(137 * n % 1_000));
        sim.reports.clear();
        sim.crash(victim);
        let start = sim.now;
        assert!(
            sim.run_until(30 * SEC, |sim| (0..count)
                .all(|by| by == victim || sim.sees(by, victim) == Some(Liveness::Down))),
            "{count} nodes, crash {n}"
        );
        let downs = sim.reports.iter().filter(|r| r.to == Liveness::Down);
        assert!(downs.clone().all(|r| r.about == victim), "somebody else is blamed");
        took.extend(downs.map(|r| r.at.since(start)));
        sim.restart(victim);
        assert!(sim.run_until(10 * SEC, Sim::all_alive));
    }
    took.sort();
    took
}

#[test]
fn half_of_all_see_a_crash_within_two_and_a_half_seconds_and_nearly_all_within_five() {
    let all = [(5, 40), (30, 4), (3, 200), (10, 100), (100, 60), (300, 30)];
    let sizes = if times() == 1 { &all[..2] } else { &all };
    for &(count, crashes) in sizes {
        for loss in [0.0, 0.05] {
            let took = detections(count, crashes, loss);
            let (p50, p99, most) = (at(&took, 0.5), at(&took, 0.99), at(&took, 1.0));
            println!("{count} nodes, loss {loss}: p50 {p50:?}, p99 {p99:?}, most {most:?}");
            assert!(p50 <= 2_500 * MS && p99 <= 5 * SEC);
        }
    }
}

/// One cut: `cut` of `count` nodes behind it, after `before` of peace, for `length`. How many times a node was held for
/// down by one on its own side of it.
fn blamed(count: usize, cut: usize, before: Duration, length: Duration, seed: u64) -> usize {
    let mut sim = Sim::joined(count, seed);
    sim.run(before);
    (0..cut).for_each(|i| sim.side[i] = 1);
    sim.run(length);
    sim.side.fill(0);
    sim.run(15 * SEC);
    assert!(sim.all_alive(), "{cut} of {count} cut off for {length:?} after {before:?}, seed {seed}");
    let same_side = |r: &&super::sim::Report| (r.by < cut) == (r.about < cut);
    sim.reports.iter().filter(|r| r.to == Liveness::Down).filter(same_side).count()
}

#[test]
fn a_cut_leaves_nobody_blamed_who_was_not_behind_it() {
    let (mut runs, mut wrong) = (0, Vec::new());
    for (count, cut) in [(3, 1), (5, 1), (5, 2), (9, 1), (9, 3), (20, 1), (20, 4)] {
        let most = if times() == 1 && count > 9 { 1 } else { 2 * times() };
        for n in 0..most {
            let step = if times() == 1 { 2 } else { 1 };
            for length in (1..=24).step_by(step).map(|half| half * 500 * MS) {
                let before = Duration::from_millis(331 * n % 3_000);
                runs += 1;
                let blames = blamed(count, cut, before, length, 1_000 * n + count as u64);
                if blames > 0 {
                    wrong.push((count, cut, before, length, n, blames));
                }
            }
        }
    }
    println!("{} of {runs} cuts left somebody blamed: {:?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    assert!(wrong.is_empty());
}

#[test]
fn one_packet_in_twenty_lost_buries_nobody_for_hours() {
    let (mut suspicions, mut downs, mut hours) = (0, 0, 0.0);
    for seed in 0..times() {
        let count = [20, 50, 100][seed as usize % 3];
        let mut sim = Sim::joined(count, 900 + seed);
        sim.loss = 0.05;
        for _ in 0..6 {
            sim.run(100 * SEC);
            suspicions += sim.reports.iter().filter(|r| r.to == Liveness::Suspect).count() / (count - 1);
            downs += sim.reports.iter().filter(|r| r.to == Liveness::Down).count();
            sim.reports.clear();
            hours += count as f64 * 100.0 / 3_600.0;
        }
    }
    println!("5 % loss for {hours:.0} node-hours: about {suspicions} suspicions, {downs} downs");
    assert_eq!(downs, 0);
}
