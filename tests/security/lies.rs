//! A member that lies about others. What binds what to whom is said in docs/threat-model.md; here each lie is told.

use crate::agents::{Running, pair, without_a_core};
use crate::net_support::{DEADLINE, Node, Rogue, closed};
use peer::core::face::Request;
use peer::ids::{NodeId, TaskId};
use peer::limits::MAX_MESSAGE_BYTES;
use peer::model::node::{Availability, Liveness, NodePolicy};
use peer::model::record::{Hlc, Key, Log, Record, Stamp, Term, Value};
use peer::model::task::{Desired, TaskPhase, TaskStatus};
use peer::shell::identity::{Identity, NodeName, certs};
use peer::shell::net::NetEvent;
use peer::wire::codec;
use peer::wire::message::{Digest, LeaseMessage, MemberEntry, MemberState, Message, Scope};
use quinn::ConnectionError;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A member's identity and network without a core behind: it keeps to no rules.
struct Liar {
    node: Node,
    /// Which life of its own it writes in, and what it wrote in it so far.
    life: u32,
    wrote: u32,
}

async fn a_pair_and_a_liar(dir: &Path) -> (Running, Running, Liar) {
    let (one, two) = pair(dir).await;
    let identity = one.joined_with(&one.token().await).await.unwrap().identity;
    (one, two, Liar { node: without_a_core(identity), life: 1, wrote: 0 })
}

impl Liar {
    fn id(&self) -> NodeId {
        self.node.id()
    }

    fn tell(&self, to: &Running, message: &Message) {
        self.node.net.send(to.id(), to.agent.addr, codec::encode(message), false);
    }

    /// Under its own name and the next number of its own log.
    fn own(&mut self, key: Key, value: Value, term: Term, hlc: Hlc) -> Record {
        self.wrote += 1;
        let log = Log { author: self.id(), life: self.life };
        Record { key, value: Some(value), stamp: Stamp { term, hlc, author: self.id() }, seq: log.seq(self.wrote) }
    }

    /// Everything that a node holds, as any member may ask. It must know where to answer, so it is told of a member.
    async fn learn(&mut self, from: &Running) -> Digest {
        let (node, addr) = (self.id(), self.node.addr);
        let me = MemberEntry { node, addr, bump: 1, incarnation: 0, state: MemberState::Alive };
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            self.tell(from, &Message::Members { members: vec![me.clone()], reply: false });
            self.tell(from, &Message::Ask { nonce: 7, scope: Scope::All, digest: Digest::new(), in_return: true });
            // One may have overtaken the other.
            while let Ok(Some(event)) = timeout(Duration::from_millis(300), self.node.events.recv()).await {
                let NetEvent::Message { bytes, .. } = event else { continue };
                if let Ok(Message::Delta { nonce: 7, upto, more: false, .. }) = codec::decode(&bytes, MAX_MESSAGE_BYTES)
                {
                    return upto;
                }
            }
        }
        panic!("waited for the answer to a question");
    }

    /// Tells these in one piece with something harmless, and returns when that was taken: so all of it was looked at.
    async fn is_heard(&mut self, by: &Running, lies: Vec<Record>) {
        let (id, label) = (self.id(), format!("{}", self.life));
        let labels = BTreeMap::from([("told".to_owned(), label.clone())]);
        let policy = NodePolicy { labels, ..NodePolicy::new(id) };
        let harmless = self.own(Key::NodePolicy(id), Value::NodePolicy(policy), Term::ZERO, later());
        let records = lies.into_iter().chain([harmless]).collect();
        self.tell(by, &Message::Push { records });
        by.until("the liar is heard", move |core| {
            core.node(id).is_some_and(|node| node.policy.labels.get("told") == Some(&label))
        })
        .await;
        (self.life, self.wrote) = (self.life + 1, 0);
    }
}

/// Later than anything that was written so far in these tests, and not too far ahead.
fn later() -> Hlc {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    let now = peer::shell::clock::wall();
    let minutes = TOLD.fetch_add(1, Ordering::Relaxed);
    Hlc::new(peer::time::Wall(now.0 + (60 + minutes) * 60 * 1_000), 0)
}

async fn service(on: &Running, replicas: u32) {
    let spec = serde_json::json!({
        "Name": "web",
        "TaskTemplate": {"ContainerSpec": {"Image": "demo/greeter:1"}},
        "Mode": {"Replicated": {"Replicas": replicas}},
    });
    on.request(Request::CreateService { spec_json: spec.to_string(), auth: None }).await.unwrap();
    on.until("all tasks run", move |core| {
        let running = |t: &peer::core::view::TaskView| t.status.as_ref().is_some_and(|s| s.phase == TaskPhase::Running);
        core.tasks().iter().filter(|t| running(t)).count() == replicas as usize
    })
    .await;
}

