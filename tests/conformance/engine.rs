//! An engine and the driver in front of it: operations that may be asked twice, answers with the engine's words, and
//! observations that show what came of every operation that was answered before them.

use peer::ids::{NodeId, ServiceId, TaskId};
use peer::model::container::{
    ContainerPlan, ContainerState, EngineEvent, EngineOp, Health, ObservedContainer, OpError, OpId,
};
use peer::model::spec::template::TemplateContext;
use peer::model::spec::{ContainerSpec, Healthcheck, Placement, Resources, RestartPolicy, TaskSpec};
use peer::model::task::Slot;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Where the images' servers listen.
pub const PORT: u16 = 5000;
/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(30);

/// What the engine on trial can run.
#[derive(Debug, Clone)]
pub struct Images {
    /// Serves on [`PORT`] and ends at once on SIGTERM, with 0.
    pub ok: String,
    /// Exits soon after its start.
    pub bad: String,
    /// No registry has it; the engine's words hold the second text.
    pub missing: (String, String),
    pub healthy: (String, Healthcheck),
    pub unhealthy: (String, Healthcheck),
}

pub trait Subject {
    fn submit(&mut self, op: OpId, what: EngineOp);
    fn next(&mut self) -> EngineEvent;
    /// Takes the engine away, or gives it back.
    fn outage(&mut self, down: bool);
    fn images(&self) -> Images;
    /// One that no container of an earlier trial was named after.
    fn new_task(&mut self) -> TaskId;
}

pub fn plan(task: TaskId, image: &str) -> ContainerPlan {
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
        context: TemplateContext {
            service_id: ServiceId::from_u128(7),
            service_name: "web".to_owned(),
            service_labels: BTreeMap::new(),
            node_id: NodeId::from_u128(8),
            node_hostname: "n1".to_owned(),
            node_os: "linux".to_owned(),
            node_arch: "x86_64".to_owned(),
            task_id: task,
            task_name: format!("web.1.{task}"),
            slot: Slot::Replica(1),
        },
    }
}

pub fn check(test: &[&str]) -> Healthcheck {
    Healthcheck {
        test: test.iter().map(|word| (*word).to_owned()).collect(),
        interval: Duration::from_millis(300),
        timeout: Duration::from_secs(5),
        retries: 2,
        ..Default::default()
    }
}

pub fn exit_code(state: &ContainerState) -> Option<i64> {
    match state {
        ContainerState::Exited { code, .. } => Some(*code),
        _ => None,
    }
}

pub fn health(state: &ContainerState) -> Option<Health> {
    match state {
        ContainerState::Running { health } => Some(*health),
        _ => None,
    }
}

/// A subject whose engine has come up.
struct Trial<'a, S> {
    subject: &'a mut S,
    images: Images,
    ops: u64,
    /// The last list, and how many there were.
    observed: Vec<ObservedContainer>,
    lists: u64,
}

impl<'a, S: Subject> Trial<'a, S> {
    fn begin(subject: &'a mut S) -> Self {
        let images = subject.images();
        let mut trial = Self { subject, images, ops: 0, observed: Vec::new(), lists: 0 };
        trial.comes_up();
        trial
    }

    /// `Reachable`, then a list, with nothing between.
    fn comes_up(&mut self) {
        match self.subject.next() {
            EngineEvent::Reachable(info) => {
                assert!(!info.version.is_empty() && info.nano_cpus > 0 && info.memory_bytes > 0, "{info:?}");
            }
            other => panic!("{other:?} before it was reachable"),
        }
        match self.subject.next() {
            EngineEvent::Observed(all) => self.observed = all,
            other => panic!("{other:?}, but a list follows at once"),
        }
    }

    fn submit(&mut self, what: EngineOp) -> OpId {
        self.ops += 1;
        self.subject.submit(OpId(self.ops), what);
        OpId(self.ops)
    }

    /// Takes one event; an answer is given back.
    fn step(&mut self) -> Option<(OpId, Result<(), OpError>)> {
        match self.subject.next() {
            EngineEvent::Done { op, result } => return Some((op, result)),
            EngineEvent::Observed(all) => {
                self.observed = all;
                self.lists += 1;
            }
            other => panic!("{other:?}, though nobody touched the engine"),
        }
        None
    }

    fn run(&mut self, what: EngineOp) -> Result<(), OpError> {
        let op = self.submit(what);
        loop {
            if let Some((done, result)) = self.step() {
                assert_eq!(done, op, "an answer that nobody waits for");
                return result;
            }
        }
    }

    fn plan(&mut self, image: &str) -> ContainerPlan {
        plan(self.subject.new_task(), image)
    }

    fn checked(&mut self, image: &str, check: &Healthcheck) -> ContainerPlan {
        let mut plan = self.plan(image);
        Arc::make_mut(&mut plan.spec).container.healthcheck = Some(check.clone());
        plan
    }

    fn pull(&mut self, image: &str) {
        self.run(EngineOp::Pull { image: image.to_owned(), auth: None }).unwrap();
    }

