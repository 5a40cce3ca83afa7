use super::*;
use crate::model::object::ObjectKind;
use crate::model::spec::{MountKind, NodeAttribute};
use serde_json::{Value, json};
use std::time::Duration;

const CREATE: &str = include_str!("../testdata/create.json");
const RICH: &str = include_str!("../testdata/create-rich.json");
const UPDATE: &str = include_str!("../testdata/update-options.json");
const STACK: &str = include_str!("../testdata/stack-web.json");

/// The smallest spec that is accepted, with `value` put at `path` ("A.B[0].C" without the brackets: "A.B.C").
fn minimal() -> Value {
    json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}})
}

/// Swarm's ids go a little further than 128 bits; here they begin with a 0 to be ours.
fn ours(text: &str) -> String {
    let mut spec: Value = serde_json::from_str(text).unwrap();
    let container = &mut spec["TaskTemplate"]["ContainerSpec"];
    for (list, key) in [("Secrets", "SecretID"), ("Configs", "ConfigID")] {
        for item in container[list].as_array_mut().unwrap() {
            let id = item[key].as_str().unwrap();
            item[key] = json!(format!("0{}", &id[1..]));
        }
    }
    spec.to_string()
}

fn with(path: &str, value: Value) -> String {
    let mut spec = minimal();
    let mut at = &mut spec;
    for key in path.split('.') {
        at = &mut at[key];
    }
    *at = value;
    spec.to_string()
}

