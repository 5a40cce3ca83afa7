//! `-H tcp://HOST[:PORT]`: an agent's API from afar, as `peer start --api` opens it. Both sides prove themselves: the agent
//! by the cluster's CA, this command by a certificate of `peer cert issue`. There is no other way in.

use super::error::CliError;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Docker's port for TLS.
const PORT: u16 = 2376;
/// The directory that `peer cert issue --out` wrote.
const CERT_PATH: &str = "PEER_CERT_PATH";

/// What was given by flags; what wasn't is looked for under [`CERT_PATH`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone)]
pub struct Remote {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tcp://{}:{}", self.host, self.port)
    }
}

impl Remote {
    /// `address`: what follows `tcp://`.
    pub fn new(by: &str, address: &str, files: &TlsFiles) -> Result<Self, CliError> {
        let (host, port) = host_and_port(address).ok_or_else(|| {
            CliError::misuse(format!("{by} tcp://{address}: no address of an agent"))
                .hint("want HOST or HOST:PORT, as tcp://10.0.0.1:2376")
        })?;
        let name = ServerName::try_from(host.clone())
            .map_err(|_| CliError::misuse(format!("{by} tcp://{address}: {host:?} is no host's name or address")))?;
        let beside = std::env::var_os(CERT_PATH).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let path = |given: &Option<PathBuf>, flag: &str, file: &str| {
            given.clone().or_else(|| beside.as_ref().map(|dir| dir.join(file))).ok_or_else(|| {
                CliError::misuse(format!(
                    "{by} tcp://{address}: {flag} is missing: the API is open to clients with a certificate"
                ))
                .hint(format!(
                    "on a member: peer cert issue --client NAME --out DIR; then here --tlscacert DIR/ca.pem --tlscert \
                         DIR/cert.pem --tlskey DIR/key.pem, or {CERT_PATH}=DIR"
                ))
            })
        };
        let ca = path(&files.ca, "--tlscacert", "ca.pem")?;
        let cert = path(&files.cert, "--tlscert", "cert.pem")?;
        let key = path(&files.key, "--tlskey", "key.pem")?;
        Ok(Self { host, port, name, tls: Arc::new(config(&ca, &cert, &key)?) })
    }

    pub async fn connect(&self) -> Result<TlsStream<TcpStream>, CliError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| {
            CliError::new(format!("no agent answers on {self:?}: {error}"))
                .hint("is the agent running, and was it started with --api?")
        })?;
        TlsConnector::from(self.tls.clone()).connect(self.name.clone(), stream).await.map_err(|error| {
            CliError::new(format!("{self:?} can't prove that it is an agent of this cluster: {error}"))
                .hint("are the address and --tlscacert right?")
        })
    }
}

fn config(ca: &Path, cert: &Path, key: &Path) -> Result<ClientConfig, CliError> {
    let unreadable = |flag: &str, path: &Path, why: &dyn std::fmt::Display| {
        CliError::new(format!("{flag} {}: {why}", path.display())).hint("want a file that peer cert issue wrote")
    };
    let certs = |flag: &str, path: &Path| {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match read {
            Ok(certs) if certs.is_empty() => Err(unreadable(flag, path, &"there is no certificate in it")),
            read => read.map_err(|error| unreadable(flag, path, &error)),
        }
    };
    let mut roots = RootCertStore::empty();
    for root in certs("--tlscacert", ca)? {
        roots.add(root).map_err(|error| unreadable("--tlscacert", ca, &error))?;
    }
    let chain = certs("--tlscert", cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("--tlskey", key, &error))?;
    let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| CliError::new(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private)
        .map_err(|error| unreadable("--tlskey", key, &error))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`.
fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some(""))?)
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    let port = if port.is_empty() { PORT } else { port.parse().ok().filter(|port| *port > 0)? };
    (!host.is_empty() && !host.contains('/')).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        let read = |text: &str| host_and_port(text).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(read("10.0.0.1").as_deref(), Some("10.0.0.1 2376"));
        assert_eq!(read("node1.example:7375").as_deref(), Some("node1.example 7375"));
        assert_eq!(read("[fe80::1]").as_deref(), Some("fe80::1 2376"));
        assert_eq!(read("[::1]:99").as_deref(), Some("::1 99"));
        for bad in ["", ":1", "a:0", "a:x", "a:99999", "a/b", "[::1]x", "[::1", "::1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn without_a_certificate_it_says_where_to_get_one() {
        let files = TlsFiles { ca: Some("/nowhere/ca.pem".into()), ..TlsFiles::default() };
        let error = Remote::new("--host", "10.0.0.1", &files).unwrap_err();
        assert!(error.message().contains("--tlscert is missing"), "{error}");
        assert!(error.hint_text().unwrap().contains("peer cert issue"));
        assert_eq!(error.code(), 2);
        let all = TlsFiles { cert: Some("/nowhere/cert.pem".into()), key: Some("/nowhere/key.pem".into()), ..files };
        let error = Remote::new("--host", "10.0.0.1", &all).unwrap_err();
        assert!(error.message().starts_with("--tlscacert /nowhere/ca.pem: "), "{error}");
    }
}
