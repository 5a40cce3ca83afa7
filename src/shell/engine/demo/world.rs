//! The containers of the demo engine and how they live.

use super::greeter::{KILLED, Order, serve, told};
use super::log::Log;
use super::{Image, gone};
use crate::ids::TaskId;
use crate::model::container::{ContainerPlan, ContainerState, Health, ObservedContainer, OpError, Owner};
use crate::model::spec::Healthcheck;
use crate::shell::engine::{not_ours, refused};
use crate::time::Wall;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const DEFAULT_PORT: u16 = 5000;
/// How long `demo/greeter:bad` and `demo/job:1` last.
const BAD_LASTS: Duration = Duration::from_millis(50);
/// Docker's is 30 s, which is long to watch.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const DEFAULT_RETRIES: u32 = 3;
/// Addresses tried before giving up; others on this machine may run a demo too.
const ADDRESSES_TRIED: u16 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Up,
    Down,
    Hung,
}

/// What is watched: whether the engine answers, and that something changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pulse {
    pub reach: Reach,
    changes: u64,
}

pub(super) struct World {
    containers: Mutex<BTreeMap<String, Container>>,
    pulse: watch::Sender<Pulse>,
    /// The last address that was given out; none is given twice.
    address: Mutex<u16>,
}

struct Container {
    owner: Owner,
    image: Image,
    host: String,
    plan: ContainerPlan,
    observed: ObservedContainer,
    log: Arc<Log>,
    /// Its process, while there is one.
    life: Option<Life>,
}

#[derive(Clone)]
struct Life {
    orders: watch::Sender<Order>,
    over: CancellationToken,
}

impl World {
    pub fn new() -> Self {
        // Processes side by side start at different places, so that they seldom meet.
        let address = (std::process::id().wrapping_mul(7919) % 0xffff) as u16;
        Self {
            containers: Mutex::default(),
            pulse: watch::Sender::new(Pulse { reach: Reach::Up, changes: 0 }),
            address: Mutex::new(address),
        }
    }

    pub fn subscribe(&self) -> watch::Receiver<Pulse> {
        self.pulse.subscribe()
    }

    pub fn set_reach(&self, reach: Reach) {
        self.pulse.send_modify(|pulse| pulse.reach = reach);
    }

