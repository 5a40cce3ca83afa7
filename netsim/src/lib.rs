//! Chaos for peer. [`sim`]: whole clusters of real cores in one process, deterministic, on virtual time.
//! [`lab`]: real nodes on one machine, each a network namespace with its own Docker Engine. [`law`]: what must be true in both.

pub mod lab;
pub mod law;
pub mod sim;
