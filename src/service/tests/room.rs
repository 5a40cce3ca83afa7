//! Start-first where the nodes are full: a successor needs room beside what it replaces, and what only fails makes room for it.

use super::*;

/// Two nodes of four CPUs: four tasks fill them.
const NODES: u128 = 2;
const ROOM: usize = 4;

fn filling(tag: &'static str, replicas: u32) -> ServiceSpec {
    let deploy = Deploy { tag, replicas, order: "start-first", action: "continue", ..Deploy::default() };
    let mut spec = deploy.spec();
    spec.task.resources.reserve_nano_cpus = 2_000_000_000;
    spec
}

/// All nodes are full of tasks that fail, and one more waits for a place.
fn full_of_failing() -> Stage {
    let mut stage = Stage::of(NODES, filling("bad", 5));
    stage.fate = |tag| if tag == "bad" { Fate::Crashes } else { Fate::Serves };
    stage.play(20);
    assert_eq!(failing(&stage).len(), ROOM);
    assert_eq!(stage.tasks.len(), ROOM + 1);
    stage
}

fn failing(stage: &Stage) -> Vec<TaskId> {
    let fails =
        |t: &&Task| t.desired.is_live() && stage.status.get(&t.id).is_some_and(|s| s.phase == TaskPhase::Failed);
    stage.tasks.values().filter(fails).map(|t| t.id).collect()
}

fn successor_of(stage: &Stage, old: TaskId) -> Option<&Task> {
    stage.tasks.values().find(|t| t.replaces == Some(old) && t.desired.is_live())
}

/// What fails has failed again and comes up once more, as its worker would have it.
fn comes_up(stage: &mut Stage, task: TaskId) {
    let status = stage.status.get_mut(&task).unwrap();
    (status.phase, status.attempt) = (TaskPhase::Running, status.attempt + 1);
}

/// Regression (swarm, seed 34334 at 600 s, P6): failing tasks, and tasks that waited for a place, had all the room there was, and
/// the update that would have mended them never got any.
#[test]
fn what_only_fails_gives_its_own_room_to_the_update_that_mends_it() {
    let mut stage = full_of_failing();
    let mended = stage.deploy_spec(filling("2", 5));
    stage.play_until("all that have room serve", |s| s.serving_of(mended) == ROOM);
    let waiting: Vec<&Task> = stage.tasks.values().filter(|t| t.desired.is_live() && t.node.is_none()).collect();
    assert_eq!(waiting.len(), 1);
    assert!(waiting[0].message.contains("insufficient CPUs"), "{}", waiting[0].message);
}

/// It had begun to wait while what it replaces still served.
#[test]
fn a_successor_that_waits_for_a_place_gets_that_of_what_has_failed_since() {
    let mut stage = Stage::set(NODES, &Deploy { replicas: 0, ..Deploy::default() });
    stage.deploy_spec(filling("1", 4));
    stage.play_until("all serve", |s| s.serving().len() == ROOM);
    let mended = stage.deploy_spec(filling("2", 4));
    stage.play(20);
    assert_eq!(
        (stage.serving().len(), stage.serving_of(mended)),
        (ROOM, 0),
        "what serves isn't stopped for want of room"
    );
    let waits = stage.tasks.values().find(|t| t.replaces.is_some()).unwrap().clone();
    assert_eq!(waits.node, None);
    stage.fail(waits.replaces.unwrap());
    stage.play(20);
    assert_eq!(stage.serving_of(mended), 1, "the one that failed, and no other");
    assert_eq!(stage.serving().len(), ROOM);
}

/// Its successor has the only place in the budget, and waits for room beside what serves.
#[test]
fn no_slot_that_fails_is_held_up_by_one_that_waits_for_room_beside_what_serves() {
    let mut stage = Stage::set(NODES, &Deploy { replicas: 0, ..Deploy::default() });
    stage.deploy_spec(filling("1", 4));
    stage.play_until("all serve", |s| s.serving().len() == ROOM);
    let mended = stage.deploy_spec(filling("2", 4));
    stage.play(20);
    let waits = stage.tasks.values().find(|t| t.replaces.is_some()).unwrap().clone();
    let other = stage.serving().iter().map(|t| t.id).find(|id| Some(*id) != waits.replaces).unwrap();
    stage.fail(other);
    stage.play(20);
    assert_eq!((stage.serving().len(), stage.serving_of(mended)), (ROOM, 1));
    assert!(stage.tasks[&waits.id].desired.is_live(), "it waits on");
}

#[test]
fn what_serves_by_the_time_its_successor_is_ready_is_not_stopped_first() {
    let mut stage = full_of_failing();
    stage.fate = |tag| if tag == "bad" { Fate::Crashes } else { Fate::Hangs };
    let mended = stage.deploy_spec(filling("2", 5));
    stage.play(5);
    let old = failing(&stage).into_iter().find(|id| successor_of(&stage, *id).is_some()).unwrap();
    let first = successor_of(&stage, old).unwrap().clone();
    assert_eq!((first.desired, first.node), (Desired::Ready, stage.tasks[&old].node));
    comes_up(&mut stage, old);
    stage.fate = |tag| if tag == "bad" { Fate::Crashes } else { Fate::Serves };
    stage.play(5);
    assert_eq!(stage.status[&first.id].phase, TaskPhase::Ready);
    assert!(stage.tasks[&first.id].desired.is_live(), "what comes up may fail again in a moment");
    assert!(stage.tasks[&old].desired.is_live(), "it serves");

    // It has proven itself: its successor waits for room beside it, as if it had never failed, and the others have their turn.
    stage.play(u32::try_from(MONITOR.as_millis() / TICK.as_millis()).unwrap());
    assert!(!stage.tasks[&first.id].desired.is_live());
    stage.play_until("the others are mended", |s| s.serving_of(mended) == ROOM - 1);
    assert!(stage.tasks[&old].desired.is_live());
    stage.play(200);
    assert!(stage.tasks[&old].desired.is_live());

    // And when it fails in the end, that's the moment.
    stage.fail(old);
    stage.play_until("all that have room serve", |s| s.serving_of(mended) == ROOM);
}

/// Between two attempts, with a successor that is made ready: it takes over at the next failure, not after another try.
#[test]
fn what_comes_up_only_to_fail_again_is_replaced_by_the_successor_that_was_made_ready() {
    let mut stage = full_of_failing();
    let mended = stage.deploy_spec(filling("2", 5));
    stage.settle();
    let old = failing(&stage).into_iter().find(|id| successor_of(&stage, *id).is_some()).unwrap();
    let successor = successor_of(&stage, old).unwrap().id;
    comes_up(&mut stage, old);
    stage.play(5);
    stage.fail(old);
    stage.play_until("it has taken over", |s| s.status.get(&successor).is_some_and(|s| s.phase == TaskPhase::Running));
    assert_eq!(stage.tasks[&successor].revision, mended);
}
