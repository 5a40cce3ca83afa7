//! `_ping`, `version` and `info`: the local engine's answers with our part put in, or our own where there is no engine.

use crate::shell::api::backend::{Snapshot, Want};
use crate::shell::api::engine::Engine;
use crate::shell::api::reply::{self, Answer};
use crate::shell::api::{API_VERSION, Api, ApiVersion, MIN_API_VERSION, render};
use axum::body::Body;
use axum::http::HeaderValue;
use axum::response::Response;
use serde_json::{Map, Value, json};

/// Every command of the docker CLI begins with this one, and speaks the version that it says.
/// `swarm` says whether the node is in one.
pub async fn ping(engine: Option<&Engine>, swarm: &'static str) -> Answer {
    let mut response = Response::new(Body::from("OK"));
    let headers = response.headers_mut();
    if let Some(engine) = engine
        && let Some(theirs) = engine.ping().await
    {
        for name in ["builder-version", "docker-experimental"] {
            if let Some(value) = theirs.get(name) {
                headers.insert(name, value.clone());
            }
        }
    }
    for (name, value) in [
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        ("content-type", "text/plain; charset=utf-8"),
        ("swarm", swarm),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// `api` is asked once the engine has answered.
pub async fn version(engine: Option<&Engine>, agent_version: &str, api: impl Fn() -> ApiVersion) -> Answer {
    let engine = match engine {
        Some(engine) => engine.json("/version").await.ok(),
        None => None,
    };
    let version = match engine {
        Some(engine) => merged_version(engine, agent_version, api()),
        None => own_version(agent_version),
    };
    reply::ok(&version)
}

fn merged_version(mut engine: Map<String, Value>, agent_version: &str, api: ApiVersion) -> Value {
    engine.insert("ApiVersion".to_owned(), json!(api.to_string()));
    let oldest = engine.get("MinAPIVersion").and_then(Value::as_str).and_then(ApiVersion::parse);
    let oldest = oldest.map_or(MIN_API_VERSION, |theirs| theirs.max(MIN_API_VERSION));
    engine.insert("MinAPIVersion".to_owned(), json!(oldest.to_string()));
    let agent =
        json!({ "Name": "peer", "Version": agent_version, "Details": { "ApiVersion": API_VERSION.to_string() } });
    if let Some(Value::Array(components)) = engine.get_mut("Components") {
        components.push(agent);
    } else {
        engine.insert("Components".to_owned(), json!([agent]));
    }
    Value::Object(engine)
}

fn own_version(agent_version: &str) -> Value {
    let system = rustix::system::uname();
    let (kernel, arch) = (system.release().to_string_lossy(), go_arch());
    let (api, oldest) = (API_VERSION.to_string(), MIN_API_VERSION.to_string());
    json!({
        "Platform": { "Name": "peer" },
        "Components": [{
            "Name": "Engine",
            "Version": agent_version,
            "Details": { "ApiVersion": api, "Arch": arch, "BuildTime": "", "Experimental": "false", "GitCommit": "",
                "GoVersion": "", "KernelVersion": kernel, "MinAPIVersion": oldest, "Os": "linux" },
        }],
        "Version": agent_version,
        "ApiVersion": api,
        "MinAPIVersion": oldest,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": kernel,
        "BuildTime": "",
    })
}

/// Docker's name of this machine's architecture in a version.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub async fn info(api: &Api) -> Answer {
    let snapshot = api.backend.snapshot(Want::NODES).await?;
    let mut info = match &api.engine {
        Some(engine) => engine.json("/info").await.unwrap_or_else(|why| {
            let mut info = members_info(&snapshot, &api.agent_version);
            warn_of_engine(&mut info, &why);
            info
        }),
        None => members_info(&snapshot, &api.agent_version),
    };
    info.insert("Swarm".to_owned(), json!(render::cluster::swarm(&snapshot)));
    reply::ok(&info)
}

pub fn warn_of_engine(info: &mut Map<String, Value>, why: &str) {
    let warning = format!("WARNING: this node's Docker Engine is unreachable: {why}");
    info.insert("Warnings".to_owned(), json!([warning]));
}

fn members_info(snapshot: &Snapshot, agent_version: &str) -> Map<String, Value> {
    let fact = snapshot.this_node().and_then(|node| node.fact.as_ref());
    let mut info = own_info(fact.map_or("", |fact| &fact.hostname), agent_version);
    info.insert("ID".to_owned(), json!(snapshot.cluster.node.to_string()));
    if let Some(fact) = fact {
        info.insert("Architecture".to_owned(), json!(fact.arch));
        info.insert("NCPU".to_owned(), json!(fact.nano_cpus / 1_000_000_000));
        info.insert("MemTotal".to_owned(), json!(fact.memory_bytes));
    }
    info
}

/// As much as the docker CLI needs to print something sensible.
pub fn own_info(hostname: &str, agent_version: &str) -> Map<String, Value> {
    let system = rustix::system::uname();
    let info = json!({
        "ID": "",
        "Containers": 0,
        "ContainersRunning": 0,
        "ContainersPaused": 0,
        "ContainersStopped": 0,
        "Images": 0,
        "Driver": "",
        "DriverStatus": [],
        "Plugins": { "Volume": [], "Network": [], "Authorization": null, "Log": [] },
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "IPv4Forwarding": true,
        "OomKillDisable": true,
        "Debug": false,
        "LoggingDriver": "",
        "CgroupDriver": "",
        "KernelVersion": system.release().to_string_lossy(),
        "OperatingSystem": operating_system(),
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "NCPU": 0,
        "MemTotal": 0,
        "Name": hostname,
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": agent_version,
        "Runtimes": {},
        "DefaultRuntime": "",
        "SecurityOptions": [],
        "Warnings": null,
    });
    match info {
        Value::Object(info) => info,
        _ => Map::new(),
    }
}

fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    pretty_name(&text).unwrap_or("Linux").to_owned()
}

/// From the text of os-release(5).
fn pretty_name(text: &str) -> Option<&str> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim().trim_matches('"')).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_version_is_kept_and_ours_added() {
        let engine = json!({ "Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12",
            "Components": [{ "Name": "Engine" }] });
        let Value::Object(engine) = engine else { unreachable!() };
        let version = merged_version(engine, "0.1.0", ApiVersion { major: 1, minor: 41 });
        assert_eq!(version["Version"], "20.10.24");
        assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&json!("1.41"), &json!("1.24")));
        assert_eq!(version["Components"][1]["Name"], "peer");
    }

    #[test]
    fn the_systems_name_comes_without_its_quotes() {
        assert_eq!(pretty_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), Some("Debian GNU/Linux 12"));
        assert_eq!(pretty_name("ID=x\n"), None);
    }
}
