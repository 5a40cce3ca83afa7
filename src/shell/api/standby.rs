//! What a node on standby answers: as a Docker Engine that isn't part of a swarm. `swarm init` and `swarm join` are
//! handed to the agent's life ([`Ask`]), everything that isn't a swarm's goes to the node's own engine.

use super::front::Front;
use super::handle::system;
use super::incoming::{self, Call};
use super::reply::{self, Answer, Failure};
use super::{API_VERSION, ApiVersion, dispatch};
use crate::ids::NodeId;
use crate::model::node::Availability;
use crate::shell::net::interface::ip_and_port;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Docker's words: scripts look for them.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect \
                        this node to swarm and try again.";
const NOT_PART: &str = "This node is not part of a swarm";
/// The first words of what `/peer` answers here; `peer leave` knows by them that it is done.
pub const ON_STANDBY: &str = "this node is on standby";
const SWARM_PORT: u16 = 2377;
const MAX_REMOTES: usize = 16;

/// A wish that changes what this node is.
pub struct Ask {
    pub what: What,
    /// Why not, in words for the client.
    pub reply: oneshot::Sender<Result<NodeId, String>>,
}

pub enum What {
    Begin(Begin),
    /// The agent is to end.
    Stop,
}

/// What an init or a join says; what it leaves out is as the agent was started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Begin {
    /// Of a join: the addresses to try, and the token.
    pub join: Option<(Vec<String>, String)>,
    pub listen: Option<SocketAddr>,
    pub advertise: Option<(IpAddr, Option<u16>)>,
    pub availability: Option<Availability>,
}

pub async fn entry(front: &Front, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let segments = incoming::segments(request.uri());
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let ours = segments.first().is_some_and(|first| dispatch::OURS.contains(first));
    let answer = match &front.engine {
        Some(engine) if !ours => engine.pass(request).await.unwrap_or_else(Failure::into_response),
        _ => {
            let answer = if ours {
                answer(front, &segments, request).await
            } else {
                incoming::discard(request.into_body()).await;
                match &segments[..] {
                    // Of a cluster there is nothing to tell, and there is no engine that could.
                    ["events"] => Ok(silent_stream(front.stop.clone())),
                    _ => dispatch::without_engine(&method, &segments),
                }
            };
            let mut response = answer.unwrap_or_else(Failure::into_response);
            dispatch::stamp(api_version(front), &front.agent_version, response.headers_mut());
            response
        }
    };
    tracing::debug!(%method, path, status = answer.status().as_u16(), "api, on standby");
    answer
}

/// An answer without end and without content.
fn silent_stream(stop: CancellationToken) -> Response {
    let silence = futures_util::stream::pending::<Result<axum::body::Bytes, std::convert::Infallible>>();
    Response::new(Body::from_stream(silence.take_until(stop.cancelled_owned())))
}

fn api_version(front: &Front) -> ApiVersion {
    front.engine.as_ref().and_then(|engine| engine.api_version()).map_or(API_VERSION, |engine| engine.min(API_VERSION))
}

async fn answer(front: &Front, segments: &[&str], request: Request) -> Answer {
    let method = request.method().clone();
    let call = Call::read(request).await?;
    dispatch::check_version(&call)?;
    match (method.as_str(), segments) {
        ("GET" | "HEAD", ["_ping"]) => system::ping(front.engine.as_ref(), "inactive").await,
        ("GET", ["version"]) => {
            system::version(front.engine.as_ref(), &front.agent_version, || api_version(front)).await
        }
        ("GET", ["info"]) => info(front).await,
        ("POST", ["swarm", "init"]) => {
            let node = begin(front, init(&call)?).await?;
            reply::ok(&node.to_string())
        }
        ("POST", ["swarm", "join"]) => {
            begin(front, join(&call)?).await?;
            reply::ok(&json!({}))
        }
        ("POST", ["swarm", "leave" | "unlock"]) => Err(Failure::unavailable(NOT_PART)),
        ("POST", ["peer", "stop"]) => {
            ask(front, What::Stop).await?.map_err(Failure::unavailable)?;
            reply::ok(&json!({}))
        }
        (_, ["peer", ..]) => Err(Failure::unavailable(format!(
            "{ON_STANDBY}: it is in no cluster; make one with `docker swarm init`, or join one with `docker swarm join \
             --token TOKEN HOST` (the token: `peer token` on one of its nodes)"
        ))),
        _ => Err(Failure::unavailable(NO_SWARM)),
    }
}

