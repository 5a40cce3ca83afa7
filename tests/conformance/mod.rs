//! What the core relies on in whoever drives it, told once and tried with each driver: the real ones (`tests/conformance_real.rs`,
//! `tests/engine_conformance.rs`) and the simulator's (`netsim/tests/conformance.rs`), so that neither drifts from the other.
//!
//! The suites know the core's own terms only. A subject waits for its next event and panics when none comes.
#![allow(dead_code)]

pub mod disk;
pub mod engine;
pub mod net;

/// Makes a test of each story of a suite; it is told to each subject in turn (an `Option`, or any other iterator).
macro_rules! stories {
    (engine, $subjects:expr) => {
        crate::conformance::stories!(
            crate::conformance::engine,
            $subjects,
            a_container_lives_and_goes,
            images_that_are_not_there_are_refused_with_words,
            a_crash_is_seen_with_its_code,
            sigkill_and_removal_end_a_running_container,
            operations_of_different_containers_go_side_by_side,
            a_probe_gives_up_in_time,
            health_checks_are_reported,
            another_attempt_under_the_same_name_is_a_conflict,
            an_outage_is_told_once_and_survived,
        );
    };
    (net, $subjects:expr) => {
        crate::conformance::stories!(
            crate::conformance::net,
            $subjects,
            messages_arrive_whole_both_ways_and_say_from_whom,
            a_burst_arrives_whole_and_nothing_of_it_twice,
            datagrams_arrive_as_they_were_sent,
            a_goodbye_is_told_to_the_others,
            a_new_life_hears_nothing_that_was_meant_for_the_old,
            nothing_gets_past_a_ban,
        );
    };
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
