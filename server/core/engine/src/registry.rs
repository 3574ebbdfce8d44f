//! Which models are served, and what is known of those that are not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use kingpole_values::{ByteString, Error, Result};
use tokio::sync::oneshot;

use crate::metrics::ModelMetrics;
use crate::trace::Scope;
use crate::{BatchingPolicy, InlineModel, ModelSpec, Pipeline, Pool, Profile};

/// Where a model's batches run.
pub enum Placement {
    /// On the reactor that read the request.
    Inline(Arc<dyn InlineModel>),
    /// In the lanes of a pool; the number is the model's handle there.
    Lanes(Arc<Pool>, u32),
    /// Nowhere itself: its steps ask other models.
    Pipeline(Arc<Pipeline>),
}

/// One served version of a model.
pub struct Model {
    /// What it takes and gives.
    pub spec: Arc<ModelSpec>,
    /// Where it runs.
    pub placement: Placement,
    /// Distinguishes two loads of the same version.
    pub(crate) number: usize,
    pub(crate) metrics: ModelMetrics,
    pub(crate) profile: Mutex<Profile>,
    /// What its requests are traced by, if they are.
    pub(crate) trace: ArcSwapOption<Scope>,
    /// Dropped with the last request, which tells `closed`.
    _closed: oneshot::Sender<()>,
}

static NEXT_NUMBER: AtomicUsize = AtomicUsize::new(1);

impl Model {
    /// A version ready to be published, and a receiver that ends once nothing uses it any more.
    pub fn new(
        spec: ModelSpec,
        placement: Placement,
        profile: Profile,
        reactors: usize,
    ) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (sender, closed) = oneshot::channel();
        let model = Self {
            spec: Arc::new(spec),
            placement,
            number: NEXT_NUMBER.fetch_add(1, Relaxed),
            metrics: ModelMetrics::new(reactors),
            profile: Mutex::new(profile),
            trace: ArcSwapOption::empty(),
            _closed: sender,
        };
        (Arc::new(model), closed)
    }

    /// What was learned of its speed so far.
    pub fn profile(&self) -> Profile {
        self.profile.lock().map(|profile| profile.clone()).unwrap_or_default()
    }

    /// Whether it means something to it where a request stands in a sequence. For a pipeline its steps decide.
    pub(crate) fn takes_sequences(&self) -> bool {
        self.spec.sequence.is_some() || matches!(self.placement, Placement::Pipeline(_))
    }

    pub(crate) fn policy(&self) -> BatchingPolicy {
        // A decoupled model answers one request at a time, as its responses say nothing of rows.
        let max_batch_size = if self.spec.decoupled { 0 } else { self.spec.max_batch_size };
        let efficient_rows = match self.profile.lock() {
            Ok(profile) if max_batch_size > 1 => profile.efficient_rows(max_batch_size),
            _ => max_batch_size,
        };
        BatchingPolicy { max_batch_size, efficient_rows, max_queue_delay_us: self.spec.max_queue_delay_us }
    }
}

/// One line of the repository index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// The model.
    pub name: String,
    /// The version, where one is known.
    pub version: Option<String>,
    /// `READY`, `UNAVAILABLE`, `LOADING`, `UNLOADING` or `UNKNOWN`.
    pub state: String,
    /// Why it is not ready; empty if it is.
    pub reason: String,
}

/// An immutable snapshot of all that is served.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    /// Versions ascending, the latest last.
    models: HashMap<ByteString, Vec<Arc<Model>>>,
    /// What is known of the rest.
    absent: Arc<Vec<IndexRow>>,
    default_model: Option<ByteString>,
    /// Nobody has told yet what there is.
    is_starting: bool,
}

/// Versions are compared as numbers where both are, else as text.
fn version_order(left: &str, right: &str) -> std::cmp::Ordering {
    match (left.parse::<u64>(), right.parse::<u64>()) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        _ => left.cmp(right),
    }
}

impl Registry {
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<&Arc<Model>> {
        let name = if name.is_empty() { self.default_name()? } else { name };
        let Some(versions) = self.models.get(name) else { return Err(self.why_absent(name, version)) };
        let found = match version {
            None | Some("") => versions.last(),
            Some(version) => versions.iter().find(|model| model.spec.version == *version),
        };
        found.ok_or_else(|| self.why_absent(name, version))
    }

