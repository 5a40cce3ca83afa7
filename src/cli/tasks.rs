//! The table of tasks that `service ps` and `node ps` print: slots in order, past tasks drawn below the present one.

use super::client::{Client, with_query};
use super::console::Console;
use super::error::CliError;
use super::go::{ago, capital};
use super::json::{items, list, number, text};
use super::list::{self as listing, ListArgs, Row, short};
use super::reason;
use super::service::image::familiar;
use super::table::natural;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Args)]
pub struct TaskArgs {
    #[command(flatten)]
    list: ListArgs,
    /// Show ids instead of names
    #[arg(long)]
    no_resolve: bool,
}

const HEADER: [&str; 8] = ["ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS"];
const FIELDS: [&str; 8] = ["ID", "Name", "Image", "Node", "DesiredState", "CurrentState", "Error", "Ports"];
/// Docker's 30 end before most reasons do.
const MAX_ERROR_CHARS: usize = 50;

/// The tasks of these services, or on these nodes: `key` says which.
pub async fn show(
    args: &TaskArgs,
    key: &str,
    ids: &[String],
    client: &Client,
    console: &mut Console,
) -> Result<(), CliError> {
    let mut pairs = args.list.filter.clone();
    pairs.extend(ids.iter().map(|id| (key.to_owned(), id.clone())));
    let filters = listing::filters(&pairs).unwrap_or_default();
    let tasks = client.get(&with_query("/tasks", &[("filters", &filters)])).await?;
    let (services, nodes) = if args.no_resolve {
        (BTreeMap::new(), BTreeMap::new())
    } else {
        let (services, nodes) = (client.get("/services").await?, client.get("/nodes").await?);
        (names(&services, "/Spec/Name"), names(&nodes, "/Description/Hostname"))
    };
    let rows = rows(items(&tasks), &services, &nodes, args.list.no_trunc, console.now());
    listing::show(&args.list, &HEADER, rows, console)
}

fn names(objects: &Value, name: &str) -> BTreeMap<String, String> {
    let named = items(objects).iter().filter(|object| !text(object, name).is_empty());
    named.map(|object| (text(object, "/ID").to_owned(), text(object, name).to_owned())).collect()
}

type Names = BTreeMap<String, String>;

fn rows(tasks: &[Value], services: &Names, nodes: &Names, no_trunc: bool, now: Timestamp) -> Vec<Row> {
    let or_id = |names: &Names, id: &str| names.get(id).cloned().unwrap_or_else(|| id.to_owned());
    let name = |task: &Value| {
        let service = or_id(services, text(task, "/ServiceID"));
        match number(task, "/Slot") {
            0 => format!("{service}.{}", text(task, "/NodeID")),
            slot => format!("{service}.{slot}"),
        }
    };
    let created = |task: &Value| text(task, "/CreatedAt").parse::<Timestamp>().unwrap_or_default();
    let mut named: Vec<(String, &Value)> = tasks.iter().map(|task| (name(task), task)).collect();
    // What is to run first, whatever the clocks of those who planned it said; then the newest.
    let rests = |task: &Value| !matches!(text(task, "/DesiredState"), "running" | "ready");
    named.sort_by(|(a, x), (b, y)| {
        natural(a, b).then_with(|| rests(x).cmp(&rests(y))).then_with(|| created(y).cmp(&created(x)))
    });
    let mut rows = Vec::with_capacity(named.len());
    let mut above = String::new();
    for (name, task) in named {
        let shown = if name == above { format!(" \\_ {name}") } else { name.clone() };
        above.clone_from(&name);
        let mut row = row(task, shown, or_id(nodes, text(task, "/NodeID")), no_trunc, now);
        row.fields.insert("Name".to_owned(), name.into());
        rows.push(row);
    }
    rows
}

fn row(task: &Value, name: String, node: String, no_trunc: bool, now: Timestamp) -> Row {
    let id = short(text(task, "/ID"), no_trunc);
    let image = text(task, "/Spec/ContainerSpec/Image");
    let image = if no_trunc { image.to_owned() } else { familiar(image) };
    let state = format!(
        "{} {}",
        capital(text(task, "/Status/State")),
        ago(text(task, "/Status/Timestamp"), now).to_lowercase()
    );
    let cells =
        vec![id, name, image, node, capital(text(task, "/DesiredState")), state, error(task, no_trunc), ports(task)];
    // Docker's `ps -q` shortens nothing, unlike its `ls -q`.
    Row::new(text(task, "/ID").to_owned(), &FIELDS, cells)
}

fn error(task: &Value, no_trunc: bool) -> String {
    let shown = reason::short(text(task, "/Status/Err"), if no_trunc { usize::MAX } else { MAX_ERROR_CHARS });
    if shown.is_empty() { shown } else { format!("\"{shown}\"") }
}

fn ports(task: &Value) -> String {
    let port = |port: &Value| {
        format!("*:{}->{}/{}", number(port, "/PublishedPort"), number(port, "/TargetPort"), text(port, "/Protocol"))
    };
    list(task, "/Status/PortStatus/Ports").iter().map(port).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    fn table(tasks: &Value, no_trunc: bool, now: &str) -> String {
        let services = names(
            &serde_json::json!([fixtures::service_greeters(), { "ID": "phi04jbeyuf5ltw9k0im2l1zm", "Spec": { "Name": "rich" } }]),
            "/Spec/Name",
        );
        let nodes = names(&fixtures::nodes(), "/Description/Hostname");
        let rows = rows(items(tasks), &services, &nodes, no_trunc, now.parse().unwrap());
        super::super::table::table(&HEADER, &rows.into_iter().map(|row| row.cells).collect::<Vec<_>>())
    }

    #[test]
    fn five_replicas_look_as_docker_prints_them() {
        assert_eq!(table(&fixtures::tasks_five(), false, "2026-11-22T20:35:47.6Z"), fixtures::SERVICE_PS_FIVE);
    }

    #[test]
    fn past_tasks_stand_below_the_present_one() {
        assert_eq!(table(&fixtures::tasks_on_node(), false, "2026-11-22T20:36:19.3Z"), fixtures::NODE_PS);
    }

    #[test]
    fn nothing_is_cut_where_that_is_asked_for() {
        assert_eq!(table(&fixtures::tasks_rich(), true, "2026-11-22T20:37:34.5Z"), fixtures::SERVICE_PS_RICH);
    }

    #[test]
    fn long_errors_are_cut_and_quoted() {
        let task = |err: &str| serde_json::json!({ "Status": { "Err": err } });
        assert_eq!(error(&task(""), false), "");
        assert_eq!(error(&task("no suitable node"), false), "\"no suitable node\"");
        let long = "pull access denied for shop/web, repository does not exist or may require 'docker login'";
        assert_eq!(error(&task(long), false), "\"image not found, or no access to it\"");
        assert_eq!(error(&task(long), true), format!("\"{long}\""));
    }
}
