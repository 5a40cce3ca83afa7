//! A container plan in the words of Docker's `POST /containers/create`.

use super::refused;
use crate::model::container::{
    ContainerPlan, LABEL_ATTEMPT, LABEL_CLUSTER, LABEL_NODE, LABEL_SERVICE, LABEL_TASK, OpError, Owner,
};
use crate::model::object::PlannedNetwork;
use crate::model::spec::hardware::{Device, Gpus};
use crate::model::spec::{ContainerSpec, HOST_NETWORK, Healthcheck, Mount, MountKind, PublishedPort, Resources};
use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig,
    NetworkingConfig, PortBinding, PortMap, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// `files` are the binds of its secrets and configs, which stand on this machine already.
pub(super) fn body(
    owner: Owner,
    plan: &ContainerPlan,
    files: Vec<bollard::models::Mount>,
) -> Result<ContainerCreateBody, OpError> {
    let spec = &plan.spec.container;
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: plan.hostname.clone(),
        user: spec.user.clone(),
        tty: Some(spec.tty),
        open_stdin: Some(spec.open_stdin),
        env: some(plan.env.clone()),
        entrypoint: some(spec.command.clone()),
        cmd: some(spec.args.clone()),
        working_dir: spec.dir.clone(),
        healthcheck: spec.healthcheck.as_ref().map(health),
        labels: Some(labels(owner, plan)),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_grace.map(whole_seconds),
        exposed_ports: some(bound_ports(plan).iter().map(port_key).collect()),
        host_config: Some(host_config(plan, files)?),
        networking_config: networking(plan),
        ..Default::default()
    })
}

/// Its first network; the others are joined before it starts, since engines before API 1.44 take only one here.
fn networking(plan: &ContainerPlan) -> Option<NetworkingConfig> {
    let first = plan.networks.first()?;
    let endpoints = HashMap::from([(first.name.clone(), endpoint(first))]);
    Some(NetworkingConfig { endpoints_config: Some(endpoints) })
}

pub(super) fn endpoint(network: &PlannedNetwork) -> EndpointSettings {
    EndpointSettings { aliases: some(network.aliases.clone()), ..Default::default() }
}

fn host_config(plan: &ContainerPlan, files: Vec<bollard::models::Mount>) -> Result<HostConfig, OpError> {
    let mut mounts = plan.spec.container.mounts.iter().map(mount).collect::<Result<Vec<_>, _>>()?;
    mounts.extend(files);
    let spec = &plan.spec.container;
    let Resources { limit_nano_cpus, limit_memory, limit_pids, .. } = plan.spec.resources;
    let log = plan.spec.log_driver.as_ref();
    Ok(HostConfig {
        nano_cpus: limit(limit_nano_cpus),
        memory: limit(limit_memory),
        pids_limit: limit(limit_pids),
        log_config: log.map(|log| HostConfigLogConfig { typ: Some(log.name.clone()), config: map(&log.options) }),
        port_bindings: bindings(bound_ports(plan)),
        // The worker restarts; an engine that did so too would fight it.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        mounts: some(mounts),
        network_mode: match plan.networks.first() {
            Some(network) => Some(network.name.clone()),
            None => spec.host_network.then(|| HOST_NETWORK.to_owned()),
        },
        devices: some(spec.hardware.devices.iter().map(device).collect()),
        device_requests: spec.hardware.gpus.as_ref().map(|gpus| vec![gpu_request(gpus)]),
        privileged: spec.hardware.privileged.then_some(true),
        shm_size: spec.hardware.shm_bytes.and_then(limit),
        cap_add: some(spec.cap_add.clone()),
        cap_drop: some(spec.cap_drop.clone()),
        dns: some(spec.dns.servers.clone()),
        dns_search: some(spec.dns.search.clone()),
        dns_options: some(spec.dns.options.clone()),
        extra_hosts: some(spec.hosts.iter().flat_map(|line| extra_hosts(line)).collect()),
        group_add: some(spec.groups.clone()),
        init: spec.init,
        oom_score_adj: Some(spec.oom_score_adj),
        readonly_rootfs: Some(spec.read_only),
        sysctls: map(&spec.sysctls),
        ulimits: some(ulimits(spec)),
        ..Default::default()
    })
}

