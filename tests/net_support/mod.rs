//! Nodes on loopback with real QUIC, and a client that keeps to no rules.
#![allow(dead_code)]

use peer::ids::{ClusterId, NodeId};
use peer::shell::clock::wall;
use peer::shell::identity::{Identity, NodeName, Pem, certs};
use peer::shell::net::{JoinRefusal, JoinService, Net, NetConfig, NetEvent, Timing};
use peer::wire::codec;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint};
use rcgen::PublicKeyData;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

pub const DEADLINE: Duration = Duration::from_secs(60);

/// Far beyond the deadline: a link that is told lost in these tests is told by something other than silence, and
/// a handshake that fails doesn't fail by waiting, however slow the machine is.
pub fn patient() -> Timing {
    let (idle, handshake) = (DEADLINE * 4, DEADLINE * 2);
    Timing { idle, handshake, linger: Duration::from_millis(500), ..Timing::default() }
}

pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub fn founder() -> Arc<Identity> {
    Arc::new(Identity::found(wall()).unwrap())
}

/// Another member of the founder's cluster.
pub fn member_of(founder: &Identity) -> Arc<Identity> {
    let key = certs::new_key().unwrap();
    let node = certs::node_of_key(&key.subject_public_key_info());
    let name = NodeName { node, cluster: founder.cluster() };
    let cert = founder.admit(name.node, &certs::request(name, &key).unwrap(), wall()).unwrap();
    let pem = Pem { cert, key: key.serialize_pem(), ..founder.pem().clone() };
    Arc::new(Identity::assemble(name, wall(), pem).unwrap())
}

pub fn nobody_joins() -> JoinService {
    Arc::new(|_| Box::pin(async { Err(JoinRefusal::Other("nobody joins in this test".to_owned())) }))
}

pub struct Node {
    pub net: Net,
    pub events: mpsc::Receiver<NetEvent>,
    pub identity: Arc<Identity>,
    pub addr: SocketAddr,
}

pub fn start(identity: &Arc<Identity>) -> Node {
    start_with(identity, |_| {}, nobody_joins())
}

pub fn start_with(identity: &Arc<Identity>, change: impl FnOnce(&mut NetConfig), join: JoinService) -> Node {
    let mut config = NetConfig::new(loopback(), identity.clone());
    config.timing = patient();
    change(&mut config);
    let (net, events) = Net::start(config, join).unwrap();
    let addr = net.local_addr().unwrap();
    Node { net, events, identity: identity.clone(), addr }
}

impl Node {
    pub fn id(&self) -> NodeId {
        self.identity.node()
    }

    pub fn send(&self, to: &Node, text: &str, datagram: bool) {
        self.net.send(to.id(), to.addr, text.as_bytes().to_vec(), datagram);
    }

    pub async fn next(&mut self, awaited: &str) -> NetEvent {
        timeout(DEADLINE, self.events.recv())
            .await
            .unwrap_or_else(|_| panic!("waited for {awaited}"))
            .expect("the net runs")
    }

    /// The first event that `pick` takes; others pass by.
    pub async fn wait<T>(&mut self, awaited: &str, mut pick: impl FnMut(NetEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the net runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("waited for {awaited}"))
    }

    pub async fn message(&mut self) -> (NodeId, Vec<u8>) {
        self.wait("a message", |event| match event {
            NetEvent::Message { from, bytes } => Some((from, bytes)),
            _ => None,
        })
        .await
    }

    pub async fn text_from(&mut self, from: &Node) -> String {
        let (node, bytes) = self.message().await;
        assert_eq!(node, from.id());
        String::from_utf8(bytes).unwrap()
    }

    pub async fn link_lost(&mut self, with: NodeId) {
        let lost = |event| matches!(event, NetEvent::LinkLost { node } if node == with).then_some(());
        self.wait("a link to be lost", lost).await;
    }

