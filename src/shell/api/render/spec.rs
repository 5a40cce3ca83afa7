//! Docker's ServiceSpec as a client gets it back: as its author sent it, with the few things filled in that Docker
//! always fills in, and on `insertDefaults` with the defaults that a reader should see (Swarm's
//! api/defaults/service.go).

use super::fields::Fields;
use serde::Serialize;
use serde_json::json;

/// Nanoseconds, as Docker writes durations.
const SECOND: u64 = 1_000_000_000;

/// The spec from its stored text. Text that is no object shows as an empty one: it was checked when it was taken.
pub fn spec(text: &str, insert_defaults: bool) -> Fields {
    let mut spec = Fields::parse(text).unwrap_or_default();
    normalise(&mut spec);
    if insert_defaults {
        defaults(&mut spec);
    }
    spec
}

/// The `TaskTemplate` of a spec; a task without its `ContainerSpec` breaks the docker CLI's tables.
pub fn task_template(text: Option<&str>, image: &str) -> Fields {
    let mut template = text.and_then(Fields::parse).and_then(|spec| spec.object("TaskTemplate")).unwrap_or_default();
    template.default("ContainerSpec", &json!({ "Image": image }));
    template
}

/// The docker CLI sends no number for one replica, and stops with "no replica count" when it gets none back.
fn normalise(spec: &mut Fields) {
    let no_labels = serde_json::Map::new();
    spec.default("Labels", &no_labels);
    spec.default("TaskTemplate", &no_labels);
    spec.default("Mode", &json!({ "Replicated": { "Replicas": 1 } }));
    spec.within("Mode", |mode| mode.within("Replicated", |replicated| replicated.default("Replicas", &1)));
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateDefaults {
    parallelism: u64,
    failure_action: &'static str,
    monitor: u64,
    max_failure_ratio: u64,
    order: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RestartDefaults {
    condition: &'static str,
    delay: u64,
    max_attempts: u64,
}

/// Fills in what an operator would otherwise have to know by heart.
fn defaults(spec: &mut Fields) {
    const UPDATE: UpdateDefaults = UpdateDefaults {
        parallelism: 1,
        failure_action: "pause",
        monitor: 5 * SECOND,
        max_failure_ratio: 0,
        order: "stop-first",
    };
    const RESTART: RestartDefaults = RestartDefaults { condition: "any", delay: 5 * SECOND, max_attempts: 0 };
    spec.within("TaskTemplate", |task| {
        task.within("ContainerSpec", |container| {
            container.default("StopGracePeriod", &(10 * SECOND));
            container.default("DNSConfig", &serde_json::Map::new());
        });
        task.default("RestartPolicy", &RESTART);
        task.within("RestartPolicy", |restart| {
            restart.default("Condition", &RESTART.condition);
            restart.default("Delay", &RESTART.delay);
        });
        task.default("Placement", &serde_json::Map::new());
    });
    for config in ["UpdateConfig", "RollbackConfig"] {
        spec.default(config, &UPDATE);
        spec.within(config, |config| {
            config.default("FailureAction", &UPDATE.failure_action);
            config.default("Monitor", &UPDATE.monitor);
            config.default("MaxFailureRatio", &UPDATE.max_failure_ratio);
            config.default("Order", &UPDATE.order);
        });
    }
    spec.default("EndpointSpec", &serde_json::Map::new());
    spec.within("EndpointSpec", |endpoint| endpoint.default("Mode", &"vip"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn value(text: &str, insert_defaults: bool) -> Value {
        serde_json::to_value(spec(text, insert_defaults)).unwrap()
    }

    /// What the docker CLI sent for `service create --name glob IMAGE` (recorded).
    const SENT: &str = r#"{"Name":"glob","Labels":{},"TaskTemplate":{"ContainerSpec":{"Image":"greeter:1","Init":false,"DNSConfig":{}},"Resources":{"Limits":{},"Reservations":{}},"ForceUpdate":0},"Mode":{"Replicated":{}},"EndpointSpec":{"Mode":"vip"}}"#;

    #[test]
    fn the_number_of_replicas_is_always_there() {
        assert_eq!(value(SENT, false)["Mode"], json!({ "Replicated": { "Replicas": 1 } }));
        assert_eq!(value(r#"{"Name":"x"}"#, false)["Mode"], json!({ "Replicated": { "Replicas": 1 } }));
        assert_eq!(value(r#"{"Mode":{"Global":{}}}"#, false)["Mode"], json!({ "Global": {} }));
        assert_eq!(value(r#"{"Mode":{"Replicated":{"Replicas":0}}}"#, false)["Mode"]["Replicated"]["Replicas"], 0);
    }

    #[test]
    fn defaults_are_those_that_swarm_was_seen_to_insert() {
        let spec = value(SENT, true);
        let update = json!({ "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000u64,
            "MaxFailureRatio": 0, "Order": "stop-first" });
        assert_eq!(spec["UpdateConfig"], update);
        assert_eq!(spec["RollbackConfig"], update);
        assert_eq!(
            spec["TaskTemplate"]["RestartPolicy"],
            json!({ "Condition": "any", "Delay": 5_000_000_000u64, "MaxAttempts": 0 })
        );
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"], 10_000_000_000u64);
        assert_eq!(value(SENT, false).get("UpdateConfig"), None);
    }

    #[test]
    fn what_the_author_wrote_stays() {
        let text = r#"{"Mode":{"Replicated":{"Replicas":3}},"UpdateConfig":{"Parallelism":0,"Order":"start-first"},"Unheard":[1]}"#;
        let spec = value(text, true);
        assert_eq!(spec["UpdateConfig"]["Parallelism"], 0);
        assert_eq!(spec["UpdateConfig"]["Order"], "start-first");
        assert_eq!(spec["UpdateConfig"]["Monitor"], 5_000_000_000u64);
        assert_eq!(spec["Unheard"], json!([1]));
    }
}
