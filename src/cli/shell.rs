//! `peer completions` and `peer man`: what shells and man(1) are told, made from the commands themselves.

use super::console::Console;
use super::error::CliError;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  source <(peer completions bash)\n  peer completions zsh > ~/.zfunc/_peer\n  peer completions fish > ~/.config/fish/completions/peer.fish"
)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Write the man pages, one a command
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  peer man /usr/local/share/man/man1\n  peer man . && man ./peer-service-create.1")]
pub struct ManArgs {
    /// Where to; it is made if need be
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub fn completions(args: &CompletionsArgs, mut command: clap::Command, console: &mut Console) -> Result<(), CliError> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "peer", &mut script);
    console.print(&String::from_utf8_lossy(&script))
}

pub fn man(args: &ManArgs, command: clap::Command, console: &mut Console) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::new(format!("{}: {error}", args.dir.display()));
    let is_new = !args.dir.exists();
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    let pages = pages(&command);
    clap_mangen::generate_to(command, &args.dir).map_err(failed)?;
    let made = if is_new { ", which wasn't there" } else { "" };
    console.line(&format!("{pages} man pages written to {}{made}", args.dir.display()))
}

/// As many as there are commands that aren't hidden, the ones that only have others below them too.
fn pages(command: &clap::Command) -> usize {
    1 + command.get_subcommands().filter(|inner| !inner.is_hide_set()).map(pages).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::console;
    use clap::CommandFactory;

    fn command() -> clap::Command {
        crate::cli::with_host(crate::cli::Cli::command())
    }

    #[test]
    fn every_command_has_a_page_and_completions() {
        let dir = tempfile::tempdir().unwrap();
        let args = ManArgs { dir: dir.path().join("man") };
        for made in [", which wasn't there", ""] {
            let (mut console, out, _) = console(false);
            man(&args, command(), &mut console).unwrap();
            let count = std::fs::read_dir(&args.dir).unwrap().count();
            assert_eq!(out.text(), format!("{count} man pages written to {}{made}\n", args.dir.display()));
        }
        for page in
            ["peer.1", "peer-service-create.1", "peer-stack-deploy.1", "peer-secret-update.1", "peer-cert-issue.1"]
        {
            let text = std::fs::read_to_string(dir.path().join("man").join(page)).unwrap();
            assert!(text.contains("Examples") && text.contains(".TH"), "{page}");
        }
        assert!(!dir.path().join("man/peer-greeter.1").exists());
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let (mut console, out, _) = console(false);
            completions(&CompletionsArgs { shell }, command(), &mut console).unwrap();
            assert!(out.text().contains("update-parallelism"), "{shell:?}");
        }
    }
}
