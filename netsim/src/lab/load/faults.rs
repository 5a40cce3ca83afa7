//! What breaks unannounced, under load: how many requests fail, and until how long after it broke such are begun.

use super::stories::{Loads, SERVICE, StoryConfig, create, is_userspace, until_ready, until_replicas};
use super::{Mode, Report, header};
use crate::lab::Lab;
use crate::lab::http::{ask, json};
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// A load goes on for this long before something breaks...
const BEFORE: Duration = Duration::from_secs(1);
/// ... and after it: a node that is cut off is seen down after about 3 s.
const AFTER: Duration = Duration::from_secs(12);
/// Where it breaks.
const NODE: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// A replica's process gets SIGKILL
    Replica,
    /// A node's cable is pulled; the others are asked
    Node,
    /// An agent gets SIGKILL; on HTTP-aware ports and in userspace the others are asked
    Agent,
}

impl Fault {
    pub const ALL: [Self; 3] = [Self::Replica, Self::Node, Self::Agent];

    /// No request that is begun so long after it should fail. An HTTP-aware port spares what is begun before that, too.
    fn aim(self) -> Duration {
        match self {
            Self::Replica => Duration::from_millis(500),
            Self::Node => Duration::from_secs(3),
            Self::Agent => Duration::ZERO,
        }
    }
}

/// What came of one port and mode.
pub struct Row {
    pub fault: Fault,
    pub port: &'static str,
    pub mode: Mode,
    pub report: Report,
    /// How long after the fault the last request was begun that failed.
    pub in_vain: Option<Duration>,
}

impl Row {
    pub fn is_reached(&self) -> bool {
        self.in_vain.is_none_or(|last| last < self.fault.aim())
    }
}

/// Breaks one thing after the other on a lab that has agents, and mends it each time.
pub fn run(lab: &Lab, faults: &[Fault], config: &StoryConfig) -> Result<Vec<Row>> {
    create(lab, config)?;
    println!("{:<9}{:<6}{:<11}{}{:>15}  aim", "fault", "port", "mode", header(), "in vain until");
    let mut rows = Vec::new();
    for fault in faults {
        for row in suffer(lab, *fault, config).with_context(|| format!("the fault {fault:?}"))? {
            let in_vain = row.in_vain.map_or("-".to_owned(), |last| format!("{} ms", last.as_millis()));
            let aim =
                format!("<= {} ms {}", fault.aim().as_millis(), if row.is_reached() { "reached" } else { "MISSED" });
            let (name, mode) = (format!("{fault:?}"), format!("{:?}", row.mode));
            println!("{name:<9}{:<6}{mode:<11}{}{in_vain:>15}  {aim}", row.port, row.report);
            row.report.told.iter().take(3).for_each(|line| println!("    {line}"));
            rows.push(row);
        }
    }
    lab.peer_ok(1, &["service", "rm", SERVICE])?;
    Ok(rows)
}

fn suffer(lab: &Lab, fault: Fault, config: &StoryConfig) -> Result<Vec<Row>> {
    let all: Vec<usize> = (1..=lab.config.nodes).collect();
    let others: Vec<usize> = all.iter().copied().filter(|node| *node != NODE).collect();
    let by_kernel = !is_userspace(lab)?;
    let asked = |protocol: &str| match fault {
        Fault::Replica => &all[..],
        Fault::Agent if by_kernel && protocol == "tcp" => &all[..],
        Fault::Agent | Fault::Node => &others[..],
    };
    let began = Instant::now();
    let loads = Loads::start(asked, config)?;
    std::thread::sleep(BEFORE);
    let broke = began.elapsed();
    let broken = strike(lab, fault);
    std::thread::sleep(AFTER);
    let reports = loads.end();
    broken.and_then(|()| mend(lab, fault))?;
    let row = |(port, mode, report): (&'static str, Mode, Report)| {
        let in_vain = report.last_in_vain.map(|last| last.saturating_sub(broke));
        Row { fault, port, mode, report, in_vain }
    };
    Ok(reports.into_iter().map(row).collect())
}

fn strike(lab: &Lab, fault: Fault) -> Result<()> {
    match fault {
        Fault::Replica => {
            let socket = lab.engine_socket(NODE);
            let listed = json(&socket, "GET", "/containers/json", None)?;
            let id = listed[0]["Id"].as_str().with_context(|| format!("node {NODE} runs no replica"))?;
            ask(&socket, "POST", &format!("/containers/{id}/kill?signal=KILL"), None).map(drop)
        }
        Fault::Node => lab.set_link(NODE, false),
        Fault::Agent => lab.kill_agent(NODE),
    }
}

/// As it was before, with a replica where it breaks next.
fn mend(lab: &Lab, fault: Fault) -> Result<()> {
    match fault {
        Fault::Replica => {}
        Fault::Node => lab.set_link(NODE, true)?,
        Fault::Agent => lab.start_agent(NODE, None)?,
    }
    until_ready(lab, 1)?;
    lab.peer_ok(1, &["service", "update", "--force", SERVICE])?;
    until_replicas(lab, 1, 5)
}
