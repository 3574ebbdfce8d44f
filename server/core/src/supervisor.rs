//! Worker processes: started, watched, started again, stopped.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kingpole_engine::{Lane, LaneBatch, LaneFailure, LaneFuture, LaneOutcome, Pool, Shared};
use kingpole_instances::worker::{
    BatchInput, Connection, ExecuteRequest, LoadRequest as WorkerLoad, Loaded, WorkerProcess,
};
use kingpole_values::{Error, Result, Tensor};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::models::ModelFiles;
use crate::server::Server;

/// How long a worker may take from its start to saying that it is there.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a worker may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a second start in a row; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A worker that lived this long is not failing at start.
const SETTLED: Duration = Duration::from_secs(10);
/// After this many failed starts in a row, requests are no longer kept waiting.
const GIVE_UP_AFTER: u32 = 4;
/// Shared memory that is kept for the next batches, for each worker.
const IDLE_ARENA_BYTES: usize = 64 << 20;

/// The workers behind one engine pool.
pub struct WorkerPool {
    pool: Arc<Pool>,
    workers: Vec<Arc<Worker>>,
    next_handle: AtomicU32,
}

/// What a worker's conversation has come to.
#[derive(Clone)]
enum Link {
    Starting,
    Up(Connection),
    Failed(Error),
}

struct Worker {
    index: usize,
    label: String,
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    /// Where its socket is read.
    reader: Handle,
    /// Models to load again after a restart.
    loads: Mutex<BTreeMap<u32, WorkerLoad>>,
    link: watch::Sender<Link>,
    stopping: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
    pid: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WorkerPool {
    /// Start this many workers; they come up in the background.
    pub fn start(server: &Arc<Server>, count: usize, label: &str) -> Result<Arc<Self>> {
        let configuration = &server.configuration;
        if configuration.worker_command.is_empty() {
            return Err(Error::internal("no worker command was configured"));
        }
        let mut environment = configuration.worker_environment.clone();
        let threads = (configuration.threads / count).max(1);
        environment.entry("KINGPOLE_THREADS".to_owned()).or_insert_with(|| threads.to_string());
        let pool = Pool::new(count);
        let workers: Vec<Arc<Worker>> = (0..count)
            .map(|index| {
                Arc::new(Worker {
                    index,
                    label: label.to_owned(),
                    command: configuration.worker_command.clone(),
                    environment: environment.clone(),
                    pool: pool.clone(),
                    shared: server.shared.clone(),
                    reader: server.reactor_handle(index),
                    loads: Mutex::default(),
                    link: watch::Sender::new(Link::Starting),
                    stopping: watch::Sender::new(false),
                    stopped: watch::Sender::new(false),
                    pid: AtomicU32::new(0),
                })
            })
            .collect();
        for worker in &workers {
            server.background.spawn(worker.clone().supervise());
        }
        Ok(Arc::new(Self { pool, workers, next_handle: AtomicU32::new(1) }))
    }

    /// The engine's side of it.
    pub fn lanes(&self) -> Arc<Pool> {
        self.pool.clone()
    }

    /// Load a model into every worker of the pool.
    pub async fn load(&self, files: ModelFiles) -> Result<(u32, Loaded)> {
        let handle = self.next_handle.fetch_add(1, Relaxed);
        let request = WorkerLoad {
            handle,
            backend: files.backend,
            directory: files.directory,
            configuration: files.configuration,
            device: files.device,
        };
        let mut loaded = None;
        for worker in &self.workers {
            let connection = worker.connection().await?;
            match connection.load(&request).await {
                Ok(signature) => {
                    lock(&worker.loads).insert(handle, request.clone());
                    loaded = Some(signature);
                }
                Err(error) => {
                    self.unload(handle).await;
                    return Err(error);
                }
            }
        }
        let loaded = loaded.ok_or_else(|| Error::internal("a worker pool has no workers"))?;
        Ok((handle, loaded))
    }

    /// Unload a model wherever it is loaded.
    pub async fn unload(&self, handle: u32) {
        for worker in &self.workers {
            let known = lock(&worker.loads).remove(&handle).is_some();
            let link = worker.link.borrow().clone();
            if let (true, Link::Up(connection)) = (known, link) {
                // A worker that goes away now has unloaded it as well.
                let _ = connection.unload(handle).await;
            }
        }
    }

    /// Run one batch outside the queues, to warm up. Every worker runs it.
    pub async fn try_out(&self, handle: u32, inputs: Vec<Tensor>) -> Result<()> {
        let rows = inputs.first().and_then(|input| input.shape.first()).map_or(1, |&rows| rows.max(1));
        let rows = u32::try_from(rows).unwrap_or(1);
        let batch: Vec<BatchInput> = inputs
            .into_iter()
            .map(|input| BatchInput {
                name: input.name,
                datatype: input.datatype,
                shape: input.shape,
                pieces: vec![input.data],
            })
            .collect();
        for worker in &self.workers {
            let request = ExecuteRequest {
                handle,
                inputs: batch.clone(),
                rows,
                request_rows: vec![rows],
                output_bytes: 1 << 16,
                parameters: Vec::new(),
            };
            worker.connection().await?.execute(&request).await?;
        }
        Ok(())
    }

    /// Ask every worker to stop; whoever does not is killed.
    pub async fn stop(&self) {
        for worker in &self.workers {
            worker.stopping.send_replace(true);
        }
        let deadline = tokio::time::Instant::now() + STOP_TIMEOUT + Duration::from_secs(1);
        for worker in &self.workers {
            let mut stopped = worker.stopped.subscribe();
            // A worker that takes longer is killed when its process is dropped.
            let _ = tokio::time::timeout_at(deadline, stopped.wait_for(|&stopped| stopped)).await;
        }
    }

    /// Process ids of those alive.
    pub fn pids(&self) -> Vec<u32> {
        self.workers.iter().map(|worker| worker.pid.load(Relaxed)).filter(|&pid| pid != 0).collect()
    }
}

impl Worker {
    /// The conversation, once it is up.
    async fn connection(&self) -> Result<Connection> {
        let mut link = self.link.subscribe();
        let state =
            tokio::time::timeout(READY_TIMEOUT, link.wait_for(|link| !matches!(link, Link::Starting)))
                .await
                .map_err(|_| Error::unavailable(format!("the worker for {} did not come up", self.label)))?
                .map_err(|_| Error::unavailable(format!("the worker for {} was stopped", self.label)))?;
        match &*state {
            Link::Up(connection) => Ok(connection.clone()),
            Link::Failed(error) => Err(error.clone()),
            Link::Starting => Err(Error::internal("waited for a worker and got none")),
        }
    }

