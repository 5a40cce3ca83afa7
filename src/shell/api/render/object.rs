//! Secrets, configs and networks as Docker's clients know them.

use super::Version;
use super::fields::Fields;
use crate::core::view::ObjectView;
use crate::model::object::ObjectKind;
use crate::model::spec::HOST_NETWORK;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

/// A secret or a config. Nobody reads a secret's content back.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Object {
    #[serde(rename = "ID")]
    id: String,
    version: Version,
    created_at: String,
    updated_at: String,
    spec: Fields,
}

pub fn object(view: &ObjectView) -> Object {
    let mut spec = Fields::parse(&view.object.spec_json).unwrap_or_default();
    spec.default("Labels", &serde_json::Map::new());
    if view.object.kind == ObjectKind::Config {
        spec.set("Data", &STANDARD.encode(&view.object.data));
    }
    Object {
        id: view.object.id.to_string(),
        version: view.index.into(),
        created_at: view.object.created.rfc3339(),
        updated_at: view.object.updated.rfc3339(),
        spec,
    }
}

/// Docker's NetworkResource. To clients it is the overlay that they asked for; what stands for it on each node is a
/// matter of the engine there.
pub fn network(view: &ObjectView) -> Fields {
    let spec = Fields::parse(&view.object.spec_json).unwrap_or_default();
    let mut network: Fields = Default::default();
    network.set("Name", &view.object.name);
    network.set("Id", &view.object.id.to_string());
    network.set("Created", &view.object.created.rfc3339());
    network.set("Scope", &"swarm");
    network.set("Driver", &"overlay");
    for (key, default) in [
        ("EnableIPv4", json!(true)),
        ("EnableIPv6", json!(false)),
        ("IPAM", json!({ "Driver": "default", "Options": null, "Config": [] })),
        ("Internal", json!(false)),
        ("Attachable", json!(false)),
        ("Ingress", json!(false)),
    ] {
        match spec.get(key) {
            Some(text) => network.set_text(key, text),
            None => network.set(key, &default),
        }
    }
    network.set("ConfigFrom", &json!({ "Network": "" }));
    network.set("ConfigOnly", &false);
    network.set("Containers", &json!(null));
    for key in ["Options", "Labels"] {
        match spec.get(key) {
            Some(text) => network.set_text(key, text),
            None => network.set(key, &json!({})),
        }
    }
    network
}

/// The node's own network, as Swarm has it among its own: every node has one, and nobody makes it.
pub fn host_network() -> Value {
    json!({
        "Name": HOST_NETWORK, "Id": HOST_NETWORK, "Created": "0001-01-01T00:00:00Z", "Scope": "swarm", "Driver": "host",
        "EnableIPv4": true, "EnableIPv6": false, "IPAM": { "Driver": "default", "Options": null, "Config": [] },
        "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": { "Network": "" }, "ConfigOnly": false,
        "Containers": null, "Options": {}, "Labels": {},
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::views;
    use super::*;

    fn shown(value: impl Serialize) -> Value {
        serde_json::to_value(value).unwrap()
    }

    #[test]
    fn a_config_shows_its_content_and_a_secret_never() {
        let spec = r#"{"Name":"x","Labels":null,"Unheard":1}"#;
        let config = shown(object(&views::object(ObjectKind::Config, spec, b"hello")));
        assert_eq!(config["Spec"], json!({ "Name": "x", "Labels": {}, "Unheard": 1, "Data": "aGVsbG8=" }));
        assert_eq!(config["ID"].as_str().unwrap().len(), 25);
        assert!(config["Version"]["Index"].is_u64());
        let secret = shown(object(&views::object(ObjectKind::Secret, spec, b"hello")));
        assert_eq!(secret["Spec"].get("Data"), None);
    }

    #[test]
    fn a_network_has_every_field_that_docker_gives() {
        let spec = r#"{"Name":"n","Driver":"overlay","IPAM":null,"Options":null,"Attachable":true,"Labels":{"a":"b"}}"#;
        let network = shown(network(&views::object(ObjectKind::Network, spec, b"")));
        assert_eq!((&network["Scope"], &network["Driver"]), (&json!("swarm"), &json!("overlay")));
        assert_eq!((&network["Attachable"], &network["Labels"]), (&json!(true), &json!({ "a": "b" })));
        assert_eq!((&network["IPAM"]["Driver"], &network["Options"]), (&json!("default"), &json!({})));
        // Those of the recorded answer.
        for key in
            ["Name", "Id", "Created", "EnableIPv6", "Internal", "Ingress", "ConfigFrom", "ConfigOnly", "Containers"]
        {
            assert!(network.get(key).is_some(), "{key}");
        }
    }
}
