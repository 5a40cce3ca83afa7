//! Carries out a storm's plan. What a fault took is given back at its end, by the same thread, whatever happened meanwhile.

use super::plan::{Fault, Planned, Target};
use super::story::{Story, locked};
use crate::lab::{Lab, http};
use crate::law::Breach;
use anyhow::{Context, Result};
use serde_json::Value;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

/// What is under way on each node.
pub struct Field<'a> {
    lab: &'a Lab,
    story: &'a Story,
    taken: Mutex<Vec<bool>>,
    silent: Mutex<Vec<bool>>,
}

impl<'a> Field<'a> {
    pub fn new(lab: &'a Lab, story: &'a Story) -> Self {
        let none = || Mutex::new(vec![false; lab.config.nodes + 1]);
        Self { lab, story, taken: none(), silent: none() }
    }

    /// Nodes whose agents can be asked.
    pub fn answering(&self) -> Vec<usize> {
        let silent = locked(&self.silent);
        (1..=self.lab.config.nodes).filter(|n| !silent[*n]).collect()
    }

    /// Returns when all is given back. How many faults there were.
    pub fn storm(&self, plan: &[Planned]) -> usize {
        let began = Instant::now();
        thread::scope(|scope| {
            let mut faults = Vec::new();
            for planned in plan {
                thread::sleep(planned.at.saturating_sub(began.elapsed()));
                faults.push(scope.spawn(|| self.fault(planned)));
            }
            faults.into_iter().filter_map(|fault| fault.join().ok()).filter(|happened| *happened).count()
        })
    }

    fn fault(&self, planned: &Planned) -> bool {
        let node = match planned.fault.target() {
            Some(Target::Node(node)) => Some(*node),
            Some(Target::Holder) => match self.holder() {
                Some(node) => Some(node),
                None => return false,
            },
            None => None,
        };
        if let Some(node) = node
            && std::mem::replace(&mut locked(&self.taken)[node], true)
        {
            return false;
        }
        if let Some(node) = node.filter(|_| planned.fault.silences()) {
            locked(&self.silent)[node] = true;
        }
        let who = node.map_or("net".to_owned(), |node| format!("n{node}"));
        let what = &planned.fault;
        self.story.say(&who, &format!("{what}, for {:.1} s", planned.lasts.as_secs_f64()));
        let begun = self.begin(what, node.unwrap_or(0));
        if let Err(error) = &begun {
            self.story.say(&who, &format!("(not done: {error:#})"));
        }
        thread::sleep(planned.lasts);
        match self.end(what, node.unwrap_or(0)) {
            Ok(()) if matches!(what, Fault::KillContainer(_)) => {}
            Ok(()) => self.story.say(&who, &format!("over: {what}")),
            // A node that doesn't come up from its own disk has lost something.
            Err(error) => self.story.broken(&Breach::of("boot", format!("{who}: after {what}: {error:#}"))),
        }
        if let Some(node) = node {
            locked(&self.silent)[node] = false;
            locked(&self.taken)[node] = false;
        }
        begun.is_ok()
    }

    fn begin(&self, fault: &Fault, node: usize) -> Result<()> {
        let lab = self.lab;
        match fault {
            Fault::KillAgent(_) => lab.kill_agent(node),
            Fault::StopAgent(_) => lab.stop_agent(node),
            Fault::PauseAgent(_) => lab.signal_agent(node, "STOP"),
            Fault::Unplug(_) => lab.set_link(node, false),
            Fault::PowerOff(_) => lab.power_off(node),
            Fault::KillEngine(_) => lab.kill_engine(node),
            Fault::KillContainer(_) => self.kill_container(node),
            Fault::Cut { .. } | Fault::Halves(..) => pairs(fault).try_for_each(|(from, to)| lab.deafen(to, from)),
        }
    }

    fn end(&self, fault: &Fault, node: usize) -> Result<()> {
        let lab = self.lab;
        match fault {
            Fault::KillAgent(_) | Fault::StopAgent(_) => lab.start_agent(node, None),
            Fault::PauseAgent(_) => lab.signal_agent(node, "CONT"),
            Fault::Unplug(_) => lab.set_link(node, true),
            Fault::PowerOff(_) => lab.power_on(node),
            Fault::KillEngine(_) => lab.start_engine(node),
            Fault::KillContainer(_) => Ok(()),
            Fault::Cut { .. } | Fault::Halves(..) => pairs(fault).try_for_each(|(from, to)| lab.undeafen(to, from)),
        }
    }

    fn kill_container(&self, node: usize) -> Result<()> {
        let socket = self.lab.engine_socket(node);
        let list = http::json(&socket, "GET", super::engines::LIST_RUNNING, None)?;
        let first = list.as_array().and_then(|all| all.first()).context("none runs there")?;
        let id = first["Id"].as_str().context("a container without an id")?;
        http::ask(&socket, "POST", &format!("/containers/{id}/kill"), None).map(drop)
    }

    /// In the eyes of any node that answers.
    pub fn holder(&self) -> Option<usize> {
        let number = |node: &Value| node["Description"]["Hostname"].as_str()?.strip_prefix("node")?.parse().ok();
        let leads = |node: &&Value| node["ManagerStatus"]["Leader"].as_bool() == Some(true);
        self.answering().into_iter().find_map(|node| {
            let nodes = http::json(&self.lab.socket(node), "GET", "/nodes", None).ok()?;
            number(nodes.as_array()?.iter().find(leads)?)
        })
    }
}

/// Who isn't heard by whom.
fn pairs(fault: &Fault) -> Box<dyn Iterator<Item = (usize, usize)> + '_> {
    match fault {
        Fault::Cut { from, to, both } => Box::new([(*from, *to)].into_iter().chain(both.then_some((*to, *from)))),
        Fault::Halves(left, right) => {
            Box::new(left.iter().flat_map(|a| right.iter().flat_map(move |b| [(*a, *b), (*b, *a)])))
        }
        _ => Box::new(std::iter::empty()),
    }
}