    async fn supervise(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        let mut failures = 0;
        while !*stopping.borrow() {
            let began = Instant::now();
            let ended = self.live_once().await;
            self.pid.store(0, Relaxed);
            let Some(reason) = ended.filter(|_| !*stopping.borrow()) else { break };
            failures = if began.elapsed() > SETTLED { 0 } else { failures + 1 };
            eprintln!("kingpole: the worker for {} {reason}; starting it again", self.label);
            if failures >= GIVE_UP_AFTER {
                let error = Error::unavailable(format!(
                    "the worker for {} cannot be started: it {reason}",
                    self.label
                ));
                self.pool.give_up(&error, self.shared.clock().now_us());
                self.link.send_replace(Link::Failed(error));
            }
            // The first restart is immediate: a single crash should cost its clients little.
            if failures > 1 {
                let pause = FIRST_PAUSE * 2u32.saturating_pow(failures - 2);
                tokio::select! {
                    () = tokio::time::sleep(pause.min(LONGEST_PAUSE)) => {}
                    () = asked_to_stop(&mut stopping) => {}
                }
            }
        }
        // Whoever still waits, waits for a lane that will never come.
        let error = Error::unavailable(format!("the worker for {} was stopped", self.label));
        self.pool.give_up(&error, self.shared.clock().now_us());
        self.link.send_replace(Link::Failed(error));
        self.stopped.send_replace(true);
    }

