//! Worker processes: started, watched, started again, stopped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kingpole_engine::{Pool, Shared};
use kingpole_instances::worker::{
    BatchInput, Connection, ExecuteRequest, LoadRequest as WorkerLoad, Loaded, WorkerProcess,
};
use kingpole_values::{Code, Error, Result, Tensor};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::lane::{WorkerLane, WorkerModels, overran};
use crate::models::ModelFiles;
use crate::server::{LostModel, Server};

/// How long a worker may take from its start to saying that it is there.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a worker may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a second start in a row; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The same after a life in which it served: its other models should not wait for one that crashes it.
const LONGEST_PAUSE_OF_ONE_THAT_SERVED: Duration = Duration::from_secs(1);
/// How long an unload may wait for the worker, which is busy with a batch or a stream of responses.
const UNLOAD_WAIT: Duration = Duration::from_secs(30);
/// A worker that lived this long is not failing at start.
const SETTLED: Duration = Duration::from_secs(10);
/// After this many failed starts in a row, requests are no longer kept waiting.
const GIVE_UP_AFTER: u32 = 4;
/// How often a model may be loading when its worker ends before it is taken for the reason.
const LOAD_ATTEMPTS: u32 = 2;
/// The same for warming up; one more, as a model that crashes while it loads beside it ends the worker that often.
const TRIAL_ATTEMPTS: u32 = LOAD_ATTEMPTS + 1;
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
    /// Whether models are loaded while batches of others run.
    loads_beside: bool,
    /// Held while a batch runs; each life of the process has its own, so that a batch of a dead one holds up nobody.
    executing: Mutex<Arc<tokio::sync::Mutex<()>>>,
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    /// Where its socket is read.
    reader: Handle,
    /// Models to load again after a restart.
    loads: Mutex<BTreeMap<u32, Kept>>,
    models: Arc<WorkerModels>,
    /// New models are loaded one at a time, so that a worker's end is one model's doing.
    loading: tokio::sync::Mutex<()>,
    load_limit: Duration,
    lost: mpsc::UnboundedSender<LostModel>,
    link: watch::Sender<Link>,
    stopping: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
    pid: AtomicU32,
}

/// A model that its worker is to have.
#[derive(Clone)]
struct Kept {
    request: WorkerLoad,
    name: String,
    /// What the rest of the server calls this load of it.
    owner: u64,
    /// How many workers ended while they took it back.
    ended: u32,
}

