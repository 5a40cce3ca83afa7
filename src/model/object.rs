//! Secrets, configs and networks: what operators name and services refer to. One shape for the three, because to
//! the cluster they are the same: a name that is unique within its kind, Docker's spec as its author sent it, and bytes.
//!
//! A secret's bytes are sealed before they come here and opened only where a container needs them; nothing that
//! holds one of these records can read it without the cluster's key. Debug output never shows bytes of any kind.

use crate::ids::{ClusterId, ObjectId};
use crate::limits::{MAX_CONFIG_BYTES, MAX_SECRET_BYTES};
use crate::time::Wall;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectKind {
    Secret,
    Config,
    Network,
    /// Who may use the API from afar, by name: of which generation its certificates must be at least.
    Client,
}

impl ObjectKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectKind::Secret => "secret",
            ObjectKind::Config => "config",
            ObjectKind::Network => "network",
            ObjectKind::Client => "client",
        }
    }

    /// What its content may have at most; a network has none.
    pub fn max_bytes(self) -> usize {
        match self {
            ObjectKind::Secret => MAX_SECRET_BYTES,
            ObjectKind::Config => MAX_CONFIG_BYTES,
            ObjectKind::Network | ObjectKind::Client => 0,
        }
    }
}

/// One secret, config or network, as a record.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub id: ObjectId,
    pub kind: ObjectKind,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Docker's spec without `Data`, to the letter.
    pub spec_json: String,
    /// A config's content; a secret's, sealed.
    pub data: Vec<u8>,
    pub created: Wall,
    pub updated: Wall,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} {:?} {}, {} bytes)", self.kind.as_str(), self.id, self.name, self.data.len())
    }
}

impl ObjectId {
    /// From the name, so that two partitions that create the same one meet in one record.
    pub fn of_name(cluster: ClusterId, kind: ObjectKind, name: &str) -> Self {
        Self::derived(cluster, &format!("{}/{name}", kind.as_str()))
    }
}

/// What was read of Docker's spec of one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

/// Docker's bound for secrets and configs.
const MAX_NAME_CHARS: usize = 64;

/// Reads the name and the labels, and refuses what is no name; the error begins with the field's.
pub fn heading(spec_json: &str) -> Result<Heading, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wanted {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        labels: Option<BTreeMap<String, String>>,
    }
    let wanted: Wanted = serde_json::from_str(spec_json).map_err(|error| format!("invalid JSON: {error}"))?;
    let name = wanted.name.unwrap_or_default();
    let edge = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| edge(c) || "-_.".contains(c);
    if name.is_empty() || name.len() > MAX_NAME_CHARS {
        return Err(format!("Name: want 1 to {MAX_NAME_CHARS} characters, found {}", name.len()));
    }
    if !name.starts_with(edge) || !name.ends_with(edge) || !name.chars().all(inner) {
        return Err(format!(
            "Name: {name:?} is not a name: want letters, digits, - _ . and neither end but a letter or digit"
        ));
    }
    Ok(Heading { name, labels: wanted.labels.unwrap_or_default() })
}

impl Object {
    /// Its content is a template, filled in for each task.
    pub fn is_template(&self) -> bool {
        template_driver(&self.spec_json).is_some()
    }
}

/// The name of what fills in its content; nothing for one that is taken as it is.
pub fn template_driver(spec_json: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wanted {
        #[serde(default)]
        templating: Option<Driver>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Driver {
        #[serde(default)]
        name: String,
    }
    // Most have none, and it is asked of each for each task.
    if !spec_json.contains("Templating") {
        return None;
    }
    let wanted: Wanted = serde_json::from_str(spec_json).ok()?;
    wanted.templating.map(|driver| driver.name).filter(|name| !name.is_empty())
}

/// Where a container is to have the content of a secret or config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRef {
    pub kind: ObjectKind,
    pub object: ObjectId,
    /// What its operator called it, for errors.
    pub name: String,
    /// Absolute.
    pub target: String,
    pub uid: u32,
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
}

