//! What a task refers to that operators made before: secrets and configs as files, and networks.

use super::SpecError;
use super::read::{Field, quoted};
use crate::model::object::{FileRef, NetworkRef, ObjectKind};
use std::collections::BTreeSet;

/// Where a secret lands whose target is a mere name; a config lands in the root directory, as in Docker.
const SECRETS_DIR: &str = "/run/secrets";
/// Read by all.
const DEFAULT_MODE: u64 = 0o444;
/// Files and networks of one service; more is somebody's mistake.
const MAX_FILES: usize = 200;
const MAX_NETWORKS: usize = 50;
/// Every node's own, by Docker's name, which is its id here, too.
pub const HOST_NETWORK: &str = "host";
/// Who makes a network is told, and who puts a service on one.
pub const NETWORKS_ARE_LOCAL: &str =
    "names resolve only between containers of one node for now: reach other nodes by a published port";

pub(super) fn files(container: &Field<'_>) -> Result<Vec<FileRef>, SpecError> {
    let mut files = Vec::new();
    let mut targets = BTreeSet::new();
    for (key, kind) in [("Secrets", ObjectKind::Secret), ("Configs", ObjectKind::Config)] {
        let list = container.at(key)?;
        for item in list.items()? {
            let file = file(&item, kind)?;
            if !targets.insert(file.target.clone()) {
                return Err(item.bad(format!("{} is the target of two secrets or configs", quoted(&file.target))));
            }
            files.push(file);
        }
        if files.len() > MAX_FILES {
            return Err(list.bad(format!("more than the {MAX_FILES} secrets and configs allowed")));
        }
    }
    Ok(files)
}

fn file(item: &Field<'_>, kind: ObjectKind) -> Result<FileRef, SpecError> {
    let (id_key, name_key) = match kind {
        ObjectKind::Config => ("ConfigID", "ConfigName"),
        _ => ("SecretID", "SecretName"),
    };
    item.at("Runtime")?.refuse_if_set("configs for the runtime (credential specs) are")?;
    let (id, file) = (item.at(id_key)?, item.at("File")?);
    let object = id
        .text()?
        .parse()
        .map_err(|_| id.bad(format!("{} is not the id of a {}", quoted(id.text().unwrap_or("")), kind.as_str())))?;
    let name = item.at(name_key)?.text()?.to_owned();
    if !file.is_present() {
        return Err(file.bad(format!("missing: where the container is to have the {}", kind.as_str())));
    }
    let mode_field = file.at("Mode")?;
    let mode = mode_field.some_count(u64::from(u32::MAX))?.unwrap_or(DEFAULT_MODE);
    if mode > 0o7777 {
        return Err(mode_field.bad(format!("{mode:o} is not a file's mode: want at most 7777 (octal)")));
    }
    let owner = |key: &str| {
        let field = file.at(key)?;
        match field.text()? {
            "" => Ok(0),
            text => text.parse().map_err(|_| field.bad(format!("{} is not a number", quoted(text)))),
        }
    };
    Ok(FileRef {
        kind,
        object,
        target: target(&file.at("Name")?, kind, &name)?,
        name,
        uid: owner("UID")?,
        gid: owner("GID")?,
        // Held to 07777 above.
        mode: u32::try_from(mode).unwrap_or(0o444),
    })
}

fn target(field: &Field<'_>, kind: ObjectKind, name: &str) -> Result<String, SpecError> {
    let text = match field.text()? {
        "" => name,
        text => text,
    };
    let plain = text.split('/').all(|part| part != "..") && !text.ends_with('/') && !text.is_empty();
    if !plain {
        return Err(field.bad(format!("{} is not a file's path: want no .. and no / at its end", quoted(text))));
    }
    Ok(target_path(kind, text))
}

/// The path of a secret or config that a template names by its target, as it stands in a spec or in full.
pub fn target_path(kind: ObjectKind, text: &str) -> String {
    match kind {
        _ if text.starts_with('/') => text.to_owned(),
        ObjectKind::Config => format!("/{text}"),
        _ => format!("{SECRETS_DIR}/{text}"),
    }
}

/// The networks of the cluster; `None`: the node's own, beside which there can be no other.
pub(super) fn networks(field: &Field<'_>, warnings: &mut Vec<String>) -> Result<Option<Vec<NetworkRef>>, SpecError> {
    let mut networks: Vec<NetworkRef> = Vec::new();
    let items = field.items()?;
    let mut on_host = false;
    for item in &items {
        let target = item.at("Target")?;
        let text = target.text()?;
        if text.is_empty() {
            return Err(target.bad("missing: want a network's name or id"));
        }
        item.at("DriverOpts")?.refuse_if_set("a network's driver options for one service are")?;
        if text == HOST_NETWORK {
            // Aliases say nothing there, and docker's stacks may send some.
            on_host = true;
        } else if networks.iter().all(|known| known.target != text) {
            networks.push(NetworkRef { target: text.to_owned(), aliases: item.at("Aliases")?.words()? });
        }
    }
    if networks.len() > MAX_NETWORKS {
        return Err(field.bad(format!("more than the {MAX_NETWORKS} allowed")));
    }
    if on_host {
        return match networks.first() {
            None => Ok(None),
            Some(other) => Err(field.bad(format!(
                "a container on its node's network (host) can't be on {} as well",
                quoted(&other.target)
            ))),
        };
    }
    if !networks.is_empty() {
        warnings.push(field.note(NETWORKS_ARE_LOCAL));
    }
    Ok(Some(networks))
}
