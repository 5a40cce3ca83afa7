//! What `peer top` shows: rows of text made of Docker's JSON, the same for the screen and for a pipe.

use crate::cli::go::{age, ago, capital, human};
use crate::cli::json::{flag, is_there, items, number, text, texts};
use crate::cli::list::short;
use crate::cli::service::image::familiar;
use crate::cli::table::{natural, table};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

const MAX_EVENTS: usize = 200;

/// One table.
pub struct Part {
    pub title: &'static str,
    pub header: &'static [&'static str],
    /// Columns that a narrow screen does without, the first one first.
    pub spare: &'static [&'static str],
    pub rows: Vec<Row>,
    /// What to say instead of a table without rows.
    pub empty: &'static str,
}

pub struct Row {
    pub cells: Vec<String>,
    pub mood: Mood,
}

/// What a row's colour says again, beside its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Good,
    Moving,
    Bad,
    Past,
}

pub struct Picture {
    status: Value,
    nodes: Vec<Value>,
    services: Vec<Value>,
    tasks: Vec<Value>,
    node_names: BTreeMap<String, String>,
    service_names: BTreeMap<String, String>,
    /// Tasks of the wanted version that run, by service.
    renewed: BTreeMap<String, u64>,
    /// Newest first.
    events: VecDeque<Value>,
    /// Why what is shown may be old.
    lost: Option<String>,
}

fn names(objects: &[Value], pointer: &str) -> BTreeMap<String, String> {
    objects.iter().map(|object| (text(object, "/ID").to_owned(), text(object, pointer).to_owned())).collect()
}

fn is_wanted(task: &Value) -> bool {
    matches!(text(task, "/DesiredState"), "running" | "ready")
}

impl Picture {
    pub fn new(status: Value, nodes: &Value, services: &Value, tasks: &Value, current: &Value) -> Self {
        let sorted = |value: &Value, pointer: &str| {
            let mut sorted = items(value).to_vec();
            sorted.sort_by(|a, b| natural(text(a, pointer), text(b, pointer)));
            sorted
        };
        let (nodes, services) = (sorted(nodes, "/Description/Hostname"), sorted(services, "/Spec/Name"));
        let mut renewed: BTreeMap<String, u64> = BTreeMap::new();
        for task in items(current).iter().filter(|task| is_wanted(task) && text(task, "/Status/State") == "running") {
            *renewed.entry(text(task, "/ServiceID").to_owned()).or_default() += 1;
        }
        Self {
            status,
            node_names: names(&nodes, "/Description/Hostname"),
            service_names: names(&services, "/Spec/Name"),
            nodes,
            services,
            tasks: items(tasks).to_vec(),
            renewed,
            events: VecDeque::new(),
            lost: None,
        }
    }

    pub fn happened(&mut self, event: &Value) {
        // Heard before, when a stream was opened anew: their times rise.
        if self.events.front().is_some_and(|last| number(last, "/timeNano") >= number(event, "/timeNano")) {
            return;
        }
        self.events.truncate(MAX_EVENTS - 1);
        self.events.push_front(event.clone());
    }

    pub fn keep_events(&mut self, older: Picture) {
        self.events = older.events;
    }

    /// The agent doesn't answer: what is shown is the last that was heard.
    pub fn lost(&mut self, why: &str) {
        self.lost = Some(why.to_owned());
    }

    /// How the cluster stands, in a line, and what is wrong.
    pub fn heading(&self) -> (String, Vec<String>) {
        let count = |name: &str| number(&self.status, &format!("/Nodes/{name}"));
        let holder = match text(&self.status, "/Holder/Hostname") {
            "" => "nobody holds the lease".to_owned(),
            name => format!("{name} holds the lease (term {})", number(&self.status, "/Holder/Term")),
        };
        let running = self.tasks.iter().filter(|task| is_wanted(task) && text(task, "/Status/State") == "running");
        let running = running.filter(|task| !self.is_down(text(task, "/NodeID"))).count();
        let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let heading = format!(
            "{} of {} nodes ready, {}, {} running, {holder}; seen by {}",
            count("Ready"),
            count("Total"),
            many(self.services.len(), "service"),
            many(running, "task"),
            text(&self.status, "/Node/Hostname"),
        );
        let mut troubles: Vec<String> = texts(&self.status, "/Troubles").into_iter().map(str::to_owned).collect();
        if !flag(&self.status, "/Quorum") && troubles.is_empty() {
            troubles.push("a majority of the voters is away".to_owned());
        }
        troubles.extend(self.lost.as_ref().map(|why| format!("not up to date: {why}")));
        (heading, troubles)
    }

