//! What the agent says on stderr: how much of it, by module, and in which form.

use super::error::wants_colours;
use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Default, Args)]
pub struct LogArgs {
    /// How the log is written
    #[arg(long, value_name = "text|json", value_enum, default_value_t = LogFormat::Text, hide_possible_values = true)]
    log_format: LogFormat,
    /// How much of it, by module: info,peer::core=debug [default: info; env: PEER_LOG]
    #[arg(long, value_name = "LEVEL", value_parser = filter)]
    log_level: Option<String>,
}

/// A level, or a list of MODULE=LEVEL with a level for the rest. (A bare module would mean all of it and nothing else:
/// most likely a misspelt level.)
fn filter(text: &str) -> Result<String, String> {
    let want = "want off, error, warn, info, debug or trace, or MODULE=LEVEL for a module, with commas between";
    for directive in text.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !LEVELS.contains(&level.trim().to_ascii_lowercase().as_str()) {
            return Err(format!("{directive:?}: {want}"));
        }
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| format!("{error}: {want}"))
}

/// PEER_LOG says how much where the flag doesn't, in the syntax of RUST_LOG. Under systemd the journal has the time already.
pub fn log_to_stderr(args: &LogArgs, default: &str) {
    let said = args.log_level.clone();
    let said = said.or_else(|| std::env::var("PEER_LOG").or_else(|_| std::env::var("RUST_LOG")).ok());
    let filter = EnvFilter::try_new(said.as_deref().unwrap_or(default)).unwrap_or_else(|_| EnvFilter::new(default));
    // What can't be written goes unsaid: complaining of it, on stderr too, would end the agent.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    // A second subscriber is refused: the first one then has the log.
    let _ = match args.log_format {
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(true).try_init(),
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal() && wants_colours();
            let log = log.with_ansi(ansi).with_target(false);
            if std::env::var_os("JOURNAL_STREAM").is_some() { log.without_time().try_init() } else { log.try_init() }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_by_module_and_typing_errors_are_told() {
        for text in ["debug", "info,peer::core=debug", "off", "warn,peer::shell::net=trace,quinn=off"] {
            assert_eq!(filter(text).as_deref(), Ok(text));
        }
        for text in ["verbose", "info,peer::core", "peer=loud", ""] {
            assert!(filter(text).unwrap_err().contains("want off, error"), "{text}");
        }
    }
}