fn accepted(path: &str, value: Value) -> ServiceSpec {
    let text = with(path, value);
    parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn the_smallest_spec_gets_swarms_defaults() {
    let spec = parse(&minimal().to_string()).unwrap();
    assert_eq!(spec.name, "web");
    assert_eq!(spec.mode, Mode::Replicated(1));
    assert_eq!(spec.update, UpdateConfig::default());
    assert_eq!(spec.rollback, UpdateConfig::default());
    assert_eq!(spec.task.restart, RestartPolicy::default());
    assert_eq!(spec.task.container.stop_grace(), Duration::from_secs(10));
    assert_eq!(spec.task.container.healthcheck, None);
    assert!(spec.ports.is_empty() && spec.task.placement.constraints.is_empty());
}

#[test]
fn nulls_and_empty_words_are_the_same_as_nothing() {
    let mut spec = minimal();
    for key in ["Labels", "Mode", "UpdateConfig", "RollbackConfig", "EndpointSpec", "Networks"] {
        spec[key] = Value::Null;
    }
    for key in ["Resources", "RestartPolicy", "Placement", "Networks", "LogDriver", "Runtime", "ForceUpdate"] {
        spec["TaskTemplate"][key] = Value::Null;
    }
    for key in
        ["Labels", "Command", "Env", "Hostname", "Init", "Mounts", "Healthcheck", "Secrets", "Configs", "Privileges"]
    {
        spec["TaskTemplate"]["ContainerSpec"][key] = Value::Null;
    }
    let plain = parse(&minimal().to_string()).unwrap();
    assert_eq!(parse(&spec.to_string()), Ok(plain.clone()));

    spec["EndpointSpec"] = json!({"Mode": "", "Ports": null});
    spec["TaskTemplate"]["RestartPolicy"] = json!({"Condition": "", "Delay": null});
    spec["TaskTemplate"]["ContainerSpec"]["Isolation"] = json!("default");
    spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = json!({"Test": [], "Interval": 0});
    spec["TaskTemplate"]["Runtime"] = json!("container");
    spec["TaskTemplate"]["LogDriver"] = json!({"Name": "", "Options": {}});
    assert_eq!(parse(&spec.to_string()), Ok(plain));
}

#[test]
fn recorded_create() {
    let spec = parse(CREATE).unwrap();
    assert_eq!(spec.mode, Mode::Replicated(1));
    assert_eq!(spec.task.placement.platforms, [("linux".to_owned(), "amd64".to_owned())]);
    assert_eq!(spec.task.container.init, Some(false));
    let port = PublishedPort {
        name: String::new(),
        protocol: Protocol::Tcp,
        target: 5000,
        published: 9000,
        mode: PublishMode::Ingress,
    };
    assert_eq!(spec.ports, [port]);
    assert!(warnings(CREATE).is_empty());
}

#[test]
fn recorded_update() {
    let spec = parse(UPDATE).unwrap();
    assert_eq!(spec.mode, Mode::Replicated(5));
    assert_eq!(spec.update.parallelism, 2);
    assert_eq!(spec.update.delay, Duration::from_secs(1));
    assert_eq!(spec.update.order, Order::StartFirst);
    assert_eq!(spec.task.container.env, ["GREETING=Env"]);
    assert_eq!(spec.task.resources.limit_memory, 64 << 20);
    assert!(spec.needs_replacement(&parse(CREATE).unwrap()));
}

#[test]
fn recorded_wide_spec() {
    let spec = parse(&ours(RICH)).unwrap();
    let container = &spec.task.container;
    let files: Vec<_> =
        container.files.iter().map(|f| (f.kind, f.name.as_str(), f.target.as_str(), f.uid, f.mode)).collect();
    let secret = (ObjectKind::Secret, "token", "/run/secrets/token", 0, 0o444);
    assert_eq!(files, [secret, (ObjectKind::Config, "motd", "/etc/motd", 0, 0o444)]);
    assert_eq!(container.networks.len(), 1);
    assert_eq!(container.hostname.as_deref(), Some("h-{{.Task.Slot}}"));
    assert_eq!(container.args, ["/greeter"]);
    assert_eq!((container.dir.as_deref(), container.user.as_deref()), (Some("/"), Some("0")));
    assert_eq!(container.stop_signal.as_deref(), Some("SIGTERM"));
    assert_eq!(container.stop_grace, Some(Duration::from_secs(5)));
    assert_eq!(container.healthcheck.as_ref().unwrap().test, ["NONE"]);
    assert_eq!(container.hosts, ["10.0.0.9 db"]);
    assert_eq!(container.labels["c"], "d");
    let mounts: Vec<_> = container.mounts.iter().map(|m| (m.kind, m.source.as_deref(), m.target.as_str())).collect();
    assert_eq!(mounts, [(MountKind::Volume, Some("data"), "/data"), (MountKind::Tmpfs, None, "/run")]);
    assert_eq!(spec.task.resources.limit_nano_cpus, 500_000_000);
    assert_eq!(spec.task.resources.reserve_memory, 16 << 20);
    assert_eq!(spec.task.restart.condition, RestartCondition::OnFailure);
    assert_eq!(spec.task.restart.max_attempts, 3);
    assert_eq!(spec.task.placement.constraints[0].to_string(), "node.role==worker");
    assert_eq!(spec.task.placement.spread, [NodeAttribute::Label("zone".into())]);
    assert_eq!(spec.update.failure_action, FailureAction::Rollback);
    assert_eq!(spec.rollback.parallelism, 0);
    assert_eq!(spec.labels["tier"], "front");
    assert_eq!(spec.host_ports().count(), 1);
}

#[test]
fn recorded_stack_service() {
    let spec = parse(&ours(STACK)).unwrap();
    let files: Vec<_> = spec.task.container.files.iter().map(|f| (f.target.as_str(), f.mode)).collect();
    assert_eq!(files, [("/run/secrets/token", 0o444), ("/etc/motd", 0o444)]);
    assert_eq!(spec.task.container.networks[0].aliases, ["web"]);
    assert_eq!(spec.update.monitor, Duration::from_secs(5), "a stack sends none");
    assert_eq!(spec.task.restart.delay, Duration::from_secs(5));
    assert_eq!(spec.ports[0].protocol, Protocol::Tcp, "a stack sends none");
    let warnings = warnings(&ours(STACK));
    assert!(warnings[0].starts_with("TaskTemplate.Networks: names resolve only"), "{warnings:?}");
    assert!(warnings[1].starts_with("EndpointSpec.Mode: dnsrr"), "{warnings:?}");
}

#[test]
fn what_is_not_supported_yet_is_named() {
    for (path, value) in [
        ("Networks", json!([{"Target": "net1"}])),
        ("TaskTemplate.ContainerSpec.Isolation", json!("hyperv")),
        ("TaskTemplate.ContainerSpec.Privileges.CredentialSpec", json!({"File": "x"})),
        ("TaskTemplate.ContainerSpec.Privileges.SELinuxContext", json!({"Disable": true})),
        ("TaskTemplate.ContainerSpec.Privileges.Seccomp", json!({"Mode": "unconfined"})),
        ("TaskTemplate.ContainerSpec.Privileges.AppArmor", json!({"Mode": "disabled"})),
        ("TaskTemplate.ContainerSpec.Privileges.NoNewPrivileges", json!(true)),
        ("TaskTemplate.Runtime", json!("plugin")),
        ("TaskTemplate.PluginSpec", json!({"Name": "x"})),
    ] {
        let error = parse(&with(path, value)).unwrap_err();
        assert_eq!(error.field, path);
        assert!(error.why.ends_with("not supported yet"), "{error}");
    }
}

#[test]
fn a_job_runs_as_many_as_it_says_and_is_never_restarted_after_a_success() {
    let mode = |value| parse(&with("Mode", value)).unwrap().mode;
    let replicated = |concurrent, total| Mode::ReplicatedJob { concurrent, total };
    assert_eq!(mode(json!({"ReplicatedJob": {}})), replicated(1, 1));
    assert_eq!(mode(json!({"ReplicatedJob": {"MaxConcurrent": 3}})), replicated(3, 3));
    assert_eq!(mode(json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 7}})), replicated(2, 7));
    assert_eq!(mode(json!({"GlobalJob": {}})), Mode::GlobalJob);
    let job = parse(&with("Mode", json!({"GlobalJob": {}}))).unwrap();
    assert_eq!(job.task.restart.condition, RestartCondition::OnFailure, "Swarm reads `any` so");
    for (bad, says) in [
        (json!({"ReplicatedJob": {}, "GlobalJob": {}}), "both ReplicatedJob and GlobalJob"),
        (json!({"Replicated": {}, "ReplicatedJob": {}}), "both Replicated and ReplicatedJob"),
        (json!({"ReplicatedJob": {"TotalCompletions": -1}}), "is negative"),
        (json!({"ReplicatedJob": {"MaxConcurrent": 1_000_000}}), "is too many"),
    ] {
        let error = parse(&with("Mode", bad)).unwrap_err();
        assert!(error.field.starts_with("Mode") && error.why.contains(says), "{error}");
    }
}

