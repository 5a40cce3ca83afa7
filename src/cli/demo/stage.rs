//! What the demo sets up, watches and takes away again.

use super::chaos::Chaos;
use super::node::{Ended, Node};
use super::tour::{Tour, kill};
use super::{DemoArgs, Engine};
use crate::cli::client::Client;
use crate::cli::json::{items, text};
use crate::shell::agent::{StartError, answers};
use crate::shell::demo::image::{self, DemoDocker};
use crate::shell::demo::{address, free_tcp_addr, tempfile_dir};
use anyhow::{Context, bail, ensure};
use futures_util::future::try_join_all;
use std::collections::VecDeque;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// For all nodes to see each other, with their engines.
const FORMED_LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
pub const SERVICE: &str = "greeters";
const REPLICAS: &str = "3";

pub struct Stage {
    dir: tempfile_dir::Dir,
    port: u16,
    /// A killed node stays away for this long.
    away: Duration,
    docker: Option<Docker>,
    nodes: Vec<Node>,
    cluster: Option<String>,
    ended: mpsc::UnboundedReceiver<Ended>,
    report: mpsc::UnboundedSender<Ended>,
}

struct Docker {
    socket: PathBuf,
    engine: DemoDocker,
}

impl Stage {
    pub fn new(port: u16, away: Duration) -> anyhow::Result<Self> {
        let (report, ended) = mpsc::unbounded_channel();
        let dir = tempfile_dir::Dir::new()?;
        Ok(Self { dir, port, away, docker: None, nodes: Vec::new(), cluster: None, ended, report })
    }

    /// There is something to take away.
    pub fn is_set(&self) -> bool {
        self.docker.is_some() || !self.nodes.is_empty()
    }

    /// Its containers outlive it unless they are cleared away.
    pub fn uses_docker(&self) -> bool {
        self.docker.is_some()
    }

    /// Ends only by a failure.
    pub async fn play(&mut self, args: &DemoArgs) -> anyhow::Result<()> {
        ports_are_free(args)?;
        ensure!(!args.chaos || args.nodes >= 3, "--chaos takes 3 nodes or more: with fewer, one of them is a majority");
        self.choose_engine(&args.engine).await?;
        say!("Starting {} agents on this machine ...", args.nodes)?;
        self.start_nodes(args).await?;
        self.deploy().await?;
        self.explain(args).await?;
        let (kills, killed) = mpsc::unbounded_channel();
        let tour: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> = match args.tour {
            true => Box::pin(Tour::of(self, args.pace(), kills)?.play()),
            false => Box::pin(std::future::pending()),
        };
        let chaos = if args.chaos { Some(Chaos::new(self.nodes.len(), args.pace())?) } else { None };
        self.watch(tour, killed, chaos).await
    }

    async fn choose_engine(&mut self, choice: &Engine) -> anyhow::Result<()> {
        match choice {
            Engine::BuiltIn => say!("Using the engine built into peer: its containers are only played.")?,
            Engine::Docker(socket) => {
                answers(socket).await?;
                self.use_docker(socket).await.with_context(|| format!("--engine {}", socket.display()))?;
            }
            Engine::Auto => {
                let socket = usual_socket();
                if let Err(error) = self.use_docker(&socket).await {
                    say!("Using the engine built into peer: its containers are only played.")?;
                    say!("(Docker at {} can't be used: {error:#})", socket.display())?;
                    if let Err(error) = self.clear_docker().await {
                        say!("(And something of the demo may be left there: {error:#})")?;
                        self.docker = None;
                    }
                }
            }
        }
        Ok(())
    }

    async fn use_docker(&mut self, socket: &Path) -> anyhow::Result<()> {
        let engine = DemoDocker::find(socket).await?;
        say!("Using the Docker Engine at {}: giving it the greeter's images ...", socket.display())?;
        // Kept from here on, because whatever happens now there may be something to clean up.
        let docker = self.docker.insert(Docker { socket: socket.to_owned(), engine });
        docker.engine.prepare().await
    }

