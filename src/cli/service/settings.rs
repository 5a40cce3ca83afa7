//! The flags that `service create` and `service update` share, and what they put into a spec. For both a flag that
//! isn't given leaves the spec as it is, so creating is updating a bare spec.

use super::csv::Words;
use super::values;
use crate::cli::error::CliError;
use crate::cli::go::{Bytes, NanoCpus, Nanos, parse_bool};
use crate::cli::json::{Object, child, put, put_list, put_nonzero, put_text, put_texts, put_true, take_texts};
use crate::model::spec::hardware;
use clap::{ArgAction, Args};
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[derive(Debug, Default, Args)]
pub struct Settings {
    /// Number of tasks; of a job, how many are to end with success
    #[arg(long, value_name = "N", value_parser = values::count::<u64>)]
    pub replicas: Option<u64>,
    /// Number of a job's tasks that run at a time (default: all)
    #[arg(long, value_name = "N", value_parser = values::count::<u64>)]
    max_concurrent: Option<u64>,
    /// User inside the container, as NAME|UID[:GROUP|GID]
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Host name of the container; may have {{.Task.Slot}} in it
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Instead of the image's ENTRYPOINT
    #[arg(long, value_name = "WORDS")]
    entrypoint: Option<Words>,
    /// Run a small init as the first process
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, value_name = "BOOL")]
    init: Option<bool>,
    /// Mount the container's root file system read-only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, value_name = "BOOL")]
    read_only: Option<bool>,
    /// Allocate a pseudo-terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, value_name = "BOOL")]
    tty: Option<bool>,
    /// Signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// From that signal to SIGKILL (default 10s)
    #[arg(long, value_name = "DURATION")]
    stop_grace_period: Option<Nanos>,
    /// Give the container a capability of the kernel
    #[arg(long, value_name = "CAP", value_parser = values::capability)]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAP", value_parser = values::capability)]
    cap_drop: Vec<String>,
    /// Every capability and every device of the node, with none of the engine's guards
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, value_name = "BOOL")]
    privileged: Option<bool>,
    /// Size of the container's /dev/shm, as 256m (0: the engine's default)
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<Bytes>,
    /// GPUs of the node: all, a number, or device=ID[,ID...] (none: no longer)
    #[arg(long, value_name = "GPUS", value_parser = values::gpus)]
    gpus: Option<String>,
    /// -1000 to 1000; the kernel kills the higher first when memory runs out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(-1000..=1000))]
    oom_score_adj: Option<i64>,
    /// Where the containers' output goes
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// An option of the log driver
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    log_opt: Vec<(String, String)>,
    /// Nodes' way to the service: vip or dnsrr
    #[arg(long, value_name = "MODE", value_parser = ["vip", "dnsrr"], hide = true)]
    endpoint_mode: Option<String>,

    /// Command that says whether the container is well
    #[arg(long, value_name = "COMMAND", help_heading = "Health")]
    health_cmd: Option<String>,
    /// Between two checks
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    health_interval: Option<Nanos>,
    /// A check may take this long
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    health_timeout: Option<Nanos>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "N", value_parser = values::count::<u32>, help_heading = "Health")]
    health_retries: Option<u32>,
    /// Failures don't count for this long after the start
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    health_start_period: Option<Nanos>,
    /// Between two checks during the start period
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    health_start_interval: Option<Nanos>,
    /// Ignore the image's HEALTHCHECK
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, value_name = "BOOL", help_heading = "Health")]
    no_healthcheck: Option<bool>,

    /// CPUs at most, as 0.5
    #[arg(long, value_name = "CPUS", help_heading = "Resources and placement")]
    limit_cpu: Option<NanoCpus>,
    /// Memory at most, as 64m
    #[arg(long, value_name = "BYTES", help_heading = "Resources and placement")]
    limit_memory: Option<Bytes>,
    /// Processes at most (0: no limit)
    #[arg(long, value_name = "N", value_parser = values::count::<u64>, help_heading = "Resources and placement")]
    limit_pids: Option<u64>,
    /// CPUs that a node must have free
    #[arg(long, value_name = "CPUS", help_heading = "Resources and placement")]
    reserve_cpu: Option<NanoCpus>,
    /// Memory that a node must have free
    #[arg(long, value_name = "BYTES", help_heading = "Resources and placement")]
    reserve_memory: Option<Bytes>,
    /// Tasks on one node at most (0: no limit)
    #[arg(long, value_name = "N", value_parser = values::count::<u64>, help_heading = "Resources and placement")]
    replicas_max_per_node: Option<u64>,

    /// When to start a stopped task anew (default any)
    #[arg(long, value_name = "none|on-failure|any", value_parser = ["none", "on-failure", "any"], hide_possible_values = true, help_heading = "Restart")]
    restart_condition: Option<String>,
    /// Wait before it (default 5s)
    #[arg(long, value_name = "DURATION", help_heading = "Restart")]
    restart_delay: Option<Nanos>,
    /// Give up after this many (default 0: never)
    #[arg(long, value_name = "N", value_parser = values::count::<u64>, help_heading = "Restart")]
    restart_max_attempts: Option<u64>,
    /// Older attempts don't count (default 0: all do)
    #[arg(long, value_name = "DURATION", help_heading = "Restart")]
    restart_window: Option<Nanos>,

    /// Tasks replaced at once (default 1; 0: all)
    #[arg(long, value_name = "N", value_parser = values::count::<u64>, help_heading = "Updates")]
    update_parallelism: Option<u64>,
    /// Wait after each task (default 0s)
    #[arg(long, value_name = "DURATION", help_heading = "Updates")]
    update_delay: Option<Nanos>,
    /// Stop the old task first, or start the new one first (default stop-first)
    #[arg(long, value_name = "stop-first|start-first", value_parser = ["stop-first", "start-first"], hide_possible_values = true, help_heading = "Updates")]
    update_order: Option<String>,
    /// What to do when new tasks fail (default pause)
    #[arg(long, value_name = "pause|continue|rollback", value_parser = ["pause", "continue", "rollback"], hide_possible_values = true, help_heading = "Updates")]
    update_failure_action: Option<String>,
    /// A new task that fails within this counts as failed (default 5s; 0: don't wait)
    #[arg(long, value_name = "DURATION", help_heading = "Updates")]
    update_monitor: Option<Nanos>,
    /// Share of failed tasks to put up with (default 0)
    #[arg(long, value_name = "RATIO", value_parser = values::ratio, help_heading = "Updates")]
    update_max_failure_ratio: Option<f64>,

    /// As --update-parallelism, for a rollback
    #[arg(long, value_name = "N", value_parser = values::count::<u64>, help_heading = "Rollbacks")]
    rollback_parallelism: Option<u64>,
    /// As --update-delay
    #[arg(long, value_name = "DURATION", help_heading = "Rollbacks")]
    rollback_delay: Option<Nanos>,
    /// As --update-order
    #[arg(long, value_name = "stop-first|start-first", value_parser = ["stop-first", "start-first"], hide_possible_values = true, help_heading = "Rollbacks")]
    rollback_order: Option<String>,
    /// What to do when tasks fail in a rollback (default pause)
    #[arg(long, value_name = "pause|continue", value_parser = ["pause", "continue"], hide_possible_values = true, help_heading = "Rollbacks")]
    rollback_failure_action: Option<String>,
    /// As --update-monitor
    #[arg(long, value_name = "DURATION", help_heading = "Rollbacks")]
    rollback_monitor: Option<Nanos>,
    /// As --update-max-failure-ratio
    #[arg(long, value_name = "RATIO", value_parser = values::ratio, help_heading = "Rollbacks")]
    rollback_max_failure_ratio: Option<f64>,

    #[command(flatten)]
    pub how: How,
}

