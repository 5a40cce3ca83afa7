//! The smaller values of service flags, each parsed into what Docker's JSON holds.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// `KEY=VALUE` or `KEY`, for labels and options.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err("want KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A number of something.
pub fn count<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "want a whole number, 0 or more".to_owned())
}

/// What `--gpus` may be; nothing for none. Docker's users quote the list within the quotes of their shell.
pub fn gpus(text: &str) -> Result<String, String> {
    let text = text.trim_matches('"');
    if ["", "none"].contains(&text) {
        return Ok(String::new());
    }
    text.parse::<crate::model::spec::hardware::Gpus>().map(|_| text.to_owned())
}

/// `KIND=NUMBER`, as `gpu=2`.
pub fn generic(text: &str) -> Result<(String, u64), String> {
    let mut parsed = crate::model::generic::parse(text)?.into_iter();
    match (parsed.next(), parsed.next()) {
        (Some(one), None) => Ok(one),
        _ => Err("want KIND=NUMBER, as gpu=2".to_owned()),
    }
}

/// As Docker's spec has it.
pub fn generic_json((kind, value): &(String, u64)) -> Value {
    json!({ "DiscreteResourceSpec": { "Kind": kind, "Value": value } })
}

/// As [`pair`], where a value must be said.
pub fn full_pair(text: &str) -> Result<(String, String), String> {
    pair(text).and_then(|pair| if text.contains('=') { Ok(pair) } else { Err("want KEY=VALUE".to_owned()) })
}

/// `KEY=VALUE`, or `KEY` for what this environment has.
pub fn env(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("want KEY=VALUE or KEY".to_owned()),
        Some(_) => Ok(text.to_owned()),
        None if text.is_empty() => Err("want KEY=VALUE or KEY".to_owned()),
        None => Ok(std::env::var(text).map_or_else(|_| text.to_owned(), |value| format!("{text}={value}"))),
    }
}

/// A file of `KEY=VALUE` lines; `#` begins a comment, a lone `KEY` takes the value of this environment.
pub fn env_file(path: &Path) -> Result<Vec<String>, String> {
    let at = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("--env-file {at}: {error}"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |why: &str| format!("--env-file {at}: line {}: {why}", number + 1);
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.trim_end().is_empty() {
            return Err(bad("no name before the ="));
        }
        if name.contains(char::is_whitespace) {
            return Err(bad("white space in a name"));
        }
        match line.contains('=') {
            true => found.push(line.to_owned()),
            // What isn't set here isn't set there.
            false => found.extend(std::env::var(line).ok().map(|value| format!("{line}={value}"))),
        }
    }
    Ok(found)
}

/// Of one name only the last assignment counts, in the place of the last.
pub fn last_of_each_name(all: Vec<String>) -> Vec<String> {
    let name = |env: &str| env.split_once('=').map_or(env, |(name, _)| name).to_owned();
    let last: BTreeMap<String, usize> = all.iter().enumerate().map(|(n, env)| (name(env), n)).collect();
    all.into_iter().enumerate().filter(|(n, env)| last.get(&name(env)) == Some(n)).map(|(_, env)| env).collect()
}

/// docker's `host:ip` as Swarm's `IP host`.
pub fn host(text: &str) -> Result<String, String> {
    let (name, ip) = text.split_once([':', '=']).ok_or("want HOST:IP")?;
    let bare = ip.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() || name.contains(char::is_whitespace) || bare.parse::<IpAddr>().is_err() {
        return Err("want HOST:IP, as db:10.0.0.9".to_owned());
    }
    Ok(format!("{bare} {name}"))
}

pub fn ip(text: &str) -> Result<String, String> {
    text.trim().parse::<IpAddr>().map(|ip| ip.to_string()).map_err(|_| "want an IP address".to_owned())
}

/// `CAP_NET_ADMIN` however it was written.
pub fn capability(text: &str) -> Result<String, String> {
    let upper = text.trim().to_ascii_uppercase();
    match upper.as_str() {
        "" => Err("want a capability, as NET_ADMIN".to_owned()),
        "ALL" | "RESET" => Ok(upper),
        _ if upper.starts_with("CAP_") => Ok(upper),
        _ => Ok(format!("CAP_{upper}")),
    }
}

/// `nofile=1024:2048`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    soft: i64,
    hard: i64,
}

