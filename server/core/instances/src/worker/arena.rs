//! Arenas: sealed shared memory in which tensors lie while a worker works on them.
//!
//! Every arena is a memfd whose size is sealed, so that no peer can shrink it under a mapping
//! (which would end this process with SIGBUS). What a peer does to the *contents* cannot be
//! prevented; they are plain bytes, and a peer is a child of ours running the operator's code.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use kingpole_values::{Error, Result};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// Every tensor in an arena starts at a multiple of this.
pub const ALIGNMENT_BYTES: usize = 64;
/// The smallest arena of a pool.
pub const SMALLEST_BYTES: usize = 64 * 1024;
/// An arena above this is refused, whoever asks: a broken size must not become an allocation.
pub const LARGEST_BYTES: usize = 1 << 36;

const PAGE_BYTES: usize = 4096;
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A piece of shared memory, mapped; its size never changes.
#[derive(Debug)]
pub struct Arena {
    memory: NonNull<u8>,
    bytes: NonZeroUsize,
    fd: OwnedFd,
}

// SAFETY: the mapping belongs to the process, not to a thread; shared, it is only read.
unsafe impl Send for Arena {}
// SAFETY: as above; writing takes `&mut`.
unsafe impl Sync for Arena {}

impl Arena {
    /// A new arena of at least this many bytes, zeroed.
    pub fn create(min_bytes: usize) -> Result<Self> {
        let bytes = min_bytes.max(1).next_multiple_of(PAGE_BYTES);
        if min_bytes > LARGEST_BYTES {
            return Err(Error::exhausted(format!("an arena of {min_bytes} bytes is too large")));
        }
        let refuse = |error| Error::exhausted(format!("no shared memory of {bytes} bytes: {error}"));
        let fd = rustix::fs::memfd_create("kingpole-arena", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(refuse)?;
        rustix::fs::ftruncate(&fd, bytes as u64).map_err(refuse)?;
        rustix::fs::fcntl_add_seals(&fd, SEALS).map_err(refuse)?;
        Self::map(fd, bytes)
    }

    /// Map an arena that a peer made. Refused unless its size is sealed and sensible.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        // Seals first: once they hold, the size read next stays true.
        let seals = rustix::fs::fcntl_get_seals(&fd)
            .map_err(|_| Error::internal("a worker sent a file descriptor that is not a memfd"))?;
        if !seals.contains(SEALS) {
            return Err(Error::internal("a worker sent an arena whose size is not sealed"));
        }
        let size = rustix::fs::fstat(&fd)
            .map_err(|error| Error::internal(format!("a worker's arena cannot be read: {error}")))?
            .st_size;
        let bytes = usize::try_from(size).unwrap_or(0);
        if bytes == 0 || bytes > LARGEST_BYTES {
            return Err(Error::internal(format!("a worker sent an arena of {size} bytes")));
        }
        Self::map(fd, bytes)
    }

    fn map(fd: OwnedFd, bytes: usize) -> Result<Self> {
        let refuse = |reason: &str| Error::exhausted(format!("cannot map {bytes} bytes: {reason}"));
        let size = NonZeroUsize::new(bytes).ok_or_else(|| refuse("empty"))?;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no memory
        // that Rust knows of. The size is sealed, so no page of it can go away.
        let memory = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &fd,
                0,
            )
        }
        .map_err(|error| refuse(&error.to_string()))?;
        let memory = NonNull::new(memory.cast()).ok_or_else(|| refuse("no address"))?;
        Ok(Self { memory, bytes: size, fd })
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// What is in it now.
    pub fn contents(&self) -> &[u8] {
        // SAFETY: mapped and readable for the life of `self`. The protocol leaves a range alone
        // once it was handed over, and nothing is concluded from bytes read twice.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.bytes.get()) }
    }

    /// The same, to lay out a batch while nobody else uses it.
    pub fn contents_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped and writable for the life of `self`, borrowed alone; an arena goes to a
        // worker only after it was laid out and comes back after the worker has released it.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.bytes.get()) }
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size; views hold an `Arc` of whatever holds the arena.
        // Unmapping one's own mapping cannot fail.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.bytes.get()) };
    }
}

/// A range of anything that holds an arena, as bytes that keep it alive.
///
/// # Panics
/// If the range lies outside the arena: whoever calls has checked it.
pub fn view<A: AsRef<Arena> + Send + Sync + 'static>(arena: &Arc<A>, range: Range<usize>) -> Bytes {
    struct View<A>(Arc<A>, Range<usize>);
    impl<A: AsRef<Arena>> AsRef<[u8]> for View<A> {
        fn as_ref(&self) -> &[u8] {
            &(*self.0).as_ref().contents()[self.1.clone()]
        }
    }
    assert!(range.end <= (**arena).as_ref().bytes(), "a view lies within its arena");
    if range.is_empty() {
        return Bytes::new();
    }
    Bytes::from_owner(View(Arc::clone(arena), range))
}

/// Recycles arenas, by size: powers of two from `SMALLEST_BYTES`.
///
/// A pool belongs to one worker, so that no tensor is ever seen by another model's worker.
#[derive(Debug)]
pub struct ArenaPool {
    idle: Mutex<Idle>,
    max_idle_bytes: usize,
}

#[derive(Debug, Default)]
struct Idle {
    by_bytes: BTreeMap<usize, Vec<Numbered>>,
    bytes: usize,
    made: u32,
    /// Numbers of arenas that were given up since last asked.
    dropped: Vec<u32>,
}

#[derive(Debug)]
struct Numbered {
    number: u32,
    arena: Arena,
    sent: bool,
}

