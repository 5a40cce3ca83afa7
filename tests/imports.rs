//! Who may import whom (the tree in `src/lib.rs`), read off the `use` lines and paths of the sources.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const BASE: [&str; 5] = ["ids", "time", "limits", "law", "plant"];

/// Module -> what it may use besides the base and itself.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let pure = vec!["model", "wire"];
    let mut rules = BTreeMap::from([
        ("ids", vec![]),
        ("time", vec![]),
        ("limits", vec![]),
        ("law", vec!["model"]),
        ("model", vec![]),
        ("wire", vec!["model"]),
        ("service", vec!["model", "wire", "schedule"]),
        ("core", vec!["model", "wire", "membership", "store", "lease", "schedule", "service", "worker", "routes"]),
        // `routes` for the table that an effect carries.
        ("shell", vec!["core", "wire", "model", "routes"]),
        ("cli", vec!["model", "shell"]),
    ]);
    for part in ["membership", "store", "lease", "schedule", "worker", "routes"] {
        rules.insert(part, pure.clone());
    }
    rules
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Test code may reach further: it sets up what it tests.
fn is_test(path: &Path) -> bool {
    path.iter().any(|part| {
        matches!(part.to_str(), Some("tests" | "tests.rs" | "sweeps.rs" | "sim.rs" | "testing.rs" | "fake.rs"))
    })
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rules = allowed();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut checked = 0;
    for path in files.iter().filter(|p| !is_test(p)) {
        let inside = path.strip_prefix(&root).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(may) = rules.get(module) else { continue };
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            for rest in line.split("crate::").skip(1) {
                let used: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let known = rules.contains_key(used.as_str());
                checked += usize::from(known);
                if known && used != module && !BASE.contains(&used.as_str()) && !may.contains(&used.as_str()) {
                    wrong.push(format!("{}:{}: {module} uses {used}", inside.display(), number + 1));
                }
            }
        }
    }
    assert!(checked > 200, "the check must have seen the code: {checked} uses");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The simulator drives whole cores and reads their messages; only the model checker, which drives the lease alone, may use a
/// part.
#[test]
fn netsim_uses_the_core_and_the_model_check_the_lease() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("netsim/src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut checked = 0;
    for path in &files {
        let inside = path.strip_prefix(&root).unwrap();
        // `routes` for the table that an effect carries.
        let mut may = vec!["core", "wire", "model", "routes"];
        if inside.starts_with("model") {
            may.push("lease");
        }
        for (number, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            let line = line.split("//").next().unwrap();
            for rest in line.split("peer::").skip(1) {
                let used: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                checked += 1;
                if !BASE.contains(&used.as_str()) && !may.contains(&used.as_str()) {
                    wrong.push(format!("netsim/src/{}:{}: uses {used}", inside.display(), number + 1));
                }
            }
        }
    }
    assert!(checked > 50, "the check must have seen the code: {checked} uses");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_pure_parts_name_nothing_of_the_outside_world() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let banned = [
        "tokio::",
        "quinn::",
        "bollard::",
        "std::fs",
        "std::env",
        "std::net::Udp",
        "std::net::Tcp",
        "Instant::now",
        "SystemTime",
        "HashMap",
        "HashSet",
        "std::thread",
    ];
    let mut files = Vec::new();
    sources(&root, &mut files);
    let pure = files.iter().filter(|p| {
        let inside = p.strip_prefix(&root).unwrap();
        !inside.starts_with("shell") && !inside.starts_with("cli") && !inside.starts_with("main.rs") && !is_test(inside)
    });
    let mut wrong = Vec::new();
    for path in pure {
        let text = fs::read_to_string(path).unwrap();
        for (number, line) in text.split("#[cfg(test)]\nmod tests {").next().unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap();
            wrong.extend(
                banned.iter().filter(|b| code.contains(**b)).map(|b| format!("{}:{}: {b}", path.display(), number + 1)),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