async fn task_of(node: &Running) -> (TaskId, TaskStatus) {
    let id = node.id();
    node.ask(move |core| {
        let task = core.tasks().into_iter().find(|t| t.task.node == Some(id)).expect("a task here");
        (task.task.id, task.status.expect("its status"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_made_with_the_cas_key_under_anothers_id_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, liar) = a_pair_and_a_liar(dir.path()).await;
    // As every member, the liar holds the CA's key.
    let identity: &Identity = &liar.node.identity;
    let ca_key = rcgen::KeyPair::from_pem(&identity.pem().ca_key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&identity.pem().ca, ca_key).unwrap();
    let key = certs::new_key().unwrap();
    let mint = |node| {
        let name = NodeName { node, cluster: identity.cluster() };
        let cert = certs::issue(name, &key, &issuer, peer::shell::clock::wall()).unwrap();
        let pem = |text: &str| rustls_pki_types::pem::PemObject::from_pem_slice(text.as_bytes()).unwrap();
        let chain = vec![pem(&cert), identity.ca().clone()];
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Rogue::showing(Some((chain, key)), b"peer/1")
    };
    let error = match mint(two.id()).call(one.id(), one.agent.addr).await {
        Ok(conn) => closed(&conn).await,
        Err(error) => error,
    };
    match error {
        ConnectionError::ConnectionClosed(close) => {
            let why = String::from_utf8_lossy(&close.reason).into_owned();
            assert!(why.contains("another node's key"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    // It isn't the making that is refused: under the id of its own key it is a member's certificate.
    let own = certs::node_of_key(&rcgen::PublicKeyData::subject_public_key_info(&key));
    let conn = mint(own).call(one.id(), one.agent.addr).await.unwrap();
    timeout(DEADLINE, conn.accept_uni()).await.expect("a hello").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn under_ones_own_name_nothing_can_be_said_that_is_anothers_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, mut liar) = a_pair_and_a_liar(dir.path()).await;
    service(&one, 4).await;
    let id = two.id();
    let fact = one.ask(move |core| core.node(id).unwrap().fact.unwrap()).await;
    let (task, status) = task_of(&two).await;
    let record = one.ask(move |core| core.tasks().into_iter().find(|t| t.task.id == task).unwrap().task).await;
    let term = one.ask(|core| core.cluster().holder.unwrap().1).await;
    let refused = one.ask(|core| core.cluster().refused_records).await;

    let false_fact = peer::model::node::NodeFact { hostname: "elsewhere".into(), nano_cpus: 1, ..fact.clone() };
    let failed = TaskStatus { phase: TaskPhase::Failed, error: "a lie".into(), ..status.clone() };
    let stopped = peer::model::task::Task { desired: Desired::Shutdown, ..record.clone() };
    let lies = vec![
        liar.own(Key::NodeFact(id), Value::NodeFact(false_fact), Term::ZERO, later()),
        liar.own(Key::TaskStatus(task), Value::TaskStatus(failed), Term::ZERO, later()),
        // Under the holder's term, and under none.
        liar.own(Key::Task(task), Value::Task(stopped.clone()), term, later()),
        liar.own(Key::Task(task), Value::Task(stopped), Term::ZERO, later()),
    ];
    liar.is_heard(&one, lies).await;
    let after = one.ask(|core| core.cluster().refused_records).await;
    assert_eq!(after - refused, 4, "each lie is counted");
    assert_eq!(one.ask(move |core| core.node(id).unwrap().fact).await, Some(fact));
    let now = one.ask(move |core| core.tasks().into_iter().find(|t| t.task.id == task).unwrap()).await;
    assert_eq!((now.task, now.status), (record, Some(status)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_about_anothers_task_is_corrected_by_the_node_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, mut liar) = a_pair_and_a_liar(dir.path()).await;
    service(&one, 4).await;
    let (task, status) = task_of(&two).await;
    // As if the task were the liar's own.
    let own = TaskStatus { node: liar.id(), phase: TaskPhase::Failed, error: "a lie".into(), ..status.clone() };
    let lie = liar.own(Key::TaskStatus(task), Value::TaskStatus(own), Term::ZERO, later());
    liar.tell(&two, &Message::Push { records: vec![lie.clone()] });
    liar.is_heard(&one, vec![lie]).await;
    let here = two.id();
    for node in [&one, &two] {
        node.until("its node has the last word", move |core| {
            let task = core.tasks().into_iter().find(|t| t.task.id == task).expect("it is still assigned");
            task.status.is_some_and(|status| status.node == here && status.phase == TaskPhase::Running)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_up_in_a_nodes_name_it_refuses_itself_or_outdoes() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, mut liar) = a_pair_and_a_liar(dir.path()).await;
    let id = two.id();
    let fact = two.ask(move |core| core.node(id).unwrap().fact.unwrap()).await;
    let false_fact = peer::model::node::NodeFact { hostname: "elsewhere".into(), ..fact.clone() };
    let forged = |log: Log, number: u32| Record {
        key: Key::NodeFact(id),
        value: Some(Value::NodeFact(false_fact.clone())),
        stamp: Stamp { term: Term::ZERO, hlc: later(), author: id },
        seq: log.seq(number),
    };
    // In the log of the life that it lives: nobody but itself writes there.
    let held = liar.learn(&two).await;
    let (log, last) = held.into_iter().find(|(log, _)| log.author == id).expect("its log");
    liar.tell(&two, &Message::Push { records: vec![forged(log, last + 1)] });
    let (base, upto) = (Digest::from([(log, last)]), Digest::from([(log, u32::MAX)]));
    let records = vec![forged(log, last + 1)];
    liar.tell(&two, &Message::Delta { nonce: 0, scope: Scope::All, base, records, upto, more: false });
    liar.is_heard(&two, Vec::new()).await;
    assert_eq!(two.ask(move |core| core.node(id).unwrap().fact).await, Some(fact.clone()));
    // Its own writes are numbered as if nothing had been said.
    let update = Request::UpdateNode { id, version: None, availability: Some(Availability::Pause), labels: None };
    let warnings = two.request(update).await.unwrap().warnings;
    assert!(warnings.is_empty(), "{warnings:?}");
    one.until("the other node has the write", move |core| {
        core.node(id).unwrap().policy.availability == Availability::Pause
    })
    .await;
    // In a life that may have been: it can't know, and says what is true again.
    let earlier = Log { author: id, life: log.life.wrapping_add(1) };
    for node in [&one, &two] {
        liar.tell(node, &Message::Push { records: vec![forged(earlier, 1)] });
    }
    liar.is_heard(&one, Vec::new()).await;
    for node in [&one, &two] {
        let fact = fact.clone();
        node.until("the node's own word stands", move |core| core.node(id).unwrap().fact.as_ref() == Some(&fact)).await;
    }
}

/// "You hold all of that node's log, up to the last number there is": what keeps the node's writes from the one who believes it (docs/threat-model.md)
/// does no more than that, and no longer than the node's life.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_beyond_all_bounds_ends_with_the_life_that_it_is_about() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, mut liar) = a_pair_and_a_liar(dir.path()).await;
    let id = two.id();
    let held = liar.learn(&one).await;
    let (log, last) = held.into_iter().find(|(log, _)| log.author == id).expect("its log");
    for base in [last, u32::MAX, u32::MAX] {
        let (base, upto) = (Digest::from([(log, base)]), Digest::from([(log, u32::MAX)]));
        let claim = Message::Delta { nonce: 0, scope: Scope::All, base, records: Vec::new(), upto, more: false };
        liar.tell(&one, &claim);
        liar.is_heard(&one, Vec::new()).await;
    }
    let two = two.again().await;
    let update = Request::UpdateNode { id, version: None, availability: Some(Availability::Pause), labels: None };
    two.request(update).await.unwrap();
    one.until("the other node has the write", move |core| {
        core.node(id).unwrap().policy.availability == Availability::Pause
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_said_to_be_dead_says_that_he_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, mut liar) = a_pair_and_a_liar(dir.path()).await;
    service(&one, 4).await;
    let (task, _) = task_of(&two).await;
    let id = two.id();
    let entry = one.ask(move |core| core.member_table().into_iter().find(|m| m.node == id).unwrap()).await;
    for bump in 0..20 {
        let dead = MemberEntry { state: MemberState::Down, incarnation: entry.incarnation + bump, ..entry.clone() };
        liar.tell(&one, &Message::Members { members: vec![dead], reply: false });
    }
    liar.is_heard(&one, Vec::new()).await;
    one.until("the accused is alive", move |core| core.node(id).is_some_and(|node| node.liveness == Liveness::Alive))
        .await;
    one.until("its task is where it was", move |core| {
        core.tasks().into_iter().any(|t| t.task.id == task && t.task.node == Some(id) && t.task.desired.is_live())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ballot_in_anothers_name_is_no_ballot() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, mut liar) = a_pair_and_a_liar(dir.path()).await;
    let holder = one.ask(|core| core.cluster().holder).await;
    let electorate = one.ask(|core| core.electorate().clone()).await;
    for node in [&one, &two] {
        let ballot = Term { round: 1 << 40, node: two.id() };
        for message in [
            LeaseMessage::Prepare { ballot, electorate: electorate.clone() },
            LeaseMessage::Propose { ballot, seq: 1, electorate: electorate.clone() },
            LeaseMessage::Release { ballot: holder.unwrap().1 },
        ] {
            liar.tell(node, &Message::Lease(message));
        }
    }
    liar.is_heard(&one, Vec::new()).await;
    liar.is_heard(&two, Vec::new()).await;
    assert_eq!(one.ask(|core| core.cluster().holder).await, holder);
    assert_eq!(one.ask(|core| core.electorate().clone()).await, electorate);
}
