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
    /// Promises and acknowledgements leave before the disk has them.
    AckBeforeFsync = "ack-before-fsync",
    /// A push with a gap before it moves the digest.
    DigestOverGap = "digest-over-gap",
    /// Each life numbers its writes on from where its disk says that the last one came.
    OneLogForAllLives = "one-log-for-all-lives",
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
}

#[cfg(feature = "plant")]
static PLANTED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(usize::MAX);

/// One for the whole process, before any core is made.
#[cfg(feature = "plant")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(usize::MAX, |b| b as usize), std::sync::atomic::Ordering::SeqCst);
}

#[cfg(feature = "plant")]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as usize
}

#[cfg(not(feature = "plant"))]
pub const fn is_planted(_: Bug) -> bool {
    false
}
