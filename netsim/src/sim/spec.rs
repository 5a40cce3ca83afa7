//! What operators write: Docker's ServiceSpec as JSON, from a few knobs, and changes to one that was read.

use super::plan::{Change, SpecKnobs};
use serde_json::{Value, json};

const MS_NS: u64 = 1_000_000;

pub fn spec_json(name: &str, knobs: &SpecKnobs) -> String {
    let order = if knobs.start_first { "start-first" } else { "stop-first" };
    let update = json!({
        "Parallelism": knobs.parallelism, "Order": order, "FailureAction": knobs.on_failure,
        "Monitor": knobs.monitor_ms * MS_NS, "MaxFailureRatio": 0.0, "Delay": 0,
    });
    let rollback = json!({
        "Parallelism": knobs.parallelism, "Order": order, "FailureAction": "pause",
        "Monitor": knobs.monitor_ms * MS_NS, "MaxFailureRatio": 0.0, "Delay": 0,
    });
    let mode = match knobs.replicas {
        Some(replicas) => json!({"Replicated": {"Replicas": replicas}}),
        None => json!({"Global": {}}),
    };
    let mut spec = json!({
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {"Image": knobs.image, "StopGracePeriod": 5_000 * MS_NS},
            "RestartPolicy": {"Condition": "any", "Delay": knobs.restart_ms * MS_NS, "MaxAttempts": 0},
            "ForceUpdate": 0,
        },
        "Mode": mode, "UpdateConfig": update, "RollbackConfig": rollback,
    });
    let port = |number: u16, mode: &str| json!({"Protocol": "tcp", "TargetPort": 80, "PublishedPort": number, "PublishMode": mode});
    let ports = [(knobs.port, "ingress"), (knobs.host_port, "host")];
    let ports: Vec<Value> = ports.iter().filter(|(n, _)| *n != 0).map(|(n, mode)| port(*n, mode)).collect();
    if !ports.is_empty() {
        spec["EndpointSpec"] = json!({"Mode": "vip", "Ports": ports});
    }
    if knobs.reserve_milli_cpus != 0 {
        spec["TaskTemplate"]["Resources"] = json!({"Reservations": {"NanoCPUs": knobs.reserve_milli_cpus * MS_NS}});
    }
    if let Some(name) = &knobs.not_on {
        spec["TaskTemplate"]["Placement"] = json!({"Constraints": [format!("node.hostname!={name}")]});
    }
    if knobs.health {
        spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = json!({
            "Test": ["CMD", "check"], "Interval": 1_000 * MS_NS, "Timeout": 1_000 * MS_NS, "Retries": 3,
        });
    }
    spec.to_string()
}

/// `None` if what was read isn't JSON, which would be a fault of ours.
pub fn changed(spec_json: &str, change: &Change) -> Option<String> {
    let mut spec: Value = serde_json::from_str(spec_json).ok()?;
    match change {
        Change::Image(image) => spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image),
        Change::Replicas(replicas) => {
            let replicated = spec["Mode"].get_mut("Replicated")?;
            replicated["Replicas"] = json!(replicas);
        }
        Change::Force => {
            let count = spec["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or(0);
            spec["TaskTemplate"]["ForceUpdate"] = json!(count + 1);
        }
    }
    Some(spec.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_the_core_takes() {
        let knobs = SpecKnobs {
            image: "app:1".into(),
            replicas: Some(3),
            port: 8080,
            health: true,
            start_first: true,
            parallelism: 2,
            on_failure: "rollback".into(),
            monitor_ms: 500,
            restart_ms: 1_000,
            reserve_milli_cpus: 250,
            host_port: 9_000,
            not_on: Some("n1".into()),
        };
        let first = spec_json("web", &knobs);
        let spec = peer::model::spec::parse(&first).unwrap();
        assert_eq!(spec.update.parallelism, 2);
        for change in [Change::Image("app:2".into()), Change::Replicas(5), Change::Force] {
            let text = changed(&first, &change).unwrap();
            assert_ne!(text, first);
            peer::model::spec::parse(&text).unwrap();
        }
        let global = SpecKnobs { replicas: None, ..knobs };
        assert_eq!(changed(&spec_json("web", &global), &Change::Replicas(2)), None);
    }
}
