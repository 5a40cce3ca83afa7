//! What the model check looks at.

use super::state::node_id;
use super::{Bounds, STEP, Scenario};
use peer::lease::{Timing, Upkeep};
use peer::model::lease::{Electorate, ElectorateId};
use peer::model::node::Liveness::{self, Alive, Down};
use peer::model::record::Term;
use std::time::Duration;

/// A lease that the slowest clock still sees alive after one step, when it can be renewed; and voters whose grants outlive that by
/// the fastest clock, by nothing more.
fn tight() -> Timing {
    Timing { acceptor: STEP * 3, holder: STEP * 2, renew: STEP }
}

/// The holder takes what it sees for true at once.
fn hasty() -> Upkeep {
    Upkeep {
        replace_after: Duration::ZERO,
        replace_mute_after: STEP * 3,
        admit_after: Duration::ZERO,
        admit_first_after: Duration::ZERO,
    }
}

fn electorate(voters: impl IntoIterator<Item = usize>) -> Electorate {
    let id = ElectorateId { epoch: 0, term: Term::ZERO, version: 0 };
    Electorate { id, voters: voters.into_iter().map(node_id).collect() }
}

/// Each takes all others for down, so that no candidate waits for another.
fn alone(nodes: usize) -> Vec<Vec<Liveness>> {
    (0..nodes).map(|me| (0..nodes).map(|other| if other == me { Alive } else { Down }).collect()).collect()
}

/// Who is down in whose eyes.
fn lies(nodes: usize, down: &[(usize, usize)]) -> Vec<Vec<Liveness>> {
    let see = |me: usize| (0..nodes).map(move |other| if down.contains(&(me, other)) { Down } else { Alive }).collect();
    (0..nodes).map(see).collect()
}

/// Nothing happens in it yet.
const NOTHING: Bounds = Bounds { fast: false, elections: 0, candidates: 2, proposals: 1, restarts: 0 };

fn fixed(name: &'static str, about: &'static str, voters: usize, bounds: Bounds) -> Scenario {
    Scenario {
        name,
        about,
        nodes: voters,
        first: electorate(0..voters),
        timing: tight(),
        upkeep: hasty(),
        changes: false,
        views: alone(voters),
        refusals: false,
        bounds,
    }
}

fn changing(
    name: &'static str,
    about: &'static str,
    voters: usize,
    views: Vec<Vec<Liveness>>,
    bounds: Bounds,
) -> Scenario {
    let nodes = views.len();
    Scenario { nodes, views, changes: true, ..fixed(name, about, voters, bounds) }
}

/// Searched to the end.
pub fn closed() -> Vec<Scenario> {
    vec![
        fixed(
            "elections",
            "three voters, all of which stand for election",
            3,
            Bounds { fast: true, elections: 3, candidates: 3, ..NOTHING },
        ),
        fixed(
            "renewals",
            "three voters, two of which stand for election and renew",
            3,
            Bounds { fast: true, elections: 2, proposals: 2, ..NOTHING },
        ),
        fixed(
            "restarts",
            "three voters, one of which stands for election, and any of them restarts",
            3,
            Bounds { elections: 1, candidates: 1, restarts: 1, ..NOTHING },
        ),
        changing(
            "growth",
            "one voter that two nodes join, one after the other",
            1,
            lies(3, &[]),
            Bounds { elections: 1, candidates: 1, proposals: 3, ..NOTHING },
        ),
        changing(
            "replacement",
            "three voters and a spare; the holder takes another voter for dead and replaces it",
            3,
            lies(4, &[(0, 2), (1, 0), (2, 1), (3, 0)]),
            Bounds { elections: 1, candidates: 1, proposals: 2, ..NOTHING },
        ),
        changing(
            "shrinking",
            "three voters and no spare; the holder takes another voter for dead and goes on alone",
            3,
            lies(3, &[(0, 1), (1, 2), (2, 0)]),
            Bounds { elections: 1, candidates: 1, proposals: 3, ..NOTHING },
        ),
        changing(
            "left-behind",
            "three voters and no spare; a voter that was taken for dead and dropped stands under the electorate that it knows",
            3,
            lies(3, &[(0, 1)]),
            Bounds { elections: 2, proposals: 2, ..NOTHING },
        ),
    ]
}

/// For bugs that take a rival. As the code is, a voter that restarts has so much to ask and to be told that no search of it ends.
pub fn of_rivals() -> Scenario {
    let bounds = Bounds { elections: 2, restarts: 1, ..NOTHING };
    fixed("rivals", "three voters, two of which stand for election, and any of them restarts", 3, bounds)
}

/// The same in less time: for each commit, in a build that isn't optimised.
pub fn brief() -> Vec<Scenario> {
    let shorter = |mut scenario: Scenario| {
        let bounds = &mut scenario.bounds;
        match scenario.name {
            "elections" => *bounds = Bounds { elections: 2, candidates: 2, ..*bounds },
            "renewals" => bounds.candidates = 1,
            "left-behind" => bounds.elections = 1,
            _ => {}
        }
        scenario
    };
    closed().into_iter().map(shorter).collect()
}

/// As far as time allows, and at random.
pub fn open() -> Vec<Scenario> {
    let wide = Bounds { fast: true, elections: 6, candidates: 5, proposals: 6, restarts: 3 };
    let refused = |scenario: Scenario| Scenario { refusals: true, ..scenario };
    vec![
        refused(fixed("five", "five voters", 5, wide)),
        refused(changing(
            "five-changing",
            "five voters and a spare; each holder takes another voter for dead",
            5,
            lies(6, &[(0, 2), (1, 0), (2, 1), (3, 0), (4, 3), (5, 1)]),
            wide,
        )),
        refused(changing(
            "three-changing",
            "three voters and two spares; each holder takes another voter for dead",
            3,
            lies(5, &[(0, 2), (1, 0), (2, 1), (3, 0), (4, 1)]),
            wide,
        )),
        refused(changing(
            "three-shrinking",
            "three voters and no spare; each holder takes another voter for dead and goes on alone",
            3,
            lies(3, &[(0, 2), (1, 0), (2, 1)]),
            wide,
        )),
        refused(fixed("three", "three voters, wider bounds than a search gets to the end of", 3, wide)),
    ]
}
