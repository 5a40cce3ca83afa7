//! `peer secret`, `peer config` and `peer stack` against real agents of this process over the built-in engine. What they
//! print is held against docker's own CLI where there is one.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod tools_support;

use peer::core::view::TaskView;
use std::time::Duration;
use tokio::time::Instant;
use tools_support::{PATIENCE, Tools};

async fn start(nodes: usize) -> Tools {
    Tools::start(env!("CARGO_BIN_EXE_peer"), nodes).await
}

/// Docker's CLI says the same, if there is one.
async fn as_docker(tools: &Tools, args: &str) {
    let Ok(output) = tools.command_of("docker", 0, args).output().await else {
        return println!("SKIPPED: there is no docker CLI on the path to hold peer {args} against");
    };
    assert_eq!(tools.run(0, args).await, String::from_utf8_lossy(&output.stdout), "{args}");
}

/// The same with a format that has blanks in it.
async fn same_format(tools: &Tools, command: &str, format: &str) {
    let Ok(output) = tools.command_of("docker", 0, command).args(["--format", format]).output().await else { return };
    let ours =
        tools.command_of(env!("CARGO_BIN_EXE_peer"), 0, command).args(["--format", format]).output().await.unwrap();
    let (ours, theirs) = (String::from_utf8_lossy(&ours.stdout), String::from_utf8_lossy(&output.stdout));
    assert_eq!(ours, theirs, "{command} --format {format:?}");
}

