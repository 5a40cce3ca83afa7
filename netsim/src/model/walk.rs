//! Random walks, for what no search gets to the end of: deep stories, more voters, wider bounds.
//!
//! stateright has such walks too; in 0.31 they panic at a step that leads nowhere.

use super::steps::{Action, story};
use super::{Scenario, World, calm};
use crate::sim::rng::Rng;
use stateright::{Expectation, Model};
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A walk ends after so many steps, or where nothing more can happen.
const LENGTH: usize = 200;
/// Attempts to find a step that leads somewhere.
const PATIENCE: usize = 60;

#[derive(Debug, Clone)]
pub struct Walked {
    pub scenario: &'static str,
    pub walks: u64,
    pub steps: u64,
    /// Reigns begun, restarts and changes of the electorate, so that one sees that something happened.
    pub reigns: u64,
    pub took: Duration,
    /// The seed, the law that was broken, and how.
    pub violation: Option<(u64, &'static str, Vec<String>)>,
}

impl fmt::Display for Walked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, walks, steps, reigns, took, violation } = self;
        let secs = took.as_secs_f64();
        write!(f, "{scenario}: {walks} random walks, {steps} steps, {reigns} reigns, {secs:.1} s")?;
        if let Some((seed, law, story)) = violation {
            write!(f, "\n  VIOLATION of {law:?}, walk {seed}, {} steps:", story.len())?;
            for line in story {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}

/// One walk a seed, until one breaks a law or time is up.
pub fn walk(scenario: Scenario, seeds: Range<u64>, time: Option<Duration>) -> Walked {
    let name = scenario.name;
    let world = World::new(scenario, None);
    let began = Instant::now();
    let mut walked = Walked { scenario: name, walks: 0, steps: 0, reigns: 0, took: Duration::ZERO, violation: None };
    for seed in seeds {
        if time.is_some_and(|time| began.elapsed() >= time) {
            break;
        }
        walked.walks += 1;
        let broken = one(&world, seed, &mut walked);
        walked.violation = broken.map(|(law, story)| (seed, law, story));
        if walked.violation.is_some() {
            break;
        }
    }
    walked.took = began.elapsed();
    walked
}

fn one(world: &World, seed: u64, walked: &mut Walked) -> Option<(&'static str, Vec<String>)> {
    let mut rng = Rng::of(seed, "walk");
    let laws = world.properties();
    let mut state = world.init_states().pop()?;
    let mut path = Vec::new();
    for _ in 0..LENGTH {
        let mut actions = Vec::new();
        world.actions(&state, &mut actions);
        let Some((action, next)) = (0..PATIENCE).find_map(|_| {
            let action = pick(&actions, &mut rng)?;
            Some((action, world.next_state(&state, action)?))
        }) else {
            break;
        };
        walked.steps += 1;
        walked.reigns += u64::from(next.holders != state.holders);
        path.push((std::mem::replace(&mut state, next), Some(action)));
        let broken = laws.iter().find(|law| law.expectation == Expectation::Always && !(law.condition)(world, &state));
        if let Some(law) = broken {
            path.push((state, None));
            return Some((law.name, story(path)));
        }
    }
    if calm::finds_a_holder(world, &state) {
        return None;
    }
    path.push((state, None));
    Some((super::properties::CALM, story(path)))
}

/// Arrivals are by far the most; they shall not crowd out the rest.
fn pick(actions: &[Action], rng: &mut Rng) -> Option<Action> {
    let kind: fn(&Action) -> bool = match rng.below(40) {
        0..3 => |action| matches!(action, Action::Tick { .. }),
        3..6 => |action| matches!(action, Action::Wake { dies: None, .. }),
        6 => |action| matches!(action, Action::Restart { .. } | Action::Wake { dies: Some(_), .. }),
        7 => |action| matches!(action, Action::Arrive { dies: Some(_), .. }),
        _ => |action| matches!(action, Action::Arrive { dies: None, .. }),
    };
    let of_kind: Vec<Action> = actions.iter().copied().filter(kind).collect();
    rng.pick(&of_kind).copied()
}
