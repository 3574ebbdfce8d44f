//! Sealed memfds, mapped.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kingpole_values::{Error, Result};
use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// Every tensor in shared memory that we lay out starts at a multiple of this.
pub const ALIGNMENT_BYTES: usize = 64;
/// A memfd above this is refused, whoever made it: a broken size must not become an allocation.
pub const LARGEST_BYTES: usize = 1 << 36;
/// What a memfd must be sealed against.
pub const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The file system of memfds of ordinary pages. Those of huge pages are on another one, where a page that
/// cannot be had is SIGBUS.
///
/// Source: statfs(2), `TMPFS_MAGIC`.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A sealed memfd, mapped; its size never changes.
#[derive(Debug)]
pub struct Mapping {
    memory: NonNull<u8>,
    bytes: NonZeroUsize,
}

// SAFETY: the mapping belongs to the process, not to a thread; whoever writes says why it may.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Map what a peer made. The descriptor may be closed afterwards.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` unless it is a memfd whose size is sealed and sensible; `RESOURCE_EXHAUSTED` if it
    /// cannot be mapped.
    pub fn of(fd: impl AsFd) -> Result<Self> {
        // Seals first: once they hold, the size read next stays true.
        let seals = rustix::fs::fcntl_get_seals(&fd)
            .map_err(|_| Error::invalid("the file descriptor is not that of a memfd"))?;
        if !seals.contains(SEALS) {
            return Err(Error::invalid(
                "the memfd's size is not sealed: expected F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL",
            ));
        }
        let unreadable = |error| Error::invalid(format!("the memfd cannot be looked at: {error}"));
        #[allow(clippy::useless_conversion, reason = "the type differs between architectures")]
        let kind = i64::from(rustix::fs::fstatfs(&fd).map_err(unreadable)?.f_type);
        if kind != TMPFS_MAGIC {
            return Err(Error::invalid("the memfd is of huge pages, expected ordinary ones"));
        }
        let size = rustix::fs::fstat(&fd).map_err(unreadable)?.st_size;
        match usize::try_from(size).ok().and_then(NonZeroUsize::new) {
            Some(bytes) if bytes.get() <= LARGEST_BYTES => Self::map(fd, bytes),
            _ => Err(Error::invalid(format!("a memfd of {size} bytes, expected 1 to {LARGEST_BYTES}"))),
        }
    }

    fn map(fd: impl AsFd, bytes: NonZeroUsize) -> Result<Self> {
        let refuse = |reason: &str| Error::exhausted(format!("cannot map {bytes} bytes: {reason}"));
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no memory
        // that Rust knows of. The size is sealed, so no page of it can go away.
        let memory = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes.get(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &fd,
                0,
            )
        }
        .map_err(|error| refuse(&error.to_string()))?;
        let memory = NonNull::new(memory.cast()).ok_or_else(|| refuse("no address"))?;
        Ok(Self { memory, bytes })
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// What is in it now.
    pub fn contents(&self) -> &[u8] {
        // SAFETY: mapped and readable for the life of `self`. A peer that keeps to the protocol leaves a range
        // alone while we look at it; of one that does not, nothing is concluded from bytes read twice.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.bytes.get()) }
    }

    /// The same, to lay out a batch while nobody else uses it.
    pub fn contents_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped and writable for the life of `self`, borrowed alone; memory goes to a
        // peer only after it was laid out and comes back after the peer has released it.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.bytes.get()) }
    }

    /// A copy of a range, which then changes no more; it starts at a multiple of [`ALIGNMENT_BYTES`].
    ///
    /// # Panics
    /// If the range lies outside: whoever calls has checked it.
    pub fn copy(&self, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.bytes(), "a copy lies within its mapping");
        let mut copy = aligned(range.len());
        copy.extend_from_slice(&self.contents()[range]);
        finish(copy)
    }

    /// Write to a range that begins at `offset`, while the peer may look at it.
    ///
    /// # Panics
    /// If the range lies outside: whoever calls has checked it.
    pub fn write(&self, offset: usize, data: &[u8]) {
        assert!(
            offset.checked_add(data.len()).is_some_and(|end| end <= self.bytes()),
            "a write lies within its mapping"
        );
        // SAFETY: the destination is mapped and writable, checked above; no reference to it is held across
        // this call, and `copy` allows for the source to be a view of the same mapping.
        unsafe { std::ptr::copy(data.as_ptr(), self.memory.as_ptr().add(offset), data.len()) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size; views hold an `Arc` of whatever holds the mapping.
        // Unmapping one's own mapping cannot fail.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.bytes.get()) };
    }
}

