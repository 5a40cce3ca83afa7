//! The usual life of a task: up, down with its container, up again.

use super::*;
use crate::model::spec::{Mount, MountKind};
use TaskPhase::*;

#[test]
fn a_task_is_pulled_created_started_and_runs() {
    let mut rig = Rig::new();
    rig.assign(order(1, Desired::Running, spec()));
    rig.run(secs(1));
    assert_eq!(rig.asked(), ["pull", "create", "start"]);
    // Steps that follow at once are one status.
    assert_eq!(rig.phases(1), [(0, Preparing), (0, Starting), (0, Running)]);
    let status = rig.status(1);
    assert_eq!((status.container_id.as_deref(), status.pid), (Some("c1"), Some(4_711)));
    let here = rig.worker.observed(task_id(1)).unwrap();
    assert_eq!(here.address, Some([172, 17, 0, 9].into()));
    assert_eq!(rig.worker.deadline(), None, "a running task needs no timer");
    assert_eq!(rig.listings(), 0);
}

#[test]
fn the_plan_names_labels_and_fills_in() {
    let mut web = publishing(80);
    web.task.container.env = vec!["SLOT={{.Task.Slot}}@{{ .Node.Hostname }}".into(), "PLAIN=}} {".into()];
    web.task.container.hostname = Some("{{.Service.Name}}-{{.Task.Slot}}".into());
    web.labels = [("share".to_owned(), "/srv/web".to_owned())].into();
    let mount = |kind, source: &str, target: &str, options| Mount {
        kind,
        source: Some(source.to_owned()),
        target: target.to_owned(),
        read_only: false,
        options,
    };
    let volume_options = serde_json::json!({
        "Labels": { "of": "{{.Task.Slot}}" },
        "DriverConfig": { "Name": "nfs", "Options": { "device": ":/{{.Service.Name}}" } },
    });
    web.task.resources.reserve_generic = [("gpu".to_owned(), 2)].into();
    web.task.container.mounts = vec![
        mount(
            MountKind::Volume,
            "data-{{.Task.Slot}}",
            "/data/{{.Node.Hostname}}",
            [("VolumeOptions".to_owned(), volume_options)].into(),
        ),
        mount(MountKind::Bind, r#"{{index .Service.Labels "share"}}"#, "/srv", Default::default()),
    ];
    web.task.container.labels =
        [("peer.task".to_owned(), "forged".to_owned()), ("tier".to_owned(), "front".to_owned())].into();
    let rig = Rig::running(web);
    let plan =
        rig.ops.iter().find_map(|(_, op)| if let EngineOp::Create(plan) = op { Some(plan) } else { None }).unwrap();
    let id = task_id(1).to_string();
    assert_eq!(plan.name, format!("web.3.{id}"));
    assert_eq!(plan.env, ["SLOT=3@host7", "PLAIN=}} {", "DOCKER_RESOURCE_GPU=2"]);
    assert_eq!(plan.hostname.as_deref(), Some("web-3"));
    assert_eq!(plan.labels[LABEL_TASK], id, "a spec can't forge the owner");
    assert_eq!(plan.labels["tier"], "front");
    assert_eq!(plan.labels["com.docker.swarm.task.name"], format!("web.3.{id}"));
    assert_eq!(plan.labels[LABEL_ATTEMPT], "0");
    assert!(plan.host_ports.is_empty());
    let mounts = &plan.spec.container.mounts;
    assert_eq!((mounts[0].source.as_deref(), mounts[0].target.as_str()), (Some("data-3"), "/data/host7"));
    assert_eq!(mounts[0].options["VolumeOptions"]["Labels"]["of"], "3");
    assert_eq!(mounts[0].options["VolumeOptions"]["DriverConfig"]["Options"]["device"], ":/web");
    assert_eq!(mounts[1].source.as_deref(), Some("/srv/web"));
}

#[test]
fn desired_ready_prepares_and_waits() {
    let mut rig = Rig::new();
    rig.assign(order(1, Desired::Ready, spec()));
    rig.run(secs(100));
    assert_eq!((rig.asked(), rig.phase(1)), (vec!["pull", "create"], Ready));
    rig.want(1, Desired::Running);
    rig.run(secs(1));
    assert_eq!(rig.phase(1), Running);
}

#[test]
fn desired_raised_while_pulling_is_followed_without_a_second_pull() {
    let mut rig = Rig::new();
    rig.engine.behaviour.pull = Ok(secs(100));
    rig.assign(order(1, Desired::Ready, spec()));
    rig.run(secs(10));
    rig.want(1, Desired::Running);
    rig.want(1, Desired::Running);
    // A stale copy of the assignment lowers nothing.
    rig.want(1, Desired::Ready);
    rig.run(secs(100));
    assert_eq!((rig.asked(), rig.phase(1)), (vec!["pull", "create", "start"], Running));
}

#[test]
fn without_its_spec_a_task_waits_and_says_nothing() {
    let mut rig = Rig::new();
    let whole = order(1, Desired::Running, spec());
    rig.assign(Assignment { spec: None, ..whole.clone() });
    rig.run(secs(100));
    assert!(rig.ops.is_empty() && rig.worker.status(task_id(1)).is_none());
    rig.assign(whole);
    rig.run(secs(1));
    assert_eq!(rig.phase(1), Running);
}

#[test]
fn another_nodes_task_is_none_of_ours() {
    let mut rig = Rig::new();
    let mut foreign = order(1, Desired::Running, spec());
    foreign.task.node = Some(NodeId::from_u128(8));
    rig.worker.assign(foreign, rig.now());
    rig.run(secs(10));
    assert!(rig.ops.is_empty() && rig.statuses.is_empty());
}

#[test]
fn a_published_port_must_accept_connections_first() {
    let mut rig = Rig::new();
    rig.engine.behaviour.accepts = false;
    rig.assign(order(1, Desired::Running, publishing(5000)));
    rig.run(secs(20));
    assert_eq!((rig.phase(1), rig.status(1).message.as_str()), (Starting, "waiting for port 5000"));
    rig.engine.behaviour.accepts = true;
    rig.run(secs(1));
    assert_eq!(rig.phase(1), Running);
    assert_eq!(rig.asked(), ["pull", "create", "start", "probe", "probe"]);
}

#[test]
fn a_port_that_stays_closed_fails_the_attempt_and_stops_it() {
    let mut rig = Rig::new();
    rig.engine.behaviour.accepts = false;
    rig.assign(order(1, Desired::Running, publishing(5000)));
    rig.run(secs(62));
    let status = rig.status(1);
    assert_eq!(status.phase, Failed);
    assert_eq!(status.error, "port 5000 did not accept a connection within 60 s");
    assert_eq!(status.exit_code, Some(143), "filled in once it is known");
    assert!(status.retry_at.is_some());
    assert!(!rig.engine.is_running(&rig.name(1, 0)));
}

#[test]
fn only_udp_needs_no_probe() {
    let mut dns = publishing(53);
    dns.ports[0].protocol = Protocol::Udp;
    let rig = Rig::running(dns);
    assert_eq!(rig.asked(), ["pull", "create", "start"]);
}

#[test]
fn a_health_check_decides_instead_of_the_port() {
    let mut rig = Rig::new();
    rig.engine.behaviour.health = Health::Starting;
    rig.assign(order(1, Desired::Running, publishing(5000)));
    rig.run(secs(200));
    assert_eq!(rig.phase(1), Starting);
    rig.engine.turns(&rig.name(1, 0), Health::Healthy, rig.mono);
    rig.run(secs(1));
    assert_eq!((rig.phase(1), rig.asked()), (Running, vec!["pull", "create", "start"]));
}

#[test]
fn an_unhealthy_container_is_stopped_and_has_failed() {
    for at_first in [Health::Starting, Health::Healthy] {
        let mut rig = Rig::new();
        rig.engine.behaviour.health = at_first;
        rig.assign(order(1, Desired::Running, spec()));
        rig.run(secs(3));
        rig.engine.turns(&rig.name(1, 0), Health::Unhealthy, rig.mono);
        rig.run(secs(3));
        assert_eq!((rig.phase(1), rig.status(1).error.as_str()), (Failed, "unhealthy container"));
        assert_eq!(rig.asked().last(), Some(&"stop"));
        rig.engine.behaviour.health = Health::Healthy;
        rig.run(secs(10));
        assert_eq!((rig.status(1).attempt, rig.phase(1)), (1, Running));
    }
}

#[test]
fn a_health_check_that_never_answers_ends_after_what_its_spec_allows() {
    let mut slow = spec();
    slow.task.container.healthcheck = Some(Healthcheck {
        test: vec!["CMD".into(), "true".into()],
        interval: secs(10),
        timeout: secs(10),
        start_period: secs(120),
        retries: 2,
        ..Healthcheck::default()
    });
    let mut rig = Rig::new();
    rig.engine.behaviour.health = Health::Starting;
    rig.assign(order(1, Desired::Running, slow));
    rig.run(secs(170));
    assert_eq!(rig.phase(1), Starting);
    rig.run(secs(12));
    assert_eq!(rig.status(1).error, "not healthy within 180 s");
}

#[test]
fn a_crash_is_followed_by_another_attempt_in_a_container_of_its_own() {
    let mut rig = Rig::running(spec());
    rig.engine.exit(&rig.name(1, 0), 3, rig.mono);
    rig.run(Duration::from_millis(100));
    let status = rig.status(1);
    assert_eq!((status.phase, status.error.as_str(), status.exit_code), (Failed, "task: non-zero exit (3)", Some(3)));
    assert!(!status.is_given_up());
    let retry = status.retry_at.unwrap();
    assert_eq!(retry.since(status.since), secs(5));
    assert!(rig.engine.containers.contains_key(&rig.name(1, 0)), "kept for its logs");

    rig.run(secs(6));
    let status = rig.status(1);
    assert_eq!((status.attempt, status.phase, status.retry_at), (1, Running, None));
    assert_eq!((status.past.len(), status.past[0].exit_code), (1, Some(3)));
    assert_eq!(rig.asked()[3..], ["create", "remove", "start"], "no second pull");
    assert_eq!(rig.engine.containers.keys().collect::<Vec<_>>(), [&rig.name(1, 1)]);
    assert_eq!(rig.phases(1)[3..], [(0, Failed), (1, Preparing), (1, Ready), (1, Starting), (1, Running)]);
}

#[test]
fn a_clean_exit_is_complete_and_restarted_only_if_any_end_is() {
    let mut rig = Rig::running(spec());
    rig.engine.exit(&rig.name(1, 0), 0, rig.mono);
    rig.run(secs(1));
    assert_eq!(rig.phase(1), Complete);
    rig.run(secs(6));
    assert_eq!((rig.status(1).attempt, rig.phase(1)), (1, Running));

    let mut job = spec();
    job.task.restart.condition = RestartCondition::OnFailure;
    let mut rig = Rig::running(job);
    rig.engine.exit(&rig.name(1, 0), 0, rig.mono);
    rig.run(secs(100));
    assert_eq!((rig.phase(1), rig.status(1).is_given_up(), rig.status(1).retry_at), (Complete, true, None));
}

#[test]
fn a_first_attempt_that_ends_at_once_is_judged_by_its_own_exit() {
    let mut job = spec();
    job.task.restart.condition = RestartCondition::OnFailure;
    let mut rig = Rig::new();
    rig.engine.behaviour.exits = Some(0);
    rig.assign(order(1, Desired::Running, job));
    rig.run(secs(10));
    assert_eq!((rig.phase(1), rig.status(1).is_given_up()), (Complete, true));
}

#[test]
fn a_crash_loop_backs_off_and_keeps_a_short_past() {
    let mut rig = Rig::new();
    rig.engine.behaviour.exits = Some(1);
    rig.assign(order(1, Desired::Running, spec()));
    rig.run(secs(600));
    let starts: Vec<Mono> =
        rig.ops.iter().filter(|(_, op)| matches!(op, EngineOp::Start { .. })).map(|(at, _)| *at).collect();
    let gaps: Vec<u64> = starts.windows(2).map(|w| w[1].since(w[0]).as_secs()).collect();
    assert_eq!(gaps[..8], [5, 5, 5, 10, 20, 40, 60, 60]);
    assert_eq!(rig.status(1).past.len(), crate::limits::MAX_PAST_ATTEMPTS);
    assert_eq!(rig.engine.containers.len(), 1, "old attempts are cleaned up");
}

#[test]
fn attempts_used_up_are_given_up() {
    let mut flaky = spec();
    flaky.task.restart.max_attempts = 2;
    let mut rig = Rig::new();
    rig.engine.behaviour.exits = Some(1);
    rig.assign(order(1, Desired::Running, flaky));
    rig.run(secs(600));
    let status = rig.status(1);
    assert_eq!((status.attempt, status.phase, status.is_given_up()), (2, Failed, true));
    assert_eq!(rig.worker.deadline(), None);
    assert!(rig.engine.containers.contains_key(&rig.name(1, 2)), "kept for its logs");
    // Another life of the agent doesn't change its mind.
    rig.restart_agent();
    rig.run(secs(600));
    assert_eq!((rig.status(1).attempt, rig.asked().iter().filter(|w| **w == "start").count()), (2, 3));
}

#[test]
fn what_the_engine_refuses_is_rejected_in_its_words() {
    let refused = || OpError::Refused("no such image: web:1".into());
    for (behaviour, fixed) in [
        (fake::Behaviour { pull: Err(refused()), ..Default::default() }, "pull"),
        (fake::Behaviour { create: Err(refused()), ..Default::default() }, "create"),
        (fake::Behaviour { start: Err(refused()), ..Default::default() }, "start"),
    ] {
        let mut rig = Rig::new();
        rig.engine.behaviour = behaviour;
        rig.assign(order(1, Desired::Running, spec()));
        rig.run(secs(1));
        let status = rig.status(1);
        assert_eq!((status.phase, status.error.as_str()), (Rejected, "no such image: web:1"));
        assert!(status.retry_at.is_some());
        rig.engine.behaviour = fake::Behaviour::default();
        rig.run(secs(6));
        assert_eq!((rig.status(1).attempt, rig.phase(1)), (1, Running), "{fixed}");
        assert_eq!(rig.asked().iter().filter(|w| **w == "pull").count(), 2, "a rejected attempt pulls again");
    }
}

#[test]
fn long_errors_are_cut() {
    let mut rig = Rig::new();
    rig.engine.behaviour.pull = Err(OpError::Refused("ü".repeat(5_000)));
    rig.assign(order(1, Desired::Running, spec()));
    rig.run(secs(1));
    assert_eq!(rig.status(1).error.chars().count(), crate::limits::MAX_ERROR_CHARS);
}

#[test]
fn a_rejected_task_that_is_not_to_run_yet_is_not_tried_again() {
    let mut rig = Rig::new();
    rig.engine.behaviour.pull = Err(OpError::Refused("denied".into()));
    rig.assign(order(1, Desired::Ready, spec()));
    rig.run(secs(100));
    assert_eq!((rig.phase(1), rig.asked()), (Rejected, vec!["pull"]));
    rig.engine.behaviour.pull = Ok(secs(1));
    rig.want(1, Desired::Running);
    rig.run(secs(10));
    assert_eq!(rig.phase(1), Running);
}
