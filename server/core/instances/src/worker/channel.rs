//! The socket to a worker: packets, each with at most one file descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::watched::{Watched, watch};

/// The largest packet.
pub const MAX_PACKET_BYTES: usize = 64 * 1024;

/// Room for two descriptors: the kernel rounds one up to that, and a second is then seen.
const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(2));

/// What was received.
#[derive(Debug)]
pub struct Packet {
    /// Its length, in the buffer given; 0 at the end of the stream.
    pub bytes: usize,
    /// The file descriptor that came with it, close-on-exec.
    pub fd: Option<OwnedFd>,
}

/// This side's end. Never blocks.
#[derive(Debug)]
pub struct Channel {
    fd: Arc<OwnedFd>,
}

impl Channel {
    /// A pair: our end, and the worker's (blocking, close-on-exec until it is handed over).
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::from_fd(ours)?, theirs))
    }

    /// The end that this descriptor is.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Send a packet, or say `WouldBlock`. Nothing is ever sent in part.
    pub fn try_send(&self, packet: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd]);
        if let Some(fds) = &fds {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        let parts = [IoSlice::new(packet)];
        loop {
            match sendmsg(&self.fd, &parts, &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// End it in both directions, whoever else holds either end.
    pub fn shutdown(&self) {
        // Fails only if it has ended already.
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
    }

    /// Receive a packet into a buffer of `MAX_PACKET_BYTES`, or say `WouldBlock`.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<Packet> {
        let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = loop {
            match recvmsg(&self.fd, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                fds.extend(sent);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || fds.len() > 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet was larger than allowed"));
        }
        Ok(Packet { bytes: received.bytes, fd: fds.pop() })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A channel as the tokio runtime that made this sees it.
#[derive(Debug)]
pub struct AsyncChannel {
    channel: Arc<Channel>,
    watched: AsyncFd<Watched>,
}

impl AsyncChannel {
    /// Register with the runtime that this is called in.
    pub fn new(channel: Arc<Channel>) -> io::Result<Self> {
        let watched = watch(&channel.fd, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { channel, watched })
    }

    /// Wait for a packet. May be dropped at any time without losing one.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<Packet> {
        loop {
            let mut ready = self.watched.readable().await?;
            if let Ok(received) = ready.try_io(|_| self.channel.try_recv(buffer)) {
                return received;
            }
        }
    }

    /// Wait until `send` does not say `WouldBlock`.
    pub async fn send_with<T>(&self, mut send: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            let mut ready = self.watched.writable().await?;
            if let Ok(sent) = ready.try_io(|_| send()) {
                return sent;
            }
        }
    }
}
