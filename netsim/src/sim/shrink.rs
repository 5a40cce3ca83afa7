//! Makes a failing plan small: fewer faults, fewer operations, calmer weather, a shorter run, as long as the same law
//! is broken. What a plan holds is independent of each other, so leaving things out needs no repair.

use super::plan::Plan;
use super::run::{Tell, run};

/// The smallest plan found, and how many runs it took. `tell` hears of every step.
pub fn shrink(plan: &Plan, law: &str, mut budget: usize, tell: &mut dyn FnMut(&Plan)) -> (Plan, usize) {
    let mut best = plan.clone();
    let mut runs = 0;
    let mut fails = |candidate: &Plan, budget: &mut usize| {
        if *budget == 0 {
            return false;
        }
        *budget -= 1;
        runs += 1;
        run(candidate, Tell::Nothing).violation.is_some_and(|v| v.law == law)
    };
    loop {
        let before = best.clone();
        for part in [Part::Faults, Part::Ops] {
            let mut chunk = part.len(&best).div_ceil(2).max(1);
            loop {
                let mut at = 0;
                while at < part.len(&best) {
                    let candidate = part.without(&best, at, chunk);
                    if fails(&candidate, &mut budget) {
                        best = candidate;
                        tell(&best);
                    } else {
                        at += chunk;
                    }
                }
                if chunk == 1 {
                    break;
                }
                chunk = chunk.div_ceil(2);
            }
        }
        for candidate in simpler(&best) {
            if candidate != best && fails(&candidate, &mut budget) {
                best = candidate;
                tell(&best);
            }
        }
        if best == before || budget == 0 {
            return (best, runs);
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Faults,
    Ops,
}

impl Part {
    fn len(self, plan: &Plan) -> usize {
        match self {
            Part::Faults => plan.faults.len(),
            Part::Ops => plan.ops.len(),
        }
    }

    fn without(self, plan: &Plan, at: usize, count: usize) -> Plan {
        let mut plan = plan.clone();
        let end = (at + count).min(self.len(&plan));
        match self {
            Part::Faults => drop(plan.faults.drain(at..end)),
            Part::Ops => drop(plan.ops.drain(at..end)),
        }
        plan
    }
}

fn simpler(plan: &Plan) -> Vec<Plan> {
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan.clone();
        change(&mut plan);
        plan
    };
    let last = plan.faults.iter().map(|f| f.at_ms + f.fault.lasts_ms()).chain(plan.ops.iter().map(|o| o.at_ms)).max();
    let secs = last.unwrap_or(0) / 1_000 + 5;
    vec![
        with(&|p| p.secs = p.secs.min(secs)),
        with(&|p| p.secs /= 2),
        with(&|p| p.nodes = (p.nodes - 1).max(1)),
        with(&|p| p.weather.loss_permille = 0),
        with(&|p| p.weather.double_permille = 0),
        with(&|p| p.weather.wall_off_ms = 0),
        with(&|p| p.weather.drift_ppm = 0),
        with(&|p| p.weather.leave_dead = false),
        with(&|p| p.weather.client_every_ms = 0),
        with(&|p| p.weather.jitter_us = 200),
        with(&|p| p.weather.disk_us = 300),
        with(&|p| p.weather.engine_us = 10_000),
    ]
}
