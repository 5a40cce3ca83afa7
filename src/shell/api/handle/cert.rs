//! `/peer/certs`: who may use the API over TCP. A certificate carries its client's name and a generation; what is
//! replicated is the generation that is wanted of a name, which a revocation raises.

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

const GENERATION: &str = "generation";
/// Revocations of one name at one moment on several nodes.
const ATTEMPTS: usize = 4;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wanted {
    name: String,
}

pub async fn issue(api: &Api, call: &Call) -> Answer {
    let name = fit(&incoming::json::<Wanted>(&call.body)?.name)?;
    let generation = find(api, &name).await?.map_or(0, |view| generation(&view));
    let (cert, key) = (api.extra.client_cert)(&name, generation).map_err(Failure::unavailable)?;
    tracing::info!(client = name, "a certificate for a client of the API was issued");
    reply::ok(&json!({ "Name": name, "CA": &*api.extra.ca, "Cert": cert, "Key": key }))
}

/// All certificates of this name that there are now end; later ones don't.
pub async fn revoke(api: &Api, name: &str) -> Answer {
    let name = fit(name)?;
    for attempt in 1.. {
        match raise(api, &name).await? {
            Err(Refused::OutOfSequence | Refused::Conflict(_)) if attempt < ATTEMPTS => {}
            result => {
                let accepted = result?;
                tracing::info!(client = name, "the certificates of a client of the API were revoked");
                return reply::updated(&accepted);
            }
        }
    }
    Err(Failure::unavailable("too many revocations at once: try again"))
}

async fn raise(api: &Api, name: &str) -> Result<Result<Accepted, Refused>, Failure> {
    let kind = ObjectKind::Client;
    let found = find(api, name).await?;
    let next = found.as_ref().map_or(0, generation) + 1;
    let spec_json = json!({ "Name": name, "Labels": { GENERATION: next.to_string() } }).to_string();
    Ok(api
        .backend
        .request(match found {
            None => Ask::CreateObject { kind, spec_json, data: Vec::new() },
            Some(view) => Ask::UpdateObject { kind, id: view.object.id, version: Some(view.index), spec_json },
        })
        .await)
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
