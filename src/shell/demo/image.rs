//! The greeter as images on a Docker Engine, made of the running binary itself: where the demo runs there may be no
//! registry to pull from.
//!
//! One layer holds the binary with the libraries it runs on, four configurations over it start it in four ways. The
//! images are named for a registry that nobody can run (port 1 of the engine's own host), so that no stranger's image
//! can ever be pulled in their place. Whatever is made here carries [`LABEL`], containers included, and goes at the end.

use super::greeter::{Greeter, PORT};
use super::program::Program;
use super::tar::Tar;
use crate::model::container::LABEL_CLUSTER;
use anyhow::{Context, bail, ensure};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, SystemVersion};
use bollard::query_parameters::{
    CreateContainerOptions, ImportImageOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptions, StartContainerOptions,
};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

pub const REPOSITORY: &str = "localhost:1/demo/greeter";
const LABEL: &str = "peer.demo";
const LABEL_VALUE: &str = "greeter";
/// Nobody: the greeter needs no rights.
const USER: &str = "65534:65534";
/// For a socket to say that an engine is behind it.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// For any one call after that; the longest is loading the images.
const CALL_LIMIT_S: u64 = 120;
/// For the first greeter to answer once it was started. Out of reach, nothing comes back at all.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);
const MAX_GREETING: u64 = 4_096;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A Docker Engine on which the demo can run.
pub struct DemoDocker {
    docker: Docker,
}

impl DemoDocker {
    /// An engine that answers, is none of ours, and runs what we can give it. An error says why there is none.
    pub async fn find(socket: &Path) -> anyhow::Result<Self> {
        let path = socket.to_string_lossy();
        let docker = Docker::connect_with_unix(&path, CALL_LIMIT_S, bollard::API_DEFAULT_VERSION)?;
        let version = timeout(ANSWER_LIMIT, docker.version())
            .await
            .map_err(|_| anyhow::anyhow!("it doesn't answer within {} s", ANSWER_LIMIT.as_secs()))??;
        suits(&version)?;
        Ok(Self { docker })
    }

    /// Puts the images there, and tries one: a greeter must answer on its container's own address, because the agents
    /// reach it there. (Docker Desktop and rootless engines keep their containers out of this machine's reach.)
    pub async fn prepare(&self) -> anyhow::Result<()> {
        self.load().await?;
        let image = format!("{REPOSITORY}:{}", Greeter::Version(1).tag());
        let body = ContainerCreateBody { image: Some(image), ..Default::default() };
        let created = self.docker.create_container(None::<CreateContainerOptions>, body).await?;
        let tried = self.answers(&created.id).await;
        self.remove_container(&created.id).await?;
        tried
    }

    async fn answers(&self, id: &str) -> anyhow::Result<()> {
        self.docker.start_container(id, None::<StartContainerOptions>).await?;
        let answered = timeout(TRIAL_LIMIT, self.until_it_answers(id)).await;
        answered.map_err(|_| anyhow::anyhow!("its containers can't be reached from here"))?
    }

    async fn until_it_answers(&self, id: &str) -> anyhow::Result<()> {
        loop {
            let seen = self.docker.inspect_container(id, None::<InspectContainerOptions>).await?;
            let state = seen.state.as_ref();
            if state.and_then(|state| state.running) == Some(false) {
                bail!("the greeter ends at once, with {}", state.and_then(|state| state.exit_code).unwrap_or(-1));
            }
            if let Some(ip) = address(&seen)
                && greets(ip).await.unwrap_or(false)
            {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn load(&self) -> anyhow::Result<()> {
        let program = tokio::task::spawn_blocking(Program::of_this_process).await??;
        let archive = tokio::task::spawn_blocking(move || archive(&program)).await??;
        let mut missing = false;
        for (name, id) in &archive.images {
            match self.docker.inspect_image(name).await {
                Ok(image) if image.id.as_ref() == Some(id) => {}
                Ok(image) => {
                    let labels = image.config.and_then(|config| config.labels).unwrap_or_default();
                    ensure!(labels.get(LABEL).is_some_and(|v| v == LABEL_VALUE), "it has an image {name} of its own");
                    missing = true;
                }
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => missing = true,
                Err(error) => return Err(error.into()),
            }
        }
        if missing {
            let options = ImportImageOptionsBuilder::default().quiet(true).build();
            let mut said = self.docker.import_image(options, bollard::body_full(archive.bytes.into()), None).boxed();
            while let Some(line) = said.next().await {
                line.context("loading the greeter's images")?;
            }
        }
        Ok(())
    }

    /// Removes the containers of a cluster that has ended, and the images where nobody else's demo uses them.
    pub async fn clear(&self, cluster: Option<&str>) -> anyhow::Result<()> {
        if let Some(cluster) = cluster {
            let ids = self.labelled(LABEL_CLUSTER, cluster).await?;
            for removed in join_all(ids.iter().map(|id| self.remove_container(id))).await {
                removed?;
            }
        }
        if !self.labelled(LABEL, LABEL_VALUE).await?.is_empty() {
            return Ok(());
        }
        for greeter in Greeter::ALL {
            let name = format!("{REPOSITORY}:{}", greeter.tag());
            gone_is_fine(self.docker.remove_image(&name, None::<RemoveImageOptions>, None).await.map(drop))?;
        }
        Ok(())
    }

    async fn labelled(&self, key: &str, value: &str) -> anyhow::Result<Vec<String>> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{key}={value}")])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self.docker.list_containers(Some(options)).await?;
        Ok(found.into_iter().filter_map(|container| container.id).collect())
    }

    async fn remove_container(&self, id: &str) -> anyhow::Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        gone_is_fine(self.docker.remove_container(id, Some(options)).await)
    }
}

/// Whether it runs what this machine runs, and isn't the socket of an agent of ours.
fn suits(version: &SystemVersion) -> anyhow::Result<()> {
    let mut names = version.components.iter().flatten().map(|component| component.name.as_str());
    let platform = version.platform.as_ref().map(|platform| platform.name.as_str());
    ensure!(!names.any(|name| name == "peer") && platform != Some("peer"), "it is the socket of a peer agent");
    let (os, arch) = (version.os.as_deref().unwrap_or_default(), version.arch.as_deref().unwrap_or_default());
    ensure!(
        cfg!(target_os = "linux") && os == "linux" && arch == architecture(),
        "it runs {os}/{arch}, and this binary is for {}/{}",
        std::env::consts::OS,
        architecture()
    );
    Ok(())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn address(container: &ContainerInspectResponse) -> Option<IpAddr> {
    let networks = container.network_settings.as_ref()?.networks.as_ref()?;
    networks.values().find_map(|network| network.ip_address.as_ref()?.parse().ok())
}

/// Whether a greeter answers there: in some networks somebody takes every connection.
async fn greets(ip: IpAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((ip, PORT)).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(MAX_GREETING).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).contains(" from greeter "))
}

