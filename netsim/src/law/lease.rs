//! L1 never two holders at one true instant; L2 terms only rise; L6 electorates follow on each other so that no two can be
//! acted under side by side.

use super::Breach;
use peer::law::majorities_meet;
use peer::model::lease::Electorate;
use peer::model::record::Term;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Holders {
    last: Option<(Term, usize)>,
}

impl Holders {
    /// Who held the lease last.
    pub fn last(&self) -> Option<(Term, usize)> {
        self.last
    }

    /// `n` holds the lease under a term that it didn't have a moment ago; `others` are those that believe, at this
    /// true instant, that they hold it.
    pub fn begins(&mut self, n: usize, term: Term, others: impl IntoIterator<Item = (usize, Term)>) -> Option<Breach> {
        let other = others.into_iter().find(|(o, _)| *o != n);
        let before = self.last.replace((term, n));
        if let Some((other, theirs)) = other {
            let text = format!("two holders: n{n} with term {} and n{other} with {}", term.round, theirs.round);
            return Some(Breach::of("L1", text));
        }
        let (last, who) = before?;
        (term < last || (term == last && who != n))
            .then(|| Breach::of("L2", format!("n{n} holds term {} after n{who} held {}", term.round, last.round)))
    }
}

/// The electorates that came into force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Electorates {
    last: Option<Electorate>,
}

impl Electorates {
    /// A majority of `new` has accepted it. Across epochs an operator answers for what an old majority still does.
    pub fn comes_into_force(&mut self, new: &Electorate) -> Option<Breach> {
        let last = self.last.replace(new.clone())?;
        let (before, after) = (last.id, new.id);
        if after <= before {
            return Some(Breach::of("L6", format!("an electorate comes into force late: {new:?} after {last:?}")));
        }
        (after.epoch == before.epoch && !majorities_meet(&last.voters, &new.voters)).then(|| {
            Breach::of("L6", format!("two electorates whose majorities need not meet: {last:?}, then {new:?}"))
        })
    }

    /// The one in force, and whether it is another set of voters than `first`.
    pub fn differ_from(&self, first: &Electorate) -> bool {
        self.last.as_ref().is_some_and(|last| last.voters != first.voters)
    }
}
