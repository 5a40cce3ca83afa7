//! L1 never two holders at one true instant; L2 terms only rise.

use super::Breach;
use peer::model::record::Term;

#[derive(Debug, Default)]
pub struct Holders {
    last: Option<(Term, usize)>,
}

impl Holders {
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
