//! The lab's registry on the bridge, and the test images in it: what nodes run they have really pulled.

use super::process::{record, sh_ok, wait_until};
use super::{Lab, SUBNET};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const PORT: u16 = 5555;
const UP_LIMIT: Duration = Duration::from_secs(20);

/// Tag, the greeter's arguments, and what else stands in the Dockerfile.
const IMAGES: [(&str, &[&str], &str); 6] = [
    ("1", &["1"], ""),
    ("2", &["2"], ""),
    ("crash", &["crash", "crash"], ""),
    ("exit", &["1", "exit"], ""),
    ("slow-stop", &["1", "slow"], ""),
    ("sick", &["sick"], "HEALTHCHECK --interval=500ms --timeout=2s --retries=2 CMD [\"/greeter\", \"--sick\"]\n"),
];

/// The name of the greeter's image with this tag.
pub fn image(tag: &str) -> String {
    format!("{SUBNET}.254:{PORT}/greeter:{tag}")
}

/// Its pid is kept beside the lab's other files: it outlives the process that brought the lab up.
pub fn serve(lab: &Lab) -> Result<()> {
    let (addr, dir) = (format!("{SUBNET}.254:{PORT}"), lab.config.dir.join("registry"));
    fs::create_dir_all(&dir)?;
    let config = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {addr}\n",
        dir.display()
    );
    let file = dir.join("config.yml");
    fs::write(&file, config)?;
    let log = fs::File::create(dir.join("log"))?;
    let process = lab
        .marked("setsid")
        .args(["docker-registry", "serve"])
        .arg(&file)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting docker-registry")?;
    record(&pid_file(lab), process.id())?;
    let ping = format!("curl -sf -m 2 http://{addr}/v2/");
    wait_until("the registry answers", UP_LIMIT, || sh_ok(&ping))
}

fn pid_file(lab: &Lab) -> PathBuf {
    lab.config.dir.join("registry.pid")
}

/// A static greeter, since nothing can be had from outside.
pub fn compile(lab: &Lab) -> Result<()> {
    let build = lab.config.dir.join("image");
    fs::create_dir_all(&build)?;
    fs::write(build.join("greeter.rs"), include_str!("../../images/greeter.rs"))?;
    let rustc = "rustc --edition 2021 -O -C target-feature=+crt-static -C strip=symbols -o greeter greeter.rs";
    lab.sh(&format!("cd {} && {rustc}", build.display()))
}

/// The images from scratch, made on the first node, which keeps none of them.
pub fn fill(lab: &Lab) -> Result<()> {
    let build = lab.config.dir.join("image");
    let at = build.display();
    let docker = format!("docker -H unix://{}", lab.engine_socket(1).display());
    for (tag, args, more) in IMAGES {
        let args = args.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(",");
        fs::write(
            build.join("Dockerfile"),
            format!("FROM scratch\nCOPY greeter /greeter\n{more}ENTRYPOINT [\"/greeter\",{args}]\n"),
        )?;
        let image = image(tag);
        lab.sh(&format!("DOCKER_BUILDKIT=0 {docker} build -q -t {image} {at} && {docker} push -q {image}"))?;
    }
    forget(lab)
}

/// Takes the images from all engines: their next pull has everything to fetch.
pub fn forget(lab: &Lab) -> Result<()> {
    for node in 1..=lab.config.nodes {
        let docker = format!("docker -H unix://{}", lab.engine_socket(node).display());
        lab.sh(&format!("{docker} image prune -af"))?;
        let left = sh_ok(&format!("test -n \"$({docker} image ls -q)\""));
        ensure!(!left, "node {node} still has images that something uses");
    }
    Ok(())
}
