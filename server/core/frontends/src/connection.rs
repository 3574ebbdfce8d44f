//! One reactor: its connections, and which protocol each of them speaks.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use kingpole_engine::Engine;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::TlsAcceptor;

use crate::budget::Account;
use crate::listen::Accepted;
use crate::socket::Socket;
use crate::staged::Blocks;
use crate::{FrontendConfiguration, frame, http1, http2};

/// What every connection of a reactor shares.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) configuration: Arc<FrontendConfiguration>,
    pub(crate) memory: Arc<Account>,
    pub(crate) blocks: Rc<Blocks>,
    shutdown: watch::Receiver<bool>,
}

impl Shared {
    /// Ends when the server drains.
    pub(crate) async fn drained(self: Rc<Self>) {
        // An error means that nobody is left to say so, which is as final.
        let _ = self.shutdown.clone().wait_for(|&down| down).await;
    }
}

/// Serve a reactor's connections and drive its engine, on the calling thread's current-thread runtime.
///
/// Ends after `shutdown` has turned true and every connection has finished what it had begun.
pub async fn run_reactor(
    engine: Engine,
    mut incoming: mpsc::UnboundedReceiver<Accepted>,
    configuration: Arc<FrontendConfiguration>,
    shutdown: watch::Receiver<bool>,
) {
    let reactor = async move {
        let driver = tokio::task::spawn_local(engine.clone().run());
        let engine_at_end = engine.clone();
        let memory = Account::new(Arc::clone(&configuration.memory));
        let shared = Rc::new(Shared { engine, configuration, memory, blocks: Rc::default(), shutdown });
        let mut drained = std::pin::pin!(Rc::clone(&shared).drained());
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut drained => break,
                accepted = incoming.recv() => match accepted {
                    Some(accepted) => { connections.spawn_local(serve(accepted, Rc::clone(&shared))); }
                    None => break,
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        // The acceptor may have handed over more before it stopped: close those at once.
        drop(incoming);
        while connections.join_next().await.is_some() {}
        engine_at_end.all_connections_ended().await;
        driver.abort();
    };
    LocalSet::new().run_until(reactor).await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tls,
    Http2,
    Http1,
    Frame,
}

/// Without the last byte, the version: a stream of another version deserves an error that says so.
const FRAME_MAGIC: &[u8] = frame::MAGIC.split_at(7).0;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Tell the protocol from a connection's first bytes; `None` asks for more of them.
fn recognize(first: &[u8]) -> Option<Protocol> {
    let begins = |pattern: &[u8]| {
        let compared = first.len().min(pattern.len());
        first[..compared] == pattern[..compared]
    };
    if first.is_empty() {
        return None;
    }
    if first[0] == 0x16 {
        // A TLS record of type "handshake"; no other protocol begins with a control character.
        return Some(Protocol::Tls);
    }
    for (pattern, protocol) in [(HTTP2_PREFACE, Protocol::Http2), (FRAME_MAGIC, Protocol::Frame)] {
        if begins(pattern) {
            return (first.len() >= pattern.len()).then_some(protocol);
        }
    }
    Some(Protocol::Http1)
}

async fn serve(accepted: Accepted, shared: Rc<Shared>) {
    let Accepted { stream, live, open: others } = accepted;
    let _open = shared.configuration.connections.enter();
    let open = async {
        let mut socket = Socket::open(stream, shared.configuration.write_timeout)?;
        let mut protocol = sniff(&mut socket).await?;
        if protocol == Protocol::Tls {
            let Some(tls) = shared.configuration.tls.clone() else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            socket = Socket::tls(TlsAcceptor::from(tls).accept(socket).await?);
            protocol = sniff(&mut socket).await?;
        }
        io::Result::Ok((protocol, socket))
    };
    let timeout = shared.configuration.header_timeout;
    let opened = tokio::select! {
        opened = tokio::time::timeout(timeout, open) => opened,
        // Nothing was asked yet, so nothing is owed.
        () = Rc::clone(&shared).drained() => return,
    };
    // A client that leaves, is silent or fails its handshake has asked for nothing.
    let Ok(Ok((protocol, socket))) = opened else { return };
    match protocol {
        Protocol::Http2 => http2::serve(socket, shared, others).await,
        Protocol::Http1 => http1::serve(socket, shared).await,
        Protocol::Frame => frame::serve(socket, shared).await,
        // TLS inside TLS is nobody's protocol.
        Protocol::Tls => {}
    }
    drop(live);
}

async fn sniff(socket: &mut Socket) -> io::Result<Protocol> {
    loop {
        if let Some(protocol) = recognize(socket.ahead()) {
            return Ok(protocol);
        }
        if socket.read_ahead().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_told_from_as_few_bytes_as_possible() {
        assert_eq!(recognize(b""), None);
        assert_eq!(recognize(b"\x16"), Some(Protocol::Tls));
        assert_eq!(recognize(b"P"), None, "POST and PRI begin alike");
        assert_eq!(recognize(b"PO"), Some(Protocol::Http1));
        assert_eq!(recognize(b"PRI * HTTP/2.0\r\n\r\n"), None);
        assert_eq!(recognize(HTTP2_PREFACE), Some(Protocol::Http2));
        assert_eq!(recognize(b"GET / HTTP/1.1\r\n"), Some(Protocol::Http1));
        assert_eq!(recognize(&FRAME_MAGIC[..3]), None);
        assert_eq!(recognize(FRAME_MAGIC), Some(Protocol::Frame));
    }
}
