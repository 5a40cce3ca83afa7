//! The identity an agent starts with: the one in its data directory, or at the very first start a new cluster's or
//! the one that a join gives. What the first life must know is written down before the identity is, so that a
//! crash in between is followed by the same first start and not by half of one; it goes when the state is durable, so
//! that a state which is missing later is never taken for one that was not begun.

use super::{AgentConfig, Join, StartError};
use crate::core::face::FirstBoot;
use crate::limits::MAX_MESSAGE_BYTES;
use crate::model::node::{Availability, NodePolicy};
use crate::shell::identity::data_dir::{ADDR as ADDR_FILE, FIRST as FIRST_FILE};
use crate::shell::identity::{DataDir, Identity, Token, random};
use crate::shell::net::{self, DEFAULT_PORT, JoinError};
use crate::time::Wall;
use crate::wire::codec;
use crate::wire::message::MemberEntry;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;

pub(super) struct Start {
    pub identity: Identity,
    pub addr: SocketAddr,
    pub first: Option<FirstBoot>,
    pub first_start: bool,
}

#[derive(Serialize, Deserialize)]
struct First {
    members: Option<Vec<MemberEntry>>,
    join_secret: String,
}

pub(super) async fn identity(dir: &DataDir, config: &AgentConfig, now: Wall) -> anyhow::Result<Start> {
    if let Some(identity) = dir.load()? {
        check_cluster(dir, &identity, config)?;
        let identity = renew(dir, identity, now)?;
        let addr = address(dir, config, None)?;
        return Ok(Start { identity, addr, first: None, first_start: false });
    }
    let (identity, first, seen) = match &config.join {
        Some(join) => join_cluster(join, config, now).await?,
        None => (Identity::found(now)?, First { members: None, join_secret: random::secret()? }, None),
    };
    let addr = address(dir, config, seen)?;
    dir.write_private(FIRST_FILE, &codec::encode(&first))?;
    dir.save(&identity)?;
    Ok(Start { identity, addr, first: Some(boot(first, config)), first_start: true })
}

/// A unit file says `--join` at every start, so for the cluster that this node is in it means nothing any more. For another
/// one, which the CA in the token tells, it must not be passed over.
fn check_cluster(dir: &DataDir, identity: &Identity, config: &AgentConfig) -> Result<(), StartError> {
    let token = config.join.as_ref().and_then(|join| Token::parse(&join.token).ok());
    match (&config.join, token) {
        (Some(join), Some(token)) if *token.ca() != identity.ca_digest() => Err(StartError {
            why: format!(
                "--join {}: {} holds a node of another cluster ({})",
                join.host,
                dir.path().display(),
                identity.cluster()
            ),
            hint: "to give that one up: peer leave; to keep it, join with another --data-dir (and --socket)",
        }),
        _ => Ok(()),
    }
}

fn boot(first: First, config: &AgentConfig) -> FirstBoot {
    FirstBoot {
        members: first.members,
        join_secret: first.join_secret,
        availability: config.availability.unwrap_or(Availability::Active),
        labels: config.labels.clone(),
    }
}

/// What the first life was to start with, for a node that died before anything of it was durable: nothing was said
/// to anybody yet, so this is still the first life.
pub(super) fn again(dir: &DataDir, config: &AgentConfig) -> anyhow::Result<Option<FirstBoot>> {
    let Some(bytes) = dir.read_private(FIRST_FILE)? else { return Ok(None) };
    let first: First =
        codec::decode(&bytes, MAX_MESSAGE_BYTES).with_context(|| dir.path().join(FIRST_FILE).display().to_string())?;
    Ok(Some(boot(first, config)))
}

/// What was said of the node itself holds at its first start only, since then it may have been changed from any node: what
/// of it differs now, in words, or nothing.
pub(super) fn unheeded(config: &AgentConfig, policy: &NodePolicy) -> Option<String> {
    let mut flags = Vec::new();
    let mut update = Vec::new();
    for (key, value) in config.labels.iter().filter(|(key, value)| policy.labels.get(*key) != Some(*value)) {
        flags.push(format!("--label {key}={value}"));
        update.push(format!("--label-add {key}={value}"));
    }
    if let Some(wanted) = config.availability.filter(|wanted| *wanted != policy.availability) {
        flags.push(format!("--availability {}", wanted.as_str()));
        update.push(format!("--availability {}", wanted.as_str()));
    }
    let (flags, update, name) = (flags.join(" "), update.join(" "), &config.hostname);
    (!flags.is_empty()).then(|| {
        format!("{flags} counts only at a node's first start, and is passed over; to change it: peer node update {update} {name}")
    })
}

