//! Docker's ServiceSpec, from JSON text to checked types, once, at the edge. What is wrong is named by its exact
//! JSON path with what is wanted instead. What we can't do yet is refused where leaving it out would harm the user,
//! and warned about where it doesn't.
//!
//! Fields that nobody here knows are ignored: the text itself is what is stored and given back.

use super::container::container;
use super::files::networks;
use super::placement::placement;
use super::read::{Field, quoted};
use super::{
    FailureAction, Hardware, LogDriver, Mode, Order, PortOptions, Protocol, PublishMode, PublishedPort, Resources,
    RestartCondition, RestartPolicy, ServiceSpec, TaskSpec, UpdateConfig,
};
use crate::limits::{MAX_REPLICAS, MAX_SPEC_BYTES};
use crate::model::generic::{self, Generic};
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct SpecError {
    /// As Docker's JSON names it: "TaskTemplate.ContainerSpec.Image".
    pub field: String,
    pub why: String,
}

/// A name is at most this long, so that it can be one label of a DNS name.
const MAX_NAME_CHARS: usize = 63;
/// The least CPU and memory that can be limited or reserved; Swarm's.
const MIN_NANO_CPUS: u64 = 1_000_000;
const MIN_MEMORY_BYTES: u64 = 4 * 1024 * 1024;
/// Docker's integers are signed.
const MAX_SIGNED: u64 = i64::MAX.unsigned_abs();

/// Docker's ServiceSpec as JSON text, checked, with the defaults filled in.
pub fn parse(json: &str) -> Result<ServiceSpec, SpecError> {
    parse_with_warnings(json).map(|(spec, _)| spec)
}

/// What a spec asks for that has no effect here, each as "field: what"; nothing for a spec that is refused.
pub fn warnings(json: &str) -> Vec<String> {
    parse_with_warnings(json).map(|(_, warnings)| warnings).unwrap_or_default()
}

pub fn parse_with_warnings(json: &str) -> Result<(ServiceSpec, Vec<String>), SpecError> {
    let whole = |why: String| SpecError { field: "ServiceSpec".to_owned(), why };
    if json.len() > MAX_SPEC_BYTES {
        return Err(whole(format!("{} bytes, more than the {MAX_SPEC_BYTES} allowed", json.len())));
    }
    // The parser's own message ends with the line and the column.
    let value: serde_json::Value = serde_json::from_str(json).map_err(|e| whole(format!("not JSON: {e}")))?;
    if !value.is_object() {
        return Err(whole("want an object".to_owned()));
    }
    let mut warnings = Vec::new();
    let spec = service(&Field::root(&value), &mut warnings)?;
    Ok((spec, warnings))
}

fn service(root: &Field<'_>, warnings: &mut Vec<String>) -> Result<ServiceSpec, SpecError> {
    root.at("Networks")?.refuse_if_set("networks outside of TaskTemplate are")?;
    let mut spec = ServiceSpec {
        name: name(&root.at("Name")?)?,
        labels: root.at("Labels")?.text_map()?,
        mode: mode(&root.at("Mode")?)?,
        task: task(&root.at("TaskTemplate")?, warnings)?,
        update: update(&root.at("UpdateConfig")?)?,
        rollback: rollback(&root.at("RollbackConfig")?, warnings)?,
        ports: endpoint(&root.at("EndpointSpec")?, warnings)?,
    };
    spec.task.container.hardware = Hardware::of(&spec.labels)?;
    if spec.task.container.host_network {
        on_host_network(&root.at("EndpointSpec")?, &spec.ports)?;
    }
    for (key, value) in &spec.labels {
        let field = || format!("Labels.{key}");
        match PortOptions::check(key, value, &spec.ports) {
            Ok(None) => {}
            Ok(Some(note)) => warnings.push(format!("{}: {note}", field())),
            Err(why) => return Err(SpecError { field: field(), why }),
        }
    }
    if matches!(spec.mode, Mode::Global | Mode::GlobalJob) && spec.task.placement.max_replicas > 0 {
        warnings.push("TaskTemplate.Placement.MaxReplicas: has no effect on a global service".to_owned());
    }
    if spec.mode.is_job() {
        return job(root, spec, warnings);
    }
    Ok(spec)
}

