//! Lost replies, engines that go away, agents that die: in every step, and nothing is done twice or left behind.

use super::*;
use TaskPhase::*;

/// Instants that fall into pull, create, start, the wait for the port, and running.
const STEPS_MS: [u64; 6] = [10, 25, 35, 45, 60, 1_000];

#[test]
fn nothing_is_asked_of_an_engine_that_was_not_reached_yet() {
    let mut rig = Rig::cold();
    rig.assign(order(1, Desired::Running, spec()));
    rig.run(secs(100));
    assert!(rig.ops.is_empty());
    assert_eq!(rig.phase(1), Accepted);
    rig.engine.connect(rig.mono);
    rig.run(secs(1));
    assert_eq!(rig.phase(1), Running);
    assert_eq!(rig.states, [EngineState::Ready]);
}

#[test]
fn the_engines_state_is_told_once_per_change() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        rig.engine.disconnect(rig.mono, false, false);
        rig.run(secs(1));
    }
    rig.engine.connect(rig.mono);
    rig.run(secs(1));
    assert_eq!(
        rig.states,
        [EngineState::Ready, EngineState::Unreachable("connection refused".into()), EngineState::Ready]
    );
}

#[test]
fn an_outage_in_any_step_fails_nothing() {
    for at in STEPS_MS {
        for (effects, answers) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut rig = Rig::new();
            rig.assign(order(1, Desired::Running, publishing(80)));
            rig.run(Duration::from_millis(at));
            rig.engine.disconnect(rig.mono, effects, answers);
            rig.run(Duration::from_millis(1));
            let before = rig.phase(1);
            rig.run(secs(300));
            assert_eq!(rig.phase(1), before, "statuses keep while the engine is away");
            rig.engine.connect(rig.mono);
            rig.run(secs(5));
            let status = rig.status(1);
            assert_eq!((status.attempt, status.phase), (0, Running), "at {at} ms {effects} {answers}");
            assert_eq!(rig.engine.containers.len(), 1);
        }
    }
}

#[test]
fn an_outage_while_stopping_ends_in_a_stop_all_the_same() {
    for (effects, answers) in [(false, false), (true, true)] {
        let mut rig = Rig::running(publishing(80));
        rig.want(1, Desired::Remove);
        rig.run(Duration::from_millis(1));
        rig.engine.disconnect(rig.mono, effects, answers);
        rig.run(secs(50));
        rig.engine.connect(rig.mono);
        rig.run(secs(5));
        assert_eq!(rig.phase(1), Shutdown);
        assert!(rig.engine.containers.is_empty());
    }
}

#[test]
fn a_withdrawal_goes_on_while_the_engine_is_away() {
    let mut rig = Rig::running(publishing(80));
    rig.engine.disconnect(rig.mono, false, false);
    rig.run(secs(1));
    rig.want(1, Desired::Shutdown);
    rig.run(secs(20));
    assert_eq!((rig.withdraws.len(), rig.drains.len(), rig.asked_at("stop")), (1, 1, None));
    rig.engine.connect(rig.mono);
    rig.run(secs(1));
    assert_eq!(rig.phase(1), Shutdown);
}

#[test]
fn replies_lost_without_an_outage_are_settled_by_a_listing() {
    for at in STEPS_MS {
        let mut rig = Rig::new();
        rig.engine.quiet = true;
        rig.assign(order(1, Desired::Running, publishing(80)));
        rig.run(Duration::from_millis(at));
        rig.engine.behaviour.mute = true;
        rig.run(secs(30));
        rig.engine.behaviour.mute = false;
        rig.run(secs(150));
        let (attempt, phase) = (rig.status(1).attempt, rig.phase(1));
        // A pull's answer is worth waiting for longer.
        let pulling = at == 10;
        assert_eq!((attempt, phase), (0, if pulling { Preparing } else { Running }), "at {at} ms");
        assert!(rig.listings() > 0 || pulling);
    }
}

#[test]
fn an_engine_that_breaks_off_every_create_is_not_asked_for_ever() {
    let mut rig = Rig::new();
    rig.engine.behaviour.create = Err(OpError::Unreachable("broken pipe".into()));
    rig.assign(order(1, Desired::Running, spec()));
    rig.run(secs(60));
    let first = rig.statuses.iter().find(|s| s.phase == Rejected).expect("rejected in the end");
    assert_eq!(first.error, "gave up after 5 tries: engine unreachable: broken pipe");
    assert!(rig.listings() >= 5);
}

