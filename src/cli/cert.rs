//! `peer cert`: who may use the API from another machine, over TCP.

use super::client::{Client, escaped};
use super::console::Console;
use super::error::CliError;
use super::json::text;
use super::service::tell_warnings;
use clap::{Args, Subcommand};
use serde_json::json;
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
}

pub async fn run(command: &CertCommand, client: &Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        CertCommand::Issue(args) => issue(args, client, console).await,
        CertCommand::Revoke(args) => {
            let answer = client.post(&format!("/peer/certs/{}/revoke", escaped(&args.name)), None).await?;
            tell_warnings(&answer, console);
            console.line(&args.name)
        }
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
    let answer = client.post("/peer/certs", Some(&json!({ "Name": args.client }))).await?;
    for (name, pointer) in files {
        let path = dir.join(name);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(text(&answer, pointer).as_bytes()));
        written.map_err(|error| failed(&path, error))?;
        console.line(&path.display().to_string())?;
    }
    Ok(())
}
