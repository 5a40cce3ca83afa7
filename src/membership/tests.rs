//! Stories of whole clusters on virtual time.

use super::sim::{MS, SEC, Sim, addr, id, list, timing};
use super::*;
use crate::limits::RESTART_GRACE;
use rand::RngExt;

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values[values.len() / 2]
}

fn downs(sim: &Sim) -> usize {
    sim.reports.iter().filter(|report| report.to == Liveness::Down).count()
}

fn renewals(sim: &Sim, who: impl Iterator<Item = usize>) -> u32 {
    who.map(|i| sim.nodes[i].renewals).sum()
}

#[test]
fn all_who_start_with_the_list_know_each_other_in_two_seconds() {
    for count in [1, 2, 3, 10, 50, 100] {
        let mut sim = Sim::new(count, 7 + count as u64);
        let start = sim.now;
        assert!(sim.run_until(2 * SEC, Sim::all_alive), "{count} nodes");
        println!("{count} nodes joined in {:?}, {} messages", sim.now.since(start), sim.packets);
    }
}

#[test]
fn one_joiner_who_knows_one_member_knows_all_at_once() {
    let mut sim = Sim::joined(60, 3);
    let start = sim.now;
    sim.add(1);
    assert!(sim.run_until(3 * SEC, Sim::all_alive));
    println!("the 61st joined in {:?}", sim.now.since(start));
}

#[test]
fn a_crash_is_seen_by_all_in_a_few_seconds() {
    for (count, seeds) in [(3, 9), (10, 9), (30, 3)] {
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for seed in 0..seeds {
            let mut sim = Sim::joined(count, seed);
            sim.run(Duration::from_millis(137 * seed));
            sim.crash(0);
            let start = sim.now;
            let done = sim.run_until(20 * SEC, |sim| (1..count).all(|by| sim.sees(by, 0) == Some(Liveness::Down)));
            assert!(done, "{count} nodes, seed {seed}");
            assert!(sim.reports.iter().all(|report| report.about == 0), "nobody else is blamed");
            first.push(sim.reports.iter().find(|report| report.to == Liveness::Down).unwrap().at.since(start));
            last.push(sim.now.since(start));
        }
        let worst = last.iter().max().copied().unwrap();
        let (first, last) = (median(first), median(last));
        println!("{count} nodes: crash seen first after {first:?} (p50), by all {last:?} (p50), {worst:?} (worst)");
        assert!(first <= 4 * SEC && last <= 5 * SEC && worst <= 10 * SEC);
    }
}

#[test]
fn a_dead_connection_speeds_the_verdict() {
    let mut sim = Sim::joined(10, 4);
    sim.crash(0);
    let start = sim.now;
    sim.act(5, |membership, now| membership.hint_unreachable(id(0), now));
    assert!(sim.run_until(20 * SEC, |sim| sim.sees(5, 0) == Some(Liveness::Down)));
    let took = sim.now.since(start);
    println!("down {took:?} after the hint");
    assert!(took <= 2 * timing().probe_rtt + timing().suspect_to_down + 50 * MS);
}

#[test]
fn a_wrong_hint_harms_nobody() {
    let mut sim = Sim::joined(10, 4);
    for by in 1..10 {
        sim.act(by, |membership, now| membership.hint_unreachable(id(0), now));
    }
    sim.run(10 * SEC);
    assert!(sim.reports.is_empty());
    // Cut from one node alone it is suspected at most, and refutes through the others.
    sim.act(1, |membership, _| membership.accuse(id(0)));
    assert_eq!(sim.sees(1, 0), Some(Liveness::Suspect));
    sim.run(10 * SEC);
    assert!(sim.all_alive() && downs(&sim) == 0);
}

#[test]
fn two_nodes_cut_from_each_other_find_back() {
    for seed in 0..5 {
        let mut sim = Sim::joined(2, seed);
        sim.side[1] = 1;
        sim.run(90 * SEC);
        assert_eq!((sim.sees(0, 1), sim.sees(1, 0)), (Some(Liveness::Down), Some(Liveness::Down)));
        sim.side[1] = 0;
        assert!(sim.run_until(7 * SEC, Sim::all_alive), "seed {seed}");
    }
}

