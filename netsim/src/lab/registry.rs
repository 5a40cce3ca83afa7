//! A registry beside the lab's nodes, for pulls that are real. It ends with its value.

use super::http::ask;
use super::{Lab, SUBNET, search_path, sh, sh_ok, wait_until};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PORT: u16 = 5555;
const UP_LIMIT: Duration = Duration::from_secs(20);

pub struct Registry {
    process: Child,
    addr: String,
}

impl Registry {
    /// Needs Debian's docker-registry.
    pub fn start(lab: &Lab) -> Result<Self> {
        ensure!(sh_ok("command -v docker-registry"), "it needs docker-registry (Debian's package of that name)");
        let (addr, dir) = (format!("{SUBNET}.254:{PORT}"), lab.config.dir.join("registry"));
        fs::create_dir_all(&dir)?;
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {addr}\n",
            dir.display()
        );
        let file = dir.join("config.yml");
        fs::write(&file, config)?;
        let log = fs::File::create(dir.join("log"))?;
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .env("PATH", search_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting docker-registry")?;
        let registry = Self { process, addr };
        let ping = format!("curl -sf -m 2 http://{}/v2/", registry.addr);
        wait_until("the registry answers", UP_LIMIT, || sh_ok(&ping))?;
        Ok(registry)
    }

    /// Moves a test image from the engines to the registry; its new name. The engines keep none of their images, so
    /// that a pull has everything to fetch.
    pub fn take_over(&self, lab: &Lab, image: &str) -> Result<String> {
        let name = image.rsplit('/').next().unwrap_or(image);
        let moved = format!("{}/{name}", self.addr);
        let first = format!("docker -H unix://{}", lab.engine_socket(1).display());
        sh(&format!("{first} tag {image} {moved} && {first} push -q {moved}"))?;
        for node in 1..=lab.config.nodes {
            sh(&format!("docker -H unix://{} image prune -af", lab.engine_socket(node).display()))?;
            ensure!(
                ask(&lab.engine_socket(node), "GET", &format!("/images/{image}/json"), None).is_err(),
                "{image} is still on node {node}"
            );
        }
        Ok(moved)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