/// How the command goes about it; nothing of this is in the spec.
#[derive(Debug, Default, Args)]
pub struct How {
    /// Give the nodes the credentials that `docker login` stored here
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, value_name = "BOOL", action = ArgAction::Set)]
    pub with_registry_auth: Option<bool>,
    /// Don't ask the registry which digest the image's tag means now
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, value_name = "BOOL")]
    pub no_resolve_image: Option<bool>,
    #[command(flatten)]
    pub waiting: Waiting,
}

#[derive(Debug, Default, Clone, Copy, Args)]
pub struct Waiting {
    /// Don't wait until the service has converged
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, value_name = "BOOL")]
    pub detach: Option<bool>,
    /// Don't show progress
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, value_name = "BOOL")]
    pub quiet: Option<bool>,
    /// Stop waiting after so long, as 2m, with an error; the cluster goes on with it
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Nanos>,
}

/// How many of a spec's mode there are to be; the error is a mode that has no number.
pub fn set_replicas(mode: &mut Object, replicas: u64) -> Result<(), ()> {
    if mode.contains_key("Replicated") {
        put(child(mode, "Replicated"), "Replicas", replicas);
    } else if mode.contains_key("ReplicatedJob") {
        put(child(mode, "ReplicatedJob"), "TotalCompletions", replicas);
    } else {
        return Err(());
    }
    Ok(())
}

