//! `peer service`: its commands, and the writes among them. Reading and printing stand in modules of their own.

mod changes;
mod create;
pub mod csv;
mod edit;
mod flags;
mod history;
pub mod image;
mod inspect;
pub mod list;
mod logs;
mod mounts;
pub mod ports;
mod refs;
mod settings;
#[cfg(test)]
mod tests;
pub mod values;

#[cfg(test)]
pub use flags::fields_with_flags;
pub use flags::{entry_of, part_of};
pub use inspect::{Shape, show};
pub use values::pair;

use super::client::{Answer, Client, escaped, no_such, with_query};
use super::console::Console;
use super::error::CliError;
use super::json::{Object, child, index, into_object, put, text, texts};
use super::progress::{self, Doing, Limits};
use super::tasks;
use clap::{Args, Subcommand};
use flags::By;
use serde_json::Value;
use settings::{How, Waiting};

/// Writes that find somebody else's write in between read again and try again this often.
const ATTEMPTS: usize = 4;

/// Manage services
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    Create(Box<create::Create>),
    Ls(list::Ls),
    Ps(Ps),
    Inspect(inspect::Inspect),
    Update(Box<edit::Update>),
    Scale(Scale),
    Rollback(Rollback),
    History(history::History),
    Logs(logs::Logs),
    Rm(Rm),
}

const PS_EXAMPLES: &str = "\
Examples:
  peer service ps web
  peer service ps --filter desired-state=running web db
  peer service ps --no-trunc --format '{{.Node}} {{.Error}}' web";

/// List the tasks of services
#[derive(Debug, Args)]
#[command(after_help = PS_EXAMPLES)]
pub struct Ps {
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
    #[command(flatten)]
    tasks: tasks::TaskArgs,
}

const SCALE_EXAMPLES: &str = "\
Examples:
  peer service scale web=5
  peer service scale web=5 worker=20
  peer service scale -d web=0";

/// Change the number of tasks of replicated services
#[derive(Debug, Args)]
#[command(after_help = SCALE_EXAMPLES)]
pub struct Scale {
    #[arg(value_name = "SERVICE=N", required = true, value_parser = service_and_number)]
    services: Vec<(String, u64)>,
    #[command(flatten)]
    waiting: Waiting,
}

fn service_and_number(text: &str) -> Result<(String, u64), String> {
    let (service, number) =
        text.split_once('=').filter(|(service, _)| !service.is_empty()).ok_or("want SERVICE=N, as web=5")?;
    let number = number.parse().map_err(|_| format!("{number:?} is no number of tasks: want SERVICE=N, as web=5"))?;
    Ok((service.to_owned(), number))
}

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  peer service rollback web               to the revision before the current one
  peer service rollback --to 3 web        to one that `peer service history web` shows";

/// Go back to an earlier revision of a service
#[derive(Debug, Args)]
#[command(after_help = ROLLBACK_EXAMPLES)]
pub struct Rollback {
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The revision's number
    #[arg(long, value_name = "REVISION", value_parser = values::count::<u32>)]
    to: Option<u32>,
    #[command(flatten)]
    waiting: Waiting,
}

const RM_EXAMPLES: &str = "\
Examples:
  peer service rm web
  peer service rm web db cache";

/// Remove services and their containers
#[derive(Debug, Args)]
#[command(visible_alias = "remove", after_help = RM_EXAMPLES)]
pub struct Rm {
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

pub async fn run(command: ServiceCommand, client: &Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        ServiceCommand::Create(args) => create(&args, client, console).await,
        ServiceCommand::Ls(args) => list::ls(&args, client, console).await,
        ServiceCommand::Ps(args) => ps(&args, client, console).await,
        ServiceCommand::Inspect(args) => inspect::inspect(&args, client, console).await,
        ServiceCommand::Update(args) => update(&args, client, console).await,
        ServiceCommand::Scale(args) => scale(&args, client, console).await,
        ServiceCommand::Rollback(args) => roll_back(&args.service, args.to, args.waiting, client, console).await,
        ServiceCommand::History(args) => history::history(&args, client, console).await,
        ServiceCommand::Logs(args) => logs::logs(&args, client, console).await,
        ServiceCommand::Rm(args) => remove(&args, client, console).await,
    }
}

