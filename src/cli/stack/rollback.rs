//! Back to what a stack was before its last deploy, and before one that has just failed.

use super::apply::{self, STAMP};
use super::{Rollback, existing, nothing};
use crate::cli::client::{Client, escaped, with_query};
use crate::cli::console::Console;
use crate::cli::error::CliError;
use crate::cli::json::{index, pairs, text};
use crate::cli::progress::{Doing, Limits};
use crate::cli::service::{one_error, tell_warnings};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

/// By the clock of whoever deployed. None: `docker stack deploy` made it.
fn stamp(spec: Option<&Value>) -> Option<Timestamp> {
    let labels = pairs(spec?, "/Labels");
    labels.iter().find(|(key, _)| *key == STAMP).and_then(|(_, stamp)| stamp.parse().ok())
}

/// What a deploy left of a service.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    AsDeployed,
    /// By hand, by an earlier rollback of the stack, or by the cluster itself.
    TakenBack,
    /// An earlier deploy was the last that changed it.
    Untouched,
}

fn found(service: &Value, deploy: Option<Timestamp>) -> Found {
    let (now, before) = (stamp(service.get("Spec")), stamp(service.get("PreviousSpec")));
    // Without stamps to tell one revision from the other.
    let rolled_back = deploy.is_none() && text(service, "/UpdateStatus/State").starts_with("rollback");
    match () {
        () if now == deploy && !rolled_back => Found::AsDeployed,
        () if rolled_back || before == deploy => Found::TakenBack,
        () => Found::Untouched,
    }
}

pub async fn roll_back(args: &Rollback, client: &Client, console: &mut Console) -> Result<(), CliError> {
    let services = existing(&args.stack, client).await?;
    if services.is_empty() {
        return Err(nothing(&args.stack));
    }
    let stamps = services.values().flat_map(|service| [stamp(service.get("Spec")), stamp(service.get("PreviousSpec"))]);
    let last = stamps.max().flatten();
    let limits = Limits::new(args.quiet, args.timeout);
    take_back(&services, last, (!args.detach).then_some(limits), client, console).await
}

/// What that deploy changed of these services, and only that. Without limits nobody waits for it.
pub async fn take_back(
    services: &BTreeMap<String, Value>,
    deploy: Option<Timestamp>,
    wait: Option<Limits>,
    client: &Client,
    console: &mut Console,
) -> Result<(), CliError> {
    let (mut back, mut failed) = (Vec::new(), Vec::new());
    for (name, service) in services {
        match found(service, deploy) {
            Found::Untouched => continue,
            Found::TakenBack => {
                console.note(&format!(
                    "service {name} has been taken back already: left as it is; further back: peer service rollback --to N {name}, N of: peer service history {name}"
                ));
                continue;
            }
            Found::AsDeployed if service.get("PreviousSpec").is_none_or(Value::is_null) => {
                console.note(&format!(
                    "service {name} has no earlier revision: left as it is; to take it away: peer service rm {name}"
                ));
                continue;
            }
            Found::AsDeployed => {}
        }
        let id = text(service, "/ID");
        let version = index(service);
        let path = with_query(&format!("/peer/services/{}/rollback", escaped(id)), &[("version", &version)]);
        match client.post(&path, None).await {
            Ok(answer) => {
                let held = tell_warnings(&answer, console);
                console.line(&format!("Rolling back service {name}"))?;
                back.push(apply::Deployed { id: id.to_owned(), name: name.clone(), short: String::new(), held });
            }
            Err(error) => failed.push(CliError::from(error)),
        }
    }
    if let Some(limits) = wait {
        failed.extend(super::wait(&back, Doing::RollingBack, limits, client, console).await.err());
    }
    one_error(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_has_been_taken_back_is_told_from_what_a_deploy_left() {
        let of = |stamp: Option<&str>| match stamp {
            Some(stamp) => json!({ "Labels": { STAMP: stamp } }),
            None => json!({ "Labels": {} }),
        };
        // The later one has fewer digits: as texts they would be the other way round.
        let (first, last) = ("2026-11-26T20:00:00.12Z", "2026-11-26T20:00:00.5Z");
        let case = |now: Option<&str>, before: Option<&str>, state: &str, deploy: Option<&str>| {
            let service = json!({ "Spec": of(now), "PreviousSpec": of(before), "UpdateStatus": { "State": state } });
            found(&service, deploy.map(|deploy| deploy.parse().unwrap()))
        };
        assert_eq!(case(Some(last), Some(first), "completed", Some(last)), Found::AsDeployed);
        assert_eq!(case(Some(last), Some(first), "rollback_completed", Some(last)), Found::AsDeployed, "forward again");
        assert_eq!(case(Some(first), Some(last), "rollback_completed", Some(last)), Found::TakenBack);
        assert_eq!(case(Some(first), None, "", Some(last)), Found::Untouched);
        assert_eq!(case(None, None, "completed", None), Found::AsDeployed);
        assert_eq!(case(None, None, "rollback_started", None), Found::TakenBack);
    }
}
