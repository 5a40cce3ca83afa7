//! `peer demo`: a whole cluster on this machine for a first look, over the local Docker Engine where one can be used,
//! else over the engine built into the binary. Each node is a real agent in a process of its own, so that it can be
//! killed for real; the demo starts it again. It uses the commands that it shows, and leaves nothing behind.

/// `println!`, but no panic where nobody reads any more (`peer demo | head -3`): an error that ends the demo, which cleans up.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::demo::print(&format!($($text)*)) };
}

mod chaos;
mod node;
mod stage;
mod tour;

use super::console::Console;
use super::error::CliError;
use super::log::{LogArgs, log_to_stderr};
use super::start::{dashboard, failed, runtime};
use crate::shell::demo::greeter::{self, Greeter};
use clap::Args;
use stage::Stage;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

const MAX_NODES: u16 = 50;
const MAX_PACE_S: u16 = 600;

const EXAMPLES: &str = "\
Examples:
  peer demo
  peer demo --tour                        tells the whole story by itself
  peer demo --chaos --nodes 5             kills and freezes nodes at random
  peer demo --nodes 7 --port 9100
  peer demo --engine demo                 without Docker, even if it is there
  peer demo --engine unix:///run/user/1000/docker.sock";

/// Run a whole cluster on this machine, and see what it can do
///
/// It starts several agents, deploys greeters on a published port and says what to try next. Ctrl-C ends it and cleans up.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = |text: &str| number(text, 1..=MAX_NODES))]
    nodes: u16,
    /// The port on which every node answers for the greeters
    #[arg(long, value_name = "PORT", default_value_t = 9000, value_parser = |text: &str| number(text, 1..=u16::MAX))]
    port: u16,
    /// What runs the greeters: the Docker Engine behind a socket, the built-in engine (demo), or auto: Docker if it can
    #[arg(long, value_name = "auto|demo|unix:///PATH", default_value = "auto")]
    engine: Engine,
    /// Serve node1's page here, or no page at all [default: 127.0.0.1:7373, or a free port; the others' are on ports of their own]
    #[arg(long, value_name = "IP[:PORT]|none")]
    dashboard: Option<String>,
    /// Play the story by itself, with a line on each step: scale, update, a bad update, drain, a crash
    #[arg(long)]
    tour: bool,
    /// Kill and freeze nodes at random, never so many that a majority is gone, and say so each time (3 nodes or more)
    #[arg(long, conflicts_with = "tour")]
    chaos: bool,
    /// Seconds between steps of the tour; between faults about twice as many
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = |text: &str| number(text, 0..=MAX_PACE_S))]
    pace: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Engine {
    Auto,
    BuiltIn,
    Docker(PathBuf),
}

fn number(text: &str, range: RangeInclusive<u16>) -> Result<u16, String> {
    let wanted = || format!("want a whole number from {} to {}", range.start(), range.end());
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(wanted)
}

impl DemoArgs {
    fn pace(&self) -> Duration {
        Duration::from_secs(self.pace.into())
    }

    /// How long a killed node stays away: enough to watch the others take over.
    fn away(&self) -> Duration {
        self.pace() * 3 + Duration::from_secs(5)
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix://").unwrap_or(text) {
            "auto" => Ok(Self::Auto),
            "demo" => Ok(Self::BuiltIn),
            path if path.starts_with('/') => Ok(Self::Docker(PathBuf::from(path))),
            _ => Err("want auto, demo, or the socket of a Docker Engine as unix:///var/run/docker.sock".to_owned()),
        }
    }
}

fn print(line: &str) -> Result<(), CliError> {
    Console::of_process().line(line)
}

pub fn run(args: &DemoArgs) -> Result<(), CliError> {
    log_to_stderr(&LogArgs::default(), "error");
    // Before anything is begun.
    args.dashboard.as_deref().map(dashboard).transpose()?;
    runtime()?.block_on(until_told_to_end(args)).map_err(failed)
}

async fn until_told_to_end(args: &DemoArgs) -> anyhow::Result<()> {
    let mut ending = Ending::new()?;
    let mut stage = Stage::new(args.port, args.away())?;
    let played = tokio::select! {
        played = stage.play(args) => played,
        () = ending.come() => Ok(()),
    };
    if stage.is_set() {
        // Also where nobody reads that.
        let _ = say!("\nStopping, and cleaning up.");
    }
    let left = if stage.uses_docker() { ": containers may be left" } else { "" };
    let cleared = tokio::select! {
        cleared = stage.clear() => cleared,
        // Whoever asks twice wants out, and is told what may be left.
        () = ending.come() => Err(anyhow::anyhow!("interrupted while cleaning up{left}")),
    };
    played.and(cleared)
}

/// Ctrl-C, SIGTERM, or the terminal's end.
struct Ending([Signal; 3]);

impl Ending {
    fn new() -> anyhow::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn come(&mut self) {
        let [int, term, hup] = &mut self.0;
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    }
}

const GREETER_EXAMPLES: &str = "\
Examples:
  peer greeter 1                          greets on port 5000 until SIGTERM
  PORT=8000 GREETING=Moin peer greeter 2";

/// The server that the demo's containers run
#[derive(Debug, Args)]
#[command(after_help = GREETER_EXAMPLES)]
pub struct GreeterArgs {
    /// Which one
    #[arg(value_name = "1|2|bad|sick")]
    which: Greeter,
    /// What the health check of the sick one runs: it fails
    #[arg(long)]
    check: bool,
}

pub fn greet(args: &GreeterArgs) -> Result<(), CliError> {
    if args.check && args.which == Greeter::Sick {
        return Err(CliError::new("the sick greeter is never well"));
    }
    if args.check {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(format!("can't start: {error}")))?;
    match runtime.block_on(greeter::run(args.which)).map_err(failed)? {
        0 => Ok(()),
        _ => Err(CliError::silent()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_out_of_range_is_told_the_range() {
        for bad in ["x", "0", "51", "-1", ""] {
            assert_eq!(number(bad, 1..=MAX_NODES), Err("want a whole number from 1 to 50".to_owned()), "{bad}");
        }
        assert_eq!(number("50", 1..=MAX_NODES), Ok(50));
    }

    #[test]
    fn engines_are_parsed() {
        assert_eq!("auto".parse(), Ok(Engine::Auto));
        assert_eq!("demo".parse(), Ok(Engine::BuiltIn));
        let docker = Engine::Docker("/run/docker.sock".into());
        assert_eq!("unix:///run/docker.sock".parse(), Ok(docker.clone()));
        assert_eq!("/run/docker.sock".parse(), Ok(docker));
        assert!("tcp://10.0.0.1:2375".parse::<Engine>().unwrap_err().contains("unix:///var/run/docker.sock"));
    }
}