async fn info(front: &Front) -> Answer {
    let mut info: Map<String, Value> = match &front.engine {
        Some(engine) => engine.json("/info").await.unwrap_or_else(|why| {
            let mut info = system::own_info(&front.hostname, &front.agent_version);
            system::warn_of_engine(&mut info, &why);
            info
        }),
        None => system::own_info(&front.hostname, &front.agent_version),
    };
    info.insert(
        "Swarm".to_owned(),
        json!({ "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null }),
    );
    reply::ok(&info)
}

async fn begin(front: &Front, what: Begin) -> Result<NodeId, Failure> {
    match ask(front, What::Begin(what)).await? {
        Ok(node) => Ok(node),
        Err(why) => Err(Failure::invalid(why)),
    }
}

async fn ask(front: &Front, what: What) -> Result<Result<NodeId, String>, Failure> {
    let (reply, answer) = oneshot::channel();
    if front.asks.try_send(Ask { what, reply }).is_err() {
        return Err(Failure::unavailable("this node is about to become part of a swarm: try again in a moment"));
    }
    // Dropped unanswered: somebody else's init or join was first, or the agent ends.
    answer.await.map_err(|_| {
        Failure::unavailable(
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
        )
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct InitRequest {
    listen_addr: Option<String>,
    advertise_addr: Option<String>,
    data_path_addr: Option<String>,
    data_path_port: u32,
    default_addr_pool: Option<Vec<Value>>,
    subnet_size: u32,
    force_new_cluster: bool,
    auto_lock_managers: bool,
    availability: Option<String>,
    spec: Option<Value>,
}

fn init(call: &Call) -> Result<Begin, Failure> {
    let said: InitRequest = incoming::json(&call.body)?;
    let refuse = |what: &str, why: &str| Err(Failure::unsupported(format!("{what}: {why}")));
    if said.force_new_cluster {
        return refuse(
            "ForceNewCluster",
            "there is nothing to force on a node without a cluster; a member that lost the majority of its voters for \
             good recovers with `peer cluster recover`",
        );
    }
    if said.auto_lock_managers
        || said.spec.as_ref().is_some_and(|spec| spec["EncryptionConfig"]["AutoLockManagers"] == true)
    {
        return refuse("AutoLockManagers", "a peer cluster has no lock");
    }
    // 24 is what the docker CLI sends when nothing was said.
    if said.default_addr_pool.is_some_and(|pool| !pool.is_empty()) || ![0, 24].contains(&said.subnet_size) {
        return refuse("DefaultAddrPool", "networks get their addresses from each node's own engine");
    }
    check_data_path(said.data_path_addr.as_deref(), said.data_path_port)?;
    if let Some(named) = said.spec.as_ref().and_then(setting) {
        return refuse(named, "no counterpart in a peer cluster; certificates renew by themselves");
    }
    begun(said.listen_addr.as_deref(), said.advertise_addr.as_deref(), said.availability.as_deref())
}

/// The first setting of Docker's SwarmSpec that says something.
fn setting(spec: &Value) -> Option<&'static str> {
    let says = |pointer: &str| match spec.pointer(pointer) {
        None | Some(Value::Null) => false,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    };
    let known = [
        ("/Orchestration/TaskHistoryRetentionLimit", "--task-history-limit"),
        ("/Raft/SnapshotInterval", "--snapshot-interval"),
        ("/Raft/KeepOldSnapshots", "--max-snapshots"),
        ("/Dispatcher/HeartbeatPeriod", "--dispatcher-heartbeat"),
        ("/CAConfig/NodeCertExpiry", "--cert-expiry"),
        ("/CAConfig/ExternalCAs", "--external-ca"),
    ];
    known.into_iter().find(|(pointer, _)| says(pointer)).map(|(_, flag)| flag)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct JoinRequest {
    listen_addr: Option<String>,
    advertise_addr: Option<String>,
    data_path_addr: Option<String>,
    remote_addrs: Option<Vec<String>>,
    join_token: Option<String>,
    availability: Option<String>,
}

fn join(call: &Call) -> Result<Begin, Failure> {
    let said: JoinRequest = incoming::json(&call.body)?;
    let remotes = said.remote_addrs.unwrap_or_default();
    let token = said.join_token.unwrap_or_default();
    if remotes.is_empty() || remotes.iter().any(|addr| addr.trim().is_empty()) {
        return Err(Failure::invalid("RemoteAddrs: want the address of a node of the cluster, as HOST or HOST:PORT"));
    }
    if remotes.len() > MAX_REMOTES {
        return Err(Failure::invalid(format!("RemoteAddrs: {} addresses, at most {MAX_REMOTES}", remotes.len())));
    }
    // The token itself stays out of answers and logs.
    if token.starts_with("SWMTKN-") {
        return Err(Failure::invalid(
            "invalid join token: this is a token of Docker Swarm; a peer cluster's is shown by `docker swarm join-token \
             worker` or `peer token` on one of its nodes",
        ));
    }
    if token.trim().is_empty() {
        return Err(Failure::invalid("invalid join token: it is empty"));
    }
    check_data_path(said.data_path_addr.as_deref(), 0)?;
    let begin = begun(said.listen_addr.as_deref(), said.advertise_addr.as_deref(), said.availability.as_deref())?;
    Ok(Begin { join: Some((remotes, token.trim().to_owned())), ..begin })
}

fn check_data_path(addr: Option<&str>, port: u32) -> Result<(), Failure> {
    if addr.is_none_or(str::is_empty) && port == 0 {
        return Ok(());
    }
    Err(Failure::unsupported(
        "DataPathAddr: there is no data path of its own: what goes between nodes goes to their --advertise-addr",
    ))
}

fn begun(listen: Option<&str>, advertise: Option<&str>, availability: Option<&str>) -> Result<Begin, Failure> {
    // The docker CLI sends Swarm's own default always, said or not.
    let swarms = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), SWARM_PORT);
    let mut listen = match listen.filter(|text| !text.is_empty()) {
        Some(text) => Some(listen_addr(text)?).filter(|addr| *addr != swarms),
        None => None,
    };
    let advertise = advertise.filter(|text| !text.is_empty()).map(advertise_addr).transpose()?;
    if let (None, Some((_, Some(port)))) = (listen, advertise) {
        // As with Swarm the advertised port is the one to listen on, unless both are said.
        listen = Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    }
    let availability = match availability.filter(|text| !text.is_empty()) {
        Some(text) => Some(text.to_ascii_lowercase().parse().map_err(Failure::invalid)?),
        None => None,
    };
    Ok(Begin { join: None, listen, advertise, availability })
}

fn listen_addr(text: &str) -> Result<SocketAddr, Failure> {
    let port_alone = text.strip_prefix(':').and_then(|port| port.parse().ok());
    let addr = match port_alone {
        Some(port) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
        None => {
            let (ip, port) = ip_and_port(text).map_err(|why| invalid_addr("listen", text, &why))?;
            SocketAddr::new(ip, port.unwrap_or(SWARM_PORT))
        }
    };
    if addr.port() == 0 {
        return Err(invalid_addr("listen", text, "the port can't be 0"));
    }
    Ok(addr)
}

fn advertise_addr(text: &str) -> Result<(IpAddr, Option<u16>), Failure> {
    let (ip, port) = ip_and_port(text).map_err(|why| invalid_addr("advertise", text, &why))?;
    if ip.is_unspecified() || ip.is_multicast() || port == Some(0) {
        return Err(Failure::invalid(
            "advertise address must be a non-zero IP address or network interface (with optional port number)",
        ));
    }
    Ok((ip, port))
}

fn invalid_addr(which: &str, text: &str, why: &str) -> Failure {
    Failure::invalid(format!("invalid {which} address {text:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clis_defaults_say_nothing() {
        assert_eq!(begun(Some("0.0.0.0:2377"), Some(""), Some("")).unwrap(), Begin::default());
        let begin = begun(Some("0.0.0.0:2377"), Some("10.0.0.5"), Some("Drain")).unwrap();
        assert_eq!((begin.listen, begin.advertise), (None, Some(("10.0.0.5".parse().unwrap(), None))));
        assert_eq!(begin.availability, Some(Availability::Drain));
        let begin = begun(Some("0.0.0.0:2377"), Some("10.0.0.5:2377"), None).unwrap();
        assert_eq!(begin.listen, Some("0.0.0.0:2377".parse().unwrap()), "who joins is sent to that port");
        assert_eq!(begun(Some("10.0.0.5"), None, None).unwrap().listen, Some("10.0.0.5:2377".parse().unwrap()));
        assert_eq!(begun(Some(":7400"), None, None).unwrap().listen, Some("0.0.0.0:7400".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_an_address_is_refused() {
        for (listen, advertise) in
            [("x", ""), ("1.2.3.4:0", ""), ("", "nosuch0"), ("", "0.0.0.0"), ("", "::"), ("", "1.2.3.4:0")]
        {
            assert!(begun(Some(listen), Some(advertise), None).is_err(), "{listen} {advertise}");
        }
        assert!(begun(None, None, Some("sleepy")).is_err());
    }

    #[test]
    fn an_interface_stands_for_its_address() {
        let begin = begun(Some("lo:7400"), Some("lo"), None).unwrap();
        assert_eq!(begin.listen, Some("127.0.0.1:7400".parse().unwrap()));
        assert_eq!(begin.advertise, Some(("127.0.0.1".parse().unwrap(), None)));
    }

    #[test]
    fn a_setting_without_counterpart_is_named() {
        let recorded = json!({ "Labels": null, "Orchestration": {}, "Raft": { "ElectionTick": 0, "HeartbeatTick": 0 },
            "Dispatcher": {}, "CAConfig": {}, "TaskDefaults": {}, "EncryptionConfig": { "AutoLockManagers": false } });
        assert_eq!(setting(&recorded), None);
        assert_eq!(setting(&json!({ "CAConfig": { "NodeCertExpiry": 1 } })), Some("--cert-expiry"));
    }
}