const SECOND: u64 = 1_000_000_000;

impl Settings {
    pub fn apply(&self, spec: &mut Object) -> Result<(), CliError> {
        self.mode(spec)?;
        self.hardware(spec);
        let task = child(spec, "TaskTemplate");
        self.container(child(task, "ContainerSpec"))?;
        self.resources(task);
        self.restart(task);
        self.log(task)?;
        if let Some(max) = self.replicas_max_per_node {
            put_nonzero(child(task, "Placement"), "MaxReplicas", max);
        }
        if let Some(mode) = &self.endpoint_mode {
            put(child(spec, "EndpointSpec"), "Mode", mode.as_str());
        }
        self.update_config().apply(spec, "UpdateConfig");
        self.rollback_config().apply(spec, "RollbackConfig");
        Ok(())
    }

    fn mode(&self, spec: &mut Object) -> Result<(), CliError> {
        if self.replicas.or(self.max_concurrent).is_none() {
            return Ok(());
        }
        let mode = child(spec, "Mode");
        if let Some(replicas) = self.replicas {
            set_replicas(mode, replicas)
                .map_err(|()| CliError::misuse("--replicas can only be used with replicated or replicated-job mode"))?;
        }
        if let Some(concurrent) = self.max_concurrent {
            if !mode.contains_key("ReplicatedJob") {
                return Err(CliError::misuse("--max-concurrent can only be used with replicated-job mode"));
            }
            put(child(mode, "ReplicatedJob"), "MaxConcurrent", concurrent);
        }
        Ok(())
    }

    /// What docker's spec has no place for stands in labels of the service.
    fn hardware(&self, spec: &mut Object) {
        let labels = [
            (hardware::PRIVILEGED, self.privileged.map(|on| if on { "true".to_owned() } else { String::new() })),
            (
                hardware::SHM_SIZE,
                self.shm_size.map(|bytes| if bytes.0 == 0 { String::new() } else { bytes.0.to_string() }),
            ),
            (hardware::GPUS, self.gpus.clone()),
        ];
        for (key, value) in labels {
            if let Some(value) = value {
                put_label(spec, key, &value);
            }
        }
    }