    pub async fn refused(&mut self) -> (NodeId, bool, String) {
        self.wait("a refusal", |event| match event {
            NetEvent::Refused { by, removed, why } => Some((by, removed, why)),
            _ => None,
        })
        .await
    }

    /// Nothing came from anybody until a message from `friend` got through.
    pub async fn heard_only(&mut self, friend: &Node) {
        friend.send(self, "still there", false);
        loop {
            match self.next("a friend's message").await {
                NetEvent::Message { from, bytes } => {
                    assert_eq!(from, friend.id(), "a stranger got through");
                    assert_eq!(bytes, b"still there");
                    return;
                }
                NetEvent::LinkUp { node } => assert_eq!(node, friend.id(), "a stranger has a link"),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A runtime of its own for a node that is to be killed without a goodbye.
pub struct Life(Option<tokio::runtime::Runtime>);

impl Life {
    /// What is spawned while the guard lives dies with this node.
    pub fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.0.as_ref().unwrap().enter()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

pub fn start_mortal(identity: &Arc<Identity>, listen: SocketAddr) -> (Life, Node) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let node = loop {
        let _inside = runtime.enter();
        let config = NetConfig { timing: patient(), ..NetConfig::new(listen, identity.clone()) };
        match Net::start(config, nobody_joins()) {
            Ok((net, events)) => {
                let addr = net.local_addr().unwrap();
                break Node { net, events, identity: identity.clone(), addr };
            }
            // The socket of the former life may take a moment to go.
            Err(e) => assert!(Instant::now() < deadline, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (Life(Some(runtime)), node)
}

/// Waits for a level, never for an edge.
pub async fn until(awaited: &str, mut is: impl FnMut() -> bool) {
    let reached = async {
        while !is() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, reached).await.unwrap_or_else(|_| panic!("waited until {awaited}"));
}

pub fn set(node: NodeId) -> BTreeSet<NodeId> {
    BTreeSet::from([node])
}

/// Believes every server, shows what it is told to, speaks what it is told to.
#[derive(Clone)]
pub struct Rogue {
    endpoint: Endpoint,
    config: quinn::ClientConfig,
}

impl Rogue {
    pub fn new(shows: Option<&Identity>, alpn: &[u8]) -> Self {
        Self::showing(shows.map(|identity| (identity.chain(), identity.private_key().unwrap())), alpn)
    }

    pub fn showing(shows: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, alpn: &[u8]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible));
        let mut tls = match shows {
            Some((chain, key)) => tls.with_client_auth_cert(chain, key).unwrap(),
            None => tls.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![alpn.to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        Self { endpoint: Endpoint::client(loopback()).unwrap(), config }
    }

    pub async fn connect(&self, to: &Node) -> Result<Connection, ConnectionError> {
        self.call(to.id(), to.addr).await
    }

    pub async fn call(&self, node: NodeId, addr: SocketAddr) -> Result<Connection, ConnectionError> {
        let name = NodeName { node, cluster: ClusterId::from_u128(1) }.dns();
        let connecting = self.endpoint.connect_with(self.config.clone(), addr, &name).unwrap();
        timeout(DEADLINE, connecting).await.expect("an answer to a handshake")
    }

    /// Connects and says hello, as a member does.
    pub async fn connect_as_member(&self, to: &Node) -> Connection {
        self.call_as_member(to.id(), to.addr).await
    }

    pub async fn call_as_member(&self, node: NodeId, addr: SocketAddr) -> Connection {
        let conn = self.call(node, addr).await.unwrap();
        send_uni(&conn, &codec::encode(&(7u64,))).await;
        conn.accept_uni().await.expect("a hello").read_to_end(100).await.unwrap();
        conn
    }
}

pub async fn send_uni(conn: &Connection, bytes: &[u8]) {
    let mut stream = conn.open_uni().await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.finish().unwrap();
}

pub async fn closed(conn: &Connection) -> ConnectionError {
    timeout(DEADLINE, conn.closed()).await.expect("the connection to be closed")
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