    fn create(&mut self, plan: &ContainerPlan) -> Result<(), OpError> {
        self.run(EngineOp::Create(Box::new(plan.clone())))
    }

    fn start(&mut self, plan: &ContainerPlan) -> Result<(), OpError> {
        self.run(EngineOp::Start { name: plan.name.clone() })
    }

    fn started(&mut self, plan: &ContainerPlan) {
        self.pull(&plan.spec.container.image);
        self.create(plan).unwrap();
        self.start(plan).unwrap();
    }

    fn stop(&mut self, plan: &ContainerPlan, signal: Option<&str>, grace: Duration) -> Result<(), OpError> {
        self.run(EngineOp::Stop { name: plan.name.clone(), signal: signal.map(str::to_owned), grace })
    }

    fn remove(&mut self, plan: &ContainerPlan) -> Result<(), OpError> {
        self.run(EngineOp::Remove { name: plan.name.clone() })
    }

    fn probe(&mut self, plan: &ContainerPlan, port: u16, within: Duration) -> Result<(), OpError> {
        self.run(EngineOp::Probe { name: plan.name.clone(), port, within })
    }

    /// Asked for anew: by the time a list is answered an observation has come.
    fn list(&mut self) -> Vec<ObservedContainer> {
        let before = self.lists;
        self.run(EngineOp::List).unwrap();
        assert!(self.lists > before, "a list was answered before it was told");
        self.observed.clone()
    }

    fn find(&mut self, plan: &ContainerPlan) -> Option<ObservedContainer> {
        self.list().into_iter().find(|c| c.name == plan.name)
    }

    fn state(&mut self, plan: &ContainerPlan) -> Option<ContainerState> {
        self.find(plan).map(|c| c.state)
    }

    /// Nobody asks: the driver tells by itself.
    fn await_state(&mut self, plan: &ContainerPlan, wanted: impl Fn(&ContainerState) -> bool) -> ContainerState {
        loop {
            let state = self.observed.iter().find(|c| c.name == plan.name).map(|c| &c.state);
            if let Some(state) = state.filter(|state| wanted(state)) {
                return state.clone();
            }
            assert_eq!(self.step(), None, "an answer that nobody waits for");
        }
    }
}

/// The life of a container from the first pull to the second removal.
pub fn a_container_lives_and_goes(subject: &mut impl Subject) {
    let mut trial = Trial::begin(subject);
    let plan = trial.plan(&trial.images.ok.clone());
    trial.pull(&plan.spec.container.image);
    trial.create(&plan).unwrap();
    trial.create(&plan).expect("creating twice is creating once");
    let all = trial.list();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((all[0].task, all[0].attempt, &all[0].state), (plan.task, 0, &ContainerState::Created));

    trial.start(&plan).unwrap();
    trial.start(&plan).expect("starting twice is starting once");
    trial.probe(&plan, PORT, LONG).unwrap();
    let running = trial.find(&plan).unwrap();
    assert_eq!(health(&running.state), Some(Health::None));
    assert!(running.pid.is_some_and(|pid| pid > 0) && running.address.is_some(), "{running:?}");

    trial.stop(&plan, None, LONG).unwrap();
    let stopped = trial.find(&plan).unwrap();
    assert_eq!(exit_code(&stopped.state), Some(0), "an observation after the stop shows it: {stopped:?}");
    assert_eq!((stopped.pid, stopped.address), (None, None));
    trial.stop(&plan, None, LONG).expect("stopping twice is stopping once");

    trial.remove(&plan).unwrap();
    trial.remove(&plan).expect("removing twice is removing once");
    trial.stop(&plan, None, LONG).expect("what is gone doesn't run");
    assert_eq!(trial.list(), []);
    assert!(matches!(trial.start(&plan), Err(OpError::Refused(_))));
}

pub fn images_that_are_not_there_are_refused_with_words(subject: &mut impl Subject) {
    let mut trial = Trial::begin(subject);
    let (image, words_of_it) = trial.images.missing.clone();
    let error = trial.run(EngineOp::Pull { image: image.clone(), auth: None }).unwrap_err();
    assert!(matches!(&error, OpError::Refused(words) if words.contains(&words_of_it)), "{error:?}");
    let plan = trial.plan(&image);
    let error = trial.create(&plan).unwrap_err();
    assert!(matches!(&error, OpError::Refused(words) if words.contains("No such image")), "{error:?}");
    assert_eq!(trial.list(), []);
}

pub fn a_crash_is_seen_with_its_code(subject: &mut impl Subject) {
    let mut trial = Trial::begin(subject);
    let plan = trial.plan(&trial.images.bad.clone());
    trial.started(&plan);
    let error = trial.probe(&plan, PORT, LONG).unwrap_err();
    let state = trial.await_state(&plan, |state| exit_code(state).is_some());
    let told = format!("exited with {}", exit_code(&state).unwrap());
    assert!(matches!(&error, OpError::Refused(words) if words.contains(&told)), "{error:?}, not {told}");
    trial.start(&plan).expect("it may be tried again");
    trial.remove(&plan).unwrap();
}

