//! Listening sockets, and handing accepted connections to reactors. Knows no protocol.

use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kingpole_values::{Code, Error, Result};
use socket2::{SockRef, TcpKeepalive};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// A connection that was accepted and not yet spoken with.
pub struct Accepted {
    pub(crate) stream: AcceptedStream,
    pub(crate) live: Live,
    /// Connections that were open before this one, of all reactors.
    pub(crate) open: usize,
}

pub(crate) enum AcceptedStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Counts one connection of a reactor for as long as it lives.
pub(crate) struct Live(Arc<AtomicUsize>);

impl Live {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The acceptor's end of a reactor: where its connections are sent and how many it has.
#[derive(Clone)]
pub struct ReactorHandle {
    connections: mpsc::UnboundedSender<Accepted>,
    live: Arc<AtomicUsize>,
}

impl ReactorHandle {
    /// Connections that the reactor has now, those not yet spoken with included.
    pub fn live_connections(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

/// The two ends of a reactor's incoming connections. The channel is bounded by the connection limit.
pub fn reactor() -> (ReactorHandle, mpsc::UnboundedReceiver<Accepted>) {
    let (connections, incoming) = mpsc::unbounded_channel();
    (ReactorHandle { connections, live: Arc::default() }, incoming)
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// Bound listening sockets. Socket files are removed when this is dropped.
pub struct Listeners(Vec<Listener>);

impl Listeners {
    /// Bind every address: `host:port` (port 0 lets the system choose) or `unix:/path`.
    ///
    /// A socket file that nothing listens on any more is replaced; a new one has mode 0660.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` naming the address that could not be bound.
    pub fn bind(addresses: &[String]) -> Result<Self> {
        addresses.iter().map(|address| bind_one(address)).collect::<Result<Vec<_>>>().map(Self)
    }

    /// The bound addresses in the form that `bind` takes, ports chosen by the system filled in.
    pub fn addresses(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|listener| match listener {
                Listener::Tcp(tcp) => {
                    tcp.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
                }
                Listener::Unix(_, path) => format!("unix:{}", path.display()),
            })
            .collect()
    }

    /// Accept until `shutdown` turns true, giving each connection to the reactor with the fewest.
    ///
    /// Runs on any tokio runtime with I/O and time enabled; best on a thread of its own.
    ///
    /// # Errors
    /// If a listener cannot be registered with the runtime.
    pub async fn accept(
        self,
        reactors: Vec<ReactorHandle>,
        max_connections: usize,
        mut shutdown: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let mut accepting = JoinSet::new();
        for listener in &self.0 {
            let reactors = reactors.clone();
            match listener {
                Listener::Tcp(tcp) => {
                    let tcp = tokio::net::TcpListener::from_std(tcp.try_clone()?)?;
                    accepting.spawn(async move {
                        let mut backoff = Backoff::default();
                        loop {
                            match tcp.accept().await.and_then(|(stream, _)| stream.into_std()) {
                                Ok(stream) => {
                                    backoff = Backoff::default();
                                    tune(&stream);
                                    hand_over(&reactors, max_connections, AcceptedStream::Tcp(stream));
                                }
                                Err(error) => backoff.wait(&error).await,
                            }
                        }
                    });
                }
                Listener::Unix(unix, _) => {
                    let unix = tokio::net::UnixListener::from_std(unix.try_clone()?)?;
                    accepting.spawn(async move {
                        let mut backoff = Backoff::default();
                        loop {
                            match unix.accept().await.and_then(|(stream, _)| stream.into_std()) {
                                Ok(stream) => {
                                    backoff = Backoff::default();
                                    hand_over(&reactors, max_connections, AcceptedStream::Unix(stream));
                                }
                                Err(error) => backoff.wait(&error).await,
                            }
                        }
                    });
                }
            }
        }
        // An error means that the sender is gone, which ends the server as well.
        let _ = shutdown.wait_for(|&down| down).await;
        accepting.shutdown().await;
        Ok(())
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for listener in &self.0 {
            if let Listener::Unix(_, path) = listener {
                // Already gone is as good as removed.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// How soon a connection that says nothing is asked whether its client is still there, how often after that,
/// and how often in all before it is ended: two minutes in sum.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_mins(1))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// None of this is a reason to refuse a connection.
fn tune(stream: &TcpStream) {
    // Small answers would wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    // A client whose machine or network went away leaves no other trace.
    let _ = SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE);
}

fn hand_over(reactors: &[ReactorHandle], max_connections: usize, stream: AcceptedStream) {
    let open: usize = reactors.iter().map(ReactorHandle::live_connections).sum();
    if open >= max_connections {
        return;
    }
    if let Some(reactor) = reactors.iter().min_by_key(|reactor| reactor.live_connections()) {
        // A reactor that has ended drops the connection, which closes it.
        let _ = reactor.connections.send(Accepted { stream, live: Live::begin(&reactor.live), open });
    }
}

/// Pause before accepting again when the process has run out of file descriptors or memory: the
/// connection stays in the kernel's queue, so that trying at once would spin.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(5))
    }
}

impl Backoff {
    async fn wait(&mut self, error: &io::Error) {
        // The client left between the kernel's accept and ours: only that connection is lost.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(1));
    }
}

fn bind_one(address: &str) -> Result<Listener> {
    let bound = match address.strip_prefix("unix:") {
        Some(path) => bind_unix(Path::new(path)).map(|unix| Listener::Unix(unix, PathBuf::from(path))),
        None => address.to_socket_addrs().and_then(|resolved| bind_tcp(&resolved.collect::<Vec<_>>())),
    };
    bound.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "the address is already in use".to_owned(),
            _ => error.to_string(),
        };
        Error::new(Code::FailedPrecondition, format!("cannot listen on '{address}': {why}"))
    })
}

fn bind_tcp(addresses: &[std::net::SocketAddr]) -> io::Result<Listener> {
    let tcp = TcpListener::bind(addresses)?;
    tcp.set_nonblocking(true)?;
    Ok(Listener::Tcp(tcp))
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let unix = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    unix.set_nonblocking(true)?;
    Ok(unix)
}

/// Whether the path is a socket that nobody listens on. Anything but a socket is never removed.
fn is_stale(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
