//! Whole clusters in one process on virtual time: real cores, everything around them simulated, all from one plan.

pub mod chaos;
mod check;
mod clock;
mod disk;
mod engine;
mod faults;
pub(crate) mod hash;
mod mesh;
mod net;
mod operator;
pub mod picture;
pub mod plan;
pub mod probes;
pub mod rates;
pub mod rig;
pub(crate) mod rng;
pub mod run;
pub mod scale;
pub mod shrink;
mod spec;
pub mod trace;
mod world;