/// A network that a container is to be on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRef {
    /// The network's id; a name is only another way to write it.
    pub target: String,
    pub aliases: Vec<String>,
}

/// A file with its content, as an engine gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedFile {
    pub file: FileRef,
    pub content: Content,
    /// The content is a template still.
    pub is_template: bool,
}

impl PlannedFile {
    /// What the container is to read; an error says why it can't be made.
    pub fn bytes(&self) -> Result<&[u8], String> {
        let (what, name) = (self.file.kind.as_str(), &self.file.name);
        match &self.content {
            Content::Plain(bytes) => Ok(bytes),
            Content::Gone => Err(format!("{what} {name} was removed")),
            Content::Unfilled(why) => Err(format!("the template in {what} {name} can't be filled in: {why}")),
            Content::Sealed(_) => Err(format!("{what} {name} could not be opened on this node")),
        }
    }
}

#[derive(Clone, PartialEq)]
pub enum Content {
    /// Its record is gone: the container can't be made.
    Gone,
    /// It can't be made of its template, and why.
    Unfilled(String),
    Sealed(Vec<u8>),
    Plain(Vec<u8>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Gone => f.write_str("Gone"),
            Content::Unfilled(why) => write!(f, "Unfilled({why:?})"),
            Content::Sealed(bytes) => write!(f, "Sealed({} bytes)", bytes.len()),
            Content::Plain(bytes) => write!(f, "Plain({} bytes)", bytes.len()),
        }
    }
}

/// A network as a bridge on this machine, and under which names the container is found on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedNetwork {
    pub id: ObjectId,
    pub name: String,
    /// Docker's `POST /networks/create`, as the operator sent it. `None`: its record is gone.
    pub spec_json: Option<String>,
    pub aliases: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heading_is_a_name_and_labels_or_names_what_is_wrong() {
        let read = heading(r#"{"Name":"token","Labels":{"a":"b"},"Data":"eA=="}"#).unwrap();
        assert_eq!((read.name.as_str(), read.labels["a"].as_str()), ("token", "b"));
        assert!(heading(r#"{"Name":"x","Labels":null}"#).unwrap().labels.is_empty());
        for bad in [r#"{}"#, r#"{"Name":""}"#, r#"{"Name":"a b"}"#, r#"{"Name":"-a"}"#, r#"{"Name":"a/b"}"#] {
            assert!(heading(bad).unwrap_err().starts_with("Name:"), "{bad}");
        }
        assert!(heading(&format!(r#"{{"Name":"{}"}}"#, "x".repeat(65))).is_err());
    }

    #[test]
    fn templates_are_told_by_their_driver() {
        assert_eq!(template_driver(r#"{"Name":"x","Templating":{"Name":"golang"}}"#).as_deref(), Some("golang"));
        for none in [r#"{"Name":"Templating"}"#, r#"{"Templating":null}"#, r#"{"Templating":{}}"#, "Templating"] {
            assert_eq!(template_driver(none), None, "{none}");
        }
    }

    #[test]
    fn the_same_name_is_another_object_in_another_kind_or_cluster() {
        let id = |cluster, kind| ObjectId::of_name(ClusterId::from_u128(cluster), kind, "a");
        assert_eq!(id(1, ObjectKind::Secret), id(1, ObjectKind::Secret));
        assert_ne!(id(1, ObjectKind::Secret), id(1, ObjectKind::Config));
        assert_ne!(id(1, ObjectKind::Secret), id(2, ObjectKind::Secret));
    }

    #[test]
    fn nothing_printed_for_debugging_shows_content() {
        let text = format!("{:?} {:?}", Content::Plain(b"hunter2".to_vec()), Content::Sealed(b"hunter2".to_vec()));
        assert_eq!(text, "Plain(7 bytes) Sealed(7 bytes)");
    }
}