#[test]
fn two_halves_find_back_without_burying_each_other() {
    for seed in 0..3 {
        let mut sim = Sim::joined(20, seed);
        (10..20).for_each(|i| sim.side[i] = 1);
        sim.run(40 * SEC);
        assert_eq!(sim.sees(3, 15), Some(Liveness::Down));
        sim.side.fill(0);
        sim.reports.clear();
        let start = sim.now;
        assert!(sim.run_until(10 * SEC, Sim::all_alive), "seed {seed}");
        let took = sim.now.since(start);
        sim.run(20 * SEC);
        let renewed = renewals(&sim, 0..20);
        println!("10|10 healed in {took:?}, {renewed} renewals, {} downs", downs(&sim));
        assert!(sim.all_alive());
        assert!(renewed <= 40);
        // On either side, nobody took one of his own for dead.
        let own = |i: usize| i / 10;
        let buried = sim.reports.iter().filter(|r| r.to == Liveness::Down && own(r.by) == own(r.about)).count();
        assert_eq!(buried, 0, "seed {seed}");
    }
}

#[test]
fn one_who_was_cut_off_alone_renews_alone() {
    for seed in 0..3 {
        let mut sim = Sim::joined(20, seed);
        sim.side[4] = 1;
        sim.run(40 * SEC);
        assert!((0..20).filter(|by| *by != 4).all(|by| sim.sees(by, 4) == Some(Liveness::Down)));
        sim.side[4] = 0;
        let start = sim.now;
        assert!(sim.run_until(8 * SEC, Sim::all_alive), "seed {seed}");
        println!("one of 20 came back in {:?}", sim.now.since(start));
        sim.run(20 * SEC);
        assert!(sim.all_alive());
        assert_eq!(renewals(&sim, (0..20).filter(|i| *i != 4)), 0, "seed {seed}");
        assert!(sim.nodes[4].renewals >= 1);
    }
}

#[test]
fn one_who_was_cut_off_for_a_moment_blames_nobody() {
    for length in [3, 4, 5, 7] {
        let mut sim = Sim::joined(20, length);
        sim.side[4] = 1;
        sim.run(Duration::from_secs(length));
        sim.side[4] = 0;
        sim.run(20 * SEC);
        assert!(sim.all_alive(), "cut for {length} s");
        let blamed = sim.reports.iter().filter(|r| r.to == Liveness::Down && r.by != 4 && r.about != 4).count();
        assert_eq!(blamed, 0, "cut for {length} s");
    }
}

#[test]
fn one_who_hears_nobody_holds_his_verdicts_back_and_then_takes_himself_for_the_lost_one() {
    for seed in 0..3 {
        let mut sim = Sim::joined(20, seed);
        sim.side[4] = 1;
        sim.run(5_500 * MS);
        assert_eq!(sim.reports.iter().filter(|r| r.by == 4 && r.to == Liveness::Down).count(), 0, "seed {seed}");
        assert!(sim.run_until(3 * SEC, |sim| sim.nodes[4].membership.live_count() == 0), "seed {seed}");
        assert_eq!(sim.nodes[4].renewals, 1);
    }
}

#[test]
fn who_is_heard_by_its_accuser_is_not_dead() {
    let mut sim = Sim::joined(5, 1);
    sim.act(1, |membership, _| membership.accuse(id(2)));
    // Whatever node 2 answers is lost on the way to the accuser's foca; what it says otherwise is not.
    for _ in 0..20 {
        let until = sim.now + 400 * MS;
        sim.act(1, |membership, now| membership.heard_from(id(2), now));
        while sim.now < until {
            sim.run(100 * MS);
        }
    }
    assert_eq!(downs(&sim), 0);
}

#[test]
fn witnesses_speed_a_verdict_that_is_right() {
    let verdict = |silent_witnesses: bool| {
        let mut sim = Sim::joined(10, 3);
        sim.crash(0);
        if silent_witnesses {
            // All but the accuser are in another network, and it hears of them only by hand.
            (2..10).for_each(|i| sim.side[i] = 1);
        }
        let start = sim.now;
        sim.act(1, |membership, _| membership.accuse(id(0)));
        let signs = |sim: &mut Sim| sim.act(1, |membership, now| membership.heard_from(id(5), now));
        while sim.sees(1, 0) != Some(Liveness::Down) {
            sim.run(100 * MS);
            signs(&mut sim);
            assert!(sim.now.since(start) < 10 * SEC);
        }
        sim.now.since(start)
    };
    let (alone, confirmed) = (verdict(true), verdict(false));
    assert!(confirmed < timing().suspect_to_down + 200 * MS, "{confirmed:?}");
    assert!(alone > timing().suspect_to_down * 2, "{alone:?}");
}

