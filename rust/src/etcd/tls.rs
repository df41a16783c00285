//! Certificates in, a TLS configuration out, by etcd's rules: with an authority for clients, a client must show a certificate of it.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::FrontError;

/// PEM texts.
#[derive(Debug, Clone)]
pub struct Tls {
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
    /// Empty: clients are not asked who they are.
    pub client_ca_pem: Vec<u8>,
}

pub(super) fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, FrontError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&tls.certificate_pem, "server certificate")?;
    let key =
        PrivateKeyDer::from_pem_slice(&tls.key_pem).map_err(|error| wrong("server key", &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("protocol versions", &error))?;
    let builder = if tls.client_ca_pem.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&tls.client_ca_pem, "client authority")? {
            roots
                .add(authority)
                .map_err(|error| wrong("client authority", &error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| wrong("client authority", &error))?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong("server certificate", &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
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
