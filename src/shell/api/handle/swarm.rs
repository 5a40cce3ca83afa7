//! `/swarm`: what a Docker client may ask of a swarm as a whole. What it would change is done with `peer` instead,
//! and the answers say how.

use crate::shell::api::backend::Want;
use crate::shell::api::incoming::Call;
use crate::shell::api::reply::{self, Answer, Failure};
use crate::shell::api::{Api, handle::peer, render};
use serde_json::json;

pub async fn inspect(api: &Api) -> Answer {
    let snapshot = api.backend.snapshot(Want::CLUSTER).await?;
    let token = (api.extra.token)(&snapshot.cluster.join_secret);
    reply::ok(&render::cluster::cluster(&snapshot, Some(token)))
}

/// Of a swarm's settings only the join token can be changed.
pub async fn update(api: &Api, call: &Call) -> Answer {
    let query = &call.query;
    if query.flag("rotateWorkerToken") || query.flag("rotateManagerToken") {
        return reply::updated(&peer::rotate(api).await?);
    }
    Err(Failure::unsupported(
        "a swarm's settings have no meaning in a peer cluster; only its join token can be rotated",
    ))
}

pub async fn already_there(api: &Api) -> Answer {
    let cluster = api.backend.snapshot(Want::CLUSTER).await?.cluster.id;
    Err(Failure::unavailable(format!(
        "this node is already part of the peer cluster {cluster}; to add another machine, run \
         `peer start --join HOST --token TOKEN` there, with the token that `peer token` prints here"
    )))
}

pub fn leave() -> Answer {
    Err(Failure::unsupported(
        "a node leaves a peer cluster in three steps: `docker node update --availability drain NODE`, stop its agent, \
         and `docker node rm NODE` on any other node",
    ))
}

pub fn unlock_key() -> Answer {
    reply::ok(&json!({ "UnlockKey": "" }))
}

pub fn unlock() -> Answer {
    Err(Failure::unsupported("a peer cluster has no lock"))
}
