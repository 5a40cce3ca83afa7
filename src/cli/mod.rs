//! The command line: a client of the agent's HTTP API, but for `peer start`, which is the agent,
//! and `peer demo`, which starts several.
//!
//! It takes the docker CLI's flags and prints its tables, so that fingers and scripts need not learn anew. It knows
//! Docker's JSON and nothing of the core: what it shows, it was told. Flags become JSON in pure functions
//! ([`service::create`], [`service::edit`]); what waits and prints goes through a [`console::Console`].
//!
//! Exit codes: 0 done, 1 failed, 2 misused, 3 an agent whose node was removed, 130 interrupted. Errors and warnings go to stderr, results to stdout.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod cert;
mod client;
mod cluster;
mod compare;
mod console;
mod demo;
mod error;
mod events;
#[cfg(test)]
mod fixtures;
mod go;
mod json;
mod leave;
mod list;
mod log;
mod mesh;
mod node;
mod object;
mod progress;
mod reason;
mod refused;
mod remote;
mod service;
mod shell;
pub mod stack;
mod start;
mod table;
mod tasks;
mod template;
#[cfg(test)]
mod testing;
mod top;

pub use error::CliError;

use clap::builder::{Resettable, ValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use client::{Client, Said};
use console::Console;
use remote::TlsFiles;
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  peer start                                      the first node of a cluster
  peer start --join 10.0.0.1 --token \"$TOKEN\"     every further node
  peer service create --name web --replicas 3 -p 80:8080 nginx
  peer service update --image nginx:1.29 web
  peer service ls
  peer -H unix:///tmp/peer.sock node ls           another agent on this machine";

#[derive(Debug, Parser)]
#[command(name = "peer", bin_name = "peer", version, about = "Docker Swarm without managers", after_help = EXAMPLES)]
#[command(arg_required_else_help = true, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(Box<start::StartArgs>),
    Demo(demo::DemoArgs),
    #[command(hide = true)]
    Greeter(demo::GreeterArgs),
    #[command(subcommand)]
    Service(service::ServiceCommand),
    #[command(subcommand)]
    Node(node::NodeCommand),
    #[command(subcommand)]
    Mesh(mesh::MeshCommand),
    #[command(subcommand)]
    Stack(stack::StackCommand),
    #[command(subcommand)]
    Secret(object::SecretCommand),
    #[command(subcommand)]
    Config(object::ConfigCommand),
    Token(cluster::TokenArgs),
    Status(cluster::StatusArgs),
    Dashboard(cluster::DashboardArgs),
    Events(events::EventsArgs),
    Top(top::TopArgs),
    Leave(leave::LeaveArgs),
    #[command(subcommand)]
    Cert(cert::CertCommand),
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

/// Does what the arguments (the program's name first) ask for. Help, and what clap finds wrong, end the process.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), CliError> {
    let (cli, host) = match parsed_or_refused(args) {
        Ok(parsed) => parsed,
        Err(Ok(refused)) => return Err(refused),
        Err(Err(error)) => error.exit(),
    };
    let mut console = Console::of_process();
    match cli.command {
        Command::Start(args) => start::start(*args),
        Command::Demo(args) => demo::run(&args),
        Command::Greeter(args) => demo::greet(&args),
        Command::Completions(args) => shell::completions(&args, with_host(Cli::command()), &mut console),
        Command::Man(args) => shell::man(&args, with_host(Cli::command()), &mut console),
        command => {
            let client = Client::of_host(host.as_ref())?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| CliError::new(format!("can't start: {error}")))?;
            runtime.block_on(ask(command, &client, &mut console))
        }
    }
}

async fn ask(command: Command, client: &Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        // Not clients; `run` has done them.
        Command::Start(_) | Command::Demo(_) | Command::Greeter(_) => Ok(()),
        Command::Completions(_) | Command::Man(_) => Ok(()),
        Command::Service(command) => service::run(command, client, console).await,
        Command::Node(command) => node::run(command, client, console).await,
        Command::Mesh(command) => mesh::run(command, client, console).await,
        Command::Stack(command) => stack::run(&command, client, console).await,
        Command::Secret(command) => object::secret(&command, client, console).await,
        Command::Config(command) => object::config(&command, client, console).await,
        Command::Token(args) => cluster::token(&args, client, console).await,
        Command::Dashboard(_) => cluster::dashboard(client, console).await,
        Command::Events(args) => events::events(&args, client, console).await,
        Command::Top(args) => top::top(&args, client, console).await,
        Command::Status(args) => cluster::status(&args, client, console).await,
        Command::Leave(args) => leave::leave(&args, client, console).await,
        Command::Cert(command) => cert::run(&command, client, console).await,
        Command::Cluster(command) => cluster::run(&command, client, console).await,
    }
}

