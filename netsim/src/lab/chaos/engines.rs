//! What each engine really runs, asked again and again: P5 and P2 at every look, and in the end what is wanted and
//! nothing else.

use super::story::Story;
use crate::lab::{Lab, http};
use crate::law::tasks::runs_alone;
use anyhow::{Context, Result};
use peer::ids::TaskId;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Ours, and running: {"label":["peer.task"]}.
pub const LIST_RUNNING: &str = "/containers/json?filters=%7B%22label%22%3A%5B%22peer.task%22%5D%7D";
const LOOK_EVERY: Duration = Duration::from_millis(1_000);

/// The tasks whose containers run there, one entry a container.
pub fn running(lab: &Lab, node: usize) -> Result<Vec<TaskId>> {
    let list = http::json(&lab.engine_socket(node), "GET", LIST_RUNNING, None)?;
    let list = list.as_array().context("no list of containers")?;
    list.iter()
        .map(|c| {
            let label = c["Labels"]["peer.task"].as_str().context("a container without its task")?;
            Ok(label.parse()?)
        })
        .collect()
}

#[derive(Default)]
pub struct Watch {
    pub looks: AtomicU64,
}

impl Watch {
    /// Until told to end; engines that don't answer are passed over.
    pub fn run(&self, lab: &Lab, story: &Story, end: &AtomicBool) {
        while !end.load(Ordering::Relaxed) {
            let all: Vec<(usize, TaskId)> = (1..=lab.config.nodes)
                .flat_map(|n| running(lab, n).unwrap_or_default().into_iter().map(move |task| (n, task)))
                .collect();
            let mut told = Vec::new();
            for (n, task) in &all {
                let places = all.iter().filter(|(_, t)| t == task).map(|(n, _)| *n);
                if !told.contains(task)
                    && let Some(breach) = runs_alone(*task, *n, places)
                {
                    told.push(*task);
                    story.broken(&breach);
                }
            }
            self.looks.fetch_add(1, Ordering::Relaxed);
            thread::sleep(LOOK_EVERY);
        }
    }
}
