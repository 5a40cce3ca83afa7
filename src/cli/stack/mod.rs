//! `peer stack`: Compose files on the cluster. Names and labels are those of `docker stack`, so both tools see each
//! other's stacks. It reads the files itself ([`compose`]), orders services by what they depend on, waits for them with
//! one display, and goes back as a whole.

mod apply;
pub mod compose;
mod diff;
mod keys;
mod rollback;

pub use apply::STAMP;

use super::client::{Client, escaped, no_such, with_query};
use super::console::Console;
use super::error::CliError;
use super::go::Nanos;
use super::json::{items, pairs, text};
use super::list::{self, ListArgs, Row};
use super::progress::{self, Doing, Limits, Wait};
use super::service::{self, one_error, path, tell_warnings};
use super::table::natural;
use super::tasks;
use clap::{Args, Subcommand, ValueEnum};
use compose::{NAMESPACE, Source, Stack};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Manage stacks: Compose files as services of the cluster
#[derive(Debug, Subcommand)]
pub enum StackCommand {
    /// Deploy a stack, or change one to what its files say now, and wait until its services have converged
    ///
    /// Services start in the order of their depends_on, each after those that it depends on have converged. The exit code is 1
    /// if a rollout pauses or rolls back, and with --timeout if it takes too long: a service that never ran has nothing to go back
    /// to, so its tasks are tried for ever.
    #[command(
        override_usage = "peer stack deploy [OPTIONS] [-c FILE]... STACK",
        visible_alias = "up",
        after_help = "Examples:\n  peer stack deploy -c compose.yml shop\n  peer stack deploy -c compose.yml -c prod.yml --prune shop\n  TAG=1.3 peer stack deploy --quiet --timeout 10m --rollback-on-failure -c compose.yml shop"
    )]
    Deploy(Deploy),
    /// Show what a deploy would change
    ///
    /// One line for each thing that would be made (+), changed (~) or removed (-); without any it says so on stderr. The exit
    /// code is 0 either way, and with --exit-code 1 if anything differs; a file that makes no sense is 1, too, with an error.
    #[command(
        override_usage = "peer stack diff [OPTIONS] [-c FILE]... STACK",
        after_help = "Examples:\n  peer stack diff -c compose.yml shop\n  peer stack diff --exit-code -c compose.yml shop     exit code 1 if anything differs"
    )]
    Diff(Diff),
    /// List stacks
    #[command(visible_alias = "list", after_help = "Examples:\n  peer stack ls\n  peer stack ls --format '{{.Name}}'")]
    Ls(Ls),
    /// List the tasks of a stack
    #[command(after_help = "Examples:\n  peer stack ps shop\n  peer stack ps --filter desired-state=running shop")]
    Ps(Ps),
    /// List the services of a stack
    #[command(after_help = "Examples:\n  peer stack services shop\n  peer stack services -q shop")]
    Services(Services),
    /// Go back to what the stack was before the last deploy that changed it
    ///
    /// Each service that this deploy changed goes back to its revision from before. Services that it added stay, and what --prune
    /// removed doesn't come back. What has been taken back already is left as it is. In a pipeline, where the deploy that failed may have changed nothing:
    /// peer stack deploy --rollback-on-failure
    #[command(after_help = "Examples:\n  peer stack rollback shop\n  peer stack rollback -d shop")]
    Rollback(Rollback),
    /// Remove stacks: their services, secrets, configs and networks; volumes stay
    #[command(visible_aliases = ["remove", "down"], after_help = "Examples:\n  peer stack rm shop\n  peer stack rm shop test")]
    Rm(Rm),
}

#[derive(Debug, Args)]
pub struct Files {
    /// A Compose file, or - for standard input; later ones lie over earlier ones [default: compose.yaml, compose.yml or docker-compose.yml]
    #[arg(short = 'c', long = "compose-file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Deploy the services of this profile, too
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// Read variables from here instead of the .env beside the first file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Ask a registry for the digests of images
    #[arg(long, value_enum, default_value_t = Resolve::Always, value_name = "WHEN")]
    resolve_image: Resolve,
    /// Send the credentials for the images' registries along
    #[arg(long)]
    with_registry_auth: bool,
    #[arg(value_name = "STACK", value_parser = stack_name)]
    stack: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Resolve {
    Always,
    Changed,
    Never,
}

#[derive(Debug, Args)]
pub struct Deploy {
    #[command(flatten)]
    files: Files,
    /// Remove services that the files have no more
    #[arg(long)]
    prune: bool,
    /// Don't wait until the services have converged
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    detach: bool,
    /// Wait, but don't show it
    #[arg(short, long)]
    quiet: bool,
    /// Fail if it takes longer, as 10m; the cluster goes on with it
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Nanos>,
    /// Take back what this deploy changed if it fails; services that it added stay
    #[arg(long, conflicts_with = "detach")]
    rollback_on_failure: bool,
}

#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    files: Files,
    /// Exit with 1 if anything differs
    #[arg(long)]
    exit_code: bool,
}