impl std::str::FromStr for Ulimit {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "want NAME=SOFT[:HARD], as nofile=1024:2048".to_owned();
        let (name, limits) = text.split_once('=').ok_or_else(bad)?;
        let limit = |text: &str| if text == "unlimited" { Ok(-1) } else { text.parse::<i64>().map_err(|_| bad()) };
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard) = (limit(soft)?, limit(hard)?);
        if name.is_empty() {
            return Err(bad());
        }
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err("the soft limit is above the hard one".to_owned());
        }
        Ok(Self { name: name.to_ascii_lowercase(), soft, hard })
    }
}

impl Ulimit {
    pub fn json(&self) -> Value {
        json!({ "Name": self.name, "Hard": self.hard, "Soft": self.soft })
    }
}

/// `node.labels.zone==east`: looked at here so that a typo is a usage error; the agent has the last word.
pub fn constraint(text: &str) -> Result<String, String> {
    let parts = text.split_once("==").or_else(|| text.split_once("!="));
    match parts {
        Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("want ATTRIBUTE==VALUE or ATTRIBUTE!=VALUE, as node.labels.zone==east".to_owned()),
    }
}

/// `spread=node.labels.zone`, kept as the attribute.
pub fn spread(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("spread", attribute)) if !attribute.is_empty() => Ok(attribute.to_owned()),
        Some((strategy, _)) if strategy != "spread" => {
            Err(format!("unknown strategy {strategy:?}: only spread is supported"))
        }
        _ => Err("want spread=ATTRIBUTE, as spread=node.labels.zone".to_owned()),
    }
}

pub fn spread_json(attribute: &str) -> Value {
    json!({ "Spread": { "SpreadDescriptor": attribute } })
}

/// A share of failures, 0 to 1.
pub fn ratio(text: &str) -> Result<f64, String> {
    let bad = || "want a share from 0 to 1, as 0.2".to_owned();
    let ratio: f64 = text.parse().map_err(|_| bad())?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_environment() {
        assert_eq!(pair("tier=front=1").unwrap(), ("tier".to_owned(), "front=1".to_owned()));
        assert_eq!(pair("ssd").unwrap(), ("ssd".to_owned(), String::new()));
        assert!(pair("=x").is_err() && full_pair("ssd").is_err());
        assert_eq!(env("A=b=c").unwrap(), "A=b=c");
        assert_eq!(env("PEER_TEST_NOT_SET").unwrap(), "PEER_TEST_NOT_SET");
        assert!(env("").is_err() && env("=x").is_err());
        let all = ["A=1", "B=1", "A=2"].map(str::to_owned).to_vec();
        assert_eq!(last_of_each_name(all), ["B=1", "A=2"]);
    }

    #[test]
    fn a_file_of_variables() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, "\u{feff}# comment\n\nA=1\n  B=two words \nPEER_TEST_NOT_SET\n").unwrap();
        assert_eq!(env_file(&file).unwrap(), ["A=1", "B=two words "]);
        std::fs::write(&file, "A=1\nB C=2\n").unwrap();
        assert!(env_file(&file).unwrap_err().ends_with("line 2: white space in a name"));
        assert!(env_file(&dir.path().join("none")).unwrap_err().contains("--env-file"));
    }

    #[test]
    fn hosts_limits_and_capabilities() {
        assert_eq!(host("db:10.0.0.9").unwrap(), "10.0.0.9 db");
        assert_eq!(host("db:[fd00::1]").unwrap(), "fd00::1 db");
        assert!(host("db").is_err() && host("db:name").is_err() && host(":1.2.3.4").is_err());
        assert_eq!(
            "nofile=1024:2048".parse::<Ulimit>().unwrap().json(),
            json!({ "Name": "nofile", "Hard": 2048, "Soft": 1024 })
        );
        assert_eq!(
            "core=unlimited".parse::<Ulimit>().unwrap().json(),
            json!({ "Name": "core", "Hard": -1, "Soft": -1 })
        );
        assert!("nofile=3:2".parse::<Ulimit>().is_err() && "nofile".parse::<Ulimit>().is_err());
        assert_eq!(capability("net_admin").unwrap(), "CAP_NET_ADMIN");
        assert_eq!(capability("all").unwrap(), "ALL");
    }

    #[test]
    fn placement_and_ratios() {
        assert!(constraint("node.role==worker").is_ok() && constraint("node.labels.x != y").is_ok());
        assert!(constraint("node.role=worker").is_err() && constraint("==x").is_err());
        assert_eq!(spread("spread=node.labels.zone").unwrap(), "node.labels.zone");
        assert!(spread("binpack=x").unwrap_err().contains("only spread"));
        assert!(ratio("0.25").is_ok() && ratio("1.5").is_err() && ratio("NaN").is_err());
    }
}
