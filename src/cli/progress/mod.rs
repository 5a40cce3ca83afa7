//! Waits until a service has converged, and shows how far it is, as the docker CLI does: so many tasks out of so many,
//! then the monitor period during which none may fail. A pause or a rollback of the update is a failure.
//!
//! Levels are polled, not events: an agent that restarts meanwhile costs nothing but the polls it missed. Lines are kept to
//! 80 columns where their words are ours: what a terminal has no room for is cut off.

mod screen;
mod tally;

use super::client::{ApiError, Client, escaped, with_query};
use super::console::Console;
use super::error::CliError;
use super::go::{self, Nanos};
use super::json::{flag, items, number, text};
use super::reason;
use super::service::{one_error, path};
use screen::{OVERALL, Screen};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tally::{Course, MAX_ERROR_CHARS, Tally};

pub const POLL: Duration = Duration::from_millis(150);
/// An agent that is being restarted is back by then.
const PATIENCE: Duration = Duration::from_secs(20);
const HINT: &str = "hint";
const WAY_OUT: &str = "way out";
/// After so many looks (half a minute) a rollback that gets nowhere is as good as troubled, though no task says why.
const SLOW: usize = 200;
const DEFAULT_MONITOR: Duration = Duration::from_secs(5);

pub struct Wait<'a> {
    pub id: &'a str,
    /// As the user named the service.
    pub shown: &'a str,
    pub doing: Doing,
    pub limits: Limits,
    pub poll: Duration,
}

/// What bounds a wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Nothing of it is shown.
    pub quiet: bool,
    /// Then it ends with an error.
    until: Option<Instant>,
}

impl Limits {
    /// The time counts from now.
    pub fn new(quiet: bool, timeout: Option<Nanos>) -> Self {
        Self { quiet, until: timeout.and_then(|Nanos(nanos)| Instant::now().checked_add(Duration::from_nanos(nanos))) }
    }

