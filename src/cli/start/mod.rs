//! `peer start`: what was typed, made into the agent's configuration, every value checked before
//! anything is touched.

mod failed;
#[cfg(test)]
mod tests;

pub use failed::failed;

use super::client::{own_data_dir, own_socket, socket_of};
use super::error::CliError;
use super::log::{LogArgs, log_to_stderr};
use super::service::pair;
use crate::model::node::Availability;
use crate::shell::agent::{Before, Dashboard, Ended, EngineChoice, Join, MeshChoice, MeshTransport, StartOptions};
use crate::shell::identity::{BadToken, Token};
use crate::shell::net::interface::ip_and_port;
use clap::Args;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const DEFAULT_PORT: u16 = 7373;
const TOKEN_VARIABLE: &str = "PEER_TOKEN";
const SHOW_TOKEN: &str = "show it on any node of the cluster with: peer token";

const START_EXAMPLES: &str = "\
Examples:
  peer start                                            the first node of a new cluster
  peer start --join 10.0.0.1 --token-file token         a further node
  peer start --standby                                  wait for docker swarm init or join
  peer start --advertise-addr 192.168.1.5 --label zone=east
  peer start --engine demo --data-dir /tmp/p1 --socket /tmp/p1.sock";

/// Run the agent of this machine
///
/// Without --join it founds a cluster, with --standby it waits for one. A node that is in one already remembers that, and how it was started: after the
/// first time `peer start` alone will do.
#[derive(Debug, Default, Args)]
#[command(after_help = START_EXAMPLES)]
pub struct StartArgs {
    /// Join the cluster of this node
    #[arg(long, value_name = "HOST[:PORT]")]
    join: Option<String>,
    /// The cluster's join token, from `peer token` on any of its nodes [env: PEER_TOKEN]
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// Read the token from a file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Without a cluster: answer as a Docker Engine outside a swarm until `docker swarm init` or `docker swarm join`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    standby: Option<bool>,
    /// The address under which the other nodes reach this one (default: the one of the default route)
    #[arg(long, value_name = "IP|INTERFACE[:PORT]")]
    advertise_addr: Option<String>,
    /// Listen here for the other nodes (UDP) [default: 0.0.0.0:7373]
    #[arg(long, value_name = "IP|INTERFACE[:PORT]")]
    listen_addr: Option<String>,
    /// Open published ports on this address of the node [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    publish_addr: Option<String>,
    /// What carries connections to published ports: the kernel's nftables, this process, or the first of these that can [default: auto]
    #[arg(long, value_name = "auto|kernel|userspace")]
    mesh: Option<String>,
    /// How they get to other nodes: plainly where both nodes' kernels carry them, or always encrypted [default: auto]
    #[arg(long, value_name = "auto|quic")]
    mesh_transport: Option<String>,
    /// Where the node keeps its identity and its copy of the cluster's state [default: /var/lib/peer, or ~/.local/share/peer]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What runs the containers: Docker's socket [default: unix:///var/run/docker.sock], or demo, which plays them
    #[arg(long, value_name = "unix:///PATH|demo")]
    engine: Option<String>,
    /// The socket that commands and Docker's clients use [default: /run/peer/peer.sock, or $XDG_RUNTIME_DIR/peer.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// The node's name (default: the machine's)
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Label the node, at its first start
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// The node's availability, at its first start [default: active]
    #[arg(long, value_name = "active|pause|drain")]
    availability: Option<String>,
    /// Serve the cluster page and the metrics here, or nowhere [default: 127.0.0.1:7373, or a free port]
    #[arg(long, value_name = "IP[:PORT]|none")]
    dashboard: Option<String>,
    #[command(flatten)]
    log: LogArgs,
    /// Open the API over TCP to clients with a certificate of `peer cert issue`, or to nobody [default: none; port: 2376]
    #[arg(long, value_name = "tcp://IP[:PORT]|none")]
    api: Option<String>,
    /// Stop, as by SIGTERM, when standard input ends: for who starts an agent and may die before it
    #[arg(long, hide = true)]
    until_eof: bool,
    /// Write down here what the agent believes, promises and does, for `netsim lab chaos` to judge
    #[arg(long, hide = true, value_name = "FILE")]
    trace_file: Option<PathBuf>,
}