    /// Fails while the engine is down, waits while it hangs.
    pub async fn reached(&self) -> Result<(), OpError> {
        let mut pulse = self.pulse.subscribe();
        // Fails only if the sender has gone, and we hold it.
        let now = pulse.wait_for(|pulse| pulse.reach != Reach::Hung).await.map(|pulse| pulse.reach);
        if matches!(now, Ok(Reach::Up)) { Ok(()) } else { Err(gone()) }
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, Container>) -> T) -> T {
        f(&mut self.containers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn changed(&self) {
        self.pulse.send_modify(|pulse| pulse.changes += 1);
    }

    pub fn list(&self, owner: Owner) -> Vec<ObservedContainer> {
        self.with(|all| all.values().filter(|c| c.owner == owner).map(|c| c.observed.clone()).collect())
    }

    pub fn find(&self, owner: Owner, name: &str) -> Result<Option<ObservedContainer>, OpError> {
        self.with(|all| Ok(all.owned(owner, name)?.map(|c| c.observed.clone())))
    }

    pub fn create(&self, owner: Owner, plan: &ContainerPlan, host: &str) -> Result<(), OpError> {
        let reference = &plan.spec.container.image;
        let image = Image::find(reference).map_err(|_| refused(format!("No such image: {reference}")))?;
        // Networks mean nothing where every container has an address that all others reach.
        for planned in &plan.files {
            planned.bytes().map_err(refused)?;
        }
        let made = self.with(|all| {
            if let Some(there) = all.get(&plan.name) {
                let same = there.owner == owner && there.plan.task == plan.task && there.plan.attempt == plan.attempt;
                let (name, id) = (&plan.name, &there.observed.id);
                return if same {
                    Ok(false)
                } else {
                    Err(refused(format!(
                        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\"."
                    )))
                };
            }
            let observed = ObservedContainer {
                name: plan.name.clone(),
                id: format!("{:032x}{:032x}", plan.task.as_u128(), plan.attempt),
                task: plan.task,
                attempt: plan.attempt,
                state: ContainerState::Created,
                pid: None,
                address: None,
            };
            let log = Arc::new(Log::new(plan.task));
            let container =
                Container { owner, image, host: host.to_owned(), plan: plan.clone(), observed, log, life: None };
            all.insert(plan.name.clone(), container);
            Ok(true)
        })?;
        if made {
            self.changed();
        }
        Ok(())
    }

    pub async fn start(world: &Arc<Self>, owner: Owner, name: &str) -> Result<(), OpError> {
        let begun = world.with(|all| {
            let container = all.owned(owner, name)?.ok_or_else(|| refused(format!("No such container: {name}")))?;
            Ok(container.life.is_none().then(|| Process::of(container)))
        })?;
        let Some(process) = begun else { return Ok(()) };
        let mut doors = world.open(&process).await?;
        let Some(address) = doors.first().and_then(|door| door.local_addr().ok()).map(|at| at.ip()) else {
            return Err(refused("the container got no address"));
        };
        if matches!(process.image, Image::Bad | Image::Job) {
            // It never gets as far as listening.
            doors.clear();
        }
        let (orders, heard) = watch::channel(Order::Run);
        let life = Life { orders, over: CancellationToken::new() };
        let started = world.with(|all| {
            let Ok(Some(container)) = all.owned(owner, name) else { return false };
            if container.life.is_some() {
                return false;
            }
            let says = match process.image {
                Image::Bad => "greeter: this version is broken".to_owned(),
                Image::Job => process.greeting.trim_end().to_owned(),
                _ => format!("greeter: listening on {address}:{}", process.port),
            };
            container.log.say(process.image == Image::Bad, &says);
            container.life = Some(life.clone());
            container.observed.state = ContainerState::Running { health: process.first_health() };
            container.observed.pid = Some(i64::from(std::process::id()));
            container.observed.address = Some(address);
            true
        });
        if started {
            world.changed();
            tokio::spawn(live(world.clone(), process, doors, heard, life));
        }
        Ok(())
    }

    /// The container's own address, then its host-mode ports.
    async fn open(&self, process: &Process) -> Result<Vec<TcpListener>, OpError> {
        let mut doors = vec![self.own_address(process.port).await?];
        for port in &process.host_ports {
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            let door = TcpListener::bind(at).await.map_err(|error| match error.kind() {
                ErrorKind::AddrInUse => refused(format!("Bind for {at} failed: port is already allocated")),
                _ => refused(format!("Bind for {at} failed: {error}")),
            })?;
            doors.push(door);
        }
        Ok(doors)
    }

    async fn own_address(&self, port: u16) -> Result<TcpListener, OpError> {
        if cfg!(not(target_os = "linux")) {
            return TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
                refused(format!(
                    "127.0.0.1:{port} can't be had, and this system gives the demo only that address: {error}"
                ))
            });
        }
        for _ in 0..ADDRESSES_TRIED {
            let ip = self.next_address();
            match TcpListener::bind((ip, port)).await {
                Ok(door) => return Ok(door),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(refused(format!("{ip}:{port} can't be had: {error}"))),
            }
        }
        Err(refused(format!("no free address in 127.77.0.0/16 for port {port}")))
    }

    fn next_address(&self) -> IpAddr {
        let mut last = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            *last = last.wrapping_add(1);
            let [high, low] = last.to_be_bytes();
            if low != 0 && low != 255 {
                return IpAddr::from([127, 77, high, low]);
            }
        }
    }

    pub async fn stop(&self, owner: Owner, name: &str, signal: Option<&str>, grace: Duration) -> Result<(), OpError> {
        let Some(life) = self.life(owner, name)? else { return Ok(()) };
        let kills =
            signal.is_some_and(|signal| matches!(signal.to_ascii_uppercase().as_str(), "SIGKILL" | "KILL" | "9"));
        life.order(if kills { Order::Kill } else { Order::Term });
        if timeout(grace, life.over.cancelled()).await.is_err() {
            life.order(Order::Kill);
            life.over.cancelled().await;
        }
        Ok(())
    }

    pub async fn remove(&self, owner: Owner, name: &str) -> Result<(), OpError> {
        if let Some(life) = self.life(owner, name)? {
            life.order(Order::Kill);
            life.over.cancelled().await;
        }
        let removed = self.with(|all| Ok(all.owned(owner, name)?.is_some().then(|| all.remove(name)).flatten()))?;
        if let Some(container) = removed {
            container.log.end();
            self.changed();
        }
        Ok(())
    }

    fn life(&self, owner: Owner, name: &str) -> Result<Option<Life>, OpError> {
        self.with(|all| Ok(all.owned(owner, name)?.and_then(|c| c.life.clone())))
    }

    pub fn file(&self, task: TaskId, target: &str) -> Option<Vec<u8>> {
        let content = |container: &Container| {
            let planned = container.plan.files.iter().find(|planned| planned.file.target == target)?;
            planned.bytes().ok().map(<[u8]>::to_vec)
        };
        self.with(|all| all.values().filter(|c| c.plan.task == task).find_map(content))
    }

    pub fn log(&self, owner: Owner, name: &str) -> Result<Option<Arc<Log>>, OpError> {
        self.with(|all| Ok(all.owned(owner, name)?.map(|c| c.log.clone())))
    }

    pub fn kill(&self, task: TaskId) -> bool {
        let lives: Vec<Life> =
            self.with(|all| all.values().filter(|c| c.plan.task == task).filter_map(|c| c.life.clone()).collect());
        for life in &lives {
            life.order(Order::Kill);
        }
        !lives.is_empty()
    }

    fn ended(&self, name: &str, code: i64) {
        self.with(|all| {
            if let Some(container) = all.get_mut(name) {
                container.log.say(code != 0, &format!("greeter: exits with {code}"));
                container.log.end();
                container.life = None;
                container.observed.state = ContainerState::Exited { code, error: String::new(), at: wall_now() };
                container.observed.pid = None;
                container.observed.address = None;
            }
        });
        self.changed();
    }

    fn set_health(&self, name: &str, now: Health) {
        self.with(|all| {
            if let Some(container) = all.get_mut(name)
                && let ContainerState::Running { health } = &mut container.observed.state
            {
                *health = now;
            }
        });
        self.changed();
    }
}

