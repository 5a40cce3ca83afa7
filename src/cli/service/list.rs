//! `peer service ls`.

use super::image::familiar;
use super::ports::options_of;
use crate::cli::client::{Client, with_query};
use crate::cli::console::Console;
use crate::cli::error::CliError;
use crate::cli::json::{is_there, items, list, number, pending, text};
use crate::cli::list::{self as listing, ListArgs, Row, short};
use crate::cli::table::natural;
use clap::Args;
use serde_json::Value;

const EXAMPLES: &str = "\
Examples:
  peer service ls
  peer service ls --filter name=web --filter label=tier=front
  peer service ls --format '{{.Name}} {{.Replicas}}'";

/// List services
#[derive(Debug, Args)]
#[command(visible_alias = "list", after_help = EXAMPLES)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
}

const HEADER: [&str; 6] = ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"];
const FIELDS: [&str; 6] = ["ID", "Name", "Mode", "Replicas", "Image", "Ports"];

pub async fn ls(args: &Ls, client: &Client, console: &mut Console) -> Result<(), CliError> {
    show(&args.list, &[], client, console).await
}

/// `also`: filters beside those that were said.
pub async fn show(
    args: &ListArgs,
    also: &[(String, String)],
    client: &Client,
    console: &mut Console,
) -> Result<(), CliError> {
    let filters = listing::filters(&[&args.filter, also].concat());
    let mut parameters = vec![("status", "true")];
    parameters.extend(filters.as_deref().map(|filters| ("filters", filters)));
    let answer = client.get(&with_query("/services", &parameters)).await?;
    let mut services: Vec<&Value> = items(&answer).iter().collect();
    services.sort_by(|a, b| natural(text(a, "/Spec/Name"), text(b, "/Spec/Name")));
    let rows = services.iter().map(|service| row(service, args.no_trunc)).collect();
    listing::show(args, &HEADER, rows, console)?;
    for service in &services {
        if let Some(why) = pending(service) {
            console.note(&format!("note: {} is pending: {why}", text(service, "/Spec/Name")));
        }
    }
    Ok(())
}

fn row(service: &Value, no_trunc: bool) -> Row {
    let id = short(text(service, "/ID"), no_trunc);
    let image = text(service, "/Spec/TaskTemplate/ContainerSpec/Image");
    let image = if no_trunc { image.to_owned() } else { familiar(image) };
    let cells = vec![
        id.clone(),
        text(service, "/Spec/Name").to_owned(),
        mode(service).to_owned(),
        replicas(service),
        image,
        ports(service),
    ];
    let mut row = Row::new(id, &FIELDS, cells);
    if let Some(why) = pending(service) {
        row.fields.insert("Pending".to_owned(), why.into());
    }
    row
}

pub fn mode(service: &Value) -> &'static str {
    let modes = [
        ("Global", "global"),
        ("Replicated", "replicated"),
        ("ReplicatedJob", "replicated job"),
        ("GlobalJob", "global job"),
    ];
    let found = modes.iter().find(|(key, _)| is_there(service, &format!("/Spec/Mode/{key}")));
    found.map_or("", |(_, shown)| shown)
}

fn replicas(service: &Value) -> String {
    let status = |key: &str| number(service, &format!("/ServiceStatus/{key}"));
    let (desired, completed) = (status("DesiredTasks"), status("CompletedTasks"));
    let mut shown = format!("{}/{desired}", status("RunningTasks"));
    match mode(service) {
        "replicated job" => {
            let total = number(service, "/Spec/Mode/ReplicatedJob/TotalCompletions");
            shown.push_str(&format!(" ({completed}/{total} completed)"));
        }
        "global job" => shown.push_str(&format!(" ({completed}/{} completed)", desired + completed)),
        _ => {}
    }
    let max = number(service, "/Spec/TaskTemplate/Placement/MaxReplicas");
    if max > 0 && mode(service) == "replicated" {
        shown.push_str(&format!(" (max {max} per node)"));
    }
    if pending(service).is_some() {
        shown.push_str(" (pending)");
    }
    shown
}

/// A run of ports, growing while both sides go on by one (or the target stays the same).
struct Run {
    protocol: String,
    options: String,
    published: (u64, u64),
    target: (u64, u64),
}

impl Run {
    fn takes(&self, published: u64, target: u64, protocol: &str, options: &str) -> bool {
        let one_target = self.target.0 == self.target.1;
        let width = self.published.1 - self.published.0;
        let same_target = one_target && target == self.target.1;
        let next_target = target == self.target.1 + 1 && (width == 0 || !one_target);
        (self.protocol == protocol && self.options == options)
            && published == self.published.1 + 1
            && (same_target || next_target)
    }

