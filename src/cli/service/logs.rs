//! `peer service logs`: the lines of a service's tasks, or of one task, from all nodes, as docker prints them.

use super::path;
use crate::cli::client::{Client, escaped, with_query};
use crate::cli::console::Console;
use crate::cli::error::CliError;
use crate::cli::go::{Since, since};
use crate::cli::json::{items, number, text};
use crate::cli::list::short;
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;

const EXAMPLES: &str = "\
Examples:
  peer service logs web
  peer service logs -f --tail 20 web
  peer service logs --since 10m --timestamps web";

/// Show what the tasks of a service have printed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Logs {
    /// A service, or a task, by name or id
    #[arg(value_name = "SERVICE|TASK")]
    service: String,
    /// Go on with what they print from now on
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines of each task
    #[arg(short = 'n', long, value_name = "N|all", value_parser = tail, default_value = "all")]
    tail: String,
    /// Only what is younger: 10m, or a time as 2026-11-22T20:26:09Z, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Put the time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Show the details that the log driver has
    #[arg(long)]
    details: bool,
    /// The lines alone
    #[arg(long)]
    raw: bool,
    /// Don't shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Show ids instead of names
    #[arg(long)]
    no_resolve: bool,
    /// Don't show the tasks' ids
    #[arg(long)]
    no_task_ids: bool,
}

fn tail(text: &str) -> Result<String, String> {
    match text {
        "all" => Ok(text.to_owned()),
        _ => super::values::count::<u64>(text).map(|lines| lines.to_string()),
    }
}

pub async fn logs(args: &Logs, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let of = find(&args.service, client).await?;
    let mut names = Names { nodes: BTreeMap::new(), tasks: BTreeMap::new() };
    if !args.no_resolve {
        for node in items(&client.get("/nodes").await?) {
            names.nodes.insert(text(node, "/ID").to_owned(), text(node, "/Description/Hostname").to_owned());
        }
    }
    let since = args.since.map(|since| since.seconds(console.now())).unwrap_or_default();
    let flag = |set: bool| if set { "1" } else { "0" };
    let mut parameters = vec![
        ("stdout", "1"),
        ("stderr", "1"),
        ("follow", flag(args.follow)),
        ("tail", &args.tail),
        ("timestamps", flag(args.timestamps)),
        ("details", flag(!args.raw || args.details)),
    ];
    if !since.is_empty() {
        parameters.push(("since", &since));
    }
    let mut stream = client.stream(&with_query(&format!("{of}/logs"), &parameters)).await?;
    let mut frames = Frames::default();
    while let Some(bytes) = stream.next().await? {
        if !stream.is_framed() {
            // Of a terminal: nothing says where a line begins.
            console.print(&String::from_utf8_lossy(&bytes))?;
            continue;
        }
        frames.push(&bytes);
        while let Some((stderr, line)) = frames.take() {
            let line = String::from_utf8_lossy(&line).into_owned();
            let line = if args.raw { line } else { names.format(&line, args, client).await };
            if stderr { console.print_to_err(&line) } else { console.print(&line)? }
        }
    }
    Ok(())
}

