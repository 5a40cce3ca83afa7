//! The agent names a field of Docker's JSON where something is wrong with it; whoever typed a flag is told the flag. What
//! isn't known here stays as the agent says it.

use crate::cli::client::ApiError;
use crate::cli::error::CliError;
use serde_json::Value;

/// By which command a spec was written: lists have other flags when they are edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Create,
    Update,
}

/// A field, and its flag; `+`: with `-add` behind it in an update. Longer paths stand before those that they begin with.
const FLAGS: [(&str, &str); 74] = [
    ("Name", "--name"),
    ("Labels.peer.devices", "--device+"),
    ("Labels.peer.privileged", "--privileged"),
    ("Labels.peer.shm-size", "--shm-size"),
    ("Labels.peer.gpus", "--gpus"),
    ("Labels", "--label+"),
    ("Mode.Replicated.Replicas", "--replicas"),
    ("Mode.ReplicatedJob.MaxConcurrent", "--max-concurrent"),
    ("Mode.ReplicatedJob.TotalCompletions", "--replicas"),
    ("Mode", "--mode"),
    ("TaskTemplate.ContainerSpec.Image", "the image"),
    ("TaskTemplate.ContainerSpec.Command", "--entrypoint"),
    ("TaskTemplate.ContainerSpec.Args", "--args"),
    ("TaskTemplate.ContainerSpec.Labels", "--container-label+"),
    ("TaskTemplate.ContainerSpec.Env", "--env+"),
    ("TaskTemplate.ContainerSpec.Hostname", "--hostname"),
    ("TaskTemplate.ContainerSpec.Dir", "--workdir"),
    ("TaskTemplate.ContainerSpec.User", "--user"),
    ("TaskTemplate.ContainerSpec.Init", "--init"),
    ("TaskTemplate.ContainerSpec.TTY", "--tty"),
    ("TaskTemplate.ContainerSpec.ReadOnly", "--read-only"),
    ("TaskTemplate.ContainerSpec.Groups", "--group+"),
    ("TaskTemplate.ContainerSpec.StopSignal", "--stop-signal"),
    ("TaskTemplate.ContainerSpec.StopGracePeriod", "--stop-grace-period"),
    ("TaskTemplate.ContainerSpec.Mounts", "--mount+"),
    ("TaskTemplate.ContainerSpec.Healthcheck.Interval", "--health-interval"),
    ("TaskTemplate.ContainerSpec.Healthcheck.Timeout", "--health-timeout"),
    ("TaskTemplate.ContainerSpec.Healthcheck.Retries", "--health-retries"),
    ("TaskTemplate.ContainerSpec.Healthcheck.StartPeriod", "--health-start-period"),
    ("TaskTemplate.ContainerSpec.Healthcheck.StartInterval", "--health-start-interval"),
    ("TaskTemplate.ContainerSpec.Healthcheck", "--health-cmd"),
    ("TaskTemplate.ContainerSpec.Hosts", "--host+"),
    ("TaskTemplate.ContainerSpec.DNSConfig.Search", "--dns-search+"),
    ("TaskTemplate.ContainerSpec.DNSConfig.Options", "--dns-option+"),
    ("TaskTemplate.ContainerSpec.DNSConfig", "--dns+"),
    ("TaskTemplate.ContainerSpec.Secrets", "--secret+"),
    ("TaskTemplate.ContainerSpec.Configs", "--config+"),
    ("TaskTemplate.ContainerSpec.Sysctls", "--sysctl+"),
    ("TaskTemplate.ContainerSpec.Ulimits", "--ulimit+"),
    ("TaskTemplate.ContainerSpec.CapabilityAdd", "--cap-add"),
    ("TaskTemplate.ContainerSpec.CapabilityDrop", "--cap-drop"),
    ("TaskTemplate.ContainerSpec.OomScoreAdj", "--oom-score-adj"),
    ("TaskTemplate.Resources.Limits.NanoCPUs", "--limit-cpu"),
    ("TaskTemplate.Resources.Limits.MemoryBytes", "--limit-memory"),
    ("TaskTemplate.Resources.Limits.Pids", "--limit-pids"),
    ("TaskTemplate.Resources.Reservations.NanoCPUs", "--reserve-cpu"),
    ("TaskTemplate.Resources.Reservations.MemoryBytes", "--reserve-memory"),
    ("TaskTemplate.Resources.Reservations.GenericResources", "--generic-resource+"),
    ("TaskTemplate.RestartPolicy.Condition", "--restart-condition"),
    ("TaskTemplate.RestartPolicy.Delay", "--restart-delay"),
    ("TaskTemplate.RestartPolicy.MaxAttempts", "--restart-max-attempts"),
    ("TaskTemplate.RestartPolicy.Window", "--restart-window"),
    ("TaskTemplate.Placement.Constraints", "--constraint+"),
    ("TaskTemplate.Placement.Preferences", "--placement-pref+"),
    ("TaskTemplate.Placement.MaxReplicas", "--replicas-max-per-node"),
    ("TaskTemplate.LogDriver.Options", "--log-opt"),
    ("TaskTemplate.LogDriver", "--log-driver"),
    ("TaskTemplate.Networks", "--network+"),
    ("Networks", "--network+"),
    ("UpdateConfig.Parallelism", "--update-parallelism"),
    ("UpdateConfig.Delay", "--update-delay"),
    ("UpdateConfig.FailureAction", "--update-failure-action"),
    ("UpdateConfig.Monitor", "--update-monitor"),
    ("UpdateConfig.MaxFailureRatio", "--update-max-failure-ratio"),
    ("UpdateConfig.Order", "--update-order"),
    ("RollbackConfig.Parallelism", "--rollback-parallelism"),
    ("RollbackConfig.Delay", "--rollback-delay"),
    ("RollbackConfig.FailureAction", "--rollback-failure-action"),
    ("RollbackConfig.Monitor", "--rollback-monitor"),
    ("RollbackConfig.MaxFailureRatio", "--rollback-max-failure-ratio"),
    ("RollbackConfig.Order", "--rollback-order"),
    ("EndpointSpec.Ports", "--publish+"),
    ("EndpointSpec.Mode", "--endpoint-mode"),
    ("TaskTemplate.ContainerSpec.HealthCheck", "--health-cmd"),
];

