//! `kingpole._core`: what Python starts, feeds with models, and stops.
//!
//! This crate wires and translates; it decides nothing about requests. Calls from Python release
//! the GIL while they block, and no request ever takes it.

mod configuration;
mod lane;
mod models;
mod native;
mod pipelines;
mod server;
mod supervisor;
mod trace_file;
mod warmup;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kingpole_engine::{ControlRequest, IndexRow, PendingControl};
use kingpole_values::{Code, Error, Parameter, Parameters};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::json;
use tokio::sync::oneshot;

use configuration::{Configuration, OpenRequest, Specification, parse};
use models::Models;

/// Small, and steady under the allocation pattern of a server: many short lives on one thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pyo3::create_exception!(
    kingpole._core,
    CoreError,
    pyo3::exceptions::PyException,
    "What went wrong in the core: `args` are the code's name and a sentence."
);

fn raise(error: Error) -> PyErr {
    CoreError::new_err((error.code.name(), error.message.into_owned()))
}

/// The server's data plane.
#[pyclass(frozen, module = "kingpole._core")]
struct Server {
    plane: Arc<server::Server>,
    models: Arc<Models>,
    controls: Mutex<Controls>,
}

/// What the owner of the repository hears of.
enum Next {
    Asked(PendingControl),
    Lost(server::LostModel),
}

#[derive(Default)]
struct Controls {
    next_token: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<(), Error>>>,
    /// Files that came with a request, until they are taken.
    files: HashMap<u64, Vec<(String, Bytes)>>,
}

#[pymethods]
impl Server {
    #[new]
    fn new(configuration: &[u8]) -> PyResult<Self> {
        let configuration: Configuration = parse("configuration", configuration).map_err(raise)?;
        let server = Arc::new(server::Server::new(configuration).map_err(raise)?);
        let models = Models::new(server.clone());
        Ok(Self { plane: server, models, controls: Mutex::default() })
    }

    /// Bind, start the reactors, and give the bound addresses.
    fn start(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        py.detach(|| self.plane.start()).map_err(raise)
    }

