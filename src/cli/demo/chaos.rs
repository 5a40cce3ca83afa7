//! `peer demo --chaos`: nodes die and freeze at random, so that a visitor sees the cluster recover. Bounded: fewer than half
//! of the nodes are away at any moment, each comes back by itself, and the first one, which serves the page, is spared.

use super::node::Node;
use super::tour::{kill, signal};
use crate::shell::identity::random;
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::Instant;

/// A frozen process is taken for dead by the others after some two seconds, and finds its way back when it thaws.
const FROZEN: Duration = Duration::from_secs(6);

pub struct Chaos {
    /// Nodes that may be away at once.
    most: usize,
    gap: Duration,
    strike_at: Instant,
    /// Which one is frozen, its process then, and until when.
    frozen: Option<(usize, u32, Instant)>,
}

impl Chaos {
    pub fn new(nodes: usize, pace: Duration) -> anyhow::Result<Self> {
        say!(
            "\nFrom now on nodes die and freeze at random, fewer than half of them at once; node1, which serves the page, is spared."
        )?;
        let gap = pace.max(Duration::from_millis(500));
        Ok(Self { most: nodes.saturating_sub(1) / 2, gap, strike_at: Instant::now() + gap, frozen: None })
    }

    /// When it has something to do.
    pub fn next(&self) -> Instant {
        self.frozen.map_or(self.strike_at, |(_, _, thaws)| thaws.min(self.strike_at))
    }

    /// `away`: those that are on their way back already.
    pub fn strike(&mut self, nodes: &[Node], away: &[usize]) -> anyhow::Result<()> {
        let now = Instant::now();
        if let Some((index, pid, thaws)) = self.frozen
            && thaws <= now
        {
            self.frozen = None;
            // It may have been killed by somebody else meanwhile.
            let same = nodes.get(index).and_then(Node::pid) == Some(pid);
            if same && signal(pid, Signal::CONT).is_ok() {
                say!("\nchaos: {} thaws.", name(nodes, index))?;
            }
        }
        if self.strike_at > now {
            return Ok(());
        }
        let drawn = random::number()?;
        self.strike_at = now + self.gap + self.gap.mul_f64((drawn % 1_000) as f64 / 500.0);
        let frozen = self.frozen.map(|(index, _, _)| index);
        let mut out: Vec<usize> = away.to_vec();
        out.extend(frozen);
        if out.len() >= self.most {
            return Ok(());
        }
        let upright: Vec<(usize, u32)> = nodes
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(index, _)| !out.contains(index))
            .filter_map(|(index, node)| Some((index, node.pid()?)))
            .collect();
        let Some((index, pid)) = upright.get((drawn >> 16) as usize % upright.len().max(1)).copied() else {
            return Ok(());
        };
        if frozen.is_none() && (drawn >> 60) & 1 == 1 {
            say!("\nchaos: {} freezes for {FROZEN:?} (kill -STOP {pid}).", name(nodes, index))?;
            self.frozen = Some((index, pid, now + FROZEN));
            // A process that has just ended can't be frozen, and is told of elsewhere.
            let _ = signal(pid, Signal::STOP);
        } else {
            say!("\nchaos: {} dies (kill -9 {pid}).", name(nodes, index))?;
            let _ = kill(pid);
        }
        Ok(())
    }
}

fn name(nodes: &[Node], index: usize) -> &str {
    nodes.get(index).map_or("", |node| &node.name)
}
