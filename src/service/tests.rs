//! Stories of one service under the replacement engine, with workers that do as they are told unless a story says
//! otherwise. Among them: the weaknesses that Swarm's updater shows in its code, each with the proof that ours has it not.

use super::*;
use crate::limits::START_TIMEOUT;
use crate::model::record::Hlc;
use crate::model::rollout::RolloutState;
use crate::model::spec::parse;
use crate::model::task::Standing;
use crate::schedule::testing::{cluster, id};
use crate::time::Wall;
use proptest::prelude::*;
use serde_json::json;

mod jobs;
mod room;

const TICK: Duration = Duration::from_millis(100);
const LOOKED_FOR: Duration = Duration::from_secs(12);
const MONITOR: Duration = Duration::from_secs(2);

/// What a container does when it is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Serves,
    /// Ends with an error as soon as it is started, again and again.
    Crashes,
    /// Never gets beyond its preparation.
    Hangs,
    /// Its image is in no registry, which takes a while to find out.
    Missing,
    /// Ends with success when it has run a while.
    Ends,
    /// Ends with an error, and its restarts are used up.
    Fails,
}

/// One service with everything that its holder and its workers know.
struct Stage {
    service: Service,
    specs: BTreeMap<RevisionId, Arc<ServiceSpec>>,
    rollout: Option<Rollout>,
    tasks: BTreeMap<TaskId, Task>,
    status: BTreeMap<TaskId, TaskStatus>,
    nodes: BTreeMap<NodeId, NodeInfo>,
    memory: Memory,
    mono: Mono,
    /// By how many milliseconds the holder's wall clock was set back.
    set_back: u64,
    ids: u128,
    planned_of: Option<Known>,
    /// By the image's tag.
    fate: fn(&str) -> Fate,
}

/// What the last plan was made of.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    service: Service,
    specs: usize,
    rollout: Option<Rollout>,
    tasks: BTreeMap<TaskId, Task>,
    status: BTreeMap<TaskId, TaskStatus>,
    nodes: BTreeMap<NodeId, NodeInfo>,
}

#[derive(Debug, Clone, Copy)]
struct Deploy {
    tag: &'static str,
    replicas: u32,
    order: &'static str,
    parallelism: u32,
    action: &'static str,
    ratio: f64,
}

impl Default for Deploy {
    fn default() -> Self {
        Self { tag: "1", replicas: 4, order: "stop-first", parallelism: 1, action: "pause", ratio: 0.0 }
    }
}

impl Deploy {
    fn spec(&self) -> ServiceSpec {
        let config = |action: &str| {
            json!({"Parallelism": self.parallelism, "Order": self.order, "Monitor": u64::try_from(MONITOR.as_nanos()).unwrap(),
                "FailureAction": action, "MaxFailureRatio": self.ratio})
        };
        let text = json!({
            "Name": "web",
            "TaskTemplate": {"ContainerSpec": {"Image": format!("web:{}", self.tag)}},
            "Mode": {"Replicated": {"Replicas": self.replicas}},
            "UpdateConfig": config(self.action),
            "RollbackConfig": config("pause"),
        });
        parse(&text.to_string()).unwrap()
    }
}

impl Stage {
    /// Everything runs, on `nodes` nodes.
    fn set(nodes: u128, deploy: &Deploy) -> Self {
        let mut stage = Self::bare(nodes, deploy);
        stage.play(20);
        assert_eq!(stage.serving().len(), deploy.replicas as usize);
        assert_eq!(stage.rollout, None, "the first start is no rollout");
        stage
    }

    fn bare(nodes: u128, deploy: &Deploy) -> Self {
        Self::of(nodes, deploy.spec())
    }

    fn of(nodes: u128, spec: ServiceSpec) -> Self {
        let revision = RevisionId { hlc: Hlc(1), author: id(1) };
        let service = Service {
            id: ServiceId::from_u128(1),
            name: "web".into(),
            created: Wall(0),
            updated: Wall(0),
            current: revision,
            previous: None,
            rolled_back: false,
            ports: Vec::new(),
        };
        Self {
            service,
            specs: BTreeMap::from([(revision, Arc::new(spec))]),
            rollout: None,
            tasks: BTreeMap::new(),
            status: BTreeMap::new(),
            nodes: cluster(nodes, |_, _| {}),
            memory: Memory::default(),
            mono: Mono(1_000_000),
            set_back: 0,
            ids: 0,
            planned_of: None,
            fate: |_| Fate::Serves,
        }
    }

