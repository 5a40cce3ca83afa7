//! See `netsim::lab::cli`.

use clap::Parser;
use netsim::lab::cli::{Cli, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // What went wrong and why, without a backtrace whatever the environment says.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
