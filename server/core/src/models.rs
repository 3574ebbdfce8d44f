//! Opening, serving and closing model versions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kingpole_engine::{InlineModel, Model, ModelSpec, Pipeline, Placement, Profile, StepConfiguration};
use kingpole_values::{Code, Error, Result};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::configuration::{OpenRequest, Opened, Served, Specification, WorkerKind};
use crate::native::{NativeBackend, NativeBackends};
use crate::pipelines;
use crate::server::Server;
use crate::supervisor::WorkerPool;
use crate::warmup::warm_up;

/// How long an unloaded version's requests may take to finish.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Every version that Python has opened.
pub struct Models {
    server: Arc<Server>,
    native: NativeBackends,
    entries: Mutex<HashMap<u64, Entry>>,
    next_handle: AtomicU64,
    /// Held while a pipeline is checked and published, so that two cannot come to ask each other.
    joining: Mutex<()>,
    /// One pool for each device, made when first needed.
    shared: Mutex<HashMap<String, Arc<WorkerPool>>>,
}

struct Entry {
    request: OpenRequest,
    door: Door,
    served: Option<(Arc<Model>, oneshot::Receiver<()>)>,
}

/// What a worker needs to load a version.
pub struct ModelFiles {
    pub name: String,
    /// Our handle of the version.
    pub owner: u64,
    pub execute_limit: Duration,
    pub backend: String,
    pub directory: String,
    pub configuration: Value,
    pub device: String,
}

/// What was opened, and where.
#[derive(Clone)]
enum Door {
    Inline(Arc<dyn InlineModel>),
    Lanes { pool: Arc<WorkerPool>, handle: u32, own: bool },
    Steps(Arc<Vec<StepConfiguration>>),
}

impl Door {
    fn placed(&self) -> &'static str {
        match self {
            Self::Inline(_) => "inline",
            Self::Steps(_) => "pipeline",
            Self::Lanes { own: true, .. } => "own",
            Self::Lanes { .. } => "shared",
        }
    }
}

impl Models {
    pub fn new(server: Arc<Server>) -> Arc<Self> {
        Arc::new(Self {
            native: NativeBackends::new(server.configuration.onnxruntime_library.as_deref()),
            server,
            entries: Mutex::default(),
            next_handle: AtomicU64::new(1),
            joining: Mutex::default(),
            shared: Mutex::default(),
        })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Load a version: inline on trial where that may turn out to be best, else in a worker.
    pub fn open(&self, request: OpenRequest) -> Result<Opened> {
        let handle = self.next_handle.fetch_add(1, Relaxed);
        let (door, mut opened) = match request.worker {
            _ if request.backend == pipelines::BACKEND => {
                pipelines::open(&request).map(|(steps, opened)| (Door::Steps(Arc::new(steps)), opened))?
            }
            WorkerKind::Inline => self.open_inline(&request)?,
            WorkerKind::Auto if self.may_run_inline(&request) => self.open_inline(&request)?,
            _ => self.open_in_worker(handle, &request)?,
        };
        opened.handle = handle;
        opened.placed = door.placed();
        self.entries().insert(handle, Entry { request, door, served: None });
        Ok(opened)
    }

    fn may_run_inline(&self, request: &OpenRequest) -> bool {
        let native = self.native.find(&request.backend);
        native
            .is_some_and(|backend| backend.worth_a_trial(request) && may_run_inline(backend, request).is_ok())
    }

    fn open_inline(&self, request: &OpenRequest) -> Result<(Door, Opened)> {
        let backend = self.native.find(&request.backend).ok_or_else(|| {
            let message =
                format!("the {} backend does not run inline; use worker: shared or own", request.backend);
            Error::new(Code::FailedPrecondition, message)
        })?;
        may_run_inline(backend, request)?;
        let (model, opened) = backend.open(request)?;
        Ok((Door::Inline(model), opened))
    }

    fn open_in_worker(&self, owner: u64, request: &OpenRequest) -> Result<(Door, Opened)> {
        let own = request.worker == WorkerKind::Own;
        let pool = if own {
            WorkerPool::start(&self.server, request.instances.max(1), &request.name, false)?
        } else {
            self.shared_pool(&request.device)?
        };
        let files = ModelFiles {
            name: request.name.clone(),
            owner,
            execute_limit: self.execute_limit(request),
            backend: request.backend.clone(),
            directory: request.directory.clone(),
            configuration: request.configuration.clone(),
            device: request.device.clone(),
        };
        let (handle, loaded) = match self.server.background.block_on(pool.load(files)) {
            Ok(loaded) => loaded,
            Err(error) => {
                if own {
                    self.server.background.block_on(pool.stop());
                }
                return Err(error);
            }
        };
        let opened = Opened {
            platform: loaded.platform,
            inputs: loaded.inputs,
            outputs: loaded.outputs,
            max_batch_size: loaded.max_batch_size,
            decoupled: loaded.decoupled,
            description: loaded.description,
            notes: loaded.notes,
            ..Opened::default()
        };
        Ok((Door::Lanes { pool, handle, own }, opened))
    }

    /// How long one batch of this model may run in a worker.
    fn execute_limit(&self, request: &OpenRequest) -> Duration {
        let own = request.configuration.get("execute_limit_seconds").and_then(Value::as_u64);
        Duration::from_secs(own.unwrap_or(self.server.configuration.execute_limit_seconds))
    }

    fn shared_pool(&self, device: &str) -> Result<Arc<WorkerPool>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = shared.get(device) {
            return Ok(pool.clone());
        }
        let pool = WorkerPool::start(&self.server, 1, device, true)?;
        shared.insert(device.to_owned(), pool.clone());
        Ok(pool)
    }