#[test]
fn tables_that_are_equal_are_not_shipped() {
    let mut sim = Sim::joined(60, 1);
    let before = sim.bytes;
    sim.run(20 * SEC);
    let each = (sim.bytes - before) / (60 * 20);
    println!("{each} bytes a node and second at rest");
    assert!(each < 400);
    // What one knows and no rumour tells reaches all, and costs a bucket here and there.
    let news = FocaMember::new(Identity::new(id(7), addr(7), 1), 3, foca::State::Alive);
    drop(sim.nodes[3].membership.swim.apply(vec![news], false));
    let before = sim.bytes;
    let knows = |sim: &Sim, n: usize| n == 7 || sim.nodes[n].membership.swim.find(id(7)).unwrap().incarnation() == 3;
    assert!(sim.run_until(60 * SEC, |sim| (0..60).all(|n| knows(sim, n))));
    println!("told all in {} bytes", sim.bytes - before);
}

/// Big halves that met again accused each other's hundreds with every table that was shown, and asked each of them and
/// its witnesses.
#[test]
fn a_table_that_calls_many_dead_makes_few_accusations() {
    let now = Mono(1_000_000);
    let mut membership = Membership::new(id(0), addr(0), 1, timing(), 1, now);
    membership.handle_members(id(1), list(100), false, now);
    assert_eq!(membership.live_count(), 99);
    let dead = |count| list(100).into_iter().skip(2).take(count).map(|e| MemberEntry { state: MemberState::Down, ..e });
    let suspects = |membership: &Membership| {
        membership.members().filter(|member| member.liveness == Liveness::Suspect).map(|member| member.node).collect()
    };
    membership.handle_members(id(1), dead(60).collect(), false, now);
    let first: BTreeSet<NodeId> = suspects(&membership);
    assert_eq!(first.len(), 8);
    // Others, with the next one: nobody is passed over for ever.
    membership.handle_members(id(1), dead(60).collect(), false, now);
    let both: BTreeSet<NodeId> = suspects(&membership);
    assert!(both.len() > first.len() && both.is_superset(&first), "{} and then {}", first.len(), both.len());
}

#[test]
fn whoever_foca_shuffles_is_found_where_he_is() {
    let me = Identity::new(id(0), addr(0), 1);
    let mut swim = Swim::new(me, timing(), 1);
    for n in 1..200 {
        drop(swim.apply(vec![FocaMember::alive(Identity::new(id(n), addr(n), 1))], false));
        if n == 50 {
            // Each that comes later changes places with another.
            swim.note_places();
        }
    }
    assert!((1..200).all(|n| swim.find(id(n)).unwrap().id().node == id(n)));
    assert!(swim.find(id(200)).is_none());
    let some: BTreeSet<NodeId> = (150..260).map(id).collect();
    let found: Vec<NodeId> = swim.find_all(&some).map(|member| member.id().node).collect();
    let listed: Vec<NodeId> =
        swim.members().map(|member| member.id().node).filter(|node| some.contains(node)).collect();
    assert_eq!((found.len(), &found), (50, &listed), "in the order of foca's list");
}

#[test]
fn a_quick_restart_is_no_event() {
    let mut sim = Sim::joined(5, 1);
    sim.crash(2);
    sim.run(500 * MS);
    sim.restart(2);
    sim.run(20 * SEC);
    assert!(sim.all_alive());
    assert!(sim.reports.iter().all(|report| report.by == 2 || report.to != Liveness::Down));
    assert_eq!(sim.nodes[0].membership.swim.find(id(2)).unwrap().id().bump, 2);
}

#[test]
fn a_whole_cluster_that_restarts_needs_no_introduction() {
    let mut sim = Sim::joined(10, 1);
    (0..10).for_each(|i| sim.crash(i));
    sim.run(60 * SEC);
    (0..10).for_each(|i| sim.restart(i));
    assert!((0..10).all(|i| sim.nodes[i].membership.live_count() == 0), "not alive until heard");
    assert!(sim.run_until(3 * SEC, Sim::all_alive));
}

