//! Opening, serving and closing model versions.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use kingpole_engine::{InlineModel, Model, ModelSpec, Placement, Profile};
use kingpole_instances::onnx::{Runtime, Session, SessionConfiguration, Signature};
use kingpole_values::{Code, Error, Result, Tensor};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::configuration::{OpenRequest, Opened, Served, Specification, WorkerKind};
use crate::server::Server;
use crate::supervisor::WorkerPool;
use crate::warmup::warm_up;

/// How long an unloaded version's requests may take to finish.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Weights of more than this cannot be read from memory within the inline limit on any machine we
/// know, so that such a model is not loaded on trial.
const LARGEST_INLINE_FILE_BYTES: u64 = 64 << 20;

/// Every version that Python has opened.
pub struct Models {
    server: Arc<Server>,
    onnxruntime: OnceLock<Result<Arc<Runtime>>>,
    entries: Mutex<HashMap<u64, Entry>>,
    next_handle: std::sync::atomic::AtomicU64,
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
}

impl Door {
    fn placed(&self) -> &'static str {
        match self {
            Self::Inline(_) => "inline",
            Self::Lanes { own: true, .. } => "own",
            Self::Lanes { .. } => "shared",
        }
    }
}

struct OnnxInline(Session);

impl InlineModel for OnnxInline {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.0.run(inputs)
    }
}

/// Gives each input back under the name of the output at its position.
struct Identity(Vec<String>);

impl InlineModel for Identity {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        Ok(inputs
            .iter()
            .zip(&self.0)
            .map(|(input, name)| Tensor { name: name.as_str().into(), ..input.clone() })
            .collect())
    }
}

impl Models {
    pub fn new(server: Arc<Server>) -> Arc<Self> {
        Arc::new(Self {
            server,
            onnxruntime: OnceLock::new(),
            entries: Mutex::default(),
            next_handle: std::sync::atomic::AtomicU64::new(1),
            shared: Mutex::default(),
        })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runtime(&self) -> Result<Arc<Runtime>> {
        let load = || {
            let path = self.server.configuration.onnxruntime_library.as_ref().ok_or_else(|| {
                Error::new(
                    Code::FailedPrecondition,
                    "ONNX Runtime is not installed: pip install 'kingpole[onnx]'",
                )
            })?;
            Runtime::load(path)
        };
        self.onnxruntime.get_or_init(load).clone()
    }

    /// Load a version: inline on trial where that may turn out to be best, else in a worker.
    pub fn open(&self, request: OpenRequest) -> Result<Opened> {
        let (door, mut opened) = match request.worker {
            WorkerKind::Inline => self.open_inline(&request)?,
            WorkerKind::Auto if self.may_run_inline(&request) => self.open_inline(&request)?,
            _ => self.open_in_worker(&request)?,
        };
        let handle = self.next_handle.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        opened.handle = handle;
        opened.placed = door.placed();
        self.entries().insert(handle, Entry { request, door, served: None });
        Ok(opened)
    }

    fn may_run_inline(&self, request: &OpenRequest) -> bool {
        match request.backend.as_str() {
            "identity" => true,
            "onnx" => {
                let small = request.file.as_ref().and_then(|file| std::fs::metadata(file).ok());
                request.device == "cpu"
                    && !has_options(request)
                    && request.instances <= 1
                    && small.is_some_and(|file| file.len() <= LARGEST_INLINE_FILE_BYTES)
                    && self.runtime().is_ok()
            }
            _ => false,
        }
    }

    fn open_inline(&self, request: &OpenRequest) -> Result<(Door, Opened)> {
        match request.backend.as_str() {
            "onnx" => {
                let file = request.file.as_deref().ok_or_else(|| {
                    Error::new(Code::FailedPrecondition, "the onnx backend needs a model file")
                })?;
                if request.device != "cpu" || has_options(request) {
                    return Err(Error::new(
                        Code::FailedPrecondition,
                        "inline models run on the CPU and take no options; use worker: shared or own",
                    ));
                }
                let session = self.runtime()?.open(file, &SessionConfiguration::default())?;
                let opened = Opened {
                    platform: "onnxruntime_onnx".to_owned(),
                    inputs: rows(session.inputs()),
                    outputs: rows(session.outputs()),
                    description: session.metadata().description.clone(),
                    ..Opened::default()
                };
                Ok((Door::Inline(Arc::new(OnnxInline(session))), opened))
            }
            "identity" => open_identity(request),
            other => Err(Error::new(
                Code::FailedPrecondition,
                format!("the {other} backend does not run inline; use worker: shared or own"),
            )),
        }
    }

    fn open_in_worker(&self, request: &OpenRequest) -> Result<(Door, Opened)> {
        let own = request.worker == WorkerKind::Own;
        let pool = if own {
            WorkerPool::start(&self.server, request.instances.max(1), &request.name)?
        } else {
            self.shared_pool(&request.device)?
        };
        let files = ModelFiles {
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
            description: loaded.description,
            notes: loaded.notes,
            ..Opened::default()
        };
        Ok((Door::Lanes { pool, handle, own }, opened))
    }

    fn shared_pool(&self, device: &str) -> Result<Arc<WorkerPool>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = shared.get(device) {
            return Ok(pool.clone());
        }
        let pool = WorkerPool::start(&self.server, 1, device)?;
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
        let (door, profile) = self.settle(&request, &spec, door, specification.warmup, &mut notes)?;
        let placement = match &door {
            Door::Inline(model) => Placement::Inline(model.clone()),
            Door::Lanes { pool, handle, .. } => Placement::Lanes(pool.lanes(), *handle),
        };
        let served = Served { placed: door.placed(), profile: profile.table().collect(), notes };
        let (model, closed) = Model::new(spec, placement, profile, self.server.configuration.reactors);
        self.server.shared.publish(model.clone());
        if let Some(entry) = self.entries().get_mut(&handle) {
            entry.door = door;
            entry.served = Some((model, closed));
        }
        Ok(served)
    }