type Parsed = (Cli, Option<Said>);

/// What clap finds wrong is said in our words where a known flag of docker's is the matter.
fn parsed_or_refused(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, Result<CliError, clap::Error>> {
    let args: Vec<OsString> = args.into_iter().collect();
    parse(args.iter().cloned()).map_err(|error| refused::by_name(&error, &Cli::command(), &args).ok_or(error))
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, clap::Error> {
    let mut command = with_last_word(with_host(Cli::command())).mut_subcommand("service", |service| {
        service.mut_subcommand("create", with_any_values).mut_subcommand("update", with_any_values)
    });
    command.build();
    let matches = command.try_get_matches_from_mut(args).map_err(|error| or_help(error, &command))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let said = host(&matches).map(|said| Said { tls: tls_files(&matches), ..said });
    Ok((cli, said))
}

/// Where only a socket is named, be it by PEER_HOST, clap lists the commands, hidden ones too: the help says it better.
fn or_help(error: clap::Error, command: &clap::Command) -> clap::Error {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    if error.kind() != ErrorKind::MissingSubcommand {
        return error;
    }
    let bare = command.clone().mut_arg(HOST, |arg| arg.env(Resettable::Reset));
    let words = named.split_whitespace().map(str::to_owned).collect::<Vec<String>>();
    bare.try_get_matches_from(words).err().unwrap_or(error)
}

const HOST: &str = "daemon-host";

/// `-H/--host` on every command, but for the long form where the docker CLI gives `--host` another meaning
/// (`service create`); clap's global arguments can't be refused by one command.
fn with_host(command: clap::Command) -> clap::Command {
    let taken = command.get_arguments().any(|arg| arg.get_long() == Some("host"));
    let arg = Arg::new(HOST)
        .short('H')
        .value_name("SOCKET")
        .value_parser(ValueParser::string())
        .help("The agent's socket, as unix:///run/peer/peer.sock, or tcp://HOST:PORT [env: PEER_HOST]")
        .help_heading("Global options")
        .display_order(1_000);
    let arg = if taken { arg } else { arg.long("host") };
    let is_root = command.get_name() == "peer";
    let command = command.arg(if is_root { arg.env("PEER_HOST").hide_env(true) } else { arg });
    let tls = |id: &'static str, help: &'static str| {
        // Said once, by the root's help.
        Arg::new(id).long(id).help(help).help_heading("Global options").display_order(1_001).hide(!is_root)
    };
    let file = |arg: Arg| arg.value_name("FILE").value_parser(ValueParser::path_buf());
    let command = command
        .arg(file(tls(CA, "With -H tcp://HOST:PORT: the cluster's CA certificate [env: PEER_CERT_PATH]")))
        .arg(file(tls(CERT, "With -H tcp://HOST:PORT: this client's certificate, of peer cert issue")))
        .arg(file(tls(KEY, "With -H tcp://HOST:PORT: its key")))
        .arg(tls("tlsverify", "Taken for docker's sake: both sides are always verified").action(ArgAction::SetTrue));
    command.mut_subcommands(with_host)
}

const CA: &str = "tlscacert";
const CERT: &str = "tlscert";
const KEY: &str = "tlskey";

/// Wherever they were given.
fn tls_files(matches: &ArgMatches) -> TlsFiles {
    fn given(matches: &ArgMatches, id: &str) -> Option<PathBuf> {
        let inner = matches.subcommand().and_then(|(_, inner)| given(inner, id));
        inner.or_else(|| matches.try_get_one::<PathBuf>(id).ok().flatten().cloned())
    }
    TlsFiles { ca: given(matches, CA), cert: given(matches, CERT), key: given(matches, KEY) }
}

/// Of a flag that takes one value and is given twice the last one counts, as with the docker CLI: scripts put their own
/// behind a default. Flags that gather values gather on.
fn with_last_word(command: clap::Command) -> clap::Command {
    command.args_override_self(true).mut_subcommands(with_last_word)
}

/// Lets values begin with a hyphen, as the docker CLI does: `--args "-v"`, `--env-add -X=1`.
fn with_any_values(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let takes_one = arg.get_action().takes_values() && !arg.is_positional() && !arg.is_require_equals_set();
        arg.allow_hyphen_values(takes_one)
    })
}

