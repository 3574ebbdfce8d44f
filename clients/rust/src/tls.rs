//! Whom to trust over TLS. Opens no socket.

#[cfg(feature = "tls")]
pub(crate) use with_tls::Trust;
#[cfg(not(feature = "tls"))]
pub(crate) use without::Trust;

#[cfg(feature = "tls")]
mod with_tls {
    use std::io;
    use std::sync::{Arc, OnceLock};

    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use crate::connect::Socket;
    use crate::{Error, Result};

    /// The authorities that certificates may come from: those given, or those that the system trusts.
    pub(crate) struct Trust {
        given: Option<RootCertStore>,
        configuration: OnceLock<Arc<ClientConfig>>,
    }

    impl Trust {
        /// Trust these authorities (PEM) and no others; without any, those of the system.
        pub(crate) fn new(root_certificates: Option<&[u8]>) -> Result<Self> {
            let given = root_certificates.map(read).transpose()?;
            Ok(Self { given, configuration: OnceLock::new() })
        }

        fn configuration(&self) -> Arc<ClientConfig> {
            // The system's authorities are read once, and only by those who need them.
            let make = || {
                let roots = self.given.clone().unwrap_or_else(|| {
                    let mut roots = RootCertStore::empty();
                    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                    roots
                });
                let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
                let builder = builder.with_safe_default_protocol_versions();
                // Of a provider that has the suites of all versions.
                let builder = builder.unwrap_or_else(|_| unreachable!("ring speaks TLS 1.2 and 1.3"));
                Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
            };
            Arc::clone(self.configuration.get_or_init(make))
        }

        /// Speak TLS on a socket, and agree on the protocol of this name.
        pub(crate) async fn handshake(
            &self,
            stream: TcpStream,
            host: &str,
            alpn: &'static [u8],
        ) -> io::Result<Socket> {
            let mut configuration = (*self.configuration()).clone();
            configuration.alpn_protocols = vec![alpn.to_vec()];
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let connector = TlsConnector::from(Arc::new(configuration));
            Ok(Socket::Tls(Box::new(connector.connect(name, stream).await?)))
        }
    }

    fn read(pem: &[u8]) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let unreadable = |error: &dyn std::fmt::Display| {
                Error::invalid(format!("the root certificates cannot be read: {error}"))
            };
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            roots.add(certificate).map_err(|error| unreadable(&error))?;
        }
        if roots.is_empty() {
            return Err(Error::invalid("the root certificates have none in PEM"));
        }
        Ok(roots)
    }
}

#[cfg(not(feature = "tls"))]
mod without {
    use std::io;

    use tokio::net::TcpStream;

    use crate::connect::Socket;
    use crate::{Error, Result};

    /// Nobody: this client was built without TLS.
    pub(crate) struct Trust;

    impl Trust {
        pub(crate) fn new(root_certificates: Option<&[u8]>) -> Result<Self> {
            match root_certificates {
                None => Ok(Self),
                Some(_) => Err(Error::invalid("root certificates need the feature 'tls'")),
            }
        }

        #[allow(clippy::unused_async)] // as the one with TLS
        pub(crate) async fn handshake(&self, _: TcpStream, _: &str, _: &'static [u8]) -> io::Result<Socket> {
            Err(io::Error::other("this client was built without its feature 'tls'"))
        }
    }
}
