//! Threads: one for each reactor, one for accepting and looking after workers.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use kingpole_engine::{Clock, Engine, EngineConfiguration, PendingControl, ServerInfo, Shared};
use kingpole_frontends::{
    FrontendConfiguration, HeaderPattern, Listeners, MemoryBudget, Origins, StreamDialect, SystemRegions,
    load_tls, reactor, run_reactor,
};
use kingpole_values::{Code, Error, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};

use crate::configuration::Configuration;
use crate::trace_file;

/// The running data plane.
pub struct Server {
    pub configuration: Configuration,
    pub shared: Arc<Shared>,
    /// Control requests, for whoever manages the repository.
    pub control: Mutex<mpsc::Receiver<PendingControl>>,
    /// Where workers tell of models that they had and cannot have again.
    pub lost_models: mpsc::UnboundedSender<LostModel>,
    pub lost: Mutex<mpsc::UnboundedReceiver<LostModel>>,
    /// Accepting, worker supervision, and everything else that is not per request.
    pub background: Runtime,
    shutdown: watch::Sender<bool>,
    reactors: Mutex<Vec<Reactor>>,
}

/// A model that was served and is gone: its worker ended, and it could not be loaded again.
pub struct LostModel {
    /// The handle of the version that was opened.
    pub owner: u64,
    pub reason: String,
}

struct Reactor {
    thread: JoinHandle<()>,
    handle: Handle,
}

/// What the server says it can do, in the words of the Open Inference extensions.
///
/// Source: Triton's names in Triton's order, those that need a setting last.
const EXTENSIONS: [&str; 10] = [
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
];

fn extensions(client_shared_memory: bool, traces: bool) -> Vec<&'static str> {
    let mut extensions = EXTENSIONS.to_vec();
    if client_shared_memory {
        extensions.push("system_shared_memory");
    }
    if traces {
        extensions.push("trace");
    }
    extensions
}

impl Server {
    pub fn new(configuration: Configuration) -> Result<Self> {
        let info = ServerInfo {
            name: "kingpole",
            version: env!("CARGO_PKG_VERSION"),
            extensions: extensions(configuration.client_shared_memory, configuration.trace_file.is_some()),
        };
        let engine = EngineConfiguration {
            reactors: configuration.reactors.max(1),
            queue_bytes: configuration.queue_bytes,
            default_model: configuration.default_model.as_deref().map(ByteString::from),
            info,
        };
        let (shared, control) = Shared::new(engine, Clock::new(Instant::now()));
        if let Some(path) = &configuration.trace_file {
            shared.trace_to(path.display().to_string(), trace_file::write_to(path)?);
        }
        let background = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kingpole-background")
            .enable_all()
            .build()
            .map_err(|error| Error::internal(format!("cannot start the background thread: {error}")))?;
        let (lost_models, lost) = mpsc::unbounded_channel();
        Ok(Self {
            configuration,
            shared,
            control: Mutex::new(control),
            lost_models,
            lost: Mutex::new(lost),
            background,
            shutdown: watch::Sender::new(false),
            reactors: Mutex::default(),
        })
    }

