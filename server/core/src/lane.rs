//! A worker as the engine sees it: a lane, and which models it can run at the moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kingpole_engine::{Lane, LaneBatch, LaneFailure, LaneFuture, LaneOutcome};
use kingpole_instances::worker::{BatchInput, Connection, ExecuteRequest, Executed};
use kingpole_values::{Code, Error, Result, Tensor};
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;

/// Room for outputs before anything is known of them.
const UNKNOWN_OUTPUT_BYTES: usize = 1 << 12;

/// The models of one worker, over all its lives.
#[derive(Default)]
pub struct WorkerModels(Mutex<HashMap<u32, WorkerModel>>);

struct WorkerModel {
    name: String,
    /// A batch that runs longer ends the worker.
    execute_limit: Duration,
    state: State,
    /// Bytes of outputs for each row, as last seen, so that the next batch leaves room for them.
    output_row_bytes: Option<usize>,
}

enum State {
    /// The process does not have it yet (again).
    Loading,
    Loaded,
    /// The process could not take it back; batches are answered with this.
    Lost(Error),
}

impl WorkerModels {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, WorkerModel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A model is about to be loaded.
    pub fn expect(&self, handle: u32, name: &str, execute_limit: Duration) {
        let model = WorkerModel {
            name: name.to_owned(),
            execute_limit,
            state: State::Loading,
            output_row_bytes: None,
        };
        self.lock().insert(handle, model);
    }

    /// The process has it.
    pub fn loaded(&self, handle: u32) {
        self.set(handle, State::Loaded);
    }

    /// The process cannot have it.
    pub fn lost(&self, handle: u32, error: Error) {
        self.set(handle, State::Lost(error));
    }

    /// A new process begins, which has nothing yet.
    pub fn begin_anew(&self) {
        for model in self.lock().values_mut() {
            if matches!(model.state, State::Loaded) {
                model.state = State::Loading;
            }
        }
    }

    /// It was unloaded.
    pub fn forget(&self, handle: u32) {
        self.lock().remove(&handle);
    }

    fn set(&self, handle: u32, state: State) {
        if let Some(model) = self.lock().get_mut(&handle) {
            model.state = state;
        }
    }

    /// Whether a batch of this model would be answered now.
    fn takes(&self, handle: u32) -> bool {
        !matches!(self.lock().get(&handle), Some(WorkerModel { state: State::Loading, .. }))
    }

    /// What a batch of this many rows needs to know: its time limit and the bytes its outputs may take.
    fn begin(&self, handle: u32, rows: usize) -> Result<(Duration, usize)> {
        match self.lock().get(&handle) {
            Some(WorkerModel { state: State::Lost(error), .. }) => Err(error.clone()),
            Some(model) => {
                let output_bytes = model.output_row_bytes.map_or(UNKNOWN_OUTPUT_BYTES, |bytes| bytes * rows);
                Ok((model.execute_limit, output_bytes))
            }
            None => Err(Error::unavailable("the model was unloaded")),
        }
    }

    fn learn(&self, handle: u32, row_bytes: usize) {
        if let Some(model) = self.lock().get_mut(&handle) {
            model.output_row_bytes = model.output_row_bytes.max(Some(row_bytes));
        }
    }

    fn name(&self, handle: u32) -> String {
        self.lock().get(&handle).map_or_else(|| "unloaded".to_owned(), |model| model.name.clone())
    }
}

/// One life of a worker as a lane.
pub struct WorkerLane {
    connection: Connection,
    models: Arc<WorkerModels>,
    /// Held while a batch runs: a limit counts from its own batch's begin, not from that of another's.
    executing: Arc<tokio::sync::Mutex<()>>,
}

impl WorkerLane {
    /// The lane that this conversation is.
    pub fn new(
        connection: Connection,
        models: Arc<WorkerModels>,
        executing: Arc<tokio::sync::Mutex<()>>,
    ) -> Self {
        Self { connection, models, executing }
    }
}

impl Lane for WorkerLane {
    fn takes(&self, handle: u32) -> bool {
        self.models.takes(handle)
    }

    fn execute(&self, handle: u32, mut batch: LaneBatch) -> LaneFuture {
        let listener = batch.parts.take();
        let connection = self.connection.clone();
        let models = Arc::clone(&self.models);
        let rows = batch.rows.max(1) as usize;
        let inputs = batch
            .inputs
            .into_iter()
            .map(|input| BatchInput {
                name: input.name,
                datatype: input.datatype,
                shape: input.shape,
                pieces: input.pieces.into_vec(),
            })
            .collect();
        let (limit, output_bytes) = match models.begin(handle, rows) {
            Ok(begun) => begun,
            Err(error) => return Box::pin(std::future::ready(Err(LaneFailure::Batch(error)))),
        };
        let request = ExecuteRequest {
            handle,
            inputs,
            rows: batch.rows,
            request_rows: batch.request_rows,
            output_bytes,
            parameters: batch.parameters,
        };
        if let Err(error) = connection.check(&request) {
            return Box::pin(std::future::ready(Err(LaneFailure::Refused(error))));
        }
        let executing = Arc::clone(&self.executing);
        Box::pin(async move {
            let _one_at_a_time = executing.lock().await;
            let executed = match listener {
                None => tokio::time::timeout(limit, connection.execute(&request)).await,
                Some(parts) => in_parts(&connection, &request, limit, parts).await,
            };
            let Ok(executed) = executed else {
                let error = overran(&models.name(handle), limit);
                connection.abandon(&Error::unavailable(error.message.clone()));
                return Err(LaneFailure::Hung(error));
            };
            match executed {
                Ok(executed) => {
                    models.learn(handle, executed.output_bytes.div_ceil(rows) + 64);
                    Ok(LaneOutcome { outputs: executed.outputs, execute_us: executed.execute_us })
                }
                Err(error) if connection.closed().is_some() => Err(LaneFailure::Lost(error)),
                Err(error) => Err(LaneFailure::Batch(error)),
            }
        })
    }
}

/// Pass a batch's responses on one by one. The limit is for the time between two of them.
async fn in_parts(
    connection: &Connection,
    request: &ExecuteRequest,
    limit: Duration,
    listener: mpsc::Sender<Vec<Tensor>>,
) -> std::result::Result<Result<Executed>, Elapsed> {
    let mut parts = match connection.execute_in_parts(request) {
        Ok(parts) => parts,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout(limit, parts.next()) => next?,
            () = listener.closed() => return tokio::time::timeout(limit, parts.cancel()).await,
        };
        let part = match next {
            Ok(Some(part)) => part,
            Ok(None) => return tokio::time::timeout(limit, parts.ended()).await,
            Err(error) => return tokio::time::timeout(limit, parts.cancel()).await.map(|_| Err(error)),
        };
        // The lane is kept for a client that reads slowly, but not for one that does not read.
        match tokio::time::timeout(limit, listener.send(part.outputs)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return tokio::time::timeout(limit, parts.cancel()).await,
            Err(_) => {
                let message =
                    format!("the client took none of the waiting responses for {} s", limit.as_secs());
                let error = Error::new(Code::DeadlineExceeded, message);
                return tokio::time::timeout(limit, parts.cancel()).await.map(|_| Err(error));
            }
        }
    }
}

/// What is said of a batch that took too long.
pub fn overran(model: &str, limit: Duration) -> Error {
    Error::internal(format!(
        "a batch of model '{model}' ran for more than {} s, so its worker was ended; \
         `execute_limit_seconds` in the model's configuration allows more",
        limit.as_secs()
    ))
}