    fn deploy(&mut self, deploy: &Deploy) -> RevisionId {
        self.deploy_spec(deploy.spec())
    }

    fn deploy_spec(&mut self, spec: ServiceSpec) -> RevisionId {
        let revision = RevisionId { hlc: Hlc(self.service.current.hlc.0 + 1), author: id(1) };
        self.specs.insert(revision, Arc::new(spec));
        self.service.previous = Some(self.service.current);
        self.service.current = revision;
        self.service.rolled_back = false;
        revision
    }

    fn now(&self) -> Now {
        Now { mono: self.mono, wall: Wall(self.mono.0 / 1_000 + 10_000_000 - self.set_back) }
    }

    fn plan(&mut self) -> Plan {
        // As the composer does: what has changed is told, and nothing else.
        let known = Known {
            service: self.service.clone(),
            specs: self.specs.len(),
            rollout: self.rollout.clone(),
            tasks: self.tasks.clone(),
            status: self.status.clone(),
            nodes: self.nodes.clone(),
        };
        if self.planned_of.as_ref() != Some(&known) {
            self.memory.stir_all();
        }
        self.planned_of = Some(known);
        let mut stirred = self.memory.clone();
        stirred.stir_all();
        let rests = self.memory.rests(self.service.id, self.mono).is_some();
        let mut memory = std::mem::take(&mut self.memory);
        let plan = self.plan_with(&mut memory);
        self.memory = memory;
        // One that was stirred by the plan itself was planned.
        if rests && plan.changes.is_empty() {
            assert_eq!(self.plan_with(&mut stirred), plan, "a service at rest was in need of a plan");
        }
        plan
    }

    fn plan_with(&mut self, memory: &mut Memory) -> Plan {
        let tasks = self.tasks.values().map(|t| (t, self.status.get(&t.id))).collect();
        let state =
            ServiceState { service: &self.service, specs: self.specs.clone(), rollout: self.rollout.as_ref(), tasks };
        let view = View {
            services: BTreeMap::from([(self.service.id, state)]),
            nodes: &self.nodes,
            orphans: Vec::new(),
            inherited: BTreeSet::new(),
        };
        let (now, ids) = (self.now(), &mut self.ids);
        plan(&view, memory, now, &mut || {
            *ids += 1;
            TaskId::from_u128(*ids)
        })
    }

    /// What the plan must not do, whatever the story.
    fn check(&self, plan: &Plan) {
        let mut after = self.tasks.clone();
        for change in &plan.changes {
            match change {
                Change::PutTask(task) => drop(after.insert(task.id, task.clone())),
                Change::RemoveTask(task) => drop(after.remove(task)),
                Change::PutRollout(_) | Change::RemoveRollout(_) => {}
            }
        }
        for (id, old) in &self.tasks {
            let Some(new) = after.get(id) else {
                let ended = old.node.is_none() || self.status.get(id).is_some_and(TaskStatus::is_over);
                assert!(ended, "a task was forgotten that may still run: {old:?}");
                continue;
            };
            assert!(new.desired >= old.desired, "what is desired only rises: {old:?} -> {new:?}");
            assert!(old.node.is_none() || new.node == old.node, "a task never moves: {old:?} -> {new:?}");
            let told_to_stop = old.desired.is_live() && !new.desired.is_live() && self.serves(old);
            let mut others = after.values().filter(|t| t.slot == old.slot && t.desired.is_live()).peekable();
            if told_to_stop && others.peek().is_some() {
                let takes_over = |t: &Task| {
                    let phase = self.status.get(&t.id).map(|s| s.phase);
                    self.serves(t)
                        || (t.desired == Desired::Ready && phase == Some(TaskPhase::Ready))
                        || (t.replaces == Some(*id) && phase == Some(TaskPhase::Ready))
                };
                assert!(
                    others.any(takes_over),
                    "the last serving task of {:?} was stopped for nothing: {old:?}",
                    old.slot
                );
            }
        }
    }

    fn serves(&self, task: &Task) -> bool {
        let up = task.node.and_then(|n| self.nodes.get(&n)).is_some_and(|n| n.liveness != Liveness::Down);
        up && self.status.get(&task.id).is_some_and(|s| s.phase == TaskPhase::Running)
    }

