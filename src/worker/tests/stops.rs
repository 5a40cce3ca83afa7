//! Stopping and forgetting: in the right order, within bounds, and only on an order.

use super::*;
use crate::limits::{DRAIN_GRACE, WITHDRAW_TIMEOUT};
use TaskPhase::*;

#[test]
fn a_published_task_is_withdrawn_and_drained_before_it_is_stopped() {
    let mut rig = Rig::running(publishing(80));
    rig.routing_answers = false;
    rig.want(1, Desired::Shutdown);
    rig.run(secs(2));
    assert_eq!((rig.withdraws.len(), rig.drains.len(), rig.asked_at("stop")), (1, 0, None));
    rig.drained(1);
    assert_eq!(rig.asked_at("stop"), None, "drained counts only after withdrawn");
    rig.withdrawn(1);
    rig.withdrawn(1);
    rig.run(secs(2));
    assert_eq!((rig.drains.len(), rig.asked_at("stop")), (1, None));
    rig.drained(1);
    assert_eq!(rig.asked_at("stop"), Some(rig.mono));
    assert_eq!(rig.phase(1), Running, "it is not stopped before it is");
    rig.run(secs(1));
    assert_eq!((rig.phase(1), rig.status(1).exit_code), (Shutdown, Some(143)));
    assert!(rig.engine.containers.contains_key(&rig.name(1, 0)), "kept for its logs");
    assert_eq!(rig.worker.deadline(), None);
}

#[test]
fn the_waits_before_a_stop_are_bounded() {
    let mut rig = Rig::running(publishing(80));
    rig.routing_answers = false;
    let ordered = rig.mono;
    rig.want(1, Desired::Shutdown);
    rig.run(secs(60));
    assert_eq!(rig.drains[0].0.since(ordered), WITHDRAW_TIMEOUT);
    assert_eq!(rig.asked_at("stop").unwrap().since(ordered), WITHDRAW_TIMEOUT + DRAIN_GRACE);
    assert_eq!(rig.phase(1), Shutdown);
}

#[test]
fn a_short_stop_grace_shortens_the_drain_and_goes_to_the_engine() {
    let mut web = publishing(80);
    web.task.container.stop_grace = Some(secs(2));
    web.task.container.stop_signal = Some("SIGQUIT".into());
    let mut rig = Rig::running(web);
    rig.routing_answers = false;
    rig.want(1, Desired::Shutdown);
    rig.withdrawn(1);
    let withdrawn = rig.mono;
    rig.run(secs(5));
    assert_eq!(rig.asked_at("stop").unwrap().since(withdrawn), secs(2));
    let stop = EngineOp::Stop { name: rig.name(1, 0), signal: Some("SIGQUIT".into()), grace: secs(2) };
    assert!(rig.ops.iter().any(|(_, op)| *op == stop));
}

#[test]
fn without_published_ports_it_is_stopped_at_once() {
    let mut rig = Rig::running(spec());
    rig.want(1, Desired::Shutdown);
    assert_eq!(rig.asked_at("stop"), Some(rig.mono));
    assert!(rig.withdraws.is_empty());
}

#[test]
fn a_port_that_the_service_got_later_is_withdrawn_too() {
    let mut rig = Rig::running(spec());
    let mut published = order(1, Desired::Shutdown, spec());
    published.ingress = true;
    rig.assign(published);
    assert_eq!(rig.withdraws.len(), 1);
}

#[test]
fn an_exit_on_the_way_down_is_a_shutdown() {
    let mut rig = Rig::running(publishing(80));
    rig.routing_answers = false;
    rig.want(1, Desired::Shutdown);
    rig.engine.exit(&rig.name(1, 0), 1, rig.mono);
    rig.run(secs(1));
    assert_eq!((rig.phase(1), rig.status(1).exit_code, rig.status(1).error.as_str()), (Shutdown, Some(1), ""));
    assert_eq!(rig.asked_at("stop"), None);
}

#[test]
fn what_never_ran_is_removed_without_a_stop() {
    let mut rig = Rig::new();
    rig.assign(order(1, Desired::Ready, spec()));
    rig.run(secs(1));
    rig.want(1, Desired::Shutdown);
    assert_eq!(rig.phase(1), Shutdown);
    rig.run(secs(1));
    assert_eq!(rig.asked(), ["pull", "create", "remove"]);
    assert!(rig.engine.containers.is_empty());
}

#[test]
fn a_long_pull_does_not_hold_up_the_stop() {
    let mut rig = Rig::new();
    rig.engine.behaviour.pull = Ok(secs(1_000));
    rig.assign(order(1, Desired::Running, spec()));
    rig.run(secs(1));
    rig.want(1, Desired::Shutdown);
    assert_eq!(rig.phase(1), Shutdown);
    rig.run(secs(2_000));
    assert_eq!(rig.asked(), ["pull"]);
}

#[test]
fn an_order_to_stop_in_the_middle_of_creating_or_starting_leaves_nothing_running() {
    for step_ms in [25, 35, 45] {
        let mut rig = Rig::new();
        rig.assign(order(1, Desired::Running, publishing(80)));
        rig.run(Duration::from_millis(step_ms));
        rig.want(1, Desired::Remove);
        rig.run(secs(5));
        assert_eq!(rig.phase(1), Shutdown, "at {step_ms} ms");
        assert!(rig.engine.containers.is_empty(), "at {step_ms} ms");
        assert!(rig.withdraws.is_empty(), "it never served");
    }
}

