//! The cluster as a whole: how it stands, its join token, and its recovery when a majority of voters is lost.

use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::go;
use super::json::{flag, is_there, list, number, text, texts};
use super::service::{object, tell_warnings};
use super::template;
use clap::{Args, Subcommand};
use serde_json::Value;

const TOKEN_EXAMPLES: &str = "\
Examples:
  peer token                              the command that adds a node
  TOKEN=$(sudo peer token -q)             the token alone
  peer token --rotate                     a new one; the old one dies";

/// Show the token that lets nodes join
#[derive(Debug, Args)]
#[command(after_help = TOKEN_EXAMPLES)]
pub struct TokenArgs {
    /// Print the token alone
    #[arg(short, long)]
    quiet: bool,
    /// Draw a new one; nodes that are in stay in
    #[arg(long)]
    rotate: bool,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  peer status
  peer status --format json
  peer status --format '{{.Quorum}}'";

/// Show how the cluster stands, as this node sees it
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub struct StatusArgs {
    /// json, or a template as '{{.Quorum}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const DASHBOARD_EXAMPLES: &str = "\
Examples:
  peer dashboard                          the link to open in a browser on this machine
  ssh -L 7373:127.0.0.1:7373 NODE         brings the page of NODE to this machine";

/// Print the link of this node's cluster page
///
/// The link carries the token that the page's actions need; whoever has it can change the cluster.
#[derive(Debug, Args)]
#[command(after_help = DASHBOARD_EXAMPLES)]
pub struct DashboardArgs {}

/// Act on the cluster as a whole
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    Recover(RecoverArgs),
}

const RECOVER_EXAMPLES: &str = "\
Examples:
  peer cluster recover                    shows what it is about to do, and asks
  peer cluster recover --yes";

/// Form a new electorate from the nodes that live, when a majority of the old one is lost for good
///
/// While a majority of the voters is away, containers keep running and crashed ones are restarted, but nothing is placed
/// anew. That ends by itself when they return. Only if they never will, recover on one of the nodes that are left.
#[derive(Debug, Args)]
#[command(after_help = RECOVER_EXAMPLES)]
pub struct RecoverArgs {
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
}

pub async fn run(command: &ClusterCommand, client: &Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        ClusterCommand::Recover(args) => recover(args, client, console).await,
    }
}

pub async fn dashboard(client: &Client, console: &mut Console) -> Result<(), CliError> {
    let answer = client.get("/peer/dashboard").await?;
    console.line(text(&answer, "/Link"))
}

pub async fn token(args: &TokenArgs, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let answer =
        if args.rotate { client.post("/peer/token/rotate", None).await? } else { client.get("/peer/token").await? };
    tell_warnings(&answer, console);
    let token = text(&answer, "/Token");
    if args.quiet {
        return console.line(token);
    }
    let status = client.get("/peer/status").await?;
    let addr = match text(&status, "/Node/Addr") {
        "" => "HOST",
        addr => addr,
    };
    if args.rotate {
        console.line("The token was rotated; the old one lets nobody in any more.\n")?;
    }
    console
        .line(&format!("To add a node to this cluster, run there:\n\n    peer start --join {addr} --token {token}\n"))
}

pub async fn status(args: &StatusArgs, client: &Client, console: &mut Console) -> Result<(), CliError> {
    match args.format.as_deref() {
        None | Some("") => {
            let status = client.get("/peer/status").await?;
            console.print(&page(&status, console.now()))?;
            for trouble in texts(&status, "/Troubles") {
                console.warn(trouble);
            }
            Ok(())
        }
        Some("json") => console.line(client.get_text("/peer/status").await?.trim()),
        Some(format) => {
            let status = Value::Object(object(client, "/peer/status").await?);
            console.line(&template::render(format, &status)?)
        }
    }
}