#[test]
fn files_land_where_docker_puts_them_and_bad_ones_are_named() {
    const ID: &str = "0dc70b6my1rq90l953qsl6ipg";
    let secret = |file: serde_json::Value| json!([{ "SecretID": ID, "SecretName": "token", "File": file }]);
    let path = "TaskTemplate.ContainerSpec.Secrets";
    let target = |kind: &str, file: serde_json::Value| {
        let list = json!([{ format!("{kind}ID"): ID, format!("{kind}Name"): "token", "File": file }]);
        let spec = parse(&with(&format!("TaskTemplate.ContainerSpec.{kind}s"), list)).unwrap();
        let file = spec.task.container.files[0].clone();
        (file.target, file.uid, file.gid, file.mode)
    };
    let at = |text: &str| text.to_owned();
    assert_eq!(target("Secret", json!({ "Name": "x" })), (at("/run/secrets/x"), 0, 0, 0o444));
    let owned = json!({ "Name": "/etc/x", "UID": "5", "GID": "6", "Mode": 0o400 });
    assert_eq!(target("Secret", owned), (at("/etc/x"), 5, 6, 0o400));
    assert_eq!(target("Config", json!({ "Name": "x" })).0, "/x");
    for (file, field) in [
        (json!({ "Name": "../x" }), "[0].File.Name"),
        (json!({ "Name": "x/" }), "[0].File.Name"),
        (json!({ "Name": "x", "UID": "root" }), "[0].File.UID"),
        (json!({ "Name": "x", "Mode": 0o17777 }), "[0].File.Mode"),
        (json!(null), "[0].File"),
    ] {
        assert_eq!(parse(&with(path, secret(file))).unwrap_err().field, format!("{path}{field}"));
    }
    let twice = json!([
        { "SecretID": ID, "SecretName": "a", "File": { "Name": "x" } },
        { "SecretID": ID, "SecretName": "b", "File": { "Name": "/run/secrets/x" } }]);
    assert!(parse(&with(path, twice)).unwrap_err().why.contains("target of two"));
    let bad_id = json!([{ "SecretID": "x", "SecretName": "a", "File": { "Name": "x" } }]);
    assert_eq!(parse(&with(path, bad_id)).unwrap_err().field, format!("{path}[0].SecretID"));
}

