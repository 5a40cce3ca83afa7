//! Docker's own CLI, unmodified, against real agents of this process over the built-in engine: stacks with their
//! networks, secrets and configs, from any node. Without a docker CLI on the path each test says that it was skipped.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod tools_support;

use peer::core::Core;
use peer::core::view::TaskView;
use std::time::Duration;
use tokio::io::AsyncBufReadExt;
use tokio::process::Command;
use tokio::time::Instant;
use tools_support::{PATIENCE, Tools};

async fn start(nodes: usize) -> Option<Tools> {
    if !Command::new("docker").arg("--version").output().await.is_ok_and(|out| out.status.success()) {
        println!("SKIPPED: there is no docker CLI on the path, so Docker's own tools were not tried");
        return None;
    }
    Some(Tools::start("docker", nodes).await)
}

/// Until a node has the same view of something as was just written on another.
async fn until(tools: &Tools, node: usize, args: &str, is_so: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = tools.output(node, args).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() && is_so(&text) {
            return text;
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(Instant::now() < deadline, "docker {args} still says {text}{stderr}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const STACK: &str = r"
services:
  web:
    image: demo/greeter:1
    networks: [front]
    secrets: [token, {source: token, target: /etc/token, uid: '5', mode: 0400}]
    configs: [{source: motd, target: /etc/motd}]
    volumes: ['data:/data']
    deploy: {replicas: 3, update_config: {monitor: 100ms, order: start-first}}
  worker:
    image: demo/greeter:1
    networks: [front, back]
    deploy: {mode: global}
networks: {front: {}, back: {internal: true}}
volumes: {data: {}}
secrets: {token: {file: ./token}}
configs: {motd: {file: ./motd}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_deployed_changed_and_removed_without_a_trace() {
    let Some(tools) = start(3).await else { return };
    tools.file("compose.yml", STACK);
    tools.file("token", "hunter2");
    tools.file("motd", "hello");
    tools.run(0, "stack deploy --detach=false --resolve-image never -c compose.yml st").await;

    // Every task has its files, also those on nodes that heard of them from others.
    for task in tools.running("st_web", 3).await {
        let file = |target: &str| tools.demo.engine.file(task.task.id, target);
        assert_eq!(file("/run/secrets/token").as_deref(), Some(b"hunter2".as_slice()));
        assert_eq!(file("/etc/token").as_deref(), Some(b"hunter2".as_slice()));
        assert_eq!(file("/etc/motd").as_deref(), Some(b"hello".as_slice()));
    }
    for task in tools.running("st_worker", 3).await {
        assert_eq!(tools.demo.engine.file(task.task.id, "/run/secrets/token"), None, "it asked for none");
    }
    // The secret stands nowhere on a disk.
    for index in 0..3 {
        let state = tools.demo.configs[index].data_dir.join("state.redb");
        let bytes = std::fs::read(&state).unwrap_or_else(|error| panic!("{}: {error}", state.display()));
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(holds(b"st_token") && !holds(b"hunter2") && !holds(b"aHVudGVyMg"), "node {index}");
    }

    let services = until(&tools, 1, "stack services st", |text| text.contains("3/3")).await;
    assert!(services.contains("st_web") && services.contains("st_worker"), "{services}");
    assert!(tools.run(1, "stack ps st").await.contains("st_web.3"));
    assert!(tools.run(1, "stack ls").await.contains("st"));
    for (kind, name) in [("secret", "st_token"), ("config", "st_motd"), ("network", "st_front")] {
        assert!(tools.refused(1, &format!("{kind} rm {name}")).await.contains("in use by"), "{kind}");
    }

    // Another node takes the changed file, and the change is rolled out.
    tools.file(
        "compose.yml",
        &STACK.replace("demo/greeter:1\n    networks: [front]\n", "demo/greeter:2\n    networks: [front]\n"),
    );
    tools.run(2, "stack deploy --detach=false --resolve-image never -c compose.yml st").await;
    let images = |tasks: &[TaskView]| -> Vec<String> {
        tasks.iter().map(|t| t.spec.as_ref().unwrap().task.container.image.clone()).collect()
    };
    assert_eq!(images(&tools.running("st_web", 3).await), ["demo/greeter:2"; 3]);
    tools.run(1, "service rollback st_web").await;
    assert_eq!(images(&tools.running("st_web", 3).await), ["demo/greeter:1"; 3]);

    tools.run(0, "stack rm st").await;
    for kind in ["service", "secret", "config", "network"] {
        until(&tools, 1, &format!("{kind} ls -q"), str::is_empty).await;
    }
    // Removed, its name is free again for other content.
    tools.file("token", "another");
    tools.run(1, "secret create st_token token").await;
    tools.demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_to_their_end_once_and_again_when_they_are_updated() {
    let Some(tools) = start(3).await else { return };
    // The CLI itself waits for the end, by the numbers that it finds in the service and its tasks.
    let out = tools
        .run(0, "service create --mode replicated-job --replicas 5 --max-concurrent 2 --name five demo/job:1")
        .await;
    assert!(out.contains("job complete"), "{out}");
    let out = tools.run(1, "service create --mode global-job --name each demo/job:1").await;
    assert!(out.contains("job complete"), "{out}");
    let list = "service ls --format {{.Name}}|{{.Mode}}|{{.Replicas}}";
    until(&tools, 2, list, |text| text.contains("five|replicated job|0/2 (5/5 completed)")).await;
    until(&tools, 2, list, |text| text.contains("each|global job|0/0 (3/3 completed)")).await;

    let ids = async |service: &str| {
        let tasks =
            tools.run(0, &format!("service ps --no-trunc --format {{{{.ID}}}}|{{{{.DesiredState}}}} {service}")).await;
        tasks.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let first = ids("five").await;
    assert_eq!(first.len(), 5, "{first:?}");
    assert!(first.iter().all(|task| task.ends_with("|Complete")), "{first:?}");
    // Nothing that runs for ever: an update is another run, and what changes nothing is none.
    tools.run(2, "service update --label-rm nothing five").await;
    assert_eq!(ids("five").await, first);
    let out = tools.run(2, "service update --force five").await;
    assert!(out.contains("job complete"), "{out}");
    let second = ids("five").await;
    assert!(second.len() == 5 && second.is_disjoint(&first), "{first:?} {second:?}");
    let out = tools.run(2, "service rollback five").await;
    assert!(out.contains("job complete"), "{out}");
    tools.run(0, "service rm five each").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_needs_must_be_there_first() {
    let Some(tools) = start(1).await else { return };
    tools.file("x", "x");
    let missing = tools.refused(0, "service create --secret nothing demo/greeter:1").await;
    assert!(missing.contains("secret not found: nothing"), "{missing}");
    let missing = tools.refused(0, "service create --network nothing demo/greeter:1").await;
    assert!(missing.contains("network nothing not found"), "{missing}");
    let bridge = tools.refused(0, "service create --network bridge demo/greeter:1").await;
    assert!(bridge.contains("not supported; host is"), "{bridge}");
    // A secret that a stopped rollout may still fall back to is in use.
    tools.run(0, "secret create x x").await;
    tools.run(0, "service create -q --update-monitor 50ms --name web --secret x demo/greeter:1").await;
    tools.run(0, "service update -d --secret-rm x --image demo/greeter:bad web").await;
    assert!(tools.refused(0, "secret rm x").await.contains("in use by the following service: web"));
    tools.run(0, "service rollback -q web").await;
    tools.run(0, "service rm web").await;
    tools.run(0, "secret rm x").await;
    tools.demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_refreshed_without_restarting_anything() {
    let Some(tools) = start(1).await else { return };
    let login = |password: &str| {
        let login = format!(r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{password}"}}}}}}"#);
        tools.file("config.json", &login);
    };
    login("YW5uOm9sZA==");
    let flags = "-q --update-monitor 50ms --with-registry-auth";
    tools.run(0, &format!("service create {flags} --name web --label a=b --env A=1 demo/greeter:1")).await;
    let before = tools.running("web", 1).await[0].task.id;
    let auth = |core: &Core| {
        let service = core.services().into_iter().find(|view| view.service.name == "web").unwrap().service.id;
        core.revisions(service).into_iter().map(|view| view.revision.registry_auth).collect::<Vec<_>>()
    };
    let old = tools.ask(0, auth).await;
    login("YW5uOm5ldw==");
    tools.run(0, "service update -q --with-registry-auth web").await;
    let new = tools.ask(0, auth).await;
    assert_eq!((old.len(), new.len()), (1, 1), "no revision for it");
    assert!(old[0].is_some() && new[0].is_some() && old != new);
    assert_eq!(tools.running("web", 1).await[0].task.id, before);
    tools.demo.end().await;
}

/// The lines of a running command, as they come.
struct Lines {
    lines: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>,
    _command: tokio::process::Child,
}

impl Lines {
    fn of(mut command: Command) -> Self {
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Self { lines, _command: child }
    }

    async fn until(&mut self, what: &str) {
        let reading = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                println!("{line}");
                if line.contains(what) {
                    return;
                }
            }
            panic!("the logs ended before {what:?}");
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("no {what:?} in the logs"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_from_every_node_and_a_missing_one_costs_its_own_lines() {
    let Some(mut tools) = start(3).await else { return };
    tools.run(0, "service create -q --mode global --name web --update-monitor 50ms demo/greeter:1").await;
    for node in 0..3 {
        let text = tools.run(node, "service logs web").await;
        let listening = text.lines().filter(|line| line.contains("| greeter: listening on")).count();
        assert_eq!(listening, 3, "from node {node}: {text}");
    }
    let stamped = tools.run(1, "service logs --timestamps --raw web").await;
    let times: Vec<&str> = stamped.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(times.len() == 3 && times.is_sorted(), "by time: {stamped}");
    assert_eq!(tools.run(1, "service logs --tail 0 web").await, "");

    // A follower hears the end of the old tasks and the first words of the new.
    let mut follower = Lines::of(tools.command_of("docker", 1, "service logs --follow web"));
    for _ in 0..3 {
        follower.until("greeter: listening on").await;
    }
    tools.run(0, "service update -q --image demo/greeter:2 web").await;
    follower.until("greeter: exits with 0").await;
    follower.until("greeter: listening on").await;
    drop(follower);

    tools.demo.kill(2).await;
    until(&tools, 0, "node ls", |text| text.contains("Down")).await;
    let output = tools.output(0, "service logs web").await;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.contains("@node1") && stdout.contains("@node2"), "{stdout}");
    assert!(stderr.contains("@node3") && stderr.contains("are missing: it is down"), "{stderr}");
    tools.demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_in_secrets_and_configs_are_filled_in_for_each_task() {
    let Some(tools) = start(2).await else { return };
    tools.file("token", "hush");
    tools.file("url", r#"pg://{{secret "token"}}@db/{{.Service.Name}}{{.Task.Slot}}"#);
    tools.file("app", r#"node {{.Node.Hostname}} level {{env "LEVEL"}}{{if eq .Task.Slot "1"}} first{{end}}"#);
    tools.file("wrong", "{{.Task.Solt}}");
    let flags = "--template-driver golang";
    tools.run(0, "secret create token token").await;
    tools.run(0, &format!("secret create {flags} url url")).await;
    tools.run(0, &format!("config create {flags} app app")).await;
    let wrong = tools.refused(0, &format!("config create {flags} wrong wrong")).await;
    assert!(wrong.contains("unknown template") && wrong.contains(".Task.Slot"), "{wrong}");
    let shown = tools.run(1, "config inspect --format {{.Spec.Templating.Name}} app").await;
    assert_eq!(shown, "golang\n");
    // Without the token among the service's own the template can't be filled in: the task says so.
    let service = "--update-monitor 50ms --secret url --config source=app,target=/etc/app --env LEVEL=debug";
    tools.run(0, &format!("service create -d --name bare {service} demo/greeter:1")).await;
    let said =
        until(&tools, 1, "service ps --no-trunc --format {{.Error}} bare", |text| text.contains("template")).await;
    assert!(said.contains("the service has no secret with the target token"), "{said}");

    tools.run(0, &format!("service create -q --name web --replicas 2 --secret token {service} demo/greeter:1")).await;
    let mut files = Vec::new();
    for task in tools.running("web", 2).await {
        let file =
            |target: &str| String::from_utf8(tools.demo.engine.file(task.task.id, target).unwrap_or_default()).unwrap();
        files.push((file("/run/secrets/url"), file("/etc/app"), task.task.node.unwrap()));
    }
    files.sort();
    let hostname = |n: usize| tools.demo.configs[n].hostname.clone();
    let urls: Vec<&str> = files.iter().map(|(url, _, _)| url.as_str()).collect();
    assert_eq!(urls, ["pg://hush@db/web1", "pg://hush@db/web2"]);
    assert!(files[0].1.ends_with("level debug first") && files[1].1.ends_with("level debug"), "{files:?}");
    for (_, app, _) in &files {
        assert!([0, 1].iter().any(|n| app.starts_with(&format!("node {} ", hostname(*n)))), "{app}");
    }
    tools.demo.end().await;
}