    /// Plans until nothing is left to decide, and no further: planning twice changes nothing.
    fn settle(&mut self) {
        let plan = self.plan();
        self.check(&plan);
        for change in plan.changes {
            match change {
                Change::PutTask(task) => drop(self.tasks.insert(task.id, task)),
                Change::RemoveTask(task) => {
                    self.tasks.remove(&task);
                    self.status.remove(&task);
                }
                Change::PutRollout(rollout) => self.rollout = Some(rollout),
                Change::RemoveRollout(_) => self.rollout = None,
            }
        }
        assert_eq!(self.plan().changes, [], "planning twice changes nothing");
    }

    /// Every worker that is there takes each of its tasks one step on.
    fn work(&mut self) {
        let now = self.now().wall;
        for task in self.tasks.values() {
            let Some(node) = task.node.filter(|n| self.nodes[n].liveness == Liveness::Alive) else { continue };
            // What a worker has begun goes on when its record has gone.
            let Some(spec) = self.specs.get(&task.revision) else { continue };
            let image = &spec.task.container.image;
            let fate = (self.fate)(image.rsplit(':').next().unwrap());
            let status = self.status.entry(task.id).or_insert_with(|| TaskStatus::new(task.id, node, now));
            let next = match (task.desired, status.phase) {
                (_, phase) if phase >= TaskPhase::Complete => continue,
                (Desired::Shutdown | Desired::Remove, _) => TaskPhase::Shutdown,
                (_, TaskPhase::Preparing) if fate == Fate::Hangs => continue,
                (_, TaskPhase::Preparing) if fate == Fate::Missing && now.since(status.since) < LOOKED_FOR => continue,
                (_, TaskPhase::Preparing) if fate == Fate::Missing => TaskPhase::Failed,
                (_, phase) if phase < TaskPhase::Preparing => TaskPhase::Preparing,
                (_, TaskPhase::Preparing) => TaskPhase::Ready,
                (Desired::Running, TaskPhase::Ready) => TaskPhase::Starting,
                (Desired::Running, TaskPhase::Starting) if fate == Fate::Crashes => TaskPhase::Failed,
                (Desired::Running, TaskPhase::Starting) => TaskPhase::Running,
                (Desired::Running, TaskPhase::Running) if fate == Fate::Ends => TaskPhase::Complete,
                (Desired::Running, TaskPhase::Running) if fate == Fate::Fails => TaskPhase::Failed,
                _ => continue,
            };
            status.phase = next;
            status.since = now;
            if fate != Fate::Crashes && status.is_over() {
                status.standing = Standing::GivenUp;
            }
            if next == TaskPhase::Failed {
                status.error = "task: non-zero exit (1)".into();
            }
        }
    }

    fn play(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.settle();
            self.work();
            self.mono = self.mono + TICK;
        }
        self.settle();
    }

    fn play_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if is_so(self) {
                return;
            }
            self.play(1);
        }
        panic!("never: {what}; {:?}\n{:#?}", self.rollout, self.tasks);
    }

    fn serving(&self) -> Vec<&Task> {
        self.tasks.values().filter(|t| t.desired.is_live() && self.serves(t)).collect()
    }

    fn serving_of(&self, revision: RevisionId) -> usize {
        self.serving().iter().filter(|t| t.revision == revision).count()
    }

    fn state(&self) -> Option<RolloutState> {
        self.rollout.as_ref().map(|r| r.state)
    }

    fn fail(&mut self, task: TaskId) {
        let status = self.status.get_mut(&task).unwrap();
        status.phase = TaskPhase::Failed;
        status.error = "task: non-zero exit (1)".into();
    }

    fn another_holder(&mut self) {
        self.memory = Memory::default();
    }
}

fn crashes_from_2_on(tag: &str) -> Fate {
    if tag == "1" { Fate::Serves } else { Fate::Crashes }
}

// ---- what Swarm's updater gets wrong (reference: moby/swarmkit manager/orchestrator/update/updater.go)

