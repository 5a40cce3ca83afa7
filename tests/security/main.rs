//! The security trial (docs/threat-model.md): each test is an attempt on real agents over real QUIC and real sockets, or on their
//! processes, and shows what becomes of it and that whoever is honest is served meanwhile.
#![cfg(all(feature = "shell", target_os = "linux"))]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../net_support/mod.rs"]
mod net_support;

mod agents;
mod crowd;
mod joining;
mod lies;
mod names;
mod process;
mod removed;
mod replay;
mod requests;