/// On the node's own network the container has its ports without the engine's help.
fn bound_ports(plan: &ContainerPlan) -> &[PublishedPort] {
    if plan.spec.container.host_network { &[] } else { &plan.host_ports }
}

fn device(device: &Device) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(device.host.clone()),
        path_in_container: Some(device.container.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    }
}

/// As `docker run --gpus` asks for them.
fn gpu_request(gpus: &Gpus) -> DeviceRequest {
    let (count, device_ids) = match gpus {
        Gpus::All => (Some(-1), None),
        Gpus::Count(count) => (Some(i64::from(*count)), None),
        Gpus::Named(ids) => (None, Some(ids.clone())),
    };
    let capabilities = Some(vec![vec!["gpu".to_owned()]]);
    DeviceRequest { count, device_ids, capabilities, ..Default::default() }
}

/// Ours win over whatever the spec says under the same keys.
fn labels(owner: Owner, plan: &ContainerPlan) -> HashMap<String, String> {
    let ours = [
        (LABEL_CLUSTER, owner.cluster.to_string()),
        (LABEL_NODE, owner.node.to_string()),
        (LABEL_TASK, plan.task.to_string()),
        (LABEL_ATTEMPT, plan.attempt.to_string()),
        (LABEL_SERVICE, plan.service.to_string()),
    ];
    let spec = plan.labels.iter().map(|(key, value)| (key.clone(), value.clone()));
    spec.chain(ours.map(|(key, value)| (key.to_owned(), value))).collect()
}

/// "IP host alias" becomes "host:IP" and "alias:IP".
fn extra_hosts(line: &str) -> Vec<String> {
    let mut words = line.split_whitespace();
    let Some(ip) = words.next() else { return Vec::new() };
    words.map(|name| format!("{name}:{ip}")).collect()
}

/// Through JSON, because the options came as Docker's JSON and go on as that.
fn mount(mount: &Mount) -> Result<bollard::models::Mount, OpError> {
    let kind = match mount.kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
    };
    let own = json!({ "Type": kind, "Target": mount.target, "ReadOnly": mount.read_only });
    let mut fields: serde_json::Map<String, Value> =
        mount.options.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    if let Value::Object(own) = own {
        fields.extend(own);
    }
    if let Some(source) = &mount.source {
        fields.insert("Source".to_owned(), Value::String(source.clone()));
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| refused(format!("invalid mount of {}: {error}", mount.target)))
}

fn health(check: &Healthcheck) -> HealthConfig {
    HealthConfig {
        test: some(check.test.clone()),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        retries: limit(u64::from(check.retries)),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
    }
}

fn ulimits(spec: &ContainerSpec) -> Vec<ResourcesUlimits> {
    let one = |u: &crate::model::spec::Ulimit| ResourcesUlimits {
        name: Some(u.name.clone()),
        soft: Some(u.soft),
        hard: Some(u.hard),
    };
    spec.ulimits.iter().map(one).collect()
}

fn port_key(port: &PublishedPort) -> String {
    format!("{}/{}", port.target, port.protocol.as_str())
}

/// A published port of 0 leaves the choice to the engine.
fn bindings(ports: &[PublishedPort]) -> Option<PortMap> {
    let mut bindings = PortMap::new();
    for port in ports {
        let number = if port.published == 0 { String::new() } else { port.published.to_string() };
        let binding = PortBinding { host_ip: None, host_port: Some(number) };
        bindings.entry(port_key(port)).or_default().get_or_insert_default().push(binding);
    }
    if bindings.is_empty() { None } else { Some(bindings) }
}