#[test]
fn a_task_that_waits_for_its_next_attempt_stays_down() {
    let mut rig = Rig::running(spec());
    rig.engine.exit(&rig.name(1, 0), 1, rig.mono);
    rig.run(secs(1));
    rig.want(1, Desired::Shutdown);
    rig.run(secs(100));
    assert_eq!((rig.phase(1), rig.status(1).attempt, rig.status(1).retry_at), (Failed, 0, None));
}

#[test]
fn desired_remove_removes_the_container_too() {
    let mut rig = Rig::running(publishing(80));
    rig.want(1, Desired::Remove);
    rig.run(secs(1));
    assert_eq!(rig.phase(1), Shutdown);
    assert!(rig.engine.containers.is_empty());
    assert_eq!(rig.asked()[3..], ["probe", "stop", "remove"]);
}

#[test]
fn a_container_that_can_not_be_stopped_is_tried_again_and_says_so() {
    let mut rig = Rig::running(spec());
    rig.engine.behaviour.stop = Err(OpError::Refused("permission denied".into()));
    rig.want(1, Desired::Shutdown);
    rig.run(secs(100));
    let status = rig.status(1);
    assert_eq!(
        (status.phase, status.message.as_str()),
        (Running, "the container can't be stopped yet: permission denied")
    );
    let tries = rig.asked().iter().filter(|w| **w == "stop").count();
    assert!((4..20).contains(&tries), "{tries} tries");
    rig.engine.behaviour.stop = Ok(());
    rig.run(secs(40));
    assert_eq!(rig.phase(1), Shutdown);
}

#[test]
fn a_container_that_can_not_be_removed_does_not_hold_up_the_next() {
    let mut rig = Rig::running(spec());
    rig.engine.behaviour.remove = Err(OpError::Refused("device busy".into()));
    rig.engine.exit(&rig.name(1, 0), 1, rig.mono);
    rig.run(secs(10));
    assert_eq!((rig.status(1).attempt, rig.phase(1)), (1, Running));
    rig.engine.behaviour.remove = Ok(());
    rig.run(secs(30));
    assert_eq!(rig.engine.containers.len(), 1);
}

#[test]
fn forgetting_stops_removes_and_is_silent() {
    let mut rig = Rig::running(publishing(80));
    let said = rig.statuses.len();
    rig.forget(1);
    assert!(rig.worker.status(task_id(1)).is_none());
    rig.run(secs(5));
    assert!(rig.engine.containers.is_empty());
    assert_eq!((rig.withdraws.len(), rig.statuses.len()), (1, said));
    assert!(rig.worker.tasks.is_empty());
    assert_eq!(rig.worker.deadline(), None);
}

#[test]
fn forgetting_what_is_over_removes_what_was_kept() {
    let mut rig = Rig::running(spec());
    rig.want(1, Desired::Shutdown);
    rig.run(secs(1));
    rig.forget(1);
    rig.run(secs(1));
    assert!(rig.engine.containers.is_empty() && rig.worker.tasks.is_empty());
}

#[test]
fn a_task_that_was_forgotten_while_the_agent_was_down_is_stopped_gracefully() {
    let mut rig = Rig::running(publishing(80));
    rig.orders.clear();
    rig.restart_agent();
    rig.run(secs(1));
    assert_eq!(rig.worker.unknown(), 1, "left alone until the order comes");
    rig.routing_answers = false;
    rig.forget(1);
    rig.run(secs(1));
    assert_eq!((rig.withdraws.len(), rig.asked_at("stop")), (1, None));
    rig.withdrawn(1);
    rig.drained(1);
    rig.run(secs(1));
    assert!(rig.engine.containers.is_empty() && rig.worker.tasks.is_empty());
}

#[test]
fn forgetting_the_unknown_is_no_work() {
    let mut rig = Rig::new();
    rig.forget(9);
    assert!(rig.worker.tasks.is_empty() && rig.ops.is_empty());
    let mut cold = Rig::cold();
    cold.forget(9);
    cold.engine.connect(cold.mono);
    cold.run(secs(1));
    assert!(cold.worker.tasks.is_empty() && cold.ops.is_empty());
}

/// `peer node rm --force` on a live node once left its containers running without an owner.
#[test]
fn a_node_that_was_removed_stops_all_that_is_here_and_all_that_turns_up() {
    let mut rig = Rig::running(spec());
    let turns_up = |rig: &mut Rig, name: &str, task: u128| {
        let mut other = rig.engine.containers.values().next().unwrap().clone();
        (other.name, other.task) = (name.into(), task_id(task));
        rig.engine.containers.insert(other.name.clone(), other);
        rig.engine.report(rig.mono);
        rig.run(secs(1));
    };
    turns_up(&mut rig, "web.9.unknown", 99);
    assert_eq!(rig.worker.unknown(), 1);
    let order = rig.orders.remove(&task_id(1)).unwrap();
    rig.worker.abandon(rig.now());
    turns_up(&mut rig, "web.8.late", 98);
    rig.worker.assign(order, rig.now());
    rig.run(secs(60));
    assert_eq!(rig.engine.containers.keys().collect::<Vec<_>>(), [""; 0], "nothing is left, nothing is begun");
    assert!(rig.worker.is_idle());
    assert_eq!(rig.asked().iter().filter(|what| **what == "stop").count(), 3, "{:?}", rig.asked());
}

#[test]
fn a_removed_node_is_not_done_before_it_has_seen_its_engine() {
    let mut rig = Rig::cold();
    rig.worker.abandon(rig.now());
    assert!(!rig.worker.is_idle(), "what is there is not known yet");
    rig.worker.handle_engine(EngineEvent::Unreachable("gone".into()), rig.now());
    assert!(rig.worker.is_idle(), "it may never come back");
}
