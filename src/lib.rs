//! peer: Docker Swarm without managers.
//!
//! Every machine runs the same agent. The agents gossip who is alive and what should run over QUIC,
//! one of them holds a short lease to place tasks, and each drives its own Docker Engine.
//!
//! The tree, bottom up; a module may use what stands above it in this list and nothing below:
//!
//! - base: [`ids`], [`time`], [`limits`], [`law`] (the invariants as predicates), [`plant`] (known bugs, off)
//! - [`model`]: the vocabulary: service spec, task, node, rollout, record values
//! - [`wire`]: versioned messages and their codec
//! - pure parts, which don't know each other: [`membership`], [`store`], [`lease`], [`schedule`], [`worker`], [`routes`];
//!   [`service`] builds on [`schedule`]
//! - [`core`]: the only composer; an event goes in, effects come out
//! - `shell`: the only impure code: sockets, disk, clocks, the Docker Engine, the HTTP API
//! - `cli`: a client of the API
//!
//! Everything but `shell` and `cli` builds with `--no-default-features`, without tokio, quinn or bollard:
//! that is what the simulator links, and how the compiler proves that decisions touch nothing. The simulator uses [`core`]
//! alone; only its model checker drives a part by itself, [`lease`].
#![forbid(unsafe_code)]

// So that suites shared with integration tests name this crate as those do.
#[cfg(test)]
extern crate self as peer;

pub mod ids;
pub mod law;
pub mod limits;
pub mod plant;
pub mod time;

pub mod model;
pub mod wire;

pub mod lease;
pub mod membership;
pub mod routes;
pub mod schedule;
pub mod service;
pub mod store;
pub mod worker;

pub mod core;

#[cfg(feature = "shell")]
pub mod cli;
#[cfg(feature = "shell")]
pub mod shell;
