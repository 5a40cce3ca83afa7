//! Two specs of one service, value by value. Both are laid bare first: what Docker takes for the same is the same.

use super::json::Object;
use super::stack::STAMP;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A value that one of them has, or both have otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// As `TaskTemplate.ContainerSpec.Env`.
    pub path: String,
    /// JSON.
    pub old: Option<String>,
    pub new: Option<String>,
}

/// By path. `networks`: names by id, where one side may name what the other has the id of.
pub fn differences(old: &Value, new: &Value, networks: &BTreeMap<String, String>) -> Vec<Difference> {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flatten(&bare(old.clone(), networks), String::new(), &mut before);
    flatten(&bare(new.clone(), networks), String::new(), &mut after);
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = |path: &&String| before.get(*path) != after.get(*path);
    let found = paths.into_iter().filter(differs);
    let difference = |path: &String| Difference {
        path: path.clone(),
        old: before.get(path).cloned(),
        new: after.get(path).cloned(),
    };
    found.map(difference).collect()
}

/// Without what says nothing: marks of our own, empty things, and what is the default.
fn bare(mut spec: Value, networks: &BTreeMap<String, String>) -> Value {
    if let Some(Value::Object(labels)) = spec.get_mut("Labels") {
        labels.remove(STAMP);
    }
    for entry in spec.pointer_mut("/TaskTemplate/Networks").and_then(Value::as_array_mut).into_iter().flatten() {
        let name = entry.get("Target").and_then(Value::as_str).and_then(|id| networks.get(id)).cloned();
        if let (Some(name), Some(entry)) = (name, entry.as_object_mut()) {
            entry.insert("Target".to_owned(), json!(name));
        }
    }
    let task = spec.get_mut("TaskTemplate").and_then(Value::as_object_mut);
    if let Some(task) = task.filter(|task| task.get("Runtime") == Some(&json!("container"))) {
        task.remove("Runtime");
    }
    let placement = spec.pointer_mut("/TaskTemplate/Placement").and_then(Value::as_object_mut);
    if let Some(placement) = placement {
        placement.remove("Platforms");
    }
    let mode = spec.get("Mode").cloned();
    spec = emptied(spec);
    // `Global: {}` and `Replicas: 0` say something.
    if let (Some(mode), Value::Object(spec)) = (mode, &mut spec) {
        spec.insert("Mode".to_owned(), mode);
    }
    spec
}

fn emptied(value: Value) -> Value {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    };
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, emptied(value))).filter(|(_, value)| says(value));
            Value::Object(kept.collect::<Object>())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(emptied).collect()),
        other => other,
    }
}

fn flatten(value: &Value, at: String, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                flatten(value, at, found);
            }
        }
        Value::Array(list) if list.iter().any(|item| item.is_object()) => {
            for (n, value) in list.iter().enumerate() {
                flatten(value, format!("{at}[{n}]"), found);
            }
        }
        other => drop(found.insert(at, other.to_string())),
    }
}