impl ArenaPool {
    /// A pool that keeps at most this many bytes of idle arenas.
    pub fn new(max_idle_bytes: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), max_idle_bytes })
    }

    /// An arena of at least this many bytes, for the caller alone.
    pub fn take(self: &Arc<Self>, min_bytes: usize) -> Result<PooledArena> {
        if min_bytes > LARGEST_BYTES {
            return Err(Error::exhausted(format!("a batch of {min_bytes} bytes is too large")));
        }
        let bytes = min_bytes.max(SMALLEST_BYTES).next_power_of_two();
        let number = {
            let mut idle = self.lock();
            if let Some(held) = idle.by_bytes.get_mut(&bytes).and_then(Vec::pop) {
                idle.bytes -= bytes;
                return Ok(PooledArena { held: Some(held), pool: Arc::downgrade(self) });
            }
            idle.made += 1;
            // The server's arenas have even numbers.
            (idle.made - 1).wrapping_mul(2)
        };
        let held = Numbered { number, arena: Arena::create(bytes)?, sent: false };
        Ok(PooledArena { held: Some(held), pool: Arc::downgrade(self) })
    }

    /// Numbers of arenas given up since the last call that the worker may unmap.
    pub fn take_dropped(&self) -> Vec<u32> {
        std::mem::take(&mut self.lock().dropped)
    }

    fn give_back(&self, held: Numbered) {
        let mut idle = self.lock();
        let bytes = held.arena.bytes();
        if idle.bytes + bytes > self.max_idle_bytes {
            if held.sent {
                idle.dropped.push(held.number);
            }
            return;
        }
        idle.bytes += bytes;
        idle.by_bytes.entry(bytes).or_default().push(held);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An arena of a pool; goes back to it when dropped.
#[derive(Debug)]
pub struct PooledArena {
    held: Option<Numbered>,
    pool: Weak<ArenaPool>,
}

impl PooledArena {
    fn held(&self) -> &Numbered {
        self.held.as_ref().expect("held until dropped")
    }

    /// The number by which both sides know it.
    pub fn number(&self) -> u32 {
        self.held().number
    }

    /// Whether the worker does not know it yet; from now on it is taken to.
    pub fn is_new(&mut self) -> bool {
        !std::mem::replace(&mut self.held.as_mut().expect("held until dropped").sent, true)
    }

    /// What is in it, to lay out a batch.
    pub fn contents_mut(&mut self) -> &mut [u8] {
        self.held.as_mut().expect("held until dropped").arena.contents_mut()
    }
}

impl AsRef<Arena> for PooledArena {
    fn as_ref(&self) -> &Arena {
        &self.held().arena
    }
}

impl Drop for PooledArena {
    fn drop(&mut self) {
        if let (Some(held), Some(pool)) = (self.held.take(), self.pool.upgrade()) {
            pool.give_back(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsealed(bytes: u64) -> OwnedFd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, bytes).unwrap();
        fd
    }

    #[test]
    fn the_size_of_an_arena_can_never_change() {
        let arena = Arena::create(5000).unwrap();
        assert_eq!(arena.bytes(), 8192, "page-rounded");
        for bytes in [0, 4096, 16384] {
            assert!(rustix::fs::ftruncate(&arena, bytes).is_err(), "{bytes}");
        }
        assert!(rustix::fs::fcntl_add_seals(&arena, SealFlags::WRITE).is_err());
    }

    #[test]
    fn both_sides_see_the_same_bytes() {
        let mut ours = Arena::create(1).unwrap();
        let theirs = Arena::from_fd(ours.as_fd().try_clone_to_owned().unwrap()).unwrap();
        ours.contents_mut()[4095] = 7;
        assert_eq!(theirs.contents()[4095], 7);
    }

    #[test]
    fn what_could_change_under_a_mapping_is_refused() {
        assert!(Arena::from_fd(unsealed(4096)).is_err());
        for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL] {
            let fd = unsealed(4096);
            rustix::fs::fcntl_add_seals(&fd, SEALS.difference(missing)).unwrap();
            assert!(Arena::from_fd(fd).is_err(), "without {missing:?}");
        }
        for bytes in [0, LARGEST_BYTES as u64 + 4096] {
            let fd = unsealed(bytes);
            rustix::fs::fcntl_add_seals(&fd, SEALS).unwrap();
            assert!(Arena::from_fd(fd).is_err(), "{bytes} bytes");
        }
        assert!(Arena::from_fd(std::fs::File::open("/dev/null").unwrap().into()).is_err());
    }

    #[test]
    fn an_arena_is_recycled_when_its_last_view_goes() {
        let pool = ArenaPool::new(SMALLEST_BYTES);
        let mut first = pool.take(100).unwrap();
        assert!(first.is_new() && !first.is_new(), "new to the worker once");
        first.contents_mut()[..3].copy_from_slice(b"abc");
        let first = Arc::new(first);
        let seen = view(&first, 0..3);
        drop(first);
        let mut second = pool.take(100).unwrap();
        assert_eq!((second.number(), second.is_new()), (2, true), "the first is still looked at");
        assert_eq!(&seen[..], b"abc");
        drop(seen);
        let mut third = pool.take(SMALLEST_BYTES).unwrap();
        assert_eq!((third.number(), third.is_new()), (0, false));
        assert_eq!(pool.take(SMALLEST_BYTES + 1).unwrap().number(), 4, "another size");
        drop(third);
        drop(second);
        assert_eq!(pool.take_dropped(), [2], "the pool was full again");
    }
}
