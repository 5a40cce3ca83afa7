//! A made-up agent: does at once, and in memory, what a cluster would do for a command.

use super::views;
use crate::core::face::{Accepted, Refused, Reply, Request};
use crate::core::view::{ObjectView, RevisionView, ServiceView};
use crate::ids::ServiceId;
use crate::model::object::ObjectKind;
use crate::model::record::Hlc;
use crate::model::rollout::RolloutState;
use crate::model::spec::Mode;
use crate::shell::api::backend::{Backend, Snapshot, Want};
use futures_util::future::{BoxFuture, ready};
use std::sync::{Arc, Mutex};

pub struct Fake {
    pub state: Mutex<Snapshot>,
    pub objects: Mutex<Vec<ObjectView>>,
    /// What was asked, in order.
    pub asked: Mutex<Vec<Request>>,
    /// What the next request gets instead of being done.
    pub next: Mutex<Option<Reply>>,
}

impl Fake {
    pub fn new(snapshot: Snapshot) -> Self {
        Self { state: Mutex::new(snapshot), objects: Mutex::default(), asked: Mutex::default(), next: Mutex::default() }
    }

    pub fn last(&self) -> Request {
        self.asked.lock().unwrap().last().cloned().expect("a request came through")
    }

    fn apply(&self, request: Request) -> Reply {
        let state = &mut *self.state.lock().unwrap();
        let done = |id: String, index: Hlc| Ok(Accepted { id, index, warnings: Vec::new() });
        match request {
            Request::CreateService { spec_json, .. } => {
                let mut view = views::service(named(&spec_json).as_str(), 1);
                if state.services.iter().any(|known| known.service.id == view.service.id) {
                    return Err(Refused::Conflict(format!(
                        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service {} already exists",
                        view.service.name
                    )));
                }
                take(&mut view, spec_json);
                settle(state, &view);
                let id = view.service.id.to_string();
                state.services.push(view);
                done(id, Hlc::new(views::NOW, 1))
            }
            Request::UpdateService { id, version, spec_json, .. } => change(state, id, version, |view| {
                view.previous_json = Some(std::mem::take(&mut view.spec_json));
                take(view, spec_json);
            }),
            Request::RollbackService { id, version, .. } => change(state, id, version, |view| {
                let back = view.previous_json.take().unwrap_or_else(|| view.spec_json.clone());
                view.previous_json = Some(std::mem::take(&mut view.spec_json));
                view.service.rolled_back = true;
                take(view, back);
            }),
            Request::RemoveService { id } => {
                state.services.retain(|view| view.service.id != id);
                state.tasks.retain(|view| view.task.service != id);
                done(id.to_string(), Hlc(0))
            }
            Request::CreateObject { kind, spec_json, data } => {
                let view = views::object(kind, &spec_json, &data);
                let mut objects = self.objects.lock().unwrap();
                if objects.iter().any(|known| known.object.id == view.object.id) {
                    return Err(Refused::Conflict(format!("{} already exists", view.object.name)));
                }
                objects.push(view.clone());
                done(view.object.id.to_string(), view.index)
            }
            Request::UpdateObject { kind, id, version, spec_json } => {
                let mut objects = self.objects.lock().unwrap();
                let view = objects.iter_mut().find(|view| view.object.id == id && view.object.kind == kind).unwrap();
                if version != Some(view.index) {
                    return Err(Refused::OutOfSequence);
                }
                view.object = views::object(kind, &spec_json, &view.object.data).object;
                view.index.0 += 1;
                done(id.to_string(), view.index)
            }
            Request::RemoveObject { id, .. } => {
                let id_text = id.to_string();
                if let Some(user) = state.services.iter().find(|s| s.spec_json.contains(&id_text)) {
                    return Err(Refused::Invalid(format!("in use by the following service: {}", user.service.name)));
                }
                self.objects.lock().unwrap().retain(|view| view.object.id != id);
                done(id.to_string(), Hlc(0))
            }
            Request::UpdateNode { id, version, availability, labels } => {
                let Some(node) = state.nodes.iter_mut().find(|node| node.id == id) else {
                    return Err(Refused::NotFound(format!("node {id} not found")));
                };
                if version.is_some_and(|version| version != node.index) {
                    return Err(Refused::OutOfSequence);
                }
                node.policy.availability = availability.unwrap_or(node.policy.availability);
                node.policy.labels = labels.unwrap_or_default();
                node.index.0 += 1;
                done(id.to_string(), node.index)
            }
            Request::RemoveNode { id, force: false } => {
                Err(Refused::Invalid(format!("node {id} is not down and can't be removed")))
            }
            Request::RemoveNode { id, .. } => {
                state.nodes.retain(|node| node.id != id);
                done(id.to_string(), Hlc(0))
            }
            Request::RotateToken { secret } => {
                state.cluster.join_secret = secret;
                done(String::new(), Hlc(0))
            }
            Request::RenewObject { .. } | Request::Recover | Request::Stop => done(String::new(), Hlc(0)),
        }
    }
}