fn page(status: &Value, now: jiff::Timestamp) -> String {
    let count = |pointer: &str| number(status, pointer);
    let named = |pointer: &str| {
        format!("{} ({})", text(status, &format!("{pointer}/Hostname")), text(status, &format!("{pointer}/ID")))
    };
    let voters: Vec<String> = list(status, "/Voters").iter().map(voter).collect();
    let leader = match is_there(status, "/Holder") {
        true => format!("{}, term {}", text(status, "/Holder/Hostname"), count("/Holder/Term")),
        false => "none".to_owned(),
    };
    let mut lines = vec![
        (
            "Cluster",
            format!(
                "{}, created {}",
                text(status, "/ClusterID"),
                go::ago(text(status, "/CreatedAt"), now).to_lowercase()
            ),
        ),
        ("This node", format!("{} at {}, {}", named("/Node"), text(status, "/Node/Addr"), text(status, "/Node/State"))),
        ("Agent", text(status, "/AgentVersion").to_owned()),
        ("Quorum", quorum(status)),
        ("Leader", leader),
        ("Voters", voters.join(", ")),
        ("Nodes", nodes(status)),
        ("Services", count("/Services").to_string()),
        ("Tasks", tasks(status)),
        ("Records", count("/Records").to_string()),
    ];
    if !text(status, "/Mesh").is_empty() {
        lines.insert(3, ("Mesh", text(status, "/Mesh").to_owned()));
    }
    if count("/RefusedRecords") > 0 {
        lines.push(("Refused", format!("{} records (clocks that are far apart?)", count("/RefusedRecords"))));
    }
    for pending in list(status, "/Pending") {
        let why = text(pending, "/Why");
        let why = why.strip_prefix("pending: ").unwrap_or(why);
        lines.push(("Pending", format!("{}: {why}", text(pending, "/Service"))));
    }
    lines.iter().map(|(label, value)| format!("{:<12}{value}\n", format!("{label}:"))).collect()
}

/// What the voters' majority says now: those that are suspect may be dead already.
fn quorum(status: &Value) -> String {
    let voters = list(status, "/Voters");
    let alive = voters.iter().filter(|voter| text(voter, "/Liveness") == "alive").count();
    match flag(status, "/Quorum") {
        false => "NO".to_owned(),
        true if alive * 2 > voters.len() => "yes".to_owned(),
        true => format!("in doubt: only {alive} of {} voters answers", voters.len()),
    }
}

fn nodes(status: &Value) -> String {
    let count = |what: &str| number(status, &format!("/Nodes/{what}"));
    let (total, ready, away, down) = (count("Total"), count("Ready"), count("Away"), count("Down"));
    let mut parts = vec![format!("{ready} ready")];
    parts.extend((away > 0).then(|| format!("{away} stopped")));
    parts.push(format!("{down} down"));
    // Alive, but their engine can't be reached.
    let rest = total.saturating_sub(ready + away + down);
    parts.extend((rest > 0).then(|| format!("{rest} without an engine that answers")));
    format!("{total} ({})", parts.join(", "))
}

/// What has ended is kept for a while, for `service ps`, and is no load: it is counted apart.
fn tasks(status: &Value) -> String {
    let count = |key: &str| number(status, key);
    let (running, ended, lost) = (count("/TasksRunning"), count("/TasksEnded"), count("/TasksOnDownNodes"));
    let others = count("/Tasks").saturating_sub(running + ended + lost);
    let mut told = format!("{running} running ({} here)", count("/TasksRunningHere"));
    if others > 0 {
        told.push_str(&format!(", {others} on their way"));
    }
    if lost > 0 {
        told.push_str(&format!(", {lost} on nodes that are down"));
    }
    if ended > 0 {
        told.push_str(&format!(", {ended} ended and kept for service ps"));
    }
    told
}

/// A live voter needs no remark.
fn voter(voter: &Value) -> String {
    let name = match text(voter, "/Hostname") {
        "" => text(voter, "/ID"),
        name => name,
    };
    match text(voter, "/Liveness") {
        "" | "alive" => name.to_owned(),
        liveness => format!("{name} ({liveness})"),
    }
}