#[test]
fn every_bad_value_names_its_field() {
    const C: &str = "TaskTemplate.ContainerSpec";
    const P: &str = "TaskTemplate.Placement";
    const R: &str = "TaskTemplate.Resources";
    let port = |change: Value| {
        let mut port = json!({"TargetPort": 80, "PublishedPort": 8080});
        port.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!([port])
    };
    let mount = |change: Value| {
        let mut mount = json!({"Type": "volume", "Source": "data", "Target": "/data"});
        mount.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!([mount])
    };
    let table: Vec<(String, Value, String, &str)> = [
        ("Name", json!(""), "", "missing: want a name"),
        ("Name", json!("-web"), "", "not a valid name"),
        ("Name", json!("web_"), "", "not a valid name"),
        ("Name", json!("we b"), "", "not a valid name"),
        ("Name", json!("wéb"), "", "not a valid name"),
        ("Name", json!("a".repeat(64)), "", "longer than 63 characters"),
        ("Name", json!(7), "", "want a string, found a number"),
        ("Labels", json!([]), "", "want an object, found a list"),
        ("Labels", json!({"a.b": 1}), "[\"a.b\"]", "want a string, found a number"),
        ("Mode", json!("replicated"), "", "want an object, found a string"),
        ("Mode", json!({"Replicated": {}, "Global": {}}), "", "want one of them"),
        ("Mode.Global", json!(true), "", "want an object, found a boolean"),
        ("Mode.Replicated.Replicas", json!(-1), "", "-1 is negative"),
        ("Mode.Replicated.Replicas", json!(50_001), "", "50001 is too many: want at most 50000"),
        ("Mode.Replicated.Replicas", json!(1.5), "", "want a whole number, found 1.5"),
        ("Mode.Replicated.Replicas", json!("2"), "", "want a whole number, found a string"),
        ("UpdateConfig.Parallelism", json!(-1), "", "negative"),
        ("UpdateConfig.Parallelism", json!(1u64 << 40), "", "too many"),
        ("UpdateConfig.Delay", json!(-5), "", "-5 ns is negative"),
        ("UpdateConfig.Delay", json!("10s"), "", "want nanoseconds as a number, found \"10s\""),
        ("UpdateConfig.Monitor", json!(-5), "", "negative"),
        ("UpdateConfig.MaxFailureRatio", json!(1.1), "", "1.1 is out of range: want 0 to 1"),
        ("UpdateConfig.MaxFailureRatio", json!(-0.1), "", "out of range"),
        ("UpdateConfig.FailureAction", json!("explode"), "", "want pause or continue or rollback"),
        ("UpdateConfig.Order", json!("random"), "", "want stop-first or start-first"),
        ("RollbackConfig.Order", json!("x"), "", "unknown value \"x\""),
        ("TaskTemplate.RestartPolicy.Condition", json!("always"), "", "want any or on-failure or none"),
        ("TaskTemplate.RestartPolicy.Delay", json!(-1), "", "negative"),
        ("TaskTemplate.RestartPolicy.Window", json!(-1), "", "negative"),
        ("TaskTemplate.RestartPolicy.MaxAttempts", json!(-1), "", "negative"),
        ("TaskTemplate.ForceUpdate", json!(-1), "", "negative"),
        ("TaskTemplate.LogDriver.Options", json!({"a": null, "b": 1}), "[\"b\"]", "want a string"),
        ("EndpointSpec.Mode", json!("dns"), "", "want vip or dnsrr"),
    ]
    .into_iter()
    .map(|(path, value, rest, why)| (path.to_owned(), value, rest.to_owned(), why))
    .chain(
        [
            (C, "Image", json!(""), "", "missing: want an image"),
            (C, "Image", json!("a b"), "", "\"a b\" is not an image reference"),
            (C, "Image", json!("Nginx"), "", "lower case"),
            (C, "Env", json!(["A=1", "=x"]), "[1]", "has no name: want KEY=VALUE"),
            (C, "Env", json!([""]), "[0]", "has no name"),
            (C, "Env", json!(["A=\u{0}"]), "[0]", "NUL"),
            (C, "Env", json!(["A={{.Task.Nope}}"]), "[0]", "unknown template"),
            (C, "Hostname", json!("{{.Task"), "", "template without an end"),
            (C, "Dir", json!("srv"), "", "not absolute"),
            (C, "StopSignal", json!("SIGNOPE"), "", "is no signal"),
            (C, "StopGracePeriod", json!(-1), "", "negative"),
            (C, "Hosts", json!(["db 10.0.0.9"]), "[0]", "want IP_ADDRESS HOSTNAME"),
            (C, "DNSConfig", json!({"Nameservers": ["dns.example"]}), ".Nameservers[0]", "not an IP address"),
            (C, "Ulimits", json!([{"Name": "nofile", "Soft": 9, "Hard": 8}]), "[0].Soft", "more than the hard limit"),
            (C, "Ulimits", json!([{"Soft": 9}]), "[0].Name", "missing"),
            (C, "OomScoreAdj", json!(1001), "", "out of range"),
            (C, "CapabilityAdd", json!([""]), "[0]", "empty"),
            (C, "Healthcheck", json!({"Test": ["RUN", "x"]}), ".Test", "want NONE, CMD or CMD-SHELL"),
            (C, "Healthcheck", json!({"Test": ["CMD"]}), ".Test", "want a command"),
            (C, "Healthcheck", json!({"Interval": 10}), ".Interval", "10 ns is too short"),
            (C, "Healthcheck", json!({"Timeout": -1}), ".Timeout", "negative"),
            (C, "Healthcheck", json!({"Retries": -1}), ".Retries", "negative"),
            (C, "Mounts", mount(json!({"Target": "data"})), "[0].Target", "not absolute"),
            (C, "Mounts", mount(json!({"Target": ""})), "[0].Target", "not absolute"),
            (C, "Mounts", mount(json!({"Target": "/./"})), "[0].Target", "root"),
            (C, "Mounts", mount(json!({"Source": "/srv"})), "[0].Source", "a mount of type bind for a path"),
            (C, "Mounts", mount(json!({"Source": "v-{{.Task.Slto}}"})), "[0].Source", "unknown template"),
            (C, "Mounts", mount(json!({"Target": "/data/{{.Task"})), "[0].Target", "template without an end"),
            (C, "Mounts", mount(json!({"Type": "bind", "Source": "srv"})), "[0].Source", "a bind wants a path"),
            (C, "Mounts", mount(json!({"Type": "bind", "Source": null})), "[0].Source", "a bind wants a path"),
            (C, "Mounts", mount(json!({"Type": "tmpfs"})), "[0].Source", "want none"),
            (C, "Mounts", mount(json!({"Type": "npipe"})), "[0].Type", "npipe are not supported yet"),
            (C, "Mounts", mount(json!({"Type": "cluster"})), "[0].Type", "cluster are not supported yet"),
            (C, "Mounts", mount(json!({"Type": "nfs"})), "[0].Type", "unknown value \"nfs\""),
            (C, "Mounts", mount(json!({"VolumeOptions": 1})), "[0].VolumeOptions", "want an object"),
            (
                C,
                "Mounts",
                json!([{"Type": "tmpfs", "Target": "/a/b"}, {"Type": "tmpfs", "Target": "/a//b/"}]),
                "[1].Target",
                "mounted twice",
            ),
            (P, "Constraints", json!(["node.role==worker", "node.role=worker"]), "[1]", "want == or !="),
            (P, "Constraints", json!(["node.color==red"]), "[0]", "unknown node attribute"),
            (P, "Preferences", json!([{}]), "[0].Spread.SpreadDescriptor", "missing"),
            (P, "Preferences", json!([{"Spread": {"SpreadDescriptor": "zone"}}]), "[0].Spread.SpreadDescriptor", "unknown"),
            (P, "MaxReplicas", json!(-1), "", "negative"),
            (R, "Limits", json!({"NanoCPUs": -1}), ".NanoCPUs", "negative"),
            (R, "Limits", json!({"NanoCPUs": 999_999}), ".NanoCPUs", "at least 1000000"),
            (R, "Limits", json!({"MemoryBytes": 1024}), ".MemoryBytes", "at least 4194304 (4 MiB)"),
            (R, "Limits", json!({"Pids": -1}), ".Pids", "negative"),
            (R, "Reservations", json!({"NanoCPUs": 10}), ".NanoCPUs", "at least 1000000"),
            (R, "Reservations", json!({"MemoryBytes": 10}), ".MemoryBytes", "at least 4194304"),
            ("EndpointSpec", "Ports", json!({}), "", "want a list"),
            ("EndpointSpec", "Ports", port(json!({"TargetPort": 0})), "[0].TargetPort", "want 1 to 65535"),
            ("EndpointSpec", "Ports", port(json!({"TargetPort": null})), "[0].TargetPort", "want 1 to 65535"),
            ("EndpointSpec", "Ports", port(json!({"TargetPort": 65_536})), "[0].TargetPort", "want 1 to 65535"),
            ("EndpointSpec", "Ports", port(json!({"PublishedPort": -1})), "[0].PublishedPort", "want 0 to 65535"),
            ("EndpointSpec", "Ports", port(json!({"Protocol": "icmp"})), "[0].Protocol", "want tcp or udp or sctp"),
            ("EndpointSpec", "Ports", port(json!({"PublishMode": "x"})), "[0].PublishMode", "want ingress or host"),
            (
                "EndpointSpec",
                "Ports",
                json!([{"TargetPort": 1, "PublishedPort": 9}, {"TargetPort": 2, "PublishedPort": 9, "PublishMode": "host"}]),
                "[1].PublishedPort",
                "9/tcp is published twice",
            ),
        ]
        .into_iter()
        .map(|(parent, key, value, rest, why)| (format!("{parent}.{key}"), value, rest.to_owned(), why)),
    )
    .collect();
    for (path, value, rest, why) in table {
        let error = parse(&with(&path, value)).expect_err(&path);
        assert_eq!(error.field, format!("{path}{rest}"), "{error}");
        assert!(error.why.contains(why), "{error} (wanted: {why})");
    }
}