pub fn start(args: StartArgs) -> Result<(), CliError> {
    let options = args.options(&Surroundings::of_process())?;
    if let Some(token) = &args.token {
        take_out_of_sight(token);
    }
    let (until_eof, trace_file) = (args.until_eof, args.trace_file.clone());
    log_to_stderr(&args.log, "info");
    if let Some(passed_over) = args.passed_over(&options) {
        tracing::warn!("{passed_over}");
    }
    let before = Before::of(&options.data_dir);
    let orphaned = async move { if until_eof { stdin_ends().await } else { std::future::pending().await } };
    let ended = runtime()?.block_on(async {
        let mut config = options.settle()?;
        config.trace_file = trace_file;
        before.check_engine(&config).await?;
        crate::shell::agent::run(config, orphaned).await
    });
    if ended.is_err() {
        before.undo();
    }
    over(ended.map_err(failed)?)
}

/// Everybody on the machine may read a process's arguments, and this one lives long; its environment is for its user alone. So
/// the process starts over, the same one, with the token moved from there to here.
fn take_out_of_sight(token: &str) {
    let mut all = std::env::args_os();
    let name = all.next().unwrap_or_default();
    let mut kept = Vec::new();
    while let Some(arg) = all.next() {
        let text = arg.to_string_lossy();
        if text == "--token" {
            // Its value.
            all.next();
        } else if !text.starts_with("--token=") {
            kept.push(arg);
        }
    }
    let error = match std::env::current_exe() {
        // Returns only if it fails.
        Ok(exe) => Command::new(exe).arg0(name).args(kept).env(TOKEN_VARIABLE, token).exec(),
        Err(error) => error,
    };
    eprintln!(
        "warning: the token stays among this process's arguments, which others on this machine can read: {error}"
    );
}

fn over(ended: Ended) -> Result<(), CliError> {
    match ended {
        Ended::Stopped => Ok(()),
        // Nor is there anything to complain of.
        Ended::Left => Err(CliError::removed("")),
        // The unit file must not start such a node over and over: it knows it by the exit code.
        Ended::Removed => Err(CliError::removed(
            "this node was removed from the cluster; to use it again, start it with --join and a fresh --data-dir",
        )),
    }
}

/// On a thread of its own, which nobody waits for: a read can't be called off.
async fn stdin_ends() {
    let (ended, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Whatever it was that ended it.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = told.await;
}

pub fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| CliError::new(format!("can't start: {error}")))
}

/// What the defaults depend on.
struct Surroundings {
    data_dir: PathBuf,
    token: Option<String>,
    socket: fn(&Path) -> PathBuf,
}

impl Surroundings {
    fn of_process() -> Self {
        Self {
            data_dir: own_data_dir(),
            token: std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.trim().is_empty()),
            socket: own_socket,
        }
    }
}

impl StartArgs {
    /// What was said, checked; what wasn't comes from the last start.
    fn options(&self, around: &Surroundings) -> Result<StartOptions, CliError> {
        let data_dir = self.data_dir.clone().unwrap_or_else(|| around.data_dir.clone());
        let data_dir = absolute("--data-dir", &data_dir)?;
        let default_socket = (around.socket)(&data_dir);
        let socket = self.socket.as_deref().map(socket_path).transpose()?;
        check_socket(socket.as_ref().unwrap_or(&default_socket))?;
        let availability = |text: &str| text.parse::<Availability>().map_err(|why| wrong("--availability", text, &why));
        Ok(StartOptions {
            listen: self.listen_addr.as_deref().map(|text| address("--listen-addr", text, DEFAULT_PORT)).transpose()?,
            advertise: self.advertise_addr.as_deref().map(advertise).transpose()?,
            join: self.join(around, &data_dir)?,
            standby: self.standby,
            engine: self.engine.as_deref().map(engine).transpose()?,
            socket,
            default_socket,
            hostname: self.hostname.as_deref().map(hostname).transpose()?,
            labels: self.labels()?,
            availability: self.availability.as_deref().map(availability).transpose()?,
            dashboard: self.dashboard.as_deref().map(dashboard).transpose()?,
            publish_on: self.publish_addr.as_deref().map(|text| ip("--publish-addr", text)).transpose()?,
            mesh: self.mesh.as_deref().map(mesh).transpose()?,
            mesh_transport: self.mesh_transport.as_deref().map(mesh_transport).transpose()?,
            api: self.api.as_deref().map(api).transpose()?,
            data_dir,
        })
    }

