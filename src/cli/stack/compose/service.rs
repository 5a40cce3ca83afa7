//! One service of a Compose file as Docker's ServiceSpec, with the names and labels that `docker stack` gives it.

use super::field::Field;
use super::interpolate::dotenv;
use super::top::{FileObject, Network};
use super::volumes::{Volume, mount, tmpfs};
use super::{Context, IMAGE, NAMESPACE, Report, Service, deploy, hardware, text_of};
use crate::cli::error::CliError;
use crate::cli::go::Nanos;
use crate::cli::json::{Object, child, put};
use crate::cli::service::csv::Words;
use crate::cli::service::ports::Ports;
use crate::cli::service::values::{Ulimit, capability};
use crate::model::spec::HOST_NETWORK;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the file's other parts give to services.
pub struct Given<'a> {
    pub volumes: &'a BTreeMap<String, Volume>,
    pub secrets: &'a [FileObject],
    pub configs: &'a [FileObject],
    pub networks: &'a [Network],
}

/// What of it some service uses.
#[derive(Default)]
pub struct Used {
    pub networks: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub configs: BTreeSet<String>,
}

const KNOWN: &[&str] = &[
    "build",
    "image",
    "command",
    "entrypoint",
    "environment",
    "env_file",
    "labels",
    "hostname",
    "extra_hosts",
    "dns",
    "dns_search",
    "dns_opt",
    "healthcheck",
    "working_dir",
    "user",
    "group_add",
    "volumes",
    "tmpfs",
    "stop_grace_period",
    "stop_signal",
    "tty",
    "stdin_open",
    "secrets",
    "configs",
    "read_only",
    "init",
    "sysctls",
    "cap_add",
    "cap_drop",
    "ulimits",
    "networks",
    "ports",
    "expose",
    "logging",
    "deploy",
    "depends_on",
    "profiles",
    "extends",
    "restart",
    "scale",
    "oom_score_adj",
    "cpus",
    "mem_limit",
    "mem_reservation",
    "pids_limit",
    "devices",
    "privileged",
    "shm_size",
    "gpus",
    "network_mode",
];
/// Docker's stacks pass over these, too, or they speak of this machine alone.
const IGNORED: &[&str] = &[
    "cgroup_parent",
    "cgroup",
    "container_name",
    "domainname",
    "external_links",
    "ipc",
    "links",
    "mac_address",
    "pid",
    "platform",
    "pull_policy",
    "security_opt",
    "userns_mode",
    "develop",
    "attach",
    "annotations",
];

fn image(short: &str, field: &Field<'_>, report: &mut Report) -> Result<String, CliError> {
    match (field.get("image"), field.get("build")) {
        (Some(image), build) => {
            report.built.extend(build.map(|_| field.at.clone()));
            image.text()
        }
        (None, Some(build)) => Err(build.bad("not supported: a cluster runs images from a registry").hint(format!(
            "build it and push it (docker build --push -t REGISTRY/{short} ...), then name it: image: REGISTRY/{short}"
        ))),
        (None, None) => Err(field
            .bad("image is missing")
            .hint("a cluster runs images from a registry: build it, push it, and name it here")),
    }
}

pub fn service(
    short: &str,
    field: &Field<'_>,
    given: &Given<'_>,
    used: &mut Used,
    context: &Context<'_>,
    report: &mut Report,
) -> Result<Service, CliError> {
    field.check(KNOWN, IGNORED, report)?;
    let name = context.scoped(short);
    // Without one the rest is read all the same: there may be more to be told.
    let image = image(short, field, report);
    let named = image.as_deref().unwrap_or_default();
    let mut spec = Object::new();
    put(&mut spec, "Name", name.as_str());
    let mut labels =
        BTreeMap::from([(NAMESPACE.to_owned(), context.stack.to_owned()), (IMAGE.to_owned(), named.to_owned())]);
    if let Some(of) = field.get("deploy").and_then(|deploy| deploy.get("labels")) {
        labels.extend(of.labels()?);
    }
    labels.extend(hardware::labels(field, report)?);
    put(&mut spec, "Labels", json!(labels));
    let task = child(&mut spec, "TaskTemplate");
    let container = child(task, "ContainerSpec");
    put(container, "Image", named);
    process(field, container)?;
    environment(field, container, context)?;
    let mut labels = field.get("labels").map(|labels| labels.labels()).transpose()?.unwrap_or_default();
    labels.insert(NAMESPACE.to_owned(), context.stack.to_owned());
    put(container, "Labels", json!(labels));
    names(field, container)?;
    kernel(field, container)?;
    health(field, container, report)?;
    let mounts = mounts(field, given, context, report)?;
    if !mounts.is_empty() {
        put(container, "Mounts", mounts);
    }
    files(field, given, used, container, report)?;
    if let Some(logging) = field.get("logging") {
        logging.check(&["driver", "options"], &[], report)?;
        let options = logging.get("options").map(|options| options.labels()).transpose()?;
        let driver = logging.get("driver").map(|driver| driver.text()).transpose()?;
        put(task, "LogDriver", json!({ "Name": driver.unwrap_or_default(), "Options": options }));
    }
    put(task, "Networks", networks(short, field, given, used, report)?);
    let ports = ports(field, report)?;
    deploy::deploy(field, &mut spec, report)?;
    if !ports.is_empty() {
        put(child(&mut spec, "EndpointSpec"), "Ports", ports);
    }
    let depends_on = depends_on(field, report)?;
    image.map(|_| Service { short: short.to_owned(), name, spec, depends_on })
}

