//! The only impure code: sockets, disk, clocks, engines, the HTTP API. It drives the core and decides nothing
//! that the core could decide.

pub mod clock;
pub mod disk;
pub mod handle;
pub mod identity;
pub mod net;
