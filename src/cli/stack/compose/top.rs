//! The top-level networks, secrets and configs of a Compose file.

use super::field::Field;
use super::{Context, NAMESPACE, Report};
use crate::cli::error::CliError;
use crate::cli::json::{Object, put};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Network {
    /// As the file has it.
    pub short: String,
    pub name: String,
    /// Docker's request to make it; nothing for one that must be there.
    pub create: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Secret,
    Config,
}

/// A secret or a config.
pub struct FileObject {
    pub short: String,
    pub name: String,
    /// Nothing for one that must be there.
    pub content: Option<Content>,
}

pub struct Content {
    pub labels: BTreeMap<String, String>,
    pub data: Vec<u8>,
    /// What fills in a content that is a template.
    pub template_driver: Option<String>,
}

impl Content {
    /// As in Docker's spec.
    pub fn templating(&self) -> Value {
        self.template_driver.as_ref().map_or(Value::Null, |name| json!({ "Name": name }))
    }
}

impl std::fmt::Debug for FileObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileObject({})", self.name)
    }
}

/// Of something that is external, or has a name of its own.
pub fn name_of(short: &str, field: &Field<'_>, context: &Context<'_>) -> Result<(String, bool), CliError> {
    let own = field.get("name").map(|name| name.text()).transpose()?;
    match field.get("external") {
        // The old form: external: {name: x}.
        Some(external) if external.value.is_object() => {
            let name = external.get("name").map(|name| name.text()).transpose()?;
            Ok((name.or(own).unwrap_or_else(|| short.to_owned()), true))
        }
        Some(external) if external.truth()? => Ok((own.unwrap_or_else(|| short.to_owned()), true)),
        _ => Ok((own.unwrap_or_else(|| context.scoped(short)), false)),
    }
}

pub fn labelled(field: &Field<'_>, context: &Context<'_>) -> Result<BTreeMap<String, String>, CliError> {
    let mut labels = field.get("labels").map(|labels| labels.labels()).transpose()?.unwrap_or_default();
    labels.insert(NAMESPACE.to_owned(), context.stack.to_owned());
    Ok(labels)
}

pub fn networks(section: &Field<'_>, context: &Context<'_>, report: &mut Report) -> Result<Vec<Network>, CliError> {
    let none = Value::Object(Object::new());
    let mut networks = Vec::new();
    let entries = section.entries()?;
    let mut entries: Vec<(&str, Field<'_>)> = entries
        .into_iter()
        .map(|(key, field)| (key, if field.value.is_null() { Field::of(field.at, &none) } else { field }))
        .collect();
    if !entries.iter().any(|(key, _)| *key == "default") {
        entries.push(("default", Field::of("networks.default", &none)));
    }
    for (short, field) in entries {
        let known = ["name", "external", "driver", "driver_opts", "ipam", "internal", "attachable", "labels"];
        field.check(&known, &["enable_ipv6"], report)?;
        let (name, external) = name_of(short, &field, context)?;
        if external {
            networks.push(Network { short: short.to_owned(), name, create: None });
            continue;
        }
        let mut create = Object::new();
        put(&mut create, "Name", name.as_str());
        let driver = field.get("driver").map(|driver| driver.text()).transpose()?;
        put(&mut create, "Driver", driver.unwrap_or_else(|| "overlay".to_owned()));
        put(&mut create, "Scope", "swarm");
        if let Some(options) = field.get("driver_opts") {
            put(&mut create, "Options", json!(options.labels()?));
        }
        for (key, name) in [("internal", "Internal"), ("attachable", "Attachable")] {
            if let Some(flag) = field.get(key) {
                put(&mut create, name, flag.truth()?);
            }
        }
        if let Some(ipam) = field.get("ipam") {
            put(&mut create, "IPAM", self::ipam(&ipam, report)?);
        }
        put(&mut create, "Labels", json!(labelled(&field, context)?));
        networks.push(Network { short: short.to_owned(), name, create: Some(Value::Object(create)) });
    }
    Ok(networks)
}

fn ipam(field: &Field<'_>, report: &mut Report) -> Result<Value, CliError> {
    field.check(&["driver", "config"], &["options"], report)?;
    let driver = field.get("driver").map(|driver| driver.text()).transpose()?;
    let mut configs = Vec::new();
    for config in field.get("config").map(|config| config.items()).transpose()?.unwrap_or_default() {
        config.check(&["subnet", "gateway", "ip_range"], &["aux_addresses"], report)?;
        let mut entry = Object::new();
        for (key, name) in [("subnet", "Subnet"), ("gateway", "Gateway"), ("ip_range", "IPRange")] {
            if let Some(text) = config.get(key) {
                put(&mut entry, name, text.text()?);
            }
        }
        configs.push(Value::Object(entry));
    }
    Ok(json!({ "Driver": driver.unwrap_or_else(|| "default".to_owned()), "Config": configs }))
}

pub fn files(
    section: &Field<'_>,
    kind: Kind,
    context: &Context<'_>,
    report: &mut Report,
) -> Result<Vec<FileObject>, CliError> {
    let mut files = Vec::new();
    for (short, field) in section.entries()? {
        field.check(
            &["name", "external", "file", "environment", "content", "labels", "template_driver"],
            &[],
            report,
        )?;
        let (name, external) = name_of(short, &field, context)?;
        let content = match external {
            true => None,
            false => Some(Content {
                labels: labelled(&field, context)?,
                data: content(&field, kind, context)?,
                template_driver: field.get("template_driver").map(|driver| driver.text()).transpose()?,
            }),
        };
        files.push(FileObject { short: short.to_owned(), name, content });
    }
    Ok(files)
}

fn content(field: &Field<'_>, kind: Kind, context: &Context<'_>) -> Result<Vec<u8>, CliError> {
    if let Some(file) = field.get("file") {
        let path = context.path(&file.text()?);
        return std::fs::read(&path).map_err(|error| file.bad(format!("{}: {error}", path.display())));
    }
    if let Some(name) = field.get("environment") {
        let variable = name.text()?;
        let value = context.variables.get(&variable);
        return value.map(|value| value.clone().into_bytes()).ok_or_else(|| name.bad(format!("{variable} is not set")));
    }
    match field.get("content").filter(|_| kind == Kind::Config) {
        Some(content) => Ok(content.text()?.into_bytes()),
        None => Err(field.bad("want file, environment or external to say where its content is")),
    }
}
