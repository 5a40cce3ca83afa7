//! The agent names a field of Docker's JSON where something is wrong with a service; whoever wrote a Compose file is told the
//! file's key, and whose it is. (`service::flags` does the same for flags.)

use crate::cli::client::ApiError;
use crate::cli::console::Console;
use crate::cli::error::CliError;
use crate::cli::json::texts;
use crate::cli::service::{entry_of, part_of};
use crate::model::spec::NETWORKS_ARE_LOCAL;
use serde_json::Value;

/// A field, and its key in a service; `[]`: the list is the file's own, so the number of an entry means something there, too.
/// Longer paths stand before those that they begin with.
const KEYS: [(&str, &str); 75] = [
    ("Name", ""),
    ("Labels.peer.devices", "devices"),
    ("Labels.peer.privileged", "privileged"),
    ("Labels.peer.shm-size", "shm_size"),
    ("Labels.peer.gpus", "gpus"),
    ("Labels", "deploy.labels"),
    ("Mode.Replicated.Replicas", "deploy.replicas"),
    ("Mode.ReplicatedJob", "deploy.replicas"),
    ("Mode", "deploy.mode"),
    ("TaskTemplate.ContainerSpec.Image", "image"),
    ("TaskTemplate.ContainerSpec.Command", "entrypoint"),
    ("TaskTemplate.ContainerSpec.Args", "command"),
    ("TaskTemplate.ContainerSpec.Labels", "labels"),
    ("TaskTemplate.ContainerSpec.Env", "environment"),
    ("TaskTemplate.ContainerSpec.Hostname", "hostname"),
    ("TaskTemplate.ContainerSpec.Dir", "working_dir"),
    ("TaskTemplate.ContainerSpec.User", "user"),
    ("TaskTemplate.ContainerSpec.Init", "init"),
    ("TaskTemplate.ContainerSpec.TTY", "tty"),
    ("TaskTemplate.ContainerSpec.ReadOnly", "read_only"),
    ("TaskTemplate.ContainerSpec.Groups", "group_add[]"),
    ("TaskTemplate.ContainerSpec.StopSignal", "stop_signal"),
    ("TaskTemplate.ContainerSpec.StopGracePeriod", "stop_grace_period"),
    ("TaskTemplate.ContainerSpec.Mounts", "volumes"),
    ("TaskTemplate.ContainerSpec.Healthcheck.Test", "healthcheck.test"),
    ("TaskTemplate.ContainerSpec.Healthcheck.Interval", "healthcheck.interval"),
    ("TaskTemplate.ContainerSpec.Healthcheck.Timeout", "healthcheck.timeout"),
    ("TaskTemplate.ContainerSpec.Healthcheck.Retries", "healthcheck.retries"),
    ("TaskTemplate.ContainerSpec.Healthcheck.StartPeriod", "healthcheck.start_period"),
    ("TaskTemplate.ContainerSpec.Healthcheck.StartInterval", "healthcheck.start_interval"),
    ("TaskTemplate.ContainerSpec.Healthcheck", "healthcheck"),
    ("TaskTemplate.ContainerSpec.HealthCheck", "healthcheck"),
    ("TaskTemplate.ContainerSpec.Hosts", "extra_hosts"),
    ("TaskTemplate.ContainerSpec.DNSConfig.Search", "dns_search[]"),
    ("TaskTemplate.ContainerSpec.DNSConfig.Options", "dns_opt[]"),
    ("TaskTemplate.ContainerSpec.DNSConfig.Nameservers", "dns[]"),
    ("TaskTemplate.ContainerSpec.DNSConfig", "dns"),
    ("TaskTemplate.ContainerSpec.Secrets", "secrets[]"),
    ("TaskTemplate.ContainerSpec.Configs", "configs[]"),
    ("TaskTemplate.ContainerSpec.Sysctls", "sysctls"),
    ("TaskTemplate.ContainerSpec.Ulimits", "ulimits"),
    ("TaskTemplate.ContainerSpec.CapabilityAdd", "cap_add[]"),
    ("TaskTemplate.ContainerSpec.CapabilityDrop", "cap_drop[]"),
    ("TaskTemplate.ContainerSpec.OomScoreAdj", "oom_score_adj"),
    ("TaskTemplate.Resources.Limits.NanoCPUs", "deploy.resources.limits.cpus"),
    ("TaskTemplate.Resources.Limits.MemoryBytes", "deploy.resources.limits.memory"),
    ("TaskTemplate.Resources.Limits.Pids", "deploy.resources.limits.pids"),
    ("TaskTemplate.Resources.Reservations.NanoCPUs", "deploy.resources.reservations.cpus"),
    ("TaskTemplate.Resources.Reservations.MemoryBytes", "deploy.resources.reservations.memory"),
    ("TaskTemplate.Resources.Reservations.GenericResources", "deploy.resources.reservations.generic_resources"),
    ("TaskTemplate.RestartPolicy.Condition", "deploy.restart_policy.condition"),
    ("TaskTemplate.RestartPolicy.Delay", "deploy.restart_policy.delay"),
    ("TaskTemplate.RestartPolicy.MaxAttempts", "deploy.restart_policy.max_attempts"),
    ("TaskTemplate.RestartPolicy.Window", "deploy.restart_policy.window"),
    ("TaskTemplate.Placement.Constraints", "deploy.placement.constraints[]"),
    ("TaskTemplate.Placement.Preferences", "deploy.placement.preferences[]"),
    ("TaskTemplate.Placement.MaxReplicas", "deploy.placement.max_replicas_per_node"),
    ("TaskTemplate.LogDriver.Options", "logging.options"),
    ("TaskTemplate.LogDriver", "logging.driver"),
    ("TaskTemplate.Networks", "networks"),
    ("Networks", "networks"),
    ("UpdateConfig.Parallelism", "deploy.update_config.parallelism"),
    ("UpdateConfig.Delay", "deploy.update_config.delay"),
    ("UpdateConfig.FailureAction", "deploy.update_config.failure_action"),
    ("UpdateConfig.Monitor", "deploy.update_config.monitor"),
    ("UpdateConfig.MaxFailureRatio", "deploy.update_config.max_failure_ratio"),
    ("UpdateConfig.Order", "deploy.update_config.order"),
    ("RollbackConfig.Parallelism", "deploy.rollback_config.parallelism"),
    ("RollbackConfig.Delay", "deploy.rollback_config.delay"),
    ("RollbackConfig.FailureAction", "deploy.rollback_config.failure_action"),
    ("RollbackConfig.Monitor", "deploy.rollback_config.monitor"),
    ("RollbackConfig.MaxFailureRatio", "deploy.rollback_config.max_failure_ratio"),
    ("RollbackConfig.Order", "deploy.rollback_config.order"),
    ("EndpointSpec.Ports", "ports"),
    ("EndpointSpec.Mode", "deploy.endpoint_mode"),
];