pub fn path(service: &str) -> String {
    format!("/services/{}", escaped(service))
}

async fn create(args: &create::Create, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let mut spec = args.spec()?;
    args.refs.apply(&mut spec, client).await?;
    let image = resolve_image(&mut spec, &args.settings.how, client).await?;
    let name = spec.get("Name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let answer = client.post_with("/services/create", Some(&Value::Object(spec)), image.auth.as_deref()).await;
    let answer = flags::warned(answer.map_err(|error| flags::refused(error, By::Create))?, By::Create);
    image.tell(console);
    let held = tell_warnings(&answer, console);
    let id = text(&answer, "/ID").to_owned();
    console.line(&id)?;
    // One that was given no name has the agent's, which the answer doesn't tell.
    let shown = if name.is_empty() { &id } else { &name };
    wait(&id, shown, Doing::Deploying, args.settings.how.waiting, held, client, console).await
}

/// What looking for the image led to, besides its digest in the spec.
#[derive(Default)]
struct Resolved {
    /// To send with the spec, if that was asked for.
    auth: Option<String>,
    /// For when the write has been taken.
    warnings: Vec<String>,
}

impl Resolved {
    fn tell(&self, console: &mut Console) {
        self.warnings.iter().for_each(|warning| console.note(warning));
    }
}

/// Names the tag and asks for the digest.
async fn resolve_image(spec: &mut Object, how: &How, client: &Client) -> Result<Resolved, CliError> {
    let container = child(child(spec, "TaskTemplate"), "ContainerSpec");
    let image = image::tagged(container.get("Image").and_then(Value::as_str).unwrap_or_default());
    put(container, "Image", image.as_str());
    let send = how.with_registry_auth == Some(true);
    let stored = match image::stored_auth(&image) {
        Ok(auth) => auth,
        Err(error) if send => return Err(error),
        // Only the digest wanted it, and that may be had without.
        Err(_) => None,
    };
    let mut warnings = Vec::new();
    if how.no_resolve_image != Some(true) {
        warnings.extend(image::pin(client, spec, stored.as_deref()).await.err());
    }
    if send && stored.is_none() {
        let host = image::registry(&image);
        warnings.push(format!("warning: --with-registry-auth: docker's config.json has no credentials for {host}"));
    }
    Ok(Resolved { auth: stored.filter(|_| send), warnings })
}

async fn update(args: &edit::Update, client: &Client, console: &mut Console) -> Result<(), CliError> {
    if args.rollback {
        let mut spec = read(&args.service, client).await?.1;
        let before = spec.clone();
        args.edit(&mut spec)?;
        args.refs.apply(&mut spec, client).await?;
        if spec != before {
            return Err(CliError::misuse("other flags may not be combined with --rollback"));
        }
        return roll_back(&args.service, None, args.settings.how.waiting, client, console).await;
    }
    // The image is asked for once, even if the write has to be tried again.
    let mut pinned: Option<Object> = None;
    let mut image = Resolved::default();
    for attempt in 1.. {
        let (service, mut spec) = read(&args.service, client).await?;
        let before = spec.clone();
        args.edit(&mut spec)?;
        args.refs.apply(&mut spec, client).await?;
        if args.image.is_some() {
            match &pinned {
                Some(pinned) => copy_image(pinned, &mut spec),
                None => {
                    image = resolve_image(&mut spec, &args.settings.how, client).await?;
                    pinned = Some(spec.clone());
                }
            }
        } else if attempt == 1 && args.settings.how.with_registry_auth == Some(true) {
            let name = text(&Value::Object(spec.clone()), "/TaskTemplate/ContainerSpec/Image").to_owned();
            image.auth = image::stored_auth(&name)?;
        }
        let unchanged = same(&before, &spec);
        if unchanged {
            spec = before;
        }
        let unchanged = unchanged && image.auth.is_none();
        let version = index(&service);
        let mut parameters = vec![("version", version.as_str())];
        if args.settings.how.with_registry_auth != Some(true) {
            parameters.insert(0, ("registryAuthFrom", "spec"));
        }
        let path = with_query(&format!("{}/update", path(text(&service, "/ID"))), &parameters);
        match client.post_with(&path, Some(&Value::Object(spec)), image.auth.as_deref()).await {
            Err(error) if error.is_out_of_sequence() && attempt < ATTEMPTS => {}
            answer => {
                let answer = answer.map_err(|error| flags::refused(error, By::Update))?;
                image.tell(console);
                let held = tell_warnings(&flags::warned(answer, By::Update), console);
                if unchanged && !is_held_up(&service) {
                    console.note(&format!(
                        "nothing to change: {} has what the flags ask for, and nothing that they take away",
                        args.service
                    ));
                    args.targets_meant(&service).iter().for_each(|meant| console.note(meant));
                    return Ok(());
                }
                console.line(&args.service)?;
                let id = text(&service, "/ID");
                return wait(id, &args.service, Doing::Deploying, args.settings.how.waiting, held, client, console)
                    .await;
            }
        }
    }
    Ok(())
}

/// Its update has paused or was rolled back: the same spec once more is another try, and no revision like the one before.
fn is_held_up(service: &Value) -> bool {
    let state = text(service, "/UpdateStatus/State");
    state == "paused" || state.starts_with("rollback")
}

/// What is empty is as good as not there.
fn same(a: &Object, b: &Object) -> bool {
    fn bare(object: &Object) -> Object {
        let bare = |value: &Value| match value {
            Value::Object(object) => Value::Object(bare(object)),
            value => value.clone(),
        };
        let kept = object.iter().map(|(key, value)| (key.clone(), bare(value)));
        kept.filter(|(_, value)| !is_empty(value)).collect()
    }
    fn is_empty(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Object(object) => object.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        }
    }
    bare(a) == bare(b)
}