fn gone_is_fine(answer: Result<(), Error>) -> anyhow::Result<()> {
    match answer {
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        // Somebody is removing it already, or uses it: then it isn't ours to take.
        Err(Error::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
        other => Ok(other?),
    }
}

/// What `docker load` takes.
struct Archive {
    bytes: Vec<u8>,
    /// Name and id of each image in it.
    images: Vec<(String, String)>,
}

fn archive(program: &Program) -> anyhow::Result<Archive> {
    let layer = program.layer()?;
    let digest = sha256(&layer);
    let mut tar = Tar::default();
    tar.file("layer.tar", &layer)?;
    drop(layer);
    let (mut manifest, mut images) = (Vec::new(), Vec::new());
    for greeter in Greeter::ALL {
        let config = config(program, greeter, &digest).to_string();
        let id = sha256(config.as_bytes());
        let name = format!("{REPOSITORY}:{}", greeter.tag());
        tar.file(&format!("{id}.json"), config.as_bytes())?;
        manifest.push(json!({"Config": format!("{id}.json"), "RepoTags": [name], "Layers": ["layer.tar"]}));
        images.push((name, format!("sha256:{id}")));
    }
    tar.file("manifest.json", Value::from(manifest).to_string().as_bytes())?;
    Ok(Archive { bytes: tar.end(), images })
}

fn config(program: &Program, greeter: Greeter, layer: &str) -> Value {
    const LONG_AGO: &str = "1970-01-01T00:00:00Z";
    let command = |more: &[&str]| -> Vec<String> {
        let tag = greeter.tag();
        let words = ["greeter", &tag].into_iter().chain(more.iter().copied()).map(str::to_owned);
        program.command().into_iter().chain(words).collect()
    };
    let mut own = json!({
        "Entrypoint": command(&[]),
        "User": USER,
        "ExposedPorts": {format!("{PORT}/tcp"): {}},
        "Labels": {LABEL: LABEL_VALUE},
    });
    if greeter == Greeter::Sick {
        let test: Vec<String> = std::iter::once("CMD".to_owned()).chain(command(&["--check"])).collect();
        own["Healthcheck"] = json!({"Test": test, "Interval": 1_000_000_000, "Retries": 3});
    }
    json!({
        "architecture": architecture(),
        "os": "linux",
        "created": LONG_AGO,
        "config": own,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        "history": [{"created": LONG_AGO, "created_by": "peer demo"}],
    })
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_socket_and_a_foreign_machine_are_refused() {
        let version = |json: Value| serde_json::from_value::<SystemVersion>(json).unwrap();
        let docker = json!({"Os": "linux", "Arch": architecture(), "Components": [{"Name": "Engine", "Version": "1"}]});
        assert_eq!(suits(&version(docker.clone())).is_ok(), cfg!(target_os = "linux"));
        let mut agent = docker.clone();
        agent["Components"] = json!([{"Name": "Engine", "Version": "1"}, {"Name": "peer", "Version": "1"}]);
        assert!(suits(&version(agent)).unwrap_err().to_string().contains("a peer agent"));
        let mut foreign = docker;
        foreign["Arch"] = json!("s390x");
        assert!(suits(&version(foreign)).unwrap_err().to_string().starts_with("it runs linux/s390x"));
    }

    #[test]
    fn the_same_binary_makes_the_same_images() {
        let program = Program::for_test();
        let (first, again) = (archive(&program).unwrap(), archive(&program).unwrap());
        assert_eq!(first.images, again.images);
        assert_eq!(first.bytes, again.bytes);
        let names: Vec<&str> = first.images.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[0], "localhost:1/demo/greeter:1");
        assert_eq!(names.len(), 4);
        let sick = config(&program, Greeter::Sick, "ab");
        assert_eq!(sick["config"]["Healthcheck"]["Test"][0], "CMD");
        assert_eq!(config(&program, Greeter::Bad, "ab")["config"].get("Healthcheck"), None);
    }
}
