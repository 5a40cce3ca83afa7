//! `--secret`, `--config` and `--network`: what a service refers to, by the names that a user knows. Docker's spec wants
//! ids, so each is looked up before the spec is sent.

use super::csv;
use super::settings::edit_list;
use crate::cli::client::{Client, escaped, with_query};
use crate::cli::error::CliError;
use crate::cli::json::{Object, child, items, text};
use crate::model::spec::HOST_NETWORK;
use clap::Args;
use serde_json::{Value, json};
use std::str::FromStr;

/// NAME, or source=NAME,target=…,uid=…,gid=…,mode=….
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFlag {
    source: String,
    target: String,
    uid: String,
    gid: String,
    mode: u32,
}

impl FromStr for FileFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut file = Self {
            source: String::new(),
            target: String::new(),
            uid: "0".to_owned(),
            gid: "0".to_owned(),
            mode: 0o444,
        };
        if !text.contains(['=', ',']) {
            text.clone_into(&mut file.source);
        } else {
            for field in csv::fields(text)? {
                let (key, value) = field.split_once('=').ok_or_else(|| format!("{field}: want {field}=VALUE"))?;
                match key.trim().to_ascii_lowercase().as_str() {
                    "source" | "src" => value.clone_into(&mut file.source),
                    "target" => value.clone_into(&mut file.target),
                    "uid" => value.clone_into(&mut file.uid),
                    "gid" => value.clone_into(&mut file.gid),
                    "mode" => file.mode = mode(value)?,
                    _ => return Err(format!("unknown field {key:?}")),
                }
            }
        }
        if file.source.is_empty() {
            return Err("the field source is missing: want the name of one".to_owned());
        }
        if file.target.is_empty() {
            file.target.clone_from(&file.source);
        }
        Ok(file)
    }
}

/// As Go reads a number: octal behind a 0.
fn mode(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0o").or_else(|| text.strip_prefix('0')) {
        Some("") => Ok(0),
        Some(octal) => u32::from_str_radix(octal, 8),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("mode {text:?}: want a file's mode, as 0440"))
}

/// NAME, or name=NAME,alias=….
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkFlag {
    name: String,
    aliases: Vec<String>,
}

impl FromStr for NetworkFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut network = Self { name: String::new(), aliases: Vec::new() };
        if !text.contains(['=', ',']) {
            text.clone_into(&mut network.name);
        } else {
            for field in csv::fields(text)? {
                let (key, value) = field.split_once('=').ok_or_else(|| format!("{field}: want {field}=VALUE"))?;
                match key.trim().to_ascii_lowercase().as_str() {
                    "name" => value.clone_into(&mut network.name),
                    "alias" => network.aliases.push(value.to_owned()),
                    "driver-opt" => return Err("driver options of a network are not supported yet".to_owned()),
                    _ => return Err(format!("unknown field {key:?}")),
                }
            }
        }
        if network.name.is_empty() {
            return Err("the field name is missing: want the name of a network".to_owned());
        }
        Ok(network)
    }
}

/// Of `service create`.
#[derive(Debug, Default, Args)]
pub struct Refs {
    /// Give the containers a secret, as NAME or source=NAME,target=…[,uid=…][,gid=…][,mode=…]
    #[arg(long, value_name = "SECRET")]
    secret: Vec<FileFlag>,
    /// Give them a config, likewise
    #[arg(long, value_name = "CONFIG")]
    config: Vec<FileFlag>,
    /// Put them on a network, as NAME or name=NAME[,alias=…]
    #[arg(long, value_name = "NETWORK")]
    network: Vec<NetworkFlag>,
    #[command(flatten)]
    unsupported: Unsupported,
}

/// Of `service update`.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Lists, entry by entry")]
pub struct RefEdits {
    /// Give the containers a secret, or give it another way
    #[arg(long, value_name = "SECRET")]
    secret_add: Vec<FileFlag>,
    /// Take it away
    #[arg(long, value_name = "NAME")]
    secret_rm: Vec<String>,
    /// Give the containers a config, or give it another way
    #[arg(long, value_name = "CONFIG")]
    config_add: Vec<FileFlag>,
    /// Take it away
    #[arg(long, value_name = "NAME")]
    config_rm: Vec<String>,
    /// Put the containers on a network
    #[arg(long, value_name = "NETWORK")]
    network_add: Vec<NetworkFlag>,
    /// Take them off it
    #[arg(long, value_name = "NETWORK")]
    network_rm: Vec<String>,
    #[command(flatten)]
    unsupported: Unsupported,
}

/// Taken with its default value; flags of docker's that never are stand in [`crate::cli::refused`].
#[derive(Debug, Default, Args)]
struct Unsupported {
    #[arg(long, hide = true, value_parser = windows)]
    isolation: Option<String>,
}

