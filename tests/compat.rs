//! `docs/compat.md` against the docker CLI on the path: every flag of every swarm-mode command stands there, and what
//! the page says was tried is tried. Without a docker CLI each test says that it was skipped.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use peer::shell::demo::Demo;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;

const PAGE: &str = include_str!("../docs/compat.md");
const PATIENCE: Duration = Duration::from_secs(60);
const STACK: &str = "services: {web: {image: 'demo/greeter:1', deploy: {update_config: {monitor: 100ms}}}}\n";

async fn has_docker() -> bool {
    let has = Command::new("docker").arg("--version").output().await.is_ok_and(|out| out.status.success());
    if !has {
        println!("SKIPPED: there is no docker CLI on the path to hold docs/compat.md against");
    }
    has
}

/// The flags that the page names, by command ("service create").
fn documented() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut commands: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for section in PAGE.split("\n### docker ").skip(1) {
        let (command, text) = section.split_once('\n').unwrap();
        let text = text.split("\n## ").next().unwrap();
        let flags = text.split('`').skip(1).step_by(2).filter(|word| word.starts_with("--"));
        commands.insert(command, flags.collect());
    }
    commands
}

/// The long options of a help text.
fn flags(help: &str) -> BTreeSet<&str> {
    // What stands further in goes on with an explanation.
    let options = help.lines().filter(|line| line.find('-').is_some_and(|at| at <= 6 && line[..at].trim().is_empty()));
    options.filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--"))).collect()
}

#[tokio::test]
async fn every_flag_of_every_swarm_command_has_its_place() {
    if !has_docker().await {
        return;
    }
    let documented = documented();
    let mut missing = Vec::new();
    let mut seen = 0;
    for noun in ["swarm", "node", "service", "stack", "secret", "config"] {
        let help = help(noun).await;
        let listed = help.split("Commands:").nth(1).unwrap_or_else(|| panic!("no commands in {help}"));
        let verbs = listed
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("  "))
            .filter_map(|l| l.split_whitespace().next());
        for verb in verbs {
            let command = format!("{noun} {verb}");
            let Some(known) = documented.get(command.as_str()) else {
                missing.push(command);
                continue;
            };
            let help = self::help(&command).await;
            let flags = flags(&help);
            seen += flags.len();
            missing.extend(flags.iter().filter(|flag| !known.contains(*flag)).map(|flag| format!("{command} {flag}")));
        }
    }
    assert!(seen > 200, "the CLI's help was understood: {seen} flags");
    assert!(missing.is_empty(), "docs/compat.md doesn't say how it is with: {missing:#?}");
}

async fn help(command: &str) -> String {
    let output = Command::new("docker").args(command.split(' ')).arg("--help").output().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The rows under "Tried": the arguments, whether they work, and what they say.
fn tried() -> Vec<(&'static str, bool, &'static str)> {
    let table = PAGE.split("\n## Tried\n").nth(1).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |row: &'static str| {
        let (args, rest) = row.split_once("` | ").unwrap();
        let (verdict, says) = rest.split_once(" |").unwrap();
        let works = match verdict {
            "works" => true,
            "refused" => false,
            other => panic!("{other:?} is no verdict: {row}"),
        };
        (args, works, says.trim_end_matches('|').trim())
    };
    rows.map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_says_was_tried_comes_out_so() {
    if !has_docker().await {
        return;
    }
    let rows = tried();
    assert!(rows.len() > 50, "the table was understood: {} rows", rows.len());
    let demo = Demo::start(2).await.unwrap();
    demo.wait_formed(2).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "content").unwrap();
    std::fs::write(dir.path().join("bad-template"), "{{.Service.Nmae}}").unwrap();
    std::fs::write(dir.path().join("compose.yml"), STACK).unwrap();
    let mut wrong = Vec::new();
    for (args, works, says) in rows {
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", dir.path()).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
        command.current_dir(dir.path()).kill_on_drop(true);
        command.arg("--host").arg(format!("unix://{}", demo.socket(0).display())).args(args.split(' '));
        let running = tokio::time::timeout(PATIENCE, command.output()).await;
        let Output { status, stdout, stderr } = running.unwrap_or_else(|_| panic!("docker {args} hangs")).unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        println!("$ docker {args}\n{text}");
        if status.success() != works || !text.contains(says) {
            wrong.push(format!(
                "docker {args}: want {}, {says:?}; got {status}: {text}",
                if works { "success" } else { "refusal" }
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    demo.end().await;
}
