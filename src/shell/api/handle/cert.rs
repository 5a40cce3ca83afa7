//! `/peer/certs`: who may use the API over TCP. A certificate carries its client's name and a generation; what is
//! replicated is the generation that is wanted of a name, which a revocation raises, and the one that was last issued.

use crate::core::face::{Accepted, Refused, Request as Ask};
use crate::core::view::ObjectView;
use crate::model::object::ObjectKind;
use crate::shell::api::Api;
use crate::shell::api::incoming::{self, Call};
use crate::shell::api::reply::{self, Answer, Failure};
use crate::shell::identity::ClientName;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

const GENERATION: &str = "generation";
const ISSUED: &str = "issued";
/// Changes of one name at one moment on several nodes.
const ATTEMPTS: usize = 4;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wanted {
    name: String,
}

/// The clients that certificates were issued to, by name.
pub async fn list(api: &Api) -> Answer {
    let mut all = api.backend.objects(ObjectKind::Client).await?;
    all.sort_by(|a, b| a.object.name.cmp(&b.object.name));
    let shown = |view: &ObjectView| {
        json!({
            "Name": view.object.name,
            "Revoked": issued(view).is_none_or(|issued| issued < generation(view)),
            "CreatedAt": view.object.created.rfc3339(),
            "UpdatedAt": view.object.updated.rfc3339(),
        })
    };
    reply::ok(&all.iter().map(shown).collect::<Vec<_>>())
}

/// The name is written down, so that a misspelt one can be told when it is revoked.
pub async fn issue(api: &Api, call: &Call) -> Answer {
    let name = fit(&incoming::json::<Wanted>(&call.body)?.name)?;
    let (generation, warnings) = change(api, &name, |found| {
        let generation = found.map_or(0, generation);
        let known = found.is_some_and(|view| issued(view) == Some(generation));
        Ok(Change { generation, issued: Some(generation), write: !known })
    })
    .await?;
    let (cert, key) = (api.extra.client_cert)(&name, generation).map_err(Failure::unavailable)?;
    tracing::info!(client = name, "a certificate for a client of the API was issued");
    reply::ok(&json!({ "Name": name, "CA": &*api.extra.ca, "Cert": cert, "Key": key, "Warnings": warnings }))
}

/// All certificates of this name that there are now end; later ones don't. `force`: also of a name that nobody wrote down,
/// as agents didn't before they kept a list.
pub async fn revoke(api: &Api, name: &str, call: &Call) -> Answer {
    let (name, force) = (fit(name)?, call.query.flag("force"));
    let (_, warnings) = change(api, &name, |found| match found {
        None if !force => Err(Failure::not_found(format!("client {name} not found: no certificate was issued to it"))),
        _ => {
            let generation = found.map_or(0, generation) + 1;
            Ok(Change { generation, issued: found.and_then(issued), write: true })
        }
    })
    .await?;
    tracing::info!(client = name, "the certificates of a client of the API were revoked");
    reply::ok(&json!({ "Warnings": warnings }))
}

struct Change {
    generation: u64,
    issued: Option<u64>,
    /// Else it stands so already.
    write: bool,
}

/// The generation that is wanted now, and what there is to say of the write.
async fn change(
    api: &Api,
    name: &str,
    wanted: impl Fn(Option<&ObjectView>) -> Result<Change, Failure>,
) -> Result<(u64, Vec<String>), Failure> {
    for attempt in 1.. {
        let found = find(api, name).await?;
        let change = wanted(found.as_ref())?;
        if !change.write {
            return Ok((change.generation, Vec::new()));
        }
        match put(api, name, found, &change).await {
            Err(Refused::OutOfSequence | Refused::Conflict(_)) if attempt < ATTEMPTS => {}
            result => return Ok((change.generation, result?.warnings)),
        }
    }
    Err(Failure::unavailable("too many changes of one client at once: try again"))
}

async fn put(api: &Api, name: &str, found: Option<ObjectView>, change: &Change) -> Result<Accepted, Refused> {
    let kind = ObjectKind::Client;
    let mut labels = BTreeMap::from([(GENERATION, change.generation.to_string())]);
    labels.extend(change.issued.map(|issued| (ISSUED, issued.to_string())));
    let spec_json = json!({ "Name": name, "Labels": labels }).to_string();
    api.backend
        .request(match found {
            None => Ask::CreateObject { kind, spec_json, data: Vec::new() },
            Some(view) => Ask::UpdateObject { kind, id: view.object.id, version: Some(view.index), spec_json },
        })
        .await
}

fn fit(name: &str) -> Result<String, Failure> {
    if ClientName::is_fit(name) {
        return Ok(name.to_owned());
    }
    Err(Failure::invalid(format!(
        "Name: {name:?} is no client's name: want lower case letters, digits and -, 40 at most"
    )))
}

async fn find(api: &Api, name: &str) -> Result<Option<ObjectView>, Failure> {
    let all = api.backend.objects(ObjectKind::Client).await?;
    Ok(all.into_iter().find(|view| view.object.name == name))
}

/// What can't be read counts as revoked for good.
fn generation(view: &ObjectView) -> u64 {
    view.object.labels.get(GENERATION).and_then(|text| text.parse().ok()).unwrap_or(u64::MAX - 1)
}

/// `None`: there was nothing but a revocation, as far as is known.
fn issued(view: &ObjectView) -> Option<u64> {
    view.object.labels.get(ISSUED)?.parse().ok()
}

/// Whether a client that has proven its name may ask for anything.
pub async fn check(api: &Api, client: &ClientName) -> Result<(), Failure> {
    let wanted = find(api, &client.name).await?.map_or(0, |view| generation(&view));
    if client.generation >= wanted {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::FORBIDDEN,
        format!("the certificate of client {} was revoked; `peer cert issue --client {0}` makes another", client.name),
    ))
}