    fn labels(&self) -> Result<std::collections::BTreeMap<String, String>, CliError> {
        self.label.iter().map(|text| pair(text).map_err(|why| wrong("--label", text, &why))).collect()
    }

    fn join(&self, around: &Surroundings, data_dir: &Path) -> Result<Option<Join>, CliError> {
        let Some(host) = self.join.as_deref() else {
            return match (&self.token, &self.token_file) {
                (None, None) => Ok(None),
                _ => Err(CliError::misuse("--token without --join: whose cluster is it?")
                    .hint("name one of its nodes: peer start --join HOST --token TOKEN")),
            };
        };
        check_host(host)?;
        match self.token(around)? {
            Some(token) => Ok(Some(Join { host: host.to_owned(), token })),
            // A member needs no token any more: it may have been taken away after the first start.
            None if is_member(data_dir) => Ok(None),
            None => Err(match &self.token_file {
                Some(file) => CliError::misuse(format!("--token-file {}: no such file", file.display())),
                None => CliError::misuse("--join needs the cluster's token: --token, --token-file or PEER_TOKEN"),
            }
            .hint(SHOW_TOKEN)),
        }
    }

    /// A unit file says `--join` at every start. Without the token nobody can tell whether it means the cluster
    /// that the node is in.
    fn passed_over(&self, options: &StartOptions) -> Option<String> {
        let host = self.join.as_ref().filter(|_| options.join.is_none())?;
        Some(format!(
            "--join {host} is passed over, for {} holds a member of a cluster; to join another one: --data-dir DIR, with a fresh DIR",
            options.data_dir.display()
        ))
    }

    /// The one that was said; none if nothing was, or the file isn't there.
    fn token(&self, around: &Surroundings) -> Result<Option<String>, CliError> {
        let (flag, text) = match (&self.token, &self.token_file, &around.token) {
            (Some(token), _, _) => ("--token", token.clone()),
            (None, Some(file), _) => match std::fs::read_to_string(file) {
                Ok(text) => ("--token-file", text),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(wrong("--token-file", &file.display().to_string(), &error.to_string())),
            },
            (None, None, Some(token)) => (TOKEN_VARIABLE, token.clone()),
            (None, None, None) => return Ok(None),
        };
        let token = text.trim();
        // The token itself stays out of messages and logs.
        match Token::parse(token) {
            Ok(_) => Ok(Some(token.to_owned())),
            // The hint would lead to the same token.
            Err(error @ BadToken::Version(_)) => Err(CliError::misuse(format!("{flag}: {error}"))),
            Err(error) => Err(CliError::misuse(format!("{flag}: {error}")).hint(SHOW_TOKEN)),
        }
    }
}

/// Whether a node has been started in this directory before.
fn is_member(data_dir: &Path) -> bool {
    data_dir.join("identity.json").exists()
}

fn wrong(flag: &str, value: &str, why: &str) -> CliError {
    CliError::misuse(format!("{flag} {value}: {why}"))
}

fn absolute(flag: &str, path: &Path) -> Result<PathBuf, CliError> {
    if path.as_os_str().is_empty() {
        return Err(CliError::misuse(format!("{flag}: the path is empty")));
    }
    std::path::absolute(path).map_err(|error| wrong(flag, &path.display().to_string(), &error.to_string()))
}

fn socket_path(text: &str) -> Result<PathBuf, CliError> {
    if text.contains("://") {
        return socket_of("--socket", text).map_err(|_| wrong("--socket", text, "want the path of a unix socket"));
    }
    absolute("--socket", Path::new(text))
}

/// The kernel's bound on the path of a unix socket.
const MAX_SOCKET_PATH: usize = 107;

fn check_socket(socket: &Path) -> Result<(), CliError> {
    if socket.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok(());
    }
    Err(wrong(
        "--socket",
        &socket.display().to_string(),
        &format!("longer than the {MAX_SOCKET_PATH} bytes that the system allows"),
    ))
}