/// (a) Swarm writes "update completed" over a rollback that has paused.
#[test]
fn an_update_of_where_tasks_may_run_is_a_rollout_and_waits_for_a_node_that_fits() {
    let only_in_lyon = || {
        let mut spec = Deploy { replicas: 2, ..Deploy::default() }.spec();
        spec.task.placement.constraints = vec!["node.labels.place==lyon".parse().unwrap()];
        spec
    };
    let mut stage = Stage::set(3, &Deploy { replicas: 2, ..Deploy::default() });
    let before: Vec<TaskId> = stage.serving().iter().map(|t| t.id).collect();
    let revision = stage.deploy_spec(only_in_lyon());
    stage.play(10);
    assert_eq!(stage.state(), Some(RolloutState::Updating));
    assert_eq!(stage.rollout.as_ref().unwrap().total, 2);
    assert_eq!(stage.serving().iter().map(|t| t.id).collect::<Vec<_>>(), before, "nothing is stopped for nowhere");
    let free = *stage.nodes.keys().find(|id| stage.serving().iter().all(|t| t.node != Some(**id))).unwrap();
    stage.nodes.get_mut(&free).unwrap().policy.labels.insert("place".to_owned(), "lyon".to_owned());
    stage.play_until("the update is completed", |s| s.state() == Some(RolloutState::Completed));
    assert!(stage.serving().iter().all(|t| t.node == Some(free) && t.revision == revision));

    // A label that goes later moves tasks, and is nobody's update.
    let rollout = stage.rollout.clone();
    let policy = |stage: &mut Stage, id: NodeId, place: &str| {
        stage.nodes.get_mut(&id).unwrap().policy.labels.insert("place".to_owned(), place.to_owned());
    };
    policy(&mut stage, free, "bern");
    let other = *stage.nodes.keys().find(|id| **id != free).unwrap();
    policy(&mut stage, other, "lyon");
    stage.play_until("all have moved", |s| s.serving().iter().all(|t| t.node == Some(other)));
    assert_eq!(stage.rollout, rollout);
}

/// Of the seed `goes-back-to-what-was-cleared-away`.
#[test]
fn a_rollback_to_what_is_no_longer_known_ends_in_a_paused_update() {
    let mut stage = Stage::set(4, &Deploy::default());
    let old = stage.service.current;
    stage.fate = |tag| if tag == "2" { Fate::Crashes } else { Fate::Serves };
    let new = stage.deploy(&Deploy { tag: "2", action: "rollback", ..Deploy::default() });
    stage.play_until("the rollback", |s| s.state() == Some(RolloutState::RollbackStarted));
    let spec = stage.specs.remove(&old).unwrap();
    stage.play(90);
    assert_eq!(stage.state(), Some(RolloutState::RollbackStarted), "its record may be on its way");
    stage.play_until("nothing is waited for any more", |s| s.state() == Some(RolloutState::Paused));
    let message = stage.rollout.as_ref().unwrap().message.clone();
    assert_eq!(message, "update paused: it failed, and what ran before is no longer known");
    stage.play(100);
    assert_eq!(stage.serving_of(old), 3, "what serves is left alone");
    // Late, but there: nothing turns round once more. What is deployed next mends it.
    stage.specs.insert(old, spec);
    stage.play(100);
    assert_eq!((stage.state(), stage.service.current), (Some(RolloutState::Paused), new));
    stage.deploy(&Deploy { tag: "3", ..Deploy::default() });
    stage.play_until("the update", |s| s.state() == Some(RolloutState::Completed));
}

#[test]
fn a_rollback_that_fails_pauses_and_stays_paused() {
    let mut stage = Stage::set(3, &Deploy::default());
    stage.deploy(&Deploy { tag: "2", action: "rollback", ..Deploy::default() });
    // Nothing starts any more, the old version neither.
    stage.fate = |_| Fate::Crashes;
    stage.play_until("the rollback pauses", |s| s.state() == Some(RolloutState::RollbackPaused));
    let message = stage.rollout.clone().unwrap().message;
    assert!(message.starts_with("rollback paused due to failure or early termination of task "), "{message}");
    for _ in 0..3 {
        stage.play(100);
        stage.another_holder();
    }
    assert_eq!(stage.state(), Some(RolloutState::RollbackPaused));
}

/// Regression (seed `rolled-back-to-what-never-ran`): while nobody led, a release that can't run was written, and a scale on
/// top of it. The way back is to what runs, not to the first of the two writes.
#[test]
fn two_writes_before_anybody_leads_are_rolled_back_to_what_runs() {
    let deploy = Deploy { replicas: 2, action: "rollback", order: "start-first", ..Deploy::default() };
    let mut stage = Stage::set(3, &deploy);
    stage.fate = crashes_from_2_on;
    let good = stage.service.current;
    stage.deploy(&Deploy { tag: "2", ..deploy });
    stage.deploy(&Deploy { tag: "2", replicas: 4, ..deploy });
    stage.play_until("the rollback", |s| s.state() == Some(RolloutState::RollbackCompleted));
    assert_eq!((stage.serving_of(good), stage.serving().len()), (2, 2));
}