/// The innermost command that was given one says it.
fn host(matches: &ArgMatches) -> Option<Said> {
    let inner = matches.subcommand().and_then(|(_, inner)| host(inner));
    inner.or_else(|| {
        let host = matches.try_get_one::<String>(HOST).ok().flatten()?.clone();
        let of_environment = matches.value_source(HOST) == Some(ValueSource::EnvVariable);
        let by = if of_environment { "PEER_HOST" } else { "--host" };
        // A variable that is empty is one that isn't set.
        (!of_environment || !host.is_empty()).then_some(Said { host, by, tls: TlsFiles::default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(Cli, Option<String>), clap::Error> {
        let (cli, host) = parse(line.split_whitespace().map(OsString::from))?;
        Ok((cli, host.map(|said| said.host)))
    }

    #[test]
    fn every_command_has_sane_arguments() {
        with_host(Cli::command()).debug_assert();
    }

    #[test]
    fn the_host_may_stand_anywhere() {
        for line in [
            "peer -H unix:///a service ls",
            "peer --host unix:///a service ls",
            "peer service -H unix:///a ls",
            "peer service ls --host unix:///a",
            "peer service create -H unix:///a nginx",
        ] {
            assert_eq!(parsed(line).unwrap().1.as_deref(), Some("unix:///a"), "{line}");
        }
        let (cli, host) = parsed("peer -H unix:///a service create --host db:10.0.0.9 nginx").unwrap();
        assert_eq!(host.as_deref(), Some("unix:///a"));
        let Command::Service(service::ServiceCommand::Create(create)) = cli.command else { panic!("{cli:?}") };
        assert_eq!(create.host, ["10.0.0.9 db"]);
    }

    #[test]
    fn of_a_flag_given_twice_the_last_counts_and_lists_grow() {
        let line = "peer service create --replicas 2 --name a --name b --replicas 5 -q -q -e A=1 -e B=2 nginx";
        let Command::Service(service::ServiceCommand::Create(create)) = parsed(line).unwrap().0.command else {
            panic!()
        };
        let spec = create.spec().unwrap();
        assert_eq!(spec["Name"], "b");
        assert_eq!(spec["Mode"]["Replicated"]["Replicas"], 5);
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Env"], serde_json::json!(["A=1", "B=2"]));
        assert_eq!(parsed("peer service ls -H unix:///a -H unix:///b").unwrap().1.as_deref(), Some("unix:///b"));
    }

    #[test]
    fn numbers_that_are_none_are_told_in_words() {
        for line in [
            "peer service create --replicas abc nginx",
            "peer service create --replicas -1 nginx",
            "peer service update --update-parallelism -1 web",
            "peer service rollback --to abc web",
        ] {
            let error = parsed(line).unwrap_err().to_string();
            assert!(error.contains("want a whole number, 0 or more"), "{line}: {error}");
        }
    }

    #[test]
    fn every_command_shows_examples() {
        fn walk(command: &clap::Command) {
            if !command.has_subcommands() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with("Examples:\n"), "{} has no examples", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    /// A newcomer who had set PEER_HOST saw a list with commands that no help shows.
    #[test]
    fn without_a_command_there_is_the_help() {
        for (line, command) in [
            ("peer -H unix:///a", "peer"),
            ("peer", "peer"),
            ("peer service -H unix:///a", "peer service"),
            ("peer -H unix:///a node", "peer node"),
        ] {
            let error = parsed(line).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, "{line}");
            let said = error.to_string();
            assert!(said.contains(&format!("Usage: {command} ")) && said.contains("Commands:"), "{line}: {said}");
            assert!(!said.contains("greeter") && !said.contains("promote"), "{line}: {said}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn misuse_is_two_and_help_is_none() {
        assert_eq!(parsed("peer service create --update-delay 5 nginx").unwrap_err().exit_code(), 2);
        assert_eq!(parsed("peer service frobnicate").unwrap_err().exit_code(), 2);
        assert_eq!(parsed("peer service create --update-delay -1s nginx").unwrap_err().exit_code(), 2);
        assert_eq!(parsed("peer service create --help").unwrap_err().exit_code(), 0);
    }
}
