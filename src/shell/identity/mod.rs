//! Who this node is: its cluster, its id, the cluster's CA and its own certificate; and the join token.
//!
//! Every member holds the CA's key, since any node can admit others and members trust each other. So that none of them can
//! speak in another's name all the same, a node's id is made of its key, and the cluster's of its CA's key; a cluster that
//! was founded before this was so has another id, and there ids are held against nothing. Keys never
//! appear in `Debug` or in errors. What of this lies on disk, and how, is [`data_dir`]'s affair.

pub mod certs;
pub mod data_dir;
pub mod random;
pub mod token;

pub use certs::{CertError, ClientName, NodeName};
pub use data_dir::{DataDir, DataDirError};
pub use token::{BadToken, Token};

use crate::ids::{ClusterId, NodeId};
use crate::time::Wall;
use certs::Validity;
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::fmt;
use std::time::Duration;
use token::CaDigest;

/// Complete and consistent by construction: the certificate is signed by the CA, carries these ids, fits the key.
#[derive(Clone)]
pub struct Identity {
    name: NodeName,
    created: Wall,
    ca: CertificateDer<'static>,
    cert: CertificateDer<'static>,
    pem: Pem,
}

/// The four files, as they stand on disk and travel in the answer to a join.
#[derive(Clone)]
pub struct Pem {
    pub ca: String,
    pub ca_key: String,
    pub cert: String,
    pub key: String,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Cert(#[from] CertError),
    /// Which of the four parts, and what is wrong with it.
    #[error("the {part} {why}")]
    Part { part: Part, why: String },
    #[error("the node id asked for is not made of the node's key: upgrade peer on that machine")]
    NotOfItsKey,
}

/// One of the four parts of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Ca,
    CaKey,
    Cert,
    Key,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Ca => "CA certificate",
            Part::CaKey => "CA key",
            Part::Cert => "node certificate",
            Part::Key => "node key",
        })
    }
}

impl Identity {
    /// A new cluster and its first node.
    pub fn found(now: Wall) -> Result<Self, IdentityError> {
        let (ca_key, key) = (certs::new_key()?, certs::new_key()?);
        let name = NodeName {
            node: certs::node_of_key(&key.subject_public_key_info()),
            cluster: certs::cluster_of_key(&ca_key.subject_public_key_info()),
        };
        let ca = certs::new_ca(name.cluster, &ca_key, now)?;
        let cert = certs::issue(name, &key, &issuer(&ca.cert_pem, &ca.key_pem)?, now)?;
        Self::assemble(name, now, Pem { ca: ca.cert_pem, ca_key: ca.key_pem, cert, key: key.serialize_pem() })
    }

    /// Checks that the parts belong together and to `name`. Whether the certificate has expired is not looked at:
    /// a node that was off for long renews its own.
    pub fn assemble(name: NodeName, created: Wall, pem: Pem) -> Result<Self, IdentityError> {
        let ca = read_cert(Part::Ca, &pem.ca)?;
        let cert = read_cert(Part::Cert, &pem.cert)?;
        check_key(Part::CaKey, &pem.ca_key, &ca)?;
        check_key(Part::Key, &pem.key, &cert)?;
        check_signed(&cert, &ca)?;
        let found = NodeName::of(&cert).map_err(|e| wrong(Part::Cert, format!("is not a member's: {e}")))?;
        if found != name {
            return Err(wrong(Part::Cert, format!("is of {}, not of {}", found.dns(), name.dns())));
        }
        let identity = Self { name, created, ca, cert, pem };
        if !identity.is_of_its_key(name.node, &certs::public_key(&identity.cert)?) {
            return Err(wrong(Part::Cert, "carries an id that is not made of its key".to_owned()));
        }
        Ok(identity)
    }

    /// The same node with a fresh certificate, when more than half of the old one's life is over.
    pub fn renewed(&self, now: Wall) -> Result<Option<Self>, IdentityError> {
        if !Validity::of(&self.cert)?.is_half_over(now) {
            return Ok(None);
        }
        let cert = self.issue_for(self.name.node, &self.key_pair()?, now)?;
        Self::assemble(self.name, self.created, Pem { cert, ..self.pem.clone() }).map(Some)
    }

    /// A certificate of this cluster for `node` over the key in its request.
    pub fn admit(&self, node: NodeId, request_der: &[u8], now: Wall) -> Result<String, IdentityError> {
        let key = certs::requested_key(request_der)?;
        if !self.is_of_its_key(node, &key.subject_public_key_info()) {
            return Err(IdentityError::NotOfItsKey);
        }
        self.issue_for(node, &key, now)
    }

    /// A new key, and a certificate with which its holder may use the API: both as PEM.
    pub fn issue_client(&self, name: &str, generation: u64, now: Wall) -> Result<(String, String), IdentityError> {
        let name = ClientName { name: name.to_owned(), generation, cluster: self.name.cluster };
        let key = certs::new_key()?;
        let cert = certs::issue_client(&name, &key, &issuer(&self.pem.ca, &self.pem.ca_key)?, now)?;
        Ok((cert, key.serialize_pem()))
    }

