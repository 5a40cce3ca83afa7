//! Views of the core as Docker's JSON. Pure functions: a view goes in, a value that serialises comes out; the order
//! and the names of the fields are Docker's (recorded from a real swarm), what is ours alone begins with `Peer`.

pub mod cluster;
pub mod fields;
pub mod mesh;
pub mod node;
pub mod object;
pub mod service;
pub mod spec;
pub mod task;

use crate::model::record::Hlc;
use crate::model::spec::PublishedPort;
use serde::Serialize;

/// Docker's `Version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    index: u64,
}

impl From<Hlc> for Version {
    fn from(index: Hlc) -> Self {
        Self { index: index.0 }
    }
}

/// Docker's `PortConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Port<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    protocol: &'static str,
    target_port: u16,
    #[serde(skip_serializing_if = "is_zero")]
    published_port: u16,
    publish_mode: &'static str,
}

fn is_zero(port: &u16) -> bool {
    *port == 0
}

impl<'a> From<&'a PublishedPort> for Port<'a> {
    fn from(port: &'a PublishedPort) -> Self {
        Self {
            name: &port.name,
            protocol: port.protocol.as_str(),
            target_port: port.target,
            published_port: port.published,
            publish_mode: port.mode.as_str(),
        }
    }
}
