//! What a deploy writes: the networks, secrets and configs that aren't there, and then each service, only if it differs.

use super::compose::{self, FileObject, IMAGE, Stack};
use super::keys::{self, refused, refused_at, tell_once};
use super::{Files, Resolve, diff};
use crate::cli::client::{ApiError, Client, escaped, with_query};
use crate::cli::console::Console;
use crate::cli::error::CliError;
use crate::cli::json::{Object, child, index, items, pairs, put, text};
use crate::cli::service::{image, path, tell_warnings};
use crate::cli::table::natural;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Which deploy changed a service last; a rollback of the stack takes back what the newest one changed.
pub const STAMP: &str = "com.peer.stack.deployed";
const VERSION_OF: &str = "com.peer.version-of";

/// The name that the file has for a secret or config, and the id and name that the cluster has now.
#[derive(Default)]
pub struct Objects {
    secrets: BTreeMap<String, (String, String)>,
    configs: BTreeMap<String, (String, String)>,
}

pub struct Deployed {
    pub id: String,
    pub name: String,
    pub short: String,
    /// No majority has it yet: nobody should wait for it.
    pub held: bool,
}

pub async fn prepare(stack: &Stack, client: &Client, console: &mut Console) -> Result<Objects, CliError> {
    for network in &stack.networks {
        match client.get(&with_query(&format!("/networks/{}", escaped(&network.name)), &[("scope", "swarm")])).await {
            Ok(_) => continue,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        let Some(create) = &network.create else {
            return Err(CliError::new(format!(
                "network {:?} is declared as external, but could not be found",
                network.name
            ))
            .hint(format!("make it with: docker network create -d overlay {}", network.name)));
        };
        console.line(&format!("Creating network {}", network.name))?;
        let answer = client.post("/networks/create", Some(create)).await;
        let answer = answer.map_err(|error| refused_at(error, &format!("networks.{}", network.short)))?;
        if !text(&answer, "/Warning").is_empty() {
            tell_once(text(&answer, "/Warning"), console);
        }
    }
    let mut objects = Objects::default();
    for (noun, list, found) in
        [("secret", &stack.secrets, &mut objects.secrets), ("config", &stack.configs, &mut objects.configs)]
    {
        for object in list {
            found.insert(object.name.clone(), ensure(noun, object, client, console).await?);
        }
    }
    Ok(objects)
}

/// The newest version of it as it is.
pub async fn newest(noun: &str, name: &str, client: &Client) -> Result<Option<Value>, CliError> {
    let filters = json!({ "name": { name: true } }).to_string();
    let answer = client.get(&with_query(&format!("/{noun}s"), &[("filters", &filters)])).await?;
    let is_it = |object: &&Value| {
        let version_of = pairs(object, "/Spec/Labels").into_iter().find(|(key, _)| *key == VERSION_OF);
        version_of.map_or(text(object, "/Spec/Name") == name, |(_, of)| of == name)
    };
    let by_name = |a: &&Value, b: &&Value| natural(text(a, "/Spec/Name"), text(b, "/Spec/Name"));
    Ok(items(&answer).iter().filter(is_it).max_by(by_name).cloned())
}

/// Made if it isn't there; with other content it gets a new version, which services are moved to one by one as they
/// are deployed.
async fn ensure(
    noun: &str,
    object: &FileObject,
    client: &Client,
    console: &mut Console,
) -> Result<(String, String), CliError> {
    let found = newest(noun, &object.name, client).await?;
    let refused_here = |error| refused_at(error, &format!("{noun}s.{}", object.short));
    let known = |found: &Value| (text(found, "/ID").to_owned(), text(found, "/Spec/Name").to_owned());
    let (labels, data, templating) = match (&object.content, &found) {
        (None, Some(found)) => return Ok(known(found)),
        (None, None) => {
            return Err(CliError::new(format!("no such {noun}: {}", object.name))
                .hint(format!("it is external: make it with: peer {noun} create {} FILE", object.name)));
        }
        (Some(content), _) => (&content.labels, STANDARD.encode(&content.data), content.templating()),
    };
    let Some(found) = found else {
        console.line(&format!("Creating {noun} {}", object.name))?;
        let spec = json!({ "Name": object.name, "Labels": labels, "Data": data, "Templating": templating });
        let answer = client.post(&format!("/{noun}s/create"), Some(&spec)).await.map_err(refused_here)?;
        tell_warnings(&answer, console);
        return Ok((text(&answer, "/ID").to_owned(), object.name.clone()));
    };
    let (id, name) = known(&found);
    let mut kept: BTreeMap<&str, &str> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    kept.extend(pairs(&found, "/Spec/Labels").into_iter().filter(|(key, _)| *key == VERSION_OF));
    let same = json!({ "Name": name, "Labels": kept, "Data": data, "Templating": templating });
    let update = with_query(&format!("/{noun}s/{}/update", escaped(&id)), &[("version", &index(&found))]);
    match client.post(&update, Some(&same)).await {
        Ok(answer) => {
            tell_warnings(&answer, console);
            Ok((id, name))
        }
        // Only the agent can tell whether a secret's content is the same.
        Err(ApiError::Refused { status: 400, message }) if message.starts_with("only updates to Labels") => {
            let renew = with_query(&format!("/peer/{noun}s/{}/renew", escaped(&id)), &[("move", "false")]);
            let content = json!({ "Labels": labels, "Data": data, "Templating": templating });
            let renewed = client.post(&renew, Some(&content)).await;
            let answer = renewed.map_err(refused_here)?;
            tell_warnings(&answer, console);
            let name = text(&answer, "/Name").to_owned();
            console.line(&format!("Creating {noun} {name}"))?;
            Ok((text(&answer, "/ID").to_owned(), name))
        }
        Err(error) => Err(refused_here(error)),
    }
}

/// The spec with the ids of secrets and configs in their places.
pub fn with_ids(service: &compose::Service, objects: &Objects) -> Object {
    let mut spec = service.spec.clone();
    let container = child(child(&mut spec, "TaskTemplate"), "ContainerSpec");
    for (list, id_key, name_key, known) in [
        ("Secrets", "SecretID", "SecretName", &objects.secrets),
        ("Configs", "ConfigID", "ConfigName", &objects.configs),
    ] {
        for entry in container.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = entry.get(name_key).and_then(Value::as_str).unwrap_or_default().to_owned();
            if let (Some((id, name)), Some(entry)) = (known.get(&name), entry.as_object_mut()) {
                put(entry, id_key, id.as_str());
                put(entry, name_key, name.as_str());
            }
        }
    }
    spec
}