    /// Warm up where the model is; move it to a worker if it turns out too slow for a reactor.
    fn settle(
        &self,
        request: &OpenRequest,
        spec: &ModelSpec,
        door: Door,
        warmup: bool,
        notes: &mut Vec<String>,
    ) -> Result<(Door, Profile)> {
        let limit_us = self.server.configuration.inline_limit_us;
        let inline = match &door {
            Door::Inline(model) => model.clone(),
            Door::Lanes { pool, handle, .. } => {
                let profile = self.warm_up_in_worker(pool, *handle, spec, warmup, notes)?;
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
        let (door, _) = self.open_in_worker(request)?;
        let Door::Lanes { pool, handle, .. } = &door else { return Ok((door, Profile::default())) };
        let profile = self.warm_up_in_worker(pool, *handle, spec, warmup, notes)?;
        Ok((door, profile))
    }

    fn warm_up_in_worker(
        &self,
        pool: &Arc<WorkerPool>,
        handle: u32,
        spec: &ModelSpec,
        warmup: bool,
        notes: &mut Vec<String>,
    ) -> Result<Profile> {
        if !warmup {
            return Ok(Profile::default());
        }
        let run = |inputs| {
            let pool = pool.clone();
            async move { pool.try_out(handle, inputs).await }
        };
        match self.server.background.block_on(warm_up(spec, run)) {
            Ok(profile) => Ok(profile),
            Err(error) if error.code == Code::Unavailable => Err(error),
            Err(error) => {
                notes.push(format!("not warmed up: {}", error.message));
                Ok(Profile::default())
            }
        }
    }

    /// Withdraw a version, wait for its requests, unload it.
    pub fn close(&self, handle: u64) -> Result<()> {
        let entry = self.entries().remove(&handle).ok_or_else(|| unknown_handle(handle))?;
        if let Some((model, closed)) = entry.served {
            self.server.shared.withdraw(&model);
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

/// Whether the configuration sets options of the backend, which only a worker reads.
fn has_options(request: &OpenRequest) -> bool {
    let options = request.configuration.get("options").and_then(Value::as_object);
    options.is_some_and(|options| !options.is_empty())
}

fn unknown_handle(handle: u64) -> Error {
    Error::new(Code::FailedPrecondition, format!("no model is open under handle {handle}"))
}

fn rows(signatures: &[Signature]) -> Vec<(String, String, Vec<i64>)> {
    signatures
        .iter()
        .map(|tensor| (tensor.name.clone(), tensor.datatype.name().to_owned(), tensor.shape.to_vec()))
        .collect()
}

/// A tensor as the model's configuration declares it; further fields are Python's concern.
#[derive(serde::Deserialize)]
struct Declared {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

fn open_identity(request: &OpenRequest) -> Result<(Door, Opened)> {
    let declared = |side: &str| -> Result<Vec<(String, String, Vec<i64>)>> {
        let rows = request.configuration.get(side).and_then(Value::as_array).cloned().unwrap_or_default();
        rows.into_iter()
            .map(|row| {
                let declared: Declared = serde_json::from_value(row).map_err(|error| {
                    Error::new(Code::FailedPrecondition, format!("identity: {side}: {error}"))
                })?;
                Ok((declared.name, declared.datatype, declared.shape))
            })
            .collect()
    };
    let inputs = declared("inputs")?;
    if inputs.is_empty() {
        return Err(Error::new(
            Code::FailedPrecondition,
            "the identity backend needs `inputs` in the configuration",
        ));
    }
    let mut outputs = declared("outputs")?;
    if outputs.is_empty() {
        outputs = inputs
            .iter()
            .enumerate()
            .map(|(index, (_, datatype, shape))| (format!("OUTPUT{index}"), datatype.clone(), shape.clone()))
            .collect();
    }
    let same = inputs.len() == outputs.len()
        && inputs.iter().zip(&outputs).all(|(input, output)| (&input.1, &input.2) == (&output.1, &output.2));
    if !same {
        return Err(Error::new(
            Code::FailedPrecondition,
            "identity: outputs must match the inputs one for one",
        ));
    }
    let names = outputs.iter().map(|output| output.0.clone()).collect();
    let opened = Opened { platform: "identity".to_owned(), inputs, outputs, ..Opened::default() };
    Ok((Door::Inline(Arc::new(Identity(names))), opened))
}

/// A model's signature, without serving it.
pub fn onnx_signature(library: &Path, path: &Path) -> Result<Value> {
    let session = Runtime::load(library)?.open(path, &SessionConfiguration::default())?;
    let metadata = session.metadata();
    let custom: serde_json::Map<String, Value> =
        metadata.custom.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    Ok(json!({
        "inputs": rows(session.inputs()),
        "outputs": rows(session.outputs()),
        "metadata": {
            "producer": metadata.producer,
            "graph_name": metadata.graph_name,
            "description": metadata.description,
            "version": metadata.version,
            "custom": custom,
        },
    }))
}