/// Found by the lab's chaos: a container was killed in one rollout, and its task, healthy since, paused every later one that
/// asked for the same image.
#[test]
fn what_failed_in_an_earlier_rollout_does_not_pause_a_later_one() {
    let deploy = Deploy { replicas: 3, ..Deploy::default() };
    let mut stage = Stage::set(3, &deploy);
    stage.deploy(&Deploy { tag: "2", ..deploy });
    stage.play_until("a task of the new image", |s| s.serving_of(s.service.current) >= 1);
    let new = stage.service.current;
    let killed = stage.serving().iter().find(|t| t.revision == new).map(|t| t.id).unwrap();
    stage.fail(killed);
    stage.play_until("the pause", |s| s.state() == Some(RolloutState::Paused));
    // Another release, half of it, and back to the one that was paused.
    stage.deploy(&Deploy { tag: "3", ..deploy });
    stage.play_until("a task of the third", |s| s.serving_of(s.service.current) >= 1);
    let back = stage.deploy(&Deploy { tag: "2", ..deploy });
    stage.play_until("the end", |s| {
        s.state() != Some(RolloutState::Updating) && s.rollout.as_ref().is_some_and(|r| r.to == back)
    });
    assert_eq!(stage.state(), Some(RolloutState::Completed));
}

/// (b) With Swarm's new leader the count of failures begins again at none.
#[test]
fn failures_are_counted_across_holders() {
    let deploy = |tag| Deploy { tag, replicas: 8, parallelism: 1, ratio: 0.3, ..Deploy::default() };
    let mut stage = Stage::set(4, &deploy("1"));
    stage.deploy(&deploy("2"));
    stage.fate = crashes_from_2_on;
    // Two of eight failures are tolerated, whoever saw them; the third is one too many.
    for failures in [1, 2] {
        stage.play_until("another failure", |s| s.rollout.as_ref().is_some_and(|r| r.failed.len() == failures));
        assert_eq!(stage.state(), Some(RolloutState::Updating));
        stage.another_holder();
    }
    stage.play_until("it is paused", |s| s.state() == Some(RolloutState::Paused));
    assert_eq!(stage.rollout.as_ref().unwrap().failed.len(), 3);
    assert_eq!(stage.serving().len(), 8 - 3, "no more slots were touched");
}

/// (c) Swarm's start-first, entered again, kills the healthy old task while the new one may still be pulling.
#[test]
fn start_first_keeps_the_old_task_until_the_new_one_serves_whoever_leads_and_whatever_is_changed() {
    let deploy = |tag, replicas| Deploy { tag, replicas, order: "start-first", parallelism: 2, ..Deploy::default() };
    let mut stage = Stage::set(3, &deploy("1", 4));
    stage.fate = |tag| if tag == "1" { Fate::Serves } else { Fate::Hangs };
    stage.deploy(&deploy("2", 4));
    stage.play(5);
    assert_eq!(stage.tasks.values().filter(|t| t.replaces.is_some()).count(), 2, "two have begun");
    stage.another_holder();
    stage.play(5);
    assert_eq!(stage.serving().len(), 4);
    // A scale in the middle of it: another revision, with the same new image.
    stage.deploy(&deploy("2", 5));
    stage.play(5);
    assert_eq!(stage.serving().len(), 4, "the fifth hangs like the others; nobody was stopped");
    stage.another_holder();
    stage.play(50);
    assert_eq!(stage.serving().len(), 4);
    stage.fate = |_| Fate::Serves;
    stage.play_until("all are new", |s| s.serving().len() == 5 && s.serving().iter().all(|t| t.revision.hlc > Hlc(1)));
}

/// (d) Swarm makes what a lost node ran of the paused, bad spec.
#[test]
fn a_paused_release_does_not_spread_when_nodes_fail_or_are_drained() {
    let mut stage = Stage::set(4, &Deploy { replicas: 8, ..Deploy::default() });
    let old = stage.service.current;
    let bad = stage.deploy(&Deploy { tag: "2", replicas: 8, ..Deploy::default() });
    stage.fate = crashes_from_2_on;
    stage.play_until("it is paused", |s| s.state() == Some(RolloutState::Paused));
    let live_bad = |s: &Stage| s.tasks.values().filter(|t| t.desired.is_live() && t.revision == bad).count();
    stage.nodes.get_mut(&id(1)).unwrap().liveness = Liveness::Down;
    stage.nodes.get_mut(&id(2)).unwrap().policy.availability = Availability::Drain;
    stage.play_until("what ran there runs elsewhere", |s| {
        s.serving().len() == 8 && s.serving().iter().all(|t| t.node != Some(id(1)) && t.node != Some(id(2)))
    });
    assert_eq!(stage.serving_of(old), 8, "all of what ran before, the failed slot too");
    assert_eq!(live_bad(&stage), 0);
    assert_eq!(stage.state(), Some(RolloutState::Paused));
}

