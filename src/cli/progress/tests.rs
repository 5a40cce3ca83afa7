//! A fake agent plays the course of an update, one poll after the other.

use super::*;
use crate::cli::testing::{Asked, FakeAgent, console};

/// What the agent shows at one poll: the update's state and message, and the state of each task.
#[derive(Clone)]
struct Scene {
    update: Option<(&'static str, &'static str)>,
    tasks: Vec<&'static str>,
    monitor_ms: u64,
    global: bool,
    completed_at: &'static str,
    /// The revision that still serves.
    fallback: u64,
    /// Why those that don't run do not.
    error: &'static str,
}

fn scene(tasks: &[&'static str]) -> Scene {
    Scene {
        update: None,
        tasks: tasks.to_vec(),
        monitor_ms: 0,
        global: false,
        completed_at: "",
        fallback: 0,
        error: "",
    }
}

impl Scene {
    fn with(mut self, state: &'static str, message: &'static str) -> Self {
        self.update = Some((state, message));
        self
    }

    fn troubled(self, error: &'static str) -> Self {
        Self { error, ..self }
    }

    fn monitor(mut self, ms: u64) -> Self {
        self.monitor_ms = ms;
        self
    }

    fn service(&self) -> Value {
        let mode = if self.global { json!({ "Global": {} }) } else { json!({ "Replicated": { "Replicas": 2 } }) };
        let monitor = self.monitor_ms * 1_000_000;
        let mut service = json!({ "ID": "abc", "Spec": { "Name": "web", "Mode": mode,
            "UpdateConfig": { "Monitor": monitor }, "RollbackConfig": { "Monitor": monitor } } });
        if let Some((state, message)) = self.update {
            service["UpdateStatus"] = json!({ "State": state, "Message": message, "CompletedAt": self.completed_at });
        }
        service
    }

    fn tasks(&self) -> Value {
        let task = |(n, state): (usize, &&str)| {
            let node = format!("node{n}");
            json!({ "ID": format!("t{n}"), "Slot": if self.global { 0 } else { n }, "NodeID": node, "DesiredState": "running",
                "Status": { "State": state, "Err": if *state == "running" { "" } else { self.error }, "Timestamp": "2026-11-22T20:35:30Z" } })
        };
        (1..).zip(&self.tasks).map(task).collect()
    }
}

/// Plays the scenes, the last one for ever; a scene begins when the service is asked for.
fn play(scenes: Vec<Scene>) -> FakeAgent {
    let mut asked = 0;
    FakeAgent::start(move |request: Asked| {
        if request.path.starts_with("/services/abc") {
            asked += 1;
        }
        let scene = scenes.get(asked - 1).or(scenes.last()).cloned().unwrap();
        match request.path.as_str() {
            "/services/abc" => (200, scene.service()),
            r#"/services?status=true&filters={"id":{"abc":true}}"# => {
                (200, json!([{ "ID": "abc", "ServiceStatus": { "RunningTasks": 2, "DesiredTasks": 2 } }]))
            }
            // The one before the last is no way out, either.
            "/peer/services/abc/history" => {
                let revision = |number: u64| json!({ "Number": number, "Current": number == 2, "Fallback": number == scene.fallback });
                (200, (1..=3).map(revision).collect())
            }
            "/nodes" => {
                (200, (1..=3).map(|n| json!({ "ID": format!("node{n}"), "Status": { "State": "ready" } })).collect())
            }
            "/tasks/t1" => (200, json!({ "ID": "t1", "Status": { "Err": "task: non-zero exit (1)" } })),
            tasks => {
                assert_eq!(tasks, r#"/tasks?filters={"_up-to-date":{"true":true},"service":{"abc":true}}"#);
                (200, scene.tasks())
            }
        }
    })
}

async fn watched(scenes: Vec<Scene>, doing: Doing) -> (Result<(), CliError>, String) {
    followed(&play(scenes), doing).await
}

async fn followed(agent: &FakeAgent, doing: Doing) -> (Result<(), CliError>, String) {
    let (mut console, out, _) = console(false);
    console.set_now("2026-11-22T20:35:30Z");
    let wait =
        Wait { id: "abc", shown: "web", doing, limits: Limits::new(false, None), poll: Duration::from_millis(1) };
    let client = agent.client();
    let watching = super::wait(&wait, &client, &mut console);
    let result = tokio::time::timeout(Duration::from_secs(20), watching).await.expect("the wait must end");
    (result, out.text())
}

#[tokio::test]
async fn it_ends_when_all_run() {
    let scenes =
        vec![scene(&[]), scene(&["preparing"]), scene(&["running", "starting"]), scene(&["running", "running"])];
    let (result, out) = watched(scenes, Doing::Deploying).await;
    assert_eq!(result, Ok(()));
    assert_eq!(
        out,
        "overall progress: 0 out of 2 tasks\n1/2: preparing\noverall progress: 1 out of 2 tasks\n1/2: running\n2/2: starting\n\
         overall progress: 2 out of 2 tasks\n2/2: running\nverify: Service abc converged\n"
    );
}

#[tokio::test]
async fn the_monitor_period_is_waited_out_and_a_failure_in_it_is_seen() {
    const HOUR_MS: u64 = 3_600_000;
    let scenes = vec![
        scene(&["running"]).monitor(HOUR_MS),
        scene(&["running", "running"]).monitor(HOUR_MS),
        scene(&["running", "failed"]).monitor(HOUR_MS),
        scene(&["running", "running"]).monitor(30),
    ];
    let (result, out) = watched(scenes, Doing::Deploying).await;
    assert_eq!(result, Ok(()));
    let verify: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("verify: ")).collect();
    let waiting = |seconds: u64| format!("Waiting {seconds} seconds to verify that tasks are stable...");
    assert_eq!(verify, [&waiting(3_600), "Detected task failure", &waiting(1), "Service abc converged"]);
}

