//! `netsim model`.

use super::scenarios::{closed, of_rivals, open};
use super::walk::walk;
use super::{Reach, Scenario, search};
use anyhow::{Result, ensure};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Cli {
    /// 3: what is searched to the end; 5: as far as time allows, and random walks with wider bounds
    #[arg(long, default_value_t = 3)]
    voters: usize,
    /// One scenario alone
    #[arg(long)]
    scenario: Option<String>,
    /// Go no deeper
    #[arg(long)]
    depth: Option<usize>,
    /// Seconds a scenario, for searching and for walking each (with 5 voters: 60 if not given)
    #[arg(long)]
    secs: Option<u64>,
    /// Random walks a scenario
    #[arg(long)]
    walks: Option<u64>,
    /// The first walk
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// A known bug to plant (needs the feature `plant`)
    #[arg(long)]
    pub plant: Option<String>,
    /// Other bounds than the scenario's: clocks that drift
    #[arg(long)]
    fast: Option<bool>,
    /// Ballots stood for
    #[arg(long)]
    elections: Option<u8>,
    /// Nodes that stand
    #[arg(long)]
    candidates: Option<usize>,
    /// Proposals a ballot
    #[arg(long)]
    proposals: Option<u64>,
    #[arg(long)]
    restarts: Option<u8>,
}

impl Cli {
    fn bounded(&self, mut scenario: Scenario) -> Scenario {
        let bounds = &mut scenario.bounds;
        bounds.fast = self.fast.unwrap_or(bounds.fast);
        bounds.elections = self.elections.unwrap_or(bounds.elections);
        bounds.candidates = self.candidates.unwrap_or(bounds.candidates);
        bounds.proposals = self.proposals.unwrap_or(bounds.proposals);
        bounds.restarts = self.restarts.unwrap_or(bounds.restarts);
        scenario
    }
}

/// True if no law was broken.
pub fn run(cli: &Cli) -> Result<bool> {
    ensure!(matches!(cli.voters, 3 | 5), "--voters is 3 or 5");
    let (scenarios, secs, walks) = match (&cli.scenario, cli.voters) {
        (Some(_), _) => (closed().into_iter().chain([of_rivals()]).chain(open()).collect(), cli.secs, cli.walks),
        (None, 3) => (closed(), cli.secs, cli.walks),
        (None, _) => (open(), cli.secs.or(Some(60)), cli.walks.or(Some(u64::MAX))),
    };
    let wanted: Vec<Scenario> =
        scenarios.into_iter().filter(|s| cli.scenario.as_ref().is_none_or(|name| name == s.name)).collect();
    ensure!(!wanted.is_empty(), "no such scenario");
    let time = secs.map(Duration::from_secs);
    let mut good = true;
    for scenario in wanted {
        let scenario = cli.bounded(scenario);
        println!("{}: {}; {:?}", scenario.name, scenario.about, scenario.bounds);
        let report = search(scenario.clone(), Reach { depth: cli.depth, time, threads: cli.jobs });
        println!("{report}");
        good &= report.violation.is_none();
        if let Some(walks) = walks {
            let walked = walk(scenario, cli.seed..cli.seed.saturating_add(walks), time);
            println!("{walked}");
            good &= walked.violation.is_none();
        }
    }
    Ok(good)
}