#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
pub struct Ps {
    #[arg(value_name = "STACK", value_parser = stack_name)]
    stack: String,
    #[command(flatten)]
    tasks: tasks::TaskArgs,
}

#[derive(Debug, Args)]
pub struct Services {
    #[arg(value_name = "STACK", value_parser = stack_name)]
    stack: String,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
pub struct Rollback {
    #[arg(value_name = "STACK", value_parser = stack_name)]
    stack: String,
    /// Don't wait until the services have converged
    #[arg(short, long)]
    detach: bool,
    /// Wait, but don't show it
    #[arg(short, long)]
    quiet: bool,
    /// Stop waiting after so long, as 10m, with an error; the cluster goes on with it
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Nanos>,
}

impl Deploy {
    fn limits(&self) -> Limits {
        Limits::new(self.quiet, self.timeout)
    }
}

#[derive(Debug, Args)]
pub struct Rm {
    #[arg(value_name = "STACK", required = true, value_parser = stack_name)]
    stacks: Vec<String>,
    /// Taken as docker's; what is left stops in the background either way
    #[arg(short, long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    detach: bool,
}

fn stack_name(text: &str) -> Result<String, String> {
    let fits = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fits && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= 48 {
        return Ok(text.to_owned());
    }
    Err("want a name of letters, digits, - _ and ., 48 at most".to_owned())
}

pub async fn run(command: &StackCommand, client: &Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        StackCommand::Deploy(args) => deploy(args, client, console).await,
        StackCommand::Diff(args) => diff::diff(args, client, console).await,
        StackCommand::Ls(args) => ls(args, client, console).await,
        StackCommand::Ps(args) => ps(args, client, console).await,
        StackCommand::Services(args) => services(args, client, console).await,
        StackCommand::Rollback(args) => rollback::roll_back(args, client, console).await,
        StackCommand::Rm(args) => rm(args, client, console).await,
    }
}

impl Files {
    fn load(&self, console: &mut Console) -> Result<Stack, CliError> {
        let usual = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
        let mut files = self.files.clone();
        if files.is_empty() {
            files.extend(usual.iter().map(PathBuf::from).find(|file| file.is_file()));
        }
        if files.is_empty() {
            return Err(CliError::misuse("there is no compose.yaml, compose.yml or docker-compose.yml here")
                .hint("name the file: --compose-file FILE"));
        }
        let source = Source {
            files: &files,
            stack: &self.stack,
            profiles: &self.profile,
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            env_files: &self.env_file,
        };
        let stack = compose::load(&source)?;
        stack.warnings.iter().for_each(|warning| console.warn(warning));
        Ok(stack)
    }
}

/// Docker's filter for what belongs to a stack.
fn labelled(path: &str, stack: &str) -> String {
    let filters = serde_json::json!({ "label": { format!("{NAMESPACE}={stack}"): true } }).to_string();
    with_query(path, &[("filters", &filters)])
}

/// The stack's services as they are, by name.
async fn existing(stack: &str, client: &Client) -> Result<BTreeMap<String, Value>, CliError> {
    let answer = client.get(&labelled("/services", stack)).await?;
    Ok(items(&answer).iter().map(|service| (text(service, "/Spec/Name").to_owned(), service.clone())).collect())
}

async fn deploy(args: &Deploy, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let stack = args.files.load(console)?;
    // By our clock and not by one of the cluster's: it only has to tell one deploy from the others.
    let now = console.now();
    let limits = args.limits();
    let failure = match carry_out(args, &stack, now, limits, client, console).await {
        Err(error) if args.rollback_on_failure && !error.is_interrupt() => error,
        result => return result,
    };
    console.note(&format!("the deploy failed: {}", failure.message()));
    // With a time of its own: that of the deploy may be up.
    let limits = args.limits();
    let taken_back = match existing(&args.files.stack, client).await {
        Ok(services) => rollback::take_back(&services, Some(now), Some(limits), client, console).await,
        Err(error) => Err(error),
    };
    match taken_back {
        Ok(()) => Err(failure),
        Err(error) => one_error(vec![failure, error]),
    }
}

