//! The unmodified docker CLI against the API; skipped where there is no docker CLI.

use super::Server;
use std::process::Output;
use tokio::process::Command;

impl Server {
    async fn docker(&self, args: &str) -> Output {
        let host = format!("unix://{}", self.socket().display());
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", self.dir.path()).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
        command.current_dir(self.dir.path());
        command.arg("--host").arg(host).args(args.split(' ')).output().await.unwrap()
    }

    /// A file where the CLI runs.
    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    /// Its standard output; it must succeed.
    async fn run(&self, args: &str) -> String {
        let output = self.docker(args).await;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("$ docker {args}\n{stdout}{stderr}");
        assert!(output.status.success(), "docker {args}: {stdout}{stderr}");
        stdout.into_owned()
    }

    /// Its standard error; it must fail.
    async fn refused(&self, args: &str) -> String {
        let output = self.docker(args).await;
        assert!(!output.status.success(), "docker {args} should fail: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

async fn start() -> Option<Server> {
    match Command::new("docker").arg("--version").output().await {
        Ok(output) if output.status.success() => Some(Server::start(None).await),
        _ => {
            println!("skipped: no docker CLI here");
            None
        }
    }
}

/// The fields of the table's row that begins with `first` or has it in it.
fn row<'a>(table: &'a str, with: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.split_whitespace().any(|word| word == with));
    line.unwrap_or_else(|| panic!("no {with} in\n{table}")).split_whitespace().collect()
}

#[tokio::test]
async fn docker_node() {
    let Some(server) = start().await else { return };
    let nodes = server.run("node ls").await;
    assert_eq!(row(&nodes, "node1")[1..], ["*", "node1", "Ready", "Active", "Leader", "28.2.2"]);
    assert_eq!(row(&nodes, "node2")[1..], ["node2", "Ready", "Active", "Reachable", "28.2.2"]);
    assert!(server.run("node ps self").await.contains("web.1"));
    let pretty = server.run("node inspect --pretty self").await;
    for line in ["Hostname:", "State:\t\t\tReady", "Leader:\t\tYes", "Address:\t\t10.0.0.1", "Engine Version:"] {
        assert!(pretty.contains(line), "no {line:?} in\n{pretty}");
    }
    server.run("node update --availability drain --label-add zone=a node2").await;
    assert_eq!(row(&server.run("node ls").await, "node2")[2..4], ["Ready", "Drain"]);
    assert_eq!(server.run("node inspect --format {{.Spec.Labels.zone}} node2").await.trim(), "a");
    assert!(server.refused("node rm node2").await.contains("is not down"));
    server.run("node rm --force node2").await;
    assert!(!server.run("node ls").await.contains("node2"));
    assert!(server.refused("node demote node3").await.contains("nothing to demote"));
    server.stop().await;
}

#[tokio::test]
async fn docker_service() {
    let Some(server) = start().await else { return };
    let services = server.run("service ls").await;
    assert_eq!(row(&services, "web")[1..], ["web", "replicated", "2/2", "greeter:1", "*:30000->5000/tcp"]);

    // With its own progress display, which must see the tasks run.
    let created = server.run("service create --name api --replicas 3 --update-monitor 100ms greeter:1").await;
    assert!(created.contains("verify: Service") && created.contains("converged"), "{created}");
    assert_eq!(row(&server.run("service ls").await, "api")[2..4], ["replicated", "3/3"]);
    assert!(server.refused("service create -d --name api greeter:1").await.contains("already exists"));

    let one = server.run("service create --name single --update-monitor 100ms greeter:1").await;
    assert!(one.contains("1/1"), "no number of replicas means one: {one}");

    let updated = server.run("service update --image greeter:2 api").await;
    assert!(updated.contains("converged"), "{updated}");
    assert_eq!(row(&server.run("service ls").await, "api")[4], "greeter:2");
    assert!(server.run("service scale api=5").await.contains("converged"));
    let tasks = server.run("service ps api").await;
    assert_eq!(row(&tasks, "api.5")[2], "greeter:2");

    let pretty = server.run("service inspect --pretty api").await;
    for line in ["Name:\t\tapi", "Replicas:\t5", "State:\t\tupdating", "On failure:\tpause", "PublishedPort = 30000"] {
        assert!(pretty.contains(line), "no {line:?} in\n{pretty}");
    }
    let rolled_back = server.run("service rollback api").await;
    assert!(rolled_back.contains("converged") && rolled_back.contains("rollback"), "{rolled_back}");
    assert!(server.run("service inspect api").await.contains("PreviousSpec"));

    assert_eq!(server.run("service rm api web").await, "api\nweb\n");
    assert!(server.refused("service inspect web").await.contains("no such service: web"));
    server.stop().await;
}

#[tokio::test]
async fn past_attempts_are_drawn_below_their_task() {
    use crate::model::task::{PastAttempt, TaskPhase};
    let Some(server) = start().await else { return };
    if let Some(status) = &mut server.agent.state.lock().unwrap().tasks[0].status {
        status.past = vec![PastAttempt {
            attempt: 0,
            phase: TaskPhase::Failed,
            since: status.since,
            error: "task: non-zero exit (1)".to_owned(),
            exit_code: Some(1),
            container_id: None,
        }];
    }
    let tasks = server.run("service ps web").await;
    let lines: Vec<&str> = tasks.lines().collect();
    assert!(lines[1].contains("web.1") && lines[1].contains("Running"), "{tasks}");
    assert!(lines[2].contains(r"\_ web.1") && lines[2].contains("Failed"), "{tasks}");
    assert!(lines[2].contains("non-zero exit"), "{tasks}");
    server.stop().await;
}

#[tokio::test]
async fn docker_version_info_and_swarm() {
    let Some(server) = start().await else { return };
    assert!(server.run("version").await.contains("0.1.0"));
    let info = server.run("info").await;
    for line in ["Swarm: active", "Managers: 3", "Nodes: 3", "Is Manager: true", "Server Version: 0.1.0"] {
        assert!(info.contains(line), "no {line:?} in\n{info}");
    }
    assert!(server.run("swarm join-token worker").await.contains("PEERTKN-1-secret"));
    assert!(server.run("swarm join-token --rotate -q worker").await.contains("PEERTKN-1-fresh"));
    assert!(server.refused("swarm init").await.contains("already part of the peer cluster"));
    assert!(server.refused("swarm leave").await.contains("peer leave"));
    assert!(server.run("swarm ca").await.contains("BEGIN CERTIFICATE"));
    assert!(server.refused("swarm ca --rotate").await.contains("can't be rotated, and nothing was changed"));
    assert!(server.refused("ps").await.contains("Docker Engine"));
    server.stop().await;
}

#[tokio::test]
async fn docker_secret_and_config() {
    use crate::ids::ObjectId;
    use crate::model::object::ObjectKind;
    let Some(server) = start().await else { return };
    server.file("token", "not-a-secret");
    for (kind, other) in [("secret", "config"), ("config", "secret")] {
        let id = server.run(&format!("{kind} create --label a=b token token")).await;
        assert_eq!(id.trim().len(), 25);
        assert_eq!(row(&server.run(&format!("{kind} ls")).await, "token")[..2], [id.trim(), "token"]);
        assert_eq!(server.run(&format!("{kind} ls -q --filter label=a=c")).await, "");
        assert_eq!(server.run(&format!("{kind} inspect --format {{{{.Spec.Labels.a}}}} token")).await.trim(), "b");
        let again = server.refused(&format!("{kind} create token token")).await;
        assert!(again.contains("already exists"), "{again}");
        assert!(server.refused(&format!("{other} rm nothing")).await.contains("not found"));
    }
    assert!(server.run("config inspect --pretty token").await.contains("not-a-secret"));
    assert!(!server.run("secret inspect token").await.contains("Data"));
    {
        // What would become a record is sealed.
        let objects = server.agent.objects.lock().unwrap();
        let secret = objects.iter().find(|view| view.object.kind == ObjectKind::Secret).unwrap();
        assert_eq!(secret.object.id, ObjectId::of_name(super::views::CLUSTER, ObjectKind::Secret, "token"));
        assert!(!String::from_utf8_lossy(&secret.object.data).contains("not-a-secret"));
        assert!(!secret.object.spec_json.contains("Data"));
    }
    server.run("service create -d --name user --secret source=token,target=t,mode=0400 --config token greeter:1").await;
    for kind in ["secret", "config"] {
        assert!(server.refused(&format!("{kind} rm token")).await.contains("in use by"));
    }
    server.run("service rm user").await;
    for kind in ["secret", "config"] {
        server.run(&format!("{kind} rm token")).await;
        assert_eq!(server.run(&format!("{kind} ls -q")).await, "");
    }
    server.file("big", &"x".repeat(500 * 1024 + 1));
    assert!(server.refused("secret create big big").await.contains("at most 512000 bytes"));
    server.run("config create big big").await;
    assert!(server.refused("secret create --driver vault other").await.contains("not supported"));
    server.stop().await;
}

#[tokio::test]
async fn docker_network() {
    let Some(server) = start().await else { return };
    let id = server.run("network create -d overlay --attachable --label a=b front").await;
    assert_eq!(row(&server.run("network ls").await, "front")[1..], ["front", "overlay", "swarm"]);
    assert_eq!(server.run("network inspect --format {{.Id}} front").await, id);
    assert_eq!(server.run("network ls -q --filter label=a=c").await, "");
    assert!(server.refused("network create -d overlay front").await.contains("already exists"));
    assert!(server.refused("network create -d overlay host").await.contains("predefined"));
    assert!(server.refused("network create -d overlay --ingress other").await.contains("no ingress network"));
    let local = server.refused("network create other").await;
    assert!(local.contains("Docker Engine"), "a local one is the engine's: {local}");
    server.run("service create -d --name user --network front greeter:1").await;
    assert!(server.run("service inspect user").await.contains(&format!(r#""Target": "{}""#, id.trim())));
    assert!(server.refused("network rm front").await.contains("in use"));
    server.run("service rm user").await;
    server.run("network rm front").await;
    assert!(server.refused("network inspect front").await.contains("not found"));
    server.stop().await;
}

/// The file of the recorded conversation, in spirit.
const STACK: &str = r"
services:
  web:
    image: greeter:1
    networks: [front]
    secrets: [token]
    configs: [{source: motd, target: /etc/motd}]
    volumes: ['data:/data']
    deploy: {replicas: 2, labels: {tier: front}}
  back:
    image: greeter:1
    networks: [front]
    deploy: {mode: global, endpoint_mode: dnsrr}
networks: {front: {}}
volumes: {data: {}}
secrets: {token: {file: ./token}}
configs: {motd: {file: ./motd}}
";

#[tokio::test]
async fn docker_stack() {
    let Some(server) = start().await else { return };
    server.file("compose.yml", STACK);
    server.file("token", "not-a-secret");
    server.file("motd", "hello");
    let deploy = "stack deploy --detach=true --resolve-image never -c compose.yml st";
    let made = server.run(deploy).await;
    for line in ["network st_front", "secret st_token", "config st_motd", "service st_web", "service st_back"] {
        assert!(made.contains(&format!("Creating {line}")), "{made}");
    }
    assert_eq!(row(&server.run("stack ls").await, "st"), ["st", "2"]);
    assert_eq!(row(&server.run("stack services st").await, "st_web")[1..4], ["st_web", "replicated", "2/2"]);
    assert!(server.run("stack ps st").await.contains("st_web.2"));
    let spec = server.run("service inspect st_web").await;
    let network = server.run("network inspect --format {{.Id}} st_front").await;
    assert!(spec.contains(&format!(r#""Target": "{}""#, network.trim())), "by id: {spec}");

    // The same file again changes nothing and is taken, and so is a new label; another content is not.
    server.file("compose.yml", &STACK.replace("{file: ./motd}", "{file: ./motd, labels: {v: '2'}}"));
    assert!(server.run(deploy).await.contains("Updating service st_web"));
    assert_eq!(server.run("config inspect --format {{.Spec.Labels.v}} st_motd").await.trim(), "2");
    server.file("token", "another");
    assert!(server.refused(deploy).await.contains("only updates to Labels are allowed"));

    let removed = server.run("stack rm st").await;
    for line in ["service st_web", "secret st_token", "config st_motd", "network st_front"] {
        assert!(removed.contains(&format!("Removing {line}")), "{removed}");
    }
    for kind in ["service", "secret", "config", "network"] {
        let left = server.run(&format!("{kind} ls -q --filter label=com.docker.stack.namespace=st")).await;
        assert_eq!(left, "", "{kind}");
    }
    server.stop().await;
}

#[tokio::test]
async fn docker_service_logs() {
    let Some(server) = start().await else { return };
    let output = server.docker("service logs --timestamps web").await;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "a missing node fails nothing: {stderr}");
    assert!(stdout.starts_with("2023-11-14T22:13:20.000000000Z web.1."), "{stdout}");
    assert!(stdout.contains("@node1") && stdout.contains("| line 0"), "{stdout}");
    let missing = stderr.lines().find(|line| line.contains("@node2")).unwrap_or_else(|| panic!("{stderr}"));
    assert!(missing.contains("are missing: cable cut"), "{missing}");
    let task = server.run("service ps -q --filter name=web.1 web").await;
    assert_eq!(server.run(&format!("service logs --raw {}", task.trim())).await, "line 0\n");
    assert!(server.refused("service logs nothing").await.contains("no such task or service: nothing"));
    server.stop().await;
}
