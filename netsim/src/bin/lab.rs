//! See `netsim::lab::cli`.

use clap::Parser;
use netsim::lab::cli::{Cli, run};

fn main() -> anyhow::Result<()> {
    run(Cli::parse())
}
