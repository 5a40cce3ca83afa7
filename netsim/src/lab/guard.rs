//! Whoever brings a lab up may end at any moment: by Ctrl-C, a panic, a test runner's SIGKILL. A process of its own
//! waits at a pipe for that, and takes the lab down; the kernel closes the pipe however its other end died.

use super::process::{GUARD_MARK, search_path};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub struct Guard(Child);

impl Guard {
    /// The `lab` program waits as long as this process lives.
    pub fn post(dir: &Path) -> Result<Self> {
        let lab = program().context("the lab program is not built: cargo build -p netsim")?;
        // Out of the terminal's reach: Ctrl-C is for the maker alone.
        let child = Command::new("setsid")
            .args(lab)
            .arg("--dir")
            .arg(dir)
            .arg("guard")
            .env("PATH", search_path())
            .env(GUARD_MARK, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("starting the lab's guard")?;
        Ok(Self(child))
    }

    /// The lab is to stay, or is gone.
    pub fn dismiss(&mut self) {
        // A guard that is gone needs no word.
        if let Some(mut pipe) = self.0.stdin.take() {
            let _ = pipe.write_all(b"dismissed\n");
        }
        let _ = self.0.wait();
    }
}

/// This program, under either of its names, or the one that cargo built beside this test.
fn program() -> Option<Vec<OsString>> {
    let this = std::env::current_exe().ok()?;
    if this.file_name().is_some_and(|name| name == "netsim") {
        return Some(vec![this.into(), "lab".into()]);
    }
    let beside = this.ancestors().skip(1).take(2).map(|dir| dir.join("lab"));
    let lab = { beside }.find(|lab| lab.is_file())?;
    Some(vec![lab.into()])
}
