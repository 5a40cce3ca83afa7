//! `/secrets` and `/configs`, which differ in one thing: a secret's content is sealed before it leaves here.

use crate::core::face::Request as Ask;
use crate::core::view::{ObjectView, ServiceView};
use crate::ids::ObjectId;
use crate::model::object::{Object, ObjectKind, heading, template_driver};
use crate::model::spec::template;
use crate::shell::api::backend::Want;
use crate::shell::api::filters::Filters;
use crate::shell::api::incoming::Call;
use crate::shell::api::render::fields::Fields;
use crate::shell::api::render::object::object;
use crate::shell::api::reply::{self, Answer, Failure};
use crate::shell::api::{Api, lookup};
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const FILTERS: &[&str] = &["id", "label", "name", "names"];

pub async fn route(api: &Api, kind: ObjectKind, method: &str, path: &[&str], call: &Call) -> Answer {
    match (method, path) {
        ("GET", []) => list(api, kind, call).await,
        ("POST", ["create"]) => create(api, kind, call).await,
        ("GET", [text]) => reply::ok(&object(&find(api, kind, text).await?)),
        ("POST", [text, "update"]) => update(api, kind, text, call).await,
        ("DELETE", [text]) => remove(api, kind, text).await,
        _ => Err(Failure::not_found(format!("page not found: {method} /{}s/{}", kind.as_str(), path.join("/")))),
    }
}

async fn list(api: &Api, kind: ObjectKind, call: &Call) -> Answer {
    let filters = Filters::of(&call.query, FILTERS)?;
    let all = api.backend.objects(kind).await?;
    let matches = |view: &&ObjectView| {
        filters.begins("id", &view.object.id.to_string())
            && filters.begins("name", &view.object.name)
            && filters.equals("names", &view.object.name)
            && filters.labels("label", &view.object.labels)
    };
    reply::ok(&all.iter().filter(matches).map(object).collect::<Vec<_>>())
}

pub async fn find(api: &Api, kind: ObjectKind, text: &str) -> Result<ObjectView, Failure> {
    let all = api.backend.objects(kind).await?;
    lookup::find(&all, kind.as_str(), text, |view| view.object.id.to_string(), |view| view.object.name == text).cloned()
}

async fn create(api: &Api, kind: ObjectKind, call: &Call) -> Answer {
    let (spec, data) = read(kind, call)?;
    let data = sealed(api, kind, &spec, data.unwrap_or_default()).await?;
    let accepted = api.backend.request(Ask::CreateObject { kind, spec_json: spec, data }).await?;
    reply::created(&accepted)
}

/// The content as it may become a record.
async fn sealed(api: &Api, kind: ObjectKind, spec: &str, data: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if data.is_empty() || data.len() > kind.max_bytes() {
        let (what, most) = (kind.as_str(), kind.max_bytes());
        return Err(Failure::invalid(format!("{what} data must be larger than 0 and at most {most} bytes")));
    }
    check_template(spec, &data)?;
    if kind != ObjectKind::Secret {
        return Ok(data);
    }
    let cluster = api.backend.snapshot(Want::CLUSTER).await?.cluster.id;
    let name = heading(spec).map_err(Failure::invalid)?.name;
    let sealed = api.extra.vault.seal(ObjectId::of_name(cluster, kind, &name), &data);
    sealed.map_err(|error| Failure::unavailable(format!("the secret can't be sealed: {error}")))
}

/// Mistakes in a template are told now, and not when a task is made of it.
fn check_template(spec: &str, data: &[u8]) -> Result<(), Failure> {
    let Some(driver) = template_driver(spec) else { return Ok(()) };
    if driver != "golang" {
        return Err(Failure::unsupported(format!("Templating: the driver {driver:?} is not supported: want golang")));
    }
    let text = std::str::from_utf8(data).map_err(|_| Failure::invalid("Data: a template must be text (UTF-8)"))?;
    template::check_content(text).map_err(|why| Failure::invalid(format!("Data: {why}")))
}

/// Of which secret or config this one is a later version.
const VERSION_OF: &str = "com.peer.version-of";

