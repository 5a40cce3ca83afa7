//! Edits of a spec's text for those who read it: what `insertDefaults=true` adds, what Docker always shows,
//! and the name of a service created without one. Everything else stays as the client sent it.
//!
//! A text that is no JSON object comes back as it is: it can't have been accepted by `parse`.

use super::read::find_key;
use crate::ids::ObjectId;
use crate::model::object::ObjectKind;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

type Object = Map<String, Value>;

/// What Docker shows of any spec: its mode with the number of replicas, which clients read without asking.
pub fn resolve_minimum(spec_json: &str) -> String {
    edit(spec_json, fill_minimum)
}

/// The same with Swarm's defaults written out, as `insertDefaults=true` asks.
pub fn resolve_defaults(spec_json: &str) -> String {
    edit(spec_json, |spec| {
        fill_minimum(spec);
        fill_defaults(spec);
    })
}

/// The spec under another name: a service that is created without one is given one.
pub fn with_name(spec_json: &str, name: &str) -> String {
    edit(spec_json, |spec| {
        *member(spec, "Name") = json!(name);
    })
}

/// The spec with every reference to one of `old` (secrets or configs) made one to `new`; where the containers find it, and
/// who may read it there, stays.
pub fn with_files_of(spec_json: &str, kind: ObjectKind, old: &BTreeSet<ObjectId>, new: (ObjectId, &str)) -> String {
    let (list, id_key, name_key) = match kind {
        ObjectKind::Config => ("Configs", "ConfigID", "ConfigName"),
        _ => ("Secrets", "SecretID", "SecretName"),
    };
    let refers = |entry: &Object| {
        let id = find_key(entry, id_key).and_then(|key| entry.get(&key)?.as_str()?.parse().ok());
        id.is_some_and(|id: ObjectId| old.contains(&id))
    };
    edit(spec_json, |spec| {
        with_object(spec, "TaskTemplate", |task| {
            with_object(task, "ContainerSpec", |container| {
                let entries = find_key(container, list).and_then(|key| container.get_mut(&key));
                for entry in
                    entries.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
                {
                    if refers(entry) {
                        *member(entry, id_key) = json!(new.0.to_string());
                        *member(entry, name_key) = json!(new.1);
                    }
                }
            });
        });
    })
}

/// No name, or an empty one.
pub fn is_unnamed(spec_json: &str) -> bool {
    let Ok(Value::Object(spec)) = serde_json::from_str(spec_json) else { return false };
    find_key(&spec, "Name").and_then(|key| spec.get(&key)).is_none_or(|name| name.is_null() || name == "")
}

fn edit(spec_json: &str, change: impl FnOnce(&mut Object)) -> String {
    match serde_json::from_str(spec_json) {
        Ok(Value::Object(mut spec)) => {
            change(&mut spec);
            Value::Object(spec).to_string()
        }
        _ => spec_json.to_owned(),
    }
}

fn fill_minimum(spec: &mut Object) {
    set_if_unset(spec, "Labels", json!({}));
    with_object(spec, "Mode", |mode| {
        let others = ["Global", "ReplicatedJob", "GlobalJob"];
        if others.iter().all(|key| member(mode, key).is_null()) {
            with_object(mode, "Replicated", |replicated| set_if_unset(replicated, "Replicas", json!(1)));
        }
        mode.retain(|_, value| !value.is_null());
    });
    with_object(spec, "TaskTemplate", |task| {
        set_if_unset(task, "Placement", json!({}));
        set_if_unset(task, "ForceUpdate", json!(0));
        set_if_unset(task, "Runtime", json!("container"));
    });
}

fn fill_defaults(spec: &mut Object) {
    with_object(spec, "TaskTemplate", |task| {
        with_object(task, "ContainerSpec", |container| {
            set_if_unset(container, "StopGracePeriod", json!(10_000_000_000u64));
            set_if_unset(container, "DNSConfig", json!({}));
        });
        with_object(task, "RestartPolicy", |restart| {
            set_if_unset(restart, "Condition", json!("any"));
            set_if_unset(restart, "Delay", json!(5_000_000_000u64));
            set_if_unset(restart, "MaxAttempts", json!(0));
        });
    });
    fill_update(spec, "UpdateConfig");
    fill_update(spec, "RollbackConfig");
    with_object(spec, "EndpointSpec", |endpoint| set_if_unset(endpoint, "Mode", json!("vip")));
}