fn windows(text: &str) -> Result<String, String> {
    if text == "default" { Ok(text.to_owned()) } else { Err("this is for containers of Windows".to_owned()) }
}

#[derive(Clone, Copy)]
struct Kind {
    noun: &'static str,
    /// The list in the container's spec, and the keys of its entries.
    list: &'static str,
    id: &'static str,
    name: &'static str,
}

const SECRET: Kind = Kind { noun: "secret", list: "Secrets", id: "SecretID", name: "SecretName" };
const CONFIG: Kind = Kind { noun: "config", list: "Configs", id: "ConfigID", name: "ConfigName" };

impl Refs {
    pub async fn apply(&self, spec: &mut Object, client: &Client) -> Result<(), CliError> {
        files(SECRET, &self.secret, &[], spec, client).await?;
        files(CONFIG, &self.config, &[], spec, client).await?;
        networks(&self.network, &[], spec, client).await
    }
}

impl RefEdits {
    pub async fn apply(&self, spec: &mut Object, client: &Client) -> Result<(), CliError> {
        files(SECRET, &self.secret_add, &self.secret_rm, spec, client).await?;
        files(CONFIG, &self.config_add, &self.config_rm, spec, client).await?;
        networks(&self.network_add, &self.network_rm, spec, client).await
    }
}

/// What is added takes the place of one of the same name at the same target.
async fn files(
    kind: Kind,
    add: &[FileFlag],
    rm: &[String],
    spec: &mut Object,
    client: &Client,
) -> Result<(), CliError> {
    let mut added = Vec::with_capacity(add.len());
    for file in add {
        added.push(json!({
            "File": { "Name": file.target, "UID": file.uid, "GID": file.gid, "Mode": file.mode },
            kind.id: id_of(kind, &file.source, client).await?,
            kind.name: file.source,
        }));
    }
    if add.is_empty() && rm.is_empty() {
        return Ok(());
    }
    let (name, target) = (format!("/{}", kind.name), "/File/Name");
    edit_list(child(child(spec, "TaskTemplate"), "ContainerSpec"), kind.list, |list| {
        list.retain(|entry| !rm.iter().any(|rm| rm == text(entry, &name)));
        list.retain(|entry| {
            !added.iter().any(|new| text(new, &name) == text(entry, &name) && text(new, target) == text(entry, target))
        });
        list.extend(added);
    });
    Ok(())
}

async fn id_of(kind: Kind, name: &str, client: &Client) -> Result<String, CliError> {
    let filters = json!({ "name": { name: true } }).to_string();
    let found = client.get(&with_query(&format!("/{}s", kind.noun), &[("filters", &filters)])).await?;
    // The filter takes what begins like it, too.
    let found = items(&found).iter().find(|object| text(object, "/Spec/Name") == name);
    found.map(|object| text(object, "/ID").to_owned()).ok_or_else(|| {
        CliError::new(format!("no such {}: {name}", kind.noun))
            .hint(format!("make it with: peer {} create {name} FILE", kind.noun))
    })
}

async fn networks(add: &[NetworkFlag], rm: &[String], spec: &mut Object, client: &Client) -> Result<(), CliError> {
    let mut added = Vec::with_capacity(add.len());
    for network in add {
        let id = network_id(&network.name, client).await?;
        added.push(match network.aliases.as_slice() {
            [] => json!({ "Target": id }),
            aliases => json!({ "Target": id, "Aliases": aliases }),
        });
    }
    let mut removed = Vec::with_capacity(rm.len());
    for name in rm {
        removed.extend([network_id(name, client).await?, name.clone()]);
    }
    if added.is_empty() && removed.is_empty() {
        return Ok(());
    }
    let target = |entry: &Value| text(entry, "/Target").to_owned();
    edit_list(child(spec, "TaskTemplate"), "Networks", |list| {
        list.retain(|entry| !removed.contains(&target(entry)) && !added.iter().any(|new| target(new) == target(entry)));
        list.extend(added);
    });
    Ok(())
}

async fn network_id(name: &str, client: &Client) -> Result<String, CliError> {
    // The node's own has another id on every node, and one name.
    if name == HOST_NETWORK {
        return Ok(name.to_owned());
    }
    match client.get(&format!("/networks/{}", escaped(name))).await {
        Ok(found) => Ok(text(&found, "/Id").to_owned()),
        Err(error) if error.is_not_found() => Err(CliError::new(format!("no such network: {name}"))
            .hint(format!("make it with: docker network create -d overlay {name}"))),
        Err(error) => Err(error.into()),
    }
}