#[tokio::test]
async fn what_ran_before_need_not_be_watched_again() {
    let agent = play(vec![scene(&["running", "running"]).monitor(3_600_000)]);
    let (mut console, out, _) = console(false);
    console.set_now("2026-11-22T21:35:30Z");
    let wait = Wait {
        id: "abc",
        shown: "web",
        doing: Doing::Deploying,
        limits: Limits::new(false, None),
        poll: Duration::from_millis(1),
    };
    super::wait(&wait, &agent.client(), &mut console).await.unwrap();
    assert!(out.text().ends_with("verify: Service abc converged\n"));
}

/// What has never run isn't given up by the cluster: a pipeline would wait for ever.
#[tokio::test]
async fn a_wait_that_takes_too_long_ends_and_says_what_stood_in_the_way() {
    let agent = play(vec![scene(&["running", "rejected"]).troubled("No such image: web:9")]);
    let (mut console, out, _) = console(false);
    let limits = Limits::new(true, Some("50ms".parse().unwrap()));
    let wait = Wait { id: "abc", shown: "web", doing: Doing::Deploying, limits, poll: Duration::from_millis(1) };
    for error in [
        super::wait(&wait, &agent.client(), &mut console).await.unwrap_err(),
        super::wait_all(&[wait], &agent.client(), &mut console).await.unwrap_err(),
    ] {
        let why = "service web has not converged in time: 1 out of 2 tasks; 2/2: No such image: web:9";
        assert_eq!((error.message(), error.code()), (why, 1));
        let hint = "the cluster goes on with it; the reasons: peer service ps --no-trunc web";
        assert_eq!(error.hint_text(), Some(hint));
    }
    assert_eq!(out.text(), "", "it was quiet");
}

#[tokio::test]
async fn a_paused_update_is_a_failure() {
    let scenes = vec![
        scene(&["starting"]).with("updating", "update in progress"),
        scene(&["failed"]).with("paused", "update paused due to failure or early termination of task t1"),
    ];
    let (result, _) = watched(scenes, Doing::Deploying).await;
    let error = result.unwrap_err();
    assert_eq!(
        error.message(),
        "service update paused: update paused due to failure or early termination of task t1 (non-zero exit (1))"
    );
    assert_eq!(error.code(), 1);
    assert_eq!(
        error.hint_text(),
        Some("see why with: peer service ps --no-trunc web; go back with: peer service rollback web")
    );
}

