//! `peer events`: what happens in the cluster and in this node's engine, as docker prints it.

use super::client::{Client, with_query};
use super::console::Console;
use super::error::CliError;
use super::go::{Since, since};
use super::json::{number, text};
use super::list::{filters, key_value};
use super::template;
use clap::Args;
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  peer events                                  the cluster's, and those of this node's engine
  peer events --filter scope=swarm             the cluster's alone
  peer events --filter type=rollout --filter service=web
  peer events --since 10m --until 0s           the last ten minutes, as far as they are kept
  peer events --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}'";

/// One event; an engine's with all its labels.
const MAX_LINE_BYTES: usize = 2 * 1024 * 1024;

/// Show what happens, as it happens
///
/// A node keeps the last 2,048 events that it saw since its agent started; --since looks back on those.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EventsArgs {
    /// Show only what matches: type=node|service|task|rollout|lease|..., event=, service=, node=, scope=swarm|local
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    filter: Vec<(String, String)>,
    /// Begin with what is younger: 10m, or a time as 2026-11-22T20:26:09Z, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// End there
    #[arg(long, value_name = "TIME", value_parser = since)]
    until: Option<Since>,
    /// json, or a template as '{{.Type}} {{.Action}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

pub async fn events(args: &EventsArgs, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let filters = filters(&args.filter).unwrap_or_default();
    let seconds = |time: Option<Since>| time.map(|time| time.seconds(console.now())).unwrap_or_default();
    let (since, until) = (seconds(args.since), seconds(args.until));
    let given = [("filters", filters.as_str()), ("since", &since), ("until", &until)];
    let parameters: Vec<(&str, &str)> = given.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let mut lines = Lines::open(client, &with_query("/events", &parameters)).await?;
    while let Some(event) = lines.next().await? {
        let line = match args.format.as_deref() {
            None | Some("") => plain(&event),
            Some("json") => event.to_string(),
            Some(format) => template::render(format, &fields(&event))?,
        };
        console.line(&line)?;
    }
    Ok(())
}

/// A stream of JSON values, one a line.
pub struct Lines {
    stream: super::client::Stream,
    begun: Vec<u8>,
}

impl Lines {
    pub async fn open(client: &Client, path: &str) -> Result<Self, CliError> {
        Ok(Self { stream: client.stream(path).await?, begun: Vec::new() })
    }

    /// Nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Value>, CliError> {
        loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                let garbled = |error: serde_json::Error| CliError::new(format!("an event makes no sense: {error}"));
                return serde_json::from_slice(&line).map(Some).map_err(garbled);
            }
            if self.begun.len() > MAX_LINE_BYTES {
                return Err(CliError::new(format!("an event has more than {MAX_LINE_BYTES} bytes (MAX_LINE_BYTES)")));
            }
            match self.stream.next().await? {
                Some(bytes) => self.begun.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

/// "2026-11-22T20:37:27.953532810Z service update 5x2yxqyuz0ip (name=web, replicas.new=3)".
fn plain(event: &Value) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(number(event, "/timeNano"))).unwrap_or_default();
    let mut line = format!("{at:.9} {} {} {}", text(event, "/Type"), text(event, "/Action"), text(event, "/Actor/ID"));
    let attributes = event.pointer("/Actor/Attributes").and_then(Value::as_object);
    // A map of JSON is ordered by name here.
    let pairs =
        attributes.into_iter().flatten().map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or("")));
    let pairs: Vec<String> = pairs.collect();
    if !pairs.is_empty() {
        line.push_str(&format!(" ({})", pairs.join(", ")));
    }
    line
}

/// Under the names of Go's fields, which templates use.
fn fields(event: &Value) -> Value {
    let of = |name: &str| event.get(name).cloned().unwrap_or(Value::Null);
    json!({
        "Type": of("Type"), "Action": of("Action"), "Actor": of("Actor"), "Scope": of("scope"), "Time": of("time"),
        "TimeNano": of("timeNano"), "Status": of("status"), "ID": of("id"), "From": of("from"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeAgent, console};

    fn event() -> Value {
        json!({
            "Type": "service", "Action": "update", "scope": "swarm", "time": 1_795_379_847u64,
            "timeNano": 1_795_379_847_953_532_810u64,
            "Actor": { "ID": "5x2y", "Attributes": { "name": "web", "image.new": "web:2" } },
        })
    }

    async fn printed(args: EventsArgs) -> (Result<(), CliError>, String, Vec<String>) {
        let agent = FakeAgent::start(|_| (200, crate::cli::testing::lines(&[event(), event()])));
        let (mut console, out, _) = console(false);
        console.set_now("2026-11-22T20:26:09Z");
        let result = events(&args, &agent.client(), &mut console).await;
        (result, out.text(), agent.asked())
    }

    fn args(format: Option<&str>) -> EventsArgs {
        EventsArgs { filter: Vec::new(), since: None, until: None, format: format.map(str::to_owned) }
    }

    #[tokio::test]
    async fn events_are_printed_as_docker_prints_them() {
        let line = "2026-11-22T20:37:27.953532810Z service update 5x2y (image.new=web:2, name=web)\n";
        let (result, out, asked) = printed(args(None)).await;
        result.unwrap();
        assert_eq!((out, asked), (line.repeat(2), vec!["GET /events".to_owned()]));
        let (_, out, _) = printed(args(Some("{{.Type}}/{{.Scope}} {{.Actor.Attributes.name}}"))).await;
        assert_eq!(out, "service/swarm web\n".repeat(2));
        let (_, out, _) = printed(args(Some("json"))).await;
        assert_eq!(serde_json::from_str::<Value>(out.lines().next().unwrap()).unwrap(), event());
    }

    #[tokio::test]
    async fn filters_and_times_are_handed_on() {
        let asked_for = EventsArgs {
            filter: vec![("type".to_owned(), "task".to_owned())],
            since: Some(since("9s").unwrap()),
            until: Some(since("0s").unwrap()),
            format: None,
        };
        let (_, _, asked) = printed(asked_for).await;
        let filters = r#"{"type":{"task":true}}"#;
        assert_eq!(
            asked,
            [format!("GET /events?filters={filters}&since=1795379160.000000000&until=1795379169.000000000")]
        );
    }
}
