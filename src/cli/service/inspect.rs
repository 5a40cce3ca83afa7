//! `peer service inspect`: the agent's JSON to the letter, or with `--pretty` as docker lays it out for people.

use super::path;
use super::ports::options_of;
use crate::cli::client::{Client, no_such, with_query};
use crate::cli::console::Console;
use crate::cli::error::CliError;
use crate::cli::go;
use crate::cli::json::{flag, indented, is_there, list, number, pairs, pending, text, texts};
use crate::cli::template;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;
use std::fmt::Write;

const EXAMPLES: &str = "\
Examples:
  peer service inspect web
  peer service inspect --pretty web
  peer service inspect --format '{{.Spec.Mode.Replicated.Replicas}}' web";

/// Show everything about services
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
    /// For people, not for programs
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    /// json, or a template as '{{.Spec.Name}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub async fn inspect(args: &Inspect, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for service in &args.services {
        match client.get_text(&with_query(&path(service), &[("insertDefaults", "true")])).await {
            Ok(text) => found.push(text),
            Err(error) if error.is_not_found() => {
                failed.push(no_such("service", service));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let shown = if args.pretty { Shape::Pretty(pretty) } else { Shape::of(args.format.as_deref()) };
    show(&found, shown, console)?;
    super::one_error(failed)
}

/// How `inspect` commands print what they found.
pub enum Shape<'a> {
    Json,
    JsonLines,
    Template(&'a str),
    Pretty(fn(&Value, Timestamp) -> String),
}

impl<'a> Shape<'a> {
    pub fn of(format: Option<&'a str>) -> Self {
        match format {
            None | Some("") => Shape::Json,
            Some("json") => Shape::JsonLines,
            Some(template) => Shape::Template(template),
        }
    }
}

/// What a service may do without, and its JSON then leaves out: a template is told so, and not that there is no such field.
const OPTIONAL: [&str; 4] = ["PreviousSpec", "UpdateStatus", "JobStatus", "ServiceStatus"];

fn whole(mut value: Value) -> Value {
    if let Some(service) = value.as_object_mut().filter(|object| object.contains_key("Endpoint")) {
        for name in OPTIONAL {
            service.entry(name).or_insert(Value::Null);
        }
    }
    value
}

/// `found` are the agent's answers as they came.
pub fn show(found: &[String], shape: Shape<'_>, console: &mut Console) -> Result<(), CliError> {
    let values = found.iter().map(|text| serde_json::from_str::<Value>(text).unwrap_or(Value::Null));
    match shape {
        Shape::Json => console.line(&indented(&format!("[{}]", found.join(",")))),
        Shape::JsonLines => found.iter().try_for_each(|text| console.line(text.trim())),
        Shape::Template(template) => {
            values.map(|value| template::render(template, &whole(value))).try_for_each(|line| console.line(&line?))
        }
        Shape::Pretty(pretty) => values
            .map(|value| pretty(&value, console.now()))
            .collect::<Vec<_>>()
            .iter()
            .try_for_each(|p| console.print(p)),
    }
}

/// Writing to a String can't fail, so the results of `write!` are dropped here.
struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn field(&mut self, label: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{label}{value}");
    }

    /// Only if there is something.
    fn some(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.field(label, value);
        }
    }
}

