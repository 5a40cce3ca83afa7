//! `peer node inspect`: the agent's JSON to the letter, or as docker lays it out for people.

use super::{missing, path};
use crate::cli::client::Client;
use crate::cli::console::Console;
use crate::cli::error::CliError;
use crate::cli::go::{capital, long_time, size};
use crate::cli::json::{flag, is_there, list, number, pairs, text};
use crate::cli::service::{Shape, one_error, show};
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

const EXAMPLES: &str = "\
Examples:
  peer node inspect self
  peer node inspect --pretty node4
  peer node inspect --format '{{.Status.Addr}}' node4";

/// Show everything about nodes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    /// By host name or id, or `self`; this one if none is named
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// For people, not for programs
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    /// json, or a template as '{{.Status.Addr}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub async fn inspect(args: &Inspect, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let myself = ["self".to_owned()];
    let asked = if args.nodes.is_empty() { &myself[..] } else { &args.nodes };
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for node in asked {
        match client.get_text(&path(node)).await {
            Ok(text) => found.push(text),
            Err(error) if error.is_not_found() => failed.push(missing(node)),
            Err(error) => return Err(error.into()),
        }
    }
    let shape = if args.pretty { Shape::Pretty(pretty) } else { Shape::of(args.format.as_deref()) };
    show(&found, shape, console)?;
    one_error(failed)
}

fn pretty(node: &Value, _now: Timestamp) -> String {
    let mut page = Vec::new();
    page.push(format!("ID:\t\t\t{}", text(node, "/ID")));
    labels(&mut page, "Labels:", &pairs(node, "/Spec/Labels"));
    page.push(format!("Hostname:              \t{}", text(node, "/Description/Hostname")));
    page.push(format!("Joined at:             \t{}", long_time(text(node, "/CreatedAt"))));
    status(&mut page, node);
    if is_there(node, "/ManagerStatus") {
        page.push("Manager Status:".to_owned());
        page.push(format!(" Address:\t\t{}", text(node, "/ManagerStatus/Addr")));
        page.push(format!(" Raft Status:\t\t{}", capital(text(node, "/ManagerStatus/Reachability"))));
        page.push(format!(" Leader:\t\t{}", if flag(node, "/ManagerStatus/Leader") { "Yes" } else { "No" }));
    }
    description(&mut page, node);
    tls(&mut page, node);
    page.join("\n") + "\n"
}

fn labels(page: &mut Vec<String>, title: &str, labels: &[(&str, &str)]) {
    if !labels.is_empty() {
        page.push(title.to_owned());
    }
    page.extend(
        labels
            .iter()
            .map(|(key, value)| if value.is_empty() { format!(" - {key}") } else { format!(" - {key}={value}") }),
    );
}

fn status(page: &mut Vec<String>, node: &Value) {
    page.push("Status:".to_owned());
    page.push(format!(" State:\t\t\t{}", capital(text(node, "/Status/State"))));
    if !text(node, "/Status/Message").is_empty() {
        page.push(format!(" Message:              \t{}", text(node, "/Status/Message")));
    }
    page.push(format!(" Availability:         \t{}", capital(text(node, "/Spec/Availability"))));
    if !text(node, "/Status/Addr").is_empty() {
        page.push(format!(" Address:\t\t{}", text(node, "/Status/Addr")));
    }
}

fn description(page: &mut Vec<String>, node: &Value) {
    page.push("Platform:".to_owned());
    page.push(format!(" Operating System:\t{}", text(node, "/Description/Platform/OS")));
    page.push(format!(" Architecture:\t\t{}", text(node, "/Description/Platform/Architecture")));
    page.push("Resources:".to_owned());
    page.push(format!(" CPUs:\t\t\t{}", number(node, "/Description/Resources/NanoCPUs") / 1_000_000_000));
    let memory = number(node, "/Description/Resources/MemoryBytes");
    page.push(format!(" Memory:\t\t{}", if memory == 0 { String::new() } else { size(memory) }));
    let mut plugins: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for plugin in list(node, "/Description/Engine/Plugins") {
        plugins.entry(text(plugin, "/Type")).or_default().push(text(plugin, "/Name"));
    }
    if !plugins.is_empty() {
        page.push("Plugins:".to_owned());
    }
    page.extend(plugins.iter().map(|(kind, names)| format!(" {kind}:\t\t{}", names.join(", "))));
    page.push(format!("Engine Version:\t\t{}", text(node, "/Description/Engine/EngineVersion")));
    labels(page, "Engine Labels:", &pairs(node, "/Description/Engine/Labels"));
}

fn tls(page: &mut Vec<String>, node: &Value) {
    let info = |key: &str| text(node, &format!("/Description/TLSInfo/{key}"));
    let (root, subject, key) = (info("TrustRoot"), info("CertIssuerSubject"), info("CertIssuerPublicKey"));
    if root.is_empty() && subject.is_empty() && key.is_empty() {
        return;
    }
    page.push("TLS Info:".to_owned());
    page.push(format!(" TrustRoot:\n{root}"));
    page.push(format!(" Issuer Subject:\t{subject}"));
    page.push(format!(" Issuer Public Key:\t{key}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn pretty_is_as_docker_lays_it_out() {
        assert_eq!(pretty(&fixtures::node_self(), Timestamp::UNIX_EPOCH), fixtures::NODE_PRETTY);
    }
}
