//! The only impure code: sockets, disk, clocks, engines, the HTTP API. It drives the core and decides nothing
//! that the core could decide.

pub mod agent;
pub mod api;
pub mod clock;
pub mod demo;
pub mod disk;
pub mod engine;
pub mod events;
pub mod handle;
pub mod identity;
pub mod listen;
pub mod logs;
pub mod mesh;
pub mod net;
pub mod page;
pub mod places;
pub mod trace;
pub mod vault;
pub mod vitals;
