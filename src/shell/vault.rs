//! Seals secrets: AES-256-GCM under a key derived from the cluster's own (its CA's, which every member has and nobody
//! else), bound to the secret's id. So a secret is ciphertext in every record, on every disk and on the wire, and
//! plain only in memory of a node that is about to start a container with it.
//!
//! A sealed secret is a version byte, the nonce, then ciphertext and tag.

use crate::ids::ObjectId;
use crate::model::container::EngineOp;
use crate::model::object::Content;
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
    }
}

fn aad(id: ObjectId) -> Aad<[u8; 16]> {
    Aad::from(id.as_u128().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

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
