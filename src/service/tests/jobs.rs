//! Stories of jobs, on the same stage.

use super::*;
use std::collections::BTreeSet;

fn job(tag: &str, mode: serde_json::Value) -> ServiceSpec {
    let text = json!({
        "Name": "job",
        "TaskTemplate": {"ContainerSpec": {"Image": format!("job:{tag}")}},
        "Mode": mode,
    });
    parse(&text.to_string()).unwrap()
}

fn replicated(tag: &str, concurrent: u32, total: u32) -> ServiceSpec {
    job(tag, json!({"ReplicatedJob": {"MaxConcurrent": concurrent, "TotalCompletions": total}}))
}

fn global(tag: &str) -> ServiceSpec {
    job(tag, json!({"GlobalJob": {}}))
}

impl Stage {
    fn job(nodes: u128, spec: ServiceSpec) -> Self {
        let mut stage = Self::of(nodes, spec);
        stage.fate = |_| Fate::Ends;
        stage
    }

    /// The tasks of the present run that have ended with success.
    fn done(&self) -> Vec<&Task> {
        let done = |t: &&Task| {
            let phase = self.status.get(&t.id).map(|s| s.phase);
            t.revision == self.service.current && phase == Some(TaskPhase::Complete)
        };
        self.tasks.values().filter(done).collect()
    }

    fn done_slots(&self) -> BTreeSet<Slot> {
        self.done().into_iter().map(|t| t.slot).collect()
    }

    fn busy(&self) -> usize {
        let over = |t: &Task| self.status.get(&t.id).is_some_and(TaskStatus::is_over);
        self.tasks.values().filter(|t| t.desired.is_live() && !over(t)).count()
    }
}

#[test]
fn each_slot_of_a_job_is_run_once_and_no_more_at_a_time_than_it_says() {
    let mut stage = Stage::job(3, replicated("1", 2, 5));
    for _ in 0..60 {
        stage.play(1);
        assert!(stage.busy() <= 2, "{:#?}", stage.tasks);
    }
    let slots: Vec<Slot> = stage.done().into_iter().map(|t| t.slot).collect();
    assert_eq!(slots, (0..5).map(Slot::Replica).collect::<Vec<_>>());
    assert_eq!((stage.tasks.len(), &stage.rollout), (5, &None));
    // Swarm's new leader runs them again (moby#53632).
    for _ in 0..3 {
        stage.another_holder();
        stage.play(50);
    }
    assert_eq!(stage.tasks.len(), 5);
}

#[test]
fn an_update_runs_a_job_again_and_forgets_the_run_before() {
    let mut stage = Stage::job(3, replicated("1", 5, 5));
    stage.play_until("the first run", |s| s.done_slots().len() == 5);
    let first: Vec<TaskId> = stage.tasks.keys().copied().collect();
    stage.deploy_spec(replicated("2", 5, 5));
    stage.play_until("the second run", |s| s.done_slots().len() == 5);
    stage.play(5);
    assert!(first.iter().all(|id| !stage.tasks.contains_key(id)), "{:#?}", stage.tasks);
    assert_eq!(stage.tasks.len(), 5);
    // Also in the middle of a run.
    stage.deploy_spec(replicated("3", 1, 5));
    stage.play_until("half of the third", |s| s.done_slots().len() == 2);
    stage.deploy_spec(replicated("4", 3, 3));
    stage.play_until("the fourth", |s| s.done_slots().len() == 3);
    stage.play(5);
    assert_eq!((stage.tasks.len(), stage.busy()), (3, 0));
}

#[test]
fn what_a_lost_or_drained_node_has_not_finished_runs_elsewhere_and_what_it_has_does_not() {
    let mut stage = Stage::job(3, replicated("1", 6, 6));
    stage.play_until("some have ended", |s| !s.done().is_empty());
    // From now on nothing ends by itself.
    stage.fate = |_| Fate::Serves;
    stage.deploy_spec(replicated("2", 6, 6));
    stage.play_until("all run", |s| s.serving().len() == 6);
    let finished = stage.serving().iter().find(|t| t.node == Some(id(1))).map(|t| t.id).unwrap();
    let status = stage.status.get_mut(&finished).unwrap();
    (status.phase, status.given_up) = (TaskPhase::Complete, true);
    stage.nodes.get_mut(&id(1)).unwrap().liveness = Liveness::Down;
    stage.nodes.get_mut(&id(2)).unwrap().policy.availability = Availability::Drain;
    stage.play_until("the rest runs on the third", |s| {
        s.serving().len() == 5 && s.serving().iter().all(|t| t.node == Some(id(3)))
    });
    assert_eq!(stage.done().iter().map(|t| t.id).collect::<Vec<_>>(), [finished]);
    // The node returns: what ran there is stopped, and had ended there counts.
    stage.nodes.get_mut(&id(1)).unwrap().liveness = Liveness::Alive;
    stage.fate = |_| Fate::Ends;
    stage.play_until("the end", |s| s.done_slots().len() == 6 && s.busy() == 0);
    stage.play(20);
    assert_eq!(stage.busy(), 0);
}

