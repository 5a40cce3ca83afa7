//! `peer mesh`: published ports on this node, as its data plane really has them.

use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::json::{list, number, text};
use super::list::{self as listing, ListArgs, Row, short};
use clap::{Args, Subcommand};
use serde_json::Value;

/// See how published ports reach their replicas
#[derive(Debug, Subcommand)]
pub enum MeshCommand {
    Ls(Ls),
}

const EXAMPLES: &str = "\
Examples:
  peer mesh ls                            every port of this node, replica by replica
  peer mesh ls --filter service=web
  peer mesh ls --format '{{.Port}} {{.Replica}} {{.State}} {{.Open}}'
  peer -H unix:///run/other.sock mesh ls  another node's view";

/// List this node's ports and the replicas behind them
///
/// On an HTTP-aware port requests are counted, elsewhere connections; both since the port is open here. Of what the kernel
/// carries only what is open is known.
#[derive(Debug, Args)]
#[command(visible_alias = "list", after_help = EXAMPLES)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
}

const HEADER: [&str; 10] =
    ["PORT", "OPTIONS", "PATH", "SERVICE", "REPLICA", "NODE", "STATE", "OPEN", "TOTAL", "FAILED"];
const FIELDS: [&str; 10] =
    ["Port", "Options", "Path", "Service", "Replica", "Node", "State", "Open", "Total", "Failed"];

pub async fn run(command: MeshCommand, client: &Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        MeshCommand::Ls(args) => ls(&args, client, console).await,
    }
}

async fn ls(args: &Ls, client: &Client, console: &mut Console) -> Result<(), CliError> {
    for (key, _) in &args.list.filter {
        if !["service", "node", "state"].contains(&key.as_str()) {
            return Err(CliError::misuse(format!("--filter {key}: want service, node or state")));
        }
    }
    let answer = client.get("/peer/mesh").await?;
    let mut rows: Vec<Row> = list(&answer, "/Ports").iter().flat_map(|port| rows(port, args.list.no_trunc)).collect();
    rows.retain(|row| {
        let field = |key: &str| row.fields.get(key).and_then(Value::as_str).unwrap_or_default();
        args.list.filter.iter().all(|(key, value)| match key.as_str() {
            "service" => field("Service") == value,
            "node" => field("Node") == value,
            _ => field("State") == value,
        })
    });
    listing::show(&args.list, &HEADER, rows, console)?;
    for port in list(&answer, "/Ports").iter().filter(|port| !text(port, "/Blocked").is_empty()) {
        console.warn(&format!(
            "port {} can't be opened on this node: {}",
            number(port, "/Port"),
            text(port, "/Blocked")
        ));
    }
    Ok(())
}

/// One for each replica; a port that has none is there with its own figures.
fn rows(port: &Value, no_trunc: bool) -> Vec<Row> {
    let number_of = |value: &Value, at: &str| number(value, at).to_string();
    let shown = format!("{}/{}", number(port, "/Port"), text(port, "/Protocol"));
    let blocked = !text(port, "/Blocked").is_empty();
    let row = |id: &str, replica: String, node: &str, state: &str, figures: [String; 3]| {
        let [open, total, failed] = figures;
        let state = if blocked { "blocked" } else { state };
        let cells = vec![
            shown.clone(),
            text(port, "/Options").to_owned(),
            text(port, "/Path").to_owned(),
            text(port, "/Service").to_owned(),
            replica,
            node.to_owned(),
            state.to_owned(),
            open,
            total,
            failed,
        ];
        let mut row = Row::new(id.to_owned(), &FIELDS, cells);
        row.fields.insert("TaskID".to_owned(), id.into());
        row.fields.insert("Blocked".to_owned(), text(port, "/Blocked").into());
        row
    };
    let replicas = list(port, "/Replicas");
    if replicas.is_empty() {
        let figures = ["/Open", "/Connections", "/Failures"].map(|at| number_of(port, at));
        return vec![row("", String::new(), "", "empty", figures)];
    }
    let of_replica = |replica: &Value| {
        let id = text(replica, "/TaskID");
        let name = match text(replica, "/Name") {
            "" => short(id, no_trunc),
            name => name.to_owned(),
        };
        let node = match text(replica, "/Hostname") {
            "" => text(replica, "/NodeID"),
            name => name,
        };
        let figures = ["/Open", "/Total", "/Failures"].map(|at| number_of(replica, at));
        row(id, name, node, text(replica, "/State"), figures)
    };
    replicas.iter().map(of_replica).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeAgent, console};
    use serde_json::json;

    fn told() -> Value {
        let replica = |name: &str, host: &str, state: &str, open: u64| {
            json!({ "TaskID": format!("id-{name}"), "Name": name, "NodeID": "n", "Hostname": host, "Local": false,
                    "TargetPort": 8080, "State": state, "Open": open, "Total": 10, "Failures": 1 })
        };
        json!({ "Plane": "userspace", "Ports": [
            { "Port": 80, "Protocol": "tcp", "Options": "protocol=http", "Path": "userspace", "Service": "web", "Blocked": "", "Replicas":
                [replica("web.1", "node1", "routable", 3), replica("web.2", "node2", "draining", 1)] },
            { "Port": 90, "Protocol": "tcp", "Options": "", "Path": "kernel", "Service": "db", "Blocked": "address in use",
              "Open": 0, "Connections": 4, "Failures": 2, "Replicas": [] },
        ] })
    }

    async fn printed(args: &[&str]) -> (Result<(), CliError>, String, String) {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            ls: Ls,
        }
        let agent = FakeAgent::start(|request| {
            assert_eq!(request.path, "/peer/mesh");
            (200, told())
        });
        let (mut console, out, err) = console(false);
        let args: Only = clap::Parser::parse_from(std::iter::once(&"ls").chain(args));
        let result = ls(&args.ls, &agent.client(), &mut console).await;
        (result, out.text(), err.text())
    }

    #[tokio::test]
    async fn a_row_for_each_replica_and_what_is_wrong_behind_them() {
        let (result, out, err) = printed(&[]).await;
        result.unwrap();
        assert_eq!(
            out,
            "PORT      OPTIONS         PATH        SERVICE   REPLICA   NODE      STATE      OPEN      TOTAL     FAILED\n\
             80/tcp    protocol=http   userspace   web       web.1     node1     routable   3         10        1\n\
             80/tcp    protocol=http   userspace   web       web.2     node2     draining   1         10        1\n\
             90/tcp                    kernel      db                            blocked    0         4         2\n"
        );
        assert_eq!(err, "warning: port 90 can't be opened on this node: address in use\n");
    }

    #[tokio::test]
    async fn filters_templates_and_json() {
        let (_, out, _) = printed(&["--filter", "state=draining", "--format", "{{.Replica}} {{.Open}}"]).await;
        assert_eq!(out, "web.2 1\n");
        let (_, out, _) = printed(&["--filter", "service=db", "--format", "json"]).await;
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["Blocked"], "address in use");
        assert!(printed(&["--filter", "colour=red"]).await.0.unwrap_err().message().contains("want service"));
    }
}
