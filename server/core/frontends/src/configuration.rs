//! What the wiring decides for all frontends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;

use crate::{HeaderPattern, MemoryBudget, Origins, SystemRegions};

/// What `ModelStreamInfer` answers with: servers differ, and share the method's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamDialect {
    /// `ModelStreamInferResponse`, as Triton does.
    #[default]
    Triton,
    /// Bare `ModelInferResponse`, as `MLServer` and Seldon do.
    OpenInference,
}

impl StreamDialect {
    /// The dialect called so.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"triton" => Some(Self::Triton),
            b"open-inference" => Some(Self::OpenInference),
            _ => None,
        }
    }
}

/// Counts open connections. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Count one more until the result is dropped.
    pub(crate) fn enter(&self) -> OpenConnection {
        self.0.fetch_add(1, Relaxed);
        OpenConnection(self.clone())
    }
}

pub(crate) struct OpenConnection(Connections);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// Limits and choices of the frontends, the same for every connection.
#[derive(Clone)]
pub struct FrontendConfiguration {
    /// The longest request body or gRPC message, before and after decompression.
    pub max_body_bytes: usize,
    /// What requests and answers of all connections may hold together.
    pub memory: Arc<MemoryBudget>,
    /// How many connections are open now, of all reactors.
    pub connections: Connections,
    /// The most connections open at once; further ones are closed on arrival.
    pub max_connections: usize,
    /// How long a client may take to say which protocol it speaks, to finish a TLS handshake or a header.
    pub header_timeout: Duration,
    /// How long a client may take to send one body.
    pub body_timeout: Duration,
    /// How long a client may take none of the bytes that are sent to it.
    pub write_timeout: Duration,
    /// How often an HTTP/2 client with open streams is asked whether it is still there.
    pub ping_interval: Duration,
    /// TLS for TCP listeners, see [`crate::load_tls`]; plain text stays accepted beside it.
    pub tls: Option<Arc<ServerConfig>>,
    /// Answer gRPC requests that came as typed `contents` in the same way, not as raw bytes.
    pub mirror_contents: bool,
    /// Named regions of shared memory that clients may register; `None`: they are not offered.
    pub client_shared_memory: Option<Arc<SystemRegions>>,
    /// What `ModelStreamInfer` answers with where the call does not say.
    pub stream_dialect: StreamDialect,
    /// Web pages whose scripts may call over HTTP; `None`: those of no other origin.
    pub origins: Option<Origins>,
    /// Headers of HTTP requests that become parameters.
    pub http_headers: Option<HeaderPattern>,
    /// Metadata of gRPC calls that becomes parameters.
    pub grpc_headers: Option<HeaderPattern>,
}

impl Default for FrontendConfiguration {
    fn default() -> Self {
        Self {
            max_body_bytes: 1 << 30,
            memory: MemoryBudget::new(1 << 30),
            connections: Connections::default(),
            max_connections: 10_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_mins(5),
            write_timeout: Duration::from_mins(1),
            ping_interval: Duration::from_mins(1),
            tls: None,
            mirror_contents: true,
            client_shared_memory: None,
            stream_dialect: StreamDialect::Triton,
            origins: None,
            http_headers: None,
            grpc_headers: None,
        }
    }
}
