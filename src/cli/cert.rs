//! `peer cert`: who may use the API from another machine, over TCP.

use super::client::{ApiError, Client, escaped, with_query};
use super::console::Console;
use super::error::CliError;
use super::go;
use super::json::{flag, items, text};
use super::list::{self, ListArgs, Row};
use super::service::tell_warnings;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Manage who may use the API over TCP (peer start --api)
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Write the certificate and key of a client: ca.pem, cert.pem and key.pem, as docker --tlsverify wants them
    ///
    /// Whoever has them owns the cluster. They hold for a year, or until they are revoked.
    #[command(
        after_help = "Examples:\n  peer cert issue --client ann --out ann-certs\n  docker --tlsverify --tlscacert ann-certs/ca.pem --tlscert ann-certs/cert.pem --tlskey ann-certs/key.pem -H tcp://10.0.0.1:2376 node ls\n  docker context create shop --docker host=tcp://10.0.0.1:2376,ca=ann-certs/ca.pem,cert=ann-certs/cert.pem,key=ann-certs/key.pem"
    )]
    Issue(Issue),
    /// List the clients that certificates were issued to
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  peer cert ls\n  peer cert ls --format '{{.Name}} {{.Status}}'"
    )]
    Ls(Ls),
    /// End all certificates that a client has now, on all nodes
    #[command(after_help = "Examples:\n  peer cert revoke ann\n  peer cert revoke ann && peer cert issue --client ann")]
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub struct Issue {
    /// The client's name, by which it is revoked
    #[arg(long, value_name = "NAME")]
    client: String,
    /// Where to write the three files (default: here)
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub struct Revoke {
    #[arg(value_name = "NAME")]
    name: String,
    /// Also if no certificate is known to have been issued to it (by an agent of before `peer cert ls`, for example)
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
}

pub async fn run(command: &CertCommand, client: &Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        CertCommand::Issue(args) => issue(args, client, console).await,
        CertCommand::Ls(args) => ls(&args.list, client, console).await,
        CertCommand::Revoke(args) => {
            let force: &[(&str, &str)] = if args.force { &[("force", "1")] } else { &[] };
            let path = with_query(&format!("/peer/certs/{}/revoke", escaped(&args.name)), force);
            let answer = client.post(&path, None).await.map_err(|error| match error {
                error if error.is_not_found() => {
                    CliError::new(format!("no such client: {}: no certificate was issued to it", args.name))
                        .hint("see who has one with: peer cert ls; one that isn't known there is revoked with --force")
                }
                error => by_name("NAME", error),
            })?;
            tell_warnings(&answer, console);
            console.line(&args.name)
        }
    }
}

async fn ls(args: &ListArgs, client: &Client, console: &mut Console) -> Result<(), CliError> {
    if let Some((key, _)) = args.filter.first() {
        return Err(CliError::misuse(format!("--filter {key}: clients can't be filtered")));
    }
    let answer = client.get("/peer/certs").await?;
    let row = |found: &Value| {
        let name = text(found, "/Name").to_owned();
        let status = if flag(found, "/Revoked") { "revoked" } else { "valid" };
        let ago = |at: &str| go::ago(text(found, at), console.now());
        let cells = vec![name.clone(), status.to_owned(), ago("/CreatedAt"), ago("/UpdatedAt")];
        Row::new(name, &["Name", "Status", "Created", "Changed"], cells)
    };
    let rows = items(&answer).iter().map(row).collect();
    list::show(args, &["NAME", "STATUS", "CREATED", "CHANGED"], rows, console)
}

/// The agent speaks of a field of the request.
fn by_name(flag: &str, error: ApiError) -> CliError {
    match &error {
        ApiError::Refused { status: 400, message } => match message.strip_prefix("Name: ") {
            Some(why) => CliError::misuse(format!("{flag}: {why}")),
            None => error.into(),
        },
        _ => error.into(),
    }
}

async fn issue(args: &Issue, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let dir = &args.out;
    let failed = |path: &Path, error: std::io::Error| CliError::new(format!("{}: {error}", path.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failed(dir, error))?;
    let files = [("ca.pem", "/CA"), ("cert.pem", "/Cert"), ("key.pem", "/Key")];
    if let Some((name, _)) = files.iter().find(|(name, _)| dir.join(name).exists()) {
        return Err(CliError::new(format!("{} is there already", dir.join(name).display()))
            .hint("choose another directory: --out DIR"));
    }
    let answer = client.post("/peer/certs", Some(&json!({ "Name": args.client }))).await;
    let answer = answer.map_err(|error| by_name("--client", error))?;
    tell_warnings(&answer, console);
    for (name, pointer) in files {
        let path = dir.join(name);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(text(&answer, pointer).as_bytes()));
        written.map_err(|error| failed(&path, error))?;
        console.line(&path.display().to_string())?;
    }
    Ok(())
}