#[test]
fn the_round_robin_endpoint_takes_no_ingress_port() {
    let text = with("EndpointSpec", json!({"Mode": "dnsrr", "Ports": [{"TargetPort": 80}]}));
    assert_eq!(parse(&text).unwrap_err().field, "EndpointSpec.Ports[0].PublishMode");
    accepted("EndpointSpec", json!({"Mode": "DNSRR", "Ports": [{"TargetPort": 80, "PublishMode": "host"}]}));
}

#[test]
fn ports_that_do_not_collide() {
    let spec = accepted(
        "EndpointSpec.Ports",
        json!([{"TargetPort": 1, "PublishedPort": 9}, {"TargetPort": 2, "PublishedPort": 9, "Protocol": "UDP"},
               {"TargetPort": 3}, {"TargetPort": 4}]),
    );
    assert_eq!(spec.ports.len(), 4);
    assert_eq!(spec.ports[1].protocol, Protocol::Udp);
}

#[test]
fn a_monitor_left_out_is_five_seconds_and_a_written_zero_is_zero() {
    assert_eq!(accepted("UpdateConfig", json!({"Parallelism": 1})).update.monitor, Duration::from_secs(5));
    assert_eq!(accepted("UpdateConfig.Monitor", json!(0)).update.monitor, Duration::ZERO);
    assert_eq!(accepted("TaskTemplate.RestartPolicy.Delay", json!(0)).task.restart.delay, Duration::ZERO);
    assert_eq!(accepted("UpdateConfig", json!({})).update.parallelism, 0, "as in Docker");
}

