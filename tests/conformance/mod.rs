//! What the core relies on in whoever drives it, told once and tried with each driver: the real ones (`tests/conformance_real.rs`,
//! `tests/engine_conformance.rs`) and the simulator's (`netsim/tests/conformance.rs`), so that neither drifts from the other.
//!
//! The suites know the core's own terms only. A subject waits for its next event and panics when none comes.
#![allow(dead_code)]

pub mod disk;
pub mod engine;
pub mod net;

/// Makes a test of each story; it is told to each subject in turn (an `Option`, or any other iterator).
macro_rules! stories {
    ($suite:path, $subjects:expr, $($story:ident),* $(,)?) => {
        $(
            #[test]
            fn $story() {
                use $suite as suite;
                IntoIterator::into_iter($subjects).for_each(|mut subject| suite::$story(&mut subject));
            }
        )*
    };
}
pub(crate) use stories;