/// Whose container it is, asked wherever one is named.
trait Owned {
    fn owned(&mut self, owner: Owner, name: &str) -> Result<Option<&mut Container>, OpError>;
}

impl Owned for BTreeMap<String, Container> {
    fn owned(&mut self, owner: Owner, name: &str) -> Result<Option<&mut Container>, OpError> {
        match self.get_mut(name) {
            Some(container) if container.owner != owner => Err(not_ours(name)),
            found => Ok(found),
        }
    }
}

impl Life {
    /// Orders only grow: nobody takes a SIGKILL back.
    fn order(&self, order: Order) {
        self.orders.send_modify(|now| *now = (*now).max(order));
    }
}

/// What a container's process needs to know.
struct Process {
    name: String,
    image: Image,
    port: u16,
    host_ports: Vec<u16>,
    greeting: String,
    check: Option<Check>,
}

impl Process {
    fn of(container: &Container) -> Self {
        let plan = &container.plan;
        let env = |key: &str| plan.env.iter().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let target = plan.host_ports.first().map(|port| port.target);
        let task = plan.labels.get("com.docker.swarm.task.name").unwrap_or(&plan.name);
        let hello = env("GREETING").unwrap_or("Hello");
        let version = match container.image {
            Image::Greeter(version) => version.to_string(),
            Image::Bad => "bad".to_owned(),
            Image::Sick => "sick".to_owned(),
            Image::Job => "job".to_owned(),
        };
        Self {
            name: plan.name.clone(),
            image: container.image,
            port: env("PORT").and_then(|port| port.parse().ok()).or(target).unwrap_or(DEFAULT_PORT),
            host_ports: plan.host_ports.iter().map(|port| port.published).filter(|port| *port != 0).collect(),
            greeting: format!("{hello} from greeter {version} (task {task} on {})\n", container.host),
            check: Check::of(container.image, plan.spec.container.healthcheck.as_ref()),
        }
    }