pub async fn service(
    service: &compose::Service,
    old: Option<&Value>,
    objects: &Objects,
    stamp: &str,
    files: &Files,
    client: &Client,
    console: &mut Console,
) -> Result<Deployed, CliError> {
    let mut spec = with_ids(service, objects);
    let wanted = text(&Value::Object(spec.clone()), "/TaskTemplate/ContainerSpec/Image").to_owned();
    let auth = if files.with_registry_auth { image::stored_auth(&image::tagged(&wanted))? } else { None };
    pin(&mut spec, old, &wanted, files.resolve_image, client, console).await;
    let done = |id: &str, held: bool| Deployed {
        id: id.to_owned(),
        name: service.name.clone(),
        short: service.short.clone(),
        held,
    };
    let Some(old) = old else {
        put(child(&mut spec, "Labels"), STAMP, stamp);
        console.line(&format!("Creating service {}", service.name))?;
        let answer = client.post_with("/services/create", Some(&Value::Object(spec)), auth.as_deref()).await;
        let answer = answer.map_err(|error| refused(error, &service.short))?;
        let held = keys::tell_warnings(&answer, &service.short, console);
        return Ok(done(text(&answer, "/ID"), held));
    };
    let (id, old_spec) = (text(old, "/ID"), old.get("Spec").unwrap_or(&Value::Null));
    // `service update --force` counts here; a deploy isn't one.
    let forced = old_spec.pointer("/TaskTemplate/ForceUpdate").cloned().unwrap_or(json!(0));
    put(child(&mut spec, "TaskTemplate"), "ForceUpdate", forced);
    let networks = diff::network_names(client).await?;
    let changed = !diff::changes(old_spec, &Value::Object(spec.clone()), &networks).is_empty();
    if !changed && auth.is_none() {
        console.line(&format!("Unchanged service {}", service.name))?;
        return Ok(done(id, false));
    }
    let before = pairs(old_spec, "/Labels").into_iter().find(|(key, _)| *key == STAMP).map(|(_, stamp)| stamp);
    put(child(&mut spec, "Labels"), STAMP, if changed { stamp } else { before.unwrap_or(stamp) });
    console.line(&format!("Updating service {}", service.name))?;
    let version = index(old);
    let mut parameters = vec![("version", version.as_str())];
    if auth.is_none() {
        parameters.push(("registryAuthFrom", "spec"));
    }
    let to = with_query(&format!("{}/update", path(id)), &parameters);
    let answer = client.post_with(&to, Some(&Value::Object(spec)), auth.as_deref()).await;
    let answer = answer.map_err(|error| refused(error, &service.short))?;
    let held = keys::tell_warnings(&answer, &service.short, console);
    Ok(done(id, held))
}

/// The image's digest: of now, or as it was while the file names the same image.
async fn pin(
    spec: &mut Object,
    old: Option<&Value>,
    wanted: &str,
    resolve: Resolve,
    client: &Client,
    console: &mut Console,
) {
    let labels = old.map(|old| pairs(old, "/Spec/Labels")).unwrap_or_default();
    let same = labels.iter().any(|(key, image)| *key == IMAGE && *image == wanted);
    let was = old.map_or("", |old| text(old, "/Spec/TaskTemplate/ContainerSpec/Image"));
    let tagged = image::tagged(wanted);
    let container = child(child(spec, "TaskTemplate"), "ContainerSpec");
    match resolve {
        Resolve::Never => {}
        Resolve::Changed if same && !was.is_empty() => put(container, "Image", was),
        _ => {
            put(container, "Image", tagged.as_str());
            let stored = image::stored_auth(&tagged).ok().flatten();
            if let Err(warning) = image::pin(client, spec, stored.as_deref()).await {
                // Once an image, and not once a service.
                console.note_once(&warning);
            }
        }
    }
}