#[test]
fn both_spellings_of_the_health_check() {
    let check =
        json!({"Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000, "StartInterval": 5_000_000, "Retries": 2});
    let spec = accepted("TaskTemplate.ContainerSpec.Healthcheck", check.clone());
    let found = spec.task.container.healthcheck.as_ref().unwrap();
    assert_eq!((found.interval, found.retries), (Duration::from_secs(1), 2));
    assert_eq!(accepted("TaskTemplate.ContainerSpec.HealthCheck", check), spec);
}

#[test]
fn a_rollback_is_never_rolled_back() {
    let text = with("RollbackConfig.FailureAction", json!("rollback"));
    assert_eq!(parse(&text).unwrap().rollback.failure_action, FailureAction::Pause);
    assert_eq!(warnings(&text), ["RollbackConfig.FailureAction: a failing rollback is paused, not rolled back"]);
}

#[test]
fn options_of_another_mount_type_are_left_out_aloud() {
    let text = with(
        "TaskTemplate.ContainerSpec.Mounts",
        json!([{"Type": "bind", "Source": "/srv", "Target": "/data", "Consistency": "default",
                "BindOptions": {"Propagation": "rprivate"}, "VolumeOptions": {"NoCopy": true}, "TmpfsOptions": null}]),
    );
    let mount = &parse(&text).unwrap().task.container.mounts[0];
    assert_eq!(mount.options.keys().collect::<Vec<_>>(), ["BindOptions"]);
    assert_eq!(
        warnings(&text),
        ["TaskTemplate.ContainerSpec.Mounts[0].VolumeOptions: ignored: the mount is of another type"]
    );
}

#[test]
fn unknown_fields_are_somebody_elses_business() {
    accepted("TaskTemplate.ContainerSpec.FromTheFuture", json!({"a": [1]}));
}

#[test]
fn broken_text_says_where() {
    let error = parse("{\n \"Name\": \"web\",\n}").unwrap_err();
    assert_eq!(error.field, "ServiceSpec");
    assert!(error.why.contains("line 3 column 1"), "{error}");
    assert_eq!(parse("[]").unwrap_err().to_string(), "ServiceSpec: want an object");
    let deep = "[".repeat(100_000);
    assert!(parse(&deep).unwrap_err().why.contains("recursion limit"));
}

#[test]
fn a_text_that_is_too_large_is_not_even_read() {
    let error = parse(&"x".repeat(MAX_SPEC_BYTES + 1)).unwrap_err();
    assert_eq!(error.to_string(), "ServiceSpec: 1048577 bytes, more than the 1048576 allowed");
}

proptest::proptest! {
    /// Any value at any place gives an answer.
    #[test]
    fn no_value_panics(at in 0usize..40, number in proptest::prelude::any::<i64>(), text in ".{0,12}", kind in 0u8..6) {
        let mut spec: Value = serde_json::from_str(RICH).unwrap();
        let value = match kind {
            0 => json!(number),
            1 => json!(text),
            2 => json!([text]),
            3 => json!({text: number}),
            4 => json!(true),
            _ => json!(number as f64 / 3.0),
        };
        let mut left = at;
        replace_nth(&mut spec, &mut left, &value);
        let _ = parse(&spec.to_string());
        let _ = super::super::resolve_defaults(&spec.to_string());
    }
}

fn replace_nth(at: &mut Value, left: &mut usize, value: &Value) {
    if *left == 0 {
        *at = value.clone();
        *left = usize::MAX;
        return;
    }
    *left -= 1;
    match at {
        Value::Object(map) => map.values_mut().for_each(|v| {
            if *left < usize::MAX {
                replace_nth(v, left, value)
            }
        }),
        Value::Array(list) => list.iter_mut().for_each(|v| {
            if *left < usize::MAX {
                replace_nth(v, left, value)
            }
        }),
        _ => {}
    }
}

#[test]
fn options_of_ports_are_checked_with_the_rest() {
    let spec = |labels: Value| {
        let mut spec = minimal();
        spec["Labels"] = labels;
        spec["EndpointSpec"] = json!({"Ports": [{"TargetPort": 8080, "PublishedPort": 80}]});
        parse_with_warnings(&spec.to_string())
    };
    let (good, warnings) = spec(json!({"peer.port.80": "protocol=http,prefer=local"})).unwrap();
    assert!(good.options(&good.ports[0]).is_http() && warnings.is_empty());
    let error = spec(json!({"peer.port.80": "protocol=smtp"})).unwrap_err();
    assert_eq!(error.to_string(), "Labels.peer.port.80: invalid protocol \"smtp\": want tcp, http or h2c");
    let (_, warnings) = spec(json!({"peer.port.81": "protocol=http"})).unwrap();
    assert_eq!(warnings, ["Labels.peer.port.81: has no effect: no such port is published in ingress mode"]);
}

#[test]
fn templates_in_mounts_are_taken_and_what_they_yield_is_the_engines_to_judge() {
    let mounts = json!([
        {"Type": "volume", "Source": "data-{{.Task.Slot}}", "Target": "/data/{{.Node.Hostname}}"},
        {"Type": "bind", "Source": "{{index .Service.Labels \"dir\"}}", "Target": "{{.Service.Name}}"},
    ]);
    let spec = accepted("TaskTemplate.ContainerSpec.Mounts", mounts);
    assert_eq!(spec.task.container.mounts[0].source.as_deref(), Some("data-{{.Task.Slot}}"));
    let options =
        json!([{"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Options": {"o": "{{.Nope}}"}}}}]);
    let error = parse(&with("TaskTemplate.ContainerSpec.Mounts", options)).unwrap_err();
    assert_eq!(error.field, "TaskTemplate.ContainerSpec.Mounts[0].VolumeOptions.DriverConfig.Options");
}

