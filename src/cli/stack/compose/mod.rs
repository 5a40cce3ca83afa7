//! Compose files: read, merged, their variables filled in, and made into what the cluster's API takes. Whatever they say
//! that has no counterpart here is named: what Docker's own stacks pass over is a warning, everything else an error.

mod deploy;
mod extends;
mod field;
mod hardware;
mod interpolate;
mod service;
mod top;
mod volumes;

pub use interpolate::Variables;
pub use top::{FileObject, Network};

use crate::cli::error::CliError;
use crate::cli::json::Object;
use crate::cli::service::one_error;
use field::Field;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file of a stack may have so much.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What isn't supported, by its place.
#[derive(Debug, Default)]
pub struct Report {
    pub ignored: Vec<String>,
    /// With the key that was probably meant.
    pub unknown: Vec<(String, Option<String>)>,
    /// Services that would be built here, if anything were.
    pub built: Vec<String>,
    /// Variables that had no value.
    pub unset: Vec<String>,
}

/// A stack as its files describe it. Names are the cluster's, with the stack's before them.
#[derive(Debug)]
pub struct Stack {
    pub networks: Vec<Network>,
    pub secrets: Vec<FileObject>,
    pub configs: Vec<FileObject>,
    pub services: Vec<Service>,
    pub warnings: Vec<String>,
}

#[derive(Debug)]
pub struct Service {
    /// As the file has it.
    pub short: String,
    pub name: String,
    /// Docker's ServiceSpec. Secrets and configs stand in it by name alone until their ids are known.
    pub spec: Object,
    pub depends_on: BTreeSet<String>,
}

pub struct Source<'a> {
    pub files: &'a [PathBuf],
    pub stack: &'a str,
    pub profiles: &'a [String],
    /// The process's own variables.
    pub environment: Variables,
    /// Instead of the `.env` beside the first file.
    pub env_files: &'a [PathBuf],
}

/// What the conversions need to know beside the value at hand.
pub struct Context<'a> {
    pub stack: &'a str,
    pub dir: &'a Path,
    pub variables: &'a Variables,
}

impl Context<'_> {
    pub fn scoped(&self, name: &str) -> String {
        format!("{}_{name}", self.stack)
    }

    /// Relative to the first Compose file; `~` is the user's.
    pub fn path(&self, text: &str) -> PathBuf {
        match text.strip_prefix("~/").zip(self.variables.get("HOME")) {
            Some((rest, home)) => Path::new(home).join(rest),
            None => std::path::absolute(self.dir.join(text)).unwrap_or_else(|_| self.dir.join(text)),
        }
    }
}

pub const NAMESPACE: &str = "com.docker.stack.namespace";
pub const IMAGE: &str = "com.docker.stack.image";

pub fn load(source: &Source<'_>) -> Result<Stack, CliError> {
    let mut report = Report::default();
    let first = source.files.first().ok_or_else(|| CliError::misuse("no Compose file"))?;
    let here = std::env::current_dir().unwrap_or_default();
    let dir = if first == Path::new("-") { here } else { parent(first) };
    let variables = variables(source, &dir)?;
    let mut whole = Value::Object(Object::new());
    for file in source.files {
        let mut value = read(file)?;
        fill(&mut value, &variables, &mut report, &mut String::new())
            .map_err(|why| CliError::new(format!("{}: {why}", file.display())))?;
        extends::resolve(&mut value, file, &variables, &mut report)?;
        merge(&mut whole, value, "");
    }
    let context = Context { stack: source.stack, dir: &dir, variables: &variables };
    let stack = convert(&whole, source.profiles, &context, &mut report);
    // First of all: what is missing elsewhere may be missing because of a key that is mistyped.
    unknown(&report.unknown)?;
    Ok(finish(stack?, report))
}

fn parent(file: &Path) -> PathBuf {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())
}

/// All of them in one error.
fn unknown(keys: &[(String, Option<String>)]) -> Result<(), CliError> {
    if keys.is_empty() {
        return Ok(());
    }
    let line = |(place, meant): &(String, Option<String>)| match meant {
        Some(meant) => CliError::new(format!("{place}: unknown key; did you mean {meant}?")),
        None => CliError::new(format!("{place}: unknown key")),
    };
    let them = if keys.len() == 1 { "it" } else { "them" };
    one_error(keys.iter().map(line).collect())
        .map_err(|error| error.hint(format!("correct {them}, take {them} out, or begin {them} with x-")))
}

fn finish(mut stack: Stack, mut report: Report) -> Stack {
    for place in &report.built {
        stack.warnings.push(format!(
            "{place}.build: not supported, nothing is built: the nodes run {place}.image as the registry has it"
        ));
    }
    if !report.ignored.is_empty() {
        stack.warnings.push(format!("passed over, as a cluster has no use for it: {}", report.ignored.join(", ")));
    }
    report.unset.sort();
    report.unset.dedup();
    stack.warnings.extend(report.unset.iter().map(|name| format!("the variable {name} is not set: taken as empty")));
    stack
}

/// Those of the process win over those of the `.env`.
fn variables(source: &Source<'_>, dir: &Path) -> Result<Variables, CliError> {
    let mut files: Vec<PathBuf> = source.env_files.to_vec();
    if files.is_empty() && dir.join(".env").is_file() {
        files.push(dir.join(".env"));
    }
    let mut variables = Variables::new();
    for file in files {
        let text = text_of(&file)?;
        let found = interpolate::dotenv(&text, &source.environment)
            .map_err(|why| CliError::new(format!("{}: {why}", file.display())))?;
        variables.extend(found);
    }
    variables.extend(source.environment.clone());
    Ok(variables)
}

