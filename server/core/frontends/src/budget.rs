//! How many bytes of requests and answers all connections together may hold. Knows no protocol.
//!
//! What is charged is given back when the bytes are let go of, wherever that happens: see [`Charge::hold`].
//! Source of the rules and of the numbers: docs/adr/0011-memory-budget.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use kingpole_values::{Error, Result};

/// Shorter requests and answers are not counted: it would cost them an allocation, and how many of
/// them there can be is limited by other means.
pub(crate) const COUNTED_BYTES: usize = 16 * 1024;

/// What an HTTP/2 request that is waited for costs beside its own bytes: its task, stream and headers.
const WAITING_BYTES: usize = 4 * 1024;

/// A growing charge is taken in steps of this, so that the counter is touched seldom.
const STEP_BYTES: usize = 64 * 1024;

/// Mappings of clients' memory at once. A process has 65,530 of them for everything (Linux, `vm.max_map_count`).
const MAX_MAPPINGS: usize = 4096;

/// The bytes that may be held at once by everything that shares this, and those that are.
#[derive(Debug)]
pub struct MemoryBudget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    mappings: AtomicUsize,
}

impl MemoryBudget {
    /// A budget of this many bytes.
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { limit_bytes, used_bytes: AtomicUsize::new(0), mappings: AtomicUsize::new(0) })
    }

    /// The most that may be held at once.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Relaxed)
    }

    fn take(&self, nbytes: usize) -> Result<()> {
        // Taken first and looked at after: one atomic operation, and never more than the limit is granted.
        let before = self.used_bytes.fetch_add(nbytes, Relaxed);
        if before.saturating_add(nbytes) <= self.limit_bytes {
            return Ok(());
        }
        self.used_bytes.fetch_sub(nbytes, Relaxed);
        Err(Error::exhausted(format!(
            "the {} bytes that this server sets aside for requests and answers are in use; try again later",
            self.limit_bytes
        )))
    }
}

/// A reactor's hold on the budget. Each reactor has its own, so that counting who holds it is not
/// shared between processors.
#[derive(Debug)]
pub(crate) struct Account(Arc<MemoryBudget>);

impl Account {
    pub(crate) fn new(budget: Arc<MemoryBudget>) -> Arc<Self> {
        Arc::new(Self(budget))
    }

    /// A charge of nothing, which costs nothing until it grows.
    pub(crate) fn open(self: &Arc<Self>) -> Charge {
        Charge { account: Arc::clone(self), charged: 0 }
    }

    /// The right to one more mapping of a client's memory.
    pub(crate) fn take_mapping(self: &Arc<Self>) -> Result<MappingSlot> {
        let slot = MappingSlot(Arc::clone(self));
        if self.0.mappings.fetch_add(1, Relaxed) < MAX_MAPPINGS {
            return Ok(slot);
        }
        Err(Error::exhausted(format!("{MAX_MAPPINGS} arenas of shared memory are mapped already")))
    }

    /// Charge an answer for as long as it is not written. Where there is no room it is given up.
    pub(crate) fn hold_answer(self: &Arc<Self>, pieces: &mut [Bytes]) -> Result<()> {
        let nbytes: usize = pieces.iter().map(Bytes::len).sum();
        let Some(last) = pieces.last_mut().filter(|_| nbytes >= COUNTED_BYTES) else { return Ok(()) };
        let mut charge = self.open();
        charge.take(nbytes)?;
        // Pieces are written in order: when the last is let go of, all are.
        *last = charge.hold(std::mem::take(last));
        Ok(())
    }
}

/// One mapping of a client's memory, for as long as this lives.
#[derive(Debug)]
pub(crate) struct MappingSlot(Arc<Account>);

impl Drop for MappingSlot {
    fn drop(&mut self) {
        self.0.0.mappings.fetch_sub(1, Relaxed);
    }
}

/// Bytes taken from the budget, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    charged: usize,
}

impl Charge {
    fn take(&mut self, nbytes: usize) -> Result<()> {
        self.account.0.take(nbytes)?;
        self.charged += nbytes;
        Ok(())
    }

    /// A charge of nothing on the same account.
    pub(crate) fn another(&self) -> Self {
        self.account.open()
    }

    /// Charge for a request of which nothing has come yet.
    pub(crate) fn wait(&mut self) -> Result<()> {
        if self.charged == 0 { self.take(WAITING_BYTES) } else { Ok(()) }
    }

    /// Charge for `nbytes` in all, where that is more than before and worth counting.
    pub(crate) fn cover(&mut self, nbytes: usize) -> Result<()> {
        if nbytes < COUNTED_BYTES || nbytes <= self.charged {
            return Ok(());
        }
        self.take((nbytes - self.charged).next_multiple_of(STEP_BYTES))
    }

    /// Give the charge back when the last view of `bytes` is dropped; at once if it is small.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        if bytes.len() < COUNTED_BYTES && self.charged <= WAITING_BYTES {
            return bytes;
        }
        Bytes::from_owner(Held { bytes, _charge: self })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.charged > 0 {
            self.account.0.used_bytes.fetch_sub(self.charged, Relaxed);
        }
    }
}

struct Held {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kingpole_values::Code;

    fn account(limit_bytes: usize) -> (Arc<MemoryBudget>, Arc<Account>) {
        let budget = MemoryBudget::new(limit_bytes);
        (Arc::clone(&budget), Account::new(budget))
    }

    #[test]
    fn a_charge_grows_to_the_limit_and_no_further() {
        let (budget, account) = account(2 * STEP_BYTES);
        let mut charge = account.open();
        charge.cover(COUNTED_BYTES - 1).unwrap();
        assert_eq!(budget.used_bytes(), 0);
        charge.cover(STEP_BYTES).unwrap();
        charge.cover(STEP_BYTES + 1).unwrap();
        assert_eq!(budget.used_bytes(), 2 * STEP_BYTES);
        assert_eq!(charge.cover(2 * STEP_BYTES + 1).unwrap_err().code, Code::ResourceExhausted);
        assert_eq!(account.open().wait().unwrap_err().code, Code::ResourceExhausted);
        drop(charge);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn held_bytes_are_charged_until_their_last_view_is_gone() {
        let (budget, account) = account(1 << 20);
        let mut charge = account.open();
        charge.cover(STEP_BYTES).unwrap();
        let whole = charge.hold(Bytes::from(vec![7; STEP_BYTES]));
        let view = whole.slice(STEP_BYTES - 1..);
        drop(whole);
        assert_eq!(budget.used_bytes(), STEP_BYTES);
        assert_eq!(view, [7][..]);
        drop(view);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn only_long_answers_are_charged_and_only_where_there_is_room() {
        let (budget, account) = account(COUNTED_BYTES + 1);
        let long = || vec![Bytes::from_static(b"1"), Bytes::from(vec![0; COUNTED_BYTES])];
        let mut first = long();
        account.hold_answer(&mut first).unwrap();
        assert_eq!(budget.used_bytes(), COUNTED_BYTES + 1);
        assert!(account.hold_answer(&mut long()).is_err());
        account.hold_answer(&mut [Bytes::from_static(b"short")]).unwrap();
        drop(first);
        assert_eq!(budget.used_bytes(), 0);
    }
}
