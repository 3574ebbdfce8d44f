//! The conversation with one worker: load, unload, execute.
//!
//! Any thread may start an operation; one reader (`Connection::run`) gives each its reply. Every
//! operation that was started is answered exactly once: reply, error, or the worker's end.

use std::sync::Arc;

use kingpole_values::{Error, Parameter, Result};
use tokio::sync::{mpsc, oneshot};

use super::channel::{AsyncChannel, Channel, MAX_PACKET_BYTES};
use super::layout::{ExecuteRequest, Executed, Part, lay_out};
use super::protocol::{LoadRequest, Loaded, ParameterMap, Ready, ToWorker};
use super::replies;
use super::shared::{Batch, Closing, Shared};

/// A conversation with one worker. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

impl Connection {
    /// A conversation over this channel, models being loaded over the other one if there is one. `models` and `pid` are what errors call the worker by;
    /// `max_idle_bytes` of shared memory are kept for the next batches.
    pub fn new(
        channel: Channel,
        load_channel: Option<Channel>,
        pid: u32,
        models: &str,
        max_idle_bytes: usize,
    ) -> Self {
        let name = format!("worker process {pid} for {models}");
        Self { shared: Shared::new(channel, load_channel, name, max_idle_bytes) }
    }

    /// Give replies to whoever waits for them, until the worker goes away. Spawn it once.
    ///
    /// Returns why it ended: `UNAVAILABLE` when the worker closed the socket, `INTERNAL` when it
    /// broke the protocol (then it should be killed). If this is dropped, every operation fails.
    pub async fn run(self) -> Error {
        let shared = &self.shared;
        let _closing = Closing(shared);
        let error = match AsyncChannel::new(Arc::clone(&shared.channel)) {
            Ok(channel) => tokio::select! {
                error = replies::receive(shared, &channel) => error,
                error = shared.send_outgoing(&channel) => shared.gone(&error),
            },
            Err(error) => {
                Error::internal(format!("the socket of {} cannot be watched: {error}", shared.name))
            }
        };
        shared.close(&error);
        error
    }

    /// Wait until the worker has said that it is there.
    pub async fn ready(&self) -> Result<Ready> {
        let mut ready = self.shared.ready.subscribe();
        loop {
            if let Some(ready) = ready.borrow_and_update().clone() {
                return Ok(ready);
            }
            if let Some(error) = self.shared.state().closed.clone() {
                return Err(error);
            }
            // The sender lives in `shared`, and closing notifies as well.
            let _ = ready.changed().await;
        }
    }

    /// Load a model.
    pub async fn load(&self, request: &LoadRequest) -> Result<Loaded> {
        let packet = ToWorker::Load(request).encode()?;
        let (reply, loaded) = oneshot::channel();
        {
            let mut state = self.shared.open_state()?;
            if state.loads.contains_key(&request.handle) {
                return Err(Error::internal(format!("handle {} is being loaded already", request.handle)));
            }
            state.loads.insert(request.handle, reply);
        }
        self.shared.send_load(packet);
        loaded.await.unwrap_or_else(|_| Err(self.shared.went_away()))
    }

    /// Unload a model.
    pub async fn unload(&self, handle: u32) -> Result<()> {
        let packet = ToWorker::Unload { handle }.encode()?;
        let (reply, unloaded) = oneshot::channel();
        {
            let mut state = self.shared.open_state()?;
            if state.unloads.contains_key(&handle) {
                return Err(Error::internal(format!("handle {handle} is being unloaded already")));
            }
            state.unloads.insert(handle, reply);
        }
        self.shared.send(packet, None);
        unloaded.await.unwrap_or_else(|_| Err(self.shared.went_away()))
    }

    /// Whether this batch can be sent at all; what does not fit in a packet cannot.
    pub fn check(&self, request: &ExecuteRequest) -> Result<()> {
        let bytes: usize = request.parameters.iter().flatten().map(parameter_bytes).sum();
        // Half of a packet is left for what describes the tensors and for how values are written.
        if bytes > MAX_PACKET_BYTES / 2 {
            return Err(Error::invalid(format!(
                "the requests' parameters have {bytes} bytes, at most {} can be given to a model",
                MAX_PACKET_BYTES / 2
            )));
        }
        Ok(())
    }

