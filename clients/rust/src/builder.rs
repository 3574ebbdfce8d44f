//! How a client is made.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::address::{Address, Scheme};
use crate::client::{Client, Inner, Transport};
use crate::http1::Pool;
use crate::line::{Line, authorization};
use crate::tls::Trust;
use crate::web::Web;
use crate::{Error, Result};

/// The longest frame or answer that is received, if nothing else is said.
pub const DEFAULT_MAX_FRAME_BYTES: usize = 4 << 30;

/// Everything that can be chosen about a [`Client`].
///
/// ```
/// use std::time::Duration;
/// use kingpole_client::Client;
///
/// # fn main() -> kingpole_client::Result<()> {
/// let client = Client::builder("https://models.example:8443")
///     .timeout(Duration::from_secs(2))
///     .token("secret")
///     .max_frame_bytes(64 << 20)
///     .retries(2)
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    url: String,
    timeout: Option<Duration>,
    token: Option<String>,
    root_certificates: Option<Vec<u8>>,
    max_frame_bytes: usize,
    retries: u32,
    shared_bytes: usize,
}

impl ClientBuilder {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            timeout: None,
            token: None,
            root_certificates: None,
            max_frame_bytes: DEFAULT_MAX_FRAME_BYTES,
            retries: 0,
            shared_bytes: 0,
        }
    }

    /// The timeout of requests that have none of their own. Without it they wait as long as it takes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sent as `authorization: Bearer ...`; over HTTP and gRPC only.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The authorities (PEM) to trust, in place of those that the system trusts.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// The longest frame or answer that is received, checked before there is room for it; 4 GiB by default.
    pub fn max_frame_bytes(mut self, max_frame_bytes: usize) -> Self {
        self.max_frame_bytes = max_frame_bytes;
        self
    }

    /// How often to try again what certainly was not begun: requests that the server refused before it queued them
    /// and said when to come back (`RESOURCE_EXHAUSTED` with [`Error::retry_after`]), and those that could not be
    /// sent (`UNAVAILABLE` with [`Error::is_unsent`]). Each waits as long as was said, or 50 ms and then twice as
    /// long each time, never past its timeout. 0 by default.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How many bytes of memory to share with the server, over a Unix socket on Linux: tensors of 4 KiB and more
    /// then do not travel. What does not fit travels.
    pub fn shared_memory(mut self, nbytes: usize) -> Self {
        self.shared_bytes = nbytes;
        self
    }

    /// The client. Connects when it is first asked something.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an address, a token or certificates that cannot be used, or memory that cannot be
    /// shared over this transport.
    pub fn build(self) -> Result<Client> {
        let address = Address::parse(&self.url)?;
        let token = self.token.map(|token| authorization(&token, &address)).transpose()?;
        let is_unix = matches!(address, Address::Unix { .. });
        if self.shared_bytes > 0 && !(is_unix && cfg!(target_os = "linux")) {
            let message = format!("memory is shared over Unix sockets on Linux only, not over {address}");
            return Err(Error::invalid(message));
        }
        let trust = Arc::new(Trust::new(self.root_certificates.as_deref())?);
        let limit = self.max_frame_bytes;
        let transport = match &address {
            Address::Tcp { scheme: Scheme::Http, .. } => {
                Transport::Web(Web::new(Pool::new(address.clone(), trust, token, limit)?))
            }
            _ => Transport::Line(Box::new(Line {
                address: address.clone(),
                trust,
                token,
                limit,
                shared_bytes: self.shared_bytes,
                current: Mutex::new(None),
                channel: Mutex::new(None),
            })),
        };
        Ok(Client::of(Inner { address, transport, timeout: self.timeout, retries: self.retries, limit }))
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClientBuilder").field("url", &self.url).finish_non_exhaustive()
    }
}