fn pretty(service: &Value, now: Timestamp) -> String {
    let mut page = Page("\n".to_owned());
    page.field("ID:\t\t", text(service, "/ID"));
    page.field("Name:\t\t", text(service, "/Spec/Name"));
    page.some("Pending:\t", pending(service).unwrap_or_default());
    map(&mut page, "Labels:", " ", "=", &pairs(service, "/Spec/Labels"));
    if is_there(service, "/Spec/Mode/Global") {
        page.line("Service Mode:\tGlobal");
    } else if is_there(service, "/Spec/Mode/GlobalJob") {
        page.line("Service Mode:\tGlobal Job");
    } else if is_there(service, "/Spec/Mode/ReplicatedJob") {
        page.line("Service Mode:\tReplicated Job");
        page.field(" Max Concurrent:\t", number(service, "/Spec/Mode/ReplicatedJob/MaxConcurrent"));
        page.field(" Total Completions:\t", number(service, "/Spec/Mode/ReplicatedJob/TotalCompletions"));
    } else {
        page.line("Service Mode:\tReplicated");
        page.field(
            " Replicas:\t",
            service.pointer("/Spec/Mode/Replicated/Replicas").and_then(Value::as_u64).unwrap_or(1),
        );
    }
    update_status(&mut page, service, now);
    placement(&mut page, service);
    pace(&mut page, service, "Update");
    pace(&mut page, service, "Rollback");
    container(&mut page, service);
    kernel(&mut page, service);
    mounts(&mut page, service);
    log_driver(&mut page, service);
    resources(&mut page, service);
    page.field("Endpoint Mode:\t", text(service, "/Spec/EndpointSpec/Mode"));
    ports(&mut page, service);
    health(&mut page, service);
    page.0.push('\n');
    page.0
}

fn map(page: &mut Page, title: &str, indent: &str, between: &str, pairs: &[(&str, &str)]) {
    if pairs.is_empty() {
        return;
    }
    page.line(title);
    for (key, value) in pairs {
        if value.is_empty() {
            page.line(&format!("{indent}{key}"))
        } else {
            page.line(&format!("{indent}{key}{between}{value}"))
        }
    }
}

fn update_status(page: &mut Page, service: &Value, now: Timestamp) {
    let state = text(service, "/UpdateStatus/State");
    if state.is_empty() {
        return;
    }
    page.line("UpdateStatus:");
    page.field(" State:\t\t", state);
    if is_there(service, "/UpdateStatus/StartedAt") {
        page.field(" Started:\t", go::ago(text(service, "/UpdateStatus/StartedAt"), now));
    }
    if state == "completed" && is_there(service, "/UpdateStatus/CompletedAt") {
        page.field(" Completed:\t", go::ago(text(service, "/UpdateStatus/CompletedAt"), now));
    }
    page.field(" Message:\t", text(service, "/UpdateStatus/Message"));
}

fn bracketed(texts: &[impl AsRef<str>]) -> String {
    if texts.is_empty() {
        return String::new();
    }
    format!("[{}]", texts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" "))
}

fn placement(page: &mut Page, service: &Value) {
    let at = "/Spec/TaskTemplate/Placement";
    page.line("Placement:");
    page.some(" Constraints:\t", &bracketed(&texts(service, &format!("{at}/Constraints"))));
    let preferences = list(service, &format!("{at}/Preferences")).iter();
    let spread: Vec<String> = preferences.map(|p| format!("spread={}", text(p, "/Spread/SpreadDescriptor"))).collect();
    page.some(" Preferences:   ", &bracketed(&spread));
    match number(service, &format!("{at}/MaxReplicas")) {
        0 => {}
        max => page.field(" Max Replicas Per Node:   ", max),
    }
}

/// `which`: Update or Rollback.
fn pace(page: &mut Page, service: &Value, which: &str) {
    let Some(config) = service.pointer(&format!("/Spec/{which}Config")).filter(|config| config.is_object()) else {
        return;
    };
    page.line(&format!("{which}Config:"));
    page.field(" Parallelism:\t", number(config, "/Parallelism"));
    if number(config, "/Delay") > 0 {
        page.field(" Delay:\t\t", go::duration(number(config, "/Delay")));
    }
    page.field(" On failure:\t", text(config, "/FailureAction"));
    if number(config, "/Monitor") > 0 {
        page.field(" Monitoring Period: ", go::duration(number(config, "/Monitor")));
    }
    page.field(" Max failure ratio: ", config.get("MaxFailureRatio").and_then(Value::as_f64).unwrap_or_default());
    let order = text(config, "/Order");
    page.line(&format!(" {:<18} {order}", format!("{which} order:")));
}

