//! Images: their tag, the digest that a registry has for it now, and the credentials for that registry.

use crate::cli::client::{Client, escaped};
use crate::cli::error::CliError;
use crate::cli::json::{Object, child, items, put, text};
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, URL_SAFE};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const HUB: &str = "docker.io";
/// Docker Hub's name in Docker's configuration.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// A registry that takes longer is as good as none.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// `docker login` writes padding; some helpers don't.
const AUTH: &GeneralPurpose = &STANDARD;

/// Names the tag if none is named: `nginx` means `nginx:latest`.
pub fn tagged(image: &str) -> String {
    if image.contains('@') || has_tag(image) { image.to_owned() } else { format!("{image}:latest") }
}

fn has_tag(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    name.contains(':')
}

/// What tables show: without the digest where there is a tag, without the host where it is Docker Hub.
pub fn familiar(image: &str) -> String {
    let Some((name, digest)) = image.split_once('@') else { return short_host(image) };
    if has_tag(name) { short_host(name) } else { format!("{}@{digest}", short_host(name)) }
}

fn short_host(image: &str) -> String {
    let rest = image.strip_prefix("docker.io/").unwrap_or(image);
    rest.strip_prefix("library/").filter(|_| rest.len() < image.len()).unwrap_or(rest).to_owned()
}

/// The first component of a name is a host if it couldn't be part of a path.
pub fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => HUB,
    }
}

/// Puts the digest that the registry has for the image's tag into the spec, and the platforms it is there for.
/// `Err` is the warning that docker gives when there is no answer.
pub async fn pin(client: &Client, spec: &mut Object, auth: Option<&str>) -> Result<(), String> {
    let task = child(spec, "TaskTemplate");
    let image = text(&Value::Object(task.clone()), "/ContainerSpec/Image").to_owned();
    let path = format!("/distribution/{}/json", image.split('/').map(path_part).collect::<Vec<_>>().join("/"));
    let Ok(found) = client.get_within(&path, auth, LOOKUP_TIMEOUT).await else { return Err(warning(&image)) };
    let digest = text(&found, "/Descriptor/digest");
    if digest.is_empty() {
        return Err(warning(&image));
    }
    if !image.contains('@') {
        put(child(task, "ContainerSpec"), "Image", format!("{image}@{digest}"));
    }
    let platforms: Vec<Value> = found.get("Platforms").map(items).unwrap_or_default().iter().map(platform).collect();
    if !platforms.is_empty() {
        put(child(task, "Placement"), "Platforms", platforms);
    }
    Ok(())
}

/// A colon and an at sign may stand in a path, and proxies know them there.
fn path_part(part: &str) -> String {
    escaped(part).replace("%3A", ":").replace("%40", "@")
}

/// Variants of arm run on nodes that name themselves otherwise, so docker leaves it to the engine.
fn platform(found: &Value) -> Value {
    let architecture = text(found, "/architecture");
    let mut platform = Object::new();
    if !architecture.is_empty() && architecture != "arm" {
        put(&mut platform, "Architecture", architecture);
    }
    put(&mut platform, "OS", text(found, "/os"));
    Value::Object(platform)
}

fn warning(image: &str) -> String {
    format!(
        "image {image} could not be accessed on a registry to record\nits digest. Each node will access {image} independently,\n\
         possibly leading to different nodes running different\nversions of the image.\n"
    )
}

/// X-Registry-Auth for the image's registry from what `docker login` stored, if anything.
pub fn stored_auth(image: &str) -> Result<Option<String>, CliError> {
    match std::fs::read_to_string(config_file()) {
        Ok(text) => auth_in(&text, registry(image)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::new(format!("{}: {error}", config_file().display()))),
    }
}

fn config_file() -> PathBuf {
    let dir = std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".docker");
    dir.unwrap_or_else(home).join("config.json")
}