#[test]
fn a_goodbye_is_away_at_once_and_down_after_the_grace() {
    let mut sim = Sim::joined(5, 1);
    sim.act(2, |membership, now| membership.leave(false, now));
    sim.crash(2);
    sim.run(10 * MS);
    assert!([0, 1, 3, 4].iter().all(|by| sim.sees(*by, 2) == Some(Liveness::Away)));
    sim.run(10 * SEC);
    sim.restart(2);
    assert!(sim.run_until(2 * SEC, Sim::all_alive));
    assert_eq!(downs(&sim), 0);

    sim.act(2, |membership, now| membership.leave(false, now));
    sim.crash(2);
    sim.run(RESTART_GRACE - SEC);
    assert!([0, 1, 3, 4].iter().all(|by| sim.sees(*by, 2) == Some(Liveness::Away)));
    sim.run(2 * SEC);
    assert!([0, 1, 3, 4].iter().all(|by| sim.sees(*by, 2) == Some(Liveness::Down)));

    sim.act(3, |membership, now| membership.leave(true, now));
    sim.crash(3);
    sim.run(10 * MS);
    assert!([0, 1, 4].iter().all(|by| sim.sees(*by, 3) == Some(Liveness::Down)));
}

#[test]
fn the_last_one_left_keeps_the_grace_of_the_other() {
    let mut sim = Sim::joined(2, 1);
    sim.act(1, |membership, now| membership.leave(false, now));
    sim.crash(1);
    sim.run(RESTART_GRACE - SEC);
    assert_eq!(sim.sees(0, 1), Some(Liveness::Away));
    sim.restart(1);
    assert!(sim.run_until(6 * SEC, Sim::all_alive));
    assert_eq!(downs(&sim), 0);
}

#[test]
fn one_packet_in_twenty_lost_buries_nobody() {
    for seed in 0..3 {
        let mut sim = Sim::joined(10, seed);
        sim.loss = 0.05;
        sim.run(600 * SEC);
        let suspicions = sim.reports.iter().filter(|report| report.to == Liveness::Suspect).count();
        println!("5 % loss for 10 minutes: {suspicions} suspicions, {} downs", downs(&sim));
        assert_eq!(downs(&sim), 0, "seed {seed}");
        assert_eq!(renewals(&sim, 0..10), 0);
    }
}

#[test]
fn one_who_was_stalled_is_back_within_a_second_and_blames_nobody() {
    for seed in 0..12 {
        let mut sim = Sim::joined(10, seed);
        let length = Duration::from_millis(4_000 + 180 * seed);
        sim.stall(6, length);
        sim.run(length);
        let start = sim.now;
        assert!(sim.run_until(SEC, Sim::all_alive), "seed {seed}");
        println!("back {:?} after the stall, {} downs", sim.now.since(start), downs(&sim));
        sim.run(20 * SEC);
        assert!(sim.all_alive());
        assert!(sim.reports.iter().all(|report| report.by != 6 && report.about == 6), "seed {seed}");
        assert_eq!(renewals(&sim, (0..10).filter(|i| *i != 6)), 0);
    }
}

#[test]
fn short_stalls_of_many_bury_nobody() {
    let mut sim = Sim::joined(10, 2);
    for round in 0..60 {
        for i in 0..3 {
            sim.stall((round * 3 + i) % 10, 1_200 * MS);
        }
        sim.run(2 * SEC);
    }
    assert_eq!(downs(&sim), 0);
}

#[test]
fn a_removed_node_never_comes_back() {
    let mut sim = Sim::joined(5, 1);
    for by in 0..3 {
        sim.act(by, |membership, _| membership.remove(id(4)));
    }
    // Nodes 3 and 4 don't know, and go on talking about node 4.
    for _ in 0..3 {
        sim.run(20 * SEC);
        assert!((0..3).all(|by| sim.sees(by, 4).is_none()));
        sim.crash(4);
        sim.run(SEC);
        sim.restart(4);
    }
    // Not even when a survivor starts over.
    sim.side[0] = 1;
    sim.run(20 * SEC);
    sim.side[0] = 0;
    sim.run(20 * SEC);
    assert!(sim.nodes[0].renewals > 0);
    assert!((0..3).all(|by| sim.sees(by, 4).is_none()));
    assert!((0..3).all(|a| (0..4).all(|b| a == b || sim.sees(a, b) == Some(Liveness::Alive))));
}

