//! Ten thousand at the door who say nothing: what they cost stays bounded, and whoever is honest gets in meanwhile.

use crate::agents::{Process, command, spawn, start};
use crate::net_support::{DEADLINE, Rogue, closed, loopback};
use peer::ids::NodeId;
use peer::shell::demo::address;
use peer::shell::identity::{Token, token::generate_secret};
use quinn::ConnectionError;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};

const CROWD: usize = 10_000;
/// At a time on our side, which has to keep them too.
const AT_ONCE: usize = 500;
/// More than what a few hundred half-open connections take in a build without optimisation, and far less than ten thousand would.
const MAX_GROWTH_KIB: u64 = 96 * 1024;

/// As many descriptors as this process may have; how many connections it can hold with them.
fn crowd_of_descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let crowd = CROWD.min(usize::try_from(most).unwrap_or(CROWD).saturating_sub(1_000));
    if crowd < CROWD {
        println!("only {most} descriptors here: {crowd} connections instead of {CROWD}");
    }
    crowd
}

/// Lets each connection begin: its first packet, the server's demand to prove the address, the proof. All else it swallows, so
/// that the server waits for the rest of each handshake.
async fn black_hole_before(server: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    const PER_CONNECTION: u32 = 2;
    let front = UdpSocket::bind(loopback()).await.unwrap();
    let upstream = UdpSocket::bind(loopback()).await.unwrap();
    let (addr, proven) = (front.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = proven.clone();
    tokio::spawn(async move {
        let mut client = None;
        let mut begun: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                Ok((len, from)) = front.recv_from(&mut there) => {
                    client = Some(from);
                    let Some(id) = source_id(&there[..len]) else { continue };
                    let sent = begun.entry(id).or_default();
                    *sent += 1;
                    if *sent <= PER_CONNECTION {
                        let _ = upstream.send_to(&there[..len], server).await;
                    }
                }
                Ok((len, _)) = upstream.recv_from(&mut back) => {
                    // The long header's type "Retry" (RFC 9000, 17.2.5).
                    if let Some(client) = client.filter(|_| back[0] & 0xf0 == 0xf0) {
                        count.fetch_add(1, Ordering::Relaxed);
                        let _ = front.send_to(&back[..len], client).await;
                    }
                }
            }
        }
    });
    (addr, proven)
}

/// Of a packet with a long header: what tells connections of one client apart.
fn source_id(packet: &[u8]) -> Option<Vec<u8>> {
    let long = packet.first()? & 0x80 != 0;
    let their_len = usize::from(*packet.get(5)?);
    let own = packet.get(6 + their_len..)?;
    let own_len = usize::from(*own.first()?);
    long.then(|| own.get(1..=own_len).map(<[u8]>::to_vec))?
}

fn ready(agent: &Process) -> usize {
    agent.get("/peer/status")["Nodes"]["Ready"].as_u64().unwrap_or(0) as usize
}