/// A container on its node's network takes its ports there by itself: the mesh has nothing to lead to, and the engine
/// nothing to bind. A port in host mode says which one it takes, so that no two such tasks are placed on one node.
fn on_host_network(endpoint: &Field<'_>, ports: &[PublishedPort]) -> Result<(), SpecError> {
    for (port, item) in ports.iter().zip(endpoint.at("Ports")?.items()?) {
        if port.mode == PublishMode::Ingress {
            return Err(item.at("PublishMode")?.bad(
                "a container on its node's network (host) can't be reached through the mesh: publish the port with \
                 mode=host, or take another network",
            ));
        }
        if port.published != port.target {
            return Err(item.at("PublishedPort")?.bad(format!(
                "a container on its node's network (host) listens on its own port: want {}, found {}",
                port.target, port.published
            )));
        }
    }
    Ok(())
}

/// `[a-zA-Z0-9]+([a-zA-Z0-9-_.]*[a-zA-Z0-9])?`
fn name(field: &Field<'_>) -> Result<String, SpecError> {
    let text = field.text()?;
    if text.is_empty() {
        return Err(field.bad("missing: want a name for the service"));
    }
    if text.len() > MAX_NAME_CHARS {
        return Err(field.bad(format!("{} is longer than {MAX_NAME_CHARS} characters", quoted(text))));
    }
    let edge = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| edge(c) || "-_.".contains(c);
    if !text.starts_with(edge) || !text.ends_with(edge) || !text.chars().all(inner) {
        return Err(field.bad(format!(
            "{} is not a valid name: want letters, digits, - _ . with a letter or digit at both ends",
            quoted(text)
        )));
    }
    Ok(text.to_owned())
}

/// What a service that comes to an end has otherwise: Swarm refuses no restart policy for it, and reads `any` as this.
fn job(root: &Field<'_>, mut spec: ServiceSpec, warnings: &mut Vec<String>) -> Result<ServiceSpec, SpecError> {
    if spec.task.restart.condition == RestartCondition::Any {
        spec.task.restart.condition = RestartCondition::OnFailure;
    }
    for config in ["UpdateConfig", "RollbackConfig"] {
        if root.at(config)?.is_object()? {
            warnings.push(format!("{config}: has no effect on a job: an update runs it again"));
        }
    }
    Ok(spec)
}

fn mode(field: &Field<'_>) -> Result<Mode, SpecError> {
    const MODES: [&str; 4] = ["Replicated", "Global", "ReplicatedJob", "GlobalJob"];
    let mut given = Vec::new();
    for name in MODES {
        let mode = field.at(name)?;
        if mode.is_object()? {
            given.push((name, mode));
        }
    }
    if let [(first, _), (second, _), ..] = &given[..] {
        return Err(field.bad(format!("both {first} and {second}: want one of them")));
    }
    // MAX_REPLICAS fits.
    let count = |field: Field<'_>| -> Result<Option<u32>, SpecError> {
        Ok(field.some_count(MAX_REPLICAS)?.map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
    };
    Ok(match given.pop() {
        Some(("Global", _)) => Mode::Global,
        Some(("GlobalJob", _)) => Mode::GlobalJob,
        Some(("ReplicatedJob", job)) => {
            let concurrent = count(job.at("MaxConcurrent")?)?.unwrap_or(1);
            Mode::ReplicatedJob { concurrent, total: count(job.at("TotalCompletions")?)?.unwrap_or(concurrent) }
        }
        Some((_, replicated)) => Mode::Replicated(count(replicated.at("Replicas")?)?.unwrap_or(1)),
        None => Mode::Replicated(1),
    })
}

