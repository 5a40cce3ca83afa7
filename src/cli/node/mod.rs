//! `peer node`: the machines of the cluster.

mod inspect;

use super::client::{Answer, Client, escaped, no_such, with_query};
use super::console::Console;
use super::error::CliError;
use super::go::capital;
use super::json::{child, flag, index, is_there, items, put, text};
use super::list::{self, ListArgs, Row};
use super::service::{one_error, tell_warnings};
use super::table::natural;
use super::tasks;
use clap::{Args, Subcommand};
use serde_json::Value;

const ATTEMPTS: usize = 4;

/// Manage nodes
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    Ls(Ls),
    Ps(Ps),
    Inspect(inspect::Inspect),
    Update(Update),
    Rm(Rm),
    /// There are no managers: every node takes every command
    #[command(hide = true)]
    Promote(Managers),
    /// Likewise
    #[command(hide = true)]
    Demote(Managers),
}

const MANAGERS_EXAMPLES: &str = "\
Examples:
  peer node ls                            MANAGER STATUS tells which node schedules now";

/// What Docker's users type.
#[derive(Debug, Args)]
#[command(after_help = MANAGERS_EXAMPLES)]
pub struct Managers {
    #[arg(value_name = "NODE")]
    _nodes: Vec<String>,
}

const LS_EXAMPLES: &str = "\
Examples:
  peer node ls
  peer node ls --filter node.label=zone=east
  peer node ls --format '{{.Hostname}} {{.Status}}'";

/// List nodes
#[derive(Debug, Args)]
#[command(visible_alias = "list", after_help = LS_EXAMPLES)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
}

const PS_EXAMPLES: &str = "\
Examples:
  peer node ps                            the tasks on this node
  peer node ps --filter desired-state=running node2 node3";

/// List the tasks on nodes
#[derive(Debug, Args)]
#[command(after_help = PS_EXAMPLES)]
pub struct Ps {
    /// By host name or id; this one if none is named
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    #[command(flatten)]
    tasks: tasks::TaskArgs,
}

const UPDATE_EXAMPLES: &str = "\
Examples:
  peer node update --availability drain node4      move its tasks away
  peer node update --availability active node4
  peer node update --label-add zone=east --label-rm old node4";

/// Change a node's availability or labels
#[derive(Debug, Args)]
#[command(after_help = UPDATE_EXAMPLES)]
pub struct Update {
    #[arg(value_name = "NODE")]
    node: String,
    /// active, pause (no new tasks) or drain (no tasks)
    #[arg(long, value_name = "active|pause|drain", value_parser = ["active", "pause", "drain"], hide_possible_values = true)]
    availability: Option<String>,
    /// Label the node
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::service::pair)]
    label_add: Vec<(String, String)>,
    /// Take a label off
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
}

const RM_EXAMPLES: &str = "\
Examples:
  peer node rm node5                      forget a node that is down
  peer node rm --force node5              shut out one that lives";

/// Forget nodes for good
#[derive(Debug, Args)]
#[command(visible_alias = "remove", after_help = RM_EXAMPLES)]
pub struct Rm {
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
    /// Even if it is alive
    #[arg(short, long)]
    force: bool,
}

pub async fn run(command: NodeCommand, client: &Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        NodeCommand::Ls(args) => ls(&args, client, console).await,
        NodeCommand::Ps(args) => ps(&args, client, console).await,
        NodeCommand::Inspect(args) => inspect::inspect(&args, client, console).await,
        NodeCommand::Update(args) => {
            if args.is_empty() {
                return Err(CliError::misuse(format!("node update {}: no flag says what to change", args.node)).hint(
                    "want --availability active|pause|drain, --label-add KEY=VALUE or --label-rm KEY (more than one is fine)",
                ));
            }
            update(&args.node, |spec| args.edit(spec), client, console).await?;
            console.line(&args.node)?;
            if args.availability.as_deref() == Some("drain") {
                console.note(&format!(
                    "Its tasks move away now, as each service's update policy says; watch them: peer node ps {}",
                    args.node
                ));
            }
            Ok(())
        }
        NodeCommand::Rm(args) => remove(&args, client, console).await,
        NodeCommand::Promote(_) | NodeCommand::Demote(_) => {
            Err(CliError::misuse("there are no managers to promote or demote: every node takes every command")
                .hint("which one schedules now is in MANAGER STATUS of: peer node ls"))
        }
    }
}

pub fn path(node: &str) -> String {
    format!("/nodes/{}", escaped(node))
}

