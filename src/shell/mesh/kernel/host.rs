//! The machine: whether its kernel can be had for the mesh, the one agent of a network namespace that may have it, and
//! the two tools that write rules. Every run of a tool is bounded in time.

use super::conntrack::Which;
use super::netlink::Netlink;
use super::rules::{MARK, Rules, Style, TABLE};
use super::{Found, conntrack, rules};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

const TOOL_TIMEOUT: Duration = Duration::from_secs(10);
/// An abstract socket: known within one network namespace, gone with its holder however that ends.
const LOCK: &[u8] = b"peer-mesh-kernel";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Held by the agent whose rules they are.
pub struct Lock {
    _held: UnixListener,
}

impl Lock {
    pub fn take() -> io::Result<Self> {
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(LOCK)?).map(|_held| Self { _held })
    }
}

/// Or why this machine's kernel can't carry the mesh.
pub async fn examine(style: Style) -> Result<Found, String> {
    let lock = Lock::take().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => "another agent in this network namespace has it".to_owned(),
        _ => error.to_string(),
    })?;
    let mut netlink = Netlink::open().map_err(|error| format!("no netlink socket: {error}"))?;
    netlink.generation().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => "it takes CAP_NET_ADMIN".to_owned(),
        _ => format!("nf_tables can't be reached: {error}"),
    })?;
    conntrack::ours(&mut netlink, Which::Unanswered)
        .map_err(|error| format!("connection tracking can't be reached: {error}"))?;
    nft(&["-c"], &rules::sample().text(&style))
        .await
        .map_err(|error| format!("nft can't write such rules: {error}"))?;
    run("iptables", &["--version"], "").await.map_err(|error| format!("iptables, which the engine uses: {error}"))?;
    if nft(&[], "list table ip docker-bridges\n").await.is_ok() {
        return Err("the engine writes nftables itself, which rules of others can't open".to_owned());
    }
    Ok(Found { style, lock })
}

/// The rules that some agent has left, as `nft` lists them.
pub async fn left() -> Option<String> {
    run("nft", &["list", "table", "ip", TABLE], "").await.ok()
}

/// All of it or nothing.
pub async fn write(rules: &Rules, style: &Style) -> Result<(), String> {
    nft(&[], &rules.text(style)).await.map(drop)
}

/// The engine drops what it didn't forward itself, unless its users' chain lets it through. There is none before the
/// engine has made it. True if ours stands there.
pub async fn open_engine_filter() -> bool {
    let rule = engine_rule();
    let with = |command: &'static str| {
        let mut args = vec!["-w", "5", command, "DOCKER-USER"];
        args.extend(rule.iter().map(String::as_str));
        args
    };
    if run("iptables", &with("-C"), "").await.is_ok() {
        return true;
    }
    run("iptables", &with("-I"), "").await.is_ok()
}

pub async fn close_engine_filter() {
    let rule = engine_rule();
    let mut args = vec!["-w", "5", "-D", "DOCKER-USER"];
    args.extend(rule.iter().map(String::as_str));
    // Not there any more: as it should be.
    let _ = run("iptables", &args, "").await;
}

fn engine_rule() -> [String; 10] {
    let mark = format!("{MARK:#x}/{MARK:#x}");
    ["-m", "connmark", "--mark", &mark, "-m", "comment", "--comment", "peer mesh", "-j", "ACCEPT"].map(str::to_owned)
}

/// Between the machine's networks, as the engine has it too.
pub fn forward() -> io::Result<()> {
    if std::fs::read_to_string(FORWARDING)?.trim() == "0" {
        tracing::info!("turning on net.ipv4.ip_forward: connections to replicas pass through this machine");
        std::fs::write(FORWARDING, "1")?;
    }
    Ok(())
}

async fn nft(more: &[&str], text: &str) -> Result<String, String> {
    let args: Vec<&str> = more.iter().copied().chain(["-f", "-"]).collect();
    run("nft", &args, text).await
}

/// What it said, or what it complained of.
async fn run(tool: &str, args: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(tool);
    command.args(args).kill_on_drop(true).env("PATH", search_path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends before it has read everything says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    match timeout(TOOL_TIMEOUT, running).await {
        Ok(Ok(Output { status, stdout, .. })) if status.success() => Ok(String::from_utf8_lossy(&stdout).into_owned()),
        Ok(Ok(output)) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed without a word");
            Err(first.chars().take(300).collect())
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(format!("{tool} is not installed")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{tool} did not end within {} s", TOOL_TIMEOUT.as_secs())),
    }
}

/// Not every unit file or shell looks where these tools are.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
