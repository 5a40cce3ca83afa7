//! The project's figures of scale: the same world with many nodes. One command prints the table.

pub mod cluster;
pub(in crate::sim) mod gauge;
mod placing;

use cluster::{Cluster, Rest, Times};
use serde::Serialize;
use std::fmt::Write as _;
use std::str::FromStr;

/// Which rows to measure, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    /// Empty for all.
    pub rows: Vec<String>,
    /// Node-hours of peace for each loss.
    pub hours: f64,
    pub crashes: usize,
    pub holders: usize,
    /// In permille.
    pub losses: Vec<u32>,
}

pub const ROWS: &[&str] = &["rest", "update", "detect", "peace", "stalls", "halves", "holder", "place"];

/// A cluster to measure: `1000`, or with the rows that are wanted of it alone, `3000:rest+update`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    pub nodes: usize,
    /// Empty for those of the [`Options`].
    pub rows: Vec<String>,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (nodes, rows) = text.split_once(':').unwrap_or((text, ""));
        let nodes =
            nodes.parse().map_err(|_| format!("{nodes:?} is no number of nodes: want 1000, or 3000:rest+update"))?;
        let rows = rows.split('+').filter(|row| !row.is_empty()).map(str::to_owned).collect();
        Ok(Self { nodes, rows })
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub row: String,
    pub nodes: usize,
    pub text: String,
}

/// Many tasks on a cluster of this size: fifty a node.
pub fn place(nodes: usize, cpu: fn() -> f64) -> Option<Figure> {
    let tasks = nodes * 50;
    let placing = placing::place(nodes, tasks, cpu)?;
    let text = format!(
        "{} on {} nodes in {:.0} ms simulated, {:.2} CPU-s of the holder; a plan over them {:.0} ms",
        placing.placed, placing.nodes_used, placing.took_ms, placing.cpu_secs, placing.replan_ms
    );
    Some(Figure { row: "fifty tasks a node placed".to_owned(), nodes, text })
}

/// One size of cluster, row by row.
pub fn measure(nodes: usize, options: &Options, tell: &mut dyn FnMut(&Figure)) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut note = |row: &str, text: String| {
        let figure = Figure { row: row.to_owned(), nodes, text };
        tell(&figure);
        figures.push(figure);
    };
    let wants = |row: &str| options.rows.is_empty() || options.rows.iter().any(|r| r == row);
    let memory = resident_bytes();
    let (mut cluster, met, told) = Cluster::join(nodes, options.seed);
    note("join of all at once: all see all", format!("{met:.1} s"));
    note("join of all at once: all hold all records", format!("{told:.1} s"));
    cluster.run(20_000_000);
    if wants("rest") {
        note("at rest, bytes a node and second", rest(&cluster.at_rest(20)));
    }
    // The cores share what they hold alike; each would have it for itself.
    let shared = cluster.record_bytes();
    let own = resident_bytes().saturating_sub(memory) / nodes as u64;
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let text = format!("{:.2} MiB, of which records about {:.2}", mib(own + shared), mib(shared));
    note("memory a node, simulated disk included", text);
    if wants("update") {
        let times = cluster.spread_of_updates(5);
        note("update's record on every node, p50 / p99 / last", three(&times));
    }
    if wants("halves") {
        note("halves cut for 30 s: all see all after", format!("{:.1} s", cluster.heal_of_halves(30)));
    }
    for permille in &options.losses {
        cluster.lose(*permille);
        let percent = f64::from(*permille) / 10.0;
        if wants("detect") {
            let (times, wrong) = cluster.detection(options.crashes);
            note(&format!("crash seen at {percent} % loss, p50 / p99 / last"), three(&times));
            if wrong > 0 {
                note(&format!("besides, wrongly seen down at {percent} % loss"), wrong.to_string());
            }
        }
        if wants("peace") {
            let secs = (options.hours * 3_600.0 / nodes as f64).ceil() as u64;
            let wrong = cluster.peace(secs);
            let hours = secs as f64 * nodes as f64 / 3_600.0;
            note(&format!("wrongly seen down at {percent} % loss"), format!("{wrong} in {hours:.0} node-hours"));
        }
    }
    cluster.lose(0);
    if wants("stalls") {
        for length in [1_000, 1_800, 5_000] {
            let (seen, wrong, back) = cluster.stalls(options.crashes, length);
            let text = format!("{seen} of {} ({wrong} others); {}", options.crashes, three(&back));
            note(&format!("seen down for a stall of {:.1} s; back after it", length as f64 / 1e3), text);
        }
    }
    if wants("holder") {
        let times = cluster.new_holders(options.holders);
        note("new holder acts after a crash, p50 / p99 / last", three(&times));
    }
    if let Some(broken) = cluster.violation() {
        note("VIOLATION", broken);
    }
    figures
}

fn three(times: &Times) -> String {
    let (p50, p99, last) = (times.at(0.5), times.at(0.99), times.at(1.0));
    if last < 0.1 {
        return format!("{:.1} / {:.1} / {:.1} ms", p50 * 1e3, p99 * 1e3, last * 1e3);
    }
    format!("{p50:.2} / {p99:.2} / {last:.2} s")
}

fn rest(rest: &Rest) -> String {
    let [members, records, lease] = rest.parts;
    format!(
        "{:.0} in {:.1} messages (members {members:.0}, records {records:.0}, lease {lease:.0})",
        rest.bytes, rest.messages
    )
}

/// Rows by sizes, as Markdown.
pub fn table(figures: &[Figure]) -> String {
    let mut sizes: Vec<usize> = figures.iter().map(|f| f.nodes).collect();
    sizes.dedup();
    let mut rows: Vec<&str> = Vec::new();
    for figure in figures {
        if !rows.contains(&figure.row.as_str()) {
            rows.push(&figure.row);
        }
    }
    let mut text = String::from("| |");
    for size in &sizes {
        let _ = write!(text, " {size} nodes |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(sizes.len()));
    for row in rows {
        let _ = write!(text, "\n| {row} |");
        for size in &sizes {
            let found = figures.iter().find(|f| f.row == row && f.nodes == *size);
            let _ = write!(text, " {} |", found.map_or("", |f| f.text.as_str()));
        }
    }
    text.push('\n');
    text
}

/// Of this process.
fn resident_bytes() -> u64 {
    let Ok(file) = std::fs::File::open("/proc/self/statm") else { return 0 };
    let Ok(text) = std::io::read_to_string(file) else { return 0 };
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}