/// The agent's words with the key in the place of the field, if it names one that has a key.
fn in_keys(message: &str, service: &str) -> Option<String> {
    let (field, why) = message.split_once(": ")?;
    let (key, rest) = entry_of(&KEYS, field)?;
    let (number, within) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((number, within)) => (Some(number), within),
        None => (None, rest),
    };
    let mut place = format!("services.{service}");
    if !key.is_empty() {
        place.push('.');
        place.push_str(key.trim_end_matches("[]"));
    }
    if let Some(number) = number.filter(|_| key.ends_with("[]")) {
        place.push_str(&format!("[{number}]"));
    }
    Some(match part_of(within) {
        Some(part) => format!("{place}: {}: {why}", named(part, within)),
        None => format!("{place}: {why}"),
    })
}

/// A part of a port, a mount or a file as the long form of Compose has it.
fn named(part: &str, within: &str) -> String {
    match part {
        "TargetPort" => "target".to_owned(),
        "PublishedPort" => "published".to_owned(),
        "PublishMode" => "mode".to_owned(),
        "Name" if within.contains(".File.") => "target".to_owned(),
        _ => part.to_ascii_lowercase(),
    }
}

/// What the agent refuses of a service.
pub fn refused(error: ApiError, service: &str) -> CliError {
    let ApiError::Refused { status: 400 | 501, message } = &error else { return error.into() };
    match in_keys(message, service) {
        Some(told) => CliError::new(told),
        None => error.into(),
    }
}

/// What it refuses of a network, a secret or a config; `place` is as `networks.front`.
pub fn refused_at(error: ApiError, place: &str) -> CliError {
    let ApiError::Refused { status: 400 | 501, message } = &error else { return error.into() };
    match message.strip_prefix("Driver: ") {
        Some(why) => CliError::new(format!("{place}.driver: {why}")),
        None => CliError::new(format!("{place}: {message}")),
    }
}

/// Prints the warnings of an answer; true if the write is held back until a majority returns.
pub fn tell_warnings(answer: &Value, service: &str, console: &mut Console) -> bool {
    let warnings = texts(answer, "/Warnings");
    for warning in &warnings {
        let told = in_keys(warning, service);
        tell_once(told.as_deref().unwrap_or(warning), console);
    }
    warnings.iter().any(|warning| warning.starts_with("pending:"))
}