async fn recover(args: &RecoverArgs, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let status = client.get("/peer/status").await?;
    if flag(&status, "/Quorum") {
        return Err(CliError::new("a majority of the voters is alive: there is nothing to recover"));
    }
    let voters: Vec<String> = list(&status, "/Voters").iter().map(voter).collect();
    let gone = number(&status, "/Nodes/Down") + number(&status, "/Nodes/Away");
    let live = number(&status, "/Nodes/Total").saturating_sub(gone);
    console.note(&format!(
        "The voters of cluster {} are: {}\nA new electorate will be formed from the {live} of {} nodes that this node ({}) sees alive now.\n\
         The old voters' votes count no more; when they return they join as followers, and writes that only they had may be lost.",
        text(&status, "/ClusterID"),
        voters.join(", "),
        number(&status, "/Nodes/Total"),
        text(&status, "/Node/Hostname"),
    ));
    if !args.yes && !console.confirm("Form the new electorate?")? {
        return Err(CliError::new("nothing was changed"));
    }
    tell_warnings(&client.post("/peer/recover", None).await?, console);
    console.line("The new electorate is being formed; watch it with: peer status")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeAgent, console};
    use serde_json::json;

    fn shown() -> Value {
        json!({
            "ClusterID": "c1", "CreatedAt": "2026-11-22T20:26:09Z", "AgentVersion": "0.1.0", "Quorum": false, "Holder": null,
            "ElectorateEpoch": 1, "Node": { "ID": "n1", "Hostname": "node1", "Addr": "10.0.0.1:7373", "State": "ready", "Liveness": "alive" },
            "Voters": [{ "ID": "n1", "Hostname": "node1", "Liveness": "alive" }, { "ID": "n2", "Hostname": "node2", "Liveness": "down" }],
            "Nodes": { "Total": 5, "Ready": 2, "Down": 3 }, "Services": 4, "Tasks": 22, "TasksHere": 4, "TasksRunning": 12, "TasksOnDownNodes": 2, "TasksRunningHere": 3, "TasksEnded": 7, "Records": 120, "RefusedRecords": 0,
            "Pending": [{ "Service": "web", "Why": "held by 1 of 5 nodes" }], "Troubles": ["no majority of the voters is alive"],
        })
    }

    #[tokio::test]
    async fn the_status_is_one_page() {
        let agent = FakeAgent::start(|_| (200, shown()));
        let (mut console, out, err) = console(false);
        console.set_now("2026-11-22T22:26:09Z");
        status(&StatusArgs { format: None }, &agent.client(), &mut console).await.unwrap();
        assert_eq!(
            out.text(),
            "Cluster:    c1, created 2 hours ago\nThis node:  node1 (n1) at 10.0.0.1:7373, ready\nAgent:      0.1.0\nQuorum:     NO\n\
             Leader:     none\nVoters:     node1, node2 (down)\nNodes:      5 (2 ready, 3 down)\nServices:   4\nTasks:      12 running (3 here), 1 on their way, 2 on nodes that are down, 7 ended and kept for service ps\n\
             Records:    120\nPending:    web: held by 1 of 5 nodes\n"
        );
        assert_eq!(err.text(), "warning: no majority of the voters is alive\n");
    }

    #[tokio::test]
    async fn the_token_comes_with_the_command_that_uses_it() {
        let agent = FakeAgent::start(|request| match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/peer/token") => (200, json!({ "Token": "PEERTKN-1-a-b" })),
            ("POST", "/peer/token/rotate") => (200, json!({ "Token": "PEERTKN-1-a-c", "Warnings": [] })),
            _ => (200, shown()),
        });
        let (mut console, out, _) = console(false);
        token(&TokenArgs { quiet: true, rotate: false }, &agent.client(), &mut console).await.unwrap();
        assert_eq!(out.text(), "PEERTKN-1-a-b\n");
        token(&TokenArgs { quiet: false, rotate: true }, &agent.client(), &mut console).await.unwrap();
        assert!(out.text().contains("    peer start --join 10.0.0.1:7373 --token PEERTKN-1-a-c\n"));
    }

    #[tokio::test]
    async fn a_recovery_says_what_it_will_do() {
        let agent = FakeAgent::start(|_| (200, shown()));
        let (mut console, _, err) = console(false);
        recover(&RecoverArgs { yes: true }, &agent.client(), &mut console).await.unwrap();
        assert!(
            err.text().contains("node1, node2 (down)") && err.text().contains("the 2 of 5 nodes"),
            "{}",
            err.text()
        );
        assert_eq!(agent.asked().last().unwrap(), "POST /peer/recover");
    }

    #[tokio::test]
    async fn with_a_majority_alive_there_is_nothing_to_recover_and_that_is_said_once() {
        let agent = FakeAgent::start(|_| {
            let mut status = shown();
            status["Quorum"] = true.into();
            (200, status)
        });
        let (mut console, out, err) = console(false);
        let error = recover(&RecoverArgs { yes: true }, &agent.client(), &mut console).await.unwrap_err();
        assert!(error.message().contains("nothing to recover"), "{error}");
        assert_eq!((out.text().as_str(), err.text().as_str()), ("", ""));
        assert_eq!(agent.asked(), ["GET /peer/status"]);
    }

    #[tokio::test]
    async fn nodes_that_were_stopped_are_counted_apart() {
        let agent = FakeAgent::start(|_| {
            let mut status = shown();
            status["Nodes"] = json!({ "Total": 5, "Ready": 2, "Away": 1, "Down": 2 });
            (200, status)
        });
        let (mut console, out, _) = console(false);
        status(&StatusArgs { format: None }, &agent.client(), &mut console).await.unwrap();
        assert!(out.text().contains("Nodes:      5 (2 ready, 1 stopped, 2 down)\n"), "{}", out.text());
    }
}
