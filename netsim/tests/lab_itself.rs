//! The lab keeps its law: it leaves nothing behind, however its maker ends, and touches nothing that it didn't make.
//! Skipped, loudly, where there is no root or no dockerd.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod common;

use netsim::lab::{Lab, LabConfig, NODES_MAX, address, image, namespace, wait_until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn can_run() -> bool {
    let missing = Lab::missing();
    if let Some(why) = &missing {
        eprintln!("SKIPPED: the lab's own tests did not run: {why}");
    }
    missing.is_none()
}

fn dir(name: &str) -> PathBuf {
    PathBuf::from(format!("/tmp/li{}{name}", std::process::id()))
}

/// The program, as another process than this one.
fn lab(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--dir").arg(dir).args(args).stdin(Stdio::null()).output().unwrap()
}

fn lab_ok(dir: &Path, args: &[&str]) -> String {
    let output = lab(dir, args);
    assert!(output.status.success(), "lab {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn lab_refuses(dir: &Path, args: &[&str], why: &str) {
    let output = lab(dir, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(why), "lab {args:?}: {output:?}");
}

fn sh(command: &str) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new("bash").args(["-c", command]).env("PATH", path).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn any_process_can_use_it_and_take_it_down() {
    if !can_run() {
        return;
    }
    let dir = dir("a");
    let mine = common::everything();
    Lab::up(LabConfig { nodes: 2, dir: dir.clone(), peer: None }).unwrap().keep();

    lab_refuses(&dir, &["up", "--no-agents"], "exists: is a lab up already?");
    lab_refuses(&self::dir("b"), &["up", "--no-agents"], "br-peerlab exists");
    assert!(!self::dir("b").exists());
    lab_refuses(&dir, &["kill", "3"], "there is no node 3: this lab has 1 to 2");
    lab_refuses(&dir, &["start", "1"], "no agents");
    lab_refuses(&dir, &["engine-start", "1"], "runs already");
    assert_eq!(lab(&dir, &["exec", "1", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));

    // Each has an engine of its own, and its images from the registry.
    let run = ["exec", "2", "--", "docker", "run", "-d", "--name", "one"];
    lab_ok(&dir, &[&run[..], &[&image("1")]].concat());
    assert!(lab_ok(&dir, &["exec", "2", "docker", "ps"]).contains("greeter:1"));
    assert!(!lab_ok(&dir, &["exec", "1", "docker", "ps"]).contains("greeter:1"));
    assert_eq!(lab_ok(&dir, &["exec", "2", "hostname", "-I"]).split_whitespace().next(), Some(address(2).as_str()));

    // A cut is silent and between two; `heal` mends it.
    let ping = |from: &str, to: usize| {
        lab(&dir, &["exec", from, "curl", "-s", "-m", "1", &format!("http://{}:1/", address(to))]).status.code()
    };
    let (refused, silent) = (Some(7), Some(28));
    assert_eq!((ping("1", 2), ping("2", 1), ping("1", 254)), (refused, refused, refused));
    lab_ok(&dir, &["cut", "1", "2"]);
    assert_eq!((ping("1", 2), ping("2", 1), ping("1", 254)), (silent, silent, refused));
    lab_ok(&dir, &["heal"]);
    assert_eq!((ping("1", 2), ping("2", 1)), (refused, refused));

    // Without power all is dead at once; the disk is there when it returns.
    lab_ok(&dir, &["power-off", "2"]);
    let status = lab_ok(&dir, &["status"]);
    let line = |n: usize| status.lines().nth(n).unwrap();
    assert!(line(0).contains("engine runs") && line(0).contains("cable plugged"), "{status}");
    assert!(line(1).contains("engine is not running") && line(1).contains("cable pulled"), "{status}");
    lab_ok(&dir, &["power-on", "2"]);
    assert!(
        lab_ok(&dir, &["exec", "2", "docker", "ps", "-a"]).contains("Exited"),
        "its container was killed and is kept"
    );

    lab_ok(&dir, &["down"]);
    assert!(!dir.exists());
    assert_eq!(common::everything(), mine);
    lab_refuses(&dir, &["down"], "no lab in");
}

#[test]
fn nothing_is_left_when_its_maker_is_ended() {
    if !can_run() {
        return;
    }
    // At once, and in the middle of the engines' start.
    for (signal, late) in [("INT", false), ("INT", true), ("KILL", true)] {
        let dir = dir("k");
        let mine = common::everything();
        let mut maker = Command::new(env!("CARGO_BIN_EXE_lab"))
            .arg("--dir")
            .arg(&dir)
            .args(["up", "--nodes", "2", "--no-agents"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let sign = if late { dir.join("1/docker.sock") } else { dir.join("lab.json") };
        wait_until("the lab is coming up", PATIENCE, || sign.exists()).unwrap();
        sh(&format!("kill -{signal} {}", maker.id()));
        assert!(!maker.wait().unwrap().success());
        wait_until(&format!("{} is gone", dir.display()), PATIENCE, || !dir.exists()).unwrap();
        assert_eq!(common::everything(), mine, "SIG{signal}, {}", if late { "late" } else { "at once" });
    }
}

#[test]
fn a_lab_that_died_with_its_guard_is_buried_by_the_next() {
    if !can_run() {
        return;
    }
    let mine = common::everything();
    let up = |dir: &Path, nodes| Lab::up(LabConfig { nodes, dir: dir.to_owned(), peer: None });
    for cleared in [false, true] {
        let (dead, next) = (dir("d"), dir("n"));
        up(&dead, 2).unwrap().keep();
        // All of a machine's processes end at once, and perhaps its temporary files are cleared.
        for pid in sh(&format!("grep -lzsx PEERLAB_DIR={} /proc/[0-9]*/environ", dead.display())).lines() {
            sh(&format!("kill -KILL {}", pid.split('/').nth(2).unwrap()));
        }
        if cleared {
            sh(&format!("umount -l {0}/cg; rm -rf --one-file-system {0}", dead.display()));
        }
        up(&next, 1).unwrap().down().unwrap();
        assert!(!dead.exists() && !next.exists());
        assert_eq!(common::everything(), mine, "cleared: {cleared}");
    }
}

#[test]
fn nothing_is_left_when_up_fails() {
    if !can_run() {
        return;
    }
    let (dir, mine) = (dir("f"), common::everything());
    let Err(error) = Lab::up(LabConfig { nodes: 1, dir: dir.clone(), peer: Some("/bin/false".into()) }) else {
        panic!()
    };
    assert!(format!("{error:#}").contains("the agent of node 1 ended"), "{error:#}");
    assert!(!dir.exists());
    assert_eq!(common::everything(), mine);
}

#[test]
fn what_it_did_not_make_stays() {
    if !can_run() {
        return;
    }
    // No other test's lab gets as far, should this one's end leave it behind.
    let (foreign, dir) = (namespace(NODES_MAX), dir("s"));
    let config = || LabConfig { nodes: NODES_MAX, dir: dir.clone(), peer: None };
    sh(&format!("ip netns add {foreign}"));
    let refused = Lab::up(config()).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains(&format!("{foreign} exists")), "{refused}");
    assert!(sh("ip netns list").contains(&foreign) && !dir.exists());

    // An older lab's state file gives no right to what another has made since.
    sh(&format!("ip -n {foreign} link set lo alias 'peerlab /tmp/another'"));
    fs::create_dir(&dir).unwrap();
    lab_refuses(&dir, &["down"], "no lab in");
    let state = format!(r#"{{"version": 1, "nodes": 2, "peer": null, "made": ["{foreign}"]}}"#);
    fs::write(dir.join("lab.json"), state).unwrap();
    lab_refuses(&dir, &["down"], &format!("{foreign} is not this lab's"));
    assert!(sh("ip netns list").contains(&foreign));
    sh(&format!("ip netns del {foreign}"));
    lab_ok(&dir, &["down"]);
    assert!(!dir.exists());

    // A directory with something else in it is nobody's lab.
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("precious"), "").unwrap();
    assert!(Lab::up(config()).map(|_| ()).unwrap_err().to_string().contains("exists"));
    lab_refuses(&dir, &["down"], "no lab in");
    assert!(dir.join("precious").exists());
    fs::remove_dir_all(&dir).unwrap();
}