/// What holds for every network is said of each network, and of each service that is on one: once is enough.
pub fn tell_once(warning: &str, console: &mut Console) {
    let Some(before) = warning.strip_suffix(NETWORKS_ARE_LOCAL) else { return console.warn(warning) };
    let said = before.strip_suffix("; ").unwrap_or_default();
    if !said.is_empty() {
        console.warn(said);
    }
    console.warn_once(&format!("networks: {NETWORKS_ARE_LOCAL}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stack::compose::{Source, Variables, load};
    use crate::cli::testing::console;
    use serde_json::json;

    #[test]
    fn every_key_of_the_table_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.yml");
        for (n, (path, key)) in KEYS.iter().enumerate() {
            let parts = key.trim_end_matches("[]").split('.').filter(|part| !part.is_empty());
            let inner = parts.rev().fold(Value::Null, |inner, part| json!({ part: inner }));
            let mut service = json!({ "image": "x" });
            service.as_object_mut().unwrap().extend(inner.as_object().cloned().unwrap_or_default());
            if *key == "image" {
                service["image"] = json!("x");
            }
            // JSON is YAML.
            std::fs::write(&file, json!({ "services": { "web": service } }).to_string()).unwrap();
            let files = [file.clone()];
            let source =
                Source { files: &files, stack: "st", profiles: &[], environment: Variables::new(), env_files: &[] };
            load(&source).unwrap_or_else(|error| panic!("{key}: {error}"));
            let hidden =
                KEYS[..n].iter().find(|(before, _)| path.strip_prefix(before).is_some_and(|r| r.starts_with('.')));
            assert_eq!(hidden, None, "{path} is never found");
        }
    }

    #[test]
    fn every_field_that_has_a_flag_has_a_key() {
        for path in crate::cli::service::fields_with_flags() {
            assert!(in_keys(&format!("{path}: no"), "web").is_some(), "{path}");
        }
    }

    #[test]
    fn fields_become_keys() {
        for (message, told) in [
            ("TaskTemplate.Placement.Constraints[0]: unknown", "services.web.deploy.placement.constraints[0]: unknown"),
            ("TaskTemplate.ContainerSpec.Image: \"A\" is none", "services.web.image: \"A\" is none"),
            ("EndpointSpec.Ports[1].TargetPort: want 1", "services.web.ports: target: want 1"),
            ("EndpointSpec.Ports: port '80' is taken", "services.web.ports: port '80' is taken"),
            ("TaskTemplate.ContainerSpec.Secrets[1].File.Name: no", "services.web.secrets[1]: target: no"),
            ("TaskTemplate.ContainerSpec.Mounts[0].Source: no", "services.web.volumes: source: no"),
            ("Name: \"st_a b\" is no name", "services.web: \"st_a b\" is no name"),
        ] {
            assert_eq!(in_keys(message, "web").as_deref(), Some(told));
        }
        for message in ["NameOrSo: x", "a majority is away", "TaskTemplate.PluginSpec: not supported"] {
            assert_eq!(in_keys(message, "web"), None, "{message}");
        }
        let refuse = |status: u16, message: &str| ApiError::Refused { status, message: message.to_owned() };
        assert_eq!(refused(refuse(400, "Mode: no"), "web").message(), "services.web.deploy.mode: no");
        assert_eq!(refused(refuse(503, "Mode: no"), "web").message(), "Mode: no");
        let driver = refuse(501, "Driver: \"x\" networks are not supported");
        assert_eq!(
            refused_at(driver, "networks.front").message(),
            "networks.front.driver: \"x\" networks are not supported"
        );
        assert_eq!(refused_at(refuse(400, "too large"), "secrets.s").message(), "secrets.s: too large");
    }

    #[test]
    fn what_holds_for_every_network_is_said_once() {
        let (mut console, _, err) = console(false);
        tell_once(&format!("pending: no majority; {NETWORKS_ARE_LOCAL}"), &mut console);
        let of_service = json!({ "Warnings": [
            format!("TaskTemplate.Networks: {NETWORKS_ARE_LOCAL}"),
            "TaskTemplate.Placement.MaxReplicas: has no effect",
        ] });
        assert!(!tell_warnings(&of_service, "web", &mut console));
        assert!(tell_warnings(&json!({ "Warnings": ["pending: x"] }), "web", &mut console));
        assert_eq!(
            err.text(),
            format!(
                "warning: pending: no majority\n\
                 warning: networks: {NETWORKS_ARE_LOCAL}\n\
                 warning: services.web.deploy.placement.max_replicas_per_node: has no effect\n\
                 warning: pending: x\n"
            )
        );
    }
}