/// A text is split as a shell would; a list stays as it is.
fn words(field: &Field<'_>) -> Result<Vec<String>, CliError> {
    match field.value {
        Value::Array(_) => field.texts(),
        _ => Ok(field.parsed::<Words>()?.0),
    }
}

fn process(field: &Field<'_>, container: &mut Object) -> Result<(), CliError> {
    for (key, name) in [("entrypoint", "Command"), ("command", "Args")] {
        if let Some(words_of) = field.get(key) {
            put(container, name, words(&words_of)?);
        }
    }
    for (key, name) in
        [("working_dir", "Dir"), ("user", "User"), ("stop_signal", "StopSignal"), ("hostname", "Hostname")]
    {
        if let Some(text) = field.get(key) {
            put(container, name, text.text()?);
        }
    }
    for (key, name) in [("tty", "TTY"), ("stdin_open", "OpenStdin"), ("read_only", "ReadOnly"), ("init", "Init")] {
        if let Some(truth) = field.get(key) {
            put(container, name, truth.truth()?);
        }
    }
    if let Some(groups) = field.get("group_add") {
        put(container, "Groups", groups.texts()?);
    }
    if let Some(grace) = field.get("stop_grace_period") {
        put(container, "StopGracePeriod", grace.parsed::<Nanos>()?.0);
    }
    Ok(())
}

/// `environment` wins over `env_file`; a name without a value takes the process's, if it has one.
fn environment(field: &Field<'_>, container: &mut Object, context: &Context<'_>) -> Result<(), CliError> {
    let mut environment: BTreeMap<String, Option<String>> = BTreeMap::new();
    let entries = match field.get("env_file") {
        Some(files) if files.value.is_array() => files.items()?,
        Some(file) => vec![file],
        None => Vec::new(),
    };
    for entry in entries {
        let (name, required) = match entry.get("path") {
            Some(path) => (path.text()?, entry.get("required").map(|r| r.truth()).transpose()?.unwrap_or(true)),
            None => (entry.text()?, true),
        };
        let path = context.path(&name);
        if !required && !path.exists() {
            continue;
        }
        let text = text_of(&path).map_err(|error| entry.bad(error.message()))?;
        let found = dotenv(&text, context.variables).map_err(|why| entry.bad(format!("{}: {why}", path.display())))?;
        environment.extend(found.into_iter().map(|(name, value)| (name, Some(value))));
    }
    if let Some(own) = field.get("environment") {
        environment.extend(own.pairs()?);
    }
    let lines: Vec<String> = environment
        .into_iter()
        .filter_map(|(name, value)| {
            let value = value.or_else(|| context.variables.get(&name).cloned())?;
            Some(format!("{name}={value}"))
        })
        .collect();
    if !lines.is_empty() {
        put(container, "Env", lines);
    }
    Ok(())
}