impl AsRef<Mapping> for Mapping {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// A range of anything that holds a mapping, as bytes that keep it alive.
///
/// A peer may change the bytes at any time. They may be copied and computed with; nothing may be concluded
/// from them for a second reading.
///
/// # Panics
/// If the range lies outside the mapping: whoever calls has checked it.
pub fn view<A: AsRef<Mapping> + Send + Sync + 'static>(holder: &Arc<A>, range: Range<usize>) -> Bytes {
    struct View<A>(Arc<A>, Range<usize>);
    impl<A: AsRef<Mapping>> AsRef<[u8]> for View<A> {
        fn as_ref(&self) -> &[u8] {
            &(*self.0).as_ref().contents()[self.1.clone()]
        }
    }
    assert!(range.end <= (**holder).as_ref().bytes(), "a view lies within its mapping");
    if range.is_empty() {
        return Bytes::new();
    }
    Bytes::from_owner(View(Arc::clone(holder), range))
}

/// Room for so many bytes after some that bring them to a multiple of [`ALIGNMENT_BYTES`].
pub(crate) fn aligned(nbytes: usize) -> BytesMut {
    let mut memory = BytesMut::with_capacity(nbytes + ALIGNMENT_BYTES);
    let padding = memory.as_ptr().addr().next_multiple_of(ALIGNMENT_BYTES) - memory.as_ptr().addr();
    memory.resize(padding, 0);
    // What stands before is given up, and with it the address that the rest must keep.
    memory.split_off(padding)
}

pub(crate) fn finish(memory: BytesMut) -> Bytes {
    memory.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;
    use std::os::fd::OwnedFd;

    fn memfd(bytes: u64, seals: SealFlags) -> OwnedFd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, bytes).unwrap();
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    #[test]
    fn what_could_change_its_size_under_a_mapping_is_refused() {
        for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL] {
            let error = Mapping::of(memfd(4096, SEALS.difference(missing))).unwrap_err();
            assert!(error.message.contains("not sealed"), "without {missing:?}: {error:?}");
        }
        for bytes in [0, LARGEST_BYTES as u64 + 4096] {
            assert!(Mapping::of(memfd(bytes, SEALS)).is_err(), "{bytes} bytes");
        }
        assert!(Mapping::of(std::fs::File::open("/dev/null").unwrap()).is_err());
        // It can be read by both and written by neither.
        assert!(Mapping::of(memfd(4096, SEALS | SealFlags::WRITE)).is_err());
    }

    #[test]
    fn huge_pages_are_refused() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
        // Where the kernel has none there is nothing to refuse.
        let Ok(fd) = rustix::fs::memfd_create("test", flags) else { return };
        if rustix::fs::ftruncate(&fd, 2 << 20).is_err() || rustix::fs::fcntl_add_seals(&fd, SEALS).is_err() {
            return;
        }
        assert!(Mapping::of(fd).unwrap_err().message.contains("huge pages"));
    }

    #[test]
    fn a_copy_stays_as_it_was_and_is_aligned() {
        let fd = memfd(8192, SEALS);
        let (ours, theirs) = (Mapping::of(&fd).unwrap(), Mapping::of(&fd).unwrap());
        theirs.write(100, b"before");
        let copy = ours.copy(100..106);
        theirs.write(100, b"after.");
        assert_eq!((&copy[..], &ours.contents()[100..106]), (&b"before"[..], &b"after."[..]));
        assert_eq!(copy.as_ptr().addr() % ALIGNMENT_BYTES, 0);
    }

    #[test]
    fn a_view_keeps_the_mapping() {
        let mapping = Arc::new(Mapping::of(memfd(4096, SEALS)).unwrap());
        mapping.write(4090, b"end");
        let seen = view(&mapping, 4090..4093);
        drop(mapping);
        assert_eq!(&seen[..], b"end");
    }

    #[test]
    #[should_panic(expected = "within its mapping")]
    fn a_write_beyond_the_end_is_a_bug() {
        Mapping::of(memfd(4096, SEALS)).unwrap().write(4095, b"ab");
    }
}
