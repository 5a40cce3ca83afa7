//! What every engine must do, tried with each: the demo engine always, a Docker Engine where one is offered. What the
//! simulator's engine must do, too, is told in `tests/conformance/engine.rs` and tried here through the runner.
//!
//!
//! - `PEER_TEST_DOCKER_SOCK`: the path of its socket; this process must be able to reach its containers' addresses.
//! - `PEER_TEST_IMAGE_OK`: a server on TCP port 5000 that exits with 0 on SIGTERM and on SIGUSR1, ignores SIGTERM with `DEAF=1`
//!   in its environment, and has `/greeter --check`, which exits with 0 once the port is open.
//! - `PEER_TEST_IMAGE_BAD`: exits with 1 soon after its start.
//!
//! Without them the Docker half says that it is skipped, and why.
#![cfg(feature = "shell")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod conformance;

use conformance::engine::{Images, PORT, check, exit_code, health};
use futures_util::StreamExt;
use peer::ids::{ClusterId, NodeId, TaskId};
use peer::model::container::{
    ContainerPlan, ContainerState, EngineEvent, EngineOp, Health, ObservedContainer, OpError, OpId, Owner,
};
use peer::model::spec::{
    ContainerSpec, Dns, Healthcheck, LogDriver, Mount, MountKind, Protocol, PublishMode, PublishedPort, Resources,
    Ulimit,
};
use peer::shell::engine::{DemoEngine, DockerEngine, Engine, EngineHandle, spawn};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

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
    conformance::engine::plan(TaskId::from_u128(unique()), image)
}

/// The subject behind the runner and the watcher, as an agent has it.
struct Driven {
    events: mpsc::Receiver<EngineEvent>,
    handle: EngineHandle,
    images: Images,
    outage: Outage,
    runtime: Runtime,
}

impl Driven {
    fn new<E: Engine + Clone>(make: impl FnOnce() -> Option<Subject<E>>) -> Option<Self> {
        let runtime = Runtime::new().unwrap();
        let inside = runtime.enter();
        let subject = make()?;
        let (sender, events) = mpsc::channel(100);
        // Ends with its runtime.
        let handle = spawn(subject.engine.clone(), subject.owner, sender, CancellationToken::new());
        // An address that refuses at once stands for a registry; the words are the engine's own.
        let missing = ("127.0.0.1:9/no/such-image:1".to_owned(), "127.0.0.1:9".to_owned());
        let Subject { ok, bad, healthy, unhealthy, outage, .. } = subject;
        drop(inside);
        Some(Self { events, handle, images: Images { ok, bad, missing, healthy, unhealthy }, outage, runtime })
    }
}

impl conformance::engine::Subject for Driven {
    fn submit(&mut self, op: OpId, what: EngineOp) {
        self.handle.submit(op, what);
    }

    fn next(&mut self) -> EngineEvent {
        let event = self.runtime.block_on(async { timeout(PATIENCE, self.events.recv()).await });
        event.expect("the awaited event did not come").expect("the runner ended")
    }

    fn outage(&mut self, down: bool) {
        self.runtime.block_on(async { (self.outage)(down).await });
    }

    fn images(&self) -> Images {
        self.images.clone()
    }

    fn new_task(&mut self) -> TaskId {
        TaskId::from_u128(unique())
    }
}

macro_rules! shared {
    ($module:ident: $make:path) => {
        mod $module {
            crate::conformance::stories!(engine, crate::Driven::new($make));
        }
    };
}

shared!(demo_driven: crate::demo);
shared!(docker_driven: crate::docker);

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

async fn ask(at: std::net::IpAddr, port: u16) -> String {
    let mut socket = TcpStream::connect((at, port)).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn a_container_answers_at_its_address<E: Engine>(subject: Subject<E>) {
    let plan = plan(&subject.ok);
    subject.run(EngineOp::Pull { image: subject.ok.clone(), auth: None }).await.unwrap();
    subject.started(&plan).await;
    subject.probe(&plan, PORT, PATIENCE).await.unwrap();
    let running = subject.find(&plan).await.unwrap();
    let answer = ask(running.address.expect("a running container has an address"), PORT).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Hello from greeter"), "{answer}");
    subject.stop(&plan, None, PATIENCE).await.unwrap();
    let Some(ContainerState::Exited { at, .. }) = subject.state(&plan).await else { panic!("it runs on") };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(now.abs_diff(at.0) < 60_000, "exited at {at:?}, now {now}");
    subject.remove(&plan).await.unwrap();
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

async fn changes_are_hinted_at<E: Engine>(subject: Subject<E>) {
    let plan = plan(&subject.ok);
    let mut changes = subject.engine.changes(subject.owner);
    subject.create(&plan).await.unwrap();
    let hint = timeout(PATIENCE, changes.next()).await.expect("no hint of the creation");
    assert_eq!(hint, Some(Ok(())));
    subject.remove(&plan).await.unwrap();
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

everywhere!(a_container_answers_at_its_address, foreign_containers_are_left_alone, changes_are_hinted_at);

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