fn names(field: &Field<'_>, container: &mut Object) -> Result<(), CliError> {
    if let Some(hosts) = field.get("extra_hosts") {
        let entries: Vec<(String, String)> = if hosts.value.is_object() {
            hosts.labels()?.into_iter().collect()
        } else {
            let split = |text: &String| {
                let pair = text.split_once('=').or_else(|| text.split_once(':'));
                pair.map(|(name, ip)| (name.to_owned(), ip.to_owned()))
                    .ok_or_else(|| hosts.bad(format!("{text:?}: want NAME:IP")))
            };
            hosts.texts()?.iter().map(split).collect::<Result<_, _>>()?
        };
        let lines: Vec<String> = entries.iter().map(|(name, ip)| format!("{ip} {name}")).collect();
        put(container, "Hosts", lines);
    }
    for (key, name) in [("dns", "Nameservers"), ("dns_search", "Search"), ("dns_opt", "Options")] {
        if let Some(list) = field.get(key) {
            put(child(container, "DNSConfig"), name, list.texts()?);
        }
    }
    Ok(())
}

fn kernel(field: &Field<'_>, container: &mut Object) -> Result<(), CliError> {
    if let Some(sysctls) = field.get("sysctls") {
        put(container, "Sysctls", json!(sysctls.labels()?));
    }
    for (key, name) in [("cap_add", "CapabilityAdd"), ("cap_drop", "CapabilityDrop")] {
        if let Some(list) = field.get(key) {
            let of = |text: &String| capability(text).map_err(|why| list.bad(why));
            put(container, name, list.texts()?.iter().map(of).collect::<Result<Vec<_>, _>>()?);
        }
    }
    if let Some(limits) = field.get("ulimits") {
        let mut list = Vec::new();
        for (name, limit) in limits.entries()? {
            let text = match (limit.get("soft"), limit.get("hard")) {
                (Some(soft), Some(hard)) => format!("{name}={}:{}", soft.text()?, hard.text()?),
                _ => format!("{name}={}", limit.text()?),
            };
            list.push(text.parse::<Ulimit>().map_err(|why| limit.bad(why))?.json());
        }
        put(container, "Ulimits", list);
    }
    if let Some(score) = field.get("oom_score_adj") {
        put(container, "OomScoreAdj", score.parsed::<i64>()?);
    }
    Ok(())
}

fn health(field: &Field<'_>, container: &mut Object, report: &mut Report) -> Result<(), CliError> {
    let Some(check) = field.get("healthcheck") else { return Ok(()) };
    let known = ["test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"];
    check.check(&known, &[], report)?;
    let mut health = Object::new();
    if check.get("disable").map(|disable| disable.truth()).transpose()? == Some(true) {
        put(&mut health, "Test", json!(["NONE"]));
    } else if let Some(test) = check.get("test") {
        match test.value {
            Value::Array(_) => put(&mut health, "Test", test.texts()?),
            _ => put(&mut health, "Test", json!(["CMD-SHELL", test.text()?])),
        }
    }
    for (key, name) in [
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ] {
        if let Some(time) = check.get(key) {
            put(&mut health, name, time.parsed::<Nanos>()?.0);
        }
    }
    if let Some(retries) = check.get("retries") {
        put(&mut health, "Retries", retries.number()?);
    }
    put(container, "Healthcheck", Value::Object(health));
    Ok(())
}

fn mounts(
    field: &Field<'_>,
    given: &Given<'_>,
    context: &Context<'_>,
    report: &mut Report,
) -> Result<Vec<Value>, CliError> {
    let mut mounts = Vec::new();
    for entry in field.get("volumes").map(|volumes| volumes.items()).transpose()?.unwrap_or_default() {
        mounts.push(mount(&entry, given.volumes, context, report)?);
    }
    let in_memory = match field.get("tmpfs") {
        Some(list) if list.value.is_array() => list.items()?,
        Some(one) => vec![one],
        None => Vec::new(),
    };
    for entry in in_memory {
        mounts.push(tmpfs(&entry)?);
    }
    Ok(mounts)
}