/// How loading a model in a worker went wrong.
enum LoadFailure {
    /// The model's own doing.
    Model(Error),
    /// It took too long; the worker was ended for it.
    Overran(Error),
    /// The worker ended meanwhile.
    Ended(Error),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WorkerPool {
    /// Start this many workers, to share or for one model; they come up in the background.
    pub fn start(server: &Arc<Server>, count: usize, label: &str, shared: bool) -> Result<Arc<Self>> {
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
                    loads_beside: shared,
                    executing: Mutex::default(),
                    environment: environment.clone(),
                    pool: pool.clone(),
                    shared: server.shared.clone(),
                    reader: server.reactor_handle(index),
                    loads: Mutex::default(),
                    models: Arc::default(),
                    loading: tokio::sync::Mutex::default(),
                    load_limit: Duration::from_secs(configuration.load_limit_seconds),
                    lost: server.lost_models.clone(),
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
        let kept = Kept { request, name: files.name, owner: files.owner, ended: 0 };
        let mut loaded = None;
        for worker in &self.workers {
            worker.models.expect(handle, &kept.name, files.execute_limit);
            match worker.load(&kept).await {
                Ok(signature) => loaded = Some(signature),
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
                // A worker that goes away now has unloaded it as well; one that is busy does it later.
                let _ = tokio::time::timeout(UNLOAD_WAIT, connection.unload(handle)).await;
            }
            worker.models.forget(handle);
        }
    }

    /// Run one batch outside the queues, to warm up. Every worker runs it.
    pub async fn try_out(&self, handle: u32, name: &str, limit: Duration, inputs: Vec<Tensor>) -> Result<()> {
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
            worker.try_out(&request, name, limit).await?;
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
    /// The conversation, once it is up and every model is back in it.
    async fn connection(&self) -> Result<Connection> {
        let mut link = self.link.subscribe();
        let models = u32::try_from(lock(&self.loads).len()).unwrap_or(u32::MAX);
        let limit = READY_TIMEOUT + self.load_limit.saturating_mul(models);
        let settled = |link: &Link| match link {
            Link::Starting => false,
            // Its end is known before its successor begins.
            Link::Up(connection) => connection.closed().is_none(),
            Link::Failed(_) => true,
        };
        let state = tokio::time::timeout(limit, link.wait_for(settled))
            .await
            .map_err(|_| Error::unavailable(format!("the worker for {} did not come up", self.label)))?
            .map_err(|_| Error::unavailable(format!("the worker for {} was stopped", self.label)))?;
        match &*state {
            Link::Up(connection) => Ok(connection.clone()),
            Link::Failed(error) => Err(error.clone()),
            Link::Starting => Err(Error::internal("waited for a worker and got none")),
        }
    }

    /// Run one batch outside the queues. A worker that ends meanwhile is tried again: what ended it may have
    /// been a model that was loading.
    async fn try_out(&self, request: &ExecuteRequest, name: &str, limit: Duration) -> Result<()> {
        let mut attempts = 0;
        loop {
            let connection = self.connection().await?;
            attempts += 1;
            let executing = lock(&self.executing).clone();
            let _one_at_a_time = executing.lock().await;
            let Ok(executed) = tokio::time::timeout(limit, connection.execute(request)).await else {
                let error = overran(name, limit);
                connection.abandon(&Error::unavailable(error.message.clone()));
                return Err(error);
            };
            match executed {
                Ok(_) => return Ok(()),
                Err(_) if connection.closed().is_some() && attempts < TRIAL_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Load a model that the worker has not had yet. A worker that ends meanwhile is tried once more: what ended
    /// it may have been a batch of another model.
    async fn load(&self, kept: &Kept) -> Result<Loaded> {
        let _one_at_a_time = self.loading.lock().await;
        let handle = kept.request.handle;
        let mut attempts = 0;
        loop {
            let connection = self.connection().await?;
            attempts += 1;
            match self.load_within_limit(&connection, kept).await {
                Ok(loaded) => {
                    lock(&self.loads).insert(handle, kept.clone());
                    self.models.loaded(handle);
                    return Ok(loaded);
                }
                Err(LoadFailure::Model(error) | LoadFailure::Overran(error)) => return Err(error),
                Err(LoadFailure::Ended(error)) if attempts >= LOAD_ATTEMPTS => {
                    return Err(ended_while_loading(&error));
                }
                Err(LoadFailure::Ended(_)) => {}
            }
        }
    }

    async fn load_within_limit(
        &self,
        connection: &Connection,
        kept: &Kept,
    ) -> std::result::Result<Loaded, LoadFailure> {
        match tokio::time::timeout(self.load_limit, connection.load(&kept.request)).await {
            Ok(Ok(loaded)) => Ok(loaded),
            Ok(Err(error)) if connection.closed().is_some() => Err(LoadFailure::Ended(error)),
            Ok(Err(error)) => Err(LoadFailure::Model(error)),
            Err(_) => {
                let message = format!(
                    "model '{}' took more than {} s to load, so its worker was ended; --load-limit-seconds \
                     allows more",
                    kept.name,
                    self.load_limit.as_secs()
                );
                connection.abandon(&Error::unavailable(message.clone()));
                Err(LoadFailure::Overran(Error::new(Code::FailedPrecondition, message)))
            }
        }
    }

    /// Give a new process the models that its predecessor had, one by one; each serves as soon as it is there.
    async fn take_back(&self, connection: &Connection) {
        let loads: Vec<Kept> = lock(&self.loads).values().cloned().collect();
        for kept in loads {
            let handle = kept.request.handle;
            let wanted = || lock(&self.loads).contains_key(&handle);
            if !wanted() {
                continue;
            }
            match self.load_within_limit(connection, &kept).await {
                Ok(_) if wanted() => {
                    // It loads: what ended the worker before was somebody else.
                    if let Some(kept) = lock(&self.loads).get_mut(&handle) {
                        kept.ended = 0;
                    }
                    self.models.loaded(handle);
                }
                // It was unloaded meanwhile.
                Ok(_) => {
                    let _ = tokio::time::timeout(UNLOAD_WAIT, connection.unload(handle)).await;
                }
                Err(LoadFailure::Model(error) | LoadFailure::Overran(error)) => self.lose(&kept, &error),
                Err(LoadFailure::Ended(error)) => {
                    let ended = lock(&self.loads).get_mut(&handle).map_or(0, |kept| {
                        kept.ended += 1;
                        kept.ended
                    });
                    if ended >= LOAD_ATTEMPTS {
                        self.lose(&kept, &ended_while_loading(&error));
                    }
                    return;
                }
            }
            self.shared.wake();
        }
    }

    /// A model cannot be had again: answer its requests with the reason, and tell whoever looks after models.
    fn lose(&self, kept: &Kept, error: &Error) {
        let reason = format!("it could not be loaded again after its worker had ended: {}", error.message);
        let handle = kept.request.handle;
        lock(&self.loads).remove(&handle);
        self.models.lost(handle, Error::unavailable(format!("model '{}': {reason}", kept.name)));
        // Nobody listens any more when the server ends.
        let _ = self.lost.send(LostModel { owner: kept.owner, reason });
    }

    async fn supervise(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        let (mut failures, mut short_lives) = (0, 0);
        while !*stopping.borrow() {
            let began = Instant::now();
            let mut came_up = false;
            let ended = self.live_once(&mut came_up).await;
            self.pid.store(0, Relaxed);
            let Some(reason) = ended.filter(|_| !*stopping.borrow()) else { break };
            // One that served was started all right, whatever a batch did to it.
            failures = if came_up { 0 } else { failures + 1 };
            short_lives = if began.elapsed() > SETTLED { 0 } else { short_lives + 1 };
            if self.shared.log_settings().warning {
                eprintln!("kingpole: the worker for {} {reason}; starting it again", self.label);
            }
            if failures >= GIVE_UP_AFTER {
                let error = Error::unavailable(format!(
                    "the worker for {} cannot be started: it {reason}",
                    self.label
                ));
                self.pool.give_up(self.index, &error, self.shared.clock().now_us());
                self.link.send_replace(Link::Failed(error));
            }
            // The first restart is immediate: a single crash should cost its clients little.
            if short_lives > 1 {
                let pause = FIRST_PAUSE * 2u32.saturating_pow(short_lives.min(16) - 2);
                let longest = if came_up { LONGEST_PAUSE_OF_ONE_THAT_SERVED } else { LONGEST_PAUSE };
                tokio::select! {
                    () = tokio::time::sleep(pause.min(longest)) => {}
                    () = asked_to_stop(&mut stopping) => {}
                }
            }
        }
        // Whoever still waits, waits for a lane that will never come.
        let error = Error::unavailable(format!("the worker for {} was stopped", self.label));
        self.pool.give_up(self.index, &error, self.shared.clock().now_us());
        self.link.send_replace(Link::Failed(error));
        self.stopped.send_replace(true);
    }

    /// One life of the process. Gives the reason of its end; `None` if it ended with the server.
    async fn live_once(&self, came_up: &mut bool) -> Option<String> {
        let spawned = WorkerProcess::spawn(&self.command, &self.environment, self.loads_beside);
        let (process, channel, load_channel) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => return Some(format!("could not be started: {}", error.message)),
        };
        self.pid.store(process.pid(), Relaxed);
        let connection = Connection::new(channel, load_channel, process.pid(), &self.label, IDLE_ARENA_BYTES);
        let reading = self.reader.spawn(connection.clone().run());
        match tokio::time::timeout(READY_TIMEOUT, connection.ready()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Some(end(process, &connection, &error.message).await),
            Err(_) => return Some(end(process, &connection, "did not come up in time").await),
        }
        self.models.begin_anew();
        let executing = Arc::<tokio::sync::Mutex<()>>::default();
        lock(&self.executing).clone_from(&executing);
        let lane = WorkerLane::new(connection.clone(), self.models.clone(), executing);
        self.pool.attach(self.index, Arc::new(lane));
        self.shared.wake();
        let up = async {
            self.take_back(&connection).await;
            if connection.closed().is_none() {
                *came_up = true;
                self.link.send_replace(Link::Up(connection.clone()));
            }
            std::future::pending::<()>().await;
        };
        let mut stopping = self.stopping.subscribe();
        let reason = tokio::select! {
            () = up => None,
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
        // Somebody else may hold the worker's end of the socket: whoever waits for it learns of its end from us.
        connection.abandon(&Error::unavailable(format!(
            "the worker for {} {}",
            self.label,
            reason.as_deref().unwrap_or("was stopped")
        )));
        self.pool.detach(self.index);
        self.link.send_replace(Link::Starting);
        reason
    }
}

fn ended_while_loading(error: &Error) -> Error {
    Error::new(
        Code::FailedPrecondition,
        format!("its worker ended {LOAD_ATTEMPTS} times while it was loading: {}", error.message),
    )
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
