//! Arenas: sealed shared memory in which tensors lie while a worker works on them.
//!
//! Every arena is a memfd whose size is sealed, so that no peer can shrink it under a mapping
//! (which would end this process with SIGBUS). What a peer does to the *contents* cannot be
//! prevented; they are plain bytes, and a peer is a child of ours running the operator's code.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub use kingpole_memory::{ALIGNMENT_BYTES, LARGEST_BYTES, view};
use kingpole_memory::{Mapping, SEALS};
use kingpole_values::{Error, Result};
use rustix::fs::MemfdFlags;

/// The smallest arena of a pool.
pub const SMALLEST_BYTES: usize = 64 * 1024;

const PAGE_BYTES: usize = 4096;

/// A piece of shared memory, mapped, and the descriptor to hand it over with; its size never changes.
#[derive(Debug)]
pub struct Arena {
    mapping: Mapping,
    fd: OwnedFd,
}

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
        Ok(Self { mapping: Mapping::of(&fd)?, fd })
    }

    /// Map an arena that a worker made. Refused unless its size is sealed and sensible.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        // Workers run our own code: a wrong arena is a fault and not the client's.
        let mapping = Mapping::of(&fd)
            .map_err(|error| Error::internal(format!("a worker's arena: {}", error.message)))?;
        Ok(Self { mapping, fd })
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.mapping.bytes()
    }

    /// What is in it now.
    pub fn contents(&self) -> &[u8] {
        self.mapping.contents()
    }

    /// The same, to lay out a batch while nobody else uses it.
    pub fn contents_mut(&mut self) -> &mut [u8] {
        self.mapping.contents_mut()
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRef<Mapping> for Arena {
    fn as_ref(&self) -> &Mapping {
        &self.mapping
    }
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

impl AsFd for PooledArena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held().arena.as_fd()
    }
}

impl AsRef<Mapping> for PooledArena {
    fn as_ref(&self) -> &Mapping {
        &self.held().arena.mapping
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

    use rustix::fs::SealFlags;

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