fn task(field: &Field<'_>, warnings: &mut Vec<String>) -> Result<TaskSpec, SpecError> {
    field.at("PluginSpec")?.refuse_if_set("plugin services are")?;
    field.at("NetworkAttachmentSpec")?.refuse_if_set("network attachments are")?;
    let runtime = field.at("Runtime")?;
    if runtime.text()? != "container" {
        runtime.refuse_if_set("runtimes other than \"container\" are")?;
    }
    let mut container = container(&field.at("ContainerSpec")?, warnings)?;
    match networks(&field.at("Networks")?, warnings)? {
        Some(networks) => container.networks = networks,
        None => container.host_network = true,
    }
    Ok(TaskSpec {
        container,
        resources: resources(&field.at("Resources")?, warnings)?,
        restart: restart(&field.at("RestartPolicy")?)?,
        placement: placement(&field.at("Placement")?)?,
        log_driver: log_driver(&field.at("LogDriver")?)?,
        force_update: field.at("ForceUpdate")?.count(u64::MAX)?,
    })
}

fn resources(field: &Field<'_>, warnings: &mut Vec<String>) -> Result<Resources, SpecError> {
    let (limits, reservations) = (field.at("Limits")?, field.at("Reservations")?);
    for key in ["SwapBytes", "MemorySwappiness"] {
        let swap = field.at(key)?;
        if swap.is_present() {
            warnings.push(swap.note("has no effect yet"));
        }
    }
    Ok(Resources {
        limit_nano_cpus: nano_cpus(&limits.at("NanoCPUs")?)?,
        limit_memory: memory(&limits.at("MemoryBytes")?)?,
        limit_pids: limits.at("Pids")?.count(MAX_SIGNED)?,
        reserve_nano_cpus: nano_cpus(&reservations.at("NanoCPUs")?)?,
        reserve_memory: memory(&reservations.at("MemoryBytes")?)?,
        reserve_generic: generic(&reservations.at("GenericResources")?)?,
    })
}

/// As in Swarm a service asks for a number, never for a certain one by its name.
fn generic(field: &Field<'_>) -> Result<Generic, SpecError> {
    let mut generic = Generic::new();
    for item in field.items()? {
        let named = item.at("NamedResourceSpec")?;
        if named.says_something() {
            return Err(named.bad("a service reserves a number of a resource: want DiscreteResourceSpec"));
        }
        let discrete = item.at("DiscreteResourceSpec")?;
        let value = discrete.at("Value")?.count(MAX_SIGNED)?;
        generic::add(&mut generic, discrete.at("Kind")?.text()?, value).map_err(|why| discrete.bad(why))?;
    }
    Ok(generic)
}

fn nano_cpus(field: &Field<'_>) -> Result<u64, SpecError> {
    match field.count(MAX_SIGNED)? {
        n if n == 0 || n >= MIN_NANO_CPUS => Ok(n),
        n => Err(field.bad(format!("{n} is too little: want 0 or at least {MIN_NANO_CPUS} (0.001 CPUs)"))),
    }
}

fn memory(field: &Field<'_>) -> Result<u64, SpecError> {
    match field.count(MAX_SIGNED)? {
        n if n == 0 || n >= MIN_MEMORY_BYTES => Ok(n),
        n => Err(field.bad(format!("{n} is too little: want 0 or at least {MIN_MEMORY_BYTES} (4 MiB)"))),
    }
}

fn restart(field: &Field<'_>) -> Result<RestartPolicy, SpecError> {
    let default = RestartPolicy::default();
    Ok(RestartPolicy {
        condition: field.at("Condition")?.keyword(&[
            ("any", RestartCondition::Any),
            ("on-failure", RestartCondition::OnFailure),
            ("none", RestartCondition::None),
        ])?,
        delay: field.at("Delay")?.some_duration()?.unwrap_or(default.delay),
        max_attempts: field.at("MaxAttempts")?.count(u64::MAX)?,
        window: field.at("Window")?.some_duration()?.unwrap_or(default.window),
    })
}

fn log_driver(field: &Field<'_>) -> Result<Option<LogDriver>, SpecError> {
    let name = field.at("Name")?;
    let options = field.at("Options")?.text_map()?;
    match name.some_text()? {
        Some(name) => Ok(Some(LogDriver { name, options })),
        None if options.is_empty() => Ok(None),
        None => Err(name.bad("missing: want the log driver that the options are for")),
    }
}