#[test]
fn on_the_nodes_network_there_is_no_other_and_no_mesh() {
    let on = |networks: Value, ports: Value| {
        let text = with("TaskTemplate.Networks", networks);
        let mut spec: Value = serde_json::from_str(&text).unwrap();
        spec["EndpointSpec"] = json!({"Ports": ports});
        parse(&spec.to_string())
    };
    let host = || json!([{"Target": "host", "Aliases": ["web"]}]);
    let port =
        |published: u16, mode: &str| json!([{"TargetPort": 80, "PublishedPort": published, "PublishMode": mode}]);
    let spec = on(host(), port(80, "host")).unwrap();
    assert!(spec.task.container.host_network && spec.task.container.networks.is_empty());
    assert_eq!(spec.host_ports().count(), 1, "it counts in placement");
    for (networks, ports, field, why) in [
        (host(), port(80, "ingress"), "EndpointSpec.Ports[0].PublishMode", "can't be reached through the mesh"),
        (host(), port(8080, "host"), "EndpointSpec.Ports[0].PublishedPort", "want 80, found 8080"),
        (host(), port(0, "host"), "EndpointSpec.Ports[0].PublishedPort", "want 80, found 0"),
        (json!([{"Target": "front"}, {"Target": "host"}]), json!([]), "TaskTemplate.Networks", "can't be on \"front\""),
    ] {
        let error = on(networks, ports).unwrap_err();
        assert!(error.field == field && error.why.contains(why), "{error}");
    }
}