fn files(
    field: &Field<'_>,
    given: &Given<'_>,
    used: &mut Used,
    container: &mut Object,
    report: &mut Report,
) -> Result<(), CliError> {
    let kinds = [
        ("secrets", "Secrets", "SecretName", given.secrets, &mut used.secrets),
        ("configs", "Configs", "ConfigName", given.configs, &mut used.configs),
    ];
    for (key, list, name_key, known, used) in kinds {
        let mut refs = Vec::new();
        for entry in field.get(key).map(|entries| entries.items()).transpose()?.unwrap_or_default() {
            if entry.value.is_object() {
                entry.check(&["source", "target", "uid", "gid", "mode"], &[], report)?;
            }
            let text = |key: &str| entry.get(key).map(|value| value.text()).transpose();
            let source = match entry.get("source") {
                Some(source) => source.text()?,
                None => entry.text()?,
            };
            let found = known.iter().find(|object| object.short == source).ok_or_else(|| {
                entry.bad(format!("there is no {source}")).hint(format!("add it at the top, under {key}"))
            })?;
            used.insert(source.clone());
            let file = json!({
                "Name": text("target")?.unwrap_or(source),
                "UID": text("uid")?.unwrap_or_else(|| "0".to_owned()),
                "GID": text("gid")?.unwrap_or_else(|| "0".to_owned()),
                "Mode": entry.get("mode").map(|mode| mode.number()).transpose()?.unwrap_or(0o444),
            });
            refs.push(json!({ "File": file, name_key: found.name }));
        }
        if !refs.is_empty() {
            put(container, list, refs);
        }
    }
    Ok(())
}

fn networks(
    short: &str,
    field: &Field<'_>,
    given: &Given<'_>,
    used: &mut Used,
    report: &mut Report,
) -> Result<Vec<Value>, CliError> {
    match field.get("network_mode").map(|mode| mode.text()).transpose()?.as_deref() {
        Some(HOST_NETWORK) if field.get("networks").is_none() => return Ok(vec![json!({ "Target": HOST_NETWORK })]),
        Some(HOST_NETWORK) => return Err(field.bad("network_mode: host and networks: want one of them")),
        Some(_) => report.ignored.push(format!("{}.network_mode", field.at)),
        None => {}
    }
    let mut wanted: Vec<(String, Vec<String>)> = Vec::new();
    match field.get("networks") {
        None => wanted.push(("default".to_owned(), Vec::new())),
        Some(list) if list.value.is_array() => {
            wanted.extend(list.texts()?.into_iter().map(|name| (name, Vec::new())));
        }
        Some(map) => {
            for (name, network) in map.entries()? {
                let mut aliases = Vec::new();
                if network.value.is_object() {
                    network.check(
                        &["aliases"],
                        &["ipv4_address", "ipv6_address", "priority", "link_local_ips"],
                        report,
                    )?;
                    aliases = network.get("aliases").map(|aliases| aliases.texts()).transpose()?.unwrap_or_default();
                }
                wanted.push((name.to_owned(), aliases));
            }
        }
    }
    let mut networks = Vec::new();
    for (name, mut aliases) in wanted {
        let found = given.networks.iter().find(|network| network.short == name).ok_or_else(|| {
            field
                .bad(format!("there is no network {name}"))
                .hint(format!("add it at the top: networks: {{{name}: {{}}}}"))
        })?;
        used.networks.insert(name);
        if found.name != HOST_NETWORK {
            aliases.push(short.to_owned());
        }
        networks.push(json!({ "Target": found.name, "Aliases": aliases }));
    }
    Ok(networks)
}

fn ports(field: &Field<'_>, report: &mut Report) -> Result<Vec<Value>, CliError> {
    let mut ports = Vec::new();
    for entry in field.get("ports").map(|ports| ports.items()).transpose()?.unwrap_or_default() {
        let text = if entry.value.is_object() {
            entry.check(&["target", "published", "protocol", "mode"], &["name", "app_protocol", "host_ip"], report)?;
            let mut parts = Vec::new();
            for key in ["target", "published", "protocol", "mode"] {
                if let Some(value) = entry.get(key) {
                    parts.push(format!("{key}={}", value.text()?));
                }
            }
            parts.join(",")
        } else {
            entry.text()?
        };
        let parsed: Ports = text.parse().map_err(|why| entry.bad(why))?;
        ports.extend(parsed.0.iter().map(|port| port.json()));
    }
    Ok(ports)
}

fn depends_on(field: &Field<'_>, report: &mut Report) -> Result<BTreeSet<String>, CliError> {
    match field.get("depends_on") {
        None => Ok(BTreeSet::new()),
        Some(map) if map.value.is_object() => {
            for (_, of) in map.entries()? {
                if of.value.is_object() {
                    // Whatever is asked for: one is waited for until it has converged, health checks and all.
                    of.check(&["condition", "restart", "required"], &[], report)?;
                }
            }
            Ok(map.map()?.keys().cloned().collect())
        }
        Some(list) => Ok(list.texts()?.into_iter().collect()),
    }
}