fn container(page: &mut Page, service: &Value) {
    let spaced = |texts: Vec<&str>| texts.iter().map(|text| format!("{text} ")).collect::<String>();
    let at = |key: &str| format!("/Spec/TaskTemplate/ContainerSpec/{key}");
    page.line("ContainerSpec:");
    page.field(" Image:\t\t", text(service, &at("Image")));
    page.some(" Args:\t\t", &spaced(texts(service, &at("Args"))));
    page.some(" Env:\t\t", &spaced(texts(service, &at("Env"))));
    page.some(" Dir:\t\t", text(service, &at("Dir")));
    if is_there(service, &at("Init")) {
        page.field(" Init:\t\t", flag(service, &at("Init")));
    }
    page.some(" User: ", text(service, &at("User")));
}

fn kernel(page: &mut Page, service: &Value) {
    let at = |key: &str| format!("/Spec/TaskTemplate/ContainerSpec/{key}");
    let (add, drop) = (texts(service, &at("CapabilityAdd")), texts(service, &at("CapabilityDrop")));
    if !add.is_empty() || !drop.is_empty() {
        page.line("Capabilities:");
        page.some(" Add: ", &add.join(", "));
        page.some(" Drop: ", &drop.join(", "));
    }
    map(page, "SysCtls:", " ", ": ", &pairs(service, &at("Sysctls")));
    let limit = |limit: &Value, key: &str| limit.get(key).and_then(Value::as_i64).unwrap_or_default();
    let ulimits = list(service, &at("Ulimits"));
    if !ulimits.is_empty() {
        page.line("Ulimits:");
        for entry in ulimits {
            page.line(&format!(" {}: {}:{}", text(entry, "/Name"), limit(entry, "Soft"), limit(entry, "Hard")));
        }
    }
}

fn mounts(page: &mut Page, service: &Value) {
    let at = |key: &str| format!("/Spec/TaskTemplate/ContainerSpec/{key}");
    let mounts = list(service, &at("Mounts"));
    if !mounts.is_empty() {
        page.line("Mounts:");
    }
    for mount in mounts {
        page.field(" Target:\t", text(mount, "/Target"));
        page.field("  Source:\t", text(mount, "/Source"));
        page.field("  ReadOnly:\t", flag(mount, "/ReadOnly"));
        page.field("  Type:\t\t", text(mount, "/Type"));
    }
    for (title, key, name) in [("Configs:", "Configs", "/ConfigName"), ("Secrets:", "Secrets", "/SecretName")] {
        let references = list(service, &at(key));
        if !references.is_empty() {
            page.line(title);
        }
        for reference in references {
            page.field(" Target:\t", text(reference, "/File/Name"));
            page.field("  Source:\t", text(reference, name));
        }
    }
}

fn log_driver(page: &mut Page, service: &Value) {
    let at = "/Spec/TaskTemplate/LogDriver";
    if !is_there(service, at) {
        return;
    }
    page.line("Log Driver:");
    page.some(" Name:\t\t", text(service, &format!("{at}/Name")));
    map(page, " LogOpts:", "  ", ":       ", &pairs(service, &format!("{at}/Options")));
    page.line("");
}

fn resources(page: &mut Page, service: &Value) {
    let at = "/Spec/TaskTemplate/Resources";
    if is_there(service, at) {
        page.line("Resources:");
    }
    for kind in ["Reservations", "Limits"] {
        let value = |key: &str| number(service, &format!("{at}/{kind}/{key}"));
        let (cpus, memory, pids) = (value("NanoCPUs"), value("MemoryBytes"), value("Pids"));
        if cpus > 0 || memory > 0 || pids > 0 {
            page.line(&format!(" {kind}:"));
        }
        if cpus > 0 {
            #[allow(clippy::cast_precision_loss)]
            page.field("  CPU:\t\t", cpus as f64 / 1e9);
        }
        if memory > 0 {
            page.field("  Memory:\t", go::size(memory));
        }
        if pids > 0 {
            page.field("  PIDs:\t\t", pids);
        }
    }
}