fn ip(flag: &str, text: &str) -> Result<IpAddr, CliError> {
    text.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| wrong(flag, text, "want an IP address"))
}

/// IP or interface, with or without a port, or :PORT.
fn address(flag: &str, text: &str, port: u16) -> Result<SocketAddr, CliError> {
    said_address(flag, text).map(|(ip, said)| SocketAddr::new(ip, said.unwrap_or(port)))
}

/// Likewise, with the port that was said, if one was.
fn said_address(flag: &str, text: &str) -> Result<(IpAddr, Option<u16>), CliError> {
    if let Some(port) = text.strip_prefix(':').filter(|_| text.parse::<IpAddr>().is_err()) {
        let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| wrong(flag, text, "want IP:PORT"))?;
        return Ok((Ipv4Addr::UNSPECIFIED.into(), Some(port)));
    }
    match ip_and_port(text).map_err(|why| wrong(flag, text, &why))? {
        (_, Some(0)) => Err(wrong(flag, text, "the port can't be 0")),
        said => Ok(said),
    }
}

pub(super) fn dashboard(text: &str) -> Result<Dashboard, CliError> {
    if text == "none" {
        return Ok(Dashboard::None);
    }
    address("--dashboard", text, DEFAULT_PORT).map(Dashboard::On)
}

fn mesh(text: &str) -> Result<MeshChoice, CliError> {
    match text {
        "auto" => Ok(MeshChoice::Auto),
        "kernel" => Ok(MeshChoice::Kernel),
        "userspace" => Ok(MeshChoice::Userspace),
        _ => Err(wrong("--mesh", text, "want auto, kernel or userspace")),
    }
}

fn mesh_transport(text: &str) -> Result<MeshTransport, CliError> {
    match text {
        "auto" => Ok(MeshTransport::Auto),
        "quic" => Ok(MeshTransport::Quic),
        _ => Err(wrong("--mesh-transport", text, "want auto or quic")),
    }
}

fn api(text: &str) -> Result<Option<SocketAddr>, CliError> {
    match text.strip_prefix("tcp://") {
        Some(text) => address("--api", text, 2376).map(Some),
        None if text == "none" => Ok(None),
        None => Err(wrong("--api", text, "want tcp://IP[:PORT], or none")),
    }
}

/// Without a port that of the listening socket is meant.
fn advertise(text: &str) -> Result<(IpAddr, Option<u16>), CliError> {
    let (ip, port) = said_address("--advertise-addr", text)?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(wrong(
            "--advertise-addr",
            text,
            "others can't reach a node there: want an address of this machine",
        ));
    }
    Ok((ip, port))
}

/// HOST, HOST:PORT, IP, [IPv6]:PORT; names are looked up by the agent.
fn check_host(text: &str) -> Result<(), CliError> {
    let bad = |why: &str| Err(wrong("--join", text, why));
    if text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0) {
        return Ok(());
    }
    let (host, port) = text.split_once(':').unwrap_or((text, "1"));
    match () {
        () if text.contains("://") => bad("want HOST or HOST:PORT, without a scheme"),
        () if host.is_empty() => bad("want HOST or HOST:PORT"),
        () if !port.parse::<u16>().is_ok_and(|port| port > 0) => bad("the port must be a number from 1 to 65535"),
        () if !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) => bad("not the name of a host"),
        () => Ok(()),
    }
}

fn engine(text: &str) -> Result<EngineChoice, CliError> {
    match text.strip_prefix("unix://").unwrap_or(text) {
        "demo" => Ok(EngineChoice::Demo),
        path if path.starts_with('/') => Ok(EngineChoice::Docker(PathBuf::from(path))),
        _ => Err(wrong(
            "--engine",
            text,
            "want the socket of a Docker Engine on this machine, as unix:///var/run/docker.sock, or demo",
        )),
    }
}

fn hostname(text: &str) -> Result<String, CliError> {
    let fits =
        !text.is_empty() && text.len() <= 253 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if fits && !text.starts_with(['-', '.']) {
        return Ok(text.to_owned());
    }
    Err(wrong("--hostname", text, "want letters, digits, - . and _, 253 at most"))
}
