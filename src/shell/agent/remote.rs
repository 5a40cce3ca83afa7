//! `--api`: what this node shows to clients over TCP, and whom it lets in.

use super::AgentConfig;
use crate::shell::api::{Api, remote};
use crate::shell::clock::Clock;
use crate::shell::identity::Identity;
use anyhow::Context;
use rustls::RootCertStore;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(super) async fn open(
    config: &AgentConfig,
    addr: SocketAddr,
    identity: &Arc<Identity>,
    clock: Clock,
    api: Arc<Api>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Some(on) = config.api else { return Ok(()) };
    let listener = remote::bind(on).await?;
    let (names, identity) = (names(config, addr, on), identity.clone());
    let make = move || tls(&identity, names.clone(), &clock);
    // What can't be made is told now and not to the first client.
    make().context("--api")?;
    tracing::info!(api = %on, "the API is open over TCP to clients with a certificate (peer cert issue)");
    tokio::spawn(remote::serve(api, listener, Box::new(make), stop));
    Ok(())
}

/// Under which clients may know this node.
fn names(config: &AgentConfig, addr: SocketAddr, on: SocketAddr) -> Vec<String> {
    let addrs = [addr.ip(), on.ip(), config.listen.ip()].into_iter().filter(|ip| !ip.is_unspecified());
    let mut names: BTreeSet<String> = addrs.map(|ip| ip.to_string()).collect();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.insert(config.hostname.clone());
    names.into_iter().collect()
}

/// As between nodes: no resumption, which would let in a client again without a look at its certificate.
fn tls(identity: &Identity, names: Vec<String>, clock: &Clock) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(identity.ca().clone())?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let (chain, key) = identity.api_server(names, clock.now().wall)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.max_early_data_size = 0;
    Ok(Arc::new(tls))
}