    /// Execute a batch. A worker runs one at a time; further ones wait at its socket.
    ///
    /// Dropping the future does not stop the worker, and its arena stays reserved until it is done.
    pub async fn execute(&self, request: &ExecuteRequest) -> Result<Executed> {
        let (_, executed) = self.begin(request, None)?;
        executed.await.unwrap_or_else(|_| Err(self.shared.went_away()))
    }

    /// Execute a batch of a model that gives several responses.
    pub fn execute_in_parts(&self, request: &ExecuteRequest) -> Result<Parts> {
        let (sender, arriving) = mpsc::unbounded_channel();
        let (sequence, executed) = self.begin(request, Some(sender))?;
        Ok(Parts { shared: Arc::clone(&self.shared), sequence, arriving, executed, ended: false })
    }

    fn begin(
        &self,
        request: &ExecuteRequest,
        parts: Option<mpsc::UnboundedSender<Result<Part>>>,
    ) -> Result<(u64, oneshot::Receiver<Result<Executed>>)> {
        let mut layout = lay_out(&self.shared.pool, request)?;
        let number = layout.arena.number();
        let (reply, executed) = oneshot::channel();
        let sequence = {
            let mut state = self.shared.open_state()?;
            state.sequence += 1;
            state.sequence
        };
        let inputs = request.inputs.iter().zip(&layout.inputs).map(|(input, &(offset, bytes))| {
            let name: &str = &input.name;
            (name, input.datatype.name(), input.shape.to_vec(), offset as u64, bytes as u64)
        });
        let packet = ToWorker::Execute {
            sequence,
            handle: request.handle,
            arena: number,
            inputs: inputs.collect(),
            rows: request.rows,
            request_rows: &request.request_rows,
            free: (layout.free.0 as u64, layout.free.1 as u64),
            parameters: request.parameters.iter().map(ParameterMap).collect(),
        }
        .encode()?;
        let is_new = layout.arena.is_new();
        let arena = Arc::new(layout.arena);
        let sent = is_new.then(|| Arc::clone(&arena));
        self.shared.open_state()?.batches.insert(sequence, Batch { arena, reply, parts });
        self.shared.send(packet, sent);
        Ok((sequence, executed))
    }

    /// Ask the worker to finish what it has and exit.
    pub fn stop(&self) {
        if let Ok(packet) = (ToWorker::Stop {}).encode() {
            self.shared.send(packet, None);
        }
    }

    /// End the conversation for this reason: every operation fails with it, and `run` returns it.
    pub fn abandon(&self, why: &Error) {
        self.shared.close(why);
        // The reader finds the end of the stream.
        self.shared.channel.shutdown();
    }

    /// Why the conversation ended, if it has.
    pub fn closed(&self) -> Option<Error> {
        self.shared.state().closed.clone()
    }
}

fn parameter_bytes((name, value): &(kingpole_values::ByteString, Parameter)) -> usize {
    name.len() + if let Parameter::String(text) = value { text.len() } else { size_of::<u64>() }
}

/// The responses of one batch, as they come. Dropped before the end, it tells the worker that nobody wants the rest.
pub struct Parts {
    shared: Arc<Shared>,
    sequence: u64,
    arriving: mpsc::UnboundedReceiver<Result<Part>>,
    executed: oneshot::Receiver<Result<Executed>>,
    ended: bool,
}

impl Parts {
    /// The next response; `None` after the last. The worker waits while several are held.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        match self.arriving.recv().await {
            Some(part) => part.map(Some),
            None => Ok(None),
        }
    }

    /// How the batch ended, to be asked after its last part.
    pub async fn ended(mut self) -> Result<Executed> {
        self.ended = true;
        (&mut self.executed).await.unwrap_or_else(|_| Err(self.shared.went_away()))
    }

    /// Say that nobody wants the rest, and wait for the worker to stop.
    pub async fn cancel(mut self) -> Result<Executed> {
        self.stop();
        self.arriving.close();
        while self.arriving.recv().await.is_some() {}
        self.ended().await
    }

    fn stop(&mut self) {
        if !std::mem::replace(&mut self.ended, true)
            && let Ok(packet) = (ToWorker::Cancel { sequence: self.sequence }).encode()
        {
            self.shared.send(packet, None);
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.stop();
    }
}