    /// What runs there nobody knows.
    fn is_down(&self, node: &str) -> bool {
        self.nodes.iter().any(|other| text(other, "/ID") == node && text(other, "/Status/State") == "down")
    }

    pub fn parts(&self, now: Timestamp) -> [Part; 5] {
        [self.nodes(), self.services(), self.rollouts(now), self.tasks(now), self.events()]
    }

    fn nodes(&self) -> Part {
        let tasks_on = |id: &str| {
            let here = |task: &&Value| text(task, "/NodeID") == id && text(task, "/Status/State") == "running";
            self.tasks.iter().filter(here).count()
        };
        let row = |node: &Value| {
            let id = text(node, "/ID");
            let (state, availability) = (text(node, "/Status/State"), text(node, "/Spec/Availability"));
            let roles = [(flag(node, "/ManagerStatus/Leader"), "leader"), (flag(node, "/PeerStatus/Voter"), "voter")];
            let roles: Vec<&str> = roles.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
            let shown = match text(node, "/PeerStatus/Liveness") {
                "suspect" => "suspect".to_owned(),
                _ => capital(state),
            };
            let mood = match state {
                "ready" if availability == "active" => Mood::Good,
                "ready" => Mood::Moving,
                _ => Mood::Bad,
            };
            let cells = vec![
                text(node, "/Description/Hostname").to_owned(),
                shown,
                capital(availability),
                roles.join(" "),
                if state == "down" { "?".to_owned() } else { tasks_on(id).to_string() },
                text(node, "/Status/Addr").to_owned(),
                text(node, "/Status/Message").to_owned(),
            ];
            Row { cells, mood }
        };
        Part {
            title: "Nodes",
            header: &["NODE", "STATUS", "AVAILABILITY", "ROLE", "TASKS", "ADDRESS", "NOTE"],
            spare: &["ADDRESS", "ROLE", "NOTE"],
            rows: self.nodes.iter().map(row).collect(),
            empty: "no node is known yet",
        }
    }

    fn services(&self) -> Part {
        let row = |service: &Value| {
            let count = |name: &str| number(service, &format!("/ServiceStatus/{name}"));
            let (running, desired) = (count("RunningTasks"), count("DesiredTasks"));
            let update = text(service, "/UpdateStatus/State");
            let mood = match update {
                "paused" | "rollback_paused" => Mood::Bad,
                "updating" | "rollback_started" => Mood::Moving,
                _ if running < desired => Mood::Bad,
                _ => Mood::Good,
            };
            let mode = if is_there(service, "/Spec/Mode/Global") { "global" } else { "replicated" };
            let cells = vec![
                text(service, "/Spec/Name").to_owned(),
                mode.to_owned(),
                format!("{running}/{desired}"),
                familiar(text(service, "/Spec/TaskTemplate/ContainerSpec/Image")),
                update.replace('_', " "),
            ];
            Row { cells, mood }
        };
        Part {
            title: "Services",
            header: &["SERVICE", "MODE", "REPLICAS", "IMAGE", "UPDATE"],
            spare: &["MODE"],
            rows: self.services.iter().map(row).collect(),
            empty: "no service yet: peer service create --name web --replicas 3 -p 80:80 nginx",
        }
    }

    fn rollouts(&self, now: Timestamp) -> Part {
        let mut rows: Vec<(bool, Row)> = Vec::new();
        for service in self.services.iter().filter(|service| is_there(service, "/UpdateStatus/State")) {
            let state = text(service, "/UpdateStatus/State");
            let mood = match state {
                "paused" | "rollback_paused" => Mood::Bad,
                "updating" | "rollback_started" => Mood::Moving,
                _ => Mood::Past,
            };
            let since = match text(service, "/UpdateStatus/CompletedAt") {
                "" => text(service, "/UpdateStatus/StartedAt"),
                at => at,
            };
            let renewed = self.renewed.get(text(service, "/ID")).copied().unwrap_or_default();
            let cells = vec![
                text(service, "/Spec/Name").to_owned(),
                state.replace('_', " "),
                format!("{renewed}/{}", number(service, "/ServiceStatus/DesiredTasks")),
                age(since, now).map(|age| format!("{} ago", human(age).to_lowercase())).unwrap_or_default(),
                text(service, "/UpdateStatus/Message").to_owned(),
            ];
            rows.push((mood == Mood::Past, Row { cells, mood }));
        }
        rows.sort_by_key(|(past, _)| *past);
        Part {
            title: "Rollouts",
            header: &["SERVICE", "STATE", "RENEWED", "SINCE", "MESSAGE"],
            spare: &["SINCE"],
            rows: rows.into_iter().map(|(_, row)| row).collect(),
            empty: "no update to tell of",
        }
    }

