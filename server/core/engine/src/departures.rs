//! Clients that go while their requests wait or run elsewhere. Knows no client: responders tell.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use tokio::sync::Notify;

use crate::Pool;

/// What one reactor was told of the clients of its requests in pools.
pub(crate) struct Departures {
    told: Mutex<Vec<Arc<Watch>>>,
    reactor: Arc<Notify>,
}

/// The watch over the client of one request.
///
/// Being woken only says that there may be news. It may come while the client's connection is locked, so
/// the reactor looks later.
pub(crate) struct Watch {
    departures: Arc<Departures>,
    pool: Arc<Pool>,
    sequence: u64,
}

impl Departures {
    pub fn new(reactor: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { told: Mutex::default(), reactor })
    }

    /// A watch over one request's client.
    pub fn watch(self: &Arc<Self>, pool: &Arc<Pool>, sequence: u64) -> Arc<Watch> {
        Arc::new(Watch { departures: Arc::clone(self), pool: Arc::clone(pool), sequence })
    }

    /// Drop the requests of clients that have gone, wherever they are.
    pub fn settle(&self, now_us: u64) {
        let told = std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        for watch in told {
            let waker = Waker::from(Arc::clone(&watch));
            if let Some(request) = watch.pool.take_if_abandoned(watch.sequence, &waker) {
                request.discard(now_us);
            }
        }
    }
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        let departures = Arc::clone(&self.departures);
        departures.told.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        departures.reactor.notify_one();
    }
}
