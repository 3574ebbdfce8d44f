//! What a worker says: each reply is checked and given to whoever waits for it.
//!
//! A reply that breaks the protocol ends the conversation. One that is well formed and wrong about
//! its tensors fails its batch only.

use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kingpole_memory::Mapping;
use kingpole_values::{Error, Result, Tensor};

use super::arena::{self, Arena, PooledArena};
use super::channel::{AsyncChannel, MAX_PACKET_BYTES};
use super::layout::{Executed, Part};
use super::protocol::{CheckedOutput, FromWorker, TensorRow, check_output, worker_error};
use super::shared::{Lent, Shared, WorkerArena};

/// Outputs of a batch up to this size are copied out, so that the arena is free again at once.
const COPY_BYTES: usize = 64 * 1024;
/// Arenas that one worker may have made; one that reuses them needs a handful.
const MAX_WORKER_ARENAS: usize = 256;

/// Read until the conversation ends; says why.
pub(super) async fn receive(shared: &Arc<Shared>, channel: &AsyncChannel) -> Error {
    let mut buffer = vec![0u8; MAX_PACKET_BYTES];
    loop {
        let packet = match channel.recv(&mut buffer).await {
            // Whoever ended it from our side has said why.
            Ok(packet) if packet.bytes == 0 => {
                return shared.state().closed.clone().unwrap_or_else(|| shared.went_away());
            }
            Ok(packet) => packet,
            Err(error) => return shared.gone(&error),
        };
        let read = FromWorker::decode(&buffer[..packet.bytes]);
        if let Err(error) = read.and_then(|said| dispatch(shared, said, packet.fd)) {
            return Error::new(error.code, format!("{}: {}", shared.name, error.message));
        }
    }
}

fn dispatch(shared: &Arc<Shared>, said: FromWorker, fd: Option<OwnedFd>) -> Result<()> {
    let unasked = |what: &str| Error::internal(format!("it {what}, which nobody asked for"));
    match said {
        FromWorker::Ready(ready) => {
            shared.ready.send_replace(Some(ready));
        }
        FromWorker::Loaded(loaded) => {
            let reply = shared.state().loads.remove(&loaded.handle);
            // Whoever asked may have stopped waiting; that is theirs to do, here and below.
            let _ = reply.ok_or_else(|| unasked("loaded a model"))?.send(Ok(loaded));
        }
        FromWorker::Failed { handle, code, message } => {
            let reply = shared.state().loads.remove(&handle);
            let reply = reply.ok_or_else(|| unasked("failed to load a model"))?;
            let _ = reply.send(Err(worker_error(&code, message)));
        }
        FromWorker::Unloaded { handle } => {
            let reply = shared.state().unloads.remove(&handle);
            let _ = reply.ok_or_else(|| unasked("unloaded a model"))?.send(Ok(()));
        }
        FromWorker::Error { sequence, code, message } => {
            let batch = shared.state().batches.remove(&sequence);
            let batch = batch.ok_or_else(|| unasked("failed a batch"))?;
            drop(batch.arena);
            let _ = batch.reply.send(Err(worker_error(&code, message)));
        }
        FromWorker::Part { sequence, arena, outputs } => {
            let parts = shared.state().batches.get(&sequence).and_then(|batch| batch.parts.clone());
            let parts = parts.ok_or_else(|| unasked("gave a part of a batch"))?;
            let part = borrow(shared, arena, fd)
                .and_then(|memory| Ok(Part { outputs: read(&memory, outputs)?, _memory: memory }));
            // Nobody wants it any more: the worker has been told, or will be.
            let _ = parts.send(part);
        }
        FromWorker::Done { sequence, arena, outputs, execute_us } => {
            let batch = shared.state().batches.remove(&sequence);
            let batch = batch.ok_or_else(|| unasked("executed a batch"))?;
            let executed = finish(shared, batch.arena, arena, fd, outputs).map(|outputs| Executed {
                output_bytes: outputs.iter().map(|output| output.data.len()).sum(),
                outputs,
                execute_us,
            });
            let _ = batch.reply.send(executed);
            for dropped in shared.pool.take_dropped() {
                shared.release(dropped);
            }
        }
    }
    Ok(())
}

/// The outputs of a batch that ran in `own`, lying in it or in an arena of the worker's.
fn finish(
    shared: &Arc<Shared>,
    own: Arc<PooledArena>,
    number: u32,
    fd: Option<OwnedFd>,
    outputs: Vec<TensorRow<String>>,
) -> Result<Vec<Tensor>> {
    if number == own.number() {
        return read(&own, outputs);
    }
    drop(own);
    read(&borrow(shared, number, fd)?, outputs)
}

/// An arena of the worker's, which has just handed it to us.
fn borrow(shared: &Arc<Shared>, number: u32, fd: Option<OwnedFd>) -> Result<Arc<Lent>> {
    if number.is_multiple_of(2) {
        return Err(Error::internal(format!("the worker's outputs are in arena {number}, not the batch's")));
    }
    let mapped = fd.map(Arena::from_fd).transpose()?;
    let mut state = shared.state();
    let known = state.worker_arenas.len();
    match (state.worker_arenas.entry(number), mapped) {
        (Entry::Occupied(mut place), mapped) => {
            if place.get().lent.strong_count() > 0 {
                return Err(Error::internal(format!("the worker used arena {number} before its release")));
            }
            let place = place.get_mut();
            if let Some(mapped) = mapped {
                place.arena = Arc::new(mapped);
            }
            let arena = Arc::clone(&place.arena);
            let lent = Arc::new(Lent { arena, number, shared: Arc::downgrade(shared) });
            place.lent = Arc::downgrade(&lent);
            Ok(lent)
        }
        (Entry::Vacant(_), _) if known >= MAX_WORKER_ARENAS => {
            Err(Error::internal(format!("the worker made more than {MAX_WORKER_ARENAS} arenas")))
        }
        (Entry::Vacant(place), Some(mapped)) => {
            let arena = Arc::new(mapped);
            let lent = Arc::new(Lent { arena: Arc::clone(&arena), number, shared: Arc::downgrade(shared) });
            place.insert(WorkerArena { arena, lent: Arc::downgrade(&lent) });
            Ok(lent)
        }
        (Entry::Vacant(_), None) => Err(Error::internal(format!("the worker's arena {number} is unknown"))),
    }
}

fn read<A>(held: &Arc<A>, outputs: Vec<TensorRow<String>>) -> Result<Vec<Tensor>>
where
    A: AsRef<Mapping> + Send + Sync + 'static,
{
    let memory = (**held).as_ref();
    let checked: Vec<CheckedOutput> =
        outputs.into_iter().map(|row| check_output(row, memory.bytes())).collect::<Result<_>>()?;
    // Outputs may overlap, so the sum can pass the arena's size, but not by much in a packet.
    let total = checked.iter().fold(0usize, |sum, output| sum.saturating_add(output.range.len()));
    let mut copy = (total <= COPY_BYTES).then(|| {
        let mut copy = BytesMut::with_capacity(total);
        for output in &checked {
            copy.extend_from_slice(&memory.contents()[output.range.clone()]);
        }
        copy.freeze()
    });
    checked
        .into_iter()
        .map(|CheckedOutput { name, datatype, shape, range }| {
            let data: Bytes = match &mut copy {
                Some(copy) => copy.split_to(range.len()),
                None => arena::view(held, range),
            };
            let tensor = Tensor { name, datatype, shape, data };
            tensor
                .check_size()
                .map_err(|error| Error::internal(format!("the worker's {}", error.message)))?;
            Ok(tensor)
        })
        .collect()
}