    fn tasks(&self, now: Timestamp) -> Part {
        let or_id =
            |names: &BTreeMap<String, String>, id: &str| names.get(id).cloned().unwrap_or_else(|| short(id, false));
        let mut rows: Vec<(String, bool, String, Row)> = Vec::new();
        for task in &self.tasks {
            let (state, wanted) = (text(task, "/Status/State"), is_wanted(task));
            let service = or_id(&self.service_names, text(task, "/ServiceID"));
            let node = or_id(&self.node_names, text(task, "/NodeID"));
            let name = match number(task, "/Slot") {
                0 => format!("{service}.{node}"),
                slot => format!("{service}.{slot}"),
            };
            let mood = match state {
                "failed" | "rejected" => Mood::Bad,
                _ if !wanted => Mood::Past,
                "running" => Mood::Good,
                _ => Mood::Moving,
            };
            let since = text(task, "/Status/Timestamp");
            let why = match text(task, "/Status/Err") {
                "" if state != "running" => text(task, "/Status/Message"),
                why => why,
            };
            let cells = vec![
                name.clone(),
                node,
                familiar(text(task, "/Spec/ContainerSpec/Image")),
                capital(text(task, "/DesiredState")),
                format!("{} {}", capital(state), ago(since, now).to_lowercase()),
                why.replace('\n', " "),
            ];
            rows.push((name, !wanted, since.to_owned(), Row { cells, mood }));
        }
        // What is to run first, then the past, each by name and the youngest above.
        rows.sort_by(|a, b| a.1.cmp(&b.1).then_with(|| natural(&a.0, &b.0)).then_with(|| b.2.cmp(&a.2)));
        Part {
            title: "Tasks",
            header: &["TASK", "NODE", "IMAGE", "DESIRED", "CURRENT STATE", "WHY"],
            spare: &["DESIRED", "IMAGE"],
            rows: rows.into_iter().map(|(_, _, _, row)| row).collect(),
            empty: "no task yet",
        }
    }

    fn events(&self) -> Part {
        let row = |event: &Value| {
            let at = Timestamp::from_nanosecond(i128::from(number(event, "/timeNano"))).unwrap_or_default();
            let attribute = |name: &str| {
                let attributes = event.pointer("/Actor/Attributes").and_then(Value::as_object);
                attributes.and_then(|map| map.get(name)).and_then(Value::as_str).unwrap_or_default()
            };
            let changes = ["state", "desiredstate", "availability", "updatestate", "replicas", "image"];
            let changes = changes.iter().filter_map(|name| match attribute(&format!("{name}.new")) {
                "" => None,
                new => Some(format!("{name} {new}")),
            });
            let more = [attribute("message"), attribute("error")];
            let said: Vec<String> =
                changes.chain(more.into_iter().filter(|text| !text.is_empty()).map(str::to_owned)).collect();
            let bad = !attribute("error").is_empty()
                || matches!(attribute("state.new"), "down" | "failed" | "rejected")
                || matches!(text(event, "/Action"), "paused" | "rollback_paused" | "failure" | "lost");
            let cells = vec![
                at.strftime("%H:%M:%S").to_string(),
                format!("{} {}", text(event, "/Type"), text(event, "/Action")),
                attribute("name").to_owned(),
                said.join(", "),
            ];
            Row { cells, mood: if bad { Mood::Bad } else { Mood::Good } }
        };
        Part {
            title: "Events",
            header: &["TIME (UTC)", "EVENT", "OF", "WHAT"],
            spare: &["TIME (UTC)"],
            rows: self.events.iter().map(row).collect(),
            empty: "nothing has happened for a while",
        }
    }

    /// All of it but the events, as text.
    pub fn plain(&self, now: Timestamp) -> String {
        let (heading, troubles) = self.heading();
        let mut out = format!("{heading}\n");
        troubles.iter().for_each(|trouble| out.push_str(&format!("! {trouble}\n")));
        for part in self.parts(now).into_iter().filter(|part| part.title != "Events") {
            out.push_str(&format!("\n{}\n", part.title));
            if part.rows.is_empty() {
                out.push_str(&format!("{}\n", part.empty));
                continue;
            }
            let rows: Vec<Vec<String>> = part.rows.into_iter().map(|row| row.cells).collect();
            for line in table(part.header, &rows).lines() {
                out.push_str(line.trim_end());
                out.push('\n');
            }
        }
        out
    }
}
