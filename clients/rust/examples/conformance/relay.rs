//! A Unix socket in front of another: passes bytes and descriptors on, and counts the bytes.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::expect::Outcome;

pub struct Relay {
    directory: PathBuf,
    nbytes: Arc<AtomicU64>,
}

impl Relay {
    pub fn start(behind: &str) -> Outcome<Self> {
        let directory = std::env::temp_dir().join(format!("kingpole-relay-{}", std::process::id()));
        std::fs::create_dir(&directory)?;
        let listener = UnixListener::bind(directory.join("s"))?;
        let nbytes = Arc::new(AtomicU64::new(0));
        let (behind, counted) = (behind.to_owned(), Arc::clone(&nbytes));
        thread::spawn(move || {
            for front in listener.incoming().flatten() {
                let Ok(back) = UnixStream::connect(&behind) else { return };
                let (Ok(from), Ok(to)) = (front.try_clone(), back.try_clone()) else { return };
                let (there, back_again) = (Arc::clone(&counted), Arc::clone(&counted));
                thread::spawn(move || pass(&from, &to, &there));
                thread::spawn(move || pass(&back, &front, &back_again));
            }
        });
        Ok(Self { directory, nbytes })
    }

    pub fn url(&self) -> String {
        format!("unix:{}/s", self.directory.display())
    }

    pub fn nbytes(&self) -> u64 {
        self.nbytes.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn pass(from: &UnixStream, to: &UnixStream, nbytes: &AtomicU64) {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        let received = received.map_or(0, |received| received.bytes);
        if received == 0 {
            let _ = to.shutdown(std::net::Shutdown::Write);
            return;
        }
        nbytes.fetch_add(received as u64, Ordering::SeqCst);
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                descriptors.extend(more);
            }
        }
        if !send_all(to, &bytes[..received], &descriptors) {
            return;
        }
    }
}

fn send_all(to: &UnixStream, mut bytes: &[u8], descriptors: &[OwnedFd]) -> bool {
    let mut descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    while !bytes.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        match sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(_) => return false,
        }
        descriptors.clear();
    }
    true
}