#[test]
fn hardware_in_labels_is_part_of_the_container() {
    let plain = accepted("Labels", json!({}));
    let given = accepted("Labels", json!({"peer.privileged": "true", "peer.devices": "/dev/fuse"}));
    assert!(given.task.container.hardware.privileged);
    assert!(given.needs_replacement(&plain), "unlike other labels these change what runs");
    let error = parse(&with("Labels", json!({"peer.gpus": "many"}))).unwrap_err();
    assert_eq!(error.field, "Labels.peer.gpus");
}

#[test]
fn generic_resources_are_reserved_by_number() {
    const AT: &str = "TaskTemplate.Resources.Reservations.GenericResources";
    let gpu = |count: i64| json!({"DiscreteResourceSpec": {"Kind": "gpu", "Value": count}});
    let spec = accepted(AT, json!([gpu(2), {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 0}}]));
    assert_eq!(spec.task.resources.reserve_generic, [("gpu".to_owned(), 2)].into());
    for (value, field, why) in [
        (json!([gpu(1), gpu(2)]), "[1].DiscreteResourceSpec", "given twice"),
        (json!([gpu(-1)]), "[0].DiscreteResourceSpec.Value", "negative"),
        (json!([{}]), "[0].DiscreteResourceSpec", "no kind of resource"),
        (json!([{"NamedResourceSpec": {"Kind": "gpu", "Value": "a"}}]), "[0].NamedResourceSpec", "reserves a number"),
    ] {
        let error = parse(&with(AT, value)).unwrap_err();
        assert!(error.field == format!("{AT}{field}") && error.why.contains(why), "{error}");
    }
}
