//! Stories of the runner and the watcher with an engine made of switches, on virtual time.

use super::{Changes, Engine, EngineHandle, spawn};
use crate::ids::{ClusterId, NodeId, TaskId};
use crate::model::container::{
    ContainerState, EngineEvent, EngineInfo, EngineOp, ObservedContainer, OpError, OpId, Owner,
};
use futures_util::{StreamExt, stream};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Up,
    Down,
    Hung,
}

/// `Start` makes a container of that name appear; `Stop` takes its grace; everything else is instant.
#[derive(Clone)]
struct Switches {
    mode: Arc<watch::Sender<Mode>>,
    hints: Arc<watch::Sender<u64>>,
    names: Arc<Mutex<BTreeSet<String>>>,
    lists: Arc<Mutex<Vec<Instant>>>,
    list_takes: Arc<Mutex<Duration>>,
}

impl Switches {
    fn new() -> Self {
        Self {
            mode: Arc::new(watch::Sender::new(Mode::Up)),
            hints: Arc::new(watch::Sender::new(0)),
            names: Arc::default(),
            lists: Arc::default(),
            list_takes: Arc::default(),
        }
    }

    async fn reach(&self) -> Result<(), OpError> {
        let mut mode = self.mode.subscribe();
        let now = *mode.wait_for(|mode| *mode != Mode::Hung).await.unwrap();
        if now == Mode::Up { Ok(()) } else { Err(OpError::Unreachable("switched off".to_owned())) }
    }

    fn hint(&self) {
        self.hints.send_modify(|n| *n += 1);
    }

    fn lists(&self) -> usize {
        self.lists.lock().unwrap().len()
    }
}

impl Engine for Switches {
    async fn ping(&self) -> Result<(), OpError> {
        self.reach().await
    }

    async fn info(&self) -> Result<EngineInfo, OpError> {
        self.reach().await.map(|()| EngineInfo::default())
    }

    async fn execute(&self, _: Owner, op: EngineOp) -> Result<(), OpError> {
        self.reach().await?;
        match op {
            EngineOp::Start { name } => {
                self.names.lock().unwrap().insert(name);
            }
            EngineOp::Stop { grace, .. } => sleep(grace).await,
            EngineOp::Probe { .. } => return Err(OpError::TimedOut("no port".to_owned())),
            _ => {}
        }
        Ok(())
    }

    async fn list(&self, _: Owner) -> Result<Vec<ObservedContainer>, OpError> {
        self.reach().await?;
        self.lists.lock().unwrap().push(Instant::now());
        let names = self.names.lock().unwrap().clone();
        let takes = *self.list_takes.lock().unwrap();
        sleep(takes).await;
        self.reach().await?;
        Ok(names.into_iter().map(observed).collect())
    }

    fn changes(&self, _: Owner) -> Changes {
        let watched = (self.hints.subscribe(), self.mode.subscribe());
        stream::unfold(watched, |(mut hints, mut mode)| async {
            tokio::select! {
                _ = hints.changed() => Some((Ok(()), (hints, mode))),
                _ = async { mode.wait_for(|mode| *mode == Mode::Down).await.map(drop) } => None,
            }
        })
        .boxed()
    }
}

fn observed(name: String) -> ObservedContainer {
    ObservedContainer {
        id: name.clone(),
        name,
        task: TaskId::from_u128(1),
        attempt: 0,
        state: ContainerState::Created,
        pid: None,
        address: None,
    }
}

struct Stage {
    engine: Switches,
    handle: EngineHandle,
    events: mpsc::Receiver<EngineEvent>,
    stop: CancellationToken,
}

impl Stage {
    fn set() -> Self {
        Self::with(Switches::new())
    }

    fn with(engine: Switches) -> Self {
        let owner = Owner { cluster: ClusterId::from_u128(1), node: NodeId::from_u128(2) };
        let (sender, events) = mpsc::channel(100);
        let stop = CancellationToken::new();
        let handle = spawn(engine.clone(), owner, sender, stop.clone());
        Self { engine, handle, events, stop }
    }

    async fn next(&mut self) -> EngineEvent {
        timeout(Duration::from_secs(120), self.events.recv()).await.expect("no event came").expect("the runner ended")
    }

    async fn up(&mut self) {
        assert!(matches!(self.next().await, EngineEvent::Reachable(_)));
        assert!(matches!(self.next().await, EngineEvent::Observed(_)));
    }

    /// Skips what else comes.
    async fn done(&mut self, op: u64) -> Result<(), OpError> {
        loop {
            if let EngineEvent::Done { op: OpId(done), result } = self.next().await
                && done == op
            {
                return result;
            }
        }
    }

    async fn unreachable(&mut self) -> String {
        loop {
            match self.next().await {
                EngineEvent::Unreachable(why) => return why,
                EngineEvent::Reachable(_) => panic!("reachable twice"),
                _ => {}
            }
        }
    }
}

fn start(name: &str) -> EngineOp {
    EngineOp::Start { name: name.to_owned() }
}

fn stop(grace_s: u64) -> EngineOp {
    EngineOp::Stop { name: "a".to_owned(), signal: None, grace: Duration::from_secs(grace_s) }
}

