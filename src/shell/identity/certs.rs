//! Certificates: the cluster's CA and one leaf per node, all ed25519. A node's whole identity stands in one DNS
//! name of its leaf, `<node>.<cluster>.peer.internal`, and is read from nowhere else.

use super::random::{self, NoRandomness};
use crate::ids::{ClusterId, NodeId};
use crate::time::Wall;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use std::time::Duration;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const NODE_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Certificates begin this much before they are made, for the sake of members whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// About the year 8000: no honest clock shows it, and the arithmetic on dates ends not far beyond.
const LATEST_S: u64 = 190_000_000_000;
const DOMAIN: &str = "peer.internal";
/// Clients of the API, and what a node shows them.
const CLIENT_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const MAX_CLIENT_NAME: usize = 40;

const _: () = assert!(BACKDATE.as_secs() >= crate::limits::MAX_CLOCK_DRIFT.as_secs());
const _: () = assert!(NODE_LIFE.as_secs() > 4 * DAY.as_secs() && CA_LIFE.as_secs() > NODE_LIFE.as_secs());

#[derive(Debug, thiserror::Error)]
pub enum CertError {
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("not a certificate we can read: {0}")]
    Parse(String),
    #[error("the certificate names no node of a cluster")]
    NoName,
}

/// Who a certificate says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeName {
    pub node: NodeId,
    pub cluster: ClusterId,
}

/// From and until when, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub from_s: i64,
    pub until_s: i64,
}

/// The CA's certificate and key, as PEM.
pub struct NewCa {
    pub cert_pem: String,
    pub key_pem: String,
}

impl NodeName {
    /// The name in the certificate, and what a dialer asks for.
    pub fn dns(&self) -> String {
        format!("{}.{}.{DOMAIN}", self.node, self.cluster)
    }

    pub fn parse(dns: &str) -> Option<Self> {
        let (node, rest) = dns.split_once('.')?;
        let (cluster, domain) = rest.split_once('.')?;
        if domain != DOMAIN {
            return None;
        }
        Some(Self { node: node.parse().ok()?, cluster: cluster.parse().ok()? })
    }

    /// Exactly one alternative name, and it is ours.
    pub fn of(cert: &CertificateDer<'_>) -> Result<Self, CertError> {
        let cert = parse(cert)?;
        let names = cert.subject_alternative_name().ok().flatten().ok_or(CertError::NoName)?;
        match names.value.general_names.as_slice() {
            [GeneralName::DNSName(dns)] => Self::parse(dns).ok_or(CertError::NoName),
            _ => Err(CertError::NoName),
        }
    }
}

/// Whom a client's certificate proves. A revocation raises the generation that is wanted of a name, so that older
/// certificates end and later ones don't, whatever the clocks say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientName {
    pub name: String,
    pub generation: u64,
    pub cluster: ClusterId,
}

impl ClientName {
    /// What may stand in a certificate: lower case letters, digits and hyphens.
    pub fn is_fit(name: &str) -> bool {
        let fits = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        fits && !name.is_empty() && name.len() <= MAX_CLIENT_NAME && !name.starts_with('-') && !name.ends_with('-')
    }

    /// Never a node's name: that has two parts before the domain.
    pub fn dns(&self) -> String {
        format!("g{}.{}.client.{}.{DOMAIN}", self.generation, self.name, self.cluster)
    }

    pub fn parse(dns: &str) -> Option<Self> {
        let (generation, rest) = dns.strip_prefix('g')?.split_once('.')?;
        let (name, rest) = rest.split_once('.')?;
        let (cluster, domain) = rest.strip_prefix("client.")?.split_once('.')?;
        if domain != DOMAIN || !Self::is_fit(name) {
            return None;
        }
        Some(Self { name: name.to_owned(), generation: generation.parse().ok()?, cluster: cluster.parse().ok()? })
    }

