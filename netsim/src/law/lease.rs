//! L1 never two holders at one true instant; L2 terms only rise; L3 a voter's grants to two candidates never overlap; L6
//! electorates follow on each other so that no two can be acted under side by side.

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

/// What one voter has granted and promised, over all its lives.
#[derive(Debug, Default)]
pub struct Grants {
    /// The ballot, until when in true time, and in which life of the voter.
    given: Option<(Term, u64, u32)>,
    promised: Option<Term>,
    /// The highest promise that left it.
    sent: Option<Term>,
}

impl Grants {
    /// The voter's own word on its grant and its promise at this true instant. Within one life it may take a grant back
    /// (it was released); a life that knows of none has forgotten it. A proposal is no promise: whoever proposes has shown
    /// that a majority promised after all earlier leases were over.
    pub fn see(
        &mut self,
        voter: usize,
        life: u32,
        now: u64,
        grant: Option<(Term, u64)>,
        promised: Term,
    ) -> Option<Breach> {
        let before = self.promised.replace(promised);
        let proposed = grant.is_some_and(|(ballot, _)| ballot == promised);
        let lives = self.given.filter(|(granted, until, _)| *until > now && granted.node != promised.node);
        match grant {
            Some((ballot, until)) => self.given = Some((ballot, until, life)),
            None if self.given.is_some_and(|(_, _, given_in)| given_in == life) => self.given = None,
            None => {}
        }
        let (granted, ..) = lives.filter(|_| before.is_some_and(|before| before < promised) && !proposed)?;
        let text = format!("n{voter} promises {} while its grant to {} lives", promised.round, granted.round);
        Some(Breach::of("L3", text))
    }

    /// A promise leaves.
    pub fn sends(&mut self, voter: usize, ballot: Term) -> Option<Breach> {
        let before = self.sent.replace(self.sent.map_or(ballot, |sent| sent.max(ballot)))?;
        let text = || format!("n{voter} promises {} after it promised {}", ballot.round, before.round);
        (before > ballot).then(|| Breach::of("L3", text()))
    }

    /// Its disk was put back or lost: it can't know what it promised, and must vote on nothing until that is over.
    pub fn disk_was_lost(&mut self) {
        self.promised = None;
        self.sent = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peer::ids::NodeId;

    fn ballot(round: u64, node: u128) -> Term {
        Term { round, node: NodeId::from_u128(node) }
    }

    fn law(breach: Option<Breach>) -> Option<&'static str> {
        breach.map(|b| b.law)
    }

    #[test]
    fn a_grant_binds_the_next_life_too() {
        for (life, grant) in [(1, Some((ballot(5, 1), 40))), (2, None)] {
            let mut grants = Grants::default();
            assert_eq!(law(grants.see(0, 1, 10, Some((ballot(5, 1), 40)), ballot(5, 1))), None);
            assert_eq!(law(grants.see(0, life, 20, grant, ballot(5, 1))), None);
            assert_eq!(law(grants.see(0, life, 30, grant, ballot(6, 2))), Some("L3"), "life {life}");
            assert_eq!(law(grants.see(0, life, 50, None, ballot(7, 3))), None, "it is over");
        }
    }

    #[test]
    fn a_grant_that_was_released_binds_nobody() {
        let mut grants = Grants::default();
        grants.see(0, 1, 10, Some((ballot(5, 1), 40)), ballot(5, 1));
        grants.see(0, 1, 15, None, ballot(5, 1));
        assert_eq!(grants.see(0, 1, 20, None, ballot(6, 2)), None);
    }

    #[test]
    fn promises_that_left_only_rise() {
        let mut grants = Grants::default();
        assert_eq!(law(grants.sends(0, ballot(5, 1))), None);
        assert_eq!(law(grants.sends(0, ballot(5, 1))), None, "said again");
        assert_eq!(law(grants.sends(0, ballot(4, 2))), Some("L3"));
    }
}
