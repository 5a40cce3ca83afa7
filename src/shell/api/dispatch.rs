//! Which request goes where: the whole surface on one page.

use super::handle::{node, peer, service, swarm, system, task};
use super::reply::{Answer, Failure};
use super::{Api, incoming};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

pub async fn entry(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let segments = incoming::segments(request.uri());
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let answer = match route(&api, &segments, request).await {
        Route::Ours(answer) => {
            let mut response = answer.unwrap_or_else(Failure::into_response);
            stamp(&api, response.headers_mut());
            response
        }
        Route::Engines(answer) => answer.unwrap_or_else(Failure::into_response),
    };
    tracing::debug!(%method, path, status = answer.status().as_u16(), "api");
    answer
}

enum Route {
    Ours(Answer),
    Engines(Answer),
}

async fn route(api: &Api, segments: &[&str], request: Request) -> Route {
    let method = request.method().as_str().to_owned();
    Route::Ours(match (method.as_str(), segments) {
        ("GET" | "HEAD", ["_ping"]) => system::ping(api).await,
        ("GET", ["version"]) => system::version(api).await,
        ("GET", ["info"]) => system::info(api).await,

        ("GET", ["nodes"]) => node::list(api, request.uri()).await,
        ("GET", ["nodes", node]) => node::inspect(api, node).await,
        ("POST", ["nodes", node, "update"]) => node::update(api, node, request).await,
        ("DELETE", ["nodes", node]) => node::remove(api, node, request.uri()).await,

        ("GET", ["services"]) => service::list(api, request.uri()).await,
        ("POST", ["services", "create"]) => service::create(api, request).await,
        ("GET", ["services", service]) => service::inspect(api, service, request.uri()).await,
        ("POST", ["services", service, "update"]) => service::update(api, service, request).await,
        ("DELETE", ["services", service]) => service::remove(api, service).await,
        ("GET", ["services" | "tasks", _, "logs"]) => service::logs(),

        ("GET", ["tasks"]) => task::list(api, request.uri()).await,
        ("GET", ["tasks", task]) => task::inspect(api, task).await,

        ("GET", ["swarm"]) => swarm::inspect(api).await,
        ("POST", ["swarm", "update"]) => swarm::update(api, request.uri()).await,
        ("POST", ["swarm", "init" | "join"]) => swarm::already_there(api).await,
        ("POST", ["swarm", "leave"]) => swarm::leave(),
        ("GET", ["swarm", "unlockkey"]) => swarm::unlock_key(),
        ("POST", ["swarm", "unlock"]) => swarm::unlock(),

        // Stacks ask for these even where they have none.
        ("GET", ["secrets" | "configs"]) => super::reply::ok(&Vec::<()>::new()),
        ("GET", ["secrets" | "configs", name]) => Err(Failure::not_found(format!("no such secret or config: {name}"))),
        (_, ["secrets" | "configs", ..]) => {
            Err(Failure::unsupported("secrets and configs are not supported by this version of peer"))
        }

        ("GET", ["peer", "status"]) => peer::status(api).await,
        ("GET", ["peer", "token"]) => peer::token(api).await,
        ("POST", ["peer", "token", "rotate"]) => peer::rotate_token(api).await,
        ("GET", ["peer", "services", service, "history"]) => peer::history(api, service).await,
        ("POST", ["peer", "services", service, "rollback"]) => peer::rollback(api, service, request.uri()).await,
        ("POST", ["peer", "recover"]) => peer::recover(api).await,
        ("POST", ["peer", "stop"]) => peer::stop(api).await,

        (method, ["nodes" | "services" | "tasks" | "swarm" | "peer", ..]) => {
            Err(Failure::not_found(format!("page not found: {method} /{}", segments.join("/"))))
        }
        _ => match &api.engine {
            Some(engine) => return Route::Engines(engine.pass(request).await),
            None => without_engine(api, &request, segments),
        },
    })
}

/// What a node without a Docker Engine says to what would be the engine's.
fn without_engine(api: &Api, request: &Request, segments: &[&str]) -> Answer {
    match segments {
        ["events"] => Ok(super::engine::silent_stream(api.stop.clone())),
        // The docker CLI warns that it can't pin the image's digest, and goes on.
        ["distribution", ..] => {
            Err(Failure::not_found("this node has no Docker Engine that could ask the registry for the image's digest"))
        }
        _ => Err(Failure::unsupported(format!(
            "{} /{} needs a Docker Engine, and this node runs none; nodes, services and tasks work",
            request.method(),
            segments.join("/")
        ))),
    }
}

/// The headers by which clients find out whom they talk to, as Docker sends them with everything.
fn stamp(api: &Api, headers: &mut HeaderMap) {
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.entry(name).or_insert(value);
        }
    };
    put("api-version", api.api_version().to_string());
    put("docker-experimental", "false".to_owned());
    put("ostype", "linux".to_owned());
    put("server", format!("peer/{} (linux)", api.agent_version));
}