    fn are_up(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Deploying,
    /// On purpose: here a rollback is no failure.
    RollingBack,
}

pub async fn wait(wait: &Wait<'_>, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let mut follow = Follow::new(wait, Screen::new(wait.limits.quiet), client);
    let interrupted = tokio::select! {
        result = follow.run(console) => return result,
        _ = tokio::signal::ctrl_c() => CliError::interrupted(),
    };
    console.line("Operation continuing in background.")?;
    console.line(&format!("Use `peer service ps {}` to check progress.", wait.shown))?;
    Err(interrupted)
}

/// Several at once, with one line each; all are waited for, and what failed comes in one error.
pub async fn wait_all(waits: &[Wait<'_>], client: &Client, console: &mut Console) -> Result<(), CliError> {
    let following = follow_all(waits, client, console);
    let interrupted = tokio::select! {
        result = following => return result,
        _ = tokio::signal::ctrl_c() => CliError::interrupted(),
    };
    console.line("Operation continuing in background.")?;
    Err(interrupted)
}

async fn follow_all(waits: &[Wait<'_>], client: &Client, console: &mut Console) -> Result<(), CliError> {
    let mut all: Vec<(Follow<'_>, Option<Result<(), CliError>>)> =
        waits.iter().map(|wait| (Follow::new(wait, Screen::new(true), client), None)).collect();
    let mut screen = Screen::new(waits.iter().all(|wait| wait.limits.quiet));
    while all.iter().any(|(_, ended)| ended.is_none()) {
        for (follow, ended) in all.iter_mut().filter(|(_, ended)| ended.is_none()) {
            *ended = follow.step(console).await;
            let line = match ended {
                Some(Ok(())) => "converged".to_owned(),
                Some(Err(error)) => error.message().to_owned(),
                None => follow.summary(),
            };
            screen.set(follow.wait.shown, &line, None);
            if follow.troubled {
                screen.set(HINT, &leave_safely(follow.wait.shown), None);
            }
        }
        screen.draw(console)?;
        tokio::time::sleep(POLL).await;
    }
    one_error(all.into_iter().filter_map(|(_, ended)| ended?.err()).collect())
}

struct Follow<'a> {
    wait: &'a Wait<'a>,
    client: &'a Client,
    screen: Screen,
    /// Since when as many run as should, by our clock.
    converged: Option<Instant>,
    looks: usize,
    /// It may not converge by itself: who waits has been told what else there is to do.
    troubled: bool,
    /// What a task that doesn't run says, at the last look.
    why: Option<String>,
    /// Why the update is being rolled back.
    rolled_back: Option<String>,
    heard: Instant,
    /// What of its published ports can't be opened, and where.
    blocked: Vec<String>,
}

fn leave_safely(shown: &str) -> String {
    format!("Ctrl-C ends only the wait; the reasons: peer service ps --no-trunc {shown}")
}

/// What one look at the service led to.
enum Look {
    GoOn,
    Converged,
}

/// Why it can't be waited for any longer, or only now can't be asked.
enum Trouble {
    Api(ApiError),
    Final(CliError),
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Self {
        Trouble::Api(error)
    }
}

impl From<CliError> for Trouble {
    fn from(error: CliError) -> Self {
        Trouble::Final(error)
    }
}

impl<'a> Follow<'a> {
    fn new(wait: &'a Wait<'a>, screen: Screen, client: &'a Client) -> Self {
        let (heard, blocked) = (Instant::now(), Vec::new());
        Self {
            wait,
            client,
            screen,
            converged: None,
            looks: 0,
            troubled: false,
            why: None,
            rolled_back: None,
            heard,
            blocked,
        }
    }

    /// How far it is, and what may keep it there, on one line.
    fn summary(&self) -> String {
        let parts = [Some(self.screen.summary()), self.why.clone()].into_iter().flatten();
        parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    }

    fn too_late(&self) -> CliError {
        let mut told = format!("service {} has not converged in time", self.wait.shown);
        if !self.summary().is_empty() {
            told.push_str(&format!(": {}", self.summary()));
        }
        CliError::new(told)
            .hint(format!("the cluster goes on with it; the reasons: peer service ps --no-trunc {}", self.wait.shown))
    }

    async fn run(&mut self, console: &mut Console) -> Result<(), CliError> {
        loop {
            if let Some(ended) = self.step(console).await {
                return ended;
            }
            tokio::time::sleep(self.wait.poll).await;
        }
    }

    /// One look; how it ended, if it did.
    async fn step(&mut self, console: &mut Console) -> Option<Result<(), CliError>> {
        match self.look(console).await {
            Ok(Look::Converged) => return Some(self.end(console)),
            Ok(Look::GoOn) => self.heard = Instant::now(),
            Err(Trouble::Api(ApiError::Unreachable { .. })) if self.heard.elapsed() < PATIENCE => {}
            Err(Trouble::Api(error @ ApiError::Unreachable { .. })) => {
                let hint = format!("the cluster goes on with it; look again with: peer service ps {}", self.wait.shown);
                return Some(Err(CliError::from(error).hint(hint)));
            }
            Err(Trouble::Api(error)) if error.is_not_found() => {
                return Some(Err(CliError::new(format!("service {} was removed meanwhile", self.wait.shown))));
            }
            Err(Trouble::Api(error)) => return Some(Err(error.into())),
            Err(Trouble::Final(error)) => return Some(Err(error)),
        }
        self.wait.limits.are_up().then(|| Err(self.too_late()))
    }

    async fn look(&mut self, console: &mut Console) -> Result<Look, Trouble> {
        let service = self.client.get(&path(self.wait.id)).await?;
        let state = text(&service, "/UpdateStatus/State");
        self.judge(state, text(&service, "/UpdateStatus/Message")).await?;
        let filters = json!({ "_up-to-date": { "true": true }, "service": { self.wait.id: true } }).to_string();
        let tasks = self.client.get(&with_query("/tasks", &[("filters", &filters)])).await?;
        let nodes = self.client.get("/nodes").await?;
        let rolling_back = state.starts_with("rollback");
        let tally = Tally::of(&service, &tasks, &nodes);
        if self.wait.doing == Doing::RollingBack && state.is_empty() && !tally.is_job() {
            // Until it has begun, nobody has judged whether what runs may stay where it is: it would count as done.
            self.screen.set(OVERALL, "waiting for the rollback to begin", None);
            self.screen.draw(console)?;
            return Ok(Look::GoOn);
        }
        self.looks += 1;
        let under_way = matches!(state, "updating" | "rollback_started") && !tally.is_job();
        let serving = if under_way { self.serving().await? } else { None };
        tally.show(&mut self.screen, Course { rolling_back, serving });
        self.why = tally.trouble();
        if !self.troubled && (tally.is_troubled() || self.is_stuck(&tally)) {
            self.troubled = true;
            self.screen.set(HINT, &leave_safely(self.wait.shown), None);
            let way = if under_way { self.way_out(rolling_back).await } else { None };
            way.iter().for_each(|way| self.screen.set(WAY_OUT, way, None));
        }
        if let Some(why) = tally.failure() {
            self.screen.draw(console)?;
            let hint = format!(
                "see what failed with: peer service ps --no-trunc {}; again with: peer service update --force {0}",
                self.wait.shown
            );
            return Err(CliError::new(format!("job failed: {why}")).hint(hint).into());
        }
        // What has ended needs no watching.
        let monitor = if tally.is_job() { Duration::ZERO } else { monitor(&service, rolling_back) };
        let completed = matches!(state, "completed" | "rollback_completed") && covers(&service, &tally, console.now());
        let verdict = self.verify(&tally, monitor, completed, console);
        self.blocked = blocked(&service, &nodes);
        self.screen.draw(console)?;
        Ok(verdict)
    }

    fn is_stuck(&self, tally: &Tally<'_>) -> bool {
        self.wait.doing == Doing::RollingBack && self.looks >= SLOW && !tally.converged()
    }

    /// How many of its tasks serve, of whichever version.
    async fn serving(&self) -> Result<Option<u64>, ApiError> {
        let filters = json!({ "id": { self.wait.id: true } }).to_string();
        let found = self.client.get(&with_query("/services", &[("status", "true"), ("filters", &filters)])).await?;
        Ok(items(&found).first().map(|service| number(service, "/ServiceStatus/RunningTasks")))
    }

    /// The command that leads out of what may not succeed: to the revision that still serves, where that can be told. A
    /// rollback without a number may lead to one that can't run either.
    async fn way_out(&self, rolling_back: bool) -> Option<String> {
        let shown = self.wait.shown;
        let history = self.client.get(&format!("/peer/services/{}/history", escaped(self.wait.id))).await;
        // It is only a hint: without the history there is the other one.
        let history = history.unwrap_or_default();
        match items(&history).iter().find(|revision| flag(revision, "/Fallback")) {
            Some(revision) => Some(format!("peer service rollback --to {} {shown}", number(revision, "/Number"))),
            None if rolling_back => {
                Some(format!("peer service rollback --to N {shown}, N of: peer service history {shown}"))
            }
            None => None,
        }
    }

    /// What the task that the message ends with died of.
    async fn reason_of(&self, message: &str) -> String {
        let Some((_, task)) = message.rsplit_once(" task ") else { return String::new() };
        // It is only an addition: a task that has been forgotten meanwhile has none.
        let task = self.client.get(&format!("/tasks/{}", escaped(task))).await.unwrap_or_default();
        match text(&task, "/Status/Err") {
            "" => String::new(),
            error => format!(" ({})", reason::short(error.strip_prefix("task: ").unwrap_or(error), MAX_ERROR_CHARS)),
        }
    }

    /// What the agent says of the update: a pause ends the wait, a rollback that nobody asked for will have failed.
    async fn judge(&mut self, state: &str, message: &str) -> Result<(), CliError> {
        let shown = self.wait.shown;
        match state {
            "paused" => {
                let way = self.way_out(false).await.unwrap_or_else(|| format!("peer service rollback {shown}"));
                let why = self.reason_of(message).await;
                Err(CliError::new(format!("service update paused: {message}{why}"))
                    .hint(format!("see why with: peer service ps --no-trunc {shown}; go back with: {way}")))
            }
            "rollback_paused" => {
                let way = self.way_out(true).await.unwrap_or_default();
                let why = self.reason_of(message).await;
                Err(CliError::new(format!("service rollback paused: {message}{why}"))
                    .hint(format!("see why with: peer service ps --no-trunc {shown}; go elsewhere with: {way}")))
            }
            "rollback_started" | "rollback_completed" if self.wait.doing == Doing::Deploying => {
                if self.rolled_back.is_none() {
                    // A rollback may be over before we look; then the message tells its end and not its reason.
                    let started = state == "rollback_started" && !message.is_empty();
                    let why = if started { message } else { "update rolled back due to failure of new tasks" };
                    self.screen.set("rollback", why, None);
                    self.rolled_back = Some(why.to_owned());
                }
                Ok(())
            }
            "rollback_started" => {
                self.screen.set("rollback", "manually requested rollback", None);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Counts the monitor period from when the last task began to run. `completed`: the agent has counted it already.
    fn verify(&mut self, tally: &Tally, monitor: Duration, completed: bool, console: &Console) -> Look {
        if !tally.converged() {
            if self.converged.take().is_some() {
                // Or more is to be replaced, or a node was lost: that is no failure of a task.
                let why =
                    if tally.has_failure() { "Detected task failure" } else { "Waiting for the rest of the tasks" };
                self.screen.set("verify", why, None);
            }
            return Look::GoOn;
        }
        let since = *self.converged.get_or_insert_with(Instant::now);
        // Tasks that ran before we came need not be watched for as long.
        let before = if self.looks == 1 { tally.running_for(console.now()) } else { Duration::ZERO };
        if let Some(earlier) = Instant::now().checked_sub(before).filter(|earlier| *earlier < since) {
            self.converged = Some(earlier);
        }
        let left = monitor.saturating_sub(self.converged.map_or(Duration::ZERO, |since| since.elapsed()));
        if completed || left.is_zero() || tally.is_empty() {
            return Look::Converged;
        }
        let seconds = left.as_nanos().div_ceil(1_000_000_000);
        self.screen.set("verify", &format!("Waiting {seconds} seconds to verify that tasks are stable..."), None);
        Look::GoOn
    }

    fn end(&mut self, console: &mut Console) -> Result<(), CliError> {
        self.screen.set("verify", &format!("Service {} converged", self.wait.id), None);
        self.screen.draw(console)?;
        for port in &self.blocked {
            console.warn(port);
        }
        match &self.rolled_back {
            None => Ok(()),
            Some(why) => Err(CliError::new(format!("service update rolled back: {why}"))
                .hint(format!("see what failed with: peer service ps --no-trunc {}", self.wait.shown))),
        }
    }
}

/// The agent's verdict is on the tasks that ran when it gave it: one that began later has its monitor period before it.
fn covers(service: &Value, tally: &Tally, now: jiff::Timestamp) -> bool {
    let since = go::age(text(service, "/UpdateStatus/CompletedAt"), now);
    since.is_none_or(|since| tally.running_for(now) >= since)
}

/// The service runs all the same: the ports answer elsewhere.
fn blocked(service: &Value, nodes: &Value) -> Vec<String> {
    let ports = service.pointer("/Endpoint/Ports").map(items).unwrap_or_default();
    let ports: Vec<String> = ports.iter().map(|port| number(port, "/PublishedPort").to_string()).collect();
    let mut blocked = Vec::new();
    for node in items(nodes).iter().filter(|node| text(node, "/Status/State") != "down") {
        for port in &ports {
            let why = text(node, &format!("/PeerStatus/BlockedPorts/{port}"));
            if !why.is_empty() {
                let name = text(node, "/Description/Hostname");
                blocked.push(format!("published port {port} can't be opened on {name}: {why}"));
            }
        }
    }
    blocked
}

fn monitor(service: &Value, rolling_back: bool) -> Duration {
    let config = if rolling_back { "/Spec/RollbackConfig/Monitor" } else { "/Spec/UpdateConfig/Monitor" };
    service.pointer(config).and_then(Value::as_u64).map_or(DEFAULT_MONITOR, Duration::from_nanos)
}

/// How long before `now` a task began to run.
fn ran_for(task: &Value, now: jiff::Timestamp) -> Duration {
    go::age(text(task, "/Status/Timestamp"), now).unwrap_or_default()
}

#[cfg(test)]
mod tests;
