//! Chaos on real agents, engines and connections: a storm that is drawn from a seed breaks nodes while operators and users
//! work, then everything is healed and must settle, and what the agents wrote down is held against the laws of the
//! simulator. Before and between the storms lie calms: planned changes under load, in which no request may fail.

mod clients;
mod engines;
mod faults;
mod operators;
mod plan;
mod settle;
mod story;
mod traces;

use self::clients::Clients;
use self::engines::Watch;
use self::faults::Field;
use self::operators::{Answer, Operators, SERVICES};
use self::story::{Story, locked, wall_ms};
use self::traces::Trace;
use super::{Lab, LabConfig, http, image, wait_until};
use crate::law::Breach;
use crate::law::replay::Replay;
use crate::sim::rng::Rng;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// One calm and one storm take at most this long together.
const ROUND: Duration = Duration::from_secs(180);
const CALM: Range<Duration> = Duration::from_secs(12)..Duration::from_secs(45);
/// Planned changes on the healed cluster, at the very end.
const LAST_CALM: Duration = Duration::from_secs(12);
const PATIENCE: Duration = Duration::from_secs(90);
/// Somebody else's, which must be there in the end.
const BYSTANDER: &str = "bystander";

#[derive(Debug, Clone)]
pub struct ChaosConfig {
    pub dir: PathBuf,
    pub peer: PathBuf,
    pub nodes: usize,
    /// Of calms and storms; coming up and settling come on top.
    pub lasts: Duration,
    pub seed: u64,
    /// Where the agents' traces and logs are copied if a law was broken.
    pub out: Option<PathBuf>,
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub breaches: Vec<String>,
    pub summary: String,
}

/// Prints what happens as it happens.
pub fn run(config: &ChaosConfig) -> Result<Verdict> {
    ensure!((3..=9).contains(&config.nodes), "--nodes {}: want 3 to 9", config.nodes);
    println!("Chaos with seed {} for {} s on {} nodes ...", config.seed, config.lasts.as_secs(), config.nodes);
    let peer = Some(config.peer.clone());
    let mut lab = Lab::up_traced(LabConfig { nodes: config.nodes, dir: config.dir.clone(), peer })?;
    let story = Story::begin();
    let verdict = Run::new(config, &lab, &story).run();
    if let Some(out) = &config.out
        && verdict.as_ref().map_or(true, |verdict| !verdict.breaches.is_empty())
    {
        keep(&lab, out)?;
    }
    lab.down()?;
    verdict
}

struct Run<'a> {
    config: &'a ChaosConfig,
    lab: &'a Lab,
    story: &'a Story,
    field: Field<'a>,
    traces: Vec<Trace>,
    clients: Clients,
    watch: Watch,
    operators: Operators,
    calm: Vec<Range<u64>>,
    faults: usize,
    settled: Vec<Duration>,
}

