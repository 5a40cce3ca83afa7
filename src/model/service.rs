//! Services and their revisions as records. What a revision means is [`crate::model::spec::ServiceSpec`].

use crate::ids::ServiceId;
use crate::model::record::RevisionId;
use crate::model::spec::PublishedPort;
use crate::time::Wall;
use serde::{Deserialize, Serialize};

/// Which revision of a service its operators want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub id: ServiceId,
    pub name: String,
    pub created: Wall,
    pub updated: Wall,
    pub current: RevisionId,
    /// What `current` replaced: where a rollback goes. Unlike Swarm's it survives writes that change nothing.
    pub previous: Option<RevisionId>,
    /// `current` was reached by an operator's rollback.
    pub rolled_back: bool,
    /// The published ports with every "any port" (0) given a number.
    pub ports: Vec<PublishedPort>,
}

/// One accepted spec; written once and never changed, but for the credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub service: ServiceId,
    pub id: RevisionId,
    /// Docker's ServiceSpec as the client sent it, kept to the letter so that what we don't know survives an update.
    pub spec_json: String,
    /// X-Registry-Auth as it came with the request (base64 JSON), for pulls; refreshed
    /// without a new revision. Never shown, never logged.
    pub registry_auth: Option<String>,
    pub created: Wall,
}
