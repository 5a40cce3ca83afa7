//! The `deploy` section of a service, and the older keys that say the same.

use super::Report;
use super::field::Field;
use crate::cli::error::CliError;
use crate::cli::go::{Bytes, NanoCpus, Nanos};
use crate::cli::json::{Object, child, put};
use serde_json::{Value, json};

const KNOWN: [&str; 9] = [
    "mode",
    "replicas",
    "labels",
    "endpoint_mode",
    "placement",
    "resources",
    "restart_policy",
    "update_config",
    "rollback_config",
];

pub fn deploy(service: &Field<'_>, spec: &mut Object, report: &mut Report) -> Result<(), CliError> {
    let none = Value::Object(Object::new());
    let deploy = service.get("deploy").unwrap_or(Field::of(format!("{}.deploy", service.at), &none));
    deploy.check(&KNOWN, &[], report)?;
    mode(service, &deploy, spec)?;
    let task = child(spec, "TaskTemplate");
    resources(service, &deploy, task, report)?;
    restart(service, &deploy, task, report)?;
    placement(&deploy, task, report)?;
    put(task, "ForceUpdate", 0);
    for (key, name) in [("update_config", "UpdateConfig"), ("rollback_config", "RollbackConfig")] {
        if let Some(config) = deploy.get(key) {
            put(spec, name, update(&config, report)?);
        }
    }
    let endpoint = deploy.get("endpoint_mode").map(|mode| mode.text()).transpose()?;
    put(child(spec, "EndpointSpec"), "Mode", endpoint.unwrap_or_else(|| "vip".to_owned()));
    Ok(())
}

fn mode(service: &Field<'_>, deploy: &Field<'_>, spec: &mut Object) -> Result<(), CliError> {
    let replicas = match deploy.get("replicas").or_else(|| service.get("scale")) {
        Some(replicas) => Some(replicas.number()?),
        None => None,
    };
    let mode = deploy.get("mode").map(|mode| mode.text()).transpose()?;
    let mode = match mode.as_deref().unwrap_or("replicated") {
        "replicated" => json!({ "Replicated": { "Replicas": replicas.unwrap_or(1) } }),
        "replicated-job" => {
            let number = replicas.unwrap_or(1);
            json!({ "ReplicatedJob": { "MaxConcurrent": number, "TotalCompletions": number } })
        }
        name @ ("global" | "global-job") if replicas.is_some() => {
            return Err(deploy.bad(format!("replicas can't be said of mode {name}")));
        }
        "global" => json!({ "Global": {} }),
        "global-job" => json!({ "GlobalJob": {} }),
        other => return Err(deploy.bad(format!("mode {other:?} is not known: want replicated or global"))),
    };
    put(spec, "Mode", mode);
    Ok(())
}

fn resources(service: &Field<'_>, deploy: &Field<'_>, task: &mut Object, report: &mut Report) -> Result<(), CliError> {
    let section = deploy.get("resources");
    if let Some(section) = &section {
        section.check(&["limits", "reservations"], &[], report)?;
    }
    for (key, name, older) in [
        ("limits", "Limits", [("cpus", "cpus"), ("memory", "mem_limit"), ("pids", "pids_limit")].as_slice()),
        ("reservations", "Reservations", &[("memory", "mem_reservation"), ("cpus", "")]),
    ] {
        let said = section.as_ref().and_then(|section| section.get(key));
        if let Some(said) = &said {
            let own: &[&str] = if key == "limits" { &[] } else { &["devices", "generic_resources"] };
            said.check(&[&["cpus", "memory", "pids"], own].concat(), &[], report)?;
        }
        if let Some(list) = said.as_ref().and_then(|said| said.get("generic_resources")) {
            put(child(child(task, "Resources"), name), "GenericResources", generic(&list, report)?);
        }
        for (part, older) in older {
            let Some(value) = said.as_ref().and_then(|said| said.get(part)).or_else(|| service.get(older)) else {
                continue;
            };
            let to = child(child(task, "Resources"), name);
            match *part {
                "cpus" => put(to, "NanoCPUs", value.parsed::<NanoCpus>()?.0),
                "memory" => put(to, "MemoryBytes", value.parsed::<Bytes>()?.0),
                _ => put(to, "Pids", value.number()?),
            }
        }
    }
    Ok(())
}