    async fn start_nodes(&mut self, args: &DemoArgs) -> anyhow::Result<()> {
        let count = usize::from(args.nodes);
        let engine = match &self.docker {
            Some(docker) => format!("unix://{}", docker.socket.display()),
            None => "demo".to_owned(),
        };
        for index in 0..count {
            // Each shows the whole cluster, and the first one's is named; the others' are there when that node is killed.
            let page = match args.dashboard.as_deref() {
                said if index == 0 || said == Some("none") => said.map(str::to_owned),
                _ => Some(free_tcp_addr(address(index + 1))?.to_string()),
            };
            self.nodes.push(Node::new(index, self.dir.path(), &engine, page, self.report.clone())?);
        }
        let Some((first, others)) = self.nodes.split_first_mut() else { bail!("a demo without nodes") };
        first.start(None).await?;
        let client = first.client();
        self.cluster = Some(text(&client.get("/swarm").await.map_err(said)?, "/ID").to_owned());
        let token = client.get("/peer/token").await.map_err(said)?;
        let (host, token) = (first.join_addr(), text(&token, "/Token"));
        try_join_all(others.iter_mut().map(|node| node.start(Some((&host, token))))).await?;

        let deadline = Instant::now() + FORMED_LIMIT;
        loop {
            let nodes = client.get("/nodes").await.map_err(said)?;
            let ready = items(&nodes).iter().filter(|node| text(node, "/Status/State") == "ready").count();
            if ready == count {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{ready} of {count} nodes are ready after {FORMED_LIMIT:?}");
            sleep(LOOK_AGAIN).await;
        }
    }

    /// With the command that the user would type.
    async fn deploy(&self) -> anyhow::Result<()> {
        let ports = format!("{}:5000", self.port);
        let image = self.image("1");
        let mut args = vec!["service", "create", "--name", SERVICE, "--replicas", REPLICAS, "--publish", &ports];
        args.extend(["--update-order", "start-first", "--update-monitor", "1s", "--no-resolve-image"]);
        if self.docker.is_some() {
            // The built-in greeters know where they run; a container knows what it is told.
            args.extend(["--hostname", "{{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}}"]);
        }
        args.push(&image);
        let shown: Vec<String> = args.iter().map(|arg| quoted(arg)).collect();
        say!("\n$ peer {}", shown.join(" "))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&args).env("PEER_HOST", self.host()?).kill_on_drop(true);
        ensure!(command.status().await?.success(), "the greeters did not come up");
        Ok(())
    }

