//! Chaos for peer. [`sim`]: whole clusters of real cores in one process, deterministic, on virtual time.
//! [`lab`]: real nodes on one machine, each a network namespace with its own Docker Engine.

pub mod lab;
pub mod sim;
