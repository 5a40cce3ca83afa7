//! What travels between nodes and onto disk: messages, and the one codec for both. Versioned from the first
//! byte; whatever is not understood is refused by name.

pub mod codec;
pub mod message;
