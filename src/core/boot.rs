//! The start of a life: from what the disk holds, or from nothing.

use super::face::{Boot, Effect};
use super::*;
use crate::model::lease::Electorate;
use crate::model::record::ClusterSettings;
use crate::wire::message::MemberEntry;
use rand::SeedableRng;

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("the stored records can't be read: {0}")]
    Store(#[from] store::LoadError),
    #[error("the stored {what} can't be read: {why}")]
    Value { what: &'static str, why: codec::CodecError },
    #[error("the data directory holds no lease state, though it is not new: it is not whole")]
    NotWhole,
}

impl Core {
    /// The first effects are waiting when this returns.
    pub fn boot(boot: Boot, now: Now) -> Result<Self, BootError> {
        let me = boot.node;
        let bump = read::<u64>(&boot, DISK_BUMP, "incarnation")?.unwrap_or(0) + 1;
        let members = read::<Vec<MemberEntry>>(&boot, DISK_MEMBERS, "member table")?.unwrap_or_default();
        let durable = match (read::<lease::Durable>(&boot, DISK_LEASE, "lease state")?, &boot.first) {
            (Some(durable), _) => durable,
            (None, Some(first)) => lease::Durable {
                promised: Term::ZERO,
                electorate: first_electorate(me, first.members.is_none()),
                round_used: 0,
                floor: Term::ZERO,
                put_back: false,
            },
            (None, None) => return Err(BootError::NotWhole),
        };
        let doubt = read::<(Term, bool)>(&boot, DISK_VOWS, "lease state")?;
        let (floor, put_back) = doubt.unwrap_or((Term::ZERO, false));
        let durable = lease::Durable { floor, put_back, ..durable };
        let store = Store::load(me, boot.boot, boot.keep, &boot.durable)?;
        let seed = boot.boot;
        let timing = boot.timing;
        let membership_config = membership::Config {
            probe_period: timing.probe_period,
            probe_rtt: timing.probe_rtt,
            suspect_to_down: timing.suspect_to_down,
        };
        let lease_timing =
            lease::Timing { acceptor: timing.lease_acceptor, holder: timing.lease_holder, renew: timing.lease_renew };
        let joined = match store.get(&Key::NodeFact(me)) {
            Some(Value::NodeFact(fact)) => fact.joined,
            _ => now.wall,
        };
        let fact = NodeFact {
            id: me,
            hostname: boot.hostname.clone(),
            addr: boot.addr,
            os: String::new(),
            arch: String::new(),
            nano_cpus: 0,
            memory_bytes: 0,
            agent_version: boot.agent_version.clone(),
            engine_version: String::new(),
            engine_labels: BTreeMap::new(),
            engine: EngineState::Unknown,
            boot: boot.boot,
            joined,
            blocked_ports: BTreeMap::new(),
        };
        let owner = crate::model::container::Owner { cluster: boot.cluster, node: me };
        let mut core = Self {
            cluster: boot.cluster,
            me,
            addr: boot.addr,
            outbox: Outbox::default(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            membership: Membership::new(me, boot.addr, bump, membership_config, seed ^ 1, now.mono),
            bump_persist: PersistId(0),
            lease: Lease::new(me, lease_timing, durable.clone(), boot.first.is_some(), seed ^ 2, now.mono),
            worker: Worker::new(owner, boot.hostname.clone(), 1, now.mono),
            store,
            fact,
            leading: None,
            specs: BTreeMap::new(),
            statuses: Vec::new(),
            deliveries: deliveries::Deliveries::new(boot.delivers, seed),
            pending: Vec::new(),
            withdrawals: withdraw::Withdrawals::default(),
            routes: routing::Routes::new(me),
            removed: BTreeSet::new(),
            turned_away_by: BTreeSet::new(),
            ban_due: false,
            tombstone_retention: timing.tombstone_retention,
            steady: steady::Steady::new(now),
            members_persisted: Vec::new(),
            passing: replication::Passing::default(),
            greeted: (now.mono, 0),
            next_exchange: now.mono + EXCHANGE_EVERY,
            young_until: now.mono + YOUTH,
            next_tidy: now.mono + TIDY_EVERY,
            stopping: None,
            suspicions: 0,
            refuted: 0,
            chronicle: None,
            changes: 0,
            liveness_dirty: true,
            liveness_news: BTreeSet::new(),
            told_of_all: None,
            last_now: now,
        };
        // Allowed once a term has read what the voters hold.
        core.lease.forbid_changes();
        core.start(bump, durable, members, boot.first, now);
        Ok(core)
    }

    fn start(
        &mut self,
        bump: u64,
        durable: lease::Durable,
        members: Vec<MemberEntry>,
        first: Option<face::FirstBoot>,
        now: Now,
    ) {
        let mut writes = vec![(DISK_BUMP.to_vec(), Some(codec::encode(&bump)))];
        if first.is_some() {
            writes.push((DISK_LEASE.to_vec(), Some(codec::encode(&durable))));
        }
        let mut seeds = members;
        if let Some(first) = first {
            if let Some(members) = first.members {
                writes.push((DISK_MEMBERS.to_vec(), Some(codec::encode(&members))));
                seeds = members;
            } else {
                let settings = ClusterSettings { created: now.wall, join_secret: first.join_secret };
                self.store.write(vec![(Key::Cluster, Some(Value::Cluster(settings)))], Term::ZERO, now);
            }
            let policy =
                NodePolicy { availability: first.availability, labels: first.labels, ..NodePolicy::new(self.me) };
            self.store.write(vec![(Key::NodePolicy(self.me), Some(Value::NodePolicy(policy)))], Term::ZERO, now);
        }
        self.bump_persist = self.outbox.persist(writes);
        self.adopt_records(now);
        self.membership.restore(seeds, now.mono);
        self.write_fact(now);
        // The data plane starts empty and says when it follows the first table.
        self.outbox.push_now(Effect::Publish { version: 0, table: Arc::default() });
        self.settle(now);
    }

    /// What the records of the last life mean for the parts.
    fn adopt_records(&mut self, now: Now) {
        let removed: Vec<NodeId> = self.store.nodes().into_iter().filter(|n| self.policy(*n).removed).collect();
        for node in removed {
            self.check_removal(node, now);
        }
        if let Some(Value::Electorate(electorate)) = self.store.get(&Key::Electorate) {
            self.lease.learn(electorate.clone(), now.mono);
        }
        if let Some(term) = self.store.records().map(|r| r.stamp.term).max() {
            self.lease.saw_term(term, now.mono);
        }
        let revisions: Vec<_> = self.store.all_revisions().collect();
        for (service, revision) in revisions {
            self.spec(service, revision);
        }
        for task in self.store.tasks() {
            self.routes.task_changed(task.id, Some(task));
        }
        for status in self.store.statuses().filter(|s| s.node == self.me) {
            self.deliveries.remember(status);
        }
        for service in self.store.services() {
            self.routes.service_changed(service.id);
        }
        let mine: Vec<TaskId> = self.store.tasks().filter(|t| t.node == Some(self.me)).map(|t| t.id).collect();
        for task in mine {
            self.assign(task, now);
        }
        // What was removed while this node was away may still have a container here.
        let buried: Vec<TaskId> = self.store.buried_tasks().collect();
        for task in buried {
            self.worker.forget(task, now);
        }
    }
}

/// The founder votes alone at first; who joins knows no electorate until the records tell.
fn first_electorate(me: NodeId, founds: bool) -> Electorate {
    let mut electorate = Electorate::first(me);
    if !founds {
        electorate.voters.clear();
    }
    electorate
}

fn read<T: serde::de::DeserializeOwned>(boot: &Boot, key: &[u8], what: &'static str) -> Result<Option<T>, BootError> {
    let bytes = boot.durable.get(key);
    bytes.map(|b| codec::decode(b, limits::MAX_MESSAGE_BYTES)).transpose().map_err(|why| BootError::Value { what, why })
}
