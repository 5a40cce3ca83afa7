//! Chaos for peer. [`sim`]: whole clusters of real cores in one process, deterministic, on virtual time.
//! [`lab`]: real nodes on one machine, each a network namespace with its own Docker Engine. [`law`]: what must be true in both.
//! [`model`]: the lease alone, in every order of events that a bound allows.

pub mod lab;
pub mod law;
pub mod model;
pub mod sim;
