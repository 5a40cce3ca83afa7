//! The cluster's networks on this machine: a bridge each, made when the first container here needs it and removed after
//! the last one. The label `peer.network` tells them from everybody else's; a network without it is never changed.

use super::{CALL_LIMIT, DockerEngine, create, failed, refused, status};
use crate::model::container::{ContainerPlan, LABEL_CLUSTER, LABEL_NETWORK, OpError, Owner};
use crate::model::object::PlannedNetwork;
use bollard::models::{Ipam, NetworkConnectRequest, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::{InspectNetworkOptions, ListContainersOptionsBuilder};
use serde::Deserialize;
use std::collections::HashMap;

/// Held while a network is made, used for a new container, or found to be of use to nobody.
pub(super) type Lock = tokio::sync::Mutex<()>;

impl DockerEngine {
    pub(super) async fn ensure_networks(&self, owner: Owner, plan: &ContainerPlan) -> Result<(), OpError> {
        for network in &plan.networks {
            self.ensure_network(owner, network).await?;
        }
        Ok(())
    }

    async fn ensure_network(&self, owner: Owner, network: &PlannedNetwork) -> Result<(), OpError> {
        let Some(spec) = &network.spec_json else {
            return Err(refused(format!("network {} was removed", network.name)));
        };
        for last in [false, true] {
            if let Some(found) = self.network(&network.name).await? {
                return if label(&found, LABEL_NETWORK) == Some(network.id.to_string().as_str()) {
                    Ok(())
                } else {
                    Err(refused(format!(
                        "this node has a network {} of its own, which is in the way of the cluster's: remove or rename it",
                        network.name
                    )))
                };
            }
            match self.client(CALL_LIMIT)?.create_network(request(owner, network, spec)?).await {
                Ok(_) => return Ok(()),
                // Another agent on this engine was faster: look again.
                Err(error) if status(&error) == Some(409) && !last => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(())
    }

    async fn network(&self, name: &str) -> Result<Option<NetworkInspect>, OpError> {
        match self.client(CALL_LIMIT)?.inspect_network(name, None::<InspectNetworkOptions>).await {
            // The engine also finds by the beginning of an id.
            Ok(found) => Ok(Some(found).filter(|n| n.name.as_deref() == Some(name))),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// All but the first, which it was created on.
    pub(super) async fn join_networks(&self, plan: &ContainerPlan) -> Result<(), OpError> {
        for network in plan.networks.iter().skip(1) {
            let endpoint_config = Some(create::endpoint(network));
            let request = NetworkConnectRequest { container: plan.name.clone(), endpoint_config };
            match self.client(CALL_LIMIT)?.connect_network(&network.name, request).await {
                Err(error) if is_connected_already(&error) => {}
                other => other.map_err(|error| failed(&error))?,
            }
        }
        Ok(())
    }

    /// Removes those of the cluster's networks among these that no container here is for any more. What fails is left:
    /// the next removal tries again, and an idle bridge harms nobody.
    pub(super) async fn tidy_networks(&self, owner: Owner, names: Vec<String>) {
        for name in names {
            let _ordered = self.inner.networks.lock().await;
            if let Err(error) = self.tidy_network(owner, &name).await {
                tracing::debug!(network = name, %error, "left for later");
            }
        }
    }

    async fn tidy_network(&self, owner: Owner, name: &str) -> Result<(), OpError> {
        let Some(found) = self.network(name).await? else { return Ok(()) };
        let ours = label(&found, LABEL_NETWORK).is_some()
            && label(&found, LABEL_CLUSTER) == Some(owner.cluster.to_string().as_str());
        let Some(id) = found.id.filter(|_| ours) else { return Ok(()) };
        // Also of containers that are created but don't run, which the network itself doesn't list.
        let filters = HashMap::from([("network", vec![id.as_str()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let client = self.client(CALL_LIMIT)?;
        if !client.list_containers(Some(options)).await.map_err(|error| failed(&error))?.is_empty() {
            return Ok(());
        }
        client.remove_network(&id).await.map_err(|error| failed(&error))
    }
}

fn label<'a>(network: &'a NetworkInspect, key: &str) -> Option<&'a str> {
    network.labels.as_ref()?.get(key).map(String::as_str)
}

fn is_connected_already(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 403 | 409, message }
        if message.contains("already exists in network"))
}

/// What a bridge can do of what the operator wrote for an overlay.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wanted {
    #[serde(default)]
    internal: Option<bool>,
    #[serde(default, rename = "EnableIPv6")]
    enable_ipv6: Option<bool>,
    #[serde(default, rename = "IPAM")]
    ipam: Option<Ipam>,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
}

fn request(owner: Owner, network: &PlannedNetwork, spec: &str) -> Result<NetworkCreateRequest, OpError> {
    let wanted: Wanted = serde_json::from_str(spec)
        .map_err(|error| refused(format!("network {}: its spec can't be read: {error}", network.name)))?;
    let mut labels = wanted.labels.unwrap_or_default();
    labels.insert(LABEL_CLUSTER.to_owned(), owner.cluster.to_string());
    labels.insert(LABEL_NETWORK.to_owned(), network.id.to_string());
    let has_subnets = |ipam: &Ipam| ipam.config.as_ref().is_some_and(|config| !config.is_empty());
    Ok(NetworkCreateRequest {
        name: network.name.clone(),
        driver: Some("bridge".to_owned()),
        internal: wanted.internal,
        attachable: Some(true),
        enable_ipv6: wanted.enable_ipv6,
        ipam: wanted.ipam.filter(has_subnets),
        labels: Some(labels),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, NodeId, ObjectId};
    use serde_json::{Value, json};

    fn sent(spec: &str) -> Value {
        let owner = Owner { cluster: ClusterId::from_u128(7), node: NodeId::from_u128(8) };
        let id = ObjectId::from_u128(9);
        let network = PlannedNetwork { id, name: "st_front".into(), spec_json: None, aliases: Vec::new() };
        serde_json::to_value(request(owner, &network, spec).unwrap()).unwrap()
    }

    #[test]
    fn an_overlay_becomes_a_bridge_with_its_subnet_and_our_labels() {
        let spec = r#"{"Name":"st_front","Driver":"overlay","Internal":true,"Options":{"encrypted":""},
            "IPAM":{"Driver":"default","Config":[{"Subnet":"10.9.0.0/24"}]},
            "Labels":{"com.docker.stack.namespace":"st","peer.network":"forged"}}"#;
        let sent = sent(spec);
        assert_eq!((&sent["Driver"], &sent["Internal"]), (&json!("bridge"), &json!(true)));
        assert_eq!(sent["IPAM"]["Config"][0]["Subnet"], "10.9.0.0/24");
        assert_eq!(sent["Labels"]["peer.network"], ObjectId::from_u128(9).to_string());
        assert_eq!(sent["Labels"]["com.docker.stack.namespace"], "st");
        assert_eq!(sent.get("Options"), None);
    }

    #[test]
    fn what_a_stack_sends_leaves_the_addresses_to_the_engine() {
        let sent = sent(r#"{"Name":"n","Driver":"overlay","IPAM":null,"Options":null,"Labels":null}"#);
        assert_eq!(sent.get("IPAM"), None);
        assert_eq!(sent["Name"], "st_front");
    }
}
