//! PEM files in, TLS connections out. Each handshake first looks whether a file was replaced, which costs three `stat`s beside the
//! signature of the handshake; so certificates, keys and authorities rotate without a restart and without a watch on directories.
//! While new files do not fit each other, as between the replacing of a certificate and of its key, the old ones stay in use. Mirrors
//! kube-apiserver's dynamic certificates and etcd's certificates read at each handshake.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::SocketError;

/// So much is encrypted at a time: with less, long answers are written in more and shorter system calls.
const AHEAD_BYTES_MAX: usize = 256 * 1024;
const HANDSHAKE_FOR: Duration = Duration::from_secs(10);

/// PEM files of a server.
#[derive(Debug, Clone)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Authorities of client certificates. None: clients are not asked who they are.
    pub client_authority: Option<PathBuf>,
}

/// What an authority for clients means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// A certificate is welcome, and must then verify.
    MayBeAnonymous,
    /// Nobody is let in without one.
    ShowCertificate,
}

/// What tells a file from the one that takes its place. None where there is no file.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

#[derive(Debug)]
pub struct Acceptor {
    files: Tls,
    clients: Clients,
    /// Protocols offered, best first.
    protocols: Vec<Vec<u8>>,
    current: Mutex<Current>,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// The files that were read last, of which `config` was made unless they do not fit each other.
    seen: [Stamp; 3],
}

impl Acceptor {
    /// Read `files`. Fails with Certificate, saying which file is wrong and why.
    pub fn open(files: Tls, clients: Clients, protocols: &[&[u8]]) -> Result<Self, SocketError> {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|one| one.to_vec()).collect();
        // The stamps are taken first: a file replaced while it is read is read again.
        let seen = stamps(&files);
        let config = server_config(&files, clients, &protocols)?;
        Ok(Acceptor {
            files,
            clients,
            protocols,
            current: Mutex::new(Current { config, seen }),
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
        })
    }

    /// Shake hands. None when the client does not, or not in time.
    pub async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.config());
        let shaken = tokio::time::timeout(HANDSHAKE_FOR, acceptor.accept(stream)).await;
        let mut stream = shaken.ok()?.ok()?;
        stream.get_mut().1.set_buffer_limit(Some(AHEAD_BYTES_MAX));
        Some(stream)
    }

    /// How often new files were taken into use, and how often they could not be.
    pub fn reloads(&self) -> (u64, u64) {
        (
            self.reloads.load(Ordering::Relaxed),
            self.failed_reloads.load(Ordering::Relaxed),
        )
    }

    fn config(&self) -> Arc<ServerConfig> {
        let stamps = stamps(&self.files);
        let mut current = self.lock();
        if current.seen == stamps {
            return Arc::clone(&current.config);
        }
        current.seen = stamps;
        match server_config(&self.files, self.clients, &self.protocols) {
            Ok(config) => {
                current.config = config;
                self.reloads.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.failed_reloads.fetch_add(1, Ordering::Relaxed);
            }
        }
        Arc::clone(&current.config)
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(files: &Tls) -> [Stamp; 3] {
    let of = |path: Option<&PathBuf>| {
        let found = std::fs::metadata(path?).ok()?;
        Some((
            found.dev(),
            found.ino(),
            found.size(),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        ))
    };
    [
        of(Some(&files.certificate)),
        of(Some(&files.key)),
        of(files.client_authority.as_ref()),
    ]
}

fn server_config(
    files: &Tls,
    clients: Clients,
    protocols: &[Vec<u8>],
) -> Result<Arc<ServerConfig>, SocketError> {
    let provider = Arc::new(provider());
    let chain = certificates(&files.certificate, "server certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&content(&files.key, "server key")?)
        .map_err(|error| wrong("server key", &files.key, &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("protocol versions", &files.certificate, &error))?;
    let builder = match &files.client_authority {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let failed = |error: &dyn std::fmt::Display| wrong("client authority", file, error);
            let mut roots = RootCertStore::empty();
            for authority in certificates(file, "client authority")? {
                roots.add(authority).map_err(|error| failed(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match clients {
                Clients::MayBeAnonymous => verifier.allow_unauthenticated(),
                Clients::ShowCertificate => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| failed(&error))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong("server certificate", &files.certificate, &error))?;
    config.alpn_protocols = protocols.to_vec();
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

/// Suites with AES-128 first, whatever a client would like best: encrypting a list is a good part of what it costs, the longer key
/// costs two fifths more, and 128 bits are beyond anybody's reach.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    let is_short = |suite: &SupportedCipherSuite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    provider.cipher_suites.sort_by_key(|suite| !is_short(suite));
    provider
}

fn certificates(
    file: &Path,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, SocketError> {
    let found = CertificateDer::pem_slice_iter(&content(file, what)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(what, file, &error))?;
    if found.is_empty() {
        return Err(wrong(what, file, &"no certificate in it"));
    }
    Ok(found)
}

fn content(file: &Path, what: &'static str) -> Result<Vec<u8>, SocketError> {
    std::fs::read(file).map_err(|error| wrong(what, file, &error))
}

fn wrong(what: &'static str, file: &Path, why: &dyn std::fmt::Display) -> SocketError {
    SocketError::Certificate {
        what,
        why: format!("{}: {why}", file.display()),
    }
}
