//! Operators at work: each request goes to one node, as a command line client would send it, and what was promised in
//! the answer is written down for the checks.

use super::plan::Op;
use super::spec;
use super::world::{Ev, MS, World};
use peer::core::face::{Event, Reply, Request, RequestId};
use peer::ids::{NodeId, ServiceId};
use peer::model::node::{Availability, Liveness};
use peer::model::record::Key;

#[derive(Debug, Clone)]
pub struct Asked {
    pub node: usize,
    pub op: usize,
    pub at: u64,
    /// What an acceptance is about.
    pub key: Key,
}

impl World {
    pub(super) fn operate(&mut self, number: usize) {
        if self.healed {
            return;
        }
        let planned = self.plan.ops[number].clone();
        if planned.op == Op::Join {
            return self.join(number);
        }
        let Some(node) = self.answering(planned.node) else { return };
        let Some((request, key)) = self.request(node, &planned.op) else {
            self.trace.say(self.now, Some(node), || format!("operator: nothing to do for {:?}", planned.op));
            return;
        };
        if matches!(planned.op, Op::RemoveNode { .. }) {
            if self.may_not_know_of_a_lost_voter(node) {
                self.trace.say(self.now, Some(node), || format!("operator: waits with {:?}", planned.op));
                return;
            }
            // Its replicas are lost, as with any node that vanishes.
            self.disturb(0);
        }
        if let Some(after) = planned.again_ms {
            self.repeats.insert(number, (request.clone(), key.clone()));
            self.push_in(after * MS, Ev::Again(number));
        }
        self.trace.say(self.now, Some(node), || format!("operator: {:?}", planned.op));
        self.ask(node, number, request, key);
    }

    /// The client sends it once more, to another node if there is one.
    pub(super) fn operate_again(&mut self, number: usize) {
        let Some((request, key)) = self.repeats.remove(&number).filter(|_| !self.healed) else { return };
        let Some(node) = self.answering(self.plan.ops[number].node + 1) else { return };
        if matches!(request, Request::RemoveNode { .. }) {
            if self.may_not_know_of_a_lost_voter(node) {
                return;
            }
            self.disturb(0);
        }
        self.probes.hit("an operator asked the same again");
        self.trace.say(self.now, Some(node), || format!("operator: op {number} again"));
        self.ask(node, number, request, key);
    }

    /// A machine that voted was lost with its disk a moment ago, and this node can't have noticed. It refuses to remove a voter
    /// that the majority hangs on, but goes by what it sees; two voters lost for good within the time that it takes to see the
    /// first are a majority lost at once (seed 20180 of swarm at 600 s: of four voters), which only `recover` mends. So is one
    /// that is removed by way of a node that hasn't heard yet of fewer voters (seed 31185 of storm at 600 s: of two, half
    /// a second before, while the holder stood still). Whoever is removed is shut out at once, so that it can't vote till then.
    /// One whose writes are refused, since its clock was days ahead, is about to be lost as well.
    fn may_not_know_of_a_lost_voter(&self, node: usize) -> bool {
        let Some(core) = self.nodes[node].core.as_ref() else { return false };
        let seems_there = |id: &NodeId| core.life(*id).is_some_and(|(_, liveness)| liveness <= Liveness::Suspect);
        let is_behind = self.live().any(|(_, other)| other.electorate().id > core.electorate().id);
        let is_another_due = self.nodes.iter().any(|node| node.is_refused);
        is_behind
            || is_another_due
            || self.replaced.iter().any(|id| core.electorate().voters.contains(id) && seems_there(id))
    }

    fn ask(&mut self, node: usize, op: usize, request: Request, key: Key) {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.asked.insert(id, Asked { node, op, at: self.now, key });
        self.feed(node, Event::Request { id, request });
    }

    /// The first from this one on that answers a client.
    pub(super) fn answering(&self, from: usize) -> Option<usize> {
        let count = self.nodes.len();
        let reachable = |n: &usize| {
            let node = &self.nodes[*n];
            node.core.is_some() && node.paused_until <= self.now && node.back_at.is_none()
        };
        (0..count).map(|n| (from + n) % count).find(reachable)
    }

    /// The next of those that were not there from the beginning.
    fn join(&mut self, number: usize) {
        let earlier = self
            .plan
            .ops
            .iter()
            .enumerate()
            .filter(|(n, o)| o.op == Op::Join && (o.at_ms, *n) < (self.plan.ops[number].at_ms, number));
        let node = self.plan.nodes + earlier.count();
        self.trace.say(self.now, Some(node), || "joins".to_owned());
        self.probes.hit("a node joined a cluster at work");
        self.nodes[node].gone = false;
        self.start_soon(node);
    }

    /// What the client sends after it has read what it needs to; `None` if it sees nothing to do.
    fn request(&self, node: usize, op: &Op) -> Option<(Request, Key)> {
        let core = self.nodes[node].core.as_ref()?;
        let id = |name: &str| ServiceId::of_name(self.cluster, name);
        let target = |n: usize| self.nodes.get(n).map(|node| node.id);
        Some(match op {
            Op::Create { service, spec } => {
                let spec_json = spec::spec_json(service, spec);
                (Request::CreateService { spec_json, auth: None }, Key::Service(id(service)))
            }
            Op::Update { service, change } => {
                let view = core.service(id(service))?;
                let spec_json = spec::changed(&view.spec_json, change)?;
                let version = Some(view.index);
                let id = id(service);
                (Request::UpdateService { id, version, spec_json, auth: None }, Key::Service(id))
            }
            Op::Rollback { service } => {
                let id = id(service);
                (Request::RollbackService { id, version: None, to: None }, Key::Service(id))
            }
            Op::RemoveService { service } => {
                let id = id(service);
                (Request::RemoveService { id }, Key::Service(id))
            }
            Op::Availability { target: n, to } => {
                let id = target(*n)?;
                let availability: Availability = to.parse().ok()?;
                let request = Request::UpdateNode { id, version: None, availability: Some(availability), labels: None };
                (request, Key::NodePolicy(id))
            }
            Op::Join => return None,
            Op::RemoveNode { target: n } => {
                let id = target(*n)?;
                (Request::RemoveNode { id, force: true }, Key::NodePolicy(id))
            }
        })
    }

    pub(super) fn answered(&mut self, node: usize, id: RequestId, reply: Reply) {
        self.check_answered(node, id);
        let Some(asked) = self.asked.remove(&id) else { return };
        match reply {
            Ok(accepted) => {
                let pending = accepted.warnings.iter().any(|w| w.starts_with("pending"));
                self.trace
                    .say(self.now, Some(node), || format!("answers op {}: accepted {:?}", asked.op, accepted.warnings));
                if pending {
                    self.probes.hit("a write was acknowledged with a warning");
                } else {
                    if self.nodes[node].refused_at > asked.at {
                        self.probes.hit("a write that a full disk refused was acknowledged later");
                    }
                    self.promised(node, asked.key, accepted.index);
                }
            }
            Err(refused) => {
                self.probes.hit("a write was refused");
                let text = refused.to_string();
                self.trace.say(self.now, Some(node), || format!("answers op {}: refused: {text}", asked.op));
            }
        }
    }
}