    /// Warm an opened version up, settle where it runs, and serve it.
    pub fn serve(&self, handle: u64, specification: &Specification) -> Result<Served> {
        let spec = specification.spec()?;
        let (request, door) = {
            let entries = self.entries();
            let entry = entries.get(&handle).ok_or_else(|| unknown_handle(handle))?;
            (entry.request.clone(), entry.door.clone())
        };
        let mut notes = Vec::new();
        let (door, profile) = self.settle(handle, &request, &spec, door, specification.warmup, &mut notes)?;
        let joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        let placement = match &door {
            Door::Inline(model) => Placement::Inline(model.clone()),
            Door::Lanes { pool, handle, .. } => Placement::Lanes(pool.lanes(), *handle),
            Door::Steps(steps) => {
                let find = |name: &str, version: Option<&str>| self.server.shared.find(name, version);
                Placement::Pipeline(Arc::new(Pipeline::new(&spec, steps, find)?))
            }
        };
        let served = Served { placed: door.placed(), profile: profile.table().collect(), notes };
        let (model, closed) = Model::new(spec, placement, profile, self.server.configuration.reactors);
        self.server.shared.publish(model.clone());
        drop(joining);
        if let Some(entry) = self.entries().get_mut(&handle) {
            entry.door = door;
            entry.served = Some((model, closed));
        }
        Ok(served)
    }

    /// Warm up where the model is; move it to a worker if it turns out too slow for a reactor.
    fn settle(
        &self,
        owner: u64,
        request: &OpenRequest,
        spec: &ModelSpec,
        door: Door,
        warmup: bool,
        notes: &mut Vec<String>,
    ) -> Result<(Door, Profile)> {
        let limit_us = self.server.configuration.inline_limit_us;
        let inline = match &door {
            Door::Steps(_) => return Ok((door, Profile::default())),
            Door::Inline(model) => model.clone(),
            Door::Lanes { pool, handle, .. } => {
                let profile = self.warm_up_in_worker((pool, *handle), request, spec, warmup, notes)?;
                return Ok((door, profile));
            }
        };
        // Without a trial nothing is known of its speed, and only identity is known to be quick.
        let trial = warmup || request.worker == WorkerKind::Auto;
        let profile = if trial && request.backend != "identity" {
            self.server
                .background
                .block_on(warm_up(spec, |inputs| std::future::ready(inline.execute(&inputs).map(drop))))
        } else {
            Ok(Profile::default())
        };
        let reason = match profile {
            Ok(profile) => match profile.slowest_us() {
                Some(slowest_us) if slowest_us > limit_us && request.worker == WorkerKind::Auto => {
                    format!("its batches take up to {slowest_us} µs, a reactor's limit is {limit_us} µs")
                }
                _ => return Ok((door, profile)),
            },
            Err(error) if request.worker == WorkerKind::Auto => {
                format!("it could not be tried with generated inputs ({})", error.message)
            }
            Err(error) => {
                notes.push(format!("not warmed up: {}", error.message));
                return Ok((door, Profile::default()));
            }
        };
        drop(door);
        drop(inline);
        notes.push(format!("runs in the shared worker: {reason}"));
        let (door, _) = self.open_in_worker(owner, request)?;
        // Known before anything else can fail, so that closing it closes this.
        if let Some(entry) = self.entries().get_mut(&owner) {
            entry.door = door.clone();
        }
        let Door::Lanes { pool, handle, .. } = &door else { return Ok((door, Profile::default())) };
        let profile = self.warm_up_in_worker((pool, *handle), request, spec, warmup, notes)?;
        Ok((door, profile))
    }

