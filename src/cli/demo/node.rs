//! One node of the demo: an agent in a process of its own, started as anybody would start it.

use crate::cli::client::Client;
use crate::shell::demo::{address, free_udp_port};
use anyhow::{Context, bail};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// For an agent to answer.
const UP_LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Of an agent's log, when it failed.
const LOG_LINES: usize = 10;

/// What became of a node's process.
pub struct Ended {
    pub index: usize,
    pub status: ExitStatus,
}

impl Ended {
    pub fn was_killed(&self) -> bool {
        self.status.signal().is_some()
    }
}

pub struct Node {
    index: usize,
    pub name: String,
    pub ip: IpAddr,
    listen: SocketAddr,
    dir: PathBuf,
    engine: String,
    /// What `--dashboard` is to say.
    page: Option<String>,
    /// In the demo's own directory, so that an agent that ends doesn't take it along.
    log: PathBuf,
    ended: mpsc::UnboundedSender<Ended>,
    process: Option<Process>,
}

struct Process {
    pid: u32,
    /// Its end tells the agent that the demo has gone, however it went.
    _life_line: Option<ChildStdin>,
    kill: CancellationToken,
    over: JoinHandle<()>,
}

impl Node {
    pub fn new(
        index: usize,
        dir: &Path,
        engine: &str,
        page: Option<String>,
        ended: mpsc::UnboundedSender<Ended>,
    ) -> anyhow::Result<Self> {
        let name = format!("node{}", index + 1);
        let ip = address(index + 1);
        let listen = SocketAddr::new(ip, free_udp_port(ip)?);
        let (dir, log) = (dir.join(&name), dir.join(format!("{name}.log")));
        Ok(Self { index, name, ip, listen, dir, engine: engine.to_owned(), page, log, ended, process: None })
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("peer.sock")
    }

    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Of its process, if that lives: numbers of others' processes are nobody's to kill.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().filter(|process| !process.over.is_finished()).map(|process| process.pid)
    }

    pub fn join_addr(&self) -> String {
        self.listen.to_string()
    }

    /// Its first start, alone or into the cluster at `join`; returns when it answers.
    pub async fn start(&mut self, join: Option<(&str, &str)>) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["start", "--until-eof", "--engine", &self.engine, "--hostname", &self.name]);
        command.arg("--data-dir").arg(&self.dir).arg("--socket").arg(self.socket());
        for flag in ["--listen-addr", "--advertise-addr"] {
            command.args([flag, &self.listen.to_string()]);
        }
        command.args(["--publish-addr", &self.ip.to_string(), "--mesh", "userspace"]);
        if let Some(page) = &self.page {
            command.args(["--dashboard", page]);
        }
        if let Some((host, token)) = join {
            command.args(["--join", host]).env("PEER_TOKEN", token);
        }
        // A group of its own: Ctrl-C is for the demo alone.
        command.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("starting an agent")?;
        self.process = Some(Process::watch(child, self.index, self.ended.clone())?);
        self.answers().await.with_context(|| self.name.clone())
    }

    /// After it was killed: it knows from its directory who it is.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.start(None).await
    }

    async fn answers(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + UP_LIMIT;
        while self.client().get("/peer/status").await.is_err() {
            let over = self.process.as_ref().is_none_or(|process| process.over.is_finished());
            if over || Instant::now() > deadline {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
                bail!("the agent {}:\n{tail}", if over { "ended" } else { "doesn't answer" });
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Ends it at once: everything of it is about to be removed.
    pub async fn end(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill.cancel();
            // It has no way to fail.
            let _ = process.over.await;
        }
    }
}

impl Process {
    fn watch(mut child: Child, index: usize, ended: mpsc::UnboundedSender<Ended>) -> anyhow::Result<Self> {
        let pid = child.id().context("the agent ended at once")?;
        let life_line = child.stdin.take();
        let kill = CancellationToken::new();
        let told = kill.clone();
        let over = tokio::spawn(async move {
            tokio::select! {
                status = child.wait() => {
                    if let Ok(status) = status {
                        // Nobody listens any more while the demo is being taken down.
                        let _ = ended.send(Ended { index, status });
                    }
                }
                // An agent that has ended meanwhile needs no killing.
                () = told.cancelled() => drop(child.kill().await),
            }
        });
        Ok(Self { pid, _life_line: life_line, kill, over })
    }
}