/// `- discrete_resource_spec: {kind: gpu, value: 2}`
fn generic(list: &Field<'_>, report: &mut Report) -> Result<Vec<Value>, CliError> {
    let mut out = Vec::new();
    for entry in list.items()? {
        entry.check(&["discrete_resource_spec"], &[], report)?;
        let Some(spec) = entry.get("discrete_resource_spec") else {
            return Err(entry.bad("want discrete_resource_spec: {kind: gpu, value: 2}"));
        };
        spec.check(&["kind", "value"], &[], report)?;
        let part = |key: &str| spec.get(key).ok_or_else(|| spec.bad(format!("{key} is missing")));
        out.push(
            json!({ "DiscreteResourceSpec": { "Kind": part("kind")?.text()?, "Value": part("value")?.number()? } }),
        );
    }
    Ok(out)
}

fn restart(service: &Field<'_>, deploy: &Field<'_>, task: &mut Object, report: &mut Report) -> Result<(), CliError> {
    if let Some(policy) = deploy.get("restart_policy") {
        policy.check(&["condition", "delay", "max_attempts", "window"], &[], report)?;
        let to = child(task, "RestartPolicy");
        if let Some(condition) = policy.get("condition") {
            put(to, "Condition", condition.text()?);
        }
        for (key, name) in [("delay", "Delay"), ("window", "Window")] {
            if let Some(time) = policy.get(key) {
                put(to, name, time.parsed::<Nanos>()?.0);
            }
        }
        if let Some(attempts) = policy.get("max_attempts") {
            put(to, "MaxAttempts", attempts.number()?);
        }
        return Ok(());
    }
    let Some(restart) = service.get("restart") else { return Ok(()) };
    // YAML's `no` is a truth.
    let text = if restart.value == &Value::Bool(false) { "no".to_owned() } else { restart.text()? };
    let (condition, attempts) = match text.split_once(':').unwrap_or((&text, "")) {
        ("no", "") => ("none", None),
        ("always" | "unless-stopped", "") => ("any", None),
        ("on-failure", "") => ("on-failure", None),
        ("on-failure", attempts) => {
            let attempts = attempts.parse::<u64>();
            ("on-failure", Some(attempts.map_err(|_| restart.bad(format!("{text:?}: want on-failure:NUMBER")))?))
        }
        _ => return Err(restart.bad(format!("{text:?}: want no, always, unless-stopped or on-failure[:NUMBER]"))),
    };
    put(child(task, "RestartPolicy"), "Condition", condition);
    if let Some(attempts) = attempts {
        put(child(task, "RestartPolicy"), "MaxAttempts", attempts);
    }
    Ok(())
}

fn placement(deploy: &Field<'_>, task: &mut Object, report: &mut Report) -> Result<(), CliError> {
    let to = child(task, "Placement");
    let Some(placement) = deploy.get("placement") else { return Ok(()) };
    placement.check(&["constraints", "preferences", "max_replicas_per_node"], &[], report)?;
    if let Some(constraints) = placement.get("constraints") {
        put(to, "Constraints", constraints.texts()?);
    }
    let mut preferences = Vec::new();
    for preference in placement.get("preferences").map(|list| list.items()).transpose()?.unwrap_or_default() {
        preference.check(&["spread"], &[], report)?;
        if let Some(spread) = preference.get("spread") {
            preferences.push(json!({ "Spread": { "SpreadDescriptor": spread.text()? } }));
        }
    }
    if !preferences.is_empty() {
        put(to, "Preferences", preferences);
    }
    if let Some(most) = placement.get("max_replicas_per_node") {
        put(to, "MaxReplicas", most.number()?);
    }
    Ok(())
}

fn update(config: &Field<'_>, report: &mut Report) -> Result<Value, CliError> {
    let known = ["parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order"];
    config.check(&known, &[], report)?;
    let mut to = Object::new();
    put(&mut to, "Parallelism", config.get("parallelism").map(|n| n.number()).transpose()?.unwrap_or(1));
    for (key, name) in [("delay", "Delay"), ("monitor", "Monitor")] {
        if let Some(time) = config.get(key) {
            put(&mut to, name, time.parsed::<Nanos>()?.0);
        }
    }
    for (key, name) in [("failure_action", "FailureAction"), ("order", "Order")] {
        if let Some(text) = config.get(key) {
            put(&mut to, name, text.text()?);
        }
    }
    if let Some(ratio) = config.get("max_failure_ratio") {
        put(&mut to, "MaxFailureRatio", ratio.ratio()?);
    }
    Ok(Value::Object(to))
}
