//! Secrets, configs and networks: made, changed and removed by operators, and handed to the tasks that refer to them.
//! One that a service uses can't be removed; one that isn't there can't be used.

use super::face::Refused;
use super::requests::Decision;
use super::view::ObjectView;
use super::*;
use crate::ids::ObjectId;
use crate::model::object::{Content, FileRef, NetworkRef, Object, ObjectKind, PlannedFile, PlannedNetwork, heading};
use crate::model::record::Hlc;

/// A sealed secret is a little longer than what it holds.
const SEAL_ALLOWANCE: usize = 64;

impl Core {
    pub fn objects(&self, kind: ObjectKind) -> Vec<ObjectView> {
        self.store.objects(kind).map(|object| self.object_view(object)).collect()
    }

    fn object_view(&self, object: &Object) -> ObjectView {
        let index = self.store.index(&Key::Object(object.kind, object.id)).unwrap_or_default();
        ObjectView { object: object.clone(), index }
    }

    pub(super) fn create_object(
        &mut self,
        kind: ObjectKind,
        spec_json: String,
        data: Vec<u8>,
        now: Now,
    ) -> Result<Decision, Refused> {
        Ok(put(self.new_object(kind, spec_json, data, now)?))
    }

    /// See [`Request::RenewObject`](super::face::Request::RenewObject).
    pub(super) fn renew_object(
        &mut self,
        kind: ObjectKind,
        old: &BTreeSet<ObjectId>,
        spec_json: String,
        data: Vec<u8>,
        now: Now,
    ) -> Result<Decision, Refused> {
        for id in old {
            self.object_at(kind, *id)?;
        }
        let object = self.new_object(kind, spec_json, data, now)?;
        let (changes, warnings) = self.move_services(old, &object, now)?;
        Ok(put(object).with(changes, warnings))
    }

    fn new_object(&self, kind: ObjectKind, spec_json: String, data: Vec<u8>, now: Now) -> Result<Object, Refused> {
        let heading = heading(&spec_json).map_err(Refused::Invalid)?;
        check_size(kind, &spec_json, &data)?;
        let id = ObjectId::of_name(self.cluster, kind, &heading.name);
        if self.store.object(kind, id).is_some() {
            let (what, name) = (kind.as_str(), heading.name);
            let text = match kind {
                ObjectKind::Network => format!("network with name {name} already exists"),
                _ => format!("rpc error: code = AlreadyExists desc = {what} {name} already exists"),
            };
            return Err(Refused::Conflict(text));
        }
        Ok(Object {
            id,
            kind,
            name: heading.name,
            labels: heading.labels,
            spec_json,
            data,
            created: now.wall,
            updated: now.wall,
        })
    }

    pub(super) fn update_object(
        &mut self,
        kind: ObjectKind,
        id: ObjectId,
        version: Option<Hlc>,
        spec_json: String,
        now: Now,
    ) -> Result<Decision, Refused> {
        let old = self.object_at(kind, id)?;
        if version.is_some() && version != self.store.index(&Key::Object(kind, id)) {
            return Err(Refused::OutOfSequence);
        }
        let heading = heading(&spec_json).map_err(Refused::Invalid)?;
        if heading.name != old.name {
            return Err(Refused::Invalid("Name: only updates to Labels are allowed".to_owned()));
        }
        check_size(kind, &spec_json, &old.data)?;
        Ok(put(Object { labels: heading.labels, spec_json, updated: now.wall, ..old }))
    }

    pub(super) fn remove_object(&mut self, kind: ObjectKind, id: ObjectId) -> Result<Decision, Refused> {
        let object = self.object_at(kind, id)?;
        let users = self.users(&object);
        if !users.is_empty() {
            let (what, name) = (kind.as_str(), &object.name);
            let (noun, names) = (if users.len() == 1 { "service" } else { "services" }, users.join(", "));
            let text = format!("{what} '{name}' is in use by the following {noun}: {names}");
            return Err(Refused::Invalid(text));
        }
        Ok(Decision::new(id, Key::Object(kind, id), vec![(Key::Object(kind, id), None)]))
    }

    fn object_at(&self, kind: ObjectKind, id: ObjectId) -> Result<Object, Refused> {
        let found = self.store.object(kind, id).cloned();
        found.ok_or_else(|| Refused::NotFound(format!("{} {id} not found", kind.as_str())))
    }

    /// The services that need it now, or whose tasks may still have to be started anew.
    fn users(&mut self, object: &Object) -> Vec<String> {
        let mut users = Vec::new();
        let services: Vec<_> = self.store.services().cloned().collect();
        for service in services {
            let of_tasks = self.store.tasks().filter(|t| t.service == service.id && t.desired.is_live());
            let mut revisions: BTreeSet<RevisionId> = of_tasks.map(|t| t.revision).collect();
            revisions.extend([service.current, self.effective_revision(&service)]);
            let specs: Vec<_> = revisions.into_iter().filter_map(|id| self.spec(service.id, id)).collect();
            if specs.iter().any(|spec| self.refers(spec, object.kind, object.id)) {
                users.push(service.name);
            }
        }
        users
    }

