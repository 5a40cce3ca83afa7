//! `peer secret` and `peer config`: docker's commands with docker's flags and tables, and `update`, which docker hasn't:
//! new content, to which the services that use it are rolled by their update policy.

use super::client::{Client, escaped, no_such, with_query};
use super::console::Console;
use super::error::CliError;
use super::go::{ago, long_time};
use super::json::{items, pairs, text};
use super::list::{self, ListArgs, Row};
use super::progress::{self, Doing, Limits};
use super::service::{Shape, one_error, pair, show, tell_warnings};
use super::table::natural;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Secret,
    Config,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Kind::Secret => "secret",
            Kind::Config => "config",
        }
    }

    fn path(self, name: &str) -> String {
        format!("/{}s/{}", self.noun(), escaped(name))
    }
}

/// A megabyte is the most that the agent takes; what is read beyond is only to be refused.
const MAX_CONTENT_BYTES: u64 = 1024 * 1024;

/// Manage secrets
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Create a secret from a file or standard input
    #[command(
        after_help = "Examples:\n  peer secret create token ./token\n  openssl rand -hex 32 | peer secret create token -"
    )]
    Create(Create),
    /// List secrets
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  peer secret ls\n  peer secret ls --filter label=tier=front -q"
    )]
    Ls(Ls),
    /// Show everything about secrets but their content
    #[command(after_help = "Examples:\n  peer secret inspect token\n  peer secret inspect --pretty token")]
    Inspect(Inspect),
    /// Give a secret new content, and roll the services that use it
    ///
    /// The content becomes a version of its own (token.v2), to which all services that use any version are moved in one
    /// write: all or none. The older versions stay for those who roll back, and go with `peer secret rm`.
    #[command(after_help = "Examples:\n  peer secret update token ./token\n  peer secret update -d token -")]
    Update(Update),
    /// Remove secrets that no service uses
    #[command(
        visible_alias = "remove",
        after_help = "Examples:\n  peer secret rm token\n  peer secret rm token token.v2"
    )]
    Rm(Rm),
}

/// Manage configs
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Create a config from a file or standard input
    #[command(
        after_help = "Examples:\n  peer config create motd ./motd\n  peer config create --label tier=front motd -"
    )]
    Create(Create),
    /// List configs
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  peer config ls\n  peer config ls --filter label=tier=front -q"
    )]
    Ls(Ls),
    /// Show everything about configs
    #[command(after_help = "Examples:\n  peer config inspect motd\n  peer config inspect --pretty motd")]
    Inspect(Inspect),
    /// Give a config new content, and roll the services that use it
    ///
    /// The content becomes a version of its own (motd.v2), to which all services that use any version are moved in one
    /// write: all or none. The older versions stay for those who roll back, and go with `peer config rm`.
    #[command(after_help = "Examples:\n  peer config update motd ./motd\n  peer config update -d motd -")]
    Update(Update),
    /// Remove configs that no service uses
    #[command(visible_alias = "remove", after_help = "Examples:\n  peer config rm motd\n  peer config rm motd motd.v2")]
    Rm(Rm),
}

#[derive(Debug, Args)]
pub struct Create {
    #[arg(value_name = "NAME")]
    name: String,
    /// Where the content is, or - for standard input
    #[arg(value_name = "FILE|-", default_value = "-", hide_default_value = true)]
    file: String,
    /// Give it a label; may be said more than once
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// The content is a template, filled in for each task: golang
    #[arg(long, value_name = "DRIVER", value_parser = ["golang"])]
    template_driver: Option<String>,
}