fn auth_in(config: &str, registry: &str) -> Result<Option<String>, CliError> {
    let broken =
        |why: String| CliError::new(format!("docker's config.json: {why}")).hint("log in again with: docker login");
    let config: Value = serde_json::from_str(config).map_err(|error| broken(error.to_string()))?;
    let auths = config.get("auths").and_then(Value::as_object);
    let Some((key, entry)) = auths.into_iter().flatten().find(|(key, _)| host_of(key) == registry) else {
        return Ok(None);
    };
    let (mut user, mut password) = (text(entry, "/username").to_owned(), text(entry, "/password").to_owned());
    let encoded = text(entry, "/auth").trim_end_matches('\0');
    if !encoded.is_empty() {
        let decoded = AUTH.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or_else(|| broken(format!("the entry of {key} is not base64")))?;
        let (name, secret) =
            decoded.split_once(':').ok_or_else(|| broken(format!("the entry of {key} has no user name")))?;
        (user, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
    }
    let token = text(entry, "/identitytoken");
    if user.is_empty() && token.is_empty() {
        let store = text(&config, "/credsStore");
        let why = if store.is_empty() {
            "empty".to_owned()
        } else {
            format!("in the credential store {store:?}, which peer can't read")
        };
        return Err(CliError::new(format!("the credentials of {key} are {why}"))
            .hint("put them into docker's config.json itself: remove its credsStore and log in again"));
    }
    let mut auth = Object::new();
    for (name, value) in
        [("username", user.as_str()), ("password", &password), ("identitytoken", token), ("serveraddress", key)]
    {
        if !value.is_empty() {
            put(&mut auth, name, value);
        }
    }
    Ok(Some(URL_SAFE.encode(json!(auth).to_string())))
}

fn host_of(key: &str) -> &str {
    if key == HUB_KEY {
        return HUB;
    }
    let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
    match bare.split('/').next().unwrap_or(bare) {
        "index.docker.io" | "registry-1.docker.io" => HUB,
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::json::into_object;
    use crate::cli::testing::FakeAgent;

    #[test]
    fn names_of_images() {
        assert_eq!(tagged("nginx"), "nginx:latest");
        assert_eq!(tagged("localhost:5000/a"), "localhost:5000/a:latest");
        assert_eq!(tagged("a:1"), "a:1");
        assert_eq!(tagged("a@sha256:0"), "a@sha256:0");
        assert_eq!(familiar("localhost:5000/a:1@sha256:0"), "localhost:5000/a:1");
        assert_eq!(familiar("a@sha256:0"), "a@sha256:0");
        assert_eq!(familiar("docker.io/library/nginx:1"), "nginx:1");
        assert_eq!(
            (registry("nginx"), registry("acme/x"), registry("localhost:5000/x")),
            ("docker.io", "docker.io", "localhost:5000")
        );
    }

    #[test]
    fn credentials_are_those_of_the_images_registry() {
        let config = json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": STANDARD.encode("me:secret:colon") },
            "registry.example:5000": { "identitytoken": "T" },
            "kept.example": {},
        }, "credsStore": "desktop" });
        let auth = |registry: &str| auth_in(&config.to_string(), registry);
        let decoded = |text: String| serde_json::from_slice::<Value>(&URL_SAFE.decode(text).unwrap()).unwrap();
        assert_eq!(
            decoded(auth("docker.io").unwrap().unwrap()),
            json!({ "username": "me", "password": "secret:colon", "serveraddress": "https://index.docker.io/v1/" })
        );
        assert_eq!(
            decoded(auth("registry.example:5000").unwrap().unwrap()),
            json!({ "identitytoken": "T", "serveraddress": "registry.example:5000" })
        );
        assert_eq!(auth("other.example").unwrap(), None);
        assert!(auth("kept.example").unwrap_err().message().contains("desktop"));
        assert!(auth_in("{", "docker.io").is_err());
    }

    fn spec(image: &str) -> Object {
        into_object(json!({ "TaskTemplate": { "ContainerSpec": { "Image": image } } })).unwrap()
    }

    #[tokio::test]
    async fn a_tag_is_pinned_to_its_digest() {
        let agent = FakeAgent::start(|request| {
            assert_eq!(request.path, "/distribution/registry.example:5000/acme/web:1/json");
            assert_eq!(request.auth.as_deref(), Some("abc"));
            (
                200,
                json!({ "Descriptor": { "digest": "sha256:12" },
                "Platforms": [{ "architecture": "amd64", "os": "linux" }, { "architecture": "arm", "os": "linux", "variant": "v7" }] }),
            )
        });
        let mut spec = spec("registry.example:5000/acme/web:1");
        pin(&agent.client(), &mut spec, Some("abc")).await.unwrap();
        assert_eq!(
            json!(spec["TaskTemplate"]),
            json!({
            "ContainerSpec": { "Image": "registry.example:5000/acme/web:1@sha256:12" },
            "Placement": { "Platforms": [{ "Architecture": "amd64", "OS": "linux" }, { "OS": "linux" }] } })
        );
    }

    #[tokio::test]
    async fn without_a_registry_the_image_stays_and_docker_warns() {
        let agent = FakeAgent::start(|_| (404, json!({ "message": "no such image" })));
        let mut spec = spec("web:1");
        let warning = pin(&agent.client(), &mut spec, None).await.unwrap_err();
        assert!(warning.starts_with("image web:1 could not be accessed on a registry to record"));
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Image"], "web:1");
    }
}