    /// Everything that a spec refers to must be there, or be `made` with it.
    pub(super) fn check_references(&self, spec: &ServiceSpec, made: Option<ObjectId>) -> Result<(), Refused> {
        for file in &spec.task.container.files {
            if made != Some(file.object) && self.store.object(file.kind, file.object).is_none() {
                let (key, what) = match file.kind {
                    ObjectKind::Config => ("Configs", "config"),
                    _ => ("Secrets", "secret"),
                };
                return Err(Refused::Invalid(format!(
                    "TaskTemplate.ContainerSpec.{key}: {what} {} ({}) not found",
                    file.name, file.object
                )));
            }
        }
        for network in &spec.task.container.networks {
            if self.network(network).is_none() {
                return Err(Refused::NotFound(format!("network {} not found", network.target)));
            }
        }
        Ok(())
    }

    /// By id or by name.
    fn network(&self, wanted: &NetworkRef) -> Option<&Object> {
        self.store.object(ObjectKind::Network, self.network_id(wanted))
    }

    fn network_id(&self, wanted: &NetworkRef) -> ObjectId {
        let by_name = ObjectId::of_name(self.cluster, ObjectKind::Network, &wanted.target);
        match wanted.target.parse() {
            Ok(id) if self.store.record(&Key::Object(ObjectKind::Network, by_name)).is_none() => id,
            _ => by_name,
        }
    }

    /// A task's files and networks; `None` while some record of them has not arrived.
    pub(super) fn referred(
        &self,
        spec: &ServiceSpec,
        service: &str,
    ) -> Option<(Vec<PlannedFile>, Vec<PlannedNetwork>)> {
        let container = &spec.task.container;
        let files: Option<Vec<_>> = container.files.iter().map(|file| self.planned_file(file)).collect();
        let networks: Option<Vec<_>> =
            container.networks.iter().map(|network| self.planned_network(network, service)).collect();
        Some((files?, networks?))
    }

    fn planned_file(&self, file: &FileRef) -> Option<PlannedFile> {
        let record = self.store.record(&Key::Object(file.kind, file.object))?;
        let content = match &record.value {
            Some(Value::Object(object)) if file.kind == ObjectKind::Secret => Content::Sealed(object.data.clone()),
            Some(Value::Object(object)) => Content::Plain(object.data.clone()),
            _ => Content::Gone,
        };
        let is_template = matches!(&record.value, Some(Value::Object(object)) if object.is_template());
        Some(PlannedFile { file: file.clone(), content, is_template })
    }

    fn planned_network(&self, wanted: &NetworkRef, service: &str) -> Option<PlannedNetwork> {
        let id = self.network_id(wanted);
        let record = self.store.record(&Key::Object(ObjectKind::Network, id))?;
        let object = match &record.value {
            Some(Value::Object(object)) => Some(object),
            _ => None,
        };
        // Swarm's names: the service's own, and one that means its tasks.
        let mut aliases = vec![service.to_owned(), format!("tasks.{service}")];
        aliases.extend(wanted.aliases.iter().filter(|alias| *alias != service).cloned());
        Some(PlannedNetwork {
            id,
            name: object.map_or_else(|| wanted.target.clone(), |o| o.name.clone()),
            spec_json: object.map(|o| o.spec_json.clone()),
            aliases,
        })
    }

    /// A record came, changed or went: tasks of this node that refer to it look again.
    pub(super) fn on_object(&mut self, kind: ObjectKind, id: ObjectId, now: Now) {
        let mine: Vec<_> =
            self.store.tasks().filter(|t| t.node == Some(self.me) && t.desired.is_live()).cloned().collect();
        for task in mine {
            if self.spec(task.service, task.revision).is_some_and(|spec| self.refers(&spec, kind, id)) {
                self.assign(task.id, now);
            }
        }
    }

    fn refers(&self, spec: &ServiceSpec, kind: ObjectKind, id: ObjectId) -> bool {
        let container = &spec.task.container;
        match kind {
            ObjectKind::Network => container.networks.iter().any(|n| self.network_id(n) == id),
            kind => container.files.iter().any(|file| file.kind == kind && file.object == id),
        }
    }
}

fn check_size(kind: ObjectKind, spec_json: &str, data: &[u8]) -> Result<(), Refused> {
    let what = kind.as_str();
    if data.len() > kind.max_bytes() + SEAL_ALLOWANCE {
        return Err(Refused::Invalid(format!("{what} data must be at most {} bytes", kind.max_bytes())));
    }
    let room = limits::MAX_CONFIG_BYTES - data.len().min(limits::MAX_CONFIG_BYTES) + 32 * 1024;
    if spec_json.len() > room {
        return Err(Refused::Invalid(format!("the {what}'s labels take {} bytes, more than fit", spec_json.len())));
    }
    Ok(())
}

fn put(object: Object) -> Decision {
    let key = Key::Object(object.kind, object.id);
    Decision::new(object.id, key.clone(), vec![(key, Some(Value::Object(object)))])
}
