//! Commands, and processes that outlive who started them: told by a pid file, and by their start time, so that a number
//! used again is never taken for them.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const END_LIMIT: Duration = Duration::from_secs(20);

/// A process of the lab, as its pid file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    /// Clock ticks after boot.
    started: u64,
}

/// Keeps a process that we have started to be found again.
pub fn record(file: &Path, pid: u32) -> Result<()> {
    let started = started(pid).with_context(|| format!("process {pid} has ended already"))?;
    Ok(fs::write(file, format!("{pid} {started}\n"))?)
}

/// The process that the file tells of, if it still runs.
pub fn alive(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let (pid, ticks) = text.trim().split_once(' ')?;
    let process = Process { pid: pid.parse().ok()?, started: ticks.parse().ok()? };
    (started(process.pid) == Some(process.started)).then_some(process.pid)
}

/// Ends a process that we started; an error if it doesn't run.
pub fn kill(file: &Path, signal: &str) -> Result<()> {
    let pid = alive(file).with_context(|| format!("{}: it is not running", file.display()))?;
    sh(&format!("kill -{signal} {pid}"))?;
    wait_until(&format!("process {pid} has ended"), END_LIMIT, || alive(file).is_none())
}

/// `None` if there is no such process, or only what its parent hasn't looked at yet.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the command's name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit(") ").next()?.split_whitespace().collect();
    if fields.first() == Some(&"Z") { None } else { fields.get(19)?.parse().ok() }
}

/// In the environment of everything that a lab starts, and so of what that starts: the lab's directory.
pub const MARK: &str = "PEERLAB_DIR";

/// In the environment of a lab's guard, which is no part of it: likewise.
pub const GUARD_MARK: &str = "PEERLAB_GUARD";

/// Something of the lab runs, or somebody who'll take it down.
pub fn has_life(dir: &Path) -> bool {
    [MARK, GUARD_MARK].iter().any(|mark| !marked(&format!("{mark}={}", dir.display())).is_empty())
}

/// Ends everything that carries a lab's mark, also what was just being started when the lab's maker died.
pub fn end_marked(dir: &Path) -> Result<()> {
    let mark = format!("{MARK}={}", dir.display());
    // A child may be born behind the back of one look, so two must find nothing.
    let mut empty_looks = 0;
    wait_until(&format!("the processes of {} have ended", dir.display()), END_LIMIT, || {
        let found = marked(&mark);
        for pid in &found {
            // It may have ended by itself.
            sh_ok(&format!("kill -KILL {pid}"));
        }
        empty_looks = if found.is_empty() { empty_looks + 1 } else { 0 };
        empty_looks == 2
    })
}

fn marked(mark: &str) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_mark = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    pids.filter(has_mark).collect()
}

/// Waits for a level; the error says what was awaited.
pub fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !is_so() {
        ensure!(Instant::now() < deadline, "not so after {} s: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// dockerd and ip live where not every shell looks.
pub fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

pub fn shell(command: &str) -> std::io::Result<Output> {
    Command::new("bash").args(["-c", command]).env("PATH", search_path()).stdin(Stdio::null()).output()
}

pub fn sh_ok(command: &str) -> bool {
    shell(command).is_ok_and(|output| output.status.success())
}

pub fn sh(command: &str) -> Result<()> {
    let output = shell(command)?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_used_again_is_not_taken_for_ours() {
        let file = std::env::temp_dir().join(format!("peerlab-pid-{}", std::process::id()));
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        record(&file, child.id()).unwrap();
        assert_eq!(alive(&file), Some(child.id()));
        fs::write(&file, format!("{} 1\n", child.id())).unwrap();
        assert_eq!(alive(&file), None);
        assert!(kill(&file, "KILL").is_err() && child.try_wait().unwrap().is_none());
        record(&file, child.id()).unwrap();
        kill(&file, "KILL").unwrap();
        assert_eq!(alive(&file), None);
        child.wait().unwrap();
        assert!(record(&file, child.id()).is_err());
        fs::remove_file(file).unwrap();
    }
}