const HEADER: [&str; 6] = ["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION"];
const FIELDS: [&str; 6] = ["ID", "Hostname", "Status", "Availability", "ManagerStatus", "EngineVersion"];

async fn ls(args: &Ls, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let filters = list::filters(&args.list.filter);
    let parameters: Vec<(&str, &str)> = filters.iter().map(|filters| ("filters", filters.as_str())).collect();
    let answer = client.get(&with_query("/nodes", &parameters)).await?;
    let mut nodes: Vec<&Value> = items(&answer).iter().collect();
    nodes.sort_by(|a, b| natural(text(a, "/Description/Hostname"), text(b, "/Description/Hostname")));
    let me = own_id(&nodes, client).await?;
    let rows = nodes.iter().map(|node| row(node, &me)).collect();
    list::show(&args.list, &HEADER, rows, console)
}

/// Our agent says it with each node; a Docker daemon only in its `/info`.
async fn own_id(nodes: &[&Value], client: &Client) -> Answer<String> {
    if nodes.iter().any(|node| is_there(node, "/PeerStatus/Self")) {
        let me = nodes.iter().find(|node| flag(node, "/PeerStatus/Self"));
        return Ok(me.map(|node| text(node, "/ID").to_owned()).unwrap_or_default());
    }
    Ok(text(&client.get("/info").await?, "/Swarm/NodeID").to_owned())
}

fn row(node: &Value, me: &str) -> Row {
    let id = text(node, "/ID").to_owned();
    let manager =
        if flag(node, "/ManagerStatus/Leader") { "leader" } else { text(node, "/ManagerStatus/Reachability") };
    let cells = vec![
        id.clone(),
        text(node, "/Description/Hostname").to_owned(),
        capital(text(node, "/Status/State")),
        capital(text(node, "/Spec/Availability")),
        capital(manager),
        text(node, "/Description/Engine/EngineVersion").to_owned(),
    ];
    let mut row = Row::new(id.clone(), &FIELDS, cells);
    row.fields.insert("Self".to_owned(), (id == me).into());
    if let Some(first) = row.cells.first_mut() {
        first.push_str(if id == me { " *" } else { "  " });
    }
    row
}

async fn ps(args: &Ps, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let myself = ["self".to_owned()];
    let asked = if args.nodes.is_empty() { &myself[..] } else { &args.nodes };
    let mut ids = Vec::new();
    let mut failed = Vec::new();
    for node in asked {
        match client.get(&path(node)).await {
            Ok(found) => ids.push(text(&found, "/ID").to_owned()),
            Err(error) if error.is_not_found() => failed.push(missing(node)),
            Err(error) => return Err(error.into()),
        }
    }
    if !ids.is_empty() {
        tasks::show(&args.tasks, "node", &ids, client, console).await?;
    }
    one_error(failed)
}

fn missing(node: &str) -> CliError {
    no_such("node", node)
}

impl Update {
    fn is_empty(&self) -> bool {
        self.availability.is_none() && self.label_add.is_empty() && self.label_rm.is_empty()
    }

    fn edit(&self, spec: &mut super::json::Object) -> Result<(), CliError> {
        if let Some(availability) = &self.availability {
            put(spec, "Availability", availability.as_str());
        }
        let labels = child(spec, "Labels");
        for (key, value) in &self.label_add {
            put(labels, key, value.as_str());
        }
        for key in &self.label_rm {
            if labels.remove(key).is_none() {
                return Err(CliError::new(format!("{}: there is no label {key} to remove", self.node)));
            }
        }
        Ok(())
    }
}

/// Reads the node's spec, edits it and writes it back, again if somebody else wrote in between.
pub async fn update(
    node: &str,
    edit: impl Fn(&mut super::json::Object) -> Result<(), CliError>,
    client: &Client,
    console: &mut Console,
) -> Result<(), CliError> {
    let mut attempt = 1;
    loop {
        let found = client.get(&path(node)).await?;
        let mut spec = found.get("Spec").and_then(Value::as_object).cloned().unwrap_or_default();
        edit(&mut spec)?;
        let path = with_query(&format!("{}/update", path(text(&found, "/ID"))), &[("version", &index(&found))]);
        match client.post(&path, Some(&Value::Object(spec))).await {
            Err(error) if error.is_out_of_sequence() && attempt < ATTEMPTS => attempt += 1,
            answer => {
                tell_warnings(&answer?, console);
                return Ok(());
            }
        }
    }
}

