//! What a lab is and what was made for it, kept in its directory from before the first thing is made: any other process
//! can use the lab or take it down, and after a crash `down` knows what is the lab's and what is not.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;
const FILE: &str = "lab.json";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub nodes: usize,
    pub peer: Option<PathBuf>,
    /// The namespaces and links that are the lab's, each noted before it is made.
    pub made: BTreeSet<String>,
}

impl State {
    pub fn load(dir: &Path) -> Result<Self> {
        let file = dir.join(FILE);
        let text = fs::read_to_string(&file).with_context(|| format!("no lab in {}", dir.display()))?;
        Self::parse(&text).with_context(|| format!("{} is damaged", file.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let version = value["version"].as_u64().context("no version")?;
        ensure!(version == VERSION, "version {version}; this program knows {VERSION}");
        let nodes = value["nodes"].as_u64().context("no nodes")?.try_into()?;
        let made = value["made"].as_array().context("no list of what was made")?.iter();
        let made: Result<_> =
            made.map(|name| name.as_str().map(str::to_owned).context("a name that is no text")).collect();
        Ok(Self { nodes, peer: value["peer"].as_str().map(PathBuf::from), made: made? })
    }

    fn text(&self) -> String {
        format!("{:#}\n", json!({"version": VERSION, "nodes": self.nodes, "peer": self.peer, "made": self.made}))
    }

    /// Whole or not at all: a crash leaves the old file.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let new = dir.join("lab.json.new");
        fs::write(&new, self.text()).and_then(|()| fs::rename(&new, dir.join(FILE))).context("writing the lab's state")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let made = ["peerlab1", "br-peerlab"].map(str::to_owned).into();
        let state = State { nodes: 2, peer: Some("/bin/peer".into()), made };
        assert_eq!(State::parse(&state.text()).unwrap(), state);
        let alone = State { peer: None, ..state };
        assert_eq!(State::parse(&alone.text()).unwrap(), alone);
        for bad in ["", "4 /bin/peer", "{}", r#"{"version": 2, "nodes": 1, "made": []}"#, r#"{"version":1,"nodes":1}"#]
        {
            assert!(State::parse(bad).is_err(), "{bad}");
        }
    }
}