/// A last blank where docker's template has one.
fn ports(page: &mut Page, service: &Value) {
    let ports = list(service, "/Endpoint/Ports");
    if ports.is_empty() {
        return;
    }
    page.line("Ports:");
    for port in ports {
        page.field(" PublishedPort = ", number(port, "/PublishedPort"));
        page.field("  Protocol = ", text(port, "/Protocol"));
        page.field("  TargetPort = ", number(port, "/TargetPort"));
        page.field("  PublishMode = ", text(port, "/PublishMode"));
        let (published, target) = (number(port, "/PublishedPort"), number(port, "/TargetPort"));
        page.some("  Options = ", &options_of(service, published, target).unwrap_or_default());
    }
    page.0.pop();
    page.line(" ");
}

fn health(page: &mut Page, service: &Value) {
    let Some(check) = service.pointer("/Spec/TaskTemplate/ContainerSpec/Healthcheck").filter(|c| c.is_object()) else {
        return;
    };
    let period = |key: &str| go::duration(number(check, key));
    // Behind the ports docker's template has lost the line's end.
    if page.0.ends_with(" \n") {
        page.0.pop();
        page.0.push('\n');
    }
    page.line(" Healthcheck:");
    page.field("  Interval = ", period("/Interval"));
    page.field("  Retries = ", number(check, "/Retries"));
    page.field("  StartPeriod =\t", period("/StartPeriod"));
    page.field("  Timeout =\t", period("/Timeout"));
    let test = texts(check, "/Test");
    if !test.is_empty() {
        page.line("  Tests:");
        test.iter().for_each(|word| page.field("\t Test = ", word));
        page.0.pop();
        page.line(" ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;
    use crate::cli::testing::{FakeAgent, console};
    use serde_json::json;

    fn args(services: &[&str], pretty: bool) -> Inspect {
        Inspect { services: services.iter().map(ToString::to_string).collect(), pretty, format: None }
    }

    #[tokio::test]
    async fn pretty_is_as_docker_lays_it_out() {
        let agent = FakeAgent::start(|request| {
            assert_eq!(request.path, "/services/greeters?insertDefaults=true");
            (200, fixtures::service_updated())
        });
        let (mut console, out, _) = console(false);
        console.set_now("2026-11-22T20:36:15.5Z");
        inspect(&args(&["greeters"], true), &agent.client(), &mut console).await.unwrap();
        assert_eq!(out.text(), fixtures::SERVICE_PRETTY);
    }

    #[tokio::test]
    async fn a_template_may_ask_for_what_a_service_does_without() {
        let agent = FakeAgent::start(|_| (200, json!({ "ID": "1", "Endpoint": {} })));
        let (mut console, out, _) = console(false);
        let format = Some("{{json .UpdateStatus}}".to_owned());
        let args = Inspect { format, ..args(&["web"], false) };
        inspect(&args, &agent.client(), &mut console).await.unwrap();
        assert_eq!(out.text(), "null\n");
    }

    #[tokio::test]
    async fn a_missing_one_doesnt_hide_the_others() {
        let agent = FakeAgent::start(|request| match request.path.as_str() {
            "/services/web?insertDefaults=true" => (200, json!({ "ID": "1" })),
            _ => (404, json!({ "message": "service missing not found" })),
        });
        let (mut console, out, _) = console(false);
        let error = inspect(&args(&["missing", "web"], false), &agent.client(), &mut console).await.unwrap_err();
        assert_eq!(out.text(), "[\n    {\n        \"ID\": \"1\"\n    }\n]\n");
        assert_eq!((error.message(), error.code()), ("no such service: missing", 1));
    }
}