    fn container(&self, container: &mut Object) -> Result<(), CliError> {
        let texts = [
            ("User", &self.user),
            ("Dir", &self.workdir),
            ("Hostname", &self.hostname),
            ("StopSignal", &self.stop_signal),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                put_text(container, key, value);
            }
        }
        if let Some(words) = &self.entrypoint {
            put_texts(container, "Command", words.0.clone());
        }
        if let Some(init) = self.init {
            put(container, "Init", init);
        }
        for (key, value) in [("ReadOnly", self.read_only), ("TTY", self.tty)] {
            if let Some(value) = value {
                put_true(container, key, value);
            }
        }
        if let Some(grace) = self.stop_grace_period {
            put(container, "StopGracePeriod", grace.0);
        }
        match self.oom_score_adj {
            Some(0) => drop(container.remove("OomScoreAdj")),
            Some(score) => put(container, "OomScoreAdj", score),
            None => {}
        }
        self.capabilities(container);
        self.health(container)
    }

    /// As docker: what was dropped and is now added is as in the image again, and the other way round; ALL makes the
    /// others needless; RESET empties the list; of one capability that is both added and dropped here the adding counts.
    fn capabilities(&self, container: &mut Object) {
        const RESET: &str = "RESET";
        if self.cap_add.is_empty() && self.cap_drop.is_empty() {
            return;
        }
        let had = |key: &str, flags: &[String]| -> BTreeSet<String> {
            if flags.iter().any(|cap| cap == RESET) {
                BTreeSet::new()
            } else {
                take_texts(container, key).into_iter().collect()
            }
        };
        let (mut add, mut drop) = (had("CapabilityAdd", &self.cap_add), had("CapabilityDrop", &self.cap_drop));
        for cap in self.cap_drop.iter().filter(|cap| *cap != RESET && !self.cap_add.contains(cap)) {
            if !add.remove(cap) {
                drop.insert(cap.clone());
            }
        }
        for cap in self.cap_add.iter().filter(|cap| *cap != RESET) {
            if !drop.remove(cap) {
                add.insert(cap.clone());
            }
        }
        let all = |caps: BTreeSet<String>| {
            if caps.contains("ALL") { vec!["ALL".to_owned()] } else { caps.into_iter().collect() }
        };
        put_texts(container, "CapabilityAdd", all(add));
        put_texts(container, "CapabilityDrop", all(drop));
    }

    fn health(&self, container: &mut Object) -> Result<(), CliError> {
        let durations = [
            ("Interval", self.health_interval),
            ("Timeout", self.health_timeout),
            ("StartPeriod", self.health_start_period),
            ("StartInterval", self.health_start_interval),
        ];
        let any =
            self.health_cmd.is_some() || self.health_retries.is_some() || durations.iter().any(|(_, d)| d.is_some());
        if self.no_healthcheck == Some(true) {
            if any {
                return Err(CliError::misuse("--no-healthcheck conflicts with the --health-* options"));
            }
            put(container, "Healthcheck", json!({ "Test": ["NONE"] }));
            return Ok(());
        }
        if !any {
            return Ok(());
        }
        let check = child(container, "Healthcheck");
        if check.get("Test") == Some(&json!(["NONE"])) {
            check.remove("Test");
        }
        match self.health_cmd.as_deref() {
            Some("") => drop(check.remove("Test")),
            Some(command) => put(check, "Test", json!(["CMD-SHELL", command])),
            None => {}
        }
        for (key, value) in durations {
            if let Some(value) = value {
                put_nonzero(check, key, value.0);
            }
        }
        if let Some(retries) = self.health_retries {
            put_nonzero(check, "Retries", retries.into());
        }
        Ok(())
    }

    fn resources(&self, task: &mut Object) {
        let limits = [
            ("Limits", "NanoCPUs", self.limit_cpu.map(|cpus| cpus.0)),
            ("Limits", "MemoryBytes", self.limit_memory.map(|bytes| bytes.0)),
            ("Limits", "Pids", self.limit_pids),
            ("Reservations", "NanoCPUs", self.reserve_cpu.map(|cpus| cpus.0)),
            ("Reservations", "MemoryBytes", self.reserve_memory.map(|bytes| bytes.0)),
        ];
        for (kind, key, value) in limits {
            if let Some(value) = value {
                put_nonzero(child(child(task, "Resources"), kind), key, value);
            }
        }
    }

    fn restart(&self, task: &mut Object) {
        let durations = [("Delay", self.restart_delay), ("Window", self.restart_window)];
        let any = self.restart_condition.is_some() || self.restart_max_attempts.is_some();
        if !any && durations.iter().all(|(_, d)| d.is_none()) {
            return;
        }
        if task.get("RestartPolicy").is_none_or(Value::is_null) {
            put(task, "RestartPolicy", json!({ "Condition": "any", "Delay": 5 * SECOND, "MaxAttempts": 0 }));
        }
        let policy = child(task, "RestartPolicy");
        if let Some(condition) = &self.restart_condition {
            put(policy, "Condition", condition.as_str());
        }
        if let Some(attempts) = self.restart_max_attempts {
            put(policy, "MaxAttempts", attempts);
        }
        for (key, value) in durations {
            if let Some(value) = value {
                put(policy, key, value.0);
            }
        }
    }

    /// A driver comes with its options: those of the one before go.
    fn log(&self, task: &mut Object) -> Result<(), CliError> {
        match self.log_driver.as_deref() {
            None if self.log_opt.is_empty() => {}
            None => return Err(CliError::misuse("--log-opt needs --log-driver")),
            Some("") => drop(task.remove("LogDriver")),
            Some(driver) => {
                let mut log = Object::new();
                put(&mut log, "Name", driver);
                if !self.log_opt.is_empty() {
                    put(
                        &mut log,
                        "Options",
                        Value::Object(self.log_opt.iter().map(|(k, v)| (k.clone(), json!(v))).collect()),
                    );
                }
                put(task, "LogDriver", log);
            }
        }
        Ok(())
    }

    fn update_config(&self) -> Pace<'_> {
        Pace {
            parallelism: self.update_parallelism,
            delay: self.update_delay,
            order: self.update_order.as_deref(),
            failure_action: self.update_failure_action.as_deref(),
            monitor: self.update_monitor,
            max_failure_ratio: self.update_max_failure_ratio,
        }
    }

    fn rollback_config(&self) -> Pace<'_> {
        Pace {
            parallelism: self.rollback_parallelism,
            delay: self.rollback_delay,
            order: self.rollback_order.as_deref(),
            failure_action: self.rollback_failure_action.as_deref(),
            monitor: self.rollback_monitor,
            max_failure_ratio: self.rollback_max_failure_ratio,
        }
    }
}

