//! Seals secrets: AES-256-GCM under a key derived from the cluster's own (its CA's, which every member has and nobody
//! else), bound to the secret's id. So a secret is ciphertext in every record, on every disk and on the wire, and
//! plain only in memory of a node that is about to start a container with it.
//!
//! A sealed secret is a version byte, the nonce, then ciphertext and tag.

use crate::ids::ObjectId;
use crate::model::container::{ContainerPlan, EngineOp};
use crate::model::object::{Content, ObjectKind};
use crate::model::spec::{target_path, template};
use crate::shell::identity::random::NoRandomness;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

const VERSION: u8 = 1;
const SALT: &[u8] = b"peer";
const PURPOSE: &[u8] = b"secrets at rest, version 1";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    #[error("sealed by another cluster's key, or damaged")]
    Broken,
    #[error("sealed in a way (version {0}) that this build doesn't know: upgrade peer on this node")]
    Newer(u8),
    #[error("the secret is longer than can be sealed")]
    TooLong,
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

pub struct Vault {
    key: LessSafeKey,
}

impl Vault {
    /// From the cluster's private key, in PEM.
    pub fn new(cluster_key_pem: &str) -> Self {
        // The text may have been rewrapped on its way; the key is what stands in it.
        let key: String = cluster_key_pem.split_whitespace().collect();
        let derived = Salt::new(HKDF_SHA256, SALT).extract(key.as_bytes());
        let derived = derived.expand(&[PURPOSE], &AES_256_GCM).map(UnboundKey::from);
        // It fails only for keys longer than 255 hashes; this one is one hash long.
        Self { key: LessSafeKey::new(derived.expect("a key of 32 bytes from HKDF-SHA256")) }
    }

    pub fn seal(&self, id: ObjectId, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| NoRandomness)?;
        let mut body = plain.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad(id), &mut body)
            .map_err(|_| VaultError::TooLong)?;
        Ok([&[VERSION], nonce.as_slice(), &body].concat())
    }

    pub fn open(&self, id: ObjectId, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        let (version, rest) = sealed.split_first().ok_or(VaultError::Broken)?;
        if *version != VERSION {
            return Err(VaultError::Newer(*version));
        }
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(VaultError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Broken)?;
        let mut body = body.to_vec();
        let plain = self.key.open_in_place(nonce, aad(id), &mut body).map_err(|_| VaultError::Broken)?.len();
        body.truncate(plain);
        Ok(body)
    }

    /// Opens what a container that is about to be created needs. What doesn't open stays sealed, and the engine refuses it.
    pub fn open_for(&self, op: &mut EngineOp) {
        let EngineOp::Create(plan) = op else { return };
        for planned in &mut plan.files {
            let Content::Sealed(sealed) = &planned.content else { continue };
            match self.open(planned.file.object, sealed) {
                Ok(plain) => planned.content = Content::Plain(plain),
                Err(error) => tracing::error!(secret = planned.file.name, %error, "a secret can't be opened"),
            }
        }
        fill_templates(plan);
    }
}