    pub fn of(cert: &CertificateDer<'_>) -> Result<Self, CertError> {
        let cert = parse(cert)?;
        let names = cert.subject_alternative_name().ok().flatten().ok_or(CertError::NoName)?;
        match names.value.general_names.as_slice() {
            [GeneralName::DNSName(dns)] => Self::parse(dns).ok_or(CertError::NoName),
            _ => Err(CertError::NoName),
        }
    }
}

impl Validity {
    pub fn of(cert: &CertificateDer<'_>) -> Result<Self, CertError> {
        let cert = parse(cert)?;
        let validity = cert.validity();
        Ok(Self { from_s: validity.not_before.timestamp(), until_s: validity.not_after.timestamp() })
    }

    /// Past the half of its life, and so due to be replaced.
    pub fn is_half_over(&self, now: Wall) -> bool {
        let half_s = self.from_s.saturating_add(self.until_s.saturating_sub(self.from_s) / 2);
        seconds(now) >= half_s
    }
}

fn parse<'a>(cert: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertError> {
    match X509Certificate::from_der(cert) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(CertError::Parse("bytes after its end".to_owned())),
        Err(e) => Err(CertError::Parse(e.to_string())),
    }
}

/// The id of the node whose key this is (SubjectPublicKeyInfo). Every member holds the CA's key and can make a certificate over
/// any key; under another node's id it would need that node's.
pub fn node_of_key(public: &[u8]) -> NodeId {
    NodeId::from_u128(short_digest("peer node", public))
}

/// The id of the cluster whose CA has this key. Those founded before ids were made of keys have another.
pub fn cluster_of_key(ca_public: &[u8]) -> ClusterId {
    ClusterId::from_u128(short_digest("peer cluster", ca_public))
}

/// The first 128 bits of a SHA-256: too many to find a second key for.
fn short_digest(purpose: &str, public: &[u8]) -> u128 {
    let digest = ring::digest::digest(&ring::digest::SHA256, &[purpose.as_bytes(), b"\n", public].concat());
    digest.as_ref().iter().take(16).fold(0, |value, byte| value << 8 | u128::from(*byte))
}

/// The public key inside, as SubjectPublicKeyInfo.
pub fn public_key(cert: &CertificateDer<'_>) -> Result<Vec<u8>, CertError> {
    Ok(parse(cert)?.public_key().raw.to_vec())
}

pub fn new_key() -> Result<KeyPair, CertError> {
    Ok(KeyPair::generate_for(&PKCS_ED25519)?)
}

