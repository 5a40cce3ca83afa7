//! Operators at work: each command goes to some node that can be asked, as a person's would, and what was promised in the
//! answer is kept.

use super::faults::Field;
use super::story::{Story, locked};
use crate::lab::{Lab, image};
use crate::sim::rng::Rng;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A command that takes longer is given up.
const COMMAND_SECS: u64 = 30;
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Of a command, in the story.
const WORDS_TOLD: usize = 8;

/// What is there all the time, with its port: clients rely on it.
pub const SERVICES: [(&str, u16); 2] = [("steady", 9_000), ("web", 9_001)];
/// Comes and goes in storms.
const EXTRA: (&str, u16) = ("extra", 9_002);
const MAX_REPLICAS: u64 = 5;

#[derive(Default)]
pub struct Operators {
    pub accepted: AtomicU64,
    pub pending: AtomicU64,
    pub refused: AtomicU64,
    /// Services of no replicas, created only to see whether they are kept; those that were acknowledged without a warning.
    pub notes: Mutex<BTreeSet<String>>,
    counter: AtomicU64,
    drained: Mutex<BTreeSet<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// With a warning that no majority has it.
    Pending,
    Refused,
}

pub fn create(name: &str, port: u16, order: &str) -> Vec<String> {
    let publish = format!("{port}:5000");
    let image = image("1");
    let args = [
        "service",
        "create",
        "-d",
        "-q",
        "--name",
        name,
        "--publish",
        &publish,
        "--replicas",
        "3",
        "--update-monitor",
        "500ms",
        "--update-order",
        order,
        "--rollback-order",
        order,
        "--restart-delay",
        "500ms",
        "--stop-grace-period",
        "5s",
        &image,
    ];
    args.map(str::to_owned).to_vec()
}

impl Operators {
    /// Commands until told to end, at moments and through nodes drawn from the seed.
    pub fn run(&self, lab: &Lab, story: &Story, field: &Field<'_>, rng: &mut Rng, storm: bool, end: &AtomicBool) {
        loop {
            let (low, high) = if storm { (300, 3_000) } else { (800, 3_000) };
            let next = Instant::now() + Duration::from_millis(rng.between(low, high));
            while Instant::now() < next {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(LOOK_AGAIN);
            }
            let answering = field.answering();
            let Some(node) = rng.pick(&answering).copied() else { continue };
            let args = if storm { self.wild(rng, lab.config.nodes) } else { self.planned(rng, lab.config.nodes) };
            let answer = self.ask(lab, story, node, &args);
            if answer == Answer::Accepted && args.iter().any(|arg| arg.starts_with("note")) {
                locked(&self.notes).extend(args.into_iter().filter(|arg| arg.starts_with("note")));
            }
        }
    }

    pub fn ask(&self, lab: &Lab, story: &Story, node: usize, args: &[String]) -> Answer {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = lab.peer_within(node, COMMAND_SECS, &words);
        let (answer, said) = match output {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                match (output.status.success(), said.contains("pending")) {
                    (true, false) => (Answer::Accepted, said),
                    (true, true) => (Answer::Pending, said),
                    (false, _) => (Answer::Refused, said),
                }
            }
            Err(error) => (Answer::Refused, format!("{error:#}")),
        };
        let (count, word) = match answer {
            Answer::Accepted => (&self.accepted, "ok"),
            Answer::Pending => (&self.pending, "pending"),
            Answer::Refused => (&self.refused, "refused"),
        };
        count.fetch_add(1, Ordering::Relaxed);
        let why = said.lines().next().filter(|_| answer != Answer::Accepted).unwrap_or_default();
        let plain = |w: &&str| !matches!(*w, "-d" | "-q");
        let words = words.into_iter().filter(plain).map(|w| w.rsplit('/').next().unwrap_or(w));
        let short: Vec<&str> = words.take(WORDS_TOLD).collect();
        story.say("operator", format!("by n{node}: {}: {word} {why}", short.join(" ")).trim_end());
        answer
    }

    /// Changes that no user may notice.
    fn planned(&self, rng: &mut Rng, nodes: usize) -> Vec<String> {
        let (name, _) = SERVICES[rng.index(SERVICES.len())];
        let update = |more: &[&str]| line(&[&["service", "update", "-d", "-q"], more, &[name]].concat());
        match rng.below(100) {
            0..=29 => update(&["--image", &image(if rng.permille(500) { "1" } else { "2" })]),
            30..=39 => update(&["--force"]),
            40..=49 => update(&["--image", &image(if rng.permille(500) { "crash" } else { "sick" })]),
            50..=59 => line(&["service", "rollback", "-d", "-q", name]),
            60..=79 => line(&["service", "scale", "-d", &format!("{name}={}", rng.between(2, MAX_REPLICAS))]),
            _ => self.availability(rng, nodes, false),
        }
    }

    /// Anything.
    fn wild(&self, rng: &mut Rng, nodes: usize) -> Vec<String> {
        match rng.below(100) {
            0..=39 => self.planned(rng, nodes),
            40..=59 => {
                let number = self.counter.fetch_add(1, Ordering::Relaxed);
                let name = format!("note{number}");
                line(&["service", "create", "-d", "-q", "--replicas", "0", "--name", &name, &image("1")])
            }
            60..=69 => create(EXTRA.0, EXTRA.1, "start-first"),
            70..=76 => line(&["service", "rm", EXTRA.0]),
            77..=84 => line(&["service", "scale", "-d", &format!("{}={}", EXTRA.0, rng.between(0, 4))]),
            _ => self.availability(rng, nodes, true),
        }
    }

    fn availability(&self, rng: &mut Rng, nodes: usize, storm: bool) -> Vec<String> {
        let mut drained = locked(&self.drained);
        let node = 1 + rng.index(nodes);
        let most = if storm { nodes - 1 } else { 1 };
        let wanted = match rng.below(2) {
            0 if !drained.contains(&node) && drained.len() < most => {
                drained.insert(node);
                (node, if rng.permille(800) { "drain" } else { "pause" })
            }
            // Others come back sooner than they go.
            _ => {
                let back = drained.pop_first().unwrap_or(node);
                (back, "active")
            }
        };
        line(&["node", "update", "--availability", wanted.1, &format!("node{}", wanted.0)])
    }

    /// What a storm left behind is put right: everything may run everywhere, and can.
    pub fn put_right(&self, nodes: usize) -> Vec<Vec<String>> {
        locked(&self.drained).clear();
        let active = |n| line(&["node", "update", "--availability", "active", &format!("node{n}")]);
        let good = |(name, _): (&str, u16)| {
            line(&["service", "update", "-d", "-q", "--replicas", "3", "--image", &image("2"), name])
        };
        let mut all: Vec<Vec<String>> = (1..=nodes).map(active).collect();
        all.extend(SERVICES.map(good));
        all
    }
}

fn line(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
