//! A Compose file is refused with a reason, or is a stack.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peer::cli::stack::compose::{Source, Variables, load};
use std::path::PathBuf;
use std::sync::LazyLock;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory to work in"));

fuzz_target!(|data: &[u8]| {
    let file: PathBuf = DIR.path().join("compose.yml");
    std::fs::write(&file, data).expect("a file to read");
    let source = Source { files: &[file], stack: "s", profiles: &[], environment: Variables::new(), env_files: &[] };
    if let Err(error) = load(&source) {
        assert!(!error.message().is_empty());
    }
});
