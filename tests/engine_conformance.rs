//! What every engine must do, told once and tried with each: the demo engine always, a Docker Engine where one is offered:
//!
//! - `PEER_TEST_DOCKER_SOCK`: the path of its socket; this process must be able to reach its containers' addresses.
//! - `PEER_TEST_IMAGE_OK`: a server on TCP port 5000 that exits with 0 on SIGTERM and on SIGUSR1, ignores SIGTERM with `DEAF=1`
//!   in its environment, and has `/greeter --check`, which exits with 0 once the port is open.
//! - `PEER_TEST_IMAGE_BAD`: exits with 1 soon after its start.
//!
//! Without them the Docker half says that it is skipped, and why.
#![cfg(feature = "shell")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use futures_util::StreamExt;
use peer::ids::{ClusterId, NodeId, ServiceId, TaskId};
use peer::model::container::{
    ContainerPlan, ContainerState, EngineEvent, EngineOp, Health, ObservedContainer, OpError, OpId, Owner,
};
use peer::model::spec::{
    ContainerSpec, Dns, Healthcheck, LogDriver, Mount, MountKind, Placement, Protocol, PublishMode, PublishedPort,
    Resources, RestartPolicy, TaskSpec, Ulimit,
};
use peer::shell::engine::{DemoEngine, DockerEngine, Engine, spawn};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 5000;

type Outage = Box<dyn Fn(bool) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// One engine on trial, with what differs between them.
struct Subject<E> {
    engine: E,
    ok: String,
    bad: String,
    healthy: (String, Healthcheck),
    unhealthy: (String, Healthcheck),
    /// Takes the engine away, or gives it back.
    outage: Outage,
    owner: Owner,
}

fn unique() -> u128 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    (nanos << 32) | (u128::from(std::process::id() as u16) << 16) | u128::from(NEXT.fetch_add(1, Ordering::Relaxed))
}

fn owner() -> Owner {
    Owner { cluster: ClusterId::from_u128(unique()), node: NodeId::from_u128(unique()) }
}

fn check(test: &[&str]) -> Healthcheck {
    Healthcheck {
        test: test.iter().map(|word| (*word).to_owned()).collect(),
        interval: Duration::from_millis(300),
        timeout: Duration::from_secs(5),
        retries: 2,
        ..Default::default()
    }
}

fn demo() -> Option<Subject<DemoEngine>> {
    let engine = DemoEngine::new().on_host("node-1");
    let switch = engine.clone();
    Some(Subject {
        ok: "demo/greeter:1".into(),
        bad: "demo/greeter:bad".into(),
        healthy: ("demo/greeter:2".into(), check(&["CMD", "true"])),
        unhealthy: ("demo/greeter:sick".into(), check(&[])),
        outage: Box::new(move |down| {
            switch.set_down(down);
            Box::pin(async {})
        }),
        owner: owner(),
        engine,
    })
}

fn docker() -> Option<Subject<DockerEngine>> {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(socket), Some(ok), Some(bad)) =
        (var("PEER_TEST_DOCKER_SOCK"), var("PEER_TEST_IMAGE_OK"), var("PEER_TEST_IMAGE_BAD"))
    else {
        eprintln!(
            "SKIPPED: the Docker half of the engine conformance suite needs PEER_TEST_DOCKER_SOCK, PEER_TEST_IMAGE_OK \
             and PEER_TEST_IMAGE_BAD (see the top of tests/engine_conformance.rs)"
        );
        return None;
    };
    let door = Door::new(socket.into());
    let path = door.path.clone();
    Some(Subject {
        engine: DockerEngine::new(path),
        healthy: (ok.clone(), check(&["CMD", "/greeter", "--check"])),
        unhealthy: (ok.clone(), check(&["CMD", "/no-such-program"])),
        outage: Box::new(move |down| Box::pin(door.clone().shut(down))),
        owner: owner(),
        ok,
        bad,
    })
}

/// A socket before the engine's, which can be shut: then there is nothing at its path.
#[derive(Clone)]
struct Door {
    engine: PathBuf,
    path: PathBuf,
    _dir: Arc<tempfile::TempDir>,
    open: Arc<watch::Sender<bool>>,
}

impl Door {
    fn new(engine: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let door = Self { engine, path, _dir: Arc::new(dir), open: Arc::new(watch::Sender::new(true)) };
        door.serve();
        door
    }

