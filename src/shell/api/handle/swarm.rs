//! `/swarm`: what a Docker client may ask of a swarm as a whole. What it would change is done with `peer` instead,
//! and the answers say how.

use crate::core::face::{Refused, Request as Ask};
use crate::shell::api::backend::Want;
use crate::shell::api::incoming::Call;
use crate::shell::api::reply::{self, Answer, Failure};
use crate::shell::api::{Api, handle::peer, render};
use serde_json::{Value, json};

pub async fn inspect(api: &Api) -> Answer {
    let snapshot = api.backend.snapshot(Want::CLUSTER).await?;
    let token = (api.extra.token)(&snapshot.cluster.join_secret);
    reply::ok(&render::cluster::cluster(&snapshot, Some(token)).with_trust_root(&api.extra.ca))
}

/// Of a swarm's settings only the join token can be changed.
pub async fn update(api: &Api, call: &Call) -> Answer {
    let query = &call.query;
    if query.flag("rotateWorkerToken") || query.flag("rotateManagerToken") {
        return reply::updated(&peer::rotate(api).await?);
    }
    if asks_for_another_ca(call) {
        return Err(Failure::unsupported(
            "the CA can't be rotated, and nothing was changed: every member's certificate, every join token and the key \
             that secrets are sealed with hang on it, and no staged change of all of them is built. Whom it was lost to \
             can be shut out without: `docker swarm join-token --rotate worker` ends the old token, `peer node rm --force \
             NODE` a node's certificate, `peer cert revoke NAME` a client's. If the CA's key itself was read by somebody, \
             make a new cluster",
        ));
    }
    Err(Failure::unsupported(
        "of a swarm's settings only the join token can be changed (`docker swarm join-token --rotate worker`): history, \
         heartbeat, snapshots and autolock have no counterpart in a peer cluster",
    ))
}

/// What `docker swarm ca --rotate` sends: the swarm's spec with a number raised, or with another certificate.
fn asks_for_another_ca(call: &Call) -> bool {
    let spec: Value = serde_json::from_str(&call.body).unwrap_or_default();
    let ca = &spec["CAConfig"];
    ca["ForceRotate"].as_u64().is_some_and(|count| count > 0)
        || ["SigningCACert", "SigningCAKey"].iter().any(|key| ca[*key].as_str().is_some_and(|pem| !pem.is_empty()))
}

pub async fn already_there(api: &Api) -> Answer {
    let cluster = api.backend.snapshot(Want::CLUSTER).await?.cluster.id;
    Err(Failure::unavailable(format!(
        "this node is already part of the peer cluster {cluster}; to add another machine, run \
         `peer start --join HOST --token TOKEN` there, with the token that `peer token` prints here"
    )))
}

/// With force at once, as in Docker: the node's tasks start elsewhere only then. Unlike Swarm's, the node is also
/// forgotten: it needs no `docker node rm`.
pub async fn leave(api: &Api, call: &Call) -> Answer {
    if !call.query.flag("force") {
        return Err(Failure::unavailable(
            "this node is a manager, as every node is: `peer leave` on it moves its tasks away first and then leaves; \
             `docker swarm leave --force` leaves at once, and its tasks start elsewhere after that",
        ));
    }
    let id = api.backend.snapshot(Want::CLUSTER).await?.cluster.node;
    match api.backend.request(Ask::RemoveNode { id, force: true }).await {
        Ok(accepted) => reply::updated(&accepted),
        // It was quicker to end than to answer: whoever asks now gets nothing.
        Err(Refused::Unavailable(_)) if api.backend.snapshot(Want::CLUSTER).await.is_err() => reply::ok(&json!({})),
        Err(refused) => Err(refused.into()),
    }
}

pub fn unlock_key() -> Answer {
    reply::ok(&json!({ "UnlockKey": "" }))
}

pub fn unlock() -> Answer {
    Err(Failure::unsupported("a peer cluster has no lock"))
}
