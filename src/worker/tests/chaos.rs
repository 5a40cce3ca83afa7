//! Random days: engines that come and go, lie late and lose answers, agents that die, operators at work. The rig
//! holds every output against the laws; once the trouble ends, everything must come to what was ordered.

use super::*;
use crate::model::container::Health;

/// SplitMix64: a seed is the whole story.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn coin(&mut self) -> bool {
        self.roll(2) == 0
    }
}

fn random_spec(id: u128, dice: &mut Dice) -> ServiceSpec {
    let mut spec = if dice.coin() { publishing(80) } else { spec() };
    // The rig tells by it whose pull it is.
    spec.task.container.image = format!("web:{}", task_id(id));
    spec
}

fn meddle(rig: &mut Rig, dice: &mut Dice) {
    let id = u128::from(dice.roll(6));
    let names: Vec<String> = rig.engine.containers.keys().cloned().collect();
    let victim = names.get(dice.roll(names.len().max(1) as u64) as usize).cloned().unwrap_or_default();
    let runs = rig.engine.is_running(&victim);
    let trouble = || Err(OpError::Refused("no".into()));
    match dice.roll(22) {
        // A task's id never returns.
        0..=3 if !rig.forgotten.contains(&task_id(id)) => {
            let desired = [Desired::Ready, Desired::Running, Desired::Running, Desired::Shutdown, Desired::Remove];
            let desired = desired[dice.roll(5) as usize];
            let known = rig.orders.get(&task_id(id)).cloned();
            let mut next = known.unwrap_or_else(|| order(id, desired, random_spec(id, dice)));
            next.task.desired = next.task.desired.max(desired);
            rig.assign(next);
        }
        4 if rig.orders.contains_key(&task_id(id)) => rig.forget(id),
        5 => rig.restart_agent(),
        6 => {
            // Its operations may have been done, their records not.
            (0..6).filter(|_| dice.coin()).for_each(|id| rig.lose_record(id));
            rig.restart_agent();
        }
        7 | 8 if rig.engine.up => rig.engine.disconnect(rig.mono, dice.coin(), dice.coin()),
        9..=11 if !rig.engine.up => rig.engine.connect(rig.mono),
        12 if runs => rig.engine.exit(&victim, dice.roll(3) as i64, rig.mono),
        13 if runs => rig.engine.turns(&victim, Health::Unhealthy, rig.mono),
        14 => rig.engine.vanish(&victim, rig.mono),
        15 => rig.engine.behaviour.accepts = dice.coin(),
        16 => rig.engine.behaviour.create = if dice.coin() { Ok(()) } else { trouble() },
        17 => rig.engine.behaviour.start = if dice.coin() { Ok(()) } else { Err(OpError::Unreachable("pipe".into())) },
        18 => rig.engine.behaviour.stop = if dice.coin() { Ok(()) } else { trouble() },
        19 => rig.engine.behaviour.mute = dice.roll(4) == 0,
        20 => rig.engine.observation_delay = Duration::from_millis(dice.roll(40)),
        _ => rig.routing_answers = dice.coin(),
    }
}

fn heal(rig: &mut Rig) {
    rig.engine.behaviour = fake::Behaviour::default();
    rig.engine.observation_delay = Duration::ZERO;
    rig.routing_answers = true;
    if !rig.engine.up {
        rig.engine.connect(rig.mono);
    }
}

fn check_outcome(rig: &Rig, seed: u64) {
    let running = |id: u128| {
        let of_task = |c: &&ObservedContainer| c.task == task_id(id);
        let runs = |c: &&ObservedContainer| matches!(c.state, ContainerState::Running { .. });
        rig.engine.containers.values().filter(of_task).filter(runs).count()
    };
    for id in 0..6u128 {
        let kept = rig.engine.containers.values().filter(|c| c.task == task_id(id)).count();
        let Some(order) = rig.orders.get(&task_id(id)) else {
            continue;
        };
        let status = rig.worker.status(task_id(id)).unwrap_or_else(|| panic!("seed {seed}: task {id} says nothing"));
        let at = format!("seed {seed}: task {id} wants {:?}: {status:?}", order.task.desired);
        assert!(kept <= 1, "{at}");
        match order.task.desired {
            Desired::Ready => assert!(running(id) == 0 && status.phase >= TaskPhase::Ready, "{at}"),
            Desired::Running => assert!(status.phase == TaskPhase::Running && running(id) == 1, "{at}"),
            Desired::Shutdown => assert!(running(id) == 0 && status.is_over(), "{at}"),
            Desired::Remove => assert!(kept == 0 && status.is_over(), "{at}"),
        }
    }
    let known: usize = rig.orders.len();
    assert_eq!(rig.worker.tasks.len(), known, "seed {seed}: forgotten tasks go");
    assert!(rig.worker.statuses().all(|s| s.retry_at.is_none()), "seed {seed}");
}

fn one_day(seed: u64) {
    // Shown when a law is broken on the way.
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let mut rig = Rig::cold();
    for _ in 0..60 {
        meddle(&mut rig, &mut dice);
        let pause = [5, 30, 200, 5_000, 70_000][dice.roll(5) as usize];
        rig.run(Duration::from_millis(1 + dice.roll(pause)));
    }
    heal(&mut rig);
    // Long enough for the longest wait there is: an answer to a pull that was lost.
    rig.run(secs(4_000));
    check_outcome(&rig, seed);
    let (asked, said) = (rig.ops.len(), rig.statuses.len());
    rig.run(secs(4_000));
    assert_eq!((rig.ops.len(), rig.statuses.len()), (asked, said), "seed {seed}: a settled node is quiet");
}

#[test]
fn whatever_happened_the_orders_are_carried_out_in_the_end() {
    for seed in 0..300 {
        one_day(seed);
    }
}