    fn serve(&self) {
        let listener = UnixListener::bind(&self.path).unwrap();
        let (engine, mut open) = (self.engine.clone(), self.open.subscribe());
        tokio::spawn(async move {
            let mut talks = tokio::task::JoinSet::new();
            loop {
                let mut inside = tokio::select! {
                    Ok((inside, _)) = listener.accept() => inside,
                    _ = open.changed() => return,
                };
                let engine = engine.clone();
                talks.spawn(async move {
                    let mut outside = UnixStream::connect(engine).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                });
            }
        });
    }

    async fn shut(self, down: bool) {
        if down {
            std::fs::remove_file(&self.path).unwrap();
            self.open.send_replace(false);
        } else {
            self.serve();
        }
    }
}

fn plan(image: &str) -> ContainerPlan {
    let task = TaskId::from_u128(unique());
    let container = ContainerSpec { image: image.to_owned(), ..Default::default() };
    let spec = TaskSpec {
        container,
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: Placement::default(),
        log_driver: None,
        force_update: 0,
    };
    ContainerPlan {
        name: format!("web.1.{task}"),
        service: ServiceId::from_u128(7),
        task,
        attempt: 0,
        labels: BTreeMap::from([("com.docker.swarm.task.name".to_owned(), "web.1".to_owned())]),
        spec: Arc::new(spec),
        hostname: None,
        env: Vec::new(),
        host_ports: Vec::new(),
        files: Vec::new(),
        networks: Vec::new(),
    }
}

fn with_check(image: &str, check: &Healthcheck) -> ContainerPlan {
    let mut plan = plan(image);
    Arc::make_mut(&mut plan.spec).container.healthcheck = Some(check.clone());
    plan
}

impl<E: Engine> Subject<E> {
    async fn run(&self, op: EngineOp) -> Result<(), OpError> {
        self.run_for(self.owner, op).await
    }

    async fn run_for(&self, owner: Owner, op: EngineOp) -> Result<(), OpError> {
        let what = format!("{op:?}");
        let result = timeout(PATIENCE, self.engine.execute(owner, op)).await;
        result.unwrap_or_else(|_| panic!("{what} did not end"))
    }

    async fn create(&self, plan: &ContainerPlan) -> Result<(), OpError> {
        self.run(EngineOp::Create(Box::new(plan.clone()))).await
    }

    async fn start(&self, plan: &ContainerPlan) -> Result<(), OpError> {
        self.run(EngineOp::Start { name: plan.name.clone() }).await
    }

    async fn started(&self, plan: &ContainerPlan) {
        self.create(plan).await.unwrap();
        self.start(plan).await.unwrap();
    }

    async fn stop(&self, plan: &ContainerPlan, signal: Option<&str>, grace: Duration) -> Result<(), OpError> {
        self.run(EngineOp::Stop { name: plan.name.clone(), signal: signal.map(str::to_owned), grace }).await
    }

    async fn remove(&self, plan: &ContainerPlan) -> Result<(), OpError> {
        self.run(EngineOp::Remove { name: plan.name.clone() }).await
    }

    async fn probe(&self, plan: &ContainerPlan, port: u16, within: Duration) -> Result<(), OpError> {
        self.run(EngineOp::Probe { name: plan.name.clone(), port, within }).await
    }

    async fn list(&self) -> Vec<ObservedContainer> {
        self.engine.list(self.owner).await.unwrap()
    }

    async fn find(&self, plan: &ContainerPlan) -> Option<ObservedContainer> {
        self.list().await.into_iter().find(|c| c.name == plan.name)
    }

    async fn state(&self, plan: &ContainerPlan) -> Option<ContainerState> {
        self.find(plan).await.map(|c| c.state)
    }

