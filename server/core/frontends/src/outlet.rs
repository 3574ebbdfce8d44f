//! The way of responses from wherever they are made to the one task that writes them. Knows no protocol.
//!
//! What ends a request always passes, for there is one for each request. Parts of a response pass as fast as
//! they are written: whoever makes them asks first whether there is room.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::sync::{mpsc, oneshot};

/// Parts that may wait to be written, and bytes of them.
const MAX_PARTS: usize = 16;
const MAX_PART_BYTES: usize = 1 << 20;

/// Held for as long as the answer to a request is wanted.
pub(crate) type Want = oneshot::Receiver<Infallible>;

/// Tells whoever makes the answer whether it is wanted.
pub(crate) struct Wanted(oneshot::Sender<Infallible>);

/// The two ends of a request's being wanted.
pub(crate) fn want() -> (Want, Wanted) {
    let (wanted, want) = oneshot::channel();
    (want, Wanted(wanted))
}

impl Wanted {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.is_closed()
    }

    pub(crate) fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_closed(cx)
    }
}

#[derive(Default)]
struct Filled {
    parts: usize,
    nbytes: usize,
    closed: bool,
    waiting: Vec<Waker>,
}

#[derive(Default)]
struct Room(Mutex<Filled>);

impl Room {
    fn lock(&self) -> MutexGuard<'_, Filled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(mut filled: MutexGuard<'_, Filled>) {
        let waiting = std::mem::take(&mut filled.waiting);
        drop(filled);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A thing on its way, and the bytes of it if it is a part.
struct Passing<T> {
    thing: T,
    part_bytes: Option<usize>,
}

/// Where answers are put.
pub(crate) struct Outlet<T> {
    sender: mpsc::UnboundedSender<Passing<T>>,
    room: Arc<Room>,
}

/// Where they come out, in the order they were put.
pub(crate) struct Outflow<T> {
    receiver: mpsc::UnboundedReceiver<Passing<T>>,
    room: Arc<Room>,
}

/// The two ends.
pub(crate) fn outlet<T>() -> (Outlet<T>, Outflow<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::<Room>::default();
    (Outlet { sender, room: Arc::clone(&room) }, Outflow { receiver, room })
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), room: Arc::clone(&self.room) }
    }
}

impl<T> Outlet<T> {
    /// Put what is put once for each request. If nobody takes it any more there is nobody to tell.
    pub(crate) fn put(&self, thing: T) {
        let _ = self.sender.send(Passing { thing, part_bytes: None });
    }

    /// Put a part of so many bytes. Only when `poll_ready` says that there is room.
    pub(crate) fn put_part(&self, thing: T, nbytes: usize) {
        let mut filled = self.room.lock();
        filled.parts += 1;
        filled.nbytes += nbytes;
        drop(filled);
        let _ = self.sender.send(Passing { thing, part_bytes: Some(nbytes) });
    }

    /// Ready when there is room for a part, or when nobody takes any more.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut filled = self.room.lock();
        if filled.closed || filled.parts < MAX_PARTS && filled.nbytes < MAX_PART_BYTES {
            return Poll::Ready(());
        }
        if !filled.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            filled.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<T> Outflow<T> {
    fn taken(&self, passing: Passing<T>) -> T {
        if let Some(nbytes) = passing.part_bytes {
            let mut filled = self.room.lock();
            filled.parts -= 1;
            filled.nbytes -= nbytes;
            Room::wake(filled);
        }
        passing.thing
    }

    /// The next thing; `None` once nobody can put any more.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let next = ready!(self.receiver.poll_recv(cx));
        Poll::Ready(next.map(|passing| self.taken(passing)))
    }

    pub(crate) async fn next(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next thing if it is there already.
    pub(crate) fn try_next(&mut self) -> Option<T> {
        let next = self.receiver.try_recv().ok()?;
        Some(self.taken(next))
    }
}

impl<T> Drop for Outflow<T> {
    fn drop(&mut self) {
        let mut filled = self.room.lock();
        filled.closed = true;
        Room::wake(filled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_wait_for_room_and_what_ends_a_request_does_not() {
        let cx = &mut Context::from_waker(Waker::noop());
        let (outlet, mut outflow) = outlet();
        for part in 0..MAX_PARTS {
            assert!(outlet.poll_ready(cx).is_ready());
            outlet.put_part(part, 1);
        }
        assert!(outlet.poll_ready(cx).is_pending());
        outlet.put(MAX_PARTS);
        assert_eq!(outflow.try_next(), Some(0));
        assert!(outlet.poll_ready(cx).is_ready());
        outlet.put_part(0, MAX_PART_BYTES);
        assert!(outlet.poll_ready(cx).is_pending(), "long parts fill it as well");
        drop(outflow);
        assert!(outlet.poll_ready(cx).is_ready(), "nobody has to wait for one who is gone");
    }
}
