//! An agent's process, from start to end: a member all along, or, with `--standby`, a member and on standby by turns.
//!
//! Whether the node is in a cluster is told by its identity's file alone, which is written last when it begins and
//! removed first when it ends. So a crash in the middle of an init, a join or a leave leaves standby or membership.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use super::options::check_family;
use super::{Agent, AgentConfig, Ended, EngineChoice, Join};
use crate::ids::NodeId;
use crate::model::node::Availability;
use crate::shell::api::{Ask, Begin, Front, What};
use crate::shell::engine::AnyEngine;
use crate::shell::identity::DataDir;
use crate::shell::identity::data_dir::MEMBER;
use crate::shell::net::JoinError;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Ends when the process is to end.
type Told<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send)>;

/// Runs an agent until SIGTERM, Ctrl-C or `told`, which stop it gracefully, or until it was removed from the cluster;
/// with `--standby` it then waits for the next one.
pub async fn run(config: AgentConfig, told: impl Future<Output = ()> + Send) -> anyhow::Result<Ended> {
    raise_descriptor_limit();
    keep_memory_private();
    let engine = match &config.engine {
        EngineChoice::Docker(socket) => AnyEngine::parse(&socket.display().to_string(), &config.hostname),
        EngineChoice::Demo => AnyEngine::parse("demo", &config.hostname),
    };
    let engine = engine.map_err(anyhow::Error::msg)?;
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let told = async move {
        tokio::select! {
            () = told => {}
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut told = pin!(told);
    if !config.standby {
        return member(as_member(&config)?, engine, None, told.as_mut()).await;
    }
    standby(config, engine, told.as_mut()).await
}

async fn member(
    config: AgentConfig,
    engine: AnyEngine,
    front: Option<Arc<Front>>,
    told: Told<'_>,
) -> anyhow::Result<Ended> {
    let socket = config.socket.clone();
    let host = config.join.as_ref().map(|join| join.host.clone());
    let agent = Agent::start_behind(config, engine, front).await.map_err(|error| match host {
        Some(host) if error.is::<JoinError>() => error.context(format!("--join {host}")),
        _ => error,
    })?;
    tracing::info!(node = %agent.node, addr = %agent.addr, socket = %socket.display(), "this node is up");
    // An agent lives on where nobody reads what it says.
    let _ = std::io::stdout().write_all(greeting(&agent).await?.as_bytes());
    Ok(live(agent, told).await)
}

/// What to do next, after a node's first start.
async fn greeting(agent: &Agent) -> anyhow::Result<String> {
    if !agent.founded {
        let joined = "This node has joined the cluster. See its nodes with: peer node ls\n";
        return Ok(if agent.first_start { joined.to_owned() } else { String::new() });
    }
    let addr = agent.addr;
    if !std::io::stdout().is_terminal() {
        // What is written down is read by others, too.
        return Ok(format!(
            "A new cluster of one node, {addr}, is up.\nTo add a node, see on this one: peer token\nTo see the cluster: peer dashboard\n"
        ));
    }
    let token = agent.token().await?;
    let page =
        agent.page.as_ref().map(|link| format!("To see the cluster, open:\n\n    {link}\n\n")).unwrap_or_default();
    Ok(format!(
        "A new cluster of one node, {addr}, is up.\n\nTo add a node, run on it:\n\n    peer start --join {addr} --token {token}\n\n{page}"
    ))
}

/// Each connection through the mesh takes two; what a shell gives is a thousand.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

/// It holds the cluster's key, and secrets in the clear: no core dump is written of it, and only root may look into it.
fn keep_memory_private() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "this process can't be kept from dumping core");
    }
    use rustix::process::{Resource, Rlimit, setrlimit};
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "this process can't be kept from dumping core");
    }
}

async fn live(mut agent: Agent, told: Told<'_>) -> Ended {
    tokio::select! {
        ended = agent.ended() => ended,
        () = told => agent.stop().await,
    }
}

/// The life of a node with `--standby`: the socket stays, memberships come and go. Public to be tested without a process.
pub async fn standby(config: AgentConfig, engine: AnyEngine, mut told: Told<'_>) -> anyhow::Result<Ended> {
    let stop = CancellationToken::new();
    let (front, mut asks, serving) = Front::bind(config.api_config(), config.hostname.clone(), stop.clone()).await?;
    let serving = tokio::spawn(serving);
    let lives = async {
        loop {
            let dir = DataDir::open(&config.data_dir)?;
            let begins = dir.is_member() || config.join.is_some();
            let ended = if begins {
                drop(dir);
                member(as_member(&config)?, engine.clone(), Some(front.clone()), told.as_mut()).await?
            } else {
                tracing::info!(socket = %config.socket.display(), "on standby: docker swarm init or join makes it a member");
                match next(dir, &config, &engine, &front, &mut asks, told.as_mut()).await? {
                    Some(agent) => live(agent, told.as_mut()).await,
                    None => Ended::Stopped,
                }
            };
            if ended == Ended::Stopped {
                return Ok(ended);
            }
            DataDir::open(&config.data_dir)?.forget()?;
            if config.join.is_some() {
                // It said which cluster this node is for; without one it has nothing to wait for.
                return Ok(ended);
            }
            front.standby();
        }
    };
    let ended = lives.await;
    stop.cancel();
    // Its socket's file goes with it.
    serving.await??;
    ended
}

