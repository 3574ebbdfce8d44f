//! Waiting on a file descriptor: the one place that makes tokio's promise about it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that stays open, and the same, for as long as this lives.
#[derive(Debug)]
pub(super) struct Watched(Arc<OwnedFd>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Register a descriptor with the runtime that this is called in.
pub(super) fn watch(fd: &Arc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Watched>> {
    // SAFETY: `Watched` shares ownership of the descriptor and never gives it out to be closed or
    // changed, so it is open and the same until the `AsyncFd` has dropped it.
    Ok(unsafe { AsyncFd::register_with_interest(Watched(Arc::clone(fd)), interest) }?)
}