    fn warm_up_in_worker(
        &self,
        (pool, handle): (&Arc<WorkerPool>, u32),
        request: &OpenRequest,
        spec: &ModelSpec,
        warmup: bool,
        notes: &mut Vec<String>,
    ) -> Result<Profile> {
        // What a decoupled model does with zeros may never end.
        if !warmup || spec.decoupled {
            return Ok(Profile::default());
        }
        let limit = self.execute_limit(request);
        let run = |inputs| pool.try_out(handle, &request.name, limit, inputs);
        match self.server.background.block_on(warm_up(spec, run)) {
            Ok(profile) => Ok(profile),
            Err(error) if error.code == Code::Unavailable => Err(error),
            Err(error) => {
                notes.push(format!("not warmed up: {}", error.message));
                Ok(Profile::default())
            }
        }
    }

    /// Serve a version no more. One that is not served is left alone.
    pub fn withdraw(&self, handle: u64) {
        let served = self.entries().get(&handle).and_then(|entry| Some(entry.served.as_ref()?.0.clone()));
        if let Some(model) = served {
            self.server.shared.withdraw(&model);
        }
    }

    /// Withdraw a version, wait for its requests, unload it.
    pub fn close(&self, handle: u64) -> Result<()> {
        let entry = self.entries().remove(&handle).ok_or_else(|| unknown_handle(handle))?;
        if let Some((model, closed)) = entry.served {
            self.server.shared.withdraw(&model);
            if let Placement::Lanes(pool, _) = &model.placement {
                pool.forget(&model);
            }
            drop(model);
            // Whoever still runs after this long is answered by what happens to its instance.
            let waited = async { tokio::time::timeout(CLOSE_TIMEOUT, closed).await };
            let _ = self.server.background.block_on(waited);
        }
        if let Door::Lanes { pool, handle, own } = entry.door {
            if own {
                self.server.background.block_on(pool.stop());
            } else {
                self.server.background.block_on(pool.unload(handle));
            }
        }
        Ok(())
    }

    /// End every worker.
    pub fn stop(&self) {
        for (_, entry) in self.entries().drain() {
            if let Door::Lanes { pool, own: true, .. } = entry.door {
                self.server.background.block_on(pool.stop());
            }
        }
        for (_, pool) in self.shared.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            self.server.background.block_on(pool.stop());
        }
    }

    pub fn worker_pids(&self) -> Vec<u32> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pids: Vec<u32> = shared.values().flat_map(|pool| pool.pids()).collect();
        for entry in self.entries().values() {
            if let Door::Lanes { pool, own: true, .. } = &entry.door {
                pids.extend(pool.pids());
            }
        }
        pids
    }
}

/// Whether a model may run on the reactors, by what it is asked to do and by its backend's word.
fn may_run_inline(backend: &dyn NativeBackend, request: &OpenRequest) -> Result<()> {
    if request.configuration.get("sequence").is_some_and(|sequence| !sequence.is_null()) {
        return Err(Error::new(
            Code::FailedPrecondition,
            "models that keep sequences run in a worker; use worker: shared or own",
        ));
    }
    backend.inline_safe(request)
}

fn unknown_handle(handle: u64) -> Error {
    Error::new(Code::FailedPrecondition, format!("no model is open under handle {handle}"))
}
