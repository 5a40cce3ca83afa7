//! TLS for both ways in: members (`peer/1`, both sides proven) and joiners (`peer-join/1`, only the server proven, by
//! the CA digest in the token). One server configuration serves both, so a client certificate is optional here and
//! demanded by [`super::accept`] once the protocol is known. Session resumption is off: it would skip the verifiers,
//! and with them the ban list. The crypto provider is passed in, never installed globally.

use crate::ids::NodeId;
use crate::shell::identity::certs::{self, NodeName};
use crate::shell::identity::token::CaDigest;
use crate::shell::identity::{self, CertError, Identity, IdentityError};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

pub const ALPN_MEMBER: &[u8] = b"peer/1";
pub const ALPN_JOIN: &[u8] = b"peer-join/1";

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("tls: {0}")]
    Verifier(#[from] VerifierBuilderError),
    #[error("tls: {0}")]
    Quic(#[from] NoInitialCipherSuite),
}

/// Nodes that count as members no more, whatever their certificates say.
#[derive(Debug, Clone, Default)]
pub struct BanList(Arc<RwLock<BTreeSet<NodeId>>>);

impl BanList {
    pub fn add(&self, nodes: &BTreeSet<NodeId>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).extend(nodes);
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }
}

/// Whom a certificate of a live connection proves.
pub fn proven_node(conn: &quinn::Connection) -> Option<NodeId> {
    let chain = conn.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    NodeName::of(chain.first()?).ok().map(|name| name.node)
}

pub fn server(identity: &Identity, banned: &BanList) -> Result<QuicServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity.ca())?), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let verifier = MemberClients { chain, rules: Rules::new(identity, banned) };
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain(), identity.private_key()?)?;
    tls.alpn_protocols = vec![ALPN_MEMBER.to_vec(), ALPN_JOIN.to_vec()];
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.max_early_data_size = 0;
    Ok(QuicServerConfig::try_from(tls)?)
}

/// For dialing members. The name given to `connect` says which node must answer.
pub fn client(identity: &Identity, banned: &BanList) -> Result<QuicClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        MemberServers { roots: roots(identity.ca())?, rules: Rules::new(identity, banned), provider: provider.clone() };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.chain(), identity.private_key()?)?;
    tls.alpn_protocols = vec![ALPN_MEMBER.to_vec()];
    tls.resumption = Resumption::disabled();
    Ok(QuicClientConfig::try_from(tls)?)
}

/// For one join: trusts the CA with this digest, which the server shows, and nobody else.
pub fn joiner(ca: CaDigest) -> Result<QuicClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCa { ca, provider }))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    tls.resumption = Resumption::disabled();
    Ok(QuicClientConfig::try_from(tls)?)
}

/// What a joiner's verifier says of a server whose CA isn't the token's; read back from the connection's error.
pub const WRONG_CA: &str = "the CA does not match the token";
/// What a dialer's verifier says of a server that is another node than the one asked for.
pub const WRONG_NODE: &str = "another node answers there";
/// Of a certificate under an id that is made of another key: only a member can have made it.
const NOT_ITS_KEY: &str = "a certificate under the id of another node's key";

fn roots(ca: &CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(roots)
}

/// Beyond the chain: of our cluster, under the id of its own key, and not banned.
#[derive(Debug)]
struct Rules {
    us: NodeName,
    binds_ids: bool,
    banned: BanList,
}

impl Rules {
    fn new(identity: &Identity, banned: &BanList) -> Self {
        Self { us: identity.name(), binds_ids: identity.binds_ids(), banned: banned.clone() }
    }

    fn check(&self, cert: &CertificateDer<'_>) -> Result<NodeName, rustls::Error> {
        let name = NodeName::of(cert).map_err(|e| match e {
            CertError::NoName => CertificateError::ApplicationVerificationFailure,
            _ => CertificateError::BadEncoding,
        })?;
        if name.cluster != self.us.cluster {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let key = certs::public_key(cert).map_err(|_| CertificateError::BadEncoding)?;
        if self.binds_ids && certs::node_of_key(&key) != name.node {
            return Err(rustls::Error::General(format!("{NOT_ITS_KEY}: {}", name.node)));
        }
        if self.banned.contains(name.node) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(name)
    }
}

#[derive(Debug)]
struct MemberClients {
    chain: Arc<dyn ClientCertVerifier>,
    rules: Rules,
}

impl ClientCertVerifier for MemberClients {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.rules.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct MemberServers {
    roots: RootCertStore,
    rules: Rules,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for MemberServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_chain(end_entity, &self.roots, intermediates, now, &self.provider)?;
        let name = self.rules.check(end_entity)?;
        if NodeName::parse(&server_name.to_str()) != Some(name) {
            return Err(rustls::Error::General(format!("{WRONG_NODE}: {}", name.node)));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct PinnedCa {
    ca: CaDigest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|cert| identity::digest(cert) == self.ca)
            .ok_or_else(|| rustls::Error::General(WRONG_CA.to_owned()))?;
        verify_chain(end_entity, &roots(&ca.clone().into_owned())?, &[], now, &self.provider)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn verify_chain(
    end_entity: &CertificateDer<'_>,
    roots: &RootCertStore,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), rustls::Error> {
    let cert = ParsedCertificate::try_from(end_entity)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&cert, roots, intermediates, now, algorithms)
}

fn no_tls12() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken here".to_owned())
}