    fn shown(&self) -> String {
        let side = |(first, last): (u64, u64)| if last > first { format!("{first}-{last}") } else { first.to_string() };
        let options = if self.options.is_empty() { String::new() } else { format!(" [{}]", self.options) };
        format!("*:{}->{}/{}{options}", side(self.published), side(self.target), self.protocol)
    }
}

/// The mesh's ports, neighbours drawn together: `*:80-81->80-81/tcp`, with what they ask of the mesh.
fn ports(service: &Value) -> String {
    let port = |port: &Value| {
        (text(port, "/Protocol").to_owned(), number(port, "/PublishedPort"), number(port, "/TargetPort"))
    };
    let ingress = list(service, "/Endpoint/Ports").iter().filter(|port| text(port, "/PublishMode") == "ingress");
    let mut ports: Vec<(String, u64, u64)> = ingress.map(port).collect();
    ports.sort();
    let mut runs: Vec<Run> = Vec::new();
    for (protocol, published, target) in ports {
        let options = options_of(service, published, target).unwrap_or_default();
        match runs.last_mut().filter(|run| run.takes(published, target, &protocol, &options)) {
            Some(run) => (run.published.1, run.target.1) = (published, target),
            None => runs.push(Run { protocol, options, published: (published, published), target: (target, target) }),
        }
    }
    runs.iter().map(Run::shown).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;
    use crate::cli::testing::{FakeAgent, console};
    use serde_json::json;

    async fn printed(services: Value, args: &[&str]) -> (String, String) {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            ls: Ls,
        }
        let agent = FakeAgent::start(move |_| (200, services.clone()));
        let (mut console, out, err) = console(false);
        let args: Only = clap::Parser::parse_from(std::iter::once(&"ls").chain(args));
        ls(&args.ls, &agent.client(), &mut console).await.unwrap();
        (out.text(), err.text())
    }

    #[tokio::test]
    async fn it_looks_as_docker_prints_it() {
        let (out, _) = printed(fixtures::services_two(), &[]).await;
        assert_eq!(out, fixtures::SERVICE_LS_TWO);
        let (out, _) = printed(json!([fixtures::service_greeters()]), &[]).await;
        assert_eq!(out, fixtures::SERVICE_LS);
        assert_eq!(printed(json!([]), &[]).await.0, "ID        NAME      MODE      REPLICAS   IMAGE     PORTS\n");
    }

    #[tokio::test]
    async fn a_write_that_no_majority_holds_is_marked() {
        let mut service = fixtures::service_greeters();
        service["PeerPending"] = json!("pending: held by 1 of 5 nodes");
        let (out, err) = printed(json!([service]), &["--format", "{{.Name}} {{.Replicas}}"]).await;
        assert_eq!(out, "greeters 1/1 (pending)\n");
        assert_eq!(err, "note: greeters is pending: held by 1 of 5 nodes\n");
    }

    #[tokio::test]
    async fn ids_and_json() {
        let services = || json!([fixtures::service_greeters()]);
        assert_eq!(printed(services(), &["-q"]).await.0, "6i7dqo2au2r1\n");
        let (out, _) = printed(services(), &["--format", "json"]).await;
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["Ports"], "*:9000->5000/tcp");
    }

    #[test]
    fn neighbouring_ports_are_drawn_together() {
        let ports = |list: &[(u64, u64)]| {
            let port = |(published, target): &(u64, u64)| json!({ "Protocol": "tcp", "PublishedPort": published, "TargetPort": target, "PublishMode": "ingress" });
            super::ports(&json!({ "Endpoint": { "Ports": list.iter().map(port).collect::<Vec<_>>() } }))
        };
        assert_eq!(ports(&[(80, 80), (81, 81)]), "*:80-81->80-81/tcp");
        assert_eq!(ports(&[(80, 80), (81, 80)]), "*:80-81->80/tcp");
        assert_eq!(ports(&[(80, 80), (81, 81), (82, 80)]), "*:80-81->80-81/tcp, *:82->80/tcp");
        assert_eq!(ports(&[(443, 8443), (80, 8080)]), "*:80->8080/tcp, *:443->8443/tcp");
        let http = json!({
            "Spec": { "Labels": { "peer.port.81": "protocol=http" } },
            "Endpoint": { "Ports": [
                { "Protocol": "tcp", "PublishedPort": 80, "TargetPort": 80, "PublishMode": "ingress" },
                { "Protocol": "tcp", "PublishedPort": 81, "TargetPort": 81, "PublishMode": "ingress" },
            ] },
        });
        assert_eq!(super::ports(&http), "*:80->80/tcp, *:81->81/tcp [protocol=http]");
    }
}