    pub fn host(&self) -> anyhow::Result<String> {
        Ok(format!("unix://{}", self.nodes.first().context("no node")?.socket().display()))
    }

    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(self.nodes.first().context("no node")?.client())
    }

    pub fn image(&self, tag: &str) -> String {
        let repository = if self.docker.is_some() { image::REPOSITORY } else { "demo/greeter" };
        format!("{repository}:{tag}")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn away(&self) -> Duration {
        self.away
    }

    /// The first node and the last: name and address.
    pub fn ends(&self) -> anyhow::Result<[(String, IpAddr); 2]> {
        let (first, last) = self.nodes.first().zip(self.nodes.last()).context("no node")?;
        Ok([first, last].map(|node| (node.name.clone(), node.ip)))
    }

    /// The second one, if there is one.
    pub fn victim(&self) -> Option<String> {
        self.nodes.get(1).map(|victim| victim.name.clone())
    }

    async fn explain(&self, args: &DemoArgs) -> anyhow::Result<()> {
        let (first, last) = self.nodes.first().zip(self.nodes.last()).context("no node")?;
        let (host, port) = (self.host()?, self.port);
        let path = missing_path()?.map(|dir| format!("PATH=\"{}:$PATH\" ", dir.display())).unwrap_or_default();
        say!("\nA cluster of {} identical nodes is up; any of them takes any command.", self.nodes.len())?;
        if args.dashboard.as_deref() != Some("none") {
            let page = first.client().get("/peer/dashboard").await.map_err(said)?;
            say!("Its page, for a browser on this machine:\n\n  {}\n", text(&page, "/Link"))?;
            if args.tour {
                say!("Open it: everything that happens now is seen there.")?;
            }
        }
        if args.tour {
            return Ok(());
        }
        let away = self.away;
        say!("In another terminal:\n")?;
        say!("  export {path}PEER_HOST={host}\n")?;
        say!("  peer node ls")?;
        say!("  peer service ps {SERVICE}")?;
        say!("  curl http://{}:{port}/             # every node answers for all replicas", first.ip)?;
        say!("  curl http://{}:{port}/", last.ip)?;
        say!("  peer service scale {SERVICE}=5\n")?;
        say!("An update fails no request. In a third terminal, watch:\n")?;
        say!("  while curl -sS http://{}:{port}/; do sleep 0.1; done\n", first.ip)?;
        say!("and meanwhile:\n")?;
        say!("  peer service update --no-resolve-image --image {} {SERVICE}", self.image("2"))?;
        say!("  peer service update --no-resolve-image --image {} {SERVICE}   # pauses", self.image("bad"))?;
        say!("  peer service ps {SERVICE}              # says why")?;
        say!("  peer service rollback {SERVICE}")?;
        say!("  peer node update --availability drain {}", last.name)?;
        say!("  peer node update --availability active {}\n", last.name)?;
        if let [_, victim, ..] = &self.nodes[..] {
            let pid = victim.pid().context("the node has ended")?;
            say!("Kill {}; its greeters run elsewhere within seconds, and it returns after {away:?}:\n", victim.name)?;
            say!("  kill -9 {pid}\n")?;
        }
        say!("Docker's own CLI works too:\n")?;
        say!("  docker -H {host} service ls\n")?;
        say!("Ctrl-C ends the demo and cleans up.")?;
        Ok(())
    }

    /// Starts again what was killed. A node that ended by itself (removed, left, stopped) stays away.
    async fn watch(
        &mut self,
        mut tour: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>,
        mut kills: mpsc::UnboundedReceiver<()>,
        mut chaos: Option<Chaos>,
    ) -> anyhow::Result<()> {
        let mut away: VecDeque<(Instant, usize)> = VecDeque::new();
        loop {
            let next = away.front().map(|(at, _)| *at);
            let strike = chaos.as_ref().map(Chaos::next);
            tokio::select! {
                Some(ended) = self.ended.recv() => {
                    let name = &self.nodes[ended.index].name;
                    if ended.was_killed() {
                        say!("\n{name} was killed; it returns after {:?}.", self.away)?;
                        away.push_back((Instant::now() + self.away, ended.index));
                    } else {
                        say!("\n{name} has ended.")?;
                    }
                }
                Some(()) = kills.recv() => {
                    if let Some(pid) = self.nodes.get(1).and_then(Node::pid) {
                        say!("\n$ kill -9 {pid}")?;
                        kill(pid)?;
                    }
                }
                played = &mut tour => {
                    played?;
                    tour = Box::pin(std::future::pending());
                }
                () = sleep_until(strike.unwrap_or_else(Instant::now)), if strike.is_some() => {
                    if let Some(chaos) = &mut chaos {
                        let gone: Vec<usize> = away.iter().map(|(_, index)| *index).collect();
                        chaos.strike(&self.nodes, &gone)?;
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    if let Some((_, index)) = away.pop_front() {
                        self.bring_back(index).await?;
                    }
                }
            }
        }
    }

    async fn bring_back(&mut self, index: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[index];
        match node.start_again().await {
            Ok(()) => say!("{} is back, as process {}.", node.name, node.pid().unwrap_or_default())?,
            // It may have been removed from the cluster meanwhile; the others go on.
            Err(error) => say!("{} can't come back: {error:#}", node.name)?,
        }
        Ok(())
    }

    /// Whatever was set up goes.
    pub async fn clear(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.end().await;
        }
        self.clear_docker().await
    }

    async fn clear_docker(&mut self) -> anyhow::Result<()> {
        match &self.docker {
            Some(docker) => docker.engine.clear(self.cluster.as_deref()).await.context("cleaning up in Docker")?,
            None => return Ok(()),
        }
        self.docker = None;
        Ok(())
    }
}

/// What DOCKER_HOST says if it is a socket, else Docker's own.
fn usual_socket() -> PathBuf {
    let said = std::env::var("DOCKER_HOST").ok();
    said.as_deref().and_then(|host| host.strip_prefix("unix://")).unwrap_or(DOCKER_SOCKET).into()
}

/// Better now than by a service that is up and a port that isn't.
fn ports_are_free(args: &DemoArgs) -> anyhow::Result<()> {
    for number in 1..=usize::from(args.nodes) {
        let ip = address(number);
        if let Err(error) = TcpListener::bind((ip, args.port)) {
            bail!(StartError {
                why: format!("--port {}: can't be opened on {ip}: {error}", args.port),
                hint: "is another demo running, or something else on that port? choose another one, as: --port 9100",
            });
        }
    }
    Ok(())
}

/// Where `peer` is, if a shell wouldn't find this one.
fn missing_path() -> anyhow::Result<Option<PathBuf>> {
    let own = std::env::current_exe()?;
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).map(|dir| dir.join("peer")).find(|path| path.exists());
    let same = found.and_then(|path| path.canonicalize().ok()) == own.canonicalize().ok();
    Ok(if same { None } else { own.parent().map(Path::to_owned) })
}

fn quoted(arg: &str) -> String {
    if arg.contains(['{', ' ']) { format!("'{arg}'") } else { arg.to_owned() }
}

fn said(error: crate::cli::client::ApiError) -> anyhow::Error {
    crate::cli::CliError::from(error).into()
}