/// The same reading as `parse`'s: one at a time where nothing is said, all where only the parallelism isn't.
fn fill_update(spec: &mut Object, key: &str) {
    let parallelism = if member(spec, key).is_null() { 1 } else { 0 };
    with_object(spec, key, |config| {
        set_if_unset(config, "Parallelism", json!(parallelism));
        set_if_unset(config, "FailureAction", json!("pause"));
        set_if_unset(config, "Monitor", json!(5_000_000_000u64));
        set_if_unset(config, "MaxFailureRatio", json!(0));
        set_if_unset(config, "Order", json!("stop-first"));
    });
}

/// The member `key` under whatever case it was written in, null if it was absent.
fn member<'o>(object: &'o mut Object, key: &str) -> &'o mut Value {
    let key = find_key(object, key).unwrap_or_else(|| key.to_owned());
    object.entry(key).or_insert(Value::Null)
}

/// Absent, null and an empty word are all unset.
fn set_if_unset(object: &mut Object, key: &str, default: Value) {
    let value = member(object, key);
    if value.is_null() || *value == "" {
        *value = default;
    }
}

fn with_object(object: &mut Object, key: &str, change: impl FnOnce(&mut Object)) {
    let value = member(object, key);
    if value.is_null() {
        *value = json!({});
    }
    if let Value::Object(inner) = value {
        change(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::parse;

    const CREATE: &str = include_str!("testdata/create.json");
    const RICH: &str = include_str!("testdata/create-rich.json");

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    /// What dockerd answered to `insertDefaults=true` for this very spec, but for `Isolation`, which it adds always.
    #[test]
    fn writes_out_what_docker_writes_out() {
        let mut want = value(CREATE);
        want["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] = json!(10_000_000_000u64);
        want["TaskTemplate"]["RestartPolicy"] =
            json!({"Condition": "any", "Delay": 5_000_000_000u64, "MaxAttempts": 0});
        want["TaskTemplate"]["Runtime"] = json!("container");
        want["Mode"]["Replicated"]["Replicas"] = json!(1);
        for key in ["UpdateConfig", "RollbackConfig"] {
            want[key] = json!({
                "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000u64, "MaxFailureRatio": 0, "Order": "stop-first"
            });
        }
        assert_eq!(value(&resolve_defaults(CREATE)), want);
    }

    #[test]
    fn writing_them_out_changes_no_meaning() {
        for text in [
            CREATE,
            include_str!("testdata/update-options.json"),
            r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"x"}}}"#,
            r#"{"name":"a","tasktemplate":{"containerspec":{"image":"x"}},"mode":{"global":{}},"updateconfig":{"Order":""}}"#,
            r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"x"},"RestartPolicy":{"MaxAttempts":3}},"EndpointSpec":null}"#,
        ] {
            let before = parse(text).unwrap();
            let full = resolve_defaults(text);
            assert_eq!(
                parse(&full).unwrap(),
                crate::model::spec::ServiceSpec {
                    task: crate::model::spec::TaskSpec {
                        container: crate::model::spec::ContainerSpec {
                            stop_grace: Some(before.task.container.stop_grace()),
                            ..before.task.container.clone()
                        },
                        ..before.task.clone()
                    },
                    ..before.clone()
                }
            );
            assert_eq!(parse(&resolve_minimum(text)).unwrap(), before);
            assert_eq!(resolve_defaults(&full), full, "twice is once");
        }
    }

    #[test]
    fn leaves_alone_what_is_said_and_what_it_does_not_know() {
        let mut rich = value(RICH);
        rich["TaskTemplate"]["ContainerSpec"]["FromTheFuture"] = json!({"a": [1, null, 0.5]});
        let full = value(&resolve_defaults(&rich.to_string()));
        assert_eq!(full["TaskTemplate"]["ContainerSpec"], rich["TaskTemplate"]["ContainerSpec"]);
        assert_eq!(full["UpdateConfig"], rich["UpdateConfig"]);
        assert_eq!(full["RollbackConfig"], rich["RollbackConfig"]);
        assert_eq!(full["EndpointSpec"], rich["EndpointSpec"]);
        assert_eq!(value(&resolve_minimum(r#"{"Mode":{"Global":{}}}"#))["Mode"], json!({"Global": {}}));
        assert_eq!(resolve_defaults("nonsense"), "nonsense");
    }

    #[test]
    fn names_the_unnamed() {
        for text in ["{}", r#"{"Name":""}"#, r#"{"name":null}"#] {
            assert!(is_unnamed(text));
            assert!(!is_unnamed(&with_name(text, "a")));
        }
        assert!(!is_unnamed(CREATE));
        assert_eq!(value(&with_name(CREATE, "b"))["Name"], "b");
    }
}
