//! Volumes: the named ones of the file, and where a service mounts them, directories of the node, or memory.

use super::field::Field;
use super::top::{labelled, name_of};
use super::{Context, Report};
use crate::cli::error::CliError;
use crate::cli::go::Bytes;
use crate::cli::json::{Object, child, put, put_true};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the cluster calls it, and how a node makes it where it isn't there.
pub struct Volume {
    name: String,
    options: Object,
}

pub fn volumes(
    section: &Field<'_>,
    context: &Context<'_>,
    report: &mut Report,
) -> Result<BTreeMap<String, Volume>, CliError> {
    let none = Value::Object(Object::new());
    let mut volumes = BTreeMap::new();
    for (short, field) in section.entries()? {
        let field = if field.value.is_null() { Field::of(field.at, &none) } else { field };
        field.check(&["name", "external", "driver", "driver_opts", "labels"], &[], report)?;
        let (name, external) = name_of(short, &field, context)?;
        let mut options = Object::new();
        if !external {
            put(&mut options, "Labels", json!(labelled(&field, context)?));
            if let Some(driver) = field.get("driver") {
                put(child(&mut options, "DriverConfig"), "Name", driver.text()?);
            }
            if let Some(driver_opts) = field.get("driver_opts") {
                put(child(&mut options, "DriverConfig"), "Options", json!(driver_opts.labels()?));
            }
        }
        volumes.insert(short.to_owned(), Volume { name, options });
    }
    Ok(volumes)
}

/// One entry of a service's `volumes`.
pub fn mount(
    field: &Field<'_>,
    volumes: &BTreeMap<String, Volume>,
    context: &Context<'_>,
    report: &mut Report,
) -> Result<Value, CliError> {
    let mut mount = Object::new();
    let (kind, source) =
        if field.value.is_object() { long(field, &mut mount, report)? } else { short(field, &mut mount)? };
    put(&mut mount, "Type", kind.as_str());
    match (kind.as_str(), source.as_str()) {
        ("bind", "") => return Err(field.bad("source is missing: the path on the node")),
        ("bind", path) => put(&mut mount, "Source", context.path(path).display().to_string()),
        ("tmpfs", "") => {}
        ("tmpfs", _) => return Err(field.bad("a tmpfs has no source")),
        ("volume", "") => {}
        ("volume", name) => {
            let known = volumes.get(name).ok_or_else(|| {
                field
                    .bad(format!("there is no volume {name}"))
                    .hint(format!("add it at the top: volumes: {{{name}: {{}}}}"))
            })?;
            put(&mut mount, "Source", known.name.as_str());
            let options = child(&mut mount, "VolumeOptions");
            options.extend(known.options.clone());
            if options.is_empty() {
                mount.remove("VolumeOptions");
            }
        }
        (other, _) => return Err(field.bad(format!("type {other:?} is not supported: want bind, volume or tmpfs"))),
    }
    Ok(Value::Object(mount))
}

fn short(field: &Field<'_>, mount: &mut Object) -> Result<(String, String), CliError> {
    let text = field.text()?;
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(field.bad(format!("{text:?}: want SOURCE:TARGET[:OPTIONS]"))),
    };
    if !target.starts_with('/') {
        return Err(field.bad(format!("{target:?}: want an absolute path in the container")));
    }
    put(mount, "Target", target);
    let is_path = source.starts_with(['.', '/', '~']);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => put_true(mount, "ReadOnly", true),
            // Labels of SELinux are the engine's own affair.
            "rw" | "z" | "Z" => {}
            "nocopy" => put_true(child(mount, "VolumeOptions"), "NoCopy", true),
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" if is_path => {
                put(child(mount, "BindOptions"), "Propagation", option);
            }
            _ => return Err(field.bad(format!("unknown option {option:?}"))),
        }
    }
    Ok((if is_path { "bind" } else { "volume" }.to_owned(), source.to_owned()))
}

fn long(field: &Field<'_>, mount: &mut Object, report: &mut Report) -> Result<(String, String), CliError> {
    let known = ["type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs"];
    field.check(&known, &[], report)?;
    let text = |key: &str| field.get(key).map(|value| value.text()).transpose();
    let kind = text("type")?.ok_or_else(|| field.bad("type is missing: bind, volume or tmpfs"))?;
    put(mount, "Target", text("target")?.ok_or_else(|| field.bad("target is missing"))?);
    if let Some(read_only) = field.get("read_only") {
        put_true(mount, "ReadOnly", read_only.truth()?);
    }
    if let Some(consistency) = text("consistency")? {
        put(mount, "Consistency", consistency);
    }
    if let Some(bind) = field.get("bind") {
        bind.check(&["propagation", "create_host_path"], &["selinux"], report)?;
        if let Some(propagation) = bind.get("propagation") {
            put(child(mount, "BindOptions"), "Propagation", propagation.text()?);
        }
        if let Some(create) = bind.get("create_host_path") {
            put_true(child(mount, "BindOptions"), "CreateMountpoint", create.truth()?);
        }
    }
    if let Some(volume) = field.get("volume") {
        volume.check(&["nocopy", "subpath"], &[], report)?;
        if let Some(nocopy) = volume.get("nocopy") {
            put_true(child(mount, "VolumeOptions"), "NoCopy", nocopy.truth()?);
        }
        if let Some(subpath) = volume.get("subpath") {
            put(child(mount, "VolumeOptions"), "Subpath", subpath.text()?);
        }
    }
    if let Some(tmpfs) = field.get("tmpfs") {
        tmpfs.check(&["size", "mode"], &[], report)?;
        if let Some(size) = tmpfs.get("size") {
            put(child(mount, "TmpfsOptions"), "SizeBytes", size.parsed::<Bytes>()?.0);
        }
        if let Some(mode) = tmpfs.get("mode") {
            put(child(mount, "TmpfsOptions"), "Mode", mode.number()?);
        }
    }
    Ok((kind, text("source")?.unwrap_or_default()))
}

/// `tmpfs: /run:size=64m,mode=1777`.
pub fn tmpfs(field: &Field<'_>) -> Result<Value, CliError> {
    let text = field.text()?;
    let (target, options) = text.split_once(':').unwrap_or((&text, ""));
    let mut mount = Object::new();
    put(&mut mount, "Type", "tmpfs");
    put(&mut mount, "Target", target);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => {
                let size: Bytes = size.parse().map_err(|why| field.bad(why))?;
                put(child(&mut mount, "TmpfsOptions"), "SizeBytes", size.0);
            }
            Some(("mode", mode)) => {
                let mode = u32::from_str_radix(mode, 8).map_err(|_| field.bad("mode: want an octal mode, as 1777"))?;
                put(child(&mut mount, "TmpfsOptions"), "Mode", mode);
            }
            _ => return Err(field.bad(format!("unknown option {option:?}: want size or mode"))),
        }
    }
    Ok(Value::Object(mount))
}