/// As in Docker, `Parallelism` counts as 0 (all at once) in a config that is given without it, and as 1 only
/// where the whole config is absent. Docker's clients leave `Monitor` out for its default, so a 0 that is
/// written out is meant.
fn update(field: &Field<'_>) -> Result<UpdateConfig, SpecError> {
    let default = UpdateConfig::default();
    if !field.is_present() {
        return Ok(default);
    }
    Ok(UpdateConfig {
        parallelism: field.at("Parallelism")?.count_u32()?,
        delay: field.at("Delay")?.some_duration()?.unwrap_or(default.delay),
        failure_action: field.at("FailureAction")?.keyword(&[
            ("pause", FailureAction::Pause),
            ("continue", FailureAction::Continue),
            ("rollback", FailureAction::Rollback),
        ])?,
        monitor: field.at("Monitor")?.some_duration()?.unwrap_or(default.monitor),
        max_failure_ratio: field.at("MaxFailureRatio")?.ratio()?,
        order: field.at("Order")?.keyword(&[("stop-first", Order::StopFirst), ("start-first", Order::StartFirst)])?,
    })
}

/// A rollback isn't rolled back. Swarm takes the word and pauses, so we do and say it.
fn rollback(field: &Field<'_>, warnings: &mut Vec<String>) -> Result<UpdateConfig, SpecError> {
    let mut config = update(field)?;
    if config.failure_action == FailureAction::Rollback {
        config.failure_action = FailureAction::Pause;
        warnings.push(field.at("FailureAction")?.note("a failing rollback is paused, not rolled back"));
    }
    Ok(config)
}

#[derive(Clone, Copy, PartialEq)]
enum EndpointMode {
    Vip,
    DnsRr,
}

fn endpoint(field: &Field<'_>, warnings: &mut Vec<String>) -> Result<Vec<PublishedPort>, SpecError> {
    let mode_field = field.at("Mode")?;
    let mode = mode_field.keyword(&[("vip", EndpointMode::Vip), ("dnsrr", EndpointMode::DnsRr)])?;
    let mut taken = BTreeSet::new();
    let mut out = Vec::new();
    for item in field.at("Ports")?.items()? {
        let port = published_port(&item)?;
        if mode == EndpointMode::DnsRr && port.mode == PublishMode::Ingress {
            return Err(item.at("PublishMode")?.bad("a port in ingress mode can't be used with endpoint mode dnsrr"));
        }
        if port.published != 0 && !taken.insert((port.protocol, port.published)) {
            let (number, protocol) = (port.published, port.protocol.as_str());
            return Err(item.at("PublishedPort")?.bad(format!("{number}/{protocol} is published twice")));
        }
        out.push(port);
    }
    if mode == EndpointMode::DnsRr {
        warnings.push(
            mode_field
                .note("dnsrr changes nothing: a name always resolves to the addresses of its tasks on the same node"),
        );
    }
    Ok(out)
}

fn published_port(field: &Field<'_>) -> Result<PublishedPort, SpecError> {
    Ok(PublishedPort {
        name: field.at("Name")?.text()?.to_owned(),
        protocol: field.at("Protocol")?.keyword(&[
            ("tcp", Protocol::Tcp),
            ("udp", Protocol::Udp),
            ("sctp", Protocol::Sctp),
        ])?,
        target: port_number(&field.at("TargetPort")?, 1)?,
        published: port_number(&field.at("PublishedPort")?, 0)?,
        mode: field.at("PublishMode")?.keyword(&[("ingress", PublishMode::Ingress), ("host", PublishMode::Host)])?,
    })
}

fn port_number(field: &Field<'_>, least: u16) -> Result<u16, SpecError> {
    let number = field.some_integer()?.unwrap_or(0);
    u16::try_from(number)
        .ok()
        .filter(|n| *n >= least)
        .ok_or_else(|| field.bad(format!("{number} is out of range: want {least} to 65535")))
}

#[cfg(test)]
mod tests;