fn copy_image(from: &Object, to: &mut Object) {
    let from = Value::Object(from.clone());
    let task = child(to, "TaskTemplate");
    put(child(task, "ContainerSpec"), "Image", text(&from, "/TaskTemplate/ContainerSpec/Image"));
    if let Some(platforms) = from.pointer("/TaskTemplate/Placement/Platforms") {
        put(child(task, "Placement"), "Platforms", platforms.clone());
    }
}

/// The service, and its spec to be edited.
async fn read(service: &str, client: &Client) -> Answer<(Value, Object)> {
    let found = client.get(&path(service)).await?;
    let spec = found.get("Spec").and_then(Value::as_object).cloned().unwrap_or_default();
    Ok((found, spec))
}

async fn scale(args: &Scale, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let mut scaled = Vec::new();
    let mut failed = Vec::new();
    for (service, replicas) in &args.services {
        match scale_one(service, *replicas, client, console).await {
            Ok(id_and_held) => {
                console.line(&format!("{service} scaled to {replicas}"))?;
                scaled.push((service, id_and_held));
            }
            Err(error) => failed.push(error),
        }
    }
    for (service, (id, held)) in scaled {
        if let Err(error) = wait(&id, service, Doing::Deploying, args.waiting, held, client, console).await {
            failed.push(error);
        }
    }
    one_error(failed)
}

async fn scale_one(
    service: &str,
    replicas: u64,
    client: &Client,
    console: &mut Console,
) -> Result<(String, bool), CliError> {
    let mut attempt = 1;
    loop {
        let (found, mut spec) = read(service, client).await?;
        settings::set_replicas(child(&mut spec, "Mode"), replicas).map_err(|()| {
            CliError::new(format!("{service}: scale can only be used with replicated or replicated-job mode"))
        })?;
        let id = text(&found, "/ID").to_owned();
        let path = with_query(&format!("{}/update", path(&id)), &[("version", &index(&found))]);
        match client.post(&path, Some(&Value::Object(spec))).await {
            Err(error) if error.is_out_of_sequence() && attempt < ATTEMPTS => attempt += 1,
            answer => return Ok((id, tell_warnings(&answer?, console))),
        }
    }
}

