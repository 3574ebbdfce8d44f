//! What the two ends of a conversation share: those who start operations and the reader.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use kingpole_memory::Mapping;
use kingpole_values::{Error, Result};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::arena::{Arena, ArenaPool, PooledArena};
use super::channel::{AsyncChannel, Channel};
use super::layout::{Executed, Part};
use super::protocol::{Loaded, Ready, ToWorker};

/// All that both ends of a conversation know.
pub(super) struct Shared {
    pub channel: Arc<Channel>,
    /// Where models are loaded, if not on the same channel.
    load_channel: Option<Channel>,
    /// For example `worker process 71 for digits`.
    pub name: String,
    pub pool: Arc<ArenaPool>,
    pub state: Mutex<State>,
    /// Packets that the socket had no room for, oldest first.
    outgoing: Mutex<VecDeque<Outgoing>>,
    pub has_outgoing: Notify,
    pub ready: watch::Sender<Option<Ready>>,
}

/// Who waits for what.
#[derive(Default)]
pub(super) struct State {
    pub closed: Option<Error>,
    pub sequence: u64,
    pub batches: HashMap<u64, Batch>,
    pub loads: HashMap<u32, oneshot::Sender<Result<Loaded>>>,
    pub unloads: HashMap<u32, oneshot::Sender<Result<()>>>,
    pub worker_arenas: HashMap<u32, WorkerArena>,
}

/// A batch at the worker. Holds its arena whether or not anyone still waits for the reply.
pub(super) struct Batch {
    pub arena: Arc<PooledArena>,
    pub reply: oneshot::Sender<Result<Executed>>,
    /// Where its parts go, for a model that gives several responses.
    pub parts: Option<mpsc::UnboundedSender<Result<Part>>>,
}

pub(super) struct WorkerArena {
    pub arena: Arc<Arena>,
    pub lent: Weak<Lent>,
}

/// A worker's arena while we read it; the worker may use it again when this is dropped.
#[derive(Debug)]
pub(super) struct Lent {
    pub arena: Arc<Arena>,
    pub number: u32,
    pub shared: Weak<Shared>,
}

impl AsRef<Mapping> for Lent {
    fn as_ref(&self) -> &Mapping {
        (*self.arena).as_ref()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.release(self.number);
        }
    }
}

struct Outgoing {
    packet: Vec<u8>,
    arena: Option<Arc<PooledArena>>,
}

impl Outgoing {
    fn try_send(&self, channel: &Channel) -> io::Result<()> {
        channel.try_send(&self.packet, self.arena.as_ref().map(|arena| arena.as_fd()))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl Shared {
    pub fn new(
        channel: Channel,
        load_channel: Option<Channel>,
        name: String,
        max_idle_bytes: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            channel: Arc::new(channel),
            load_channel,
            name,
            pool: ArenaPool::new(max_idle_bytes),
            state: Mutex::default(),
            outgoing: Mutex::default(),
            has_outgoing: Notify::new(),
            ready: watch::Sender::new(None),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn open_state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        match &state.closed {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    pub fn went_away(&self) -> Error {
        Error::unavailable(format!("{} went away", self.name))
    }

    pub fn gone(&self, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::InvalidData => Error::internal(format!("{}: {error}", self.name)),
            _ => self.went_away(),
        }
    }

    /// End: everyone who waits learns of it, everyone who comes later too.
    pub fn close(&self, error: &Error) {
        let ended = {
            let mut state = self.state();
            if state.closed.is_some() {
                return;
            }
            std::mem::replace(&mut *state, State { closed: Some(error.clone()), ..State::default() })
        };
        // Replies after the lock was left: what they wake may ask for it.
        for batch in ended.batches.into_values() {
            let _ = batch.reply.send(Err(error.clone()));
        }
        for reply in ended.loads.into_values() {
            let _ = reply.send(Err(error.clone()));
        }
        for reply in ended.unloads.into_values() {
            let _ = reply.send(Err(error.clone()));
        }
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.ready.send_modify(|_| ());
    }

    /// Send now, or leave it to `run` when the socket is full. A failure ends the conversation.
    ///
    /// Not to be called with the state locked.
    pub fn send(&self, packet: Vec<u8>, arena: Option<Arc<PooledArena>>) {
        let outgoing = Outgoing { packet, arena };
        let mut queue = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.is_empty() {
            match outgoing.try_send(&self.channel) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(()) => return,
                Err(error) => {
                    drop(queue);
                    self.close(&self.gone(&error));
                    // The reader then finds the end of the stream.
                    self.channel.shutdown();
                    return;
                }
            }
        }
        queue.push_back(outgoing);
        drop(queue);
        self.has_outgoing.notify_one();
    }

    /// Ask for a model to be loaded, beside the batches where there is a channel for that.
    pub fn send_load(&self, packet: Vec<u8>) {
        let Some(channel) = &self.load_channel else { return self.send(packet, None) };
        // It holds nothing else, as models are loaded one at a time: a full one is a dead one.
        if let Err(error) = channel.try_send(&packet, None) {
            self.close(&self.gone(&error));
            self.channel.shutdown();
        }
    }

    pub fn release(&self, arena: u32) {
        if let Ok(packet) = (ToWorker::Release { arena }).encode() {
            self.send(packet, None);
        }
    }

    pub async fn send_outgoing(&self, channel: &AsyncChannel) -> io::Error {
        loop {
            self.has_outgoing.notified().await;
            let sent = channel
                .send_with(|| {
                    let mut queue = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
                    while let Some(first) = queue.front() {
                        first.try_send(&self.channel)?;
                        queue.pop_front();
                    }
                    Ok(())
                })
                .await;
            if let Err(error) = sent {
                return error;
            }
        }
    }
}

/// Ends the conversation when nobody reads it any more.
pub(super) struct Closing<'a>(pub &'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close(&Error::unavailable(format!("{} is no longer listened to", self.0.name)));
    }
}