pub fn new_ca(cluster: ClusterId, key: &KeyPair, now: Wall) -> Result<NewCa, CertError> {
    let mut params = base(&format!("peer cluster {cluster}"), CA_LIFE, now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let cert = params.self_signed(key)?;
    Ok(NewCa { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// A node's certificate over `public`, as PEM.
pub fn issue(
    name: NodeName,
    public: &impl PublicKeyData,
    ca: &Issuer<'_, KeyPair>,
    now: Wall,
) -> Result<String, CertError> {
    let params = base(&format!("peer node {}", name.node), NODE_LIFE, now)?;
    leaf(
        params,
        vec![name.dns()],
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        public,
        ca,
    )
}

/// A client's certificate, as PEM.
pub fn issue_client(
    name: &ClientName,
    public: &impl PublicKeyData,
    ca: &Issuer<'_, KeyPair>,
    now: Wall,
) -> Result<String, CertError> {
    let params = base(&format!("peer client {}", name.name), CLIENT_LIFE, now)?;
    leaf(params, vec![name.dns()], vec![ExtendedKeyUsagePurpose::ClientAuth], public, ca)
}

/// What a node shows to clients that reach it under one of these names or addresses, as PEM.
pub fn issue_server(
    names: Vec<String>,
    public: &impl PublicKeyData,
    ca: &Issuer<'_, KeyPair>,
    now: Wall,
) -> Result<String, CertError> {
    let params = base("peer API", CLIENT_LIFE, now)?;
    leaf(params, names, vec![ExtendedKeyUsagePurpose::ServerAuth], public, ca)
}

/// Signs a certificate that is no CA's, for these names and uses; as PEM.
fn leaf(
    mut params: CertificateParams,
    names: Vec<String>,
    uses: Vec<ExtendedKeyUsagePurpose>,
    public: &impl PublicKeyData,
    ca: &Issuer<'_, KeyPair>,
) -> Result<String, CertError> {
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = uses;
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(public, ca)?.pem())
}

/// Proves that whoever asks holds the key. What the request says beyond the key is ignored by [`requested_key`].
pub fn request(name: NodeName, key: &KeyPair) -> Result<Vec<u8>, CertError> {
    let request = CertificateParams::new(vec![name.dns()])?.serialize_request(key)?;
    Ok(request.der().to_vec())
}

/// The key of a request, once its signature was checked.
pub fn requested_key(request_der: &[u8]) -> Result<rcgen::PublicKey, CertError> {
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request_der))?;
    Ok(request.public_key)
}

fn base(common_name: &str, life: Duration, now: Wall) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // Whole seconds: certificates know no smaller unit, and no year beyond 9999.
    let now = Duration::from_secs((now.0 / 1_000).min(LATEST_S));
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + (now + life);
    let mut serial = random::bytes::<16>()?;
    // Serial numbers are positive and not zero.
    serial[0] = serial[0] & 0x7f | 0x01;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn seconds(wall: Wall) -> i64 {
    i64::try_from(wall.0 / 1_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_and_strangers_have_none() {
        let name = NodeName { node: NodeId::from_u128(5), cluster: ClusterId::from_u128(u128::MAX) };
        assert_eq!(NodeName::parse(&name.dns()), Some(name));
        for dns in ["", "peer.internal", "a.b.peer.internal", "example.org", &format!("x.{}", name.dns())] {
            assert_eq!(NodeName::parse(dns), None, "{dns}");
        }
    }

    #[test]
    fn half_a_life_is_when_to_renew() {
        let validity = Validity { from_s: 100, until_s: 300 };
        assert!(!validity.is_half_over(Wall(199_999)));
        assert!(validity.is_half_over(Wall(200_000)));
        assert!(!validity.is_half_over(Wall(0)));
    }

    #[test]
    fn garbage_is_no_request_and_no_certificate() {
        assert!(requested_key(b"").is_err());
        assert!(requested_key(&[0x30; 200]).is_err());
        assert!(NodeName::of(&CertificateDer::from(vec![0x30, 3, 1, 2, 3])).is_err());
    }

    proptest::proptest! {
        #[test]
        fn bytes_of_a_stranger_never_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
            at in 0usize..300,
        ) {
            let _ = requested_key(&bytes);
            let _ = NodeName::of(&CertificateDer::from(bytes.as_slice()));
            let name = NodeName { node: NodeId::from_u128(1), cluster: ClusterId::from_u128(2) };
            let mut request = request(name, &new_key().unwrap()).unwrap();
            let at = at % request.len();
            request.splice(at.., bytes);
            let _ = requested_key(&request);
        }
    }

    #[test]
    fn a_request_with_another_key_spliced_in_is_refused() {
        let name = NodeName { node: NodeId::from_u128(1), cluster: ClusterId::from_u128(2) };
        let mut der = request(name, &new_key().unwrap()).unwrap();
        assert!(requested_key(&der).is_ok());
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(requested_key(&der).is_err());
    }

    #[test]
    fn a_clients_name_is_never_a_nodes_and_comes_back_whole() {
        let name = ClientName { name: "ann-2".into(), generation: 3, cluster: ClusterId::from_u128(7) };
        assert_eq!(ClientName::parse(&name.dns()), Some(name.clone()));
        assert_eq!(NodeName::parse(&name.dns()), None);
        let node = NodeName { node: NodeId::from_u128(1), cluster: ClusterId::from_u128(7) };
        assert_eq!(ClientName::parse(&node.dns()), None);
        for bad in ["", "a.b", "A", "-a", "a-", "a_b", &"x".repeat(41)] {
            assert!(!ClientName::is_fit(bad), "{bad}");
        }
    }
}
