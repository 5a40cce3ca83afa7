//! The only composer of the pure parts. An event goes in with the time, effects come out in order; nothing
//! here blocks, fails, reads a clock, a file or a random device. *Persist before send* is decided here.

pub mod face;
pub mod view;

use crate::ids::{NodeId, ServiceId};
use view::*;

/// (being written: the face the shell programs against)
pub struct Core {}

impl Core {
    pub fn services(&self) -> Vec<ServiceView> {
        Vec::new()
    }
    pub fn service(&self, _id: ServiceId) -> Option<ServiceView> {
        None
    }
    pub fn revisions(&self, _id: ServiceId) -> Vec<RevisionView> {
        Vec::new()
    }
    pub fn tasks(&self) -> Vec<TaskView> {
        Vec::new()
    }
    pub fn nodes(&self) -> Vec<NodeView> {
        Vec::new()
    }
    pub fn node(&self, _id: NodeId) -> Option<NodeView> {
        None
    }
    pub fn cluster(&self) -> ClusterView {
        unreachable!()
    }
}
