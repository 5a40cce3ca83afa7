//! Chaos for peer. So far the lab: real nodes on one machine, each a network namespace with its own Docker Engine.
//! The simulator comes beside it (see the issue on netsim).

pub mod lab;
