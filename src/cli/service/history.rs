//! `peer service history`: the revisions that a rollback can go back to.

use super::changes;
use super::image::familiar;
use super::path;
use crate::cli::client::{Client, escaped};
use crate::cli::console::Console;
use crate::cli::error::CliError;
use crate::cli::go;
use crate::cli::json::{flag, is_there, items, number, text};
use crate::cli::list::{self, ListArgs, Row};
use crate::cli::reason;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

const EXAMPLES: &str = "\
Examples:
  peer service history web
  peer service history --no-trunc web
  peer service rollback --to 3 web        go back to one of them";

/// List the kept revisions of a service, the newest first
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct History {
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    list: ListArgs,
}

const HEADER: [&str; 6] = ["REVISION", "IMAGE", "REPLICAS", "CREATED", "CHANGES", "NOTE"];
const FIELDS: [&str; 6] = ["Revision", "Image", "Replicas", "Created", "Changes", "Note"];
/// Two constraints are as many as fit beside the rest.
const MAX_CHANGES_CHARS: usize = 50;

pub async fn history(args: &History, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let answer = client.get(&format!("/peer/services/{}/history", escaped(&args.service))).await?;
    let mut revisions: Vec<&Value> = items(&answer).iter().collect();
    revisions.sort_by_key(|revision| std::cmp::Reverse(number(revision, "/Number")));
    let rollout = match client.get(&path(&args.service)).await {
        Ok(service) => in_words(text(&service, "/UpdateStatus/State")),
        // Removed just now: its revisions are worth showing all the same.
        Err(error) if error.is_not_found() => "",
        Err(error) => return Err(error.into()),
    };
    let before = |n: usize| revisions.get(n + 1).copied();
    let row = |(n, revision): (usize, &&Value)| row(revision, before(n), rollout, args.list.no_trunc, console.now());
    let rows = revisions.iter().enumerate().map(row).collect();
    list::show(&args.list, &HEADER, rows, console)
}

/// How the current revision came to be in force, where that is more than an update that ended well. (Of earlier rollouts
/// the agent keeps nothing.)
fn in_words(state: &str) -> &'static str {
    match state {
        "updating" => "rolling out",
        "paused" => "its update is paused",
        "rollback_started" => "being rolled back to",
        "rollback_paused" => "the rollback to it is paused",
        "rollback_completed" => "rolled back to",
        _ => "",
    }
}

/// `before`: the revision before it, if that is kept.
fn row(revision: &Value, before: Option<&Value>, rollout: &str, no_trunc: bool, now: Timestamp) -> Row {
    let number_text = number(revision, "/Number").to_string();
    let image = text(revision, "/Spec/TaskTemplate/ContainerSpec/Image");
    let image = if no_trunc { image.to_owned() } else { familiar(image) };
    let modes = ["/Spec/Mode/Replicated/Replicas", "/Spec/Mode/ReplicatedJob/TotalCompletions"];
    let replicas = match modes.iter().find_map(|mode| revision.pointer(mode).and_then(Value::as_u64)) {
        Some(replicas) => replicas.to_string(),
        None if is_there(revision, "/Spec/Mode/Global") || is_there(revision, "/Spec/Mode/GlobalJob") => {
            "global".to_owned()
        }
        None => "1".to_owned(),
    };
    let (current, rollout) = if flag(revision, "/Current") { ("current", rollout) } else { ("", "") };
    let left = if flag(revision, "/RolledBackFrom") { "rolled back from" } else { "" };
    let fallback = if flag(revision, "/Fallback") { "still serves" } else { "" };
    let notes = [current, rollout, left, fallback, text(revision, "/Note")].into_iter().filter(|note| !note.is_empty());
    let note = notes.collect::<Vec<_>>().join(", ");
    let spec = |revision: &Value| revision.get("Spec").cloned().unwrap_or_default();
    let changes = before.map(|before| changes::in_words(&spec(before), &spec(revision))).unwrap_or_default();
    let changes = reason::short(&changes, if no_trunc { usize::MAX } else { MAX_CHANGES_CHARS });
    let created = go::ago(text(revision, "/CreatedAt"), now);
    Row::new(number_text.clone(), &FIELDS, vec![number_text, image, replicas, created, changes, note])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeAgent, console};
    use serde_json::json;

    #[tokio::test]
    async fn the_newest_stands_first_and_the_current_is_marked() {
        let agent = FakeAgent::start(|request| {
            if request.path == "/services/web" {
                return (200, json!({ "UpdateStatus": { "State": "rollback_completed" } }));
            }
            assert_eq!(request.path, "/peer/services/web/history");
            let revision = |number: u64, image: &str, current: bool| {
                json!({ "Number": number, "Current": current, "CreatedAt": "2026-11-22T20:35:30Z", "Author": "n",
                    "Spec": { "Mode": { "Replicated": { "Replicas": 3 } }, "TaskTemplate": { "ContainerSpec": { "Image": image } } } })
            };
            let mut moved = revision(3, "web:2", false);
            moved["Spec"]["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.labels.zone==east"] });
            moved["RolledBackFrom"] = json!(true);
            let mut second = revision(2, "web:2", false);
            second["Fallback"] = json!(true);
            (200, json!([revision(1, "web:1@sha256:0", true), second, moved]))
        });
        let (mut console, out, _) = console(false);
        console.set_now("2026-11-22T20:37:30Z");
        let list = ListArgs { filter: Vec::new(), format: "table".to_owned(), quiet: false, no_trunc: false };
        history(&History { service: "web".to_owned(), list }, &agent.client(), &mut console).await.unwrap();
        assert_eq!(
            out.text(),
            "REVISION   IMAGE     REPLICAS   CREATED         CHANGES                              NOTE\n\
             3          web:2     3          2 minutes ago   constraint +node.labels.zone==east   rolled back from\n\
             2          web:2     3          2 minutes ago   image                                still serves\n\
             1          web:1     3          2 minutes ago                                        current, rolled back to\n"
        );
    }
}