#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
pub struct Inspect {
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// For people, not for programs
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    /// json, or a template as '{{.Spec.Name}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Debug, Args)]
pub struct Update {
    #[arg(value_name = "NAME")]
    name: String,
    /// Where the content is, or - for standard input
    #[arg(value_name = "FILE|-", default_value = "-", hide_default_value = true)]
    file: String,
    /// The new version's labels, instead of those of the one before
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Don't wait until the services have converged
    #[arg(short, long)]
    detach: bool,
    /// Wait, but don't show it
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub struct Rm {
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

pub async fn secret(command: &SecretCommand, client: &Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        SecretCommand::Create(args) => create(Kind::Secret, args, client, console).await,
        SecretCommand::Ls(args) => ls(Kind::Secret, args, client, console).await,
        SecretCommand::Inspect(args) => inspect(Kind::Secret, args, client, console).await,
        SecretCommand::Update(args) => update(Kind::Secret, args, client, console).await,
        SecretCommand::Rm(args) => rm(Kind::Secret, args, client, console).await,
    }
}

pub async fn config(command: &ConfigCommand, client: &Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        ConfigCommand::Create(args) => create(Kind::Config, args, client, console).await,
        ConfigCommand::Ls(args) => ls(Kind::Config, args, client, console).await,
        ConfigCommand::Inspect(args) => inspect(Kind::Config, args, client, console).await,
        ConfigCommand::Update(args) => update(Kind::Config, args, client, console).await,
        ConfigCommand::Rm(args) => rm(Kind::Config, args, client, console).await,
    }
}

/// The content in base64, as the API wants it.
fn content(file: &str) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let read = match file {
        "-" => std::io::stdin().lock().take(MAX_CONTENT_BYTES + 1).read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|file| file.take(MAX_CONTENT_BYTES + 1).read_to_end(&mut bytes)),
    };
    let name = if file == "-" { "standard input" } else { file };
    read.map_err(|error| {
        CliError::new(format!("can't read {name}: {error}"))
            .hint("want the file that the content is in, or - for standard input")
    })?;
    if bytes.len() as u64 > MAX_CONTENT_BYTES {
        return Err(CliError::new(format!("{name} has more than the {MAX_CONTENT_BYTES} bytes that fit")));
    }
    Ok(STANDARD.encode(bytes))
}

async fn create(kind: Kind, args: &Create, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let labels: BTreeMap<&String, &String> = args.label.iter().map(|(key, value)| (key, value)).collect();
    let mut spec = json!({ "Name": args.name, "Labels": labels, "Data": content(&args.file)? });
    if let Some(driver) = &args.template_driver {
        spec["Templating"] = json!({ "Name": driver });
    }
    let answer = client.post(&format!("/{}s/create", kind.noun()), Some(&spec)).await?;
    tell_warnings(&answer, console);
    console.line(text(&answer, "/ID"))
}

async fn ls(kind: Kind, args: &Ls, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let filters = list::filters(&args.list.filter);
    let parameters: Vec<_> = filters.as_deref().map(|filters| ("filters", filters)).into_iter().collect();
    let answer = client.get(&with_query(&format!("/{}s", kind.noun()), &parameters)).await?;
    let mut objects: Vec<&Value> = items(&answer).iter().collect();
    objects.sort_by(|a, b| natural(text(a, "/Spec/Name"), text(b, "/Spec/Name")));
    let (header, names): (&[&str], &[&str]) = match kind {
        Kind::Secret => {
            (&["ID", "NAME", "DRIVER", "CREATED", "UPDATED"], &["ID", "Name", "Driver", "CreatedAt", "UpdatedAt"])
        }
        Kind::Config => (&["ID", "NAME", "CREATED", "UPDATED"], &["ID", "Name", "CreatedAt", "UpdatedAt"]),
    };
    let now = console.now();
    let row = |object: &&Value| {
        let id = text(object, "/ID").to_owned();
        let times = ["/CreatedAt", "/UpdatedAt"].map(|time| ago(text(object, time), now));
        let mut cells = vec![id.clone(), text(object, "/Spec/Name").to_owned()];
        if kind == Kind::Secret {
            cells.push(text(object, "/Spec/Driver/Name").to_owned());
        }
        cells.extend(times);
        let mut row = Row::new(id, names, cells);
        let labels: Vec<String> =
            pairs(object, "/Spec/Labels").iter().map(|(key, value)| format!("{key}={value}")).collect();
        row.fields.insert("Labels".to_owned(), json!(labels.join(",")));
        row
    };
    list::show(&args.list, header, objects.iter().map(row).collect(), console)
}

