//! `/networks`: the cluster's own (driver `overlay`, scope `swarm`) are answered here, the others are the engine's.
//! A bridge that stands for one of the cluster's on this node shows as that one only.

use crate::core::face::Request as Ask;
use crate::core::view::ObjectView;
use crate::model::container::LABEL_NETWORK;
use crate::model::object::ObjectKind;
use crate::model::spec::{HOST_NETWORK, NETWORKS_ARE_LOCAL};
use crate::shell::api::filters::Filters;
use crate::shell::api::incoming::{self, Call, Query};
use crate::shell::api::render::fields::Fields;
use crate::shell::api::render::object::{host_network, network};
use crate::shell::api::reply::{self, Answer, Failure};
use crate::shell::api::{Api, dispatch, handle::object, lookup};
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
/// What every engine has, and nothing of the cluster may be called.
const PREDEFINED: &[&str] = &["bridge", "default", "docker_gwbridge", "host", "ingress", "none"];

pub async fn route(api: &Api, segments: &[&str], request: Request) -> Answer {
    let method = request.method().clone();
    match (method.as_str(), segments) {
        ("GET", ["networks"]) => list(api, request).await,
        ("GET", ["networks", text]) => inspect(api, segments, text, request).await,
        ("POST", ["networks", "create"]) => create(api, segments, request).await,
        ("DELETE", ["networks", text]) => match find(api, text).await? {
            Some(view) => {
                let id = view.object.id;
                api.backend.request(Ask::RemoveObject { kind: ObjectKind::Network, id }).await.map_err(in_use)?;
                Ok(object::no_content())
            }
            None => pass(api, segments, request).await,
        },
        _ => pass(api, segments, request).await,
    }
}

/// The engine's status for a network that can't go yet.
fn in_use(refused: crate::core::face::Refused) -> Failure {
    match refused {
        crate::core::face::Refused::Invalid(why) => Failure::new(StatusCode::FORBIDDEN, why),
        other => other.into(),
    }
}

async fn pass(api: &Api, segments: &[&str], request: Request) -> Answer {
    match &api.engine {
        Some(engine) => engine.pass(request).await,
        None => {
            let method = request.method().clone();
            incoming::discard(request.into_body()).await;
            match segments {
                ["networks", text] if method != "POST" => Err(Failure::not_found(format!("network {text} not found"))),
                _ => dispatch::without_engine(&method, segments),
            }
        }
    }
}

async fn networks(api: &Api) -> Result<Vec<ObjectView>, Failure> {
    Ok(api.backend.objects(ObjectKind::Network).await?)
}

