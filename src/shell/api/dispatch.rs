//! Which request goes where: the whole surface on one page.

use super::handle::{cert, events, logs, network, node, object, peer, service, swarm, system, task};
use super::incoming::{self, Call};
use super::reply::{Answer, Failure};
use super::request_id;
use super::{API_VERSION, Api, ApiVersion, MIN_API_VERSION};
use crate::model::object::ObjectKind;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tracing::Instrument;

/// The first segments of the paths that we answer ourselves; what stands below them is in [`route`].
pub(super) const OURS: &[&str] =
    &["_ping", "configs", "info", "nodes", "peer", "secrets", "services", "swarm", "tasks", "version"];

pub async fn entry(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = request_id::of(request.headers());
    let span = request_id::span(&id, &method, &path);
    let answering = async {
        let response = respond(api, method, request).await;
        tracing::debug!(status = response.status().as_u16(), "api");
        response
    };
    let mut response = answering.instrument(span).await;
    request_id::tell(&id, response.headers_mut());
    response
}

async fn respond(api: Arc<Api>, method: Method, request: Request) -> Response {
    let segments = incoming::segments(request.uri());
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let ours = segments.first().is_some_and(|first| OURS.contains(first));
    match &api.engine {
        // Some networks are the cluster's, the others the engine's.
        _ if segments.first() == Some(&"networks") => {
            let mut response = network::route(&api, &segments, request).await.unwrap_or_else(Failure::into_response);
            stamp(api.api_version(), &api.agent_version, response.headers_mut());
            response
        }
        _ if method == Method::GET && segments == ["events"] => {
            let mut response = events::stream(&api, request).await.unwrap_or_else(Failure::into_response);
            stamp(api.api_version(), &api.agent_version, response.headers_mut());
            response
        }
        Some(engine) if !ours => engine.pass(request).await.unwrap_or_else(Failure::into_response),
        _ => {
            let answer = if ours {
                answer(&api, &segments, request).await
            } else {
                incoming::discard(request.into_body()).await;
                without_engine(&method, &segments)
            };
            let mut response = answer.unwrap_or_else(Failure::into_response);
            stamp(api.api_version(), &api.agent_version, response.headers_mut());
            response
        }
    }
}

async fn answer(api: &Api, segments: &[&str], request: Request) -> Answer {
    let method = request.method().clone();
    // All of it, also where it says nothing to us: answering before the client has sent it breaks its connection.
    let call = Call::read(request).await?;
    check_version(&call)?;
    route(api, method.as_str(), segments, &call).await
}

/// Docker's own words; what isn't ours the engine checks itself.
pub(super) fn check_version(call: &Call) -> Result<(), Failure> {
    match call.version {
        Some(version) if version > API_VERSION => Err(Failure::invalid(format!(
            "client version {version} is too new. Maximum supported API version is {API_VERSION}"
        ))),
        Some(version) if version < MIN_API_VERSION => Err(Failure::invalid(format!(
            "client version {version} is too old. Minimum supported API version is {MIN_API_VERSION}, please upgrade \
             your client to a newer version"
        ))),
        _ => Ok(()),
    }
}

async fn route(api: &Api, method: &str, segments: &[&str], call: &Call) -> Answer {
    match (method, segments) {
        ("GET" | "HEAD", ["_ping"]) => system::ping(api.engine.as_ref(), "active/manager").await,
        ("GET", ["version"]) => system::version(api.engine.as_ref(), &api.agent_version, || api.api_version()).await,
        ("GET", ["info"]) => system::info(api).await,

        ("GET", ["nodes"]) => node::list(api, call).await,
        ("GET", ["nodes", node]) => node::inspect(api, node).await,
        ("POST", ["nodes", node, "update"]) => node::update(api, node, call).await,
        ("DELETE", ["nodes", node]) => node::remove(api, node, call).await,

        ("GET", ["services"]) => service::list(api, call).await,
        ("POST", ["services", "create"]) => service::create(api, call).await,
        ("GET", ["services", service]) => service::inspect(api, service, call).await,
        ("POST", ["services", service, "update"]) => service::update(api, service, call).await,
        ("DELETE", ["services", service]) => service::remove(api, service).await,
        ("GET", ["services", service, "logs"]) => logs::of_service(api, service, call).await,
        ("GET", ["tasks", task, "logs"]) => logs::of_task(api, task, call).await,

        ("GET", ["tasks"]) => task::list(api, call).await,
        ("GET", ["tasks", task]) => task::inspect(api, task).await,

        ("GET", ["swarm"]) => swarm::inspect(api).await,
        ("POST", ["swarm", "update"]) => swarm::update(api, call).await,
        ("POST", ["swarm", "init" | "join"]) => swarm::already_there(api).await,
        ("POST", ["swarm", "leave"]) => swarm::leave(api, call).await,
        ("GET", ["swarm", "unlockkey"]) => swarm::unlock_key(),
        ("POST", ["swarm", "unlock"]) => swarm::unlock(),

        (_, ["secrets", rest @ ..]) => object::route(api, ObjectKind::Secret, method, rest, call).await,
        (_, ["configs", rest @ ..]) => object::route(api, ObjectKind::Config, method, rest, call).await,

        ("GET", ["peer", "status"]) => peer::status(api).await,
        ("GET", ["peer", "dashboard"]) => peer::dashboard(api),
        ("GET", ["peer", "mesh"]) => peer::mesh(api).await,
        ("GET", ["peer", "token"]) => peer::token(api).await,
        ("POST", ["peer", "token", "rotate"]) => peer::rotate_token(api).await,
        ("GET", ["peer", "services", service, "history"]) => peer::history(api, service).await,
        ("POST", ["peer", "services", service, "rollback"]) => peer::rollback(api, service, call).await,
        ("POST", ["peer", "secrets", text, "renew"]) => object::renew(api, ObjectKind::Secret, text, call).await,
        ("POST", ["peer", "secrets", text, "compare"]) => object::compare(api, ObjectKind::Secret, text, call).await,
        ("POST", ["peer", "configs", text, "renew"]) => object::renew(api, ObjectKind::Config, text, call).await,
        ("GET", ["peer", "certs"]) => cert::list(api).await,
        ("POST", ["peer", "certs"]) => cert::issue(api, call).await,
        ("POST", ["peer", "certs", name, "revoke"]) => cert::revoke(api, name, call).await,
        ("POST", ["peer", "recover"]) => peer::recover(api).await,
        ("POST", ["peer", "stop"]) => peer::stop(api).await,

        _ => Err(Failure::not_found(format!("page not found: {method} /{}", segments.join("/")))),
    }
}

/// What a node without a Docker Engine says to what would be the engine's.
pub(super) fn without_engine(method: &Method, segments: &[&str]) -> Answer {
    match segments {
        // The docker CLI warns that it can't pin the image's digest, and goes on.
        ["distribution", ..] => {
            Err(Failure::not_found("this node has no Docker Engine that could ask the registry for the image's digest"))
        }
        _ => Err(Failure::unsupported(format!(
            "{method} /{} needs a Docker Engine, and this node runs none; nodes, services and tasks work",
            segments.join("/")
        ))),
    }
}

/// The headers by which clients find out whom they talk to, as Docker sends them with everything.
pub(super) fn stamp(version: ApiVersion, agent_version: &str, headers: &mut HeaderMap) {
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.entry(name).or_insert(value);
        }
    };
    put("api-version", version.to_string());
    put("docker-experimental", "false".to_owned());
    put("ostype", "linux".to_owned());
    put("server", format!("peer/{agent_version} (linux)"));
}