async fn roll_back(
    service: &str,
    to: Option<u32>,
    waiting: Waiting,
    client: &Client,
    console: &mut Console,
) -> Result<(), CliError> {
    let found = client.get(&path(service)).await?;
    let id = text(&found, "/ID");
    let (to, version) = (to.map(|to| to.to_string()), index(&found));
    let mut parameters = vec![("version", version.as_str())];
    parameters.extend(to.as_deref().map(|to| ("to", to)));
    let path = with_query(&format!("/peer/services/{}/rollback", escaped(id)), &parameters);
    let answer = client.post(&path, None).await.map_err(|error| {
        // What there is of services doesn't help with a revision that isn't there.
        let of_revision = to.is_some() && error.is_not_found();
        let error = CliError::from(error);
        if error.hint_text().is_some() && !of_revision {
            error
        } else {
            error.hint(format!("see the kept revisions with: peer service history {service}"))
        }
    })?;
    let held = tell_warnings(&answer, console);
    console.line(service)?;
    wait(id, service, Doing::RollingBack, waiting, held, client, console).await
}

async fn remove(args: &Rm, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let mut failed = Vec::new();
    for service in &args.services {
        match client.delete(&path(service)).await {
            Ok(answer) => {
                tell_warnings(&answer, console);
                console.line(service)?;
            }
            Err(error) => failed.push(error.into()),
        }
    }
    one_error(failed)
}

/// One command, one error: the messages of all, the hint of the first.
pub fn one_error(failed: Vec<CliError>) -> Result<(), CliError> {
    let mut failed = failed.into_iter();
    let Some(first) = failed.next() else { return Ok(()) };
    let rest: Vec<CliError> = failed.collect();
    if rest.is_empty() {
        return Err(first);
    }
    let messages: Vec<&str> =
        std::iter::once(&first).chain(&rest).map(CliError::message).filter(|m| !m.is_empty()).collect();
    let all = CliError::new(messages.join("\nerror: "));
    Err(first.hint_text().into_iter().fold(all, |all, hint| all.hint(hint)))
}

/// Prints the warnings of an answer; true if the write is held back until a majority returns.
pub fn tell_warnings(answer: &Value, console: &mut Console) -> bool {
    let warnings = texts(answer, "/Warnings");
    warnings.iter().for_each(|warning| console.warn(warning));
    warnings.iter().any(|warning| warning.starts_with("pending:"))
}

/// `held`: no majority has the write yet. It will be carried out when one returns, which nobody should wait for here.
async fn wait(
    id: &str,
    shown: &str,
    doing: Doing,
    waiting: Waiting,
    held: bool,
    client: &Client,
    console: &mut Console,
) -> Result<(), CliError> {
    if waiting.detach == Some(true) || held {
        return Ok(());
    }
    let limits = Limits::new(waiting.quiet == Some(true), waiting.timeout);
    progress::wait(&progress::Wait { id, shown, doing, limits, poll: progress::POLL }, client, console).await
}

async fn ps(args: &Ps, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let mut ids = Vec::new();
    let mut failed = Vec::new();
    for service in &args.services {
        match client.get(&path(service)).await {
            Ok(found) => ids.push(text(&found, "/ID").to_owned()),
            Err(error) if error.is_not_found() => {
                failed.push(no_such("service", service));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if !ids.is_empty() {
        tasks::show(&args.tasks, "service", &ids, client, console).await?;
    }
    one_error(failed)
}

/// An answer that must be an object, for commands that print its parts.
pub async fn object(client: &Client, path: &str) -> Result<Object, CliError> {
    into_object(client.get(path).await?)
}
