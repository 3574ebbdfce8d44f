//! A file descriptor that travels with bytes over a Unix socket.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::{Error, Result};

/// Send bytes, and a descriptor with the first of them. Nothing else was sent on the socket yet, so that there is
/// room for a few hundred bytes.
pub(crate) fn send(stream: &UnixStream, descriptor: &OwnedFd, bytes: &[u8]) -> Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Error::internal("no room for a descriptor"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL);
    match sent {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(sent) => Err(Error::unavailable(format!("the server took {sent} of {} bytes", bytes.len()))),
        Err(error) => Err(Error::unavailable(format!("the shared memory could not be handed over: {error}"))),
    }
}