    /// Lists until the container is as wanted.
    async fn await_state(&self, plan: &ContainerPlan, wanted: impl Fn(&ContainerState) -> bool) -> ContainerState {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state(plan).await;
            if let Some(state) = state.as_ref().filter(|state| wanted(state)) {
                return state.clone();
            }
            assert!(Instant::now() < deadline, "not as wanted: {state:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Which code it exited with, if it has.
fn exit_code(state: &ContainerState) -> Option<i64> {
    match state {
        ContainerState::Exited { code, .. } => Some(*code),
        _ => None,
    }
}

fn health(state: &ContainerState) -> Option<Health> {
    match state {
        ContainerState::Running { health } => Some(*health),
        _ => None,
    }
}

async fn ask(at: std::net::IpAddr, port: u16) -> String {
    let mut socket = TcpStream::connect((at, port)).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The life of a container from the first pull to the second removal.
async fn a_container_lives_and_goes<E: Engine>(subject: Subject<E>) {
    let plan = plan(&subject.ok);
    subject.run(EngineOp::Pull { image: subject.ok.clone(), auth: None }).await.unwrap();
    subject.create(&plan).await.unwrap();
    subject.create(&plan).await.expect("creating twice is creating once");
    let all = subject.list().await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((all[0].task, all[0].attempt, &all[0].state), (plan.task, 0, &ContainerState::Created));

    subject.start(&plan).await.unwrap();
    subject.start(&plan).await.expect("starting twice is starting once");
    subject.probe(&plan, PORT, Duration::from_secs(10)).await.unwrap();
    let running = subject.find(&plan).await.unwrap();
    assert_eq!(health(&running.state), Some(Health::None));
    assert!(running.pid.is_some_and(|pid| pid > 0), "{running:?}");
    let answer = ask(running.address.expect("a running container has an address"), PORT).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Hello from greeter"), "{answer}");

    subject.stop(&plan, None, Duration::from_secs(10)).await.unwrap();
    let stopped = subject.find(&plan).await.unwrap();
    assert_eq!(exit_code(&stopped.state), Some(0), "an observation after the stop shows it: {stopped:?}");
    assert_eq!((stopped.pid, stopped.address), (None, None));
    let ContainerState::Exited { at, .. } = stopped.state else { unreachable!() };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(now.abs_diff(at.0) < 60_000, "exited at {at:?}, now {now}");
    subject.stop(&plan, None, Duration::from_secs(10)).await.expect("stopping twice is stopping once");

    subject.remove(&plan).await.unwrap();
    subject.remove(&plan).await.expect("removing twice is removing once");
    subject.stop(&plan, None, Duration::from_secs(1)).await.expect("what is gone doesn't run");
    assert_eq!(subject.list().await, []);
    assert!(matches!(subject.start(&plan).await, Err(OpError::Refused(_))));
}

async fn images_that_are_not_there_are_refused_with_words<E: Engine>(subject: Subject<E>) {
    // An address that refuses at once stands for a registry; the words are the engine's own.
    let image = "127.0.0.1:9/no/such-image:1".to_owned();
    let error = subject.run(EngineOp::Pull { image: image.clone(), auth: None }).await.unwrap_err();
    let OpError::Refused(words) = &error else { panic!("{error:?}") };
    assert!(words.contains("127.0.0.1:9"), "{words}");
    let error = subject.create(&plan(&image)).await.unwrap_err();
    assert!(matches!(&error, OpError::Refused(words) if words.contains("No such image")), "{error:?}");
}

async fn a_crash_is_seen_with_its_code<E: Engine>(subject: Subject<E>) {
    let plan = plan(&subject.bad);
    subject.started(&plan).await;
    let error = subject.probe(&plan, PORT, PATIENCE).await.unwrap_err();
    assert!(matches!(&error, OpError::Refused(words) if words.contains("exited with 1")), "{error:?}");
    let state = subject.await_state(&plan, |state| exit_code(state).is_some()).await;
    assert_eq!(exit_code(&state), Some(1));
    subject.remove(&plan).await.unwrap();
}

async fn sigkill_and_removal_end_a_running_container<E: Engine>(subject: Subject<E>) {
    let (killed, removed) = (plan(&subject.ok), plan(&subject.ok));
    subject.started(&killed).await;
    subject.started(&removed).await;
    subject.stop(&killed, Some("SIGKILL"), Duration::from_secs(10)).await.unwrap();
    assert_eq!(subject.state(&killed).await.as_ref().and_then(exit_code), Some(137));
    subject.remove(&removed).await.unwrap();
    assert_eq!(subject.list().await.len(), 1);
    subject.remove(&killed).await.unwrap();
}

async fn a_probe_gives_up_in_time<E: Engine>(subject: Subject<E>) {
    let plan = plan(&subject.ok);
    subject.started(&plan).await;
    let error = subject.probe(&plan, 1, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(&error, OpError::TimedOut(words) if words.contains("port 1 ")), "{error:?}");
    subject.remove(&plan).await.unwrap();
    assert!(matches!(subject.probe(&plan, PORT, PATIENCE).await, Err(OpError::Refused(_))));
}

async fn health_checks_are_reported<E: Engine>(subject: Subject<E>) {
    let healthy = with_check(&subject.healthy.0, &subject.healthy.1);
    let unhealthy = with_check(&subject.unhealthy.0, &subject.unhealthy.1);
    subject.started(&healthy).await;
    assert_eq!(subject.state(&healthy).await.as_ref().and_then(health), Some(Health::Starting));
    subject.started(&unhealthy).await;
    subject.await_state(&healthy, |state| health(state) == Some(Health::Healthy)).await;
    subject.await_state(&unhealthy, |state| health(state) == Some(Health::Unhealthy)).await;
    subject.remove(&healthy).await.unwrap();
    subject.remove(&unhealthy).await.unwrap();
}

/// Two agents share an engine; neither sees or touches what is the other's.
async fn foreign_containers_are_left_alone<E: Engine>(subject: Subject<E>) {
    let plan = plan(&subject.ok);
    subject.started(&plan).await;
    for foreign in [Owner { node: NodeId::from_u128(1), ..subject.owner }, owner()] {
        assert_eq!(subject.engine.list(foreign).await.unwrap(), []);
        let name = plan.name.clone();
        let touches = [
            EngineOp::Create(Box::new(plan.clone())),
            EngineOp::Start { name: name.clone() },
            EngineOp::Stop { name: name.clone(), signal: None, grace: Duration::from_secs(1) },
            EngineOp::Remove { name: name.clone() },
        ];
        for op in touches {
            let what = format!("{op:?}");
            assert!(matches!(subject.run_for(foreign, op).await, Err(OpError::Refused(_))), "{what}");
        }
    }
    assert_eq!(subject.state(&plan).await.as_ref().and_then(health), Some(Health::None));
    subject.remove(&plan).await.unwrap();
}

async fn another_attempt_under_the_same_name_is_a_conflict<E: Engine>(subject: Subject<E>) {
    let first = plan(&subject.ok);
    let second = ContainerPlan { attempt: 1, ..first.clone() };
    subject.create(&first).await.unwrap();
    let error = subject.create(&second).await.unwrap_err();
    assert!(matches!(&error, OpError::Refused(words) if words.contains("already in use")), "{error:?}");
    subject.remove(&first).await.unwrap();
}

async fn changes_are_hinted_at<E: Engine>(subject: Subject<E>) {
    let plan = plan(&subject.ok);
    let mut changes = subject.engine.changes(subject.owner);
    subject.create(&plan).await.unwrap();
    let hint = timeout(PATIENCE, changes.next()).await.expect("no hint of the creation");
    assert_eq!(hint, Some(Ok(())));
    subject.remove(&plan).await.unwrap();
}

/// The runner's view through an outage: gone once, back once, and what happened meanwhile is seen.
async fn the_runner_survives_an_outage<E: Engine + Clone>(subject: Subject<E>) {
    let plan = plan(&subject.ok);
    let (sender, mut events) = mpsc::channel(100);
    let stop = CancellationToken::new();
    let handle = spawn(subject.engine.clone(), subject.owner, sender, stop.clone());
    let info = wait_for(&mut events, |event| match event {
        EngineEvent::Reachable(info) => Some(info),
        other => panic!("{other:?} before it was reachable"),
    })
    .await;
    assert!(!info.version.is_empty() && info.nano_cpus > 0 && info.memory_bytes > 0, "{info:?}");
    assert!(matches!(events.recv().await, Some(EngineEvent::Observed(_))));

    handle.submit(OpId(1), EngineOp::Create(Box::new(plan.clone())));
    wait_for(&mut events, |event| (event == done(1, Ok(()))).then_some(())).await;
    handle.submit(OpId(2), EngineOp::Start { name: plan.name.clone() });
    // Both orders are fine: the event and the answer race.
    let mut started = (false, false);
    while started != (true, true) {
        match timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            EngineEvent::Done { result, .. } => {
                result.unwrap();
                started.0 = true;
            }
            EngineEvent::Observed(all) => started.1 |= all.iter().any(|c| health(&c.state).is_some()),
            other => panic!("{other:?}"),
        }
    }

    (subject.outage)(true).await;
    wait_for(&mut events, |event| matches!(event, EngineEvent::Unreachable(_)).then_some(())).await;
    handle.submit(OpId(3), EngineOp::Start { name: plan.name.clone() });
    let refused = events.recv().await;
    let is_unreachable =
        |event: &EngineEvent| matches!(event, EngineEvent::Done { op: OpId(3), result: Err(OpError::Unreachable(_)) });
    assert!(refused.as_ref().is_some_and(is_unreachable), "{refused:?}");

    (subject.outage)(false).await;
    let back = timeout(PATIENCE, events.recv()).await.unwrap();
    assert!(matches!(back, Some(EngineEvent::Reachable(_))), "{back:?}");
    let Some(EngineEvent::Observed(all)) = events.recv().await else { panic!("a list follows at once") };
    assert!(all.iter().any(|c| c.name == plan.name && health(&c.state).is_some()), "{all:?}");

    handle.submit(OpId(4), EngineOp::Remove { name: plan.name.clone() });
    wait_for(&mut events, |event| (event == done(4, Ok(()))).then_some(())).await;
    wait_for(&mut events, |event| (event == EngineEvent::Observed(Vec::new())).then_some(())).await;
    stop.cancel();
}

fn done(op: u64, result: Result<(), OpError>) -> EngineEvent {
    EngineEvent::Done { op: OpId(op), result }
}

async fn wait_for<T>(events: &mut mpsc::Receiver<EngineEvent>, wanted: impl Fn(EngineEvent) -> Option<T>) -> T {
    let found = async {
        loop {
            let event = events.recv().await.expect("the runner ended");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("the wanted event did not come")
}

macro_rules! conformance {
    ($engine:ident: $($story:ident),* $(,)?) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    if let Some(subject) = super::$engine() {
                        super::$story(subject).await;
                    }
                }
            )*
        }
    };
}

macro_rules! everywhere {
    ($($story:ident),* $(,)?) => {
        conformance!(demo: $($story),*);
        conformance!(docker: $($story),*);
    };
}

everywhere!(
    a_container_lives_and_goes,
    images_that_are_not_there_are_refused_with_words,
    a_crash_is_seen_with_its_code,
    sigkill_and_removal_end_a_running_container,
    a_probe_gives_up_in_time,
    health_checks_are_reported,
    foreign_containers_are_left_alone,
    another_attempt_under_the_same_name_is_a_conflict,
    changes_are_hinted_at,
    the_runner_survives_an_outage,
);

#[tokio::test]
async fn docker_stops_the_deaf_and_by_any_signal() {
    let Some(subject) = docker() else { return };
    let deaf = ContainerPlan { env: vec!["DEAF=1".to_owned()], ..plan(&subject.ok) };
    subject.started(&deaf).await;
    subject.probe(&deaf, PORT, PATIENCE).await.unwrap();
    let began = Instant::now();
    subject.stop(&deaf, None, Duration::from_secs(1)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "the grace is given: {:?}", began.elapsed());
    assert_eq!(subject.state(&deaf).await.as_ref().and_then(exit_code), Some(137));
    subject.start(&deaf).await.unwrap();
    subject.probe(&deaf, PORT, PATIENCE).await.unwrap();
    subject.stop(&deaf, Some("SIGUSR1"), Duration::from_secs(30)).await.unwrap();
    assert_eq!(subject.state(&deaf).await.as_ref().and_then(exit_code), Some(0));
    subject.remove(&deaf).await.unwrap();
}

/// A real engine takes every field in the form in which we send it; the port is bound on this machine too.
#[tokio::test]
async fn docker_takes_a_rich_spec() {
    let Some(subject) = docker() else { return };
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let mount = |kind, target: &str, options| Mount {
        kind,
        source: None,
        target: target.to_owned(),
        read_only: false,
        options: serde_json::from_str(options).unwrap(),
    };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut plan = plan(&subject.ok);
    plan.hostname = Some("web-1".to_owned());
    plan.env = strings(&["A=1", "B=two words"]);
    plan.host_ports = vec![PublishedPort {
        name: String::new(),
        protocol: Protocol::Tcp,
        target: PORT,
        published: free,
        mode: PublishMode::Host,
    }];
    let spec = Arc::make_mut(&mut plan.spec);
    spec.resources = Resources { limit_nano_cpus: 500_000_000, limit_memory: 64 << 20, ..Default::default() };
    spec.log_driver =
        Some(LogDriver { name: "json-file".into(), options: [("max-size".to_owned(), "1m".to_owned())].into() });
    spec.container = ContainerSpec {
        dir: Some("/tmp".into()),
        user: Some("0:0".into()),
        groups: strings(&["44"]),
        read_only: true,
        mounts: vec![
            mount(MountKind::Tmpfs, "/tmp", r#"{"TmpfsOptions": {"SizeBytes": 1048576, "Mode": 1023}}"#),
            mount(MountKind::Volume, "/data", r#"{"VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}}}"#),
        ],
        stop_signal: Some("SIGUSR1".into()),
        stop_grace: Some(Duration::from_secs(3)),
        healthcheck: Some(check(&["CMD", "/greeter", "--check"])),
        hosts: strings(&["10.0.0.9 db database"]),
        dns: Dns { servers: strings(&["10.0.0.1"]), search: strings(&["lan"]), options: strings(&["ndots:1"]) },
        sysctls: [("net.core.somaxconn".to_owned(), "256".to_owned())].into(),
        cap_add: strings(&["NET_ADMIN"]),
        cap_drop: strings(&["MKNOD"]),
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 512, hard: 1024 }],
        oom_score_adj: 100,
        ..spec.container.clone()
    };
    subject.started(&plan).await;
    subject.probe(&plan, PORT, PATIENCE).await.unwrap();
    assert!(ask(std::net::Ipv4Addr::LOCALHOST.into(), free).await.contains("Hello"));
    subject.await_state(&plan, |state| health(state) == Some(Health::Healthy)).await;

    let taken = ContainerPlan { name: format!("{}.taken", plan.name), attempt: 1, ..plan.clone() };
    subject.create(&taken).await.unwrap();
    let error = subject.start(&taken).await.unwrap_err();
    assert!(matches!(&error, OpError::Refused(words) if words.contains("port is already allocated")), "{error:?}");
    assert_eq!(subject.state(&taken).await, Some(ContainerState::Created));

    let mut bound = ContainerPlan { name: format!("{}.bound", plan.name), attempt: 2, ..plan.clone() };
    let nowhere = Mount { source: Some("/no/such/path".into()), ..mount(MountKind::Bind, "/x", "{}") };
    Arc::make_mut(&mut bound.spec).container.mounts = vec![nowhere];
    let error = subject.create(&bound).await.unwrap_err();
    assert!(matches!(&error, OpError::Refused(words) if words.contains("/no/such/path")), "{error:?}");
    subject.remove(&taken).await.unwrap();
    subject.remove(&plan).await.unwrap();
}

#[tokio::test]
async fn docker_does_without_the_registry_where_the_image_is_here() {
    let Some(subject) = docker() else { return };
    subject.run(EngineOp::Pull { image: subject.ok.clone(), auth: None }).await.unwrap();
    let again = Instant::now();
    subject.run(EngineOp::Pull { image: subject.ok.clone(), auth: None }).await.unwrap();
    // A registry that is asked and doesn't answer is waited for for five.
    assert!(again.elapsed() < Duration::from_secs(4), "the next task doesn't ask again: {:?}", again.elapsed());
}

#[tokio::test]
async fn the_demo_crashes_a_task_on_request_and_lets_others_live() {
    let subject = demo().unwrap();
    let (victim, other) = (plan(&subject.ok), plan(&subject.ok));
    subject.started(&victim).await;
    subject.started(&other).await;
    let addresses: Vec<_> = subject.list().await.iter().map(|c| c.address.unwrap()).collect();
    assert_ne!(addresses[0], addresses[1], "each has its own");
    assert!(subject.engine.kill(victim.task));
    let state = subject.await_state(&victim, |state| exit_code(state).is_some()).await;
    assert_eq!(exit_code(&state), Some(137));
    assert!(!subject.engine.kill(victim.task), "it is dead already");
    assert!(subject.state(&other).await.as_ref().and_then(health).is_some());
}

#[tokio::test]
async fn demo_containers_outlive_their_agent() {
    let subject = demo().unwrap();
    let plan = ContainerPlan { env: vec!["GREETING=Good morning".to_owned()], ..plan(&subject.ok) };
    let agent = subject.engine.clone();
    agent.execute(subject.owner, EngineOp::Create(Box::new(plan.clone()))).await.unwrap();
    agent.execute(subject.owner, EngineOp::Start { name: plan.name.clone() }).await.unwrap();
    drop(agent);
    let answer = ask(subject.find(&plan).await.unwrap().address.unwrap(), PORT).await;
    assert!(answer.ends_with("Good morning from greeter 1 (task web.1 on node-1)\n"), "{answer}");
}