/// (e) What the monitor period counts from is left in the dark by Swarm: here it is when the task first served.
#[test]
fn the_monitor_period_begins_when_a_task_serves() {
    let updating = |delay: Duration| {
        let mut stage = Stage::set(2, &Deploy { replicas: 1, ..Deploy::default() });
        let new = stage.deploy(&Deploy { tag: "2", replicas: 1, ..Deploy::default() });
        // However long it took to get there.
        stage.fate = |tag| if tag == "1" { Fate::Serves } else { Fate::Hangs };
        stage.play(u32::try_from(2 * MONITOR.as_millis() / TICK.as_millis()).unwrap());
        assert_eq!(stage.state(), Some(RolloutState::Updating));
        stage.fate = |_| Fate::Serves;
        stage.play_until("the new one serves", |s| s.serving_of(new) == 1);
        let until = stage.mono + delay;
        while stage.mono < until {
            stage.play(1);
        }
        let task = stage.serving()[0].id;
        (stage, task)
    };
    let (mut early, task) = updating(MONITOR / 2);
    assert_eq!(early.state(), Some(RolloutState::Updating), "not done before the period is over");
    early.fail(task);
    early.play(1);
    assert_eq!(early.state(), Some(RolloutState::Paused));
    let (mut late, task) = updating(MONITOR + TICK * 2);
    assert_eq!(late.state(), Some(RolloutState::Completed));
    late.fail(task);
    late.play(1);
    assert_eq!(late.state(), Some(RolloutState::Completed), "what fails later is no failure of the update");
}

/// Swarm waits for ever for a task that neither starts nor fails.
#[test]
fn a_task_that_never_starts_is_a_failure_in_the_end() {
    let mut stage = Stage::set(2, &Deploy { replicas: 2, order: "start-first", ..Deploy::default() });
    stage.deploy(&Deploy { tag: "2", replicas: 2, order: "start-first", ..Deploy::default() });
    // No node fits: it waits for one.
    for node in stage.nodes.values_mut() {
        node.policy.availability = Availability::Pause;
    }
    stage.play(5);
    assert_eq!(stage.state(), Some(RolloutState::Updating));
    stage.mono = stage.mono + START_TIMEOUT;
    stage.play(1);
    assert_eq!(stage.state(), Some(RolloutState::Paused));
    assert_eq!(stage.serving().len(), 2);
}

/// Regression (storm, seed 20275 at 600 s, U4): with the wall clock set back every new try was the oldest by its date and
/// forgotten at once, so that the slot was tried again without a pause, and no other ever.
#[test]
fn what_cannot_be_made_ready_is_not_tried_more_often_for_a_clock_that_was_set_back() {
    let tries = |set_back| {
        let deploy = |tag| Deploy { tag, replicas: 2, action: "continue", ..Deploy::default() };
        let mut stage = Stage::set(2, &deploy("1"));
        stage.fate = |tag| if tag == "1" { Fate::Serves } else { Fate::Missing };
        stage.deploy(&deploy("2"));
        stage.play(2_000);
        stage.set_back = set_back;
        stage.deploy(&deploy("3"));
        let before = stage.ids;
        stage.play_until("each slot was tried", |s| s.state() == Some(RolloutState::Completed));
        stage.play(1_000);
        assert_eq!(stage.serving().len(), 2, "what can't be made ready replaces nothing");
        stage.ids - before
    };
    let usual = tries(0);
    assert!((2..50).contains(&usual), "{usual}");
    assert_eq!(tries(5_000_000), usual);
}

/// Regression (calm, seed 31576 at 600 s, U4): to find out took longer than a slot cools down, so that the first two slots
/// took turns, and no other had one.
#[test]
fn each_slot_has_its_turn_before_another_is_tried_again() {
    let deploy = |tag| Deploy { tag, replicas: 4, action: "continue", ..Deploy::default() };
    let mut stage = Stage::set(2, &deploy("1"));
    stage.fate = |tag| if tag == "1" { Fate::Serves } else { Fate::Missing };
    stage.deploy(&deploy("2"));
    let before = stage.ids;
    stage.play_until("each slot was tried", |s| s.state() == Some(RolloutState::Completed));
    assert!(stage.ids - before <= 5, "{} tries for 4 slots", stage.ids - before);
}