#[tokio::test(start_paused = true)]
async fn at_the_start_the_engine_is_reported_with_its_containers() {
    let mut stage = Stage::set();
    stage.up().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_vanishes_is_unreachable_once_until_it_is_back() {
    let mut stage = Stage::set();
    stage.up().await;
    let began = Instant::now();
    stage.engine.mode.send_replace(Mode::Down);
    assert_eq!(stage.unreachable().await, "switched off");
    assert!(began.elapsed() < Duration::from_secs(1), "its broken event stream tells at once: {:?}", began.elapsed());
    stage.handle.submit(OpId(1), start("a"));
    stage.handle.submit(OpId(2), EngineOp::List);
    for _ in 0..2 {
        let EngineEvent::Done { result, .. } = stage.next().await else { panic!("only answers while it is down") };
        assert_eq!(result, Err(OpError::Unreachable("switched off".to_owned())));
    }
    sleep(Duration::from_secs(30)).await;
    assert!(stage.events.try_recv().is_err(), "nothing new to say");
    stage.engine.mode.send_replace(Mode::Up);
    let began = Instant::now();
    stage.up().await;
    assert!(began.elapsed() <= Duration::from_millis(1_100));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_found_out() {
    let mut stage = Stage::set();
    stage.up().await;
    let began = Instant::now();
    stage.engine.mode.send_replace(Mode::Hung);
    assert_eq!(stage.unreachable().await, "no answer within 6 s");
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    stage.engine.mode.send_replace(Mode::Up);
    stage.up().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_not_there_at_the_start_is_reported_too() {
    let engine = Switches::new();
    engine.mode.send_replace(Mode::Down);
    let mut stage = Stage::with(engine);
    assert_eq!(stage.unreachable().await, "switched off");
    stage.engine.mode.send_replace(Mode::Up);
    stage.up().await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_hints_makes_one_list() {
    let mut stage = Stage::set();
    stage.up().await;
    let before = stage.engine.lists();
    for _ in 0..20 {
        stage.engine.hint();
        sleep(Duration::from_millis(1)).await;
    }
    assert!(matches!(stage.next().await, EngineEvent::Observed(_)));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.engine.lists(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn without_any_hint_it_lists_now_and_then() {
    let mut stage = Stage::set();
    stage.up().await;
    let began = Instant::now();
    assert!(matches!(stage.next().await, EngineEvent::Observed(_)));
    assert_eq!(began.elapsed().as_secs(), 10);
}

/// Law: an `Observed` after an operation's `Done` shows what came of it. Here each start ends while a list is under way.
#[tokio::test(start_paused = true)]
async fn a_list_that_was_overtaken_is_not_delivered() {
    let mut stage = Stage::set();
    stage.up().await;
    *stage.engine.list_takes.lock().unwrap() = Duration::from_millis(50);
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut delivered = 0;
    for n in 0..200u64 {
        stage.engine.hint();
        stage.handle.submit(OpId(n), start(&n.to_string()));
        sleep(Duration::from_millis(7)).await;
        while let Ok(event) = stage.events.try_recv() {
            match event {
                EngineEvent::Done { op, result } => {
                    result.unwrap();
                    done.insert(op.0.to_string());
                }
                EngineEvent::Observed(all) => {
                    delivered += 1;
                    let names: BTreeSet<String> = all.into_iter().map(|c| c.name).collect();
                    assert!(done.is_subset(&names), "done {done:?}, observed {names:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(delivered >= 4, "and lists are not starved: {delivered}");
}

#[tokio::test(start_paused = true)]
async fn asking_for_a_list_brings_one_and_then_the_answer() {
    let mut stage = Stage::set();
    stage.up().await;
    stage.handle.submit(OpId(9), EngineOp::List);
    assert!(matches!(stage.next().await, EngineEvent::Observed(_)));
    assert_eq!(stage.next().await, EngineEvent::Done { op: OpId(9), result: Ok(()) });
}

#[tokio::test(start_paused = true)]
async fn slow_stops_do_not_hold_up_starts() {
    let mut stage = Stage::set();
    stage.up().await;
    for n in 0..40 {
        stage.handle.submit(OpId(n), stop(30));
    }
    stage.handle.submit(OpId(100), start("b"));
    let began = Instant::now();
    assert_eq!(stage.done(100).await, Ok(()));
    assert!(began.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_takes_too_long_ends_as_unreachable_where_the_engine_is() {
    let mut stage = Stage::set();
    stage.up().await;
    stage.engine.mode.send_replace(Mode::Hung);
    stage.handle.submit(OpId(1), start("a"));
    let why = "no answer within 6 s".to_owned();
    assert_eq!(stage.done(1).await, Err(OpError::Unreachable(why)));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_times_out_says_nothing_about_the_engine() {
    let mut stage = Stage::set();
    stage.up().await;
    let probe = EngineOp::Probe { name: "a".to_owned(), port: 1, within: Duration::from_secs(1) };
    stage.handle.submit(OpId(1), probe);
    assert_eq!(stage.done(1).await, Err(OpError::TimedOut("no port".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn after_the_token_nothing_more_is_said() {
    let mut stage = Stage::set();
    stage.up().await;
    stage.handle.submit(OpId(1), stop(60));
    stage.stop.cancel();
    assert_eq!(stage.events.recv().await, None);
    stage.handle.submit(OpId(2), start("a"));
}