    /// What this node shows to the API's clients: a certificate for these names, the CA's, and the key.
    pub fn api_server(
        &self,
        names: Vec<String>,
        now: Wall,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IdentityError> {
        let key = certs::new_key()?;
        let cert = certs::issue_server(names, &key, &issuer(&self.pem.ca, &self.pem.ca_key)?, now)?;
        let chain = vec![read_cert(Part::Cert, &cert)?, self.ca.clone()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())
            .map_err(|e| wrong(Part::Key, format!("can't be read: {e}")))?;
        Ok((chain, key))
    }

    fn issue_for(&self, node: NodeId, key: &impl PublicKeyData, now: Wall) -> Result<String, IdentityError> {
        let name = NodeName { node, cluster: self.name.cluster };
        Ok(certs::issue(name, key, &issuer(&self.pem.ca, &self.pem.ca_key)?, now)?)
    }

    /// Whether a node of this id may have this key.
    fn is_of_its_key(&self, node: NodeId, public: &[u8]) -> bool {
        !self.binds_ids() || certs::node_of_key(public) == node
    }

    /// Whether in this cluster the nodes' ids are made of their keys.
    pub fn binds_ids(&self) -> bool {
        certs::public_key(&self.ca).is_ok_and(|key| certs::cluster_of_key(&key) == self.name.cluster)
    }

    pub fn node(&self) -> NodeId {
        self.name.node
    }

    pub fn cluster(&self) -> ClusterId {
        self.name.cluster
    }

    pub fn name(&self) -> NodeName {
        self.name
    }

    pub fn created(&self) -> Wall {
        self.created
    }

    /// Contains private keys.
    pub fn pem(&self) -> &Pem {
        &self.pem
    }

    pub fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    /// What this node shows of itself: its certificate and the CA's, which a joiner holds against its token.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.cert.clone(), self.ca.clone()]
    }

    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.pem.key.as_bytes())
            .map_err(|e| wrong(Part::Key, format!("can't be read: {e}")))
    }

    pub fn ca_digest(&self) -> CaDigest {
        digest(&self.ca)
    }

    /// The token that admits to this cluster with this secret.
    pub fn token(&self, secret: &str) -> Result<Token, BadToken> {
        Token::new(self.ca_digest(), secret)
    }

    fn key_pair(&self) -> Result<KeyPair, IdentityError> {
        read_key(Part::Key, &self.pem.key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(…)")
    }
}

/// SHA-256 of a certificate, as the token carries it.
pub fn digest(cert: &CertificateDer<'_>) -> CaDigest {
    let digest = ring::digest::digest(&ring::digest::SHA256, cert);
    let mut out = [0; 32];
    // SHA-256 has exactly 32 bytes.
    out.copy_from_slice(digest.as_ref());
    out
}

fn wrong(part: Part, why: String) -> IdentityError {
    IdentityError::Part { part, why }
}

fn issuer(ca_pem: &str, ca_key_pem: &str) -> Result<Issuer<'static, KeyPair>, IdentityError> {
    let key = read_key(Part::CaKey, ca_key_pem)?;
    Issuer::from_ca_cert_pem(ca_pem, key).map_err(|e| wrong(Part::Ca, format!("can't issue certificates: {e}")))
}

fn read_cert(part: Part, pem: &str) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| wrong(part, format!("can't be read: {e}")))
}

fn read_key(part: Part, pem: &str) -> Result<KeyPair, IdentityError> {
    KeyPair::from_pem(pem).map_err(|e| wrong(part, format!("can't be read: {e}")))
}

fn check_key(part: Part, key_pem: &str, cert: &CertificateDer<'_>) -> Result<(), IdentityError> {
    let key = read_key(part, key_pem)?;
    if key.subject_public_key_info() != certs::public_key(cert)? {
        return Err(wrong(part, "does not fit its certificate".to_owned()));
    }
    Ok(())
}