pub fn sigkill_and_removal_end_a_running_container(subject: &mut impl Subject) {
    let mut trial = Trial::begin(subject);
    let image = trial.images.ok.clone();
    let (killed, removed) = (trial.plan(&image), trial.plan(&image));
    trial.started(&killed);
    trial.started(&removed);
    trial.stop(&killed, Some("SIGKILL"), LONG).unwrap();
    assert_eq!(trial.state(&killed).as_ref().and_then(exit_code), Some(137));
    trial.remove(&removed).unwrap();
    let left: Vec<String> = trial.list().into_iter().map(|c| c.name).collect();
    assert_eq!(left, std::slice::from_ref(&killed.name));
    trial.remove(&killed).unwrap();
}

/// A stop that is asked to wait does not hold up what concerns other containers.
pub fn operations_of_different_containers_go_side_by_side(subject: &mut impl Subject) {
    let mut trial = Trial::begin(subject);
    let (image, never) = (trial.images.ok.clone(), 1);
    let (waits, other) = (trial.plan(&image), trial.plan(&image));
    trial.started(&waits);
    let probe = trial.submit(EngineOp::Probe { name: waits.name.clone(), port: never, within: LONG * 4 });
    let create = trial.submit(EngineOp::Create(Box::new(other.clone())));
    let first = loop {
        if let Some((op, result)) = trial.step() {
            result.unwrap();
            break op;
        }
    };
    assert_eq!(first, create, "the probe ({probe:?}) held it up");
    let removal = trial.submit(EngineOp::Remove { name: waits.name.clone() });
    let mut answers = BTreeMap::new();
    while answers.len() < 2 {
        if let Some((op, result)) = trial.step() {
            answers.insert(op, result);
        }
    }
    assert_eq!(answers.remove(&removal), Some(Ok(())));
    assert!(matches!(answers.remove(&probe), Some(Err(OpError::Refused(_)))), "what is gone isn't waited for");
    trial.remove(&other).unwrap();
}

pub fn a_probe_gives_up_in_time(subject: &mut impl Subject) {
    let mut trial = Trial::begin(subject);
    let plan = trial.plan(&trial.images.ok.clone());
    trial.started(&plan);
    let error = trial.probe(&plan, 1, Duration::from_millis(300)).unwrap_err();
    assert!(matches!(&error, OpError::TimedOut(words) if words.contains("port 1 ")), "{error:?}");
    trial.remove(&plan).unwrap();
    assert!(matches!(trial.probe(&plan, PORT, LONG), Err(OpError::Refused(_))));
}

pub fn health_checks_are_reported(subject: &mut impl Subject) {
    let mut trial = Trial::begin(subject);
    let images = trial.images.clone();
    let healthy = trial.checked(&images.healthy.0, &images.healthy.1);
    let unhealthy = trial.checked(&images.unhealthy.0, &images.unhealthy.1);
    trial.started(&healthy);
    assert_eq!(trial.state(&healthy).as_ref().and_then(health), Some(Health::Starting));
    trial.started(&unhealthy);
    trial.await_state(&healthy, |state| health(state) == Some(Health::Healthy));
    trial.await_state(&unhealthy, |state| health(state) == Some(Health::Unhealthy));
    trial.remove(&healthy).unwrap();
    trial.remove(&unhealthy).unwrap();
}

pub fn another_attempt_under_the_same_name_is_a_conflict(subject: &mut impl Subject) {
    let mut trial = Trial::begin(subject);
    let first = trial.plan(&trial.images.ok.clone());
    let second = ContainerPlan { attempt: 1, ..first.clone() };
    trial.pull(&first.spec.container.image);
    trial.create(&first).unwrap();
    let error = trial.create(&second).unwrap_err();
    assert!(matches!(&error, OpError::Refused(words) if words.contains("already in use")), "{error:?}");
    trial.remove(&first).unwrap();
}

/// Gone once, back once, and what happened meanwhile is seen.
pub fn an_outage_is_told_once_and_survived(subject: &mut impl Subject) {
    let mut trial = Trial::begin(subject);
    let plan = trial.plan(&trial.images.ok.clone());
    trial.started(&plan);
    trial.await_state(&plan, |state| health(state).is_some());

    trial.subject.outage(true);
    loop {
        match trial.subject.next() {
            EngineEvent::Unreachable(_) => break,
            EngineEvent::Observed(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let op = trial.submit(EngineOp::Start { name: plan.name.clone() });
    match trial.subject.next() {
        EngineEvent::Done { op: answered, result: Err(OpError::Unreachable(_)) } => assert_eq!(answered, op),
        other => panic!("{other:?}, not that it is out of reach"),
    }

    trial.subject.outage(false);
    trial.comes_up();
    assert!(trial.observed.iter().any(|c| c.name == plan.name && health(&c.state).is_some()), "{:?}", trial.observed);
    trial.remove(&plan).unwrap();
    trial.lists = 0;
    assert_eq!(trial.list(), []);
}