    /// Bind, start the reactors and accept. Gives the bound addresses.
    pub fn start(&self) -> Result<Vec<String>> {
        raise_file_limit();
        let configuration = &self.configuration;
        let frontend = FrontendConfiguration {
            // What never fits must not be told to try again.
            max_body_bytes: configuration.max_body_bytes.min(configuration.buffer_bytes),
            memory: MemoryBudget::new(configuration.buffer_bytes),
            max_connections: configuration.max_connections,
            tls: match (&configuration.tls_certificate, &configuration.tls_key) {
                (Some(certificate), Some(key)) => Some(load_tls(certificate, key)?),
                _ => None,
            },
            mirror_contents: configuration.mirror_contents,
            client_shared_memory: configuration
                .client_shared_memory
                .then(|| SystemRegions::new(configuration.shared_memory_prefix.clone())),
            stream_dialect: stream_dialect(&configuration.stream_dialect)?,
            origins: Origins::new(&configuration.cors_origin)
                .map_err(|error| Error::new(error.code, format!("cors_origin: {}", error.message)))?,
            http_headers: header_pattern(
                "http_header_forward_pattern",
                configuration.http_header_forward_pattern.as_deref(),
            )?,
            grpc_headers: header_pattern(
                "grpc_header_forward_pattern",
                configuration.grpc_header_forward_pattern.as_deref(),
            )?,
            ..FrontendConfiguration::default()
        };
        self.shared.set_starting();
        let listeners = Listeners::bind(&configuration.listen)?;
        let addresses = listeners.addresses();
        let mut handles = Vec::new();
        for index in 0..configuration.reactors.max(1) {
            let (handle, incoming) = reactor();
            handles.push(handle);
            let started = start_reactor(
                index,
                self.shared.clone(),
                incoming,
                frontend.clone(),
                self.shutdown.subscribe(),
            )?;
            self.reactors.lock().unwrap_or_else(PoisonError::into_inner).push(started);
        }
        let (limit, shutdown) = (configuration.max_connections, self.shutdown.subscribe());
        self.background.spawn(async move {
            // It fails only where the runtime cannot watch sockets, which nothing can mend.
            let _ = listeners.accept(handles, limit, shutdown).await;
        });
        Ok(addresses)
    }

    /// The runtime of the reactor that worker number `index` should be read by: results then wake
    /// the thread that answers, with no thread between.
    pub fn reactor_handle(&self, index: usize) -> Handle {
        let reactors = self.reactors.lock().unwrap_or_else(PoisonError::into_inner);
        match reactors.len() {
            0 => self.background.handle().clone(),
            count => reactors[index % count].handle.clone(),
        }
    }

    /// Stop accepting, refuse new requests, say so in readiness and to connections.
    pub fn drain(&self) {
        self.shared.drain();
        self.shutdown.send_replace(true);
    }

    /// Wait for what is in flight, then end the reactors. True if everything was answered in time.
    pub fn stop(&self, timeout: Duration) -> bool {
        self.drain();
        let deadline = Instant::now() + timeout;
        let mut clean = true;
        for reactor in std::mem::take(&mut *self.reactors.lock().unwrap_or_else(PoisonError::into_inner)) {
            let (done, ended) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                // A reactor that panicked has ended too; its panic was printed where it happened.
                let _ = reactor.thread.join();
                let _ = done.send(());
            });
            let left = deadline.saturating_duration_since(Instant::now());
            clean &= ended.recv_timeout(left).is_ok();
        }
        clean && self.shared.in_flight() == 0
    }
}

fn stream_dialect(name: &str) -> Result<StreamDialect> {
    StreamDialect::from_name(name.as_bytes()).ok_or_else(|| {
        let message = format!("stream_dialect: expected triton or open-inference, got '{name}'");
        Error::new(Code::FailedPrecondition, message)
    })
}

fn header_pattern(setting: &str, pattern: Option<&str>) -> Result<Option<HeaderPattern>> {
    let built = pattern.map(HeaderPattern::new).transpose();
    built.map_err(|error| Error::new(error.code, format!("{setting}: {}", error.message)))
}

fn start_reactor(
    index: usize,
    shared: Arc<Shared>,
    incoming: mpsc::UnboundedReceiver<kingpole_frontends::Accepted>,
    frontend: FrontendConfiguration,
    shutdown: watch::Receiver<bool>,
) -> Result<Reactor> {
    let failed = |error: std::io::Error| Error::internal(format!("cannot start reactor {index}: {error}"));
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    let thread = std::thread::Builder::new()
        .name(format!("kingpole-{index}"))
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let engine = Engine::new(shared, index);
                run_reactor(engine, incoming, Arc::new(frontend), shutdown).await;
            });
        })
        .map_err(failed)?;
    Ok(Reactor { thread, handle })
}

/// Thousands of idle connections are normal; the usual soft limit of 1024 files is not for servers.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Failing leaves the limit as it is; accepting backs off when it is reached.
    let _ = setrlimit(Resource::Nofile, limit);
}