    fn first_health(&self) -> Health {
        if self.check.is_some() { Health::Starting } else { Health::None }
    }
}

/// From start to exit.
async fn live(
    world: Arc<World>,
    process: Process,
    doors: Vec<TcpListener>,
    mut orders: watch::Receiver<Order>,
    life: Life,
) {
    let code = if matches!(process.image, Image::Bad | Image::Job) {
        tokio::select! {
            () = sleep(BAD_LASTS) => i64::from(process.image == Image::Bad),
            () = told(&mut orders, Order::Term) => KILLED,
        }
    } else {
        tokio::select! {
            code = serve(doors, &process.greeting, orders) => code,
            never = check_health(&world, &process) => match never {},
        }
    };
    world.ended(&process.name, code);
    life.over.cancel();
}

/// A simulated health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Check {
    passes: bool,
    interval: Duration,
    retries: u32,
    start_period: Duration,
}

impl Check {
    /// The spec's, over the image's own: only `:sick` has one.
    fn of(image: Image, spec: Option<&Healthcheck>) -> Option<Self> {
        let test = spec.and_then(|check| check.test.first());
        if test.is_some_and(|word| word == "NONE") || (test.is_none() && image != Image::Sick) {
            return None;
        }
        let or = |set: Duration, default| if set.is_zero() { default } else { set };
        let spec = spec.cloned().unwrap_or_default();
        Some(Self {
            passes: image != Image::Sick,
            interval: or(spec.interval, DEFAULT_INTERVAL),
            retries: if spec.retries == 0 { DEFAULT_RETRIES } else { spec.retries },
            start_period: spec.start_period,
        })
    }
}

async fn check_health(world: &World, process: &Process) -> std::convert::Infallible {
    let Some(check) = process.check else { return std::future::pending().await };
    let began = Instant::now();
    let mut failures = 0;
    loop {
        sleep(check.interval).await;
        if check.passes {
            world.set_health(&process.name, Health::Healthy);
            return std::future::pending().await;
        }
        if began.elapsed() >= check.start_period {
            failures += 1;
        }
        if failures == check.retries {
            world.set_health(&process.name, Health::Unhealthy);
        }
    }
}

fn wall_now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_come_from_the_spec_or_the_image() {
        let spec = |word: &str| Healthcheck { test: vec![word.to_owned()], ..Default::default() };
        assert_eq!(Check::of(Image::Greeter(1), None), None);
        assert!(Check::of(Image::Greeter(1), Some(&spec("CMD"))).unwrap().passes);
        assert!(!Check::of(Image::Sick, None).unwrap().passes);
        assert_eq!(Check::of(Image::Sick, Some(&spec("NONE"))), None);
    }

    #[test]
    fn no_address_is_given_out_twice_in_a_row_or_at_the_edges() {
        let world = World::new();
        let given: Vec<IpAddr> = (0..600).map(|_| world.next_address()).collect();
        let mut distinct = given.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), given.len());
        assert!(given.iter().all(|ip| ip.is_loopback()));
    }
}