async fn remove(args: &Rm, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let parameters: &[(&str, &str)] = if args.force { &[("force", "1")] } else { &[] };
    let mut failed = Vec::new();
    for node in &args.nodes {
        match client.delete(&with_query(&path(node), parameters)).await {
            Ok(answer) => {
                tell_warnings(&answer, console);
                console.line(node)?;
            }
            Err(error) if error.is_not_found() => failed.push(missing(node)),
            Err(error) => failed.push(error.into()),
        }
    }
    one_error(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;
    use crate::cli::testing::{FakeAgent, console};
    use serde_json::json;

    fn list_args() -> ListArgs {
        ListArgs { filter: Vec::new(), format: "table".to_owned(), quiet: false, no_trunc: false }
    }

    #[tokio::test]
    async fn it_looks_as_docker_prints_it() {
        let agent = FakeAgent::start(|request| match request.path.as_str() {
            "/info" => (200, json!({ "Swarm": { "NodeID": "c7gdukl1zdpgwzkbpn3j622j0" } })),
            _ => (200, fixtures::nodes()),
        });
        let (mut console, out, _) = console(false);
        ls(&Ls { list: list_args() }, &agent.client(), &mut console).await.unwrap();
        assert_eq!(out.text(), fixtures::NODE_LS);
    }

    #[tokio::test]
    async fn our_agent_need_not_be_asked_who_it_is() {
        let agent = FakeAgent::start(|request| {
            assert_eq!(request.path, "/nodes");
            (
                200,
                json!([{ "ID": "a", "PeerStatus": { "Self": false } }, { "ID": "b", "PeerStatus": { "Self": true } }]),
            )
        });
        let (mut console, out, _) = console(false);
        let list = ListArgs { format: "{{.ID}} {{.Self}}".to_owned(), ..list_args() };
        ls(&Ls { list }, &agent.client(), &mut console).await.unwrap();
        assert_eq!(out.text(), "a false\nb true\n");
    }

    #[tokio::test]
    async fn an_update_is_tried_again_on_what_somebody_else_wrote() {
        let mut index = 7;
        let mut written = Vec::new();
        let agent = FakeAgent::start(move |request| {
            if request.method == "GET" {
                let label = if index == 7 { json!({}) } else { json!({ "by": "another" }) };
                return (
                    200,
                    json!({ "ID": "abc", "Version": { "Index": index }, "Spec": { "Labels": label, "Role": "manager", "Availability": "active" } }),
                );
            }
            written.push(request.body.clone());
            if request.path.ends_with("version=7") {
                index = 8;
                return (500, json!({ "message": "rpc error: code = Unknown desc = update out of sequence" }));
            }
            assert_eq!(request.path, "/nodes/abc/update?version=8");
            assert_eq!(
                request.body,
                json!({ "Labels": { "by": "another", "zone": "a" }, "Role": "manager", "Availability": "drain" })
            );
            (200, json!({ "Warnings": null }))
        });
        let (mut console, out, _) = console(false);
        let args = Update {
            node: "node4".to_owned(),
            availability: Some("drain".to_owned()),
            label_add: vec![("zone".to_owned(), "a".to_owned())],
            label_rm: Vec::new(),
        };
        run(NodeCommand::Update(args), &agent.client(), &mut console).await.unwrap();
        assert_eq!(out.text(), "node4\n");
        assert_eq!(agent.asked().len(), 4);
    }

    #[tokio::test]
    async fn an_update_of_nothing_is_misuse_and_asks_nobody() {
        let agent = FakeAgent::start(|request| panic!("{}", request.path));
        let (mut console, out, _) = console(false);
        let args = Update { node: "node4".to_owned(), availability: None, label_add: Vec::new(), label_rm: Vec::new() };
        let error = run(NodeCommand::Update(args), &agent.client(), &mut console).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (2, "node update node4: no flag says what to change"));
        for flag in ["--availability", "--label-add", "--label-rm"] {
            assert!(error.hint_text().unwrap().contains(flag), "{flag}");
        }
        assert_eq!((out.text().as_str(), agent.asked().len()), ("", 0));
    }

    #[tokio::test]
    async fn the_rest_goes_on_when_one_can_not_be_removed() {
        let agent = FakeAgent::start(|request| match request.path.as_str() {
            "/nodes/b" => (500, json!({ "message": "node b is not down and can't be removed" })),
            _ => (200, json!({})),
        });
        let (mut console, out, _) = console(false);
        let nodes = ["a", "b", "c"].map(str::to_owned).to_vec();
        let error = remove(&Rm { nodes, force: false }, &agent.client(), &mut console).await.unwrap_err();
        assert_eq!((out.text().as_str(), error.message()), ("a\nc\n", "node b is not down and can't be removed"));
    }
}