/// What each running task of the service finds in a file.
async fn content(tools: &Tools, service: &'static str, count: usize, target: &str) -> Vec<String> {
    let tasks = tools.running(service, count).await;
    let read = |task: &TaskView| tools.demo.engine.file(task.task.id, target).unwrap_or_default();
    tasks.iter().map(|task| String::from_utf8(read(task)).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_configs_are_listed_as_docker_does_and_updated_as_it_cannot() {
    let tools = start(2).await;
    tools.file("token", "one");
    tools.file("motd", "hello\n");
    let id = tools.run(0, "secret create --label tier=front token token").await;
    assert_eq!(id.trim().len(), 25, "{id}");
    let taken = tools.refused(0, "secret create token token").await;
    let told = "error: secret token already exists\nhint: to give it new content: peer secret update token FILE\n";
    assert_eq!(taken, told);
    tools.run(1, "config create motd motd").await;
    for args in [
        "secret ls",
        "config ls",
        "secret inspect --pretty token",
        "config inspect --pretty motd",
        "secret inspect token",
        "secret ls --filter name=to -q",
        "config ls --format {{.Name}}",
    ] {
        as_docker(&tools, args).await;
    }
    for (command, format) in [
        ("secret ls", r"table {{.ID}}\t{{.Name}}"),
        ("config ls", r"table {{.Name}}\t{{.ID}}"),
        ("service ls", r"table {{.Name}}\t{{.Mode}}\t{{.Replicas}}"),
        ("node ls", r"table {{.Hostname}}\t{{.ManagerStatus}}\t{{.Status}}"),
        (
            "node ls",
            r#"{{lower .Hostname}}|{{json .Status}}|{{printf "%-8s" .Availability}}|{{if eq .Status "Ready"}}up{{end}}"#,
        ),
        ("secret ls", r#"{{.Name | upper}}: {{len .ID}}{{if .Labels}}, {{.Label "tier"}}{{end}}"#),
        (
            "secret inspect token",
            r#"{{range $k, $v := .Spec.Labels}}{{$k}}={{$v}} {{end}}{{.Spec.Labels}} {{index .Spec.Labels "no"}}"#,
        ),
    ] {
        same_format(&tools, command, format).await;
    }
    assert!(tools.refused(0, "secret inspect nothing").await.contains("no such secret: nothing"));

    let flags = "-q --update-monitor 100ms --update-order start-first";
    tools.run(0, &format!("service create {flags} --name web --replicas 2 --secret token --config source=motd,target=/etc/motd demo/greeter:1")).await;
    tools
        .run(1, &format!("service create {flags} --name api --secret source=token,target=/etc/key demo/greeter:1"))
        .await;
    tools.run(0, &format!("service create {flags} --name other demo/greeter:1")).await;
    let other = tools.running("other", 1).await[0].task.id;

    // One command, from any node: both services run with the new content when it returns; the third isn't touched.
    tools.file("token", "two");
    let said = tools.run(1, "secret update -q token token").await;
    assert_eq!(said, "token.v2\n");
    assert_eq!(content(&tools, "web", 2, "/run/secrets/token").await, ["two", "two"]);
    assert_eq!(content(&tools, "api", 1, "/etc/key").await, ["two"]);
    assert_eq!(tools.running("other", 1).await[0].task.id, other);
    let used = tools.refused(0, "secret rm token.v2").await;
    assert!(
        used.contains("in use by the following services: ") && used.contains("api") && used.contains("web"),
        "{used}"
    );

    // By the name of any version; the labels go along.
    tools.file("token", "three");
    assert_eq!(tools.run(0, "secret update -q token.v2 token").await, "token.v3\n");
    assert_eq!(tools.run(0, "secret ls -q --filter label=tier=front").await.lines().count(), 3);
    tools.run(0, "service rollback -q web").await;
    assert_eq!(content(&tools, "web", 2, "/run/secrets/token").await, ["two", "two"], "the older version is there");
    // The update takes along who had stayed behind.
    tools.file("token", "four");
    tools.run(0, "secret update -q token token").await;
    assert_eq!(content(&tools, "web", 2, "/run/secrets/token").await, ["four", "four"]);
    assert_eq!(content(&tools, "api", 1, "/etc/key").await, ["four"]);

    tools.file("motd", "bye\n");
    assert_eq!(tools.run(0, "config update -q motd motd").await, "motd.v2\n");
    assert_eq!(content(&tools, "web", 2, "/etc/motd").await, ["bye\n", "bye\n"]);
    tools.file("empty", "");
    assert!(tools.refused(0, "secret update token empty").await.contains("larger than 0"));
    assert!(tools.refused(0, "secret update nothing token").await.contains("no such secret: nothing"));

    tools.run(0, "service rm web api other").await;
    tools.run(0, "secret rm token token.v2 token.v3 token.v4").await;
    tools.run(0, "config rm motd motd.v2").await;
    tools.demo.end().await;
}

const NO_CHANGES: &str = "\
    warning: services.worker.build: not supported, nothing is built: the nodes run services.worker.image as the registry has it\n\
    no changes\n";

const STACK: &str = r"
services:
  web:
    image: demo/greeter:${TAG:-1}
    depends_on: [worker]
    networks: [front]
    secrets: [token]
    configs: [{source: motd, target: /etc/motd}]
    volumes: ['data:/data']
    deploy: {replicas: 2, update_config: {monitor: 100ms, order: start-first}}
  worker:
    image: demo/greeter:1
    build: ./worker
    deploy: {mode: global, update_config: {monitor: 100ms}}
networks: {front: {}}
volumes: {data: {}}
secrets: {token: {file: ./token}}
configs: {motd: {file: ./motd}}
";

impl Tools {
    fn images(tasks: &[TaskView]) -> Vec<String> {
        tasks.iter().map(|t| t.spec.as_ref().unwrap().task.container.image.clone()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_deployed_compared_rolled_back_and_removed() {
    let tools = start(2).await;
    tools.file("compose.yml", STACK);
    tools.file("token", "one");
    tools.file("motd", "hello");
    let deploy = "stack deploy --resolve-image never -c compose.yml st";
    assert_eq!(
        tools.run(1, "stack diff -c compose.yml st").await,
        "+ network st_front\n+ network st_default\n+ secret st_token\n+ config st_motd\n+ service st_worker\n+ service st_web\n"
    );
    let (success, out, err) = tools.said(0, deploy).await;
    assert!(success && err.contains("services.worker.build: not supported"), "{err}");
    let of_networks = err.matches("names resolve only between containers of one node").count();
    assert_eq!(of_networks, 1, "two networks and two services on them are one warning: {err}");
    let at = |what: &str| out.find(what).unwrap_or_else(|| panic!("no {what:?} in {out}"));
    assert!(at("st_worker: converged") < at("Creating service st_web"), "what web depends on comes first: {out}");
    assert!(at("Creating service st_web") < at("st_web: converged"));
    assert_eq!(content(&tools, "st_web", 2, "/run/secrets/token").await, ["one", "one"]);
    assert_eq!(content(&tools, "st_web", 2, "/etc/motd").await, ["hello", "hello"]);
    for args in ["stack ls", "stack services st", "stack services -q st"] {
        as_docker(&tools, args).await;
    }
    assert!(tools.run(1, "stack ps st").await.contains("st_web.2"));
    assert!(tools.refused(1, "stack ps other").await.contains("no such stack: other"));

    // Said again, nothing changes: not a task is replaced, and nothing there is to be said.
    let ids = |tasks: Vec<TaskView>| tasks.iter().map(|t| t.task.id).collect::<Vec<_>>();
    let before = ids(tools.running("st_web", 2).await);
    let (success, out, err) = tools.said(1, "stack diff --exit-code -c compose.yml st").await;
    assert_eq!((success, out.as_str(), err.as_str()), (true, "", NO_CHANGES), "on stderr: a pipeline reads no lines");
    let said = tools.run(1, deploy).await;
    assert!(said.contains("Unchanged service st_web") && said.contains("Unchanged service st_worker"), "{said}");
    assert_eq!(ids(tools.running("st_web", 2).await), before);

    // A changed file, with a changed secret in it, is one rollout; and one rollback.
    let workers = ids(tools.running("st_worker", 2).await);
    tools.file("compose.yml", &STACK.replace(":-1}", ":-2}"));
    tools.file("token", "two");
    let (success, diff, _) = tools.said(0, "stack diff --exit-code -c compose.yml st").await;
    assert!(!success, "{diff}");
    assert!(diff.starts_with("~ secret st_token: other content\n~ service st_web\n"), "{diff}");
    assert!(
        diff.contains("ContainerSpec.Image: \"demo/greeter:1\" -> \"demo/greeter:2\"") && !diff.contains("worker"),
        "{diff}"
    );
    tools.run(1, deploy).await;
    assert_eq!(Tools::images(&tools.running("st_web", 2).await), ["demo/greeter:2"; 2]);
    assert_eq!(content(&tools, "st_web", 2, "/run/secrets/token").await, ["two", "two"]);
    tools.run(0, "stack rollback st").await;
    assert_eq!(Tools::images(&tools.running("st_web", 2).await), ["demo/greeter:1"; 2]);
    assert_eq!(content(&tools, "st_web", 2, "/run/secrets/token").await, ["one", "one"]);
    assert_eq!(ids(tools.running("st_worker", 2).await), workers, "that deploy hadn't changed it");

    // What can't be deployed fails a pipeline, and says what to look at.
    tools.file("bad.yml", &STACK.replace("greeter:${TAG:-1}", "greeter:bad"));
    let paused = tools.refused(0, "stack deploy --resolve-image never -c bad.yml st").await;
    assert!(paused.contains("service update paused") && paused.contains("hint: see why"), "{paused}");
    tools.run(1, "stack rollback -q st").await;
    assert_eq!(Tools::images(&tools.running("st_web", 2).await), ["demo/greeter:1"; 2]);
    // Said again it doesn't go forward to what failed.
    let (success, out, err) = tools.said(1, "stack rollback -q st").await;
    assert_eq!((success, out.as_str()), (true, ""));
    assert!(err.starts_with("service st_web has been taken back already: left as it is; "), "{err}");
    assert_eq!(Tools::images(&tools.running("st_web", 2).await), ["demo/greeter:1"; 2]);

    // In a pipeline the deploy itself goes back, and only behind what it has changed.
    let (success, out, err) =
        tools.said(0, "stack deploy -q --rollback-on-failure --resolve-image never -c bad.yml st").await;
    assert!(!success && err.contains("error: service update paused") && err.contains(" (non-zero exit ("), "{err}");
    assert!(out.contains("Updating service st_web\nRolling back service st_web\n"), "{out}");
    assert_eq!(Tools::images(&tools.running("st_web", 2).await), ["demo/greeter:1"; 2]);
    tools.file("typo.yml", &STACK.replace("deploy: {mode", "deploy: {placement: {constraints: [nonsense]}, mode"));
    let (success, out, _) =
        tools.said(0, "stack deploy -q --rollback-on-failure --resolve-image never -c typo.yml st").await;
    assert!(!success && !out.contains("Rolling back"), "nothing was changed: {out}");
    tools.file("unknown.yml", &STACK.replace("image:", "imagge: x\n    image:"));
    let unknown = tools.refused(0, "stack deploy -c unknown.yml st").await;
    for name in ["web", "worker"] {
        assert!(
            unknown.contains(&format!("error: services.{name}.imagge: unknown key; did you mean image?\n")),
            "{unknown}"
        );
    }
    // What only the cluster refuses is told by the file's keys, too.
    let bad = "deploy: {placement: {constraints: [nonsense]}, mode";
    tools.file("refused.yml", &STACK.replace("deploy: {mode", bad));
    let refused = tools.refused(0, "stack deploy --resolve-image never -c refused.yml st").await;
    assert!(refused.contains("error: services.worker.deploy.placement.constraints[0]: "), "{refused}");

    // A service that the files have no more goes only when that is asked for.
    let without = STACK.replace("    depends_on: [worker]\n", "");
    let without =
        format!("{}networks{}", without.split("  worker:").next().unwrap(), STACK.split("\nnetworks").nth(1).unwrap());
    tools.file("less.yml", &without);
    assert!(tools.run(0, "stack diff -c less.yml st").await.contains("- service st_worker"));
    tools.run(0, "stack deploy -q --resolve-image never -c less.yml st").await;
    assert_eq!(tools.running("st_worker", 2).await.len(), 2);
    let said = tools.run(0, "stack deploy -q --prune --resolve-image never -c less.yml st").await;
    assert!(said.contains("Removing service st_worker"), "{said}");
    tools.running("st_worker", 0).await;

    tools.run(1, "stack rm st").await;
    for kind in ["service", "secret", "config", "stack"] {
        let args = if kind == "stack" { "stack ls --format {{.Name}}".to_owned() } else { format!("{kind} ls -q") };
        assert_eq!(tools.run(1, &args).await, "", "{kind}");
    }
    tools.demo.end().await;
}

/// A newcomer's second update was as bad as the first, and the rollback led from the one to the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_to_what_can_not_run_fails_and_names_the_revision_that_can() {
    let tools = start(2).await;
    let flags = "--update-monitor 300ms --rollback-monitor 300ms --no-resolve-image";
    tools.run(0, &format!("service create -q {flags} --name web --replicas 2 demo/greeter:1")).await;
    for image in ["bad", "none"] {
        let paused =
            tools.refused(0, &format!("service update --no-resolve-image --image demo/greeter:{image} web")).await;
        assert!(paused.contains("service update paused") && paused.contains("rollback --to 1 web"), "{paused}");
        // The slot that was tried runs the old version again.
        tools.running("web", 2).await;
    }
    let failed = tools.refused(1, "service rollback web").await;
    assert!(
        failed.contains("service rollback paused") && failed.contains("peer service rollback --to 1 web"),
        "{failed}"
    );
    let history = tools.run(1, "service history --format {{.Revision}}|{{.Changes}}|{{.Note}} web").await;
    assert_eq!(
        history, "3|image|rolled back from\n2|image|current, the rollback to it is paused\n1||still serves\n",
        "what it ran before is the way back"
    );
    let back = tools.run(1, "service rollback --to 1 web").await;
    assert!(back.contains("2 out of 2 tasks") && back.contains("converged"), "{back}");
    let history = tools.run(0, "service history --format {{.Revision}}|{{.Note}} web").await;
    assert_eq!(history, "3|\n2|rolled back from\n1|current, rolled back to\n");
    tools.demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_on_a_node_that_is_down_is_neither_counted_nor_without_a_reason() {
    let mut tools = start(3).await;
    tools.run(0, "service create -q --no-resolve-image --name web --replicas 6 demo/greeter:1").await;
    let third = tools.ask(2, |core| core.cluster().node).await;
    let lost = tools.running("web", 6).await.iter().filter(|t| t.task.node == Some(third)).count();
    assert!(lost > 0);
    tools.demo.kill(2).await;
    let deadline = Instant::now() + PATIENCE;
    let down = format!(", {lost} on nodes that are down");
    loop {
        let status = tools.run(0, "status").await;
        // Never more than are there: from the moment that the node is seen down.
        if status.contains(&down) && status.contains("6 running") {
            break;
        }
        assert!(!status.contains("2 ready, 1 down") || status.contains(&down), "{status}");
        assert!(Instant::now() < deadline, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let tasks = tools.run(1, "service ps --format {{.Node}}|{{.DesiredState}}|{{.Error}} web").await;
    let of_it: Vec<&str> = tasks.lines().filter(|line| line.starts_with("node3|")).collect();
    assert_eq!(of_it, vec!["node3|Shutdown|\"node node3 is down\""; lost], "{tasks}");
    assert!(tools.run(1, "service ls --format {{.Replicas}}").await.contains("6/6"));
    tools.demo.end().await;
}