#[test]
fn one_whose_disk_forgot_its_lives_goes_above_them_in_one_step() {
    let mut sim = Sim::joined(5, 1);
    sim.act(2, |membership, _| membership.renew(5_000, None));
    sim.run(5 * SEC);
    sim.crash(2);
    sim.nodes[2].bump = 3;
    sim.run(10 * SEC);
    let before = sim.packets;
    let renewals = sim.nodes[2].renewals;
    sim.restart(2);
    assert!(sim.run_until(3 * SEC, Sim::all_alive));
    assert!(sim.nodes[2].bump > 5_000);
    assert!(sim.nodes[2].renewals - renewals <= 3 && sim.packets - before < 500, "{}", sim.packets - before);
}

#[test]
fn a_stuck_suspicion_is_cleared() {
    let mut sim = Sim::joined(3, 1);
    // Only node 0 holds it, without a timer, and no rumour runs.
    let suspect = FocaMember::new(Identity::new(id(1), addr(1), 1), 0, foca::State::Suspect);
    sim.act(0, |membership, _| {
        let wanted = membership.swim.apply(vec![suspect], false);
        membership.compare(None, None);
        membership.out.clear();
        drop(wanted);
    });
    assert_eq!(sim.sees(0, 1), Some(Liveness::Suspect));
    sim.run(15 * SEC);
    assert!(sim.all_alive() && downs(&sim) == 0);
}

#[test]
fn what_does_not_come_from_whom_it_says_is_dropped() {
    let mut sim = Sim::joined(3, 1);
    let packet = {
        let membership = &mut sim.nodes[1].membership;
        membership.swim.announce(Identity::new(id(0), addr(0), 1)).sends.remove(0).1
    };
    let now = sim.now;
    let victim = &mut sim.nodes[0].membership;
    let before = victim.rejected();
    victim.handle_gossip(id(2), &packet, now);
    assert_eq!(victim.rejected(), before + 1);
    victim.handle_gossip(id(2), b"", now);
    victim.handle_gossip(id(2), &[0xff; 1_100], now);
    assert_eq!(victim.rejected(), before + 3);
    assert!(victim.poll_output().is_none());
}

#[test]
fn knows_no_more_than_the_limit_and_the_dead_make_room() {
    let now = Mono(1_000_000);
    let mut membership = Membership::new(id(0), addr(0), 1, timing(), 1, now);
    membership.restore(list(2 * MAX_MEMBERS), now);
    assert_eq!(membership.members().count(), MAX_MEMBERS - 1);
    let far = 3 * MAX_MEMBERS;
    let strangers = |range: std::ops::Range<usize>, state| -> Vec<MemberEntry> {
        range.map(|i| MemberEntry { node: id(i), addr: addr(i), bump: 1, incarnation: 0, state }).collect()
    };
    membership.handle_members(id(1), strangers(far..far + 100, MemberState::Down), false, now);
    assert!(membership.member(id(far)).is_some() && membership.member(id(far + 99)).is_none());
    membership.handle_members(id(1), strangers(far + 100..far + 150, MemberState::Alive), false, now);
    assert_eq!((membership.members().count(), membership.live_count()), (MAX_MEMBERS, 50));
    assert!(membership.table().len() <= MAX_MEMBERS);
    assert!(membership.rejected() > 0);
}

#[test]
fn whatever_happened_they_find_back_when_it_ends() {
    for seed in 0..6 {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let mut sim = Sim::joined(8, seed);
        for _ in 0..25 {
            let victim = dice.random_range(0..8);
            match dice.random_range(0..7) {
                0 => sim.crash(victim),
                1 => sim.restart(victim),
                2 => sim.stall(victim, dice.random_range(1..8) * SEC),
                3 => sim.side[victim] = dice.random_range(0..3),
                4 => sim.side.fill(0),
                5 => sim.loss = [0.0, 0.1, 0.4][dice.random_range(0..3)],
                _ => {
                    let about = id(dice.random_range(0..8));
                    sim.act(victim, |membership, now| membership.hint_unreachable(about, now));
                }
            }
            sim.run(dice.random_range(50..4_000) * MS);
        }
        sim.side.fill(0);
        sim.loss = 0.0;
        (0..8).for_each(|i| sim.revive(i));
        let start = sim.now;
        // Stalls last up to 8 s more.
        assert!(sim.run_until(20 * SEC, Sim::all_alive), "seed {seed}");
        println!("seed {seed}: all found back after {:?}, {} renewals", sim.now.since(start), renewals(&sim, 0..8));
        sim.run(15 * SEC);
        assert!(sim.all_alive(), "seed {seed}");
    }
}