/// Until one of the wishes made this node a member, or it is told to end.
async fn next(
    dir: DataDir,
    config: &AgentConfig,
    engine: &AnyEngine,
    front: &Arc<Front>,
    asks: &mut mpsc::Receiver<Ask>,
    mut told: Told<'_>,
) -> anyhow::Result<Option<Agent>> {
    let mut dir = Some(dir);
    loop {
        let ask = tokio::select! {
            ask = asks.recv() => ask,
            () = told.as_mut() => None,
        };
        let Some(Ask { what, reply }) = ask else { return Ok(None) };
        let What::Begin(begin) = what else {
            // Whoever asked may have hung up; so below.
            let _ = reply.send(Ok(NodeId::from_u128(0)));
            return Ok(None);
        };
        // The agent takes the directory's lock itself.
        drop(dir.take());
        let began = tokio::select! {
            began = become_member(begin, config, engine, front) => began,
            () = told.as_mut() => return Ok(None),
        };
        match began {
            Ok(agent) => {
                let _ = reply.send(Ok(agent.node));
                // Those who asked meanwhile came too late, and are told so.
                while asks.try_recv().is_ok() {}
                return Ok(Some(agent));
            }
            Err(error) => {
                tracing::warn!("still on standby: {error:#}");
                let open = DataDir::open(&config.data_dir)?;
                open.remove_private(MEMBER)?;
                dir = Some(open);
                let _ = reply.send(Err(format!("{error:#}")));
            }
        }
    }
}

async fn become_member(
    begin: Begin,
    config: &AgentConfig,
    engine: &AnyEngine,
    front: &Arc<Front>,
) -> anyhow::Result<Agent> {
    let config = prepare(&begin, config)?;
    let Some((hosts, token)) = begin.join else {
        return Agent::start_behind(config, engine.clone(), Some(front.clone())).await;
    };
    let mut last = None;
    for host in hosts {
        let join = Some(Join { host, token: token.clone() });
        let config = AgentConfig { join, ..config.clone() };
        match Agent::start_behind(config, engine.clone(), Some(front.clone())).await {
            Ok(agent) => return Ok(agent),
            Err(error) if matches!(error.downcast_ref(), Some(JoinError::Unreachable { .. })) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| JoinError::NoAddress.into()))
}

/// What an init or a join said beside what the agent was started with. It lies in the data directory before the identity
/// does and means something only beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Member {
    version: u32,
    listen: Option<SocketAddr>,
    advertise: Option<SocketAddr>,
    availability: Option<Availability>,
}

const MEMBER_VERSION: u32 = 1;

fn prepare(begin: &Begin, config: &AgentConfig) -> anyhow::Result<AgentConfig> {
    let port = begin.listen.unwrap_or(config.listen).port();
    let member = Member {
        version: MEMBER_VERSION,
        listen: begin.listen,
        advertise: begin.advertise.map(|(ip, said)| SocketAddr::new(ip, said.unwrap_or(port))),
        availability: begin.availability,
    };
    let config = member.over(config.clone());
    check_family(&config)?;
    DataDir::open(&config.data_dir)?.write_private(MEMBER, &serde_json::to_vec_pretty(&member)?)?;
    Ok(config)
}

impl Member {
    fn over(&self, config: AgentConfig) -> AgentConfig {
        AgentConfig {
            listen: self.listen.unwrap_or(config.listen),
            advertise: self.advertise.or(config.advertise),
            availability: self.availability.or(config.availability),
            ..config
        }
    }
}

/// With what the init or join of this member said.
fn as_member(config: &AgentConfig) -> anyhow::Result<AgentConfig> {
    let dir = DataDir::open(&config.data_dir)?;
    if !dir.is_member() {
        dir.remove_private(MEMBER)?;
        return Ok(config.clone());
    }
    let Some(bytes) = dir.read_private(MEMBER)? else { return Ok(config.clone()) };
    let at = || format!("{} can't be used; it was left as it is", dir.path().join(MEMBER).display());
    let member: Member = serde_json::from_slice(&bytes).with_context(at)?;
    if member.version != MEMBER_VERSION {
        return Err(anyhow::anyhow!("its version {} is newer than this build reads", member.version).context(at()));
    }
    Ok(member.over(config.clone()))
}