/// "/services/ID", or "/tasks/ID" where no service is called so.
async fn find(name: &str, client: &Client) -> Result<String, CliError> {
    match client.get(&path(name)).await {
        Ok(found) => Ok(path(text(&found, "/ID"))),
        Err(error) if error.is_not_found() => match client.get(&format!("/tasks/{}", escaped(name))).await {
            Ok(found) => Ok(format!("/tasks/{}", escaped(text(&found, "/ID")))),
            Err(error) if error.is_not_found() => Err(CliError::new(format!("no such task or service: {name}"))
                .hint("see what there is with: peer service ls")),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Docker's frames: the stream's number, three zeros, the length, the text.
#[derive(Default)]
struct Frames(Vec<u8>);

impl Frames {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole frame; true if it was said on stderr.
    fn take(&mut self) -> Option<(bool, Vec<u8>)> {
        let header: [u8; 8] = self.0.get(..8)?.try_into().ok()?;
        let [stream, _, _, _, a, b, c, d] = header;
        let end = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?.checked_add(8)?;
        let text = self.0.get(8..end)?.to_vec();
        self.0.drain(..end);
        Some((stream == 2, text))
    }
}

struct Names {
    nodes: BTreeMap<String, String>,
    /// What stands before a line, by the task's id.
    tasks: BTreeMap<String, String>,
}

impl Names {
    /// "[time ]web.1.5x2yxqyuz0ip@node1    | [details ]the line".
    async fn format(&mut self, line: &str, args: &Logs, client: &Client) -> String {
        let (time, line) = match line.split_once(' ') {
            Some((time, line)) if args.timestamps => (format!("{time} "), line),
            _ => (String::new(), line),
        };
        let (details, message) = line.split_once(' ').unwrap_or(("", line));
        let pairs = details.split(',').filter_map(|pair| pair.split_once('='));
        let (own, shown): (Vec<_>, Vec<_>) = pairs.partition(|(key, _)| key.starts_with("com.docker.swarm."));
        let of = |what: &str| own.iter().find(|(key, _)| key.ends_with(what)).map_or("", |(_, value)| *value);
        let (task, node) = (of("task.id"), of("node.id"));
        if !self.tasks.contains_key(task) {
            let name = self.name(task, node, args, client).await;
            self.tasks.insert(task.to_owned(), name);
        }
        let name = self.tasks.get(task).map_or(task, String::as_str);
        let shown: Vec<String> = shown.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let details = if args.details && !shown.is_empty() { format!("{} ", shown.join(",")) } else { String::new() };
        format!("{time}{name}    | {details}{message}")
    }

    async fn name(&self, id: &str, node: &str, args: &Logs, client: &Client) -> String {
        // It may have gone since it said that: then its id must do.
        let task = client.get(&format!("/tasks/{}", escaped(id))).await.unwrap_or(Value::Null);
        let service = text(&task, "/ServiceID");
        let service = match client.get(&path(service)).await {
            Ok(found) if !args.no_resolve && !service.is_empty() => text(&found, "/Spec/Name").to_owned(),
            _ => service.to_owned(),
        };
        let slot = match number(&task, "/Slot") {
            0 => node.to_owned(),
            slot => slot.to_string(),
        };
        let mut name = if service.is_empty() { String::new() } else { format!("{service}.{slot}") };
        if !args.no_task_ids || name.is_empty() {
            let dot = if name.is_empty() { "" } else { "." };
            name = format!("{name}{dot}{}", short(id, args.no_trunc));
        }
        format!("{name}@{}", self.nodes.get(node).filter(|name| !name.is_empty()).map_or(node, String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_pieces() {
        let mut frames = Frames::default();
        let bytes = b"\x01\0\0\0\0\0\0\x03hi\n\x02\0\0\0\0\0\0\x04no!\n";
        let mut seen = Vec::new();
        for byte in bytes {
            frames.push(&[*byte]);
            seen.extend(frames.take());
        }
        assert_eq!(seen, [(false, b"hi\n".to_vec()), (true, b"no!\n".to_vec())]);
    }

    #[test]
    fn times_are_read_as_docker_reads_them() {
        let now = "2026-11-22T20:26:09Z".parse().unwrap();
        let seconds = |text: &str| since(text).map(|since| since.seconds(now));
        assert_eq!(seconds("9s").unwrap(), "1795379160.000000000");
        assert_eq!(seconds("2026-11-22T20:26:00Z").unwrap(), "1795379160.000000000");
        assert_eq!(seconds("1795379160.5").unwrap(), "1795379160.500000000");
        assert!(seconds("yesterday").is_err());
        assert!(tail("few").unwrap_err().contains("whole number"));
    }
}