/// Two revisions that can't run, one after the other: a plain rollback leads from the second to the first.
#[tokio::test]
async fn the_way_out_leads_to_what_still_serves() {
    let known = |scene: Scene| Scene { fallback: 1, ..scene };
    let scenes = || {
        vec![
            scene(&["starting"]).with("rollback_started", "manually requested rollback"),
            scene(&["failed"]).with("rollback_started", "manually requested rollback"),
            scene(&["failed"]).with("rollback_paused", "rollback paused due to failure of task t1"),
        ]
    };
    let ended = |(result, out): (Result<(), CliError>, String)| {
        let error = result.unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (1, "service rollback paused: rollback paused due to failure of task t1 (non-zero exit (1))")
        );
        (error.hint_text().unwrap().to_owned(), out)
    };
    let (hint, _) = ended(watched(scenes().into_iter().map(known).collect(), Doing::RollingBack).await);
    assert_eq!(
        hint,
        "see why with: peer service ps --no-trunc web; go elsewhere with: peer service rollback --to 1 web"
    );
    // Where it can't be told, the number is the user's to choose.
    let (hint, _) = ended(watched(scenes(), Doing::RollingBack).await);
    assert!(hint.ends_with("peer service rollback --to N web, N of: peer service history web"), "{hint}");
    let paused = vec![known(scene(&["failed"]).with("paused", "update paused"))];
    let (result, _) = watched(paused, Doing::Deploying).await;
    assert!(result.unwrap_err().hint_text().unwrap().ends_with("go back with: peer service rollback --to 1 web"));
}

/// A task that never gets healthy says nothing for minutes.
#[tokio::test]
async fn a_rollback_that_gets_nowhere_names_the_way_out_while_it_waits() {
    let waiting = Scene { fallback: 1, ..scene(&["starting"]).with("rollback_started", "manually requested rollback") };
    let mut scenes = vec![waiting; SLOW + 1];
    scenes.push(scene(&["failed"]).with("rollback_paused", "rollback paused"));
    let (result, out) = watched(scenes, Doing::RollingBack).await;
    assert_eq!(result.unwrap_err().code(), 1);
    let told = "hint: Ctrl-C ends only the wait; the reasons: peer service ps --no-trunc web\n\
                way out: peer service rollback --to 1 web\n";
    assert!(out.contains(told), "{out}");
}

/// Before the holder has begun with it, what runs looks as if it had been gone back to already.
#[tokio::test]
async fn a_rollback_is_not_counted_before_it_has_begun() {
    let scenes = vec![
        scene(&["running", "running"]),
        scene(&["running", "starting"]).with("rollback_started", "manually requested rollback"),
        scene(&["running", "running"]).with("rollback_completed", "rollback completed"),
    ];
    let (result, out) = watched(scenes, Doing::RollingBack).await;
    assert_eq!(result, Ok(()));
    let overall: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("overall progress: ")).collect();
    assert_eq!(
        overall,
        [
            "waiting for the rollback to begin",
            "rolling back update: 1 out of 2 tasks are back, 2 of 2 serve",
            "rolling back update: 2 out of 2 tasks",
        ]
    );
    assert!(!out.contains("verify: Waiting for") && !out.contains("Detected"), "{out}");
}

#[tokio::test]
async fn an_update_tells_new_tasks_from_those_that_serve_and_takes_no_rest_for_a_failure() {
    let scenes = vec![
        scene(&["running", "running"]).monitor(3_600_000),
        scene(&["running"]).monitor(3_600_000).with("updating", "update in progress"),
        scene(&["running", "running"]).with("completed", "update completed"),
    ];
    let (result, out) = watched(scenes, Doing::Deploying).await;
    assert_eq!(result, Ok(()));
    let told = "overall progress: 1 out of 2 tasks run the new version, 2 of 2 serve\n";
    assert!(out.contains(told) && out.contains("verify: Waiting for the rest of the tasks\n"), "{out}");
    assert!(out.lines().all(|line| line.len() <= 80), "{out}");
}

