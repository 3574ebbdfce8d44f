//! What all reactors share: the registry, readiness, settings and counters.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use kingpole_values::{ByteString, Parameters, Result};
use tokio::sync::{Barrier, Notify, mpsc, oneshot, watch};

use crate::registry::Registry;
use crate::settings::Settings;
use crate::trace::Tracing;
use crate::{Clock, IndexRow, LogSettings, Model, ModelStatistics, ServerInfo, TraceSink};

/// What the engine is told once, at start.
#[derive(Clone, Debug)]
pub struct EngineConfiguration {
    /// How many reactors there will be.
    pub reactors: usize,
    /// Most bytes of inputs that may wait for one model (for inline models: on one reactor).
    pub queue_bytes: usize,
    /// The model of requests that name none; the only one if `None`.
    pub default_model: Option<ByteString>,
    /// What the server says of itself.
    pub info: ServerInfo,
}

/// A wish about the repository, answered by whoever manages it.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlRequest {
    /// Load a model, or load it anew.
    Load {
        /// The model.
        model: String,
        /// Overrides, as the Open Inference repository extension names them.
        parameters: Parameters,
        /// Files to load instead of the repository's, by their parameters' names.
        files: Vec<(String, Bytes)>,
    },
    /// Unload a model.
    Unload {
        /// The model.
        model: String,
        /// As the Open Inference repository extension names them.
        parameters: Parameters,
    },
}

/// Control requests that may wait to be taken.
pub(crate) const MAX_WAITING_CONTROLS: usize = 64;

/// A control request and the way back.
#[derive(Debug)]
pub struct PendingControl {
    /// What is wished.
    pub request: ControlRequest,
    /// Where the result goes.
    pub answer: oneshot::Sender<Result<()>>,
}

/// What all reactors share.
pub struct Shared {
    pub(crate) registry: ArcSwap<Registry>,
    pub(crate) clock: Clock,
    pub(crate) configuration: EngineConfiguration,
    ready: AtomicBool,
    pub(crate) draining: AtomicBool,
    pub(crate) refused: [AtomicU64; 17],
    pub(crate) control: mpsc::Sender<PendingControl>,
    pub(crate) wakers: Mutex<Vec<Arc<Notify>>>,
    /// Registry changes are read-modify-write.
    publishing: Mutex<()>,
    /// Tells that the registry, readiness or draining has changed.
    pub(crate) changes: watch::Sender<()>,
    /// Where reactors wait for each other before they end.
    pub(crate) last_connection: Barrier,
    pub(crate) settings: Settings,
    pub(crate) tracing: Tracing,
}

impl Shared {
    /// The shared part, and where control requests come out.
    pub fn new(
        configuration: EngineConfiguration,
        clock: Clock,
    ) -> (Arc<Self>, mpsc::Receiver<PendingControl>) {
        let (control, requests) = mpsc::channel(MAX_WAITING_CONTROLS);
        let last_connection = Barrier::new(configuration.reactors.max(1));
        let shared = Self {
            registry: ArcSwap::from_pointee(Registry::with_default(configuration.default_model.clone())),
            clock,
            configuration,
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            refused: Default::default(),
            control,
            wakers: Mutex::default(),
            publishing: Mutex::new(()),
            changes: watch::Sender::new(()),
            last_connection,
            settings: Settings::default(),
            tracing: Tracing::default(),
        };
        (Arc::new(shared), requests)
    }

    fn change(&self, change: impl FnOnce(&Registry) -> Registry) {
        let _one_at_a_time = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = change(&self.registry.load());
        self.registry.store(Arc::new(next));
        self.changes.send_replace(());
    }

    /// Serve this version from now on, in place of an earlier load of it.
    pub fn publish(&self, model: Arc<Model>) {
        model.trace.store(self.tracing.scope(&model.spec.name));
        self.change(|registry| registry.with(model));
    }

    /// Give traces to `sink`, which is called `name` in the settings. Nothing is traced until a client or the operator
    /// asks for it.
    pub fn trace_to(&self, name: String, sink: TraceSink) {
        self.tracing.trace_to(name, sink);
    }

    /// Change what is traced, as [`Engine::change_trace`](crate::Engine::change_trace).
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` or `UNIMPLEMENTED`, naming the setting; nothing is changed then.
    pub fn change_trace(&self, model: Option<&str>, changes: &[(&str, &[String])]) -> Result<()> {
        self.tracing.change(model, changes)?;
        for model in self.registry.load().served() {
            model.trace.store(self.tracing.scope(&model.spec.name));
        }
        Ok(())
    }

    /// Stop admitting requests for exactly this load; those admitted run to their end.
    pub fn withdraw(&self, model: &Model) {
        self.change(|registry| registry.without(model.number));
    }

    /// Models are being looked for: until [`set_absent`](Self::set_absent) says what there is, none is unknown.
    pub fn set_starting(&self) {
        self.change(Registry::starting);
    }

    /// What the index says of versions that are not served.
    pub fn set_absent(&self, rows: Vec<IndexRow>) {
        self.change(|registry| registry.with_absent(rows));
    }

    /// Whether every expected model is served.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
        self.changes.send_replace(());
    }

    /// Refuse new requests from now on, and say so in readiness.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
        self.changes.send_replace(());
    }

    /// A served version; the latest if none is named.
    ///
    /// # Errors
    /// `NOT_FOUND` or `UNAVAILABLE`, with the reason.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>> {
        self.registry.load().find(name, version).cloned()
    }

    /// Requests admitted and not yet answered.
    pub fn in_flight(&self) -> u64 {
        self.registry.load().served().iter().map(|model| model.metrics.in_flight()).sum()
    }

    /// Let a reactor look at its queues: something outside changed.
    pub fn wake(&self) {
        for waker in self.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            waker.notify_one();
        }
    }

    /// The clock of all deadlines.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Counters in the Open Inference form.
    pub fn statistics(&self, name: Option<&str>, version: Option<&str>) -> Result<Vec<ModelStatistics>> {
        let registry = self.registry.load();
        let of = |model: &Arc<Model>| model.metrics.statistics(&model.spec.name, &model.spec.version);
        match name {
            None => Ok(registry.served().into_iter().map(of).collect()),
            Some(name) if version.is_some() => Ok(vec![of(registry.find(name, version)?)]),
            Some(name) => {
                registry.find(name, None)?;
                let served = registry.served().into_iter();
                Ok(served.filter(|model| model.spec.name == *name).map(of).collect())
            }
        }
    }

    /// Everything counted, in Prometheus' text format.
    pub fn metrics(&self) -> String {
        crate::render::prometheus(&self.registry.load(), self)
    }

    /// Which lines are to be logged.
    pub fn log_settings(&self) -> LogSettings {
        self.settings.log()
    }

    /// Whether the server is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Whether the server is ready for traffic.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed) && !self.is_draining()
    }
}