    fn default_name(&self) -> Result<&str> {
        if let Some(name) = &self.default_model {
            return Ok(name);
        }
        let mut names = self.models.keys();
        match (names.next(), names.next()) {
            (Some(name), None) => Ok(name),
            (None, _) => Err(Error::unavailable("no model is ready")),
            _ => Err(Error::not_found(
                "Request for unknown model: no name was given, and several models are served",
            )),
        }
    }

    fn why_absent(&self, name: &str, version: Option<&str>) -> Error {
        let row = self.absent.iter().find(|row| {
            row.name == name && version.is_none_or(|v| row.version.as_deref().is_none_or(|known| known == v))
        });
        if let Some(row) = row.filter(|row| row.state != "UNKNOWN" && row.reason != "unloaded") {
            let reason = if row.reason.is_empty() { row.state.to_lowercase() } else { row.reason.clone() };
            return Error::unavailable(format!("Request for model '{name}' that is not ready: {reason}"));
        }
        if self.is_starting {
            return Error::unavailable("the server is still looking for its models");
        }
        let shown: String = name.chars().take(128).collect::<String>().escape_debug().to_string();
        match version {
            Some(version) if self.models.contains_key(name) => Error::not_found(format!(
                "Request for unknown model: '{shown}' version '{}' is not found",
                version.chars().take(64).collect::<String>().escape_debug()
            )),
            _ => Error::not_found(format!("Request for unknown model: '{shown}' is not found")),
        }
    }

    /// Whether everything that a model needs is served: the models of a pipeline's steps.
    pub fn is_whole(&self, model: &Model) -> bool {
        let Placement::Pipeline(pipeline) = &model.placement else { return true };
        pipeline
            .models()
            .into_iter()
            .all(|(name, version)| self.find(name, version).is_ok_and(|model| self.is_whole(model)))
    }

    pub fn is_known(&self, name: &str, version: Option<&str>) -> bool {
        self.find(name, version).is_ok() || self.absent.iter().any(|row| row.name == name)
    }

    pub fn versions(&self, name: &str) -> Vec<ByteString> {
        let name = if name.is_empty() { self.default_name().unwrap_or_default() } else { name };
        let versions = self.models.get(name).map(Vec::as_slice).unwrap_or_default();
        versions.iter().map(|model| model.spec.version.clone()).collect()
    }

    /// Every served version, by name and then version.
    pub fn served(&self) -> Vec<&Arc<Model>> {
        let mut all: Vec<_> = self.models.values().flatten().collect();
        all.sort_by(|a, b| {
            a.spec.name.cmp(&b.spec.name).then_with(|| version_order(&a.spec.version, &b.spec.version))
        });
        all
    }

    pub fn index(&self, ready_only: bool) -> Vec<IndexRow> {
        let mut rows: Vec<IndexRow> = self
            .served()
            .into_iter()
            .map(|model| IndexRow {
                name: model.spec.name.to_string(),
                version: Some(model.spec.version.to_string()),
                state: "READY".to_owned(),
                reason: String::new(),
            })
            .collect();
        if !ready_only {
            rows.extend(self.absent.iter().cloned());
        }
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    /// With this version served, in place of one of the same name and version if there is one.
    pub fn with(&self, model: Arc<Model>) -> Self {
        let mut next = self.clone();
        let versions = next.models.entry(model.spec.name.clone()).or_default();
        versions.retain(|other| other.spec.version != model.spec.version);
        versions.push(model);
        versions.sort_by(|a, b| version_order(&a.spec.version, &b.spec.version));
        next
    }

    /// Without exactly this load.
    pub fn without(&self, number: usize) -> Self {
        let mut next = self.clone();
        for versions in next.models.values_mut() {
            versions.retain(|model| model.number != number);
        }
        next.models.retain(|_, versions| !versions.is_empty());
        next
    }

    pub fn with_absent(&self, rows: Vec<IndexRow>) -> Self {
        Self { absent: Arc::new(rows), is_starting: false, ..self.clone() }
    }

    pub fn starting(&self) -> Self {
        Self { is_starting: true, ..self.clone() }
    }

    pub fn with_default(default_model: Option<ByteString>) -> Self {
        Self { default_model, ..Self::default() }
    }
}
