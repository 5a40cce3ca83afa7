//! Stop only what nobody routes to (DESIGN rule 6). Before a task's container gets its SIGTERM, every live node
//! is asked to say that it holds the record which withdrew the task and that its data plane follows it.

use super::*;

const RESEND_AFTER: Duration = Duration::from_millis(250);
/// Questions from others kept waiting for our own records or data plane; they are asked again anyway.
pub(super) const MAX_WAITING_QUESTIONS: usize = 10_000;

#[derive(Default)]
pub(super) struct Withdrawals {
    ours: BTreeMap<TaskId, Withdrawal>,
    /// Asked by others: answered once we hold the record and the routes made from it are in force.
    asked: Vec<Asked>,
}

struct Withdrawal {
    author: NodeId,
    seq: u64,
    waiting_for: BTreeSet<NodeId>,
    /// Our own data plane must follow at least this table.
    routes: u64,
    resend_at: Mono,
}

struct Asked {
    by: NodeId,
    author: NodeId,
    seq: u64,
    /// Set once the record is here.
    routes: Option<u64>,
}

impl Withdrawals {
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.ours.values().map(|w| w.resend_at).min()
    }

    pub(super) fn questions(&self) -> usize {
        self.asked.len()
    }

    /// A node that is down routes nothing.
    pub(super) fn node_gone(&mut self, node: NodeId) {
        for withdrawal in self.ours.values_mut() {
            withdrawal.waiting_for.remove(&node);
        }
        self.asked.retain(|asked| asked.by != node);
    }
}

impl Core {
    /// The worker wants to stop a task that may be getting traffic.
    pub(super) fn withdraw(&mut self, task: TaskId, now: Now) {
        // The record that withdrew it, or if it is gone altogether whatever we hold last of the author.
        let Some((author, seq)) = self.store.record(&Key::Task(task)).map(|r| (r.stamp.author, r.seq)) else {
            self.worker.handle_withdrawn(task, now);
            return;
        };
        let live =
            self.membership.members().filter(|m| m.liveness <= Liveness::Suspect && !self.removed.contains(&m.node));
        let waiting_for = live.map(|m| m.node).collect();
        // The table without the task is published in this very turn, if it isn't yet.
        self.publish_routes();
        let withdrawal = Withdrawal { author, seq, waiting_for, routes: self.routes.version, resend_at: now.mono };
        self.withdrawals.ours.insert(task, withdrawal);
        self.resend_withdrawals(now);
    }

    pub(super) fn resend_withdrawals(&mut self, now: Now) {
        let mut questions = Vec::new();
        for (task, withdrawal) in self.withdrawals.ours.iter_mut().filter(|(_, w)| w.resend_at <= now.mono) {
            withdrawal.resend_at = now.mono + RESEND_AFTER;
            // Who holds a later version may no longer know of the log that held this one.
            if let Some(record) = self.store.record(&Key::Task(*task)) {
                (withdrawal.author, withdrawal.seq) = (record.stamp.author, record.seq);
            }
            let question = Message::SeenAsk { author: withdrawal.author, seq: withdrawal.seq };
            questions.extend(withdrawal.waiting_for.iter().map(|node| (*node, question.clone())));
        }
        for (node, question) in questions {
            self.send(node, &question);
        }
        let worker = &self.worker;
        // The worker doesn't wait for ever: what has ended by now needs no more asking.
        self.withdrawals.ours.retain(|task, _| worker.status(*task).is_some_and(|s| !s.is_over()));
    }

    pub(super) fn handle_seen(&mut self, from: NodeId, author: NodeId, seq: u64) {
        for withdrawal in self.withdrawals.ours.values_mut() {
            if withdrawal.author == author && withdrawal.seq == seq {
                withdrawal.waiting_for.remove(&from);
            }
        }
    }

    /// Tells the worker of the tasks that nobody routes to any more. True if there were any.
    pub(super) fn check_withdrawals(&mut self, now: Now) -> bool {
        let applied = self.routes.applied;
        let ours = &mut self.withdrawals.ours;
        let done: Vec<TaskId> = ours
            .iter()
            .filter(|(_, w)| w.waiting_for.is_empty() && w.routes <= applied)
            .map(|(task, _)| *task)
            .collect();
        for task in &done {
            ours.remove(task);
        }
        for task in &done {
            self.worker.handle_withdrawn(*task, now);
        }
        !done.is_empty()
    }

    pub(super) fn handle_seen_ask(&mut self, by: NodeId, author: NodeId, seq: u64) {
        let known = self.withdrawals.asked.iter().any(|a| a.by == by && a.author == author && a.seq == seq);
        if !known && self.withdrawals.asked.len() < MAX_WAITING_QUESTIONS {
            self.withdrawals.asked.push(Asked { by, author, seq, routes: None });
        }
    }

    /// Answers the questions whose time has come. True if any was.
    pub(super) fn answer_seen(&mut self) -> bool {
        let mut answers = Vec::new();
        let (store, routes) = (&self.store, &self.routes);
        self.withdrawals.asked.retain_mut(|asked| {
            if asked.routes.is_none() && store.holds(asked.author, asked.seq) {
                asked.routes = Some(routes.version);
            }
            let seen = asked.routes.is_some_and(|version| version <= routes.applied);
            if seen {
                answers.push((asked.by, asked.author, asked.seq));
            }
            !seen
        });
        for (by, author, seq) in &answers {
            self.send(*by, &Message::Seen { author: *author, seq: *seq });
        }
        !answers.is_empty()
    }
}