async fn find(api: &Api, text: &str) -> Result<Option<ObjectView>, Failure> {
    let all = networks(api).await?;
    let id = |view: &ObjectView| view.object.id.to_string();
    match lookup::find(&all, "network", text, id, |view| view.object.name == text) {
        Ok(view) => Ok(Some(view.clone())),
        Err(failure) if failure.status == StatusCode::NOT_FOUND => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn list(api: &Api, request: Request) -> Answer {
    let query = Query::of(request.uri())?;
    let filters = Filters::of(&query, FILTERS)?;
    let all = networks(api).await?;
    let ids: BTreeSet<String> = all.iter().map(|view| view.object.id.to_string()).collect();
    let mut shown = Vec::new();
    for view in all.iter().filter(|view| matches(&filters, view)) {
        shown.push(network(view));
    }
    if let Some(engine) = &api.engine {
        let path = request.uri().path_and_query().map_or("/networks", |path| path.as_str()).to_owned();
        let theirs: Vec<Fields> = engine.json(&path).await.map_err(|why| {
            Failure::unavailable(format!("the Docker Engine of this node can't list its networks: {why}"))
        })?;
        let stands_for_ours = |network: &Fields| {
            let labels = network.object("Labels").unwrap_or_default();
            let id: Option<String> = labels.get(LABEL_NETWORK).and_then(|text| serde_json::from_str(text).ok());
            id.is_some_and(|id| ids.contains(&id))
        };
        shown.extend(theirs.into_iter().filter(|network| !stands_for_ours(network)));
    }
    reply::ok(&shown)
}

/// As the engine filters its own: names and ids by any part of them.
fn matches(filters: &Filters, view: &ObjectView) -> bool {
    let id = view.object.id.to_string();
    filters.contains("name", &view.object.name)
        && filters.contains("id", &id)
        && filters.equals("driver", "overlay")
        && filters.equals("scope", "swarm")
        && filters.equals("type", "custom")
        && filters.labels("label", &view.object.labels)
        && !filters.values("dangling").is_some_and(|values| values.iter().any(|v| v == "true" || v == "1"))
}

async fn inspect(api: &Api, segments: &[&str], text: &str, request: Request) -> Answer {
    let query = Query::of(request.uri())?;
    let scope = query.text("scope");
    if scope != Some("local")
        && let Some(view) = find(api, text).await?
    {
        return reply::ok(&network(&view));
    }
    if scope == Some("swarm") {
        let more = match text {
            HOST_NETWORK => return reply::ok(&host_network()),
            "bridge" | "none" => ": services on a node's bridge or on none are not supported; host is",
            _ => "",
        };
        return Err(Failure::not_found(format!("network {text} not found{more}")));
    }
    pass(api, segments, request).await
}

async fn create(api: &Api, segments: &[&str], request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    // The engine checks what is its own.
    let call = Call::read(Request::from_parts(parts.clone(), body)).await?;
    let spec: Value = incoming::json(&call.body)?;
    let text = |key: &str| spec.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("Driver") != "overlay" && text("Scope") != "swarm" {
        return pass(api, segments, Request::from_parts(parts, Body::from(call.body))).await;
    }
    if text("Driver") != "overlay" {
        return Err(Failure::unsupported(format!(
            "Driver: {:?} networks of the whole cluster are not supported: want overlay",
            text("Driver")
        )));
    }
    let on = |key: &str| spec.get(key).and_then(Value::as_bool).unwrap_or(false);
    if on("Ingress") {
        return Err(Failure::unsupported("Ingress: a peer cluster has no ingress network; published ports need none"));
    }
    if on("ConfigOnly") || spec.pointer("/ConfigFrom/Network").and_then(Value::as_str).is_some_and(|n| !n.is_empty()) {
        return Err(Failure::unsupported("ConfigOnly: not supported for networks of the cluster"));
    }
    let name = text("Name");
    if PREDEFINED.contains(&name) {
        let why = format!("operation is not permitted on predefined {name} network");
        return Err(Failure::new(StatusCode::FORBIDDEN, why));
    }
    let ask = Ask::CreateObject { kind: ObjectKind::Network, spec_json: call.json_object()?, data: Vec::new() };
    let accepted = api.backend.request(ask).await?;
    let mut warning = accepted.warnings;
    warning.push(NETWORKS_ARE_LOCAL.to_owned());
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Created {
        id: String,
        warning: String,
    }
    Ok(reply::json(StatusCode::CREATED, &Created { id: accepted.id, warning: warning.join("; ") }))
}

/// A service's spec with the networks that it names by their ids, as Docker's daemon stores them.
pub async fn by_id(api: &Api, spec_json: String) -> Result<String, Failure> {
    let Some(mut spec) = Fields::parse(&spec_json) else { return Ok(spec_json) };
    let listed = spec.object("TaskTemplate").and_then(|task| task.get("Networks").map(str::to_owned));
    let Some(mut wanted) = listed.and_then(|text| serde_json::from_str::<Vec<Fields>>(&text).ok()) else {
        return Ok(spec_json);
    };
    if wanted.is_empty() {
        return Ok(spec_json);
    }
    let all = networks(api).await?;
    for network in &mut wanted {
        let target: Option<String> = network.get("Target").and_then(|text| serde_json::from_str(text).ok());
        // One that isn't there is refused, by its name, when the spec is taken.
        if let Some(view) = target.and_then(|name| all.iter().find(|view| view.object.name == name)) {
            network.set("Target", &view.object.id.to_string());
        }
    }
    spec.within("TaskTemplate", |task| task.set("Networks", &wanted));
    serde_json::to_string(&spec).map_err(|error| Failure::invalid(error.to_string()))
}