/// The `--update-*` or the `--rollback-*` flags.
#[derive(PartialEq, Default)]
struct Pace<'a> {
    parallelism: Option<u64>,
    delay: Option<Nanos>,
    order: Option<&'a str>,
    failure_action: Option<&'a str>,
    monitor: Option<Nanos>,
    max_failure_ratio: Option<f64>,
}

impl Pace<'_> {
    fn apply(&self, spec: &mut Object, key: &str) {
        if *self == Pace::default() {
            return;
        }
        if spec.get(key).is_none_or(Value::is_null) {
            let defaults = json!({ "Parallelism": 1, "FailureAction": "pause", "Monitor": 5 * SECOND, "MaxFailureRatio": 0, "Order": "stop-first" });
            put(spec, key, defaults);
        }
        let config = child(spec, key);
        if let Some(parallelism) = self.parallelism {
            put(config, "Parallelism", parallelism);
        }
        if let Some(delay) = self.delay {
            put_nonzero(config, "Delay", delay.0);
        }
        // Unlike docker, which leaves a zero out and so gets five seconds: here zero means not to wait.
        if let Some(monitor) = self.monitor {
            put(config, "Monitor", monitor.0);
        }
        if let Some(ratio) = self.max_failure_ratio {
            // Go writes whole numbers without a fraction.
            put(
                config,
                "MaxFailureRatio",
                if ratio == 0.0 || ratio == 1.0 { json!(u8::from(ratio > 0.5)) } else { json!(ratio) },
            );
        }
        for (key, value) in [("Order", self.order), ("FailureAction", self.failure_action)] {
            if let Some(value) = value {
                put(config, key, value);
            }
        }
    }
}

/// An empty value takes the label off.
pub fn put_label(spec: &mut Object, key: &str, value: &str) {
    let labels = child(spec, "Labels");
    match value {
        "" => drop(labels.remove(key)),
        value => put(labels, key, value),
    }
}

/// Edits the list in `object`; an empty one is left out.
pub fn edit_list(object: &mut Object, key: &str, edit: impl FnOnce(&mut Vec<Value>)) {
    let mut list = match object.remove(key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    edit(&mut list);
    put_list(object, key, list);
}