#[test]
fn a_pull_that_takes_too_long_is_rejected() {
    let mut rig = Rig::new();
    rig.engine.behaviour.pull = Ok(secs(100_000));
    rig.assign(order(1, Desired::Running, spec()));
    rig.run(crate::limits::PULL_TIMEOUT + secs(1));
    assert_eq!((rig.phase(1), rig.status(1).error.as_str()), (Rejected, "pull timed out"));
}

#[test]
fn a_late_answer_to_an_operation_that_nobody_awaits_is_ignored() {
    let mut rig = Rig::running(spec());
    for op in 0..100 {
        let result = Err(OpError::Refused("late".into()));
        rig.worker.handle_engine(EngineEvent::Done { op: OpId(op), result }, rig.now());
    }
    rig.run(secs(10));
    assert_eq!((rig.phase(1), rig.ops.len()), (Running, 3));
}

#[test]
fn a_restarted_agent_adopts_what_runs_and_says_nothing() {
    let mut rig = Rig::running(publishing(80));
    let (said, asked) = (rig.statuses.len(), rig.ops.len());
    rig.restart_agent();
    rig.run(secs(100));
    assert_eq!((rig.statuses.len(), rig.ops.len()), (said, asked));
    assert_eq!(rig.phase(1), Running);
    assert!(rig.worker.observed(task_id(1)).is_some());
}

#[test]
fn a_restarted_agent_goes_on_from_any_step() {
    for at in STEPS_MS {
        for downtime in [0, 5, 500] {
            let mut rig = Rig::new();
            rig.assign(order(1, Desired::Running, publishing(80)));
            rig.run(Duration::from_millis(at));
            rig.restart_agent();
            rig.run(Duration::from_millis(downtime));
            rig.restart_agent();
            rig.run(secs(5));
            let status = rig.status(1);
            assert_eq!((status.attempt, status.phase), (0, Running), "at {at} ms");
            assert_eq!(rig.engine.containers.len(), 1);
        }
    }
}

#[test]
fn a_restarted_agent_goes_on_stopping() {
    for answers in [false, true] {
        let mut rig = Rig::running(publishing(80));
        rig.routing_answers = answers;
        rig.want(1, Desired::Shutdown);
        rig.run(Duration::from_millis(5));
        rig.restart_agent();
        rig.run(secs(20));
        assert_eq!(rig.phase(1), Shutdown);
        assert!(!rig.engine.is_running(&rig.name(1, 0)));
    }
}

#[test]
fn a_lost_record_of_a_later_attempt_is_made_good_from_its_container() {
    let mut rig = Rig::running(spec());
    let old = rig.recorded.clone();
    rig.engine.exit(&rig.name(1, 0), 1, rig.mono);
    rig.run(secs(10));
    rig.recorded = old;
    rig.restart_agent();
    rig.run(secs(5));
    let status = rig.status(1);
    assert_eq!((status.attempt, status.phase, status.past.len()), (1, Running, 1));
    assert_eq!(rig.asked().iter().filter(|w| **w == "start").count(), 2, "nothing is started again");
}

#[test]
fn a_delay_before_the_next_attempt_survives_the_agent() {
    let mut rig = Rig::running(spec());
    rig.engine.exit(&rig.name(1, 0), 1, rig.mono);
    rig.run(secs(1));
    rig.restart_agent();
    rig.run(secs(3));
    assert_eq!(rig.status(1).attempt, 0);
    rig.run(secs(2));
    assert_eq!((rig.status(1).attempt, rig.phase(1)), (1, Running));
}

#[test]
fn containers_that_died_with_their_engine_return_at_once() {
    for code in [0, 137] {
        let mut stubborn = spec();
        stubborn.task.restart.condition = RestartCondition::OnFailure;
        let mut rig = Rig::running(stubborn);
        rig.run(secs(60));
        rig.engine.disconnect(rig.mono, false, false);
        rig.engine.exit(&rig.name(1, 0), code, rig.mono);
        rig.run(secs(20));
        rig.engine.connect(rig.mono);
        rig.run(Duration::from_millis(100));
        assert!(rig.phases(1).contains(&(0, Failed)), "it is said that it failed");
        assert_eq!((rig.status(1).attempt, rig.phase(1)), (1, Running), "exit code {code}");
    }
}

