//! The unmodified docker CLI against the API; skipped where there is no docker CLI.

use super::Server;
use std::process::Output;
use tokio::process::Command;

impl Server {
    async fn docker(&self, args: &str) -> Output {
        let host = format!("unix://{}", self.socket().display());
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", self.dir.path()).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
        command.arg("--host").arg(host).args(args.split(' ')).output().await.unwrap()
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
    assert!(server.refused("service logs db").await.contains("docker logs"));
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
    assert!(server.refused("swarm leave --force").await.contains("docker node rm"));
    assert!(server.refused("ps").await.contains("Docker Engine"));
    server.stop().await;
}