/// Swarm stops all tasks of a drained node at once (moby#34139).
#[test]
fn a_drain_keeps_to_the_update_policy() {
    for (order, least) in [("stop-first", 5), ("start-first", 6)] {
        let mut stage = Stage::set(2, &Deploy { replicas: 6, order, ..Deploy::default() });
        stage.nodes.get_mut(&id(1)).unwrap().policy.availability = Availability::Drain;
        let mut fewest = usize::MAX;
        stage.play_until("the node is empty", |s| {
            s.serving().len() == 6 && s.serving().iter().all(|t| t.node == Some(id(2)))
        });
        let mut again = Stage::set(2, &Deploy { replicas: 6, order, ..Deploy::default() });
        again.nodes.get_mut(&id(1)).unwrap().policy.availability = Availability::Drain;
        for _ in 0..100 {
            again.play(1);
            fewest = fewest.min(again.tasks.values().filter(|t| again.serves(t)).count());
        }
        assert!(again.serving().iter().all(|t| t.node == Some(id(2))));
        assert_eq!(fewest, least, "{order}");
    }
}

/// Regression (calm, seed 20001 at 600 s, U1): two operators scale down and up within milliseconds, in the middle of an
/// update. The slots that had just been stopped for it are let go and made anew, and the others wait for them.
#[test]
fn slots_that_are_made_anew_in_the_middle_of_an_update_take_their_place_in_the_budget() {
    let deploy = |tag, replicas| Deploy { tag, replicas, parallelism: 2, ..Deploy::default() };
    let mut stage = Stage::set(3, &deploy("1", 5));
    let first = stage.service.current;
    stage.deploy(&deploy("2", 5));
    stage.play_until("two are stopped for the update", |s| s.serving().len() == 3);
    stage.deploy(&deploy("2", 3));
    stage.settle();
    stage.deploy(&deploy("2", 5));
    stage.settle();
    for _ in 0..100 {
        let serve = stage.tasks.values().filter(|t| stage.serves(t)).count();
        assert!(serve >= 3, "{serve} of 5 serve, the budget is 2");
        stage.play(1);
    }
    assert_eq!((stage.serving().len(), stage.serving_of(first)), (5, 0));
    assert_eq!(stage.state(), Some(RolloutState::Completed));
}

// ---- anything at all

#[derive(Debug, Clone)]
enum Happening {
    Deploy { tag: usize, replicas: u32 },
    RollBack,
    NodeDown(u128),
    NodeUp(u128),
    Drain(u128),
    Activate(u128),
    TaskFails(usize),
    AnotherHolder,
    Time(u32),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0..3usize, 0..6u32).prop_map(|(tag, replicas)| Happening::Deploy { tag, replicas }),
        1 => Just(Happening::RollBack),
        1 => (1..=3u128).prop_map(Happening::NodeDown),
        2 => (1..=3u128).prop_map(Happening::NodeUp),
        1 => (1..=3u128).prop_map(Happening::Drain),
        2 => (1..=3u128).prop_map(Happening::Activate),
        2 => any::<usize>().prop_map(Happening::TaskFails),
        1 => Just(Happening::AnotherHolder),
        6 => (1..30u32).prop_map(Happening::Time),
    ]
}

const TAGS: [&str; 3] = ["1", "2", "bad"];

fn happen(stage: &mut Stage, happening: &Happening, policy: &Deploy) {
    let node = |stage: &mut Stage, n: u128, change: fn(&mut NodeInfo)| change(stage.nodes.get_mut(&id(n)).unwrap());
    match happening {
        Happening::Deploy { tag, replicas } => {
            let deploy = Deploy { tag: TAGS[*tag], replicas: *replicas, ..*policy };
            stage.deploy(&deploy);
        }
        Happening::RollBack => {
            if let Some(previous) = stage.service.previous {
                stage.service.previous = Some(stage.service.current);
                let revision = RevisionId { hlc: Hlc(stage.service.current.hlc.0 + 1), author: id(1) };
                stage.specs.insert(revision, stage.specs[&previous].clone());
                stage.service.current = revision;
                stage.service.rolled_back = true;
            }
        }
        Happening::NodeDown(n) => node(stage, *n, |n| n.liveness = Liveness::Down),
        Happening::NodeUp(n) => node(stage, *n, |n| n.liveness = Liveness::Alive),
        Happening::Drain(n) => node(stage, *n, |n| n.policy.availability = Availability::Drain),
        Happening::Activate(n) => node(stage, *n, |n| n.policy.availability = Availability::Active),
        Happening::TaskFails(which) => {
            let running: Vec<TaskId> = stage.serving().iter().map(|t| t.id).collect();
            if !running.is_empty() {
                stage.fail(running[which % running.len()]);
            }
        }
        Happening::AnotherHolder => stage.another_holder(),
        Happening::Time(ticks) => stage.play(*ticks),
    }
    stage.settle();
}

