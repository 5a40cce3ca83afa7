//! How well the net catches: each known bug, planted, is looked for in a fixed number of seeds of each profile.

use super::chaos::{Profile, Size, draw};
use super::run::{Tell, run};
use std::collections::BTreeMap;
use std::fmt;

pub const SIZE: Size = Size { nodes: 5, secs: 100 };

/// In how many seeds the bug that this process has planted broke a law, and which.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Rates {
    pub of_each: u64,
    pub caught: Vec<(Profile, u64)>,
    pub laws: BTreeMap<String, u64>,
    /// Of one that none of these caught: the first seed that does, and the law.
    pub later: Option<(Profile, u64, String)>,
}

/// Whoever isn't caught by then isn't caught.
const FURTHEST: u64 = 200;

impl Rates {
    pub fn measure(of_each: u64) -> Self {
        let mut rates = Self { of_each, ..Self::default() };
        for profile in Profile::ALL {
            let mut caught = 0;
            for seed in 1..=of_each {
                if let Some(law) = broken(profile, seed) {
                    caught += 1;
                    *rates.laws.entry(law).or_default() += 1;
                }
            }
            rates.caught.push((profile, caught));
        }
        if !rates.is_caught() {
            let further = (of_each + 1..=FURTHEST).flat_map(|seed| Profile::ALL.map(|profile| (profile, seed)));
            rates.later = further.filter_map(|(profile, seed)| Some((profile, seed, broken(profile, seed)?))).next();
        }
        rates
    }

    pub fn is_caught(&self) -> bool {
        self.later.is_some() || self.caught.iter().any(|(_, caught)| *caught > 0)
    }
}

/// The law that the bug broke: not one that this seed breaks without it, too.
#[cfg(feature = "plant")]
fn broken(profile: Profile, seed: u64) -> Option<String> {
    use peer::plant::{Bug, is_planted, plant};
    let plan = draw(seed, profile, SIZE);
    let law = run(&plan, Tell::Nothing).violation?.law;
    let planted = Bug::ALL.iter().copied().find(|bug| is_planted(*bug));
    plant(None);
    let without = run(&plan, Tell::Nothing).violation;
    plant(planted);
    without.is_none_or(|without| without.law != law).then_some(law)
}

/// Without the feature nothing can be planted, and `netsim planted` has said so.
#[cfg(not(feature = "plant"))]
fn broken(profile: Profile, seed: u64) -> Option<String> {
    run(&draw(seed, profile, SIZE), Tell::Nothing).violation.map(|violation| violation.law)
}

/// `L1 7, L3 2; in 0 of 20 calm seeds, 3 of 20 one, ...`
impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let laws: Vec<String> = self.laws.iter().map(|(law, count)| format!("{law} {count}")).collect();
        let caught: Vec<String> =
            self.caught.iter().map(|(profile, n)| format!("{n} of {} {}", self.of_each, profile.name())).collect();
        if let Some((profile, seed, law)) = &self.later {
            return write!(f, "{law}; first in seed {seed} of {}", profile.name());
        }
        let laws = if laws.is_empty() { "NOT CAUGHT".to_owned() } else { laws.join(", ") };
        write!(f, "{laws}; in {} seeds", caught.join(", "))
    }
}
