//! The handlers: parse, ask the agent, render. One file for each kind of thing.

pub mod cert;
pub mod events;
pub mod logs;
pub mod network;
pub mod node;
pub mod object;
pub mod peer;
pub mod service;
pub mod swarm;
pub mod system;
pub mod task;