fn policy() -> impl Strategy<Value = Deploy> {
    (
        prop_oneof![Just("stop-first"), Just("start-first")],
        0..3u32,
        prop_oneof![Just("pause"), Just("continue"), Just("rollback")],
        0..3u32,
    )
        .prop_map(|(order, parallelism, action, ratio)| Deploy {
            order,
            parallelism,
            action,
            ratio: f64::from(ratio) / 4.0,
            ..Deploy::default()
        })
}

/// A case that fails is printed, shrunk, and kept in `proptest-regressions/service/tests.txt`, which is tried first from then on.
/// `PROPTEST_CASES` asks for more of them.
fn config() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(100),
    }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever happens, every plan keeps the laws of [`Stage::check`], and planning twice changes nothing. In a world
    /// that is whole again the service gets to what is wanted.
    #[test]
    fn no_plan_breaks_a_law(policy in policy(), happenings in prop::collection::vec(happening(), 1..40)) {
        let mut stage = Stage::bare(3, &policy);
        stage.fate = |tag| if tag == "bad" { Fate::Crashes } else { Fate::Serves };
        for happening in &happenings {
            happen(&mut stage, happening, &policy);
        }
        for n in 1..=3 {
            happen(&mut stage, &Happening::NodeUp(n), &policy);
            happen(&mut stage, &Happening::Activate(n), &policy);
        }
        let last = Deploy { tag: "3", replicas: 3, ..policy };
        let revision = stage.deploy(&last);
        stage.play_until("what was asked for last runs", |s| s.serving_of(revision) == 3 && s.serving().len() == 3);
    }

    /// In an update or a drain without any failure no more is disrupted than the policy allows.
    #[test]
    fn a_planned_change_keeps_to_the_budget(policy in policy(), drain in any::<bool>(), replicas in 1..7u32) {
        let deploy = |tag| Deploy { tag, replicas, ..policy };
        let mut stage = Stage::set(3, &deploy("1"));
        if drain {
            happen(&mut stage, &Happening::Drain(1), &policy);
        } else {
            stage.deploy(&deploy("2"));
        }
        let allowed = match (policy.order, policy.parallelism) {
            ("start-first", _) => 0,
            (_, 0) => replicas,
            (_, at_once) => at_once.min(replicas),
        };
        for _ in 0..100 {
            stage.play(1);
            let serve = stage.tasks.values().filter(|t| stage.serves(t)).map(|t| t.slot).collect::<BTreeSet<_>>().len();
            prop_assert!(serve + allowed as usize >= replicas as usize, "{serve} of {replicas} serve, {allowed} may not");
        }
        prop_assert_eq!(stage.serving().len(), replicas as usize);
    }
}

/// Their last word stood in `ps` for ever: "running", under the id of a node that nobody knows any more.
#[test]
fn what_ran_on_a_removed_node_is_forgotten_and_what_failed_there_is_kept() {
    let mut stage = Stage::set(3, &Deploy { replicas: 3, ..Deploy::default() });
    let there: Vec<TaskId> = stage.tasks.values().filter(|t| t.node == Some(id(1))).map(|t| t.id).collect();
    let failed = there[0];
    stage.fail(failed);
    let node = stage.nodes.get_mut(&id(1)).unwrap();
    (node.policy.removed, node.liveness) = (true, Liveness::Down);
    // A task was told to stop and forgotten in one plan; the stage's own check is for nodes that are there.
    for _ in 0..50 {
        for change in stage.plan().changes {
            match change {
                Change::PutTask(task) => drop(stage.tasks.insert(task.id, task)),
                Change::RemoveTask(task) => drop(stage.tasks.remove(&task)),
                Change::PutRollout(rollout) => stage.rollout = Some(rollout),
                Change::RemoveRollout(_) => stage.rollout = None,
            }
        }
        stage.work();
        stage.mono = stage.mono + TICK;
    }
    assert_eq!(stage.serving().len(), 3);
    let left: Vec<TaskId> = stage.tasks.values().filter(|t| t.node == Some(id(1))).map(|t| t.id).collect();
    assert_eq!(left, [failed]);
}