/// Its disk was put back, and who knows of its later life has started since: foca has forgotten that one.
#[test]
fn who_speaks_in_an_earlier_life_than_is_known_is_told_of_the_later() {
    let now = Mono(1_000_000);
    let mut knows = Membership::new(id(0), addr(0), 1, timing(), 1, now);
    let mut known = list(2);
    known[1].bump = 3;
    knows.restore(known, now);
    let mut forgot = Membership::new(id(1), addr(1), 2, timing(), 2, now);
    forgot.restore(list(1), now);
    // What others say of that life is not said of the one that came after it.
    let over = FocaMember::new(Identity::new(id(1), addr(1), 2), 0, foca::State::Down);
    assert!(knows.sift(&[over]).0.is_empty());

    let mut seen = Vec::new();
    for _ in 0..3 {
        forgot.handle_deadline(now);
        while let Some(output) = forgot.poll_output() {
            match output {
                Output::Send { message: Message::Gossip(packet), .. } => knows.handle_gossip(id(1), &packet, now),
                Output::Send { message: Message::Members { members, reply }, .. } => {
                    knows.handle_members(id(1), members, reply, now);
                }
                _ => {}
            }
            seen.push(knows.life(id(1)).unwrap());
        }
        while let Some(output) = knows.poll_output() {
            if let Output::Send { to, message: Message::Members { members, reply }, .. } = output {
                assert_eq!(to, id(1));
                forgot.handle_members(id(0), members, reply, now);
            }
        }
    }
    assert_eq!(forgot.bump(), 4);
    assert!(seen.iter().all(|(bump, liveness)| *bump == 4 || *liveness == Liveness::Down), "{seen:?}");
    assert_eq!(seen.last(), Some(&(4, Liveness::Alive)));
}

#[test]
fn is_deterministic() {
    let story = |seed| {
        let mut sim = Sim::joined(8, seed);
        sim.loss = 0.1;
        sim.crash(3);
        sim.run(30 * SEC);
        let reports: Vec<_> = sim.reports.iter().map(|r| (r.at, r.by, r.about, r.to)).collect();
        (sim.packets, reports)
    };
    assert_eq!(story(5), story(5));
}

/// Sizes that take too long unoptimised.
#[test]
#[ignore = "a measurement"]
fn large_clusters() {
    let mut sim = Sim::new(300, 1);
    let start = sim.now;
    assert!(sim.run_until(5 * SEC, Sim::all_alive));
    println!("300 nodes joined in {:?}, {} messages", sim.now.since(start), sim.packets);
    let mut sim = Sim::joined(100, 1);
    (50..100).for_each(|i| sim.side[i] = 1);
    sim.run(60 * SEC);
    sim.side.fill(0);
    let start = sim.now;
    assert!(sim.run_until(30 * SEC, Sim::all_alive));
    println!("50|50 healed in {:?}, {} renewals", sim.now.since(start), renewals(&sim, 0..100));
    let before = sim.packets;
    sim.run(10 * SEC);
    println!("idle: {} messages per node and second", (sim.packets - before) as f64 / 1_000.0);
    sim.crash(0);
    let start = sim.now;
    assert!(sim.run_until(30 * SEC, |sim| (1..100).all(|by| sim.sees(by, 0) == Some(Liveness::Down))));
    println!("a crash of one of 100 seen by all in {:?}", sim.now.since(start));
}

#[test]
fn a_list_of_a_thousand_is_known_at_once() {
    let now = Mono(1_000_000);
    let mut membership = Membership::new(id(0), addr(0), 1, timing(), 1, now);
    membership.handle_members(id(1), list(1_000), false, now);
    assert_eq!(membership.live_count(), 999);
}
