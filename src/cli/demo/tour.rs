//! `peer demo --tour`: the story told by itself, with the commands that anybody would type and a line on each.

use super::stage::{SERVICE, Stage};
use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::json::{items, text};
use anyhow::{Context, ensure};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// A greeting that takes longer has failed.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const BETWEEN_GREETINGS: Duration = Duration::from_millis(20);

/// All that the story needs of the stage, so that the stage can watch its nodes meanwhile.
pub struct Tour {
    host: String,
    client: Client,
    pace: Duration,
    images: [String; 2],
    /// The last node, to be drained.
    last: String,
    /// To be killed, by the stage, which knows its process.
    victim: Option<String>,
    kills: mpsc::UnboundedSender<()>,
    away: Duration,
    /// Where the greeters answer, whatever becomes of the victim and the drained one.
    greeters: SocketAddr,
}

impl Tour {
    pub fn of(stage: &Stage, pace: Duration, kills: mpsc::UnboundedSender<()>) -> anyhow::Result<Self> {
        let [first, last] = stage.ends()?;
        Ok(Self {
            host: stage.host()?,
            client: stage.client()?,
            pace,
            images: [stage.image("2"), stage.image("bad")],
            last: last.0,
            victim: stage.victim(),
            kills,
            away: stage.away(),
            greeters: SocketAddr::new(first.1, stage.port()),
        })
    }

    pub async fn play(self) -> anyhow::Result<()> {
        self.say("The tour begins.").await?;
        self.say("Three greeters run, one a slot, spread over the nodes. First: two more of them.").await?;
        self.peer(&["service", "scale", &format!("{SERVICE}=5")]).await?;
        self.say("An update to version 2, one slot after the other, the new greeter before the old one goes. Somebody asks all the while:").await?;
        let load = Load::start(self.greeters);
        self.update(&self.images[0]).await?;
        let (asked, failed) = load.end().await;
        say!("{asked} greetings were asked for meanwhile; {failed} failed.")?;
        self.say(
            "An update to a version that crashes. It stops at the first failure, and the others go on as they are:",
        )
        .await?;
        ensure!(self.update(&self.images[1]).await.is_err(), "the bad version was taken for a good one");
        self.peer(&["service", "ps", SERVICE]).await?;
        self.say("Back to where it was:").await?;
        self.peer(&["service", "rollback", SERVICE]).await?;
        self.say(&format!("{} is to be serviced: its greeters move away first.", self.last)).await?;
        self.peer(&["node", "update", "--availability", "drain", &self.last]).await?;
        self.rest().await;
        self.say("And it is back at work. (Nothing moves back by itself: what runs is left alone.)").await?;
        self.peer(&["node", "update", "--availability", "active", &self.last]).await?;
        if let Some(name) = &self.victim {
            let away = self.away;
            self.say(&format!(
                "Now {name} dies without a word; its greeters run elsewhere within seconds. It returns after {away:?}."
            ))
            .await?;
            self.kills.send(()).context("the stage has gone")?;
            self.down(name).await?;
            self.rest().await;
            self.peer(&["node", "ls"]).await?;
            sleep(away).await;
        }
        self.peer(&["service", "ls"]).await?;
        say!("\nThat was the tour. The cluster goes on: try it yourself. Ctrl-C ends the demo and cleans up.")?;
        Ok(())
    }

    /// Until the others take the node for dead, so that what is shown next shows it; or until it returns, if they are slow.
    async fn down(&self, name: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.away;
        loop {
            let nodes = self.client.get("/nodes").await.map_err(CliError::from)?;
            let mut nodes = items(&nodes).iter().filter(|node| text(node, "/Description/Hostname") == name);
            if nodes.any(|node| text(node, "/Status/State") == "down") || Instant::now() >= deadline {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn rest(&self) {
        sleep(self.pace).await;
    }

    async fn say(&self, text: &str) -> anyhow::Result<()> {
        self.rest().await;
        say!("\n# {text}")?;
        self.rest().await;
        Ok(())
    }

    async fn update(&self, image: &str) -> anyhow::Result<()> {
        self.peer(&["service", "update", "--no-resolve-image", "--image", image, SERVICE]).await
    }

    async fn peer(&self, args: &[&str]) -> anyhow::Result<()> {
        say!("\n$ peer {}", args.join(" "))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).env("PEER_HOST", &self.host).stdin(Stdio::null()).kill_on_drop(true);
        ensure!(command.status().await?.success(), "peer {} failed", args.join(" "));
        Ok(())
    }
}

pub fn kill(pid: u32) -> anyhow::Result<()> {
    signal(pid, rustix::process::Signal::KILL)
}

pub fn signal(pid: u32, signal: rustix::process::Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("no process has this number")?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// Somebody who asks for a greeting again and again, each time over a connection of its own.
struct Load {
    over: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; 2]>,
    asking: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(addr: SocketAddr) -> Self {
        let (over, counts) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
        let (told, counted) = (over.clone(), counts.clone());
        let asking = tokio::spawn(async move {
            while !told.load(Ordering::Relaxed) {
                let greeted = timeout(GREETING_LIMIT, greeting(addr)).await;
                counted[0].fetch_add(1, Ordering::Relaxed);
                counted[1].fetch_add(u64::from(!matches!(greeted, Ok(Ok(true)))), Ordering::Relaxed);
                sleep(BETWEEN_GREETINGS).await;
            }
        });
        Self { over, counts, asking }
    }

    /// How many were asked for, and how many failed.
    async fn end(self) -> (u64, u64) {
        self.over.store(true, Ordering::Relaxed);
        // It has no way to fail.
        let _ = self.asking.await;
        (self.counts[0].load(Ordering::Relaxed), self.counts[1].load(Ordering::Relaxed))
    }
}

async fn greeting(addr: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(addr).await?;
    let host = match addr.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
