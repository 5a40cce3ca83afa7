//! `peer stack diff`: what the files say against what the cluster was told last. A deploy leaves alone what hasn't changed
//! by the same comparison.

use super::{Diff, apply, compose, existing};
use crate::cli::client::{ApiError, Client, escaped, no_such};
use crate::cli::compare::{Difference, differences};
use crate::cli::console::Console;
use crate::cli::error::CliError;
use crate::cli::json::{items, text};
use crate::cli::service::image::familiar;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Networks by id, so that a spec that names one and a spec that has its id are the same.
pub async fn network_names(client: &Client) -> Result<BTreeMap<String, String>, CliError> {
    let answer = client.get("/networks").await?;
    Ok(items(&answer).iter().map(|n| (text(n, "/Id").to_owned(), text(n, "/Name").to_owned())).collect())
}

pub async fn diff(args: &Diff, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let stack = args.files.load(console)?;
    let before = existing(&args.files.stack, client).await?;
    let networks = network_names(client).await?;
    let mut out = String::new();
    for network in
        stack.networks.iter().filter(|n| n.create.is_some() && !networks.values().any(|name| *name == n.name))
    {
        let _ = writeln!(out, "+ network {}", network.name);
    }
    for (noun, objects) in [("secret", &stack.secrets), ("config", &stack.configs)] {
        for object in objects {
            differs(noun, object, client, &mut out).await?;
        }
    }
    for service in &stack.services {
        let Some(old) = before.get(&service.name) else {
            let _ = writeln!(out, "+ service {}", service.name);
            continue;
        };
        let old = without_versions(old.get("Spec").cloned().unwrap_or(Value::Null));
        let new = without_digest(Value::Object(service.spec.clone()), &old);
        let changes = changes(&old, &without_versions(new), &networks);
        if !changes.is_empty() {
            let _ = writeln!(out, "~ service {}", service.name);
            changes.iter().for_each(|change| out.push_str(&format!("    {change}\n")));
        }
    }
    let wanted: BTreeSet<&String> = stack.services.iter().map(|service| &service.name).collect();
    for name in before.keys().filter(|name| !wanted.contains(name)) {
        let _ = writeln!(out, "- service {name}   (only with --prune)");
    }
    console.print(&out)?;
    if out.is_empty() {
        // Not a result: what reads the lines finds none.
        console.note("no changes");
    }
    if args.exit_code && !out.is_empty() { Err(CliError::silent()) } else { Ok(()) }
}

/// A config's content can be compared here; a secret's only by the agent, and only by a write.
async fn differs(noun: &str, object: &compose::FileObject, client: &Client, out: &mut String) -> Result<(), CliError> {
    use base64::Engine;
    let found = apply::newest(noun, &object.name, client).await?;
    let Some(content) = &object.content else {
        // One of somebody else's: a deploy would say the same.
        return found.map(|_| ()).ok_or_else(|| no_such(noun, &object.name));
    };
    let Some(found) = found else {
        let _ = writeln!(out, "+ {noun} {}", object.name);
        return Ok(());
    };
    let data = &content.data;
    let same_driver = text(&found, "/Spec/Templating/Name") == content.template_driver.as_deref().unwrap_or_default();
    let same = same_driver
        && match noun {
            "config" => text(&found, "/Spec/Data") == base64::engine::general_purpose::STANDARD.encode(data),
            _ => {
                let path = format!("/peer/secrets/{}/compare", escaped(text(&found, "/ID")));
                let body = json!({ "Data": base64::engine::general_purpose::STANDARD.encode(data) });
                match client.post(&path, Some(&body)).await {
                    Ok(answer) => answer["Same"] == true,
                    Err(ApiError::Refused { status: 404, .. }) => true,
                    Err(error) => return Err(error.into()),
                }
            }
        };
    if !same {
        let _ = writeln!(out, "~ {noun} {}: other content", object.name);
    }
    Ok(())
}

/// Which version of a secret or config a service has says nothing to a reader of the files.
fn without_versions(mut spec: Value) -> Value {
    for (list, id, name) in [("Secrets", "SecretID", "SecretName"), ("Configs", "ConfigID", "ConfigName")] {
        let entries = spec.pointer_mut(&format!("/TaskTemplate/ContainerSpec/{list}")).and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten().filter_map(Value::as_object_mut) {
            entry.remove(id);
            if let Some(Value::String(name)) = entry.get_mut(name)
                && let Some((first, version)) = name.rsplit_once(".v")
                && version.chars().all(|c| c.is_ascii_digit())
            {
                *name = first.to_owned();
            }
        }
    }
    spec
}

/// The files name a tag, the cluster has the digest that it had then.
fn without_digest(mut new: Value, old: &Value) -> Value {
    const IMAGE: &str = "/TaskTemplate/ContainerSpec/Image";
    let was = text(old, IMAGE).to_owned();
    if let Some(image) = new.pointer_mut(IMAGE)
        && familiar(&crate::cli::service::image::tagged(image.as_str().unwrap_or_default())) == familiar(&was)
    {
        *image = json!(was);
    }
    new
}

/// One line for each value that differs.
pub fn changes(old: &Value, new: &Value, networks: &BTreeMap<String, String>) -> Vec<String> {
    let line = |found: Difference| match (found.old, found.new) {
        (old, None) => format!("{}: {} ->", found.path, old.unwrap_or_default()),
        (None, Some(new)) => format!("{}: -> {new}", found.path),
        (Some(old), Some(new)) => format!("{}: {old} -> {new}", found.path),
    };
    differences(old, new, networks).into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_no_change_and_what_changes_is_one_line() {
        let networks = BTreeMap::from([("n1".to_owned(), "st_front".to_owned())]);
        let old = json!({ "Name": "a", "Labels": { "com.peer.stack.deployed": "x" }, "Mode": { "Global": {} },
            "TaskTemplate": { "Runtime": "container", "ForceUpdate": 0, "Networks": [{ "Target": "n1" }],
                "ContainerSpec": { "Image": "x:1@sha256:0", "Env": ["A=1"], "TTY": false, "Mounts": null } } });
        let new = json!({ "Name": "a", "Mode": { "Global": {} },
            "TaskTemplate": { "Networks": [{ "Target": "st_front" }], "ContainerSpec": { "Image": "x:1", "Env": ["A=1"] } } });
        assert!(changes(&old, &without_digest(new.clone(), &old), &networks).is_empty());
        let mut changed = new.clone();
        changed["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["A=2"]);
        changed["Mode"] = json!({ "Replicated": { "Replicas": 0 } });
        assert_eq!(
            changes(&old, &without_digest(changed, &old), &networks),
            [
                "Mode.Global: {} ->",
                "Mode.Replicated.Replicas: -> 0",
                "TaskTemplate.ContainerSpec.Env: [\"A=1\"] -> [\"A=2\"]"
            ]
        );
    }
}
