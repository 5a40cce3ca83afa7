//! A directory's first start, as far as it can fail: it is tried on an engine that answers, and what fails leaves nothing,
//! so that the next try is a first start again and finds no settings that nobody meant.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use super::options::SETTINGS_FILE;
use super::{AgentConfig, EngineChoice, PAGE_TOKEN_FILE, StartError};
use crate::shell::engine::{DockerEngine, Engine};
use crate::shell::identity::DataDir;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For a socket to say that an engine is behind it. One that is only slow is found slow again by every call after that.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How the data directory was before a start touched it.
pub struct Before {
    data_dir: PathBuf,
    /// The directories that weren't there, the innermost first.
    missing: Vec<PathBuf>,
    settled: bool,
}

impl Before {
    pub fn of(data_dir: &Path) -> Self {
        let missing = data_dir.ancestors().take_while(|dir| std::fs::symlink_metadata(dir).is_err());
        Self {
            data_dir: data_dir.to_owned(),
            missing: missing.map(Path::to_owned).collect(),
            settled: data_dir.join(SETTINGS_FILE).exists(),
        }
    }

    /// An agent that was up here before comes back while its engine is away, as a member or on standby. One that has
    /// yet to find its place would found a cluster, or take part in one, on a machine that can run nothing.
    pub async fn check_engine(&self, config: &AgentConfig) -> anyhow::Result<()> {
        let waits_again = self.settled && config.standby && config.join.is_none();
        match &config.engine {
            EngineChoice::Docker(socket) if !waits_again && !DataDir::open(&config.data_dir)?.is_member() => {
                Ok(answers(socket).await?)
            }
            _ => Ok(()),
        }
    }

    /// The start failed: whatever it made goes, unless a node lives there after all, or another agent.
    pub fn undo(&self) {
        if !self.data_dir.exists() {
            return;
        }
        let Ok(dir) = DataDir::open(&self.data_dir) else { return };
        if dir.is_member() || dir.state_path().exists() {
            return;
        }
        let undone = (|| {
            if !self.settled {
                dir.remove_private(SETTINGS_FILE)?;
                dir.remove_private(PAGE_TOKEN_FILE)?;
                dir.remove_lock()?;
            }
            anyhow::Ok(())
        })();
        if let Err(error) = undone {
            tracing::warn!("can't clear up after a first start that failed: {error:#}");
        }
        // What isn't empty has something of somebody else's in it.
        let _ = self.missing.iter().try_for_each(std::fs::remove_dir);
    }
}

/// Whether a Docker Engine is behind this socket; an error names the flag.
pub async fn answers(socket: &Path) -> Result<(), StartError> {
    let why = match tokio::time::timeout(ANSWER_LIMIT, DockerEngine::new(socket).ping()).await {
        Ok(Ok(())) => return Ok(()),
        _ if std::fs::symlink_metadata(socket).is_err() => "there is no such socket".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it doesn't answer within {} s", ANSWER_LIMIT.as_secs()),
    };
    Err(StartError {
        why: format!("--engine unix://{}: no Docker Engine answers there: {why}", socket.display()),
        hint: "start it, or say where it is: --engine unix:///PATH; without Docker: --engine demo, which plays the containers",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::agent::StartOptions;
    use crate::shell::agent::options::tests::options;
    use crate::shell::clock::wall;
    use crate::shell::identity::Identity;

    /// A node must come back while its engine restarts.
    #[tokio::test]
    async fn only_a_first_start_needs_its_engine() {
        let root = tempfile::tempdir().unwrap();
        let missing = Some(EngineChoice::Docker(root.path().join("nowhere.sock")));
        let start = async |name: &str, standby: bool| {
            let path = root.path().join(name);
            let before = Before::of(&path);
            let said = StartOptions { engine: missing.clone(), standby: Some(standby), ..options(&path) };
            before.check_engine(&said.settle().unwrap()).await
        };
        let error = start("standby", true).await.unwrap_err().to_string();
        assert!(error.starts_with("--engine unix:///") && error.contains("there is no such socket"), "{error}");
        start("standby", true).await.expect("it was on standby here before");
        start("standby", false).await.expect_err("now it is to found a cluster");
        DataDir::open(root.path().join("standby")).unwrap().save(&Identity::found(wall()).unwrap()).unwrap();
        start("standby", false).await.expect("a member");
    }

    #[test]
    fn what_a_failed_start_made_goes_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/data");
        let before = Before::of(&path);
        DataDir::open(&path).unwrap().write_private(SETTINGS_FILE, b"{}").unwrap();
        before.undo();
        assert!(root.path().exists() && !root.path().join("deep").exists());

        // One that was there stays, with what it held.
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("theirs"), b"x").unwrap();
        let before = Before::of(&path);
        DataDir::open(&path).unwrap().write_private(SETTINGS_FILE, b"{}").unwrap();
        before.undo();
        let left: Vec<_> = std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["theirs"]);

        // So does the directory of an agent that runs.
        let running = DataDir::open(&path).unwrap();
        running.write_private(SETTINGS_FILE, b"{}").unwrap();
        before.undo();
        assert!(path.join(SETTINGS_FILE).exists());
    }
}
