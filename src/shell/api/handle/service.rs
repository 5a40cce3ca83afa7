//! `/services`.

use crate::core::face::Request as Ask;
use crate::core::view::ServiceView;
use crate::model::spec;
use crate::shell::api::backend::{Snapshot, Want};
use crate::shell::api::filters::Filters;
use crate::shell::api::incoming::Call;
use crate::shell::api::reply::{self, Answer, Failure};
use crate::shell::api::{Api, handle::network, lookup, render};
use crate::shell::identity::random;

const FILTERS: &[&str] = &["id", "label", "mode", "name", "runtime"];

pub async fn list(api: &Api, call: &Call) -> Answer {
    let query = &call.query;
    let filters = Filters::of(query, FILTERS)?;
    let snapshot = snapshot(api).await?;
    let shown = snapshot.services.iter().filter(|view| matches(&filters, view));
    let (status, defaults) = (query.flag("status"), query.flag("insertDefaults"));
    reply::ok(&shown.map(|view| render::service::service(view, status, defaults)).collect::<Vec<_>>())
}

fn matches(filters: &Filters, view: &ServiceView) -> bool {
    filters.begins("id", &view.service.id.to_string())
        && filters.begins("name", &view.service.name)
        && filters.labels("label", &view.spec.labels)
        && filters.equals("mode", view.spec.mode.as_str())
        && filters.equals("runtime", "container")
}

async fn snapshot(api: &Api) -> Result<Snapshot, Failure> {
    Ok(api.backend.snapshot(Want::SERVICES).await?)
}

pub async fn inspect(api: &Api, service: &str, call: &Call) -> Answer {
    let query = &call.query;
    let snapshot = snapshot(api).await?;
    let view = lookup::service(&snapshot, service)?;
    reply::ok(&render::service::service(view, query.flag("status"), query.flag("insertDefaults")))
}

/// The docker CLI leaves the choice of a name to the server.
fn name_it(spec_json: String) -> String {
    const FIRST: [&str; 8] = ["brave", "calm", "eager", "gentle", "keen", "quiet", "swift", "witty"];
    const LAST: [&str; 8] = ["curie", "darwin", "euler", "gauss", "hopper", "lovelace", "noether", "turing"];
    if !spec::is_unnamed(&spec_json) {
        return spec_json;
    }
    // Without randomness every name is the same, and the second is refused as taken.
    let number = random::number().unwrap_or_default();
    let pick = |list: [&'static str; 8], bits: u64| list[(bits % 8) as usize];
    let name = format!("{}_{}_{:04x}", pick(FIRST, number), pick(LAST, number >> 8), (number >> 16) as u16);
    spec::with_name(&spec_json, &name)
}

pub async fn create(api: &Api, call: &Call) -> Answer {
    let auth = call.registry_auth()?;
    let spec_json = network::by_id(api, name_it(call.json_object()?)).await?;
    reply::created(&api.backend.request(Ask::CreateService { spec_json, auth }).await?)
}

/// `registryAuthFrom` needs nothing here: without credentials in the request those of the last spec stay.
pub async fn update(api: &Api, service: &str, call: &Call) -> Answer {
    let query = &call.query;
    let auth = call.registry_auth()?;
    let rollback = match query.text("rollback") {
        None => false,
        Some("previous") => true,
        Some(other) => return Err(Failure::invalid(format!("unrecognized rollback option {other}"))),
    };
    let snapshot = snapshot(api).await?;
    let view = lookup::service(&snapshot, service)?;
    let (id, version) = (view.service.id, Some(query.version("service", view.index)?));
    let ask = if rollback {
        // The body that comes with it is the spec as it is, and says nothing.
        Ask::RollbackService { id, version, to: None }
    } else {
        let spec_json = network::by_id(api, call.json_object()?).await?;
        Ask::UpdateService { id, version, spec_json, auth }
    };
    reply::updated(&api.backend.request(ask).await?)
}

pub async fn remove(api: &Api, service: &str) -> Answer {
    let snapshot = snapshot(api).await?;
    let id = lookup::service(&snapshot, service)?.service.id;
    reply::updated(&api.backend.request(Ask::RemoveService { id }).await?)
}
