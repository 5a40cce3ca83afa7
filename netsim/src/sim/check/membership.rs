//! M1 to M3, M6: what each node holds of the lives of others. M5, as far as it is safety: in calm nobody who lives is
//! taken for down.

use super::World;
use peer::core::Core;
use peer::ids::NodeId;
use peer::model::node::Liveness;
use std::time::Duration;

/// Longer than any announcement is put off.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(7);

impl World {
    /// `n` has just said that it sees `node` up, or down.
    pub(in crate::sim) fn check_seen(&mut self, n: usize, node: NodeId, up: bool) {
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        // A verdict was the life's that this event found; if it made the node renew itself, it is void.
        let (own, was) = (core.bump(), self.nodes[n].seen_bump);
        // What it says may be over within the same event.
        let Some((bump, liveness)) = core.life(node) else { return };
        let lives = &mut self.check.lives[n];
        let mut breach = None;
        if up && liveness <= Liveness::Suspect {
            breach = lives.see_up(own, node, bump);
        } else if !up && liveness == Liveness::Down {
            lives.bury(was, node, bump);
        }
        self.judge_of(n, breach);
        if !up && self.is_calm() && self.has_lived(n) && self.index_of(node).is_some_and(|o| self.has_lived(o)) {
            let other = self.index_of(node);
            self.violate("M5", || {
                format!("n{n} takes n{other:?} for down, which lives, and nothing was broken lately")
            });
        }
    }

    /// It takes part, and has for a while.
    fn has_lived(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        node.core.is_some() && !node.gone && node.back_at.is_none()
    }

    /// One node's view of all others.
    pub(super) fn check_lives(&mut self, n: usize) {
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let lives = &mut self.check.lives[n];
        let mut wrong = None;
        let mut refuted = false;
        for member in core.members() {
            let Some((bump, liveness)) = core.life(member.node) else { continue };
            let real = self.by_id.get(&member.node).map(|o| &self.nodes[*o]);
            let real = real.and_then(|node| node.core.as_ref()).map_or(0, Core::bump);
            let real = self.check.bumps.get(&member.node).copied().unwrap_or(0).max(real);
            refuted |= lives.refutes(member.node, bump, liveness);
            wrong = wrong.or(lives.know(member.node, bump, real));
        }
        let alone = core.live_others() == 0;
        if refuted {
            self.probes.hit("a false suspicion was refuted");
        }
        if wrong.is_some() || !alone {
            return self.judge_of(n, wrong);
        }
        let (lives, Some(core)) = (&self.check.lives[n], self.nodes[n].core.as_ref()) else { return };
        let forgotten = lives.has_known().find(|node| !core.is_removed(*node) && core.life(*node).is_none());
        let now = self.nodes[n].clock.now(self.now).mono;
        let late = core.announces_at() > now + ANNOUNCED_WITHIN;
        if forgotten.is_some() || late {
            self.violate("M6", || format!("n{n} is alone; forgotten: {forgotten:?}, announces too late: {late}"));
        }
    }
}
