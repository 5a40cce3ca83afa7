//! What a storm does to the nodes, drawn from the seed before it begins.

use crate::sim::rng::Rng;
use std::fmt;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// From 1.
    Node(usize),
    /// Whoever holds the lease when the time comes.
    Holder,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and started again at the end.
    KillAgent(Target),
    /// SIGTERM likewise.
    StopAgent(Target),
    /// SIGSTOP, and SIGCONT at the end.
    PauseAgent(Target),
    Unplug(Target),
    /// Nothing passes from the first to the second; nor back, if `both`. Neither is told.
    Cut {
        from: usize,
        to: usize,
        both: bool,
    },
    /// Two groups that hear nothing of each other.
    Halves(Vec<usize>, Vec<usize>),
    PowerOff(Target),
    /// The engine with all its containers.
    KillEngine(Target),
    /// One container of the cluster, whichever comes first.
    KillContainer(Target),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}

/// The last ones end at the end of the storm.
pub fn draw(rng: &mut Rng, nodes: usize, storm: Duration) -> Vec<Planned> {
    let storm = storm.as_millis() as u64;
    let mut plan = Vec::new();
    let mut at = rng.between(0, 1_000);
    while at < storm {
        let fault = fault(rng, nodes);
        let brief = matches!(fault, Fault::KillContainer(_));
        let long = if rng.permille(600) { rng.between(200, 4_000) } else { rng.between(4_000, 20_000) };
        let lasts = if brief { 0 } else { long.min(storm - at) };
        plan.push(Planned { at: Duration::from_millis(at), lasts: Duration::from_millis(lasts), fault });
        at += rng.between(300, 4_700);
    }
    plan
}

fn fault(rng: &mut Rng, nodes: usize) -> Fault {
    let target = if rng.permille(300) { Target::Holder } else { Target::Node(1 + rng.index(nodes)) };
    match rng.below(100) {
        0..=21 => Fault::KillAgent(target),
        22..=29 => Fault::StopAgent(target),
        30..=43 => Fault::PauseAgent(target),
        44..=55 => Fault::Unplug(target),
        56..=67 => {
            let from = 1 + rng.index(nodes);
            let to = 1 + (from + rng.index(nodes.max(2) - 1)) % nodes;
            Fault::Cut { from, to, both: rng.permille(600) }
        }
        68..=73 => {
            let mut all: Vec<usize> = (1..=nodes).collect();
            for n in (1..nodes).rev() {
                all.swap(n, rng.index(n + 1));
            }
            let right = all.split_off(nodes / 2);
            Fault::Halves(all, right)
        }
        74..=81 => Fault::PowerOff(target),
        82..=89 => Fault::KillEngine(target),
        _ => Fault::KillContainer(target),
    }
}

impl Fault {
    /// Whom it takes to itself: no two of these at a time on one node.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::KillAgent(t)
            | Self::StopAgent(t)
            | Self::PauseAgent(t)
            | Self::Unplug(t)
            | Self::PowerOff(t)
            | Self::KillEngine(t)
            | Self::KillContainer(t) => Some(t),
            Self::Cut { .. } | Self::Halves(..) => None,
        }
    }

    /// Its agent answers nobody meanwhile.
    pub fn silences(&self) -> bool {
        matches!(self, Self::KillAgent(_) | Self::StopAgent(_) | Self::PauseAgent(_) | Self::PowerOff(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillAgent(_) => f.write_str("agent killed (SIGKILL)"),
            Self::StopAgent(_) => f.write_str("agent stopped (SIGTERM)"),
            Self::PauseAgent(_) => f.write_str("agent paused (SIGSTOP)"),
            Self::Unplug(_) => f.write_str("cable pulled"),
            Self::Cut { from, to, both: true } => write!(f, "n{from} and n{to} cut from each other"),
            Self::Cut { from, to, both: false } => write!(f, "n{to} hears n{from} no more"),
            Self::Halves(left, right) => write!(f, "{left:?} and {right:?} cut from each other"),
            Self::PowerOff(_) => f.write_str("power cut"),
            Self::KillEngine(_) => f.write_str("engine killed with its containers"),
            Self::KillContainer(_) => f.write_str("a container killed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        let draw = |seed| draw(&mut Rng::of(seed, "faults"), 5, Duration::from_secs(600));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let plan = draw(7);
        assert!(plan.len() > 100, "{}", plan.len());
        for planned in &plan {
            assert!(planned.at + planned.lasts <= Duration::from_secs(600));
            match &planned.fault {
                Fault::Cut { from, to, .. } => assert!(from != to && (1..=5).contains(from) && (1..=5).contains(to)),
                Fault::Halves(left, right) => assert_eq!((left.len(), right.len()), (2, 3)),
                _ => {}
            }
        }
    }
}