/// The flag, and what of the field is within what it stands for.
fn flag_of(field: &str) -> Option<(&'static str, &str)> {
    entry_of(&FLAGS, field)
}

/// What stands in a table of fields for the first that this one is, or is in; and the rest of it.
pub fn entry_of<'f>(table: &[(&str, &'static str)], field: &'f str) -> Option<(&'static str, &'f str)> {
    table.iter().find_map(|(path, entry)| {
        let rest = field.strip_prefix(path)?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then_some((*entry, rest))
    })
}

/// The last name in the rest of a field: of "[0].TargetPort" it says something; which entry of the list it is, the words do.
pub fn part_of(rest: &str) -> Option<&str> {
    rest.rsplit(['.', ']']).find(|part| !part.is_empty() && !part.starts_with('['))
}

/// What a field is called by who knows the flags: "limit-memory"; of one without a flag its own name.
pub fn word(field: &str) -> String {
    match flag_of(field) {
        // A flag of updates alone, with nothing in it that could be refused.
        None if field == "TaskTemplate.ForceUpdate" => "force".to_owned(),
        Some(("the image", _)) => "image".to_owned(),
        Some((flag, _)) => flag.trim_start_matches("--").trim_end_matches('+').to_owned(),
        None => field.split('[').next().and_then(|path| path.rsplit('.').next()).unwrap_or_default().to_lowercase(),
    }
}

/// The agent's words with the flag in the place of the field, if it names one that has a flag.
fn in_flags(message: &str, by: By) -> Option<String> {
    let (field, why) = message.split_once(": ")?;
    let (flag, rest) = flag_of(field)?;
    let flag = match (flag.strip_suffix('+'), flag, by) {
        (Some(flag), _, By::Create) => flag.to_owned(),
        (Some(flag), _, By::Update) => format!("{flag}-add"),
        (None, "the image", By::Update) => "--image".to_owned(),
        (None, flag, _) => flag.to_owned(),
    };
    Some(match part_of(rest) {
        Some(part) => format!("{flag}: {part}: {why}"),
        None => format!("{flag}: {why}"),
    })
}

