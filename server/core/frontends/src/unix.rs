//! Unix sockets that keep the file descriptors a client sends with its bytes.
//!
//! Reading with `read`, as tokio's own stream does, closes them. Knows no protocol: whoever reads the bytes
//! also knows to which of them a descriptor belongs, by their order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// Descriptors of one connection that nobody has asked for yet; one more ends it.
const MAX_WAITING: usize = 16;
/// Room for two: the kernel rounds one up to that, and a second is then seen.
const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(2));

/// The descriptors that came on a connection, oldest first.
#[derive(Clone, Default)]
pub(crate) struct Descriptors(Rc<RefCell<VecDeque<OwnedFd>>>);

impl Descriptors {
    pub(crate) fn take(&self) -> Option<OwnedFd> {
        self.0.borrow_mut().pop_front()
    }
}

pub(crate) struct UnixSocket {
    stream: UnixStream,
    descriptors: Descriptors,
}

impl UnixSocket {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, descriptors: Descriptors::default() }
    }

    pub(crate) fn descriptors(&self) -> Descriptors {
        self.descriptors.clone()
    }

    fn receive(&self, room: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        // SAFETY: the slice only goes to the kernel, which writes to it and reads nothing of it.
        let room = unsafe { &mut *(std::ptr::from_mut(room) as *mut [u8]) };
        let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(room)], &mut ancillary, flags)?;
        let mut waiting = self.descriptors.0.borrow_mut();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                waiting.extend(sent);
            }
        }
        // The kernel never gives the descriptors of two writes at once, so that two came with one byte.
        if received.flags.contains(ReturnFlags::CTRUNC) || waiting.len() > MAX_WAITING {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more file descriptors than are taken"));
        }
        Ok(received.bytes)
    }
}

impl AsyncRead for UnixSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            // SAFETY: `receive` writes to the slice, if anything.
            let room = unsafe { buffer.unfilled_mut() };
            match self.stream.try_io(Interest::READABLE, || self.receive(room)) {
                Ok(nbytes) => {
                    // SAFETY: so many bytes at its start were just written by the kernel.
                    unsafe { buffer.assume_init(nbytes) };
                    buffer.advance(nbytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for UnixSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