async fn carry_out(
    args: &Deploy,
    stack: &Stack,
    now: jiff::Timestamp,
    limits: Limits,
    client: &Client,
    console: &mut Console,
) -> Result<(), CliError> {
    let mut before = existing(&args.files.stack, client).await?;
    let objects = apply::prepare(stack, client, console).await?;
    if args.prune {
        let kept: BTreeSet<&String> = stack.services.iter().map(|service| &service.name).collect();
        for (name, service) in before.iter().filter(|(name, _)| !kept.contains(name)) {
            console.line(&format!("Removing service {name}"))?;
            let answer = client.delete(&path(text(service, "/ID"))).await?;
            tell_warnings(&answer, console);
        }
        before.retain(|name, _| kept.contains(name));
    }
    let stamp = now.to_string();
    let mut deployed: Vec<apply::Deployed> = Vec::new();
    let mut converged = 0;
    for service in &stack.services {
        let waits_for = deployed[converged..].iter().any(|done| service.depends_on.contains(&done.short));
        if waits_for && !args.detach {
            wait(&deployed[converged..], Doing::Deploying, limits, client, console).await?;
            converged = deployed.len();
        }
        let old = before.get(&service.name);
        deployed.push(apply::service(service, old, &objects, &stamp, &args.files, client, console).await?);
    }
    if args.detach {
        return Ok(());
    }
    wait(&deployed[converged..], Doing::Deploying, limits, client, console).await
}

async fn wait(
    services: &[apply::Deployed],
    doing: Doing,
    limits: Limits,
    client: &Client,
    console: &mut Console,
) -> Result<(), CliError> {
    let named = services.iter().filter(|service| !service.held);
    let waits: Vec<Wait<'_>> = named
        .map(|service| Wait { id: &service.id, shown: &service.name, doing, limits, poll: progress::POLL })
        .collect();
    progress::wait_all(&waits, client, console).await
}

async fn ls(args: &Ls, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let filters = serde_json::json!({ "label": { NAMESPACE: true } }).to_string();
    let answer = client.get(&with_query("/services", &[("filters", &filters)])).await?;
    let mut stacks: BTreeMap<&str, usize> = BTreeMap::new();
    for service in items(&answer) {
        let labels = pairs(service, "/Spec/Labels");
        let stack = labels.iter().find(|(key, _)| *key == NAMESPACE).map_or("", |(_, stack)| stack);
        *stacks.entry(stack).or_default() += 1;
    }
    let mut stacks: Vec<(&str, usize)> = stacks.into_iter().collect();
    stacks.sort_by(|(a, _), (b, _)| natural(a, b));
    let row = |(name, count): (&str, usize)| {
        Row::new(name.to_owned(), &["Name", "Services"], vec![name.to_owned(), count.to_string()])
    };
    list::show(&args.list, &["NAME", "SERVICES"], stacks.into_iter().map(row).collect(), console)
}

fn nothing(stack: &str) -> CliError {
    no_such("stack", stack)
}

async fn ps(args: &Ps, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let services = existing(&args.stack, client).await?;
    if services.is_empty() {
        return Err(nothing(&args.stack));
    }
    let ids: Vec<String> = services.values().map(|service| text(service, "/ID").to_owned()).collect();
    tasks::show(&args.tasks, "service", &ids, client, console).await
}

async fn services(args: &Services, client: &Client, console: &mut Console) -> Result<(), CliError> {
    if existing(&args.stack, client).await?.is_empty() {
        return Err(nothing(&args.stack));
    }
    let of_stack = [("label".to_owned(), format!("{NAMESPACE}={}", args.stack))];
    service::list::show(&args.list, &of_stack, client, console).await
}

async fn rm(args: &Rm, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let mut failed = Vec::new();
    for stack in &args.stacks {
        let mut found = false;
        for (what, list) in
            [("service", "/services"), ("secret", "/secrets"), ("config", "/configs"), ("network", "/networks")]
        {
            let answer = client.get(&labelled(list, stack)).await?;
            for object in items(&answer) {
                let (id, name) = match what {
                    "network" => (text(object, "/Id"), text(object, "/Name")),
                    _ => (text(object, "/ID"), text(object, "/Spec/Name")),
                };
                found = true;
                console.line(&format!("Removing {what} {name}"))?;
                if let Err(error) = client.delete(&format!("{list}/{}", escaped(id))).await {
                    failed.push(CliError::from(error));
                }
            }
        }
        if !found {
            failed.push(nothing(stack));
        }
    }
    one_error(failed)
}