fn value(spec_json: &str) -> serde_json::Value {
    serde_json::from_str(spec_json).unwrap()
}

fn named(spec_json: &str) -> String {
    value(spec_json)["Name"].as_str().unwrap_or_default().to_owned()
}

/// Makes this the service's spec.
fn take(view: &mut ServiceView, spec_json: String) {
    let value = value(&spec_json);
    let replicas = value["Mode"]["Replicated"]["Replicas"].as_u64().unwrap_or(1);
    let image = value["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default();
    let mut spec = views::spec(&view.service.name, u32::try_from(replicas).unwrap(), image);
    if value["Mode"].get("Global").is_some() {
        spec.mode = Mode::Global;
    }
    if let Some(labels) = value["Labels"].as_object() {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        spec.labels = labels.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    }
    (view.running, view.desired) = (u32::try_from(replicas).unwrap(), u32::try_from(replicas).unwrap());
    view.spec = Arc::new(spec);
    view.spec_json = spec_json;
}

fn change(state: &mut Snapshot, id: ServiceId, version: Option<Hlc>, how: impl FnOnce(&mut ServiceView)) -> Reply {
    let Some(at) = state.services.iter().position(|view| view.service.id == id) else {
        return Err(Refused::NotFound(format!("service {id} not found")));
    };
    let mut view = state.services[at].clone();
    if version.is_some_and(|version| version != view.index) {
        return Err(Refused::OutOfSequence);
    }
    view.service.rolled_back = false;
    how(&mut view);
    view.index.0 += 1;
    view.service.current.hlc = view.index;
    view.rollout = Some(views::rollout(&view, RolloutState::Updating));
    settle(state, &view);
    let index = view.index;
    state.services[at] = view;
    Ok(Accepted { id: id.to_string(), index, warnings: Vec::new() })
}

/// All its tasks run at once.
fn settle(state: &mut Snapshot, view: &ServiceView) {
    state.tasks.retain(|task| task.task.service != view.service.id);
    let seed = u8::try_from(state.tasks.len()).unwrap() * 7 + 1;
    for slot in 1..=view.desired {
        let node = state.nodes[slot as usize % state.nodes.len()].id;
        state.tasks.push(views::task(view, slot, seed.wrapping_add(u8::try_from(slot).unwrap() * 16), node));
    }
}

impl Backend for Fake {
    fn snapshot(&self, want: Want) -> BoxFuture<'_, Result<Snapshot, Refused>> {
        let mut snapshot = self.state.lock().unwrap().clone();
        // What a handler didn't ask for it must not rely on.
        if !want.services {
            snapshot.services.clear();
        }
        if !want.tasks {
            snapshot.tasks.clear();
        }
        if !want.nodes {
            snapshot.nodes.clear();
        }
        Box::pin(ready(Ok(snapshot)))
    }

    fn revisions(&self, service: ServiceId) -> BoxFuture<'_, Result<Vec<RevisionView>, Refused>> {
        let state = self.state.lock().unwrap();
        let view = state.services.iter().find(|view| view.service.id == service);
        Box::pin(ready(Ok(view.map(views::revisions).unwrap_or_default())))
    }

    fn objects(&self, kind: ObjectKind) -> BoxFuture<'_, Result<Vec<ObjectView>, Refused>> {
        let all = self.objects.lock().unwrap();
        let views = all.iter().filter(|view| view.object.kind == kind).cloned().collect();
        Box::pin(ready(Ok(views)))
    }

    fn request(&self, request: Request) -> BoxFuture<'_, Reply> {
        self.asked.lock().unwrap().push(request.clone());
        let planned = self.next.lock().unwrap().take();
        Box::pin(ready(planned.unwrap_or_else(|| self.apply(request))))
    }
}
