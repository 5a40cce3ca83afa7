//! The vocabulary everything else speaks: services, tasks, nodes, rollouts, what an engine is asked and reports,
//! and the keys and values of the replicated records. Data and its own rules only; no planning, no replication.

pub mod container;
pub mod generic;
pub mod go_template;
pub mod lease;
pub mod node;
pub mod object;
pub mod record;
pub mod rollout;
pub mod service;
pub mod spec;
pub mod task;