#[tokio::test]
async fn an_update_that_was_rolled_back_is_a_failure_once_the_old_runs_again() {
    let why = "update rolled back due to failure or early termination of task t1";
    let scenes = || {
        vec![
            scene(&["failed"]).with("updating", ""),
            scene(&["running"]).with("rollback_started", why),
            scene(&["running", "running"]).with("rollback_completed", "rollback completed"),
        ]
    };
    let (result, out) = watched(scenes(), Doing::Deploying).await;
    let error = result.unwrap_err();
    assert_eq!((error.message(), error.code()), (format!("service update rolled back: {why}").as_str(), 1));
    assert!(out.contains(&format!("rollback: {why}\n")), "{out}");
    assert!(out.contains("overall progress: rolling back update: 1 out of 2 tasks are back, 2 of 2 serve\n"), "{out}");
    // The same course is what somebody wanted who asked for a rollback.
    let (result, out) = watched(scenes(), Doing::RollingBack).await;
    assert_eq!(result, Ok(()));
    assert!(out.contains("rollback: manually requested rollback\n"), "{out}");
}

#[tokio::test]
async fn the_agents_own_verdict_spares_the_wait() {
    let scenes = vec![scene(&["running", "running"]).monitor(3_600_000).with("completed", "update completed")];
    assert_eq!(watched(scenes, Doing::Deploying).await.0, Ok(()));
}

/// A rollback after a paused update was "converged" in 0.1 s, with its task only about to run.
#[tokio::test]
async fn the_agents_verdict_does_not_cover_what_began_to_run_after_it() {
    let completed = |at: &'static str| Scene {
        completed_at: at,
        ..scene(&["running", "running"]).monitor(30).with("rollback_completed", "rollback completed")
    };
    // The tasks run since 20:35:30.
    let (result, out) = watched(vec![completed("2026-11-22T20:35:29Z")], Doing::RollingBack).await;
    assert_eq!(result, Ok(()));
    assert!(out.contains("verify: Waiting 1 seconds to verify"), "{out}");
    let (_, out) = watched(vec![completed("2026-11-22T20:35:30Z")], Doing::RollingBack).await;
    assert!(!out.contains("Waiting"), "{out}");
}

#[test]
fn a_port_that_can_not_be_opened_is_named_with_its_node() {
    let service = json!({ "Endpoint": { "Ports": [{ "PublishedPort": 7373 }, { "PublishedPort": 80 }] } });
    let node = |name: &str, state: &str| {
        json!({ "Description": { "Hostname": name }, "Status": { "State": state },
        "PeerStatus": { "BlockedPorts": { "7373": "address in use", "9": "of another service" } } })
    };
    let nodes = json!([node("node1", "ready"), node("node2", "down")]);
    assert_eq!(blocked(&service, &nodes), ["published port 7373 can't be opened on node1: address in use"]);
}

