//! What frontends ask of the engine beside inference. Nothing here waits for a model.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use kingpole_values::{ByteString, Code, Error, Parameters, Result};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{oneshot, watch};

use crate::shared::MAX_WAITING_CONTROLS;
use crate::{
    ControlRequest, Engine, IndexRow, LogSettings, ModelSpec, ModelStatistics, PendingControl, ServerInfo,
};

impl Engine {
    /// The specification of a served model; the default one for an empty name.
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<Arc<ModelSpec>> {
        Ok(self.shared().registry.load().find(name, version)?.spec.clone())
    }

    /// Whether a known model is served. `NOT_FOUND` for one nobody has heard of.
    pub fn model_ready(&self, name: &str, version: Option<&str>) -> Result<bool> {
        let registry = self.shared().registry.load();
        match registry.find(name, version) {
            Ok(model) => Ok(registry.is_whole(model)),
            Err(_) if registry.is_known(name, version) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Served versions of a model, ascending.
    pub fn versions(&self, name: &str) -> Vec<ByteString> {
        self.shared().registry.load().versions(name)
    }

    /// Whether every expected model is served and the server is not shutting down.
    pub fn is_ready(&self) -> bool {
        self.shared().is_ready()
    }

    /// Always true: a server that is not live does not answer.
    pub fn is_live(&self) -> bool {
        true
    }

    /// Whether the server is shutting down.
    pub fn is_draining(&self) -> bool {
        self.shared().is_draining()
    }

    /// Tells whenever the registry, readiness or draining has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared().changes.subscribe()
    }

    /// The repository index.
    pub fn index(&self, ready_only: bool) -> Vec<IndexRow> {
        self.shared().registry.load().index(ready_only)
    }

    /// Counters in the Open Inference form.
    pub fn statistics(&self, name: Option<&str>, version: Option<&str>) -> Result<Vec<ModelStatistics>> {
        self.shared().statistics(name, version)
    }

    /// Ask for a change of the repository. The receiver fails if nobody manages it.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when too many wait already.
    pub fn control(&self, request: ControlRequest) -> Result<oneshot::Receiver<Result<()>>> {
        let (answer, receiver) = oneshot::channel();
        match self.shared().control.try_send(PendingControl { request, answer }) {
            // A closed channel drops the sender, which the receiver reports.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(receiver),
            Err(TrySendError::Full(_)) => Err(Error::exhausted(format!(
                "{MAX_WAITING_CONTROLS} requests to load or unload models wait already"
            ))),
        }
    }

    /// Which lines are logged.
    pub fn log_settings(&self) -> LogSettings {
        self.shared().log_settings()
    }

    /// Log other lines from now on.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` or `UNIMPLEMENTED`, naming the setting; nothing is changed then.
    pub fn change_log(&self, changes: &Parameters) -> Result<()> {
        self.shared().settings.change_log(changes)
    }

    /// What is traced of a model, or of everything, by the names of the trace extension.
    pub fn trace_settings(&self, model: Option<&str>) -> Vec<(&'static str, String)> {
        self.shared().tracing.named(model)
    }

    /// Change what is traced of a model, or of everything; no values ask for the default.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` or `UNIMPLEMENTED`, naming the setting; nothing is changed then.
    pub fn change_trace(&self, model: Option<&str>, changes: &[(&str, &[String])]) -> Result<()> {
        self.shared().change_trace(model, changes)
    }

    /// What the server says of itself.
    pub fn info(&self) -> &ServerInfo {
        &self.shared().configuration.info
    }

    /// Count a request that was refused before its model was known.
    pub fn count_refused(&self, code: Code) {
        self.shared().refused[usize::from(code.number())].fetch_add(1, Relaxed);
    }
}