/// Docker counts a stop timeout in whole seconds; a part of one is a whole one.
fn whole_seconds(grace: Duration) -> i64 {
    i64::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

/// Zero means "not set" in the spec and to Docker.
fn limit(value: u64) -> Option<i64> {
    if value == 0 { None } else { Some(i64::try_from(value).unwrap_or(i64::MAX)) }
}

fn nanos(d: Duration) -> Option<i64> {
    limit(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

fn map(from: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    if from.is_empty() { None } else { Some(from.iter().map(|(k, v)| (k.clone(), v.clone())).collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, NodeId, ObjectId, ServiceId, TaskId};
    use crate::model::spec::template::TemplateContext;
    use crate::model::spec::{
        Dns, Hardware, LogDriver, Placement, Protocol, PublishMode, RestartPolicy as SpecRestart, TaskSpec, Ulimit,
    };
    use crate::model::task::Slot;
    use std::sync::Arc;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    fn network(name: &str, aliases: &[&str]) -> PlannedNetwork {
        let id = ObjectId::from_u128(9);
        PlannedNetwork { id, name: name.to_owned(), spec_json: Some("{}".to_owned()), aliases: strings(aliases) }
    }

    fn rich_plan() -> ContainerPlan {
        let container = ContainerSpec {
            image: "app:1".into(),
            command: strings(&["/bin/app"]),
            args: strings(&["--serve"]),
            dir: Some("/srv".into()),
            user: Some("1000".into()),
            groups: strings(&["audio"]),
            read_only: true,
            init: Some(true),
            mounts: vec![Mount {
                kind: MountKind::Volume,
                source: Some("data".into()),
                target: "/data".into(),
                read_only: true,
                options: BTreeMap::from([("VolumeOptions".to_owned(), json!({"NoCopy": true, "Labels": {"a": "b"}}))]),
            }],
            stop_signal: Some("SIGINT".into()),
            stop_grace: Some(Duration::from_millis(1_500)),
            healthcheck: Some(Healthcheck {
                test: strings(&["CMD", "true"]),
                interval: Duration::from_secs(2),
                retries: 4,
                ..Default::default()
            }),
            hosts: strings(&["10.0.0.9 db database"]),
            dns: Dns { servers: strings(&["9.9.9.9"]), ..Default::default() },
            sysctls: BTreeMap::from([("net.core.somaxconn".to_owned(), "1024".to_owned())]),
            cap_add: strings(&["NET_ADMIN"]),
            ulimits: vec![Ulimit { name: "nofile".into(), soft: 10, hard: 20 }],
            ..Default::default()
        };
        let resources = Resources { limit_nano_cpus: 500_000_000, limit_memory: 64 << 20, ..Default::default() };
        let spec = TaskSpec {
            container,
            resources,
            restart: SpecRestart::default(),
            placement: Placement::default(),
            log_driver: Some(LogDriver { name: "json-file".into(), options: BTreeMap::new() }),
            force_update: 0,
        };
        let host_port = |published| PublishedPort {
            name: String::new(),
            protocol: Protocol::Tcp,
            target: 5000,
            published,
            mode: PublishMode::Host,
        };
        ContainerPlan {
            name: "web.1.x".into(),
            service: ServiceId::from_u128(1),
            task: TaskId::from_u128(2),
            attempt: 3,
            labels: BTreeMap::from([
                ("com.example".to_owned(), "yes".to_owned()),
                (LABEL_NODE.to_owned(), "forged".to_owned()),
            ]),
            spec: Arc::new(spec),
            hostname: Some("web-1".into()),
            env: strings(&["A=1"]),
            host_ports: vec![host_port(8080), host_port(0)],
            files: Vec::new(),
            networks: vec![network("front", &["web", "tasks.web"]), network("back", &["web"])],
            context: TemplateContext {
                service_id: ServiceId::from_u128(1),
                service_name: "web".into(),
                service_labels: BTreeMap::new(),
                node_id: NodeId::from_u128(8),
                node_hostname: "n1".into(),
                node_os: "linux".into(),
                node_arch: "x86_64".into(),
                task_id: TaskId::from_u128(2),
                task_name: "web.1.x".into(),
                slot: Slot::Replica(1),
            },
        }
    }

    #[test]
    fn every_field_reaches_the_engine() {
        let owner = Owner { cluster: ClusterId::from_u128(7), node: NodeId::from_u128(8) };
        let bind = bollard::models::Mount { target: Some("/run/secrets/x".to_owned()), ..Default::default() };
        let sent = serde_json::to_value(body(owner, &rich_plan(), vec![bind]).unwrap()).unwrap();
        let want = json!({
            "Image": "app:1", "Hostname": "web-1", "User": "1000", "Env": ["A=1"], "Entrypoint": ["/bin/app"],
            "Cmd": ["--serve"], "WorkingDir": "/srv", "StopSignal": "SIGINT", "StopTimeout": 2,
            "ExposedPorts": {"5000/tcp": {}},
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 2_000_000_000i64, "Retries": 4},
        });
        for (key, value) in want.as_object().unwrap() {
            assert_eq!(&sent[key], value, "{key}");
        }
        let host = &sent["HostConfig"];
        let want = json!({
            "NanoCpus": 500_000_000, "Memory": 64 << 20, "ReadonlyRootfs": true, "Init": true, "GroupAdd": ["audio"],
            "Dns": ["9.9.9.9"], "ExtraHosts": ["db:10.0.0.9", "database:10.0.0.9"], "CapAdd": ["NET_ADMIN"],
            "Sysctls": {"net.core.somaxconn": "1024"}, "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "json-file"},
            "PortBindings": {"5000/tcp": [{"HostPort": "8080"}, {"HostPort": ""}]},
            "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data", "ReadOnly": true,
                        "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}}},
                       {"Target": "/run/secrets/x"}],
            "NetworkMode": "front",
        });
        for (key, value) in want.as_object().unwrap() {
            assert_eq!(&host[key], value, "{key}");
        }
        let endpoints = json!({"front": {"Aliases": ["web", "tasks.web"]}});
        assert_eq!(sent["NetworkingConfig"]["EndpointsConfig"], endpoints);
        assert_eq!(sent["Labels"]["com.example"], "yes");
        assert_eq!(sent["Labels"][LABEL_NODE], owner.node.to_string(), "a spec can't forge whose container it is");
        assert_eq!(sent["Labels"][LABEL_ATTEMPT], "3");
    }

    #[test]
    fn the_nodes_network_and_hardware_are_as_docker_run_asks_for_them() {
        let owner = Owner { cluster: ClusterId::from_u128(7), node: NodeId::from_u128(8) };
        let mut plan = rich_plan();
        plan.networks.clear();
        let spec = Arc::make_mut(&mut plan.spec);
        spec.container.host_network = true;
        spec.container.hardware = Hardware {
            devices: vec!["/dev/fuse:rw".parse().unwrap()],
            privileged: true,
            shm_bytes: Some(1 << 20),
            gpus: Some(Gpus::Count(2)),
        };
        let sent = serde_json::to_value(body(owner, &plan, Vec::new()).unwrap()).unwrap();
        let host = &sent["HostConfig"];
        let want = json!({
            "NetworkMode": "host", "Privileged": true, "ShmSize": 1 << 20,
            "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rw"}],
            "DeviceRequests": [{"Count": 2, "Capabilities": [["gpu"]]}],
        });
        for (key, value) in want.as_object().unwrap() {
            assert_eq!(&host[key], value, "{key}");
        }
        assert_eq!((host.get("PortBindings"), sent.get("ExposedPorts")), (None, None), "it binds them itself");
        assert_eq!(sent.get("NetworkingConfig"), None);
    }

    #[test]
    fn mount_options_that_mean_nothing_are_refused_by_name() {
        let mut plan = rich_plan();
        let spec = Arc::make_mut(&mut plan.spec);
        spec.container.mounts[0].options = BTreeMap::from([("VolumeOptions".to_owned(), json!({"NoCopy": "maybe"}))]);
        let owner = Owner { cluster: ClusterId::from_u128(7), node: NodeId::from_u128(8) };
        let error = body(owner, &plan, Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("invalid mount of /data"), "{error}");
    }
}