async fn inspect(kind: Kind, args: &Inspect, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for name in &args.names {
        match client.get_text(&kind.path(name)).await {
            Ok(text) => found.push(text),
            Err(error) if error.is_not_found() => failed.push(missing(kind, name)),
            Err(error) => return Err(error.into()),
        }
    }
    let pretty = match kind {
        Kind::Secret => pretty_secret,
        Kind::Config => pretty_config,
    };
    show(&found, if args.pretty { Shape::Pretty(pretty) } else { Shape::of(args.format.as_deref()) }, console)?;
    one_error(failed)
}

fn missing(kind: Kind, name: &str) -> CliError {
    no_such(kind.noun(), name)
}

fn labels(object: &Value) -> String {
    let pairs = pairs(object, "/Spec/Labels");
    let line = |(key, value): &(&str, &str)| match *value {
        "" => format!(" - {key}\n"),
        value => format!(" - {key}={value}\n"),
    };
    let lines: String = pairs.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("Labels:\n{lines}") }
}

fn pretty_secret(secret: &Value, _: Timestamp) -> String {
    format!(
        "ID:              {}\nName:              {}\n{}Driver:            {}\nCreated at:        {}\nUpdated at:        {}\n",
        text(secret, "/ID"),
        text(secret, "/Spec/Name"),
        labels(secret),
        text(secret, "/Spec/Driver/Name"),
        long_time(text(secret, "/CreatedAt")),
        long_time(text(secret, "/UpdatedAt")),
    )
}

fn pretty_config(config: &Value, _: Timestamp) -> String {
    let data = STANDARD.decode(text(config, "/Spec/Data")).unwrap_or_default();
    format!(
        "ID:\t\t\t{}\nName:\t\t\t{}\n{}Created at:            \t{}\nUpdated at:            \t{}\nData:\n{}\n",
        text(config, "/ID"),
        text(config, "/Spec/Name"),
        labels(config),
        long_time(text(config, "/CreatedAt")),
        long_time(text(config, "/UpdatedAt")),
        String::from_utf8_lossy(&data),
    )
}

async fn update(kind: Kind, args: &Update, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let mut body = json!({ "Data": content(&args.file)? });
    if !args.label.is_empty() {
        body["Labels"] = args.label.iter().cloned().collect::<BTreeMap<_, _>>().into_iter().collect();
    }
    let path = format!("/peer/{}s/{}/renew", kind.noun(), escaped(&args.name));
    let answer = client
        .post(&path, Some(&body))
        .await
        .map_err(|error| if error.is_not_found() { missing(kind, &args.name) } else { error.into() })?;
    let held = tell_warnings(&answer, console);
    console.line(text(&answer, "/Name"))?;
    let mut failed = Vec::new();
    for moved in answer.get("Services").map(items).unwrap_or_default() {
        let (id, name) = (text(moved, "/ID"), text(moved, "/Name"));
        if args.detach || held {
            console.note(&format!("service {name} is rolled to it"));
            continue;
        }
        let limits = Limits::new(args.quiet, None);
        let wait = progress::Wait { id, shown: name, doing: Doing::Deploying, limits, poll: progress::POLL };
        failed.extend(progress::wait(&wait, client, console).await.err());
    }
    one_error(failed)
}

async fn rm(kind: Kind, args: &Rm, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let mut failed = Vec::new();
    for name in &args.names {
        match client.delete(&kind.path(name)).await {
            Ok(_) => console.line(name)?,
            Err(error) if error.is_not_found() => failed.push(missing(kind, name)),
            Err(error) => failed.push(error.into()),
        }
    }
    one_error(failed)
}