/// A file's text, within bounds; `-` is standard input.
pub fn text_of(file: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
    };
    read.map_err(|error| CliError::new(format!("{}: {error}", file.display())))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(CliError::new(format!("{}: longer than the {MAX_FILE_BYTES} bytes allowed", file.display())));
    }
    Ok(text)
}

fn read(file: &Path) -> Result<Value, CliError> {
    let text = text_of(file).map_err(|error| {
        CliError::new(format!("--compose-file {error}"))
            .hint("name a Compose file: --compose-file FILE (-c), or - for standard input")
    })?;
    parse(&text, file)
}

/// As docker reads YAML: 0400 is octal, and yes, no, on, off, y and n are texts. Bounds on depth and aliases are the parser's.
pub fn parse(text: &str, file: &Path) -> Result<Value, CliError> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, strict_booleans: true, with_snippet: false };
    let error = match serde_saphyr::from_str_with_options::<Value>(text, options) {
        Ok(value @ Value::Object(_)) => return Ok(value),
        Ok(_) => {
            return Err(CliError::new(format!(
                "{}: not a Compose file: want a mapping with services in it",
                file.display()
            )));
        }
        Err(error) => error,
    };
    let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    Err(CliError::new(match error.location() {
        Some(at) => {
            let place = format!(" at line {}, column {}", at.line(), at.column());
            let why = message.strip_suffix(&place).unwrap_or(&message);
            format!("{}:{}:{}: {why}", file.display(), at.line(), at.column())
        }
        None => format!("{}: {message}", file.display()),
    }))
}

/// In all texts, wherever they stand.
fn fill(value: &mut Value, variables: &Variables, report: &mut Report, at: &mut String) -> Result<(), String> {
    match value {
        Value::String(text) if text.contains('$') => {
            *text =
                interpolate::interpolate(text, variables, &mut report.unset).map_err(|why| format!("{at}: {why}"))?;
        }
        Value::Array(list) => {
            for item in list {
                fill(item, variables, report, at)?;
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                let length = at.len();
                if length > 0 {
                    at.push('.');
                }
                at.push_str(key);
                fill(value, variables, report, at)?;
                at.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

/// A later file over an earlier one: mappings by key, lists one after the other, everything else replaced. Commands are
/// wholes.
pub fn merge(into: &mut Value, from: Value, key: &str) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match into.get_mut(&key) {
                    Some(known) => merge(known, value, &key),
                    None => drop(into.insert(key, value)),
                }
            }
        }
        (Value::Array(into), Value::Array(from)) if !["command", "entrypoint", "test"].contains(&key) => {
            into.extend(from.into_iter().filter(|new| !into.contains(new)).collect::<Vec<_>>());
        }
        (into, from) => *into = from,
    }
}

fn convert(whole: &Value, profiles: &[String], context: &Context<'_>, report: &mut Report) -> Result<Stack, CliError> {
    let none = Value::Object(Object::new());
    let top = Field::of("", whole);
    for key in top.map()?.keys() {
        let known = ["version", "name", "services", "networks", "volumes", "secrets", "configs"];
        if !known.contains(&key.as_str()) && !key.starts_with("x-") {
            report.unknown.push((key.clone(), field::meant(key, &known)));
        }
    }
    let section = |key: &'static str| Field::of(key, whole.get(key).filter(|v| !v.is_null()).unwrap_or(&none));
    let volumes = volumes::volumes(&section("volumes"), context, report)?;
    let mut secrets = top::files(&section("secrets"), top::Kind::Secret, context, report)?;
    let mut configs = top::files(&section("configs"), top::Kind::Config, context, report)?;
    let mut networks = top::networks(&section("networks"), context, report)?;
    let given = service::Given { volumes: &volumes, secrets: &secrets, configs: &configs, networks: &networks };
    let (mut services, mut failed) = (Vec::new(), Vec::new());
    let mut used = service::Used::default();
    for (name, field) in section("services").entries()? {
        let of = field.get("profiles").map(|field| field.texts()).transpose()?.unwrap_or_default();
        if of.is_empty() || of.iter().any(|profile| profiles.contains(profile)) {
            match service::service(name, &field, &given, &mut used, context, report) {
                Ok(service) => services.push(service),
                Err(error) => failed.push(error),
            }
        }
    }
    one_error(failed)?;
    if services.is_empty() {
        return Err(
            CliError::new("there is no service to deploy").hint("are they all in profiles? name one: --profile NAME")
        );
    }
    // What no service uses isn't made.
    networks.retain(|network| used.networks.contains(&network.short));
    secrets.retain(|file| used.secrets.contains(&file.short));
    configs.retain(|file| used.configs.contains(&file.short));
    let known: BTreeMap<String, BTreeSet<String>> =
        services.iter().map(|s| (s.short.clone(), s.depends_on.clone())).collect();
    for service in &services {
        if let Some(missing) = service.depends_on.iter().find(|name| !known.contains_key(*name)) {
            return Err(CliError::new(format!("services.{}.depends_on: there is no service {missing}", service.short)));
        }
    }
    Ok(Stack { networks, secrets, configs, services: in_order(services)?, warnings: Vec::new() })
}

/// Each after those that it depends on; otherwise by name.
fn in_order(mut left: Vec<Service>) -> Result<Vec<Service>, CliError> {
    left.sort_by(|a, b| a.short.cmp(&b.short));
    let mut done: Vec<Service> = Vec::new();
    while !left.is_empty() {
        let ready = left.iter().position(|s| s.depends_on.iter().all(|name| done.iter().any(|d| d.short == *name)));
        let Some(at) = ready else {
            let names: Vec<&str> = left.iter().map(|service| service.short.as_str()).collect();
            return Err(CliError::new(format!("depends_on goes round in a circle: {}", names.join(", "))));
        };
        done.push(left.remove(at));
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
