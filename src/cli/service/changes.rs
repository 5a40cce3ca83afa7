//! What a revision changed, in the few words that fit into a column: the flags by which it was said, and where they say
//! all, the values.

use super::flags::word;
use super::image::familiar;
use crate::cli::compare::{Difference, differences};
use crate::cli::json::{text, texts};
use serde_json::Value;
use std::collections::BTreeMap;

const IMAGE: &str = "/TaskTemplate/ContainerSpec/Image";
const CONSTRAINTS: &str = "/TaskTemplate/Placement/Constraints";

/// `image, replicas 3->5, constraint +node.labels.zone==east`; "nothing" where it is the same once more.
pub fn in_words(old: &Value, new: &Value) -> String {
    let mut words: Vec<String> = Vec::new();
    // Both have networks by their ids.
    for found in differences(old, new, &BTreeMap::new()) {
        let told = told(&found, old, new);
        if !words.contains(&told) {
            words.push(told);
        }
    }
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

fn told(found: &Difference, old: &Value, new: &Value) -> String {
    // A port's options, which docker's spec has no place for.
    let word = if found.path.starts_with("Labels.peer.port.") { "publish".to_owned() } else { word(&found.path) };
    match word.as_str() {
        "image" if familiar(text(old, IMAGE)) == familiar(text(new, IMAGE)) => "image's digest".to_owned(),
        "replicas" | "max-concurrent" => {
            let count = |value: &Option<String>| value.clone().unwrap_or_else(|| "1".to_owned());
            format!("{word} {}->{}", count(&found.old), count(&found.new))
        }
        "constraint" => {
            let (before, after) = (texts(old, CONSTRAINTS), texts(new, CONSTRAINTS));
            let gone = before.iter().filter(|one| !after.contains(one)).map(|one| format!(" -{one}"));
            let come = after.iter().filter(|one| !before.contains(one)).map(|one| format!(" +{one}"));
            format!("{word}{}", come.chain(gone).collect::<String>())
        }
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec() -> Value {
        json!({ "Name": "web", "Labels": { "tier": "front" }, "Mode": { "Replicated": { "Replicas": 3 } },
            "TaskTemplate": { "ContainerSpec": { "Image": "web:1@sha256:0", "Env": ["A=1"] }, "ForceUpdate": 0,
                "Placement": { "Constraints": ["node.role==worker"] }, "Resources": { "Limits": { "NanoCPUs": 1 } } },
            "EndpointSpec": { "Ports": [{ "TargetPort": 80, "PublishedPort": 80 }] } })
    }

    fn changed(pointer: &str, value: Value) -> String {
        let mut new = spec();
        let (at, key) = pointer.rsplit_once('/').unwrap();
        new.pointer_mut(at).unwrap()[key] = value;
        in_words(&spec(), &new)
    }

    #[test]
    fn each_change_is_named_as_its_flag_is() {
        let container = "/TaskTemplate/ContainerSpec";
        for (pointer, value, want) in [
            ("/TaskTemplate/ContainerSpec/Image", json!("web:2"), "image"),
            ("/TaskTemplate/ContainerSpec/Image", json!("web:1@sha256:9"), "image's digest"),
            ("/Mode/Replicated/Replicas", json!(5), "replicas 3->5"),
            ("/Mode/Replicated/Replicas", json!(0), "replicas 3->0"),
            (
                "/TaskTemplate/Placement/Constraints",
                json!(["node.role==worker", "node.labels.x==y"]),
                "constraint +node.labels.x==y",
            ),
            (
                "/TaskTemplate/Placement/Constraints",
                json!(["node.labels.x==y"]),
                "constraint +node.labels.x==y -node.role==worker",
            ),
            ("/TaskTemplate/Placement/Constraints", json!([]), "constraint -node.role==worker"),
            ("/TaskTemplate/ForceUpdate", json!(1), "force"),
            ("/TaskTemplate/ContainerSpec/Env", json!(["A=2"]), "env"),
            ("/Labels", json!({ "tier": "back", "a.b": "c" }), "label"),
            ("/Labels", json!({ "tier": "front", "peer.port.80": "protocol=http" }), "publish"),
            ("/TaskTemplate/Resources/Limits", json!({ "NanoCPUs": 2, "MemoryBytes": 9 }), "limit-memory, limit-cpu"),
            ("/EndpointSpec/Ports", json!([{ "TargetPort": 80, "PublishedPort": 81 }]), "publish"),
            ("/UpdateConfig", json!({ "Parallelism": 2, "Order": "start-first" }), "update-order, update-parallelism"),
            ("/TaskTemplate/ContainerSpec/Isolation", json!("x"), "isolation"),
            ("/Name", json!("web"), "nothing"),
        ] {
            assert_eq!(changed(pointer, value), want, "{pointer}");
        }
        let mut both = spec();
        both.pointer_mut(container).unwrap()["Image"] = json!("web:2");
        both["Mode"]["Replicated"]["Replicas"] = json!(1);
        assert_eq!(in_words(&spec(), &both), "replicas 3->1, image");
    }
}