/// As of the instant at which the certificate began.
fn check_signed(cert: &CertificateDer<'_>, ca: &CertificateDer<'_>) -> Result<(), IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(|e| wrong(Part::Ca, format!("is no CA: {e}")))?;
    let parsed = ParsedCertificate::try_from(cert).map_err(|e| wrong(Part::Cert, format!("can't be read: {e}")))?;
    let from_s = u64::try_from(Validity::of(cert)?.from_s).unwrap_or(0);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(from_s));
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], at, algorithms.all)
        .map_err(|e| wrong(Part::Cert, format!("is not signed by this cluster's CA: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_780_000_000_000);
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

    fn node_of(key: &KeyPair) -> NodeId {
        certs::node_of_key(&key.subject_public_key_info())
    }

    /// As clusters were before ids were made of keys.
    fn old_founder(node: NodeId) -> Identity {
        let name = NodeName { node, cluster: ClusterId::from_u128(7) };
        let (ca_key, key) = (certs::new_key().unwrap(), certs::new_key().unwrap());
        let ca = certs::new_ca(name.cluster, &ca_key, NOW).unwrap();
        let cert = certs::issue(name, &key, &issuer(&ca.cert_pem, &ca.key_pem).unwrap(), NOW).unwrap();
        let pem = Pem { ca: ca.cert_pem, ca_key: ca.key_pem, cert, key: key.serialize_pem() };
        Identity::assemble(name, NOW, pem).unwrap()
    }

    #[test]
    fn an_id_is_made_of_its_key_and_nobody_is_admitted_under_another() {
        let founder = Identity::found(NOW).unwrap();
        assert_eq!(node_of(&founder.key_pair().unwrap()), founder.node());
        assert_eq!(founder.renewed(Wall(NOW.0 + 300 * DAY_MS)).unwrap().expect("due").node(), founder.node());
        let key = certs::new_key().unwrap();
        let name = NodeName { node: founder.node(), cluster: founder.cluster() };
        let refused = founder.admit(founder.node(), &certs::request(name, &key).unwrap(), NOW).unwrap_err();
        assert!(refused.to_string().contains("upgrade peer"), "{refused}");
        // With the CA's key such a certificate can be made all the same: it is no identity.
        let cert = certs::issue(name, &key, &issuer(&founder.pem.ca, &founder.pem.ca_key).unwrap(), NOW).unwrap();
        let pem = Pem { cert, key: key.serialize_pem(), ..founder.pem().clone() };
        let error = Identity::assemble(name, NOW, pem).unwrap_err();
        assert!(error.to_string().contains("not made of its key"), "{error}");
    }

    #[test]
    fn a_cluster_of_the_time_before_goes_on_with_ids_that_were_drawn() {
        let founder = old_founder(NodeId::from_u128(5));
        let key = certs::new_key().unwrap();
        for node in [NodeId::from_u128(9), node_of(&key)] {
            let name = NodeName { node, cluster: founder.cluster() };
            let cert = founder.admit(node, &certs::request(name, &key).unwrap(), NOW).unwrap();
            let pem = Pem { cert, key: key.serialize_pem(), ..founder.pem().clone() };
            assert_eq!(Identity::assemble(name, NOW, pem).unwrap().node(), node);
        }
    }

    #[test]
    fn a_founder_admits_a_joiner_who_ends_up_in_the_same_cluster() {
        let founder = Identity::found(NOW).unwrap();
        let key = certs::new_key().unwrap();
        let name = NodeName { node: node_of(&key), cluster: founder.cluster() };
        let cert = founder.admit(name.node, &certs::request(name, &key).unwrap(), NOW).unwrap();
        let pem = Pem { cert, key: key.serialize_pem(), ..founder.pem().clone() };
        let joiner = Identity::assemble(name, NOW, pem).unwrap();
        assert_eq!(joiner.cluster(), founder.cluster());
        assert_eq!(joiner.ca_digest(), founder.ca_digest());
        // And can admit in turn.
        let key = certs::new_key().unwrap();
        let third = NodeName { node: node_of(&key), cluster: founder.cluster() };
        joiner.admit(third.node, &certs::request(third, &key).unwrap(), NOW).unwrap();
    }

    #[test]
    fn parts_that_do_not_belong_together_are_named() {
        let ours = Identity::found(NOW).unwrap();
        let theirs = Identity::found(NOW).unwrap();
        let part_of = |pem: Pem, name: NodeName| match Identity::assemble(name, NOW, pem) {
            Err(IdentityError::Part { part, .. }) => part,
            other => panic!("{other:?}"),
        };
        let mine = || ours.pem().clone();
        assert_eq!(part_of(Pem { key: theirs.pem().key.clone(), ..mine() }, ours.name()), Part::Key);
        assert_eq!(part_of(Pem { ca_key: theirs.pem().ca_key.clone(), ..mine() }, ours.name()), Part::CaKey);
        assert_eq!(part_of(Pem { cert: "rubbish".to_owned(), ..mine() }, ours.name()), Part::Cert);
        assert_eq!(part_of(mine(), theirs.name()), Part::Cert);
        let foreign_ca = Pem { ca: theirs.pem().ca.clone(), ca_key: theirs.pem().ca_key.clone(), ..mine() };
        assert_eq!(part_of(foreign_ca, ours.name()), Part::Cert);
    }

    #[test]
    fn a_certificate_renews_itself_at_half_time_and_after_expiry() {
        let young = Identity::found(NOW).unwrap();
        assert!(young.renewed(NOW).unwrap().is_none());
        assert!(young.renewed(Wall(NOW.0 + 170 * DAY_MS)).unwrap().is_none());
        for days in [190, 1_000] {
            let later = Wall(NOW.0 + days * DAY_MS);
            let renewed = young.renewed(later).unwrap().expect("due");
            assert_eq!(renewed.name(), young.name());
            assert_ne!(renewed.chain()[0], young.chain()[0]);
            assert!(renewed.renewed(later).unwrap().is_none());
        }
    }

    #[test]
    fn nothing_private_shows_in_debug() {
        let identity = Identity::found(NOW).unwrap();
        let shown = format!("{identity:?} {:?}", identity.pem());
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}