#[test]
fn a_slot_that_ended_on_a_node_taken_for_lost_is_not_run_twice_to_the_end() {
    let mut stage = Stage::job(2, replicated("1", 1, 1));
    stage.fate = |_| Fate::Serves;
    stage.play_until("it runs", |s| s.serving().len() == 1);
    let (first, node) = stage.serving().iter().map(|t| (t.id, t.node.unwrap())).next().unwrap();
    stage.nodes.get_mut(&node).unwrap().liveness = Liveness::Down;
    stage.play_until("it runs elsewhere", |s| s.serving().iter().any(|t| t.id != first));
    // It had ended there before it heard that it was to stop.
    stage.nodes.get_mut(&node).unwrap().liveness = Liveness::Alive;
    let status = stage.status.get_mut(&first).unwrap();
    (status.phase, status.given_up) = (TaskPhase::Complete, true);
    stage.play(20);
    assert_eq!((stage.busy(), stage.done_slots().len()), (0, 1), "{:#?}", stage.tasks);
    stage.another_holder();
    stage.play(50);
    assert_eq!(stage.busy(), 0);
}

#[test]
fn a_slot_whose_restarts_are_used_up_stays_failed_and_the_others_go_on() {
    let mut stage = Stage::job(3, replicated("1", 1, 3));
    stage.fate = |_| Fate::Fails;
    stage.play_until("one has failed", |s| s.status.values().any(|s| s.phase == TaskPhase::Failed));
    stage.fate = |_| Fate::Ends;
    stage.play(60);
    assert_eq!((stage.done_slots().len(), stage.tasks.len(), stage.busy()), (2, 3, 0));
}

#[test]
fn a_global_job_runs_once_on_every_node_and_on_those_that_come_later() {
    let mut stage = Stage::job(3, global("1"));
    stage.nodes.get_mut(&id(2)).unwrap().policy.availability = Availability::Drain;
    stage.play(30);
    let on = |s: &Stage| s.done().iter().filter_map(|t| t.node).collect::<Vec<_>>();
    assert_eq!(on(&stage), [id(1), id(3)]);
    stage.nodes.get_mut(&id(2)).unwrap().policy.availability = Availability::Active;
    stage.play(30);
    assert_eq!(on(&stage).len(), 3);
    stage.nodes.get_mut(&id(3)).unwrap().liveness = Liveness::Down;
    stage.play(10);
    stage.nodes.get_mut(&id(3)).unwrap().liveness = Liveness::Alive;
    stage.another_holder();
    stage.play(30);
    assert_eq!(stage.tasks.len(), 3);
}

#[test]
fn two_holders_tasks_of_one_slot_come_down_to_one() {
    let mut stage = Stage::job(3, replicated("1", 2, 2));
    stage.fate = |_| Fate::Serves;
    stage.play_until("both run", |s| s.serving().len() == 2);
    let twin = stage.serving()[0].clone();
    let other = Task { id: TaskId::from_u128(1_000), node: Some(id(3)), ..twin.clone() };
    stage.tasks.insert(other.id, other);
    stage.play(10);
    assert_eq!(stage.serving().len(), 2);
    assert!(stage.tasks[&twin.id].desired.is_live(), "the one that had begun goes on");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Nodes go, come back and are drained, holders change: every slot gets done, no more run at a time than may (beside
    /// what is out of reach), and nothing runs once all is done.
    #[test]
    fn whatever_happens_a_job_comes_to_its_end(
        concurrent in 1..5_u32, total in 1..9_u32,
        events in prop::collection::vec((1..4_u128, 0..4_u8, 1..8_u32), 0..12),
    ) {
        let mut stage = Stage::job(3, replicated("1", concurrent, total));
        for (node, what, ticks) in events {
            let info = stage.nodes.get_mut(&id(node)).unwrap();
            match what {
                0 => info.liveness = if info.liveness == Liveness::Down { Liveness::Alive } else { Liveness::Down },
                1 => info.policy.availability = Availability::Drain,
                2 => info.policy.availability = Availability::Active,
                _ => stage.another_holder(),
            }
            stage.play(ticks);
            let reachable = |t: &&Task| t.desired.is_live() && t.node.is_none_or(|n| stage.nodes[&n].liveness == Liveness::Alive);
            let ended = |t: &&Task| !stage.status.get(&t.id).is_some_and(TaskStatus::is_over);
            prop_assert!(stage.tasks.values().filter(reachable).filter(ended).count() <= concurrent as usize);
        }
        for node in stage.nodes.values_mut() {
            (node.liveness, node.policy.availability) = (Liveness::Alive, Availability::Active);
        }
        stage.play(400);
        prop_assert_eq!(stage.done_slots().len(), total as usize);
        prop_assert_eq!(stage.busy(), 0);
    }
}
