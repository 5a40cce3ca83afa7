//! Known bugs, planted one at a time to prove that the simulator catches them. Without the feature `plant` every
//! question here is answered `false` at compile time.

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal),* $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])* $bug,)*
        }

        impl Bug {
            pub const ALL: &[Bug] = &[$(Bug::$bug),*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Bug::$bug => $name),*
                }
            }
        }
    };
}

bugs! {
    /// A voter starts without what it promised in its last life.
    ForgottenPromise = "forgotten-promise",
    /// A voter votes at once after its start, though a grant of its last life may still live.
    NoBootWait = "no-boot-wait",
    /// The holder acts for longer than the voters grant.
    PastTheLease = "past-the-lease",
    // Of the lease, which the model check finds (`netsim model`).
    /// The holder trusts a grant for as long as the voter that gave it, as if their clocks ran alike.
    NoDriftMargin = "no-drift-margin",
    /// A voter promises though a grant of its own to somebody else lives.
    PromiseWhileGranted = "promise-while-granted",
    /// A voter promises and accepts under an older electorate than it knows.
    OldElectorates = "old-electorates",
    /// Whoever promises or accepts somebody else's ballot goes on with its own.
    NoStepDown = "no-step-down",
    /// A new holder proposes the electorate that it found under the id that it found.
    NoRestamp = "no-restamp",
    /// The electorate is changed again before the last change is in force.
    ChangesOverlap = "changes-overlap",
    /// One voter is swapped for another in one step: a majority of the new electorate may hold nobody of a majority
    /// of the old one.
    WithoutTheOldMajority = "without-the-old-majority",
    /// Promises and acknowledgements leave before the disk has them.
    AckBeforeFsync = "ack-before-fsync",
    /// A push with a gap before it moves the digest.
    DigestOverGap = "digest-over-gap",
    /// Each life numbers its writes on from where its disk says that the last one came.
    OneLogForAllLives = "one-log-for-all-lives",
    /// A voter trusts its disk at once, whatever its last life may have promised after it.
    NoDoubt = "no-doubt",
    /// SIGTERM without asking whether anybody still routes there.
    StopBeforeWithdraw = "stop-before-withdraw",
    /// Started is serving, whatever the health check and the port say.
    ReadyBeforeHealthy = "ready-before-healthy",
    /// start-first stops the old task when the new one is created, not when it serves.
    KillsForTheUnproven = "kills-for-the-unproven",
    /// Replacements know no parallelism.
    NoBudget = "no-budget",
    /// Members that are down are never asked again.
    NoReannounce = "no-reannounce",
    /// While an update is paused, lost tasks are made anew of the bad release.
    PausedSpreads = "paused-spreads",
    /// Failures count only for tasks of the very revision that is rolled out.
    FailuresOfOthers = "failures-of-others",
    /// Tombstones go before their time.
    TombstoneEarly = "tombstone-early",
    /// Tombstones go at their time, whether every member has them or not.
    TombstoneUnseen = "tombstone-unseen",
    /// A new holder begins a rollout's account of failures anew.
    CountsReset = "counts-reset",
    /// Replacements for a drained node know no parallelism.
    DrainIgnoresBudget = "drain-ignores-budget",
    /// A start whose answer is lost is done again in a second container.
    DuplicateAfterLostReply = "duplicate-after-lost-reply",
    /// A node says nothing when its word about its own task is cleared away.
    NoInsisting = "no-insisting",
    /// Hybrid time follows any wall time that somebody else's stamp claims.
    HlcUnbounded = "hlc-unbounded",
    /// The agent's clock stands still while its machine sleeps (the simulator's clock has it).
    ClockStopsInSuspend = "clock-stops-in-suspend",
}

#[cfg(all(feature = "plant", not(test)))]
static PLANTED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(usize::MAX);

/// One for the whole process, before any core is made.
#[cfg(all(feature = "plant", not(test)))]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(usize::MAX, |b| b as usize), std::sync::atomic::Ordering::SeqCst);
}

#[cfg(all(feature = "plant", not(test)))]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as usize
}

#[cfg(not(any(feature = "plant", test)))]
pub const fn is_planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub use of_this_test::{is_planted, plant};

/// This crate's own tests run side by side: what one plants is its thread's alone.
#[cfg(test)]
mod of_this_test {
    use super::Bug;
    use std::cell::Cell;

    thread_local!(static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) });

    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}