#[test]
fn what_ran_before_a_reboot_runs_again_at_once() {
    let mut rig = Rig::running(spec());
    rig.engine.disconnect(rig.mono, false, false);
    rig.engine.exit(&rig.name(1, 0), 0, rig.mono);
    rig.restart_agent();
    rig.run(secs(5));
    rig.engine.connect(rig.mono);
    rig.run(Duration::from_millis(100));
    assert_eq!((rig.status(1).attempt, rig.phase(1)), (1, Running));
}

#[test]
fn a_container_that_was_removed_behind_our_back_is_replaced() {
    let mut rig = Rig::running(spec());
    rig.run(secs(60));
    rig.engine.vanish(&rig.name(1, 0), rig.mono);
    rig.run(secs(1));
    assert_eq!((rig.phase(1), rig.status(1).error.as_str()), (Failed, "container is gone"));
    rig.run(secs(6));
    assert_eq!((rig.status(1).attempt, rig.phase(1)), (1, Running));

    let mut rig = Rig::running(spec());
    rig.restart_agent();
    rig.engine.containers.clear();
    rig.engine.agent_died();
    rig.engine.connect(rig.mono);
    rig.run(secs(1));
    assert_eq!((rig.status(1).attempt, rig.phase(1)), (1, Running), "gone while the agent was down: at once");
}

#[test]
fn one_old_observation_does_not_make_a_fresh_container_gone() {
    let mut rig = Rig::running(spec());
    rig.worker.handle_engine(EngineEvent::Observed(Vec::new()), rig.now());
    rig.run(secs(5));
    assert_eq!((rig.status(1).attempt, rig.phase(1)), (0, Running));
    assert_eq!(rig.listings(), 1);
}

#[test]
fn observations_repeated_change_nothing() {
    let mut rig = Rig::running(publishing(80));
    let (said, asked) = (rig.statuses.len(), rig.ops.len());
    for _ in 0..10 {
        rig.engine.report(rig.mono);
        rig.run(secs(1));
    }
    assert_eq!((rig.statuses.len(), rig.ops.len()), (said, asked));
}

#[test]
fn a_lower_attempt_that_still_runs_is_removed() {
    let mut rig = Rig::running(spec());
    rig.engine.exit(&rig.name(1, 0), 1, rig.mono);
    rig.run(secs(10));
    let mut ghost = rig.engine.containers[&rig.name(1, 1)].clone();
    (ghost.name, ghost.attempt) = (rig.name(1, 0), 0);
    rig.engine.containers.insert(ghost.name.clone(), ghost);
    rig.engine.report(rig.mono);
    rig.run(secs(1));
    assert_eq!(rig.engine.containers.keys().collect::<Vec<_>>(), [&rig.name(1, 1)]);
    assert_eq!((rig.status(1).attempt, rig.phase(1)), (1, Running));
}

#[test]
fn containers_of_unknown_tasks_are_counted_and_left_alone() {
    let mut rig = Rig::running(spec());
    let mut other = rig.engine.containers[&rig.name(1, 0)].clone();
    (other.name, other.task) = ("web.9.other".into(), task_id(99));
    rig.engine.containers.insert(other.name.clone(), other);
    rig.engine.report(rig.mono);
    rig.run(secs(1_000));
    assert_eq!((rig.worker.unknown(), rig.engine.containers.len()), (1, 2));
}

#[test]
fn an_engine_that_forgets_to_report_is_asked() {
    let mut rig = Rig::new();
    rig.engine.quiet = true;
    rig.assign(order(1, Desired::Running, spec()));
    rig.run(secs(5));
    assert_eq!(rig.phase(1), Running);

    let mut rig = Rig::cold();
    rig.engine.up = true;
    rig.worker.handle_engine(EngineEvent::Reachable(EngineInfo::default()), rig.now());
    rig.assign(order(1, Desired::Running, spec()));
    rig.run(secs(7));
    assert_eq!(rig.phase(1), Running);
}
