//! The laws on plain values, for both who judge by them: the simulator, which looks into running cores, and the lab's
//! chaos, which replays what real agents wrote down. What is true and when something is to be excused is the caller's.

pub mod lease;
pub mod members;
pub mod records;
pub mod replay;
pub mod rollout;
pub mod seat;
pub mod tasks;

/// A law that was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    pub law: &'static str,
    pub text: String,
}

impl Breach {
    pub fn of(law: &'static str, text: String) -> Self {
        Self { law, text }
    }
}
