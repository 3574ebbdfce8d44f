//! TLS from a certificate and a key file.

use std::path::Path;
use std::sync::Arc;

use kingpole_values::{Code, Error, Result};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Read a PEM certificate chain and its PEM key, for TLS with HTTP/2 and HTTP/1.1 offered.
///
/// # Errors
/// `FAILED_PRECONDITION` naming the file that cannot be used and why.
pub fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let refuse = |path: &Path, why: &dyn std::fmt::Display| {
        Error::new(Code::FailedPrecondition, format!("cannot use '{}' for TLS: {why}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|error| refuse(certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| refuse(key, &error))?;
    let mut configuration = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| refuse(certificate, &error))?;
    configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(configuration))
}