impl<'a> Run<'a> {
    fn new(config: &'a ChaosConfig, lab: &'a Lab, story: &'a Story) -> Self {
        Self {
            config,
            lab,
            story,
            field: Field::new(lab, story),
            traces: (1..=config.nodes).map(|n| Trace::of(lab, n)).collect(),
            clients: Clients::default(),
            watch: Watch::default(),
            operators: Operators::default(),
            calm: Vec::new(),
            faults: 0,
            settled: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Verdict> {
        self.prepare()?;
        let (lab, story, end) = (self.lab, self.story, AtomicBool::new(false));
        let (watch, clients) = (std::mem::take(&mut self.watch), std::mem::take(&mut self.clients));
        let ports = SERVICES.map(|(_, port)| port);
        let rounds = thread::scope(|scope| {
            scope.spawn(|| watch.run(lab, story, &end));
            for node in 1..=self.config.nodes {
                let (clients, ports, end) = (&clients, &ports, &end);
                scope.spawn(move || clients.run(node, ports, end));
            }
            let rounds = self.rounds();
            end.store(true, Ordering::Relaxed);
            rounds
        });
        (self.watch, self.clients) = (watch, clients);
        rounds?;
        self.judge()
    }

    /// Services that answer everywhere, and somebody else's container on every engine.
    fn prepare(&self) -> Result<()> {
        let (lab, nodes) = (self.lab, self.config.nodes);
        wait_until("all nodes are ready", PATIENCE, || {
            (1..=nodes).all(|n| {
                let table = lab.peer_ok(n, &["node", "ls"]).unwrap_or_default();
                table.matches(" Ready ").count() == nodes
            })
        })?;
        for ((name, port), order) in SERVICES.into_iter().zip(["stop-first", "start-first"]) {
            let args = operators::create(name, port, order);
            lab.peer_ok(1, &args.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        for node in 1..=nodes {
            let run = ["docker", "run", "-d", "--restart", "always", "--name", BYSTANDER, &image("1")];
            let output = lab.exec(node, &run.map(str::to_owned))?;
            ensure!(output.status.success(), "n{node}: {output:?}");
        }
        for node in 1..=nodes {
            for (_, port) in SERVICES {
                let answers = || clients::request(node, port).is_ok();
                wait_until(&format!("n{node} answers on port {port}"), PATIENCE, answers)?;
            }
        }
        let running = |name: &str| {
            lab.peer_ok(1, &["service", "ls", "--format", "{{.Name}} {{.Replicas}}"])
                .is_ok_and(|table| table.contains(&format!("{name} 3/3")))
        };
        wait_until("all replicas run", PATIENCE, || SERVICES.iter().all(|(name, _)| running(name)))
    }

    fn rounds(&mut self) -> Result<()> {
        let count = self.config.lasts.as_millis().div_ceil(ROUND.as_millis()).max(1) as u32;
        let round = self.config.lasts / count;
        let calm = (round / 4).clamp(CALM.start, CALM.end);
        let mut faults = Rng::of(self.config.seed, "lab faults");
        let mut words = Rng::of(self.config.seed, "lab operators");
        for _ in 0..count {
            self.work(&mut words, calm, &[]);
            let storm = round.saturating_sub(calm);
            let plan = plan::draw(&mut faults, self.config.nodes, storm);
            self.work(&mut words, storm, &plan);
            self.lab.heal()?;
            self.settle()?;
        }
        self.work(&mut words, LAST_CALM, &[]);
        self.settle()
    }

    /// Operators work for this long, in calm or through a storm.
    fn work(&mut self, rng: &mut Rng, lasts: Duration, plan: &[plan::Planned]) {
        let (storm, end) = (!plan.is_empty(), AtomicBool::new(false));
        let name = if storm { "a storm" } else { "a calm" };
        self.story.say("all", &format!("{name} of {} s begins", lasts.as_secs()));
        let began = wall_ms();
        let mut happened = 0;
        thread::scope(|scope| {
            scope.spawn(|| self.operators.run(self.lab, self.story, &self.field, rng, storm, &end));
            if storm {
                happened = self.field.storm(plan);
            } else {
                thread::sleep(lasts);
            }
            end.store(true, Ordering::Relaxed);
        });
        self.faults += happened;
        if !storm {
            self.calm.push(began..wall_ms());
        }
    }

    fn settle(&mut self) -> Result<()> {
        self.story.say("all", "healed; what was left behind is put right");
        for args in self.operators.put_right(self.config.nodes) {
            wait_until(&format!("{args:?} is acknowledged"), PATIENCE, || {
                self.operators.ask(self.lab, self.story, 1, &args) == Answer::Accepted
            })?;
        }
        match settle::settle(self.lab, &mut self.traces) {
            Ok(took) => {
                self.story.say("all", &format!("settled after {:.1} s", took.as_secs_f64()));
                self.settled.push(took);
            }
            Err(error) => self.story.broken(&Breach::of("settle", format!("{error:#}"))),
        }
        Ok(())
    }

    /// All that can be said in the end.
    fn judge(mut self) -> Result<Verdict> {
        for trace in &mut self.traces {
            trace.read_on()?;
        }
        let looks: Vec<_> = self.traces.iter_mut().map(|trace| std::mem::take(&mut trace.looks)).collect();
        let replay = Replay::of(&looks, self.calm.clone());
        for (wall, Breach { law, text }) in &replay.breaches {
            self.story.broken(&Breach::of(law, format!("{text} (at {} ms)", wall % 10_000_000)));
        }
        for breach in replay.at_the_end() {
            self.story.broken(&breach);
        }
        let failed = self.clients.failed_within(&self.calm);
        for f in failed.iter().take(10) {
            let text = format!("in calm a request of n{} for port {} failed: {}", f.node, f.port, f.why);
            self.story.broken(&Breach::of("E1", format!("{text} (at {} ms)", f.began % 10_000_000)));
        }
        self.judge_notes()?;
        self.judge_bystanders();
        for (wall, n, term) in &replay.terms {
            let since = wall.saturating_sub(self.calm.first().map_or(0, |calm| calm.start)) / 1_000;
            println!("          term {} of n{} from about {since} s on", term.round, n + 1);
        }
        let breaches = self.story.breaches();
        let summary = self.summary(&replay, breaches.is_empty());
        println!("{summary}");
        Ok(Verdict { breaches, summary })
    }

    /// S3 as an operator sees it.
    fn judge_notes(&self) -> Result<()> {
        for node in 1..=self.config.nodes {
            let table = self.lab.peer_ok(node, &["service", "ls", "--format", "{{.Name}}"])?;
            let lost = |note: &&String| !table.lines().any(|name| name == note.as_str());
            for note in locked(&self.operators.notes).iter().filter(lost) {
                self.story.broken(&Breach::of("S3", format!("n{node} has no {note}, which was acknowledged")));
            }
        }
        Ok(())
    }

    /// No container is touched that isn't ours.
    fn judge_bystanders(&self) {
        for node in 1..=self.config.nodes {
            let path = format!("/containers/{BYSTANDER}/json");
            if let Err(error) = http::json(&self.lab.engine_socket(node), "GET", &path, None) {
                self.story.broken(&Breach::of("bystander", format!("n{node}: {error:#}")));
            }
        }
    }

    fn summary(&self, replay: &Replay, whole: bool) -> String {
        let (ops, clients) = (&self.operators, &self.clients);
        let slowest = self.settled.iter().max().map_or(0.0, Duration::as_secs_f64);
        let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        format!(
            "seed {}: {} faults in {} s; operators: {} acknowledged, {} pending, {} refused; users: {} requests answered, {} \
             failed in storms; {} terms; {} looks at the engines; {} planned stops judged; {} acknowledged writes; settled after \
             at most {slowest:.1} s\n{}",
            self.config.seed,
            self.faults,
            self.config.lasts.as_secs(),
            count(&ops.accepted),
            count(&ops.pending),
            count(&ops.refused),
            count(&clients.answered),
            clients.failed() - clients.failed_within(&self.calm).len(),
            replay.terms.len(),
            count(&self.watch.looks),
            replay.planned_stops,
            replay.acknowledged(),
            if whole { "NOTHING WAS LOST" } else { "LAWS WERE BROKEN" }
        )
    }
}

fn keep(lab: &Lab, out: &Path) -> Result<()> {
    for node in 1..=lab.config.nodes {
        for file in [lab.trace_file(node), lab.log_file(node)] {
            let name = file.file_name().context("a file without a name")?.to_string_lossy().into_owned();
            fs::create_dir_all(out)?;
            fs::copy(&file, out.join(format!("n{node}-{name}"))).with_context(|| file.display().to_string())?;
        }
    }
    println!("The agents' traces and logs are in {}", out.display());
    Ok(())
}