async fn until_ready(agent: &Process, nodes: usize) {
    let deadline = Instant::now() + DEADLINE;
    while ready(agent) != nodes {
        assert!(Instant::now() < deadline, "{nodes} nodes are ready: {}", agent.get("/peer/status"));
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_open_connections_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let first = spawn(command(dir.path(), 1, &["--dashboard", "none"]), dir.path().join("1.sock")).await;
    let at = first.get("/peer/status")["Node"]["Addr"].as_str().unwrap().to_owned();
    let token = first.get("/peer/token")["Token"].as_str().unwrap().to_owned();
    let member = |number: usize| {
        let mut command = command(dir.path(), number, &["--dashboard", "none", "--join", &at]);
        command.env("PEER_TOKEN", &token);
        spawn(command, dir.path().join(format!("{number}.sock")))
    };
    let second = member(2).await;
    until_ready(&first, 2).await;
    let (before, mut half, mut most) = (first.resident_kib(), 0, 0);

    let (way, proven) = black_hole_before(at.parse().unwrap()).await;
    let rogue = Rogue::new(None, b"peer-join/1");
    let begins = || {
        let rogue = rogue.clone();
        tokio::spawn(async move {
            let begun = timeout(Duration::from_secs(1), rogue.call(NodeId::from_u128(1), way)).await;
            assert!(begun.is_err(), "nothing is let through that could end a handshake: {begun:?}");
        })
    };
    let mut third = None;
    for round in 0..CROWD / AT_ONCE {
        let crowd: Vec<_> = (0..AT_ONCE).map(|_| begins()).collect();
        if round == 5 {
            // In the middle of it a machine joins, from the address that the crowd comes from.
            third = Some(member(3).await);
        }
        for one in crowd {
            one.await.unwrap();
        }
        most = most.max(first.resident_kib());
        if round == CROWD / AT_ONCE / 2 {
            half = most;
        }
        assert!(ready(&first) >= 2, "the members stay connected");
    }
    until_ready(&first, 3).await;
    let (growth, proven) = (most.saturating_sub(before), proven.load(Ordering::Relaxed));
    let later = most - half;
    println!(
        "{CROWD} half-open, {proven} from a proven address: {before} KiB, {growth} more at most, {later} of it in the second half"
    );
    assert!(proven > CROWD / 20, "many were asked to prove their address, and did");
    assert!(
        growth < MAX_GROWTH_KIB && later < MAX_GROWTH_KIB / 4,
        "{growth} KiB more, {later} of it in the second half"
    );
    drop((second, third));
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_joiners_make_way_for_one_who_has_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let one = start(dir.path(), 1, None).await;
    let rogue = Rogue::new(None, b"peer-join/1");
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(rogue.call(one.id(), one.agent.addr).await.unwrap());
    }
    one.joined_with(&one.token().await).await.unwrap();
    // Who was there longest had to go, and was told so.
    match closed(&silent[0]).await {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.reason, b"busy, try again"[..]),
        other => panic!("{other:?}"),
    }
    // Guessing from the crowd is bounded as from anybody.
    let guess = Token::new(*one.token().await.ca(), &generate_secret().unwrap()).unwrap();
    for _ in 0..5 {
        one.joined_with(&guess).await.unwrap_err();
    }
    assert!(one.joined_with(&one.token().await).await.unwrap_err().to_string().contains("too many wrong tokens"));
}

/// The answer's first line.
async fn ask(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, path: &str, host: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// As docker's CLI does with a client's certificate.
async fn asked_with_certificate(certs: &Path, addr: SocketAddr) -> String {
    let read = |file: &str| std::fs::read(certs.join(file)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&read("ca.pem")).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(&read("cert.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(&read("key.pem")).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let tcp = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::IpAddress(addr.ip().into());
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    ask(tls, "/_ping", "peer").await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_silent_clients_of_the_api_and_the_page_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let free = || TcpListener::bind((address(1), 0)).unwrap().local_addr().unwrap();
    let (api, page) = (free(), free());
    let more = ["--dashboard", &page.to_string(), "--api", &format!("tcp://{api}")];
    let agent = spawn(command(dir.path(), 1, &more), dir.path().join("1.sock")).await;
    let certs = dir.path().join("ann");
    let (done, text) = agent.peer(&["cert", "issue", "--client", "ann", "--out", certs.to_str().unwrap()]);
    assert!(done, "{text}");
    assert_eq!(asked_with_certificate(&certs, api).await, "HTTP/1.1 200");
    let (before, crowd) = (agent.resident_kib(), crowd_of_descriptors());
    for addr in [api, page] {
        let mut silent = Vec::new();
        for number in 0..crowd {
            silent.push(TcpStream::connect(addr).await.unwrap());
            if number % 1_000 == 999 {
                assert_eq!(
                    timeout(DEADLINE, asked_with_certificate(&certs, api)).await.expect("an answer"),
                    "HTTP/1.1 200"
                );
                let host = page.to_string();
                let looked = ask(TcpStream::connect(page).await.unwrap(), "/metrics", &host);
                assert_eq!(timeout(DEADLINE, looked).await.expect("an answer"), "HTTP/1.1 200");
            }
        }
        let (open, growth) = (agent.descriptors(), agent.resident_kib().saturating_sub(before));
        println!("{crowd} silent at {addr}: {open} descriptors, {growth} KiB more");
        assert!(open < 1_000, "{open} descriptors");
        assert!(growth < MAX_GROWTH_KIB, "{growth} KiB more");
    }
}