    /// One life of the process. Gives the reason of its end; `None` if it ended with the server.
    async fn live_once(&self) -> Option<String> {
        let (process, channel) = match WorkerProcess::spawn(&self.command, &self.environment) {
            Ok(spawned) => spawned,
            Err(error) => return Some(format!("could not be started: {}", error.message)),
        };
        self.pid.store(process.pid(), Relaxed);
        let connection = Connection::new(channel, process.pid(), &self.label, IDLE_ARENA_BYTES);
        let reading = self.reader.spawn(connection.clone().run());
        match tokio::time::timeout(READY_TIMEOUT, self.introduce(&connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(end(process, &connection, &error.message).await),
            Err(_) => return Some(end(process, &connection, "did not come up in time").await),
        }
        self.pool.attach(self.index, Arc::new(ConnectionLane::new(connection.clone())));
        self.link.send_replace(Link::Up(connection.clone()));
        self.shared.wake();
        let mut stopping = self.stopping.subscribe();
        let reason = tokio::select! {
            ended = process.wait() => Some(ended),
            broken = reading => {
                // Without an error its reactor has ended, as the last thing of a drain. With one the
                // conversation ended first: either the process is just going, or it must go.
                let with_server = broken.is_err();
                let said = broken.map_or_else(|_| "the server has ended".into(), |error| error.message);
                let ended = end(process, &connection, &said).await;
                (!with_server).then_some(ended)
            }
            () = asked_to_stop(&mut stopping) => {
                connection.stop();
                if tokio::time::timeout(STOP_TIMEOUT, process.wait()).await.is_err() {
                    process.kill();
                }
                None
            }
        };
        self.pool.detach(self.index);
        self.link.send_replace(Link::Starting);
        reason
    }

    /// Wait for the worker, and give it the models its predecessor had.
    async fn introduce(&self, connection: &Connection) -> Result<()> {
        connection.ready().await?;
        let loads: Vec<WorkerLoad> = lock(&self.loads).values().cloned().collect();
        for request in loads {
            if let Err(error) = connection.load(&request).await {
                // Its batches will fail with the worker's own words; the other models go on.
                eprintln!("kingpole: the worker for {} could not load a model again: {error}", self.label);
            }
        }
        Ok(())
    }
}

/// See to it that a process whose conversation is over ends too. Gives how it ended.
async fn end(process: WorkerProcess, connection: &Connection, said: &str) -> String {
    connection.stop();
    let ended = tokio::time::timeout(Duration::from_millis(500), process.wait()).await;
    if let Ok(ended) = ended {
        return ended;
    }
    process.kill();
    process.wait().await;
    format!("was killed: {said}")
}

/// Ends when the pool is to stop, or is gone.
async fn asked_to_stop(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|&stop| stop).await;
}

/// A worker as the engine sees it.
struct ConnectionLane {
    connection: Connection,
    /// Bytes of outputs for each row, as last seen, so that the next batch leaves room for them.
    output_row_bytes: Arc<Mutex<HashMap<u32, usize>>>,
}

impl ConnectionLane {
    fn new(connection: Connection) -> Self {
        Self { connection, output_row_bytes: Arc::default() }
    }
}

impl Lane for ConnectionLane {
    fn execute(&self, handle: u32, batch: LaneBatch) -> LaneFuture {
        let connection = self.connection.clone();
        let learned = self.output_row_bytes.clone();
        let rows = batch.rows.max(1) as usize;
        let output_bytes = lock(&learned).get(&handle).map_or(1 << 12, |bytes| bytes * rows);
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
        let request = ExecuteRequest {
            handle,
            inputs,
            rows: batch.rows,
            request_rows: batch.request_rows,
            output_bytes,
            parameters: batch.parameters,
        };
        Box::pin(async move {
            match connection.execute(&request).await {
                Ok(executed) => {
                    let row_bytes = executed.output_bytes.div_ceil(rows) + 64;
                    let mut learned = lock(&learned);
                    let known = learned.entry(handle).or_default();
                    *known = row_bytes.max(*known);
                    Ok(LaneOutcome { outputs: executed.outputs, execute_us: executed.execute_us })
                }
                Err(error) if connection.closed().is_some() => Err(LaneFailure::Lost(error)),
                Err(error) => Err(LaneFailure::Batch(error)),
            }
        })
    }
}