/// New content under a name of its own, to which every service that uses an older version is moved; Docker's API has no
/// such thing. The older versions stay for as long as somebody may roll back to them.
pub async fn renew(api: &Api, kind: ObjectKind, text: &str, call: &Call) -> Answer {
    let (said, data) = read(kind, call)?;
    let mut said = Fields::parse(&said).unwrap_or_default();
    let view = find(api, kind, text).await?;
    let first = view.object.labels.get(VERSION_OF).unwrap_or(&view.object.name).clone();
    let all = api.backend.objects(kind).await?;
    let is_of = |object: &Object| match object.labels.get(VERSION_OF) {
        Some(of) => *of == first,
        None => object.name == first,
    };
    // `peer stack deploy` moves its services itself, together with all else that it changes.
    let moves = call.query.text("move") != Some("false");
    let old: BTreeSet<ObjectId> =
        all.iter().filter(|_| moves).filter(|v| is_of(&v.object)).map(|v| v.object.id).collect();
    let taken = |name: &str| all.iter().any(|view| view.object.name == name);
    let name = (2..).map(|number| format!("{first}.v{number}")).find(|name| !taken(name)).unwrap_or_default();
    // Labels that are said take the place of those of the version before.
    let mut spec = Fields::parse(&view.object.spec_json).unwrap_or_default();
    let said_labels: Option<BTreeMap<String, String>> =
        said.get("Labels").and_then(|text| serde_json::from_str(text).ok());
    let mut labels = said_labels.unwrap_or_else(|| view.object.labels.clone());
    labels.insert(VERSION_OF.to_owned(), first);
    spec.set("Name", &name);
    spec.set("Labels", &labels);
    // Kept where nothing is said of it; `null` is said, too.
    if let Some(templating) = said.take("Templating") {
        spec.set_text("Templating", &templating);
    }
    let spec_json = serde_json::to_string(&spec).map_err(|error| Failure::invalid(error.to_string()))?;
    let data = sealed(api, kind, &spec_json, data.unwrap_or_default()).await?;
    let accepted = api.backend.request(Ask::RenewObject { kind, old, spec_json, data }).await?;
    let services = api.backend.snapshot(Want::SERVICES).await?.services;
    let uses = |view: &&ServiceView| {
        view.spec.task.container.files.iter().any(|file| file.kind == kind && file.object.to_string() == accepted.id)
    };
    let services: Vec<Value> = services
        .iter()
        .filter(uses)
        .map(|view| json!({ "ID": view.service.id.to_string(), "Name": view.service.name }))
        .collect();
    reply::ok(&json!({ "ID": accepted.id, "Name": name, "Services": services, "Warnings": accepted.warnings }))
}

/// Whether this is its content; a secret's can't be read back.
pub async fn compare(api: &Api, kind: ObjectKind, text: &str, call: &Call) -> Answer {
    let (_, data) = read(kind, call)?;
    let view = find(api, kind, text).await?;
    reply::ok(&json!({ "Same": is_its_content(api, &view, &data.unwrap_or_default())? }))
}

/// Docker allows only the labels to change; clients send the content along, or not.
async fn update(api: &Api, kind: ObjectKind, text: &str, call: &Call) -> Answer {
    let (spec_json, data) = read(kind, call)?;
    let view = find(api, kind, text).await?;
    let version = Some(call.query.version(kind.as_str(), view.index)?);
    let same_driver = template_driver(&spec_json) == template_driver(&view.object.spec_json);
    let same = match data.filter(|data| !data.is_empty()) {
        Some(data) => same_driver && is_its_content(api, &view, &data)?,
        None => same_driver,
    };
    if !same {
        let (what, name) = (kind.as_str(), &view.object.name);
        return Err(Failure::invalid(format!(
            "only updates to Labels are allowed: {what} {name} keeps its content; make one of another name, and let \
             the services that use it refer to that"
        )));
    }
    reply::updated(&api.backend.request(Ask::UpdateObject { kind, id: view.object.id, version, spec_json }).await?)
}

fn is_its_content(api: &Api, view: &ObjectView, data: &[u8]) -> Result<bool, Failure> {
    if view.object.kind != ObjectKind::Secret {
        return Ok(view.object.data == data);
    }
    let plain = api.extra.vault.open(view.object.id, &view.object.data);
    let plain = plain.map_err(|error| Failure::unavailable(format!("secret {}: {error}", view.object.name)))?;
    Ok(ring::digest::digest(&ring::digest::SHA256, &plain).as_ref()
        == ring::digest::digest(&ring::digest::SHA256, data).as_ref())
}

async fn remove(api: &Api, kind: ObjectKind, text: &str) -> Answer {
    let id = find(api, kind, text).await?.object.id;
    api.backend.request(Ask::RemoveObject { kind, id }).await?;
    Ok(no_content())
}

pub fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The spec without its content, and the content.
fn read(kind: ObjectKind, call: &Call) -> Result<(String, Option<Vec<u8>>), Failure> {
    let text = call.json_object()?;
    let mut spec = Fields::parse(&text).ok_or_else(|| Failure::invalid("invalid JSON: want an object"))?;
    if spec.get("Driver").is_some_and(|text| text != "{}") {
        return Err(Failure::unsupported(format!("Driver: drivers of {}s are not supported", kind.as_str())));
    }
    let data = match spec.take("Data").filter(|text| text != "null") {
        None => None,
        Some(text) => {
            let base64: String =
                serde_json::from_str(&text).map_err(|_| Failure::invalid("Data: want base64 in a string"))?;
            Some(STANDARD.decode(base64).map_err(|error| Failure::invalid(format!("Data: not base64: {error}")))?)
        }
    };
    let spec = serde_json::to_string(&spec).map_err(|error| Failure::invalid(error.to_string()))?;
    Ok((spec, data))
}