/// Those of its files that are templates, with the task's own; they may name its other files, as these were before.
fn fill_templates(plan: &mut ContainerPlan) {
    if !plan.files.iter().any(|planned| planned.is_template) {
        return;
    }
    let raw = plan.files.clone();
    let file = |kind: ObjectKind, name: &str| {
        let wanted = target_path(kind, name);
        let found = raw.iter().find(|planned| planned.file.kind == kind && planned.file.target == wanted);
        match found.map(|planned| &planned.content) {
            Some(Content::Plain(bytes)) => text_of(bytes).map(str::to_owned),
            Some(_) => Err(format!("{} {name} can't be had", kind.as_str())),
            None => Err(format!("the service has no {} with the target {name}", kind.as_str())),
        }
    };
    let variable = |name: &str| {
        let mut pairs = plan.env.iter().filter_map(|env| env.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let lookup = |kind: &str, name: &str| match kind {
        "secret" => file(ObjectKind::Secret, name),
        "config" => file(ObjectKind::Config, name),
        _ => Ok(variable(name)),
    };
    for planned in plan.files.iter_mut().filter(|planned| planned.is_template) {
        let Content::Plain(bytes) = &planned.content else { continue };
        let filled = text_of(bytes).and_then(|text| template::expand_content(text, &plan.context, &lookup));
        planned.content = match filled {
            Ok(text) => Content::Plain(text.into_bytes()),
            Err(why) => Content::Unfilled(why),
        };
        planned.is_template = false;
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "it is no text (UTF-8)".to_owned())
}

fn aad(id: ObjectId) -> Aad<[u8; 16]> {
    Aad::from(id.as_u128().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeId, ServiceId, TaskId};
    use crate::model::object::{FileRef, PlannedFile};
    use crate::model::spec::parse;
    use crate::model::spec::template::TemplateContext;
    use crate::model::task::Slot;
    use std::sync::Arc;

    const ID: ObjectId = ObjectId::from_u128(7);

    #[test]
    fn what_is_sealed_opens_only_with_its_key_and_under_its_id() {
        let vault = Vault::new("KEY");
        let sealed = vault.seal(ID, b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(vault.open(ID, &sealed).unwrap(), b"hunter2");
        assert_eq!(Vault::new(" KE\nY\n").open(ID, &sealed).unwrap(), b"hunter2", "rewrapped text is the same key");
        assert_eq!(Vault::new("OTHER").open(ID, &sealed), Err(VaultError::Broken));
        assert_eq!(vault.open(ObjectId::from_u128(8), &sealed), Err(VaultError::Broken));
        assert_ne!(vault.seal(ID, b"hunter2").unwrap(), sealed, "each time under another nonce");
    }

    fn plan(files: Vec<PlannedFile>) -> ContainerPlan {
        let (service, task) = (ServiceId::from_u128(1), TaskId::from_u128(2));
        let spec = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"a"}}}"#;
        ContainerPlan {
            name: "web.3.x".to_owned(),
            service,
            task,
            attempt: 0,
            labels: Default::default(),
            spec: Arc::new(parse(spec).unwrap().task),
            hostname: None,
            env: vec!["LEVEL=debug".to_owned()],
            host_ports: Vec::new(),
            files,
            networks: Vec::new(),
            context: TemplateContext {
                service_id: service,
                service_name: "web".to_owned(),
                service_labels: Default::default(),
                node_id: NodeId::from_u128(9),
                node_hostname: "n1".to_owned(),
                node_os: "linux".to_owned(),
                node_arch: "x86_64".to_owned(),
                task_id: task,
                task_name: "web.3.x".to_owned(),
                slot: Slot::Replica(3),
            },
        }
    }

    fn file(kind: ObjectKind, id: u128, target: &str, content: Content, is_template: bool) -> PlannedFile {
        let (object, target) = (ObjectId::from_u128(id), target.to_owned());
        let file = FileRef { kind, object, name: "x".to_owned(), target, uid: 0, gid: 0, mode: 0o444 };
        PlannedFile { file, content, is_template }
    }

    #[test]
    fn templates_are_filled_in_behind_the_seal_and_may_name_the_tasks_other_files() {
        let vault = Vault::new("KEY");
        let sealed =
            |id: u128, text: &str| Content::Sealed(vault.seal(ObjectId::from_u128(id), text.as_bytes()).unwrap());
        let plain = |text: &str| Content::Plain(text.as_bytes().to_vec());
        let config = r#"{{.Service.Name}}.{{.Task.Slot}}@{{.Node.Hostname}} {{env "LEVEL"}} {{secret "token"}} {{config "/etc/raw"}}"#;
        let mut op = EngineOp::Create(Box::new(plan(vec![
            file(ObjectKind::Secret, 1, "/run/secrets/token", sealed(1, "hush"), false),
            file(ObjectKind::Secret, 2, "/run/secrets/url", sealed(2, r#"pg://{{secret "token"}}@db"#), true),
            file(ObjectKind::Config, 3, "/etc/app", plain(config), true),
            file(ObjectKind::Config, 4, "/etc/raw", plain("{{.Not.Touched}}"), false),
            file(ObjectKind::Config, 5, "/etc/bad", plain(r#"{{secret "other"}}"#), true),
        ])));
        vault.open_for(&mut op);
        let EngineOp::Create(plan) = op else { unreachable!() };
        let contents: Vec<Content> = plan.files.into_iter().map(|file| file.content).collect();
        assert_eq!(
            contents,
            [
                plain("hush"),
                plain("pg://hush@db"),
                plain("web.3@n1 debug hush {{.Not.Touched}}"),
                plain("{{.Not.Touched}}"),
                Content::Unfilled("secret: the service has no secret with the target other".to_owned()),
            ]
        );
    }

    #[test]
    fn damage_and_newer_versions_are_told_apart() {
        let vault = Vault::new("KEY");
        let sealed = vault.seal(ID, b"").unwrap();
        assert_eq!(vault.open(ID, &sealed).unwrap(), b"");
        for cut in 0..sealed.len() {
            assert_eq!(vault.open(ID, &sealed[..cut]), Err(VaultError::Broken), "cut to {cut}");
        }
        let newer = [&[2], &sealed[1..]].concat();
        assert_eq!(vault.open(ID, &newer), Err(VaultError::Newer(2)));
    }
}