/// The first life's state is durable: from now on it must be there.
pub(super) fn is_over(dir: &DataDir) -> anyhow::Result<()> {
    Ok(dir.remove_private(FIRST_FILE)?)
}

/// A node without its state would forget what it promised and what the cluster was told to run.
pub(super) fn check_state(dir: &DataDir) -> anyhow::Result<()> {
    if dir.state_path().exists() || dir.read_private(FIRST_FILE)?.is_some() {
        return Ok(());
    }
    Err(StartError {
        why: format!("{} is missing, though a node has lived in this directory", dir.state_path().display()),
        hint: "restore it; or give the node up: peer node rm on another node, then start here with an empty directory",
    }
    .into())
}

/// Takes back a first start that failed before anybody heard of the node.
pub(super) fn undo(path: &Path) {
    let undo = || -> anyhow::Result<()> { Ok(DataDir::open(path)?.forget()?) };
    if let Err(error) = undo() {
        tracing::warn!("can't clear up after a first start that failed: {error:#}");
    }
}

fn renew(dir: &DataDir, identity: Identity, now: Wall) -> anyhow::Result<Identity> {
    match identity.renewed(now)? {
        Some(renewed) => {
            dir.save(&renewed)?;
            Ok(renewed)
        }
        None => Ok(identity),
    }
}

async fn join_cluster(
    join: &Join,
    config: &AgentConfig,
    now: Wall,
) -> anyhow::Result<(Identity, First, Option<IpAddr>)> {
    let token = Token::parse(&join.token)?;
    let addrs = resolve(&join.host).await?;
    let listen = config.advertise.unwrap_or(config.listen);
    let joined = net::join(&addrs, &token, &config.hostname, listen, now).await?;
    let first = First { members: Some(joined.members), join_secret: String::new() };
    Ok((joined.identity, first, Some(joined.seen)))
}

async fn resolve(host: &str) -> Result<Vec<SocketAddr>, JoinError> {
    let has_port = host.parse::<SocketAddr>().is_ok()
        || host
            .rsplit_once(':')
            .is_some_and(|(name, port)| port.parse::<u16>().is_ok() && (!name.contains(':') || name.ends_with(']')));
    let target = match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, DEFAULT_PORT).to_string(),
        Err(_) if has_port => host.to_owned(),
        Err(_) => format!("{host}:{DEFAULT_PORT}"),
    };
    let unknown = |why: String| JoinError::Unknown { host: host.to_owned(), why };
    let addrs: Vec<SocketAddr> =
        tokio::net::lookup_host(&target).await.map_err(|error| unknown(error.to_string()))?.collect();
    match addrs.is_empty() {
        true => Err(unknown("the name has no address".to_owned())),
        false => Ok(addrs),
    }
}

/// What others dial: what was said, the one address that is listened on, what it was last time, how the node that we joined at saw us,
/// or the address that leads to the rest of the world.
fn address(dir: &DataDir, config: &AgentConfig, seen: Option<IpAddr>) -> anyhow::Result<SocketAddr> {
    let last = dir.read_private(ADDR_FILE)?.and_then(|b| String::from_utf8(b).ok()?.trim().parse::<SocketAddr>().ok());
    let port = config.listen.port();
    let listen = Some(config.listen.ip()).filter(|ip| !ip.is_unspecified());
    let seen = seen.filter(|ip| !ip.is_unspecified());
    let known = listen.or(last.map(|last| last.ip())).or(seen);
    let guess = || known.or_else(outgoing_ip).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let addr = config.advertise.unwrap_or_else(|| SocketAddr::new(guess(), port));
    if addr.ip().is_unspecified() {
        bail!("--advertise-addr {addr}: other nodes can't dial that address");
    }
    dir.write_private(ADDR_FILE, addr.to_string().as_bytes())?;
    Ok(addr)
}

/// The source address for packets to the outside; asking the routing table sends none.
fn outgoing_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // A documentation address (RFC 5737): nobody is there.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_unspecified())
}
