//! Certificates in, a TLS configuration out: HTTP/2 and HTTP/1.1 by ALPN, client certificates welcome but not demanded.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Config, FrontError};

pub(super) const HTTP2: &[u8] = b"h2";

pub(super) fn server_config(config: &Config) -> Result<Arc<ServerConfig>, FrontError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&config.certificate_pem, "server certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&config.key_pem)
        .map_err(|error| wrong("server key", &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("protocol versions", &error))?;
    let builder = if config.client_ca_pem.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&config.client_ca_pem, "client authority")? {
            roots
                .add(authority)
                .map_err(|error| wrong("client authority", &error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| wrong("client authority", &error))?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut tls = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong("server certificate", &error))?;
    tls.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

fn certificates(
    pem: &[u8],
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, FrontError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(what, &error))?;
    if found.is_empty() {
        return Err(wrong(what, &"no certificate in the PEM text"));
    }
    Ok(found)
}

fn wrong(what: &'static str, why: &dyn std::fmt::Display) -> FrontError {
    FrontError::Certificate {
        what,
        why: why.to_string(),
    }
}