    /// Load a version without serving it.
    fn open<'py>(&self, py: Python<'py>, request: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let request: OpenRequest = parse("open", request).map_err(raise)?;
        let opened = py.detach(|| self.models.open(request)).map_err(raise)?;
        encode(py, &opened)
    }

    /// Warm an opened version up and serve it.
    fn serve<'py>(
        &self,
        py: Python<'py>,
        handle: u64,
        specification: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let specification: Specification = parse("specification", specification).map_err(raise)?;
        let served = py.detach(|| self.models.serve(handle, &specification)).map_err(raise)?;
        encode(py, &served)
    }

    /// Serve a version no more; its requests go on. `close` does the rest.
    fn withdraw(&self, handle: u64) {
        self.models.withdraw(handle);
    }

    /// Withdraw a version, let its requests finish, and unload it.
    fn close(&self, py: Python<'_>, handle: u64) -> PyResult<()> {
        py.detach(|| self.models.close(handle)).map_err(raise)
    }

    /// What the index says of versions that are not served.
    fn set_index(&self, rows: &[u8]) -> PyResult<()> {
        let rows: Vec<(String, Option<String>, String, String)> = parse("index", rows).map_err(raise)?;
        let rows = rows
            .into_iter()
            .map(|(name, version, state, reason)| IndexRow { name, version, state, reason })
            .collect();
        self.plane.shared.set_absent(rows);
        Ok(())
    }

    /// Whether every expected model is served.
    fn set_expected(&self, ready: bool) {
        self.plane.shared.set_ready(ready);
    }

    /// The next control request, or word of a model that was lost with its worker; None after the timeout.
    fn next_control<'py>(&self, py: Python<'py>, timeout_ms: u64) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let next = py.detach(|| {
            let mut control = self.plane.control.lock().unwrap_or_else(PoisonError::into_inner);
            let mut lost = self.plane.lost.lock().unwrap_or_else(PoisonError::into_inner);
            self.plane.background.block_on(async {
                tokio::select! {
                    asked = control.recv() => asked.map(Next::Asked),
                    lost = lost.recv() => lost.map(Next::Lost),
                    () = tokio::time::sleep(Duration::from_millis(timeout_ms)) => None,
                }
            })
        });
        let pending = match next {
            None => return Ok(None),
            Some(Next::Lost(lost)) => {
                let told = json!({"action": "lost", "handle": lost.owner, "reason": lost.reason});
                return encode(py, &told).map(Some);
            }
            Some(Next::Asked(pending)) => pending,
        };
        let mut controls = self.controls.lock().unwrap_or_else(PoisonError::into_inner);
        controls.next_token += 1;
        let token = controls.next_token;
        controls.waiting.insert(token, pending.answer);
        let (action, model, parameters, files) = match pending.request {
            ControlRequest::Load { model, parameters, files } => ("load", model, parameters, files),
            ControlRequest::Unload { model, parameters } => ("unload", model, parameters, Vec::new()),
        };
        let request = json!({
            "token": token,
            "action": action,
            "model": model,
            "parameters": named_json(parameters),
            "files": files.len(),
        });
        controls.files.insert(token, files);
        encode(py, &request).map(Some)
    }

    /// The files of a control request, by the names of their parameters. They are given once.
    fn take_files<'py>(&self, py: Python<'py>, token: u64) -> Vec<(String, Bound<'py, PyBytes>)> {
        let files = self.controls.lock().unwrap_or_else(PoisonError::into_inner).files.remove(&token);
        files.into_iter().flatten().map(|(name, content)| (name, PyBytes::new(py, &content))).collect()
    }

    /// Answer a control request; a code of None means success.
    fn complete_control(&self, token: u64, code: Option<&str>, message: String) {
        let waiting = {
            let mut controls = self.controls.lock().unwrap_or_else(PoisonError::into_inner);
            controls.files.remove(&token);
            controls.waiting.remove(&token)
        };
        let result = match code {
            None => Ok(()),
            Some(code) => Err(Error::new(Code::from_name(code).unwrap_or(Code::Internal), message)),
        };
        if let Some(answer) = waiting {
            // The client may have gone; the change was made all the same.
            let _ = answer.send(result);
        }
    }

    /// Which lines are to be logged, as JSON, by the names of the Open Inference logging extension.
    fn log_settings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        encode(py, &named_json(self.plane.shared.log_settings().named()))
    }

    /// Everything counted, in Prometheus' text format.
    fn metrics(&self, py: Python<'_>) -> String {
        py.detach(|| self.plane.shared.metrics())
    }

    /// Counters of every served version, as JSON.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let all = self.plane.shared.statistics(None, None).map_err(raise)?;
        let rows: Vec<_> = all
            .iter()
            .map(|model| {
                json!({
                    "name": model.name,
                    "version": model.version,
                    "inference_count": model.inference_count,
                    "execution_count": model.execution_count,
                    "success_count": model.success.count,
                    "fail_count": model.fail.count,
                })
            })
            .collect();
        encode(py, &rows)
    }

    /// Refuse new requests and say so in readiness.
    fn drain(&self) {
        self.plane.drain();
    }

    /// Finish what is in flight and end everything; True if all of it was answered.
    fn stop(&self, py: Python<'_>, timeout_ms: u64) -> bool {
        py.detach(|| {
            let clean = self.plane.stop(Duration::from_millis(timeout_ms));
            self.models.stop();
            clean
        })
    }

    /// Process ids of the workers alive now.
    fn worker_pids(&self) -> Vec<u32> {
        self.models.worker_pids()
    }
}

fn named_json(parameters: Parameters) -> serde_json::Map<String, serde_json::Value> {
    parameters.into_iter().map(|(name, value)| (name.to_string(), to_json(&value))).collect()
}

fn to_json(parameter: &Parameter) -> serde_json::Value {
    match parameter {
        Parameter::Bool(value) => json!(value),
        Parameter::Int64(value) => json!(value),
        Parameter::Uint64(value) => json!(value),
        Parameter::Double(value) => json!(value),
        Parameter::String(value) => json!(&**value),
    }
}

fn encode<'py>(py: Python<'py>, value: &impl serde::Serialize) -> PyResult<Bound<'py, PyBytes>> {
    let json = serde_json::to_vec(value)
        .map_err(|error| raise(Error::internal(format!("cannot encode a result: {error}"))))?;
    Ok(PyBytes::new(py, &json))
}

/// The version of the extension module.
#[pyfunction]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The paths of the main port over HTTP, each with its methods.
#[pyfunction]
fn http_routes() -> Vec<(&'static str, Vec<&'static str>)> {
    kingpole_frontends::HTTP_ROUTES.iter().map(|(path, methods)| (*path, methods.to_vec())).collect()
}

/// Read a model's signature with the ONNX Runtime at this path, as JSON.
#[pyfunction]
fn infer_onnx_signature<'py>(py: Python<'py>, library: &str, path: &str) -> PyResult<Bound<'py, PyBytes>> {
    let signature = py.detach(|| native::onnx_signature(library.as_ref(), path.as_ref())).map_err(raise)?;
    encode(py, &signature)
}

/// The data plane of Kingpole.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Server>()?;
    module.add("CoreError", module.py().get_type::<CoreError>())?;
    module.add_function(wrap_pyfunction!(version, module)?)?;
    module.add_function(wrap_pyfunction!(http_routes, module)?)?;
    module.add_function(wrap_pyfunction!(infer_onnx_signature, module)?)?;
    Ok(())
}
