//! Unix sockets, TLS, and listening itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use kingpole_frontends::{FrontendConfiguration, Listeners, load_tls};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::grpc::{INFER, call, framed, over, request};
use crate::server::{Response, Server};

/// A folder that is removed with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kingpole-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_unix_socket_serves_the_same_and_is_removed_in_the_end() {
    let folder = Folder::new("unix");
    let path = folder.path("s.sock");
    // One that nobody listens on any more is replaced.
    drop(UnixListener::bind(&path).unwrap());
    let server = Server::start_with(&[format!("unix:{path}")], FrontendConfiguration::default());
    assert_eq!(server.addresses, [format!("unix:{path}")]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(Response::parse(&answer).status, 200);
    drop(server);
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn an_address_in_use_is_named() {
    let first = Listeners::bind(&["127.0.0.1:0".to_owned()]).unwrap();
    let address = first.addresses().remove(0);
    let error = Listeners::bind(std::slice::from_ref(&address)).err().unwrap();
    assert!(error.message.contains(&address) && error.message.contains("in use"), "{error}");
    let folder = Folder::new("inuse");
    let path = format!("unix:{}", folder.path("s.sock"));
    let _first = Listeners::bind(std::slice::from_ref(&path)).unwrap();
    let error = Listeners::bind(std::slice::from_ref(&path)).err().unwrap();
    assert!(error.message.contains(&path), "{error}");
    let file = folder.path("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(Listeners::bind(&[format!("unix:{file}")]).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious", "only sockets are replaced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tls_offers_both_http_versions_beside_plain_text() {
    let folder = Folder::new("tls");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path("certificate.pem"), folder.path("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Some(load_tls(certificate.as_ref(), key.as_ref()).unwrap());
    let configuration = FrontendConfiguration { tls, ..Default::default() };
    let server = Server::start_with(&["127.0.0.1:0".to_owned()], configuration);
    for alpn in ["h2", "http/1.1"] {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
        let mut client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let stream = tokio::net::TcpStream::connect(&server.addresses[0]).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        if alpn == "h2" {
            let request = kingpole_wire::grpc::encode_infer_request(&request("t", &[1.0]), false);
            let client = over(stream).await;
            let answer = call(&client, INFER, &[], &[framed(&request.into_bytes())]).await;
            assert_eq!(answer.status, 0, "{}", answer.message);
        } else {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let request = b"GET /v2/health/live HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            // Whether the closing is announced in TLS does not matter here.
            let _ = stream.read_to_end(&mut answer).await;
            assert_eq!(Response::parse(&answer).status, 200);
        }
    }
    let wrong = load_tls(key.as_ref(), key.as_ref()).err().unwrap();
    assert!(wrong.message.contains("key.pem"), "{wrong}");
}

#[test]
fn tls_is_refused_where_it_is_not_configured() {
    let server = Server::start();
    let mut stream = TcpStream::connect(&server.addresses[0]).unwrap();
    stream.write_all(b"\x16\x03\x01\x00\x05hello").unwrap();
    let mut answer = Vec::new();
    // Closed or reset, but not answered.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
}