#[tokio::test]
async fn a_global_service_waits_for_its_tasks_to_appear() {
    let global = |tasks: &[&'static str]| Scene { global: true, ..scene(tasks) };
    let scenes =
        vec![global(&[]), global(&["running", "starting", "running"]), global(&["running", "running", "running"])];
    let (result, out) = watched(scenes, Doing::Deploying).await;
    assert_eq!(result, Ok(()));
    assert!(out.starts_with("overall progress: waiting for new tasks\noverall progress: 2 out of 3 tasks\n"), "{out}");
}

#[tokio::test]
async fn a_service_that_vanishes_ends_the_wait() {
    let agent = FakeAgent::start(|_| (404, json!({ "message": "service abc not found" })));
    let (mut console, _, _) = console(false);
    let wait = Wait {
        id: "abc",
        shown: "web",
        doing: Doing::Deploying,
        limits: Limits::new(true, None),
        poll: Duration::from_millis(1),
    };
    let error = super::wait(&wait, &agent.client(), &mut console).await.unwrap_err();
    assert_eq!(error.message(), "service web was removed meanwhile");
}

#[test]
fn the_task_that_lags_counts_and_dead_nodes_dont() {
    let service = json!({ "Spec": { "Mode": { "Replicated": { "Replicas": 2 } } } });
    let task = |id: &str, slot: u64, node: &str, desired: &str, state: &str| json!({ "ID": id, "Slot": slot, "NodeID": node, "DesiredState": desired, "Status": { "State": state } });
    let nodes = json!([{ "ID": "a", "Status": { "State": "ready" } }, { "ID": "b", "Status": { "State": "down" } }]);
    let tasks = json!([
        task("old", 1, "a", "running", "running"),
        task("new", 1, "a", "running", "starting"),
        task("lost", 2, "b", "running", "running"),
        task("gone", 2, "a", "remove", "running"),
        task("done", 2, "a", "shutdown", "running"),
    ]);
    let tally = Tally::of(&service, &tasks, &nodes);
    assert_eq!(tally::chosen(&tally), ["new", "done"]);
    assert!(!tally.converged());
}

/// What the agent shows of a job at one poll: the state of each task, and whether it has given up.
fn job_played(polls: Vec<Vec<(&'static str, bool)>>) -> FakeAgent {
    let mut asked = 0;
    FakeAgent::start(move |request: Asked| {
        if request.path.starts_with("/services/abc") {
            asked += 1;
            let mode = json!({ "ReplicatedJob": { "MaxConcurrent": 2, "TotalCompletions": 3 } });
            return (200, json!({ "ID": "abc", "Spec": { "Name": "web", "Mode": mode } }));
        }
        let tasks = polls.get(asked - 1).or(polls.last()).unwrap();
        let task = |(n, (state, given_up)): (usize, &(&str, bool))| {
            json!({ "ID": format!("t{n}"), "Slot": n, "NodeID": "gone", "DesiredState": "complete", "PeerGivenUp": given_up,
                "Status": { "State": state, "Err": if *given_up && *state == "failed" { "task: non-zero exit (3)" } else { "" } } })
        };
        match request.path.split('?').next().unwrap() {
            "/tasks" => (200, tasks.iter().enumerate().map(task).collect()),
            _ => (200, json!([])),
        }
    })
}

#[tokio::test]
async fn a_job_is_waited_for_until_all_of_it_has_ended() {
    let agent = job_played(vec![
        vec![("running", false), ("running", false)],
        vec![("complete", true), ("failed", false), ("running", false)],
        vec![("complete", true), ("complete", true), ("complete", true)],
    ]);
    let (result, out) = followed(&agent, Doing::Deploying).await;
    assert_eq!(result, Ok(()));
    let progress: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("job progress: ")).collect();
    assert_eq!(progress, ["0 out of 3 complete", "1 out of 3 complete", "3 out of 3 complete"]);
}

#[tokio::test]
async fn a_job_that_can_not_end_with_success_fails_once_the_rest_has_ended() {
    let agent = job_played(vec![
        vec![("failed", true), ("running", false)],
        vec![("failed", true), ("complete", true), ("running", false)],
        vec![("failed", true), ("complete", true), ("complete", true)],
    ]);
    let (result, _) = followed(&agent, Doing::Deploying).await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("job failed: 1 out of 3 tasks failed for good: task: non-zero exit (3)"), "{error}");
}

/// An image that nobody has, a constraint that no node meets: it may never end, and that isn't an error.
#[tokio::test]
async fn who_waits_for_what_may_never_come_is_told_that_nothing_is_lost_by_leaving() {
    let mut polls = 0;
    let agent = FakeAgent::start(move |request: Asked| match request.path.split('?').next().unwrap() {
        "/services/abc" => {
            polls += 1;
            (200, scene(&[]).service())
        }
        "/tasks" => {
            let (state, why) = if polls < 4 { ("pending", "no suitable node") } else { ("running", "") };
            let task = |slot: u64| {
                json!({ "Slot": slot, "NodeID": "", "DesiredState": "running",
                "Status": { "State": state, "Err": why, "Timestamp": "2026-11-22T20:35:30Z" } })
            };
            (200, json!([task(1), task(2)]))
        }
        _ => (200, json!([])),
    });
    let (result, out) = followed(&agent, Doing::Deploying).await;
    assert_eq!(result, Ok(()));
    let hints: Vec<&str> = out.lines().filter(|line| line.starts_with("hint: ")).collect();
    assert!(matches!(hints[..], [hint] if hint.contains("Ctrl-C") && hint.contains("--no-trunc web")), "{out}");
}