/// A flag that makes no sense is misused, whatever the cluster's state; one that only doesn't fit what is there now isn't.
pub fn refused(error: ApiError, by: By) -> CliError {
    let ApiError::Refused { status: status @ (400 | 501), message } = &error else { return error.into() };
    match in_flags(message, by) {
        Some(told) if *status == 400 && !told.contains("already in use") && !told.ends_with(" not found") => {
            CliError::misuse(told)
        }
        Some(told) => CliError::new(told),
        None => error.into(),
    }
}

/// The same for the warnings of an answer.
pub fn warned(mut answer: Value, by: By) -> Value {
    for warning in answer.get_mut("Warnings").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(told) = warning.as_str().and_then(|text| in_flags(text, by)) {
            *warning = told.into();
        }
    }
    answer
}

/// For the table of a Compose file's keys, which must know them all.
#[cfg(test)]
pub fn fields_with_flags() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().map(|(path, _)| *path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::service::ServiceCommand;
    use clap::{CommandFactory, Parser};
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(subcommand)]
        _command: ServiceCommand,
    }

    #[test]
    fn every_flag_of_the_table_is_one() {
        let command = Only::command();
        let has = |of: &str, flag: &str| {
            let flag = flag.trim_start_matches('-');
            command.find_subcommand(of).unwrap().get_arguments().any(|arg| arg.get_long() == Some(flag))
        };
        for (path, flag) in FLAGS.iter().filter(|(_, flag)| flag.starts_with("--")) {
            let bare = flag.trim_end_matches('+');
            // A new service's command words are arguments; an old one has its name and its mode.
            assert!(*flag == "--args" || has("create", bare), "{path}: {bare}");
            let of_update = if flag.ends_with('+') { format!("{bare}-add") } else { bare.to_owned() };
            let only_new = ["--name", "--mode"].contains(flag);
            assert!(only_new || has("update", &of_update), "{path}: {of_update}");
        }
        for (n, (path, _)) in FLAGS.iter().enumerate() {
            let hidden =
                FLAGS[..n].iter().find(|(before, _)| path.strip_prefix(before).is_some_and(|r| r.starts_with('.')));
            assert_eq!(hidden, None, "{path} is never found");
        }
    }

    #[test]
    fn fields_become_flags() {
        for (message, create, update) in [
            ("TaskTemplate.Placement.Constraints[0]: unknown", "--constraint: unknown", "--constraint-add: unknown"),
            ("TaskTemplate.ContainerSpec.Image: \"A\" is none", "the image: \"A\" is none", "--image: \"A\" is none"),
            (
                "EndpointSpec.Ports[0].TargetPort: want 1",
                "--publish: TargetPort: want 1",
                "--publish-add: TargetPort: want 1",
            ),
            (
                "Name: \"a b\" is not a valid name: want letters",
                "--name: \"a b\" is not a valid name: want letters",
                "--name: \"a b\" is not a valid name: want letters",
            ),
        ] {
            assert_eq!(in_flags(message, By::Create).as_deref(), Some(create));
            assert_eq!(in_flags(message, By::Update).as_deref(), Some(update));
        }
        for message in ["NameOrSo: x", "a majority is away", "TaskTemplate.PluginSpec: not supported"] {
            assert_eq!(in_flags(message, By::Create), None, "{message}");
        }
        let warned = warned(json!({ "Warnings": ["TaskTemplate.Placement.MaxReplicas: no effect", "x"] }), By::Create);
        assert_eq!(warned["Warnings"], json!(["--replicas-max-per-node: no effect", "x"]));
    }

    #[test]
    fn misuse_is_told_from_what_only_does_not_fit_now() {
        let refused =
            |status: u16, message: &str| refused(ApiError::Refused { status, message: message.to_owned() }, By::Create);
        assert_eq!(refused(400, "EndpointSpec.Ports[0].Protocol: want tcp").code(), 2);
        assert_eq!(refused(400, "EndpointSpec.Ports: port '80' is already in use by service 'web'").code(), 1);
        assert_eq!(refused(400, "something else: no").code(), 1);
        assert_eq!(refused(503, "Name: x").message(), "Name: x");
    }
}
