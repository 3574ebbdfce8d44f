//! The JSON that Python hands over, as plain values.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytestring::ByteString;
use kingpole_engine::{Control, ControlKind, ModelSpec, SequencePolicy, State, Strategy, TensorSpec};
use kingpole_values::{Code, Datatype, Error, Result, Shape, Tensor};
use serde::{Deserialize, Serialize};

/// How the server runs. Python has merged flags, environment and files already.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Configuration {
    pub listen: Vec<String>,
    pub reactors: usize,
    pub max_body_bytes: usize,
    pub max_connections: usize,
    /// What requests and answers of all connections may hold together.
    pub buffer_bytes: usize,
    pub queue_bytes: usize,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub default_model: Option<String>,
    pub worker_command: Vec<String>,
    pub worker_environment: BTreeMap<String, String>,
    pub onnxruntime_library: Option<PathBuf>,
    /// A model whose slowest warm batch is quicker than this may run on the reactors.
    pub inline_limit_us: u64,
    pub threads: usize,
    /// A model that takes longer to load in a worker is given up.
    pub load_limit_seconds: u64,
    /// A batch that runs longer in a worker ends it, where the model's configuration does not say.
    pub execute_limit_seconds: u64,
    /// How the repository is managed; only reported.
    pub control: String,
    pub mirror_contents: bool,
    /// Let clients register named regions of shared memory.
    pub client_shared_memory: bool,
    /// What the names of those regions' files must begin with; empty: any name.
    pub shared_memory_prefix: Vec<String>,
    /// `triton` or `open-inference`.
    pub stream_dialect: String,
    /// Origins of web pages whose scripts may call; `*`: any.
    pub cors_origin: Vec<String>,
    /// Where traces are written.
    pub trace_file: Option<PathBuf>,
    pub http_header_forward_pattern: Option<String>,
    pub grpc_header_forward_pattern: Option<String>,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            listen: vec!["127.0.0.1:8000".to_owned()],
            reactors: 1,
            max_body_bytes: 1 << 30,
            max_connections: 10_000,
            buffer_bytes: 1 << 30,
            queue_bytes: 256 << 20,
            tls_certificate: None,
            tls_key: None,
            default_model: None,
            worker_command: Vec::new(),
            worker_environment: BTreeMap::new(),
            onnxruntime_library: None,
            inline_limit_us: 200,
            threads: 1,
            load_limit_seconds: 300,
            execute_limit_seconds: 60,
            control: "none".to_owned(),
            mirror_contents: true,
            client_shared_memory: false,
            shared_memory_prefix: Vec::new(),
            stream_dialect: "triton".to_owned(),
            cors_origin: Vec::new(),
            trace_file: None,
            http_header_forward_pattern: None,
            grpc_header_forward_pattern: None,
        }
    }
}

/// Where a model's batches run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerKind {
    Auto,
    Inline,
    Shared,
    Own,
}

/// A model version to open.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    pub name: String,
    /// Part of the contract with Python; workers are told the directory instead.
    #[allow(dead_code, reason = "kept so that unknown fields can be refused")]
    pub version: String,
    pub backend: String,
    pub directory: String,
    pub file: Option<PathBuf>,
    pub worker: WorkerKind,
    #[serde(default = "one")]
    pub instances: usize,
    #[serde(default = "cpu")]
    pub device: String,
    #[serde(default)]
    pub configuration: serde_json::Value,
}

fn one() -> usize {
    1
}

fn cpu() -> String {
    "cpu".to_owned()
}

/// What a backend says of a model it has opened: `[name, datatype, shape]` for each tensor.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Opened {
    pub handle: u64,
    pub placed: &'static str,
    pub platform: String,
    pub inputs: Vec<(String, String, Vec<i64>)>,
    pub outputs: Vec<(String, String, Vec<i64>)>,
    pub max_batch_size: Option<u32>,
    pub decoupled: bool,
    pub description: String,
    pub notes: Vec<String>,
}

/// How a model is served in the end.
#[derive(Debug, Serialize)]
pub struct Served {
    pub placed: &'static str,
    pub profile: Vec<(u32, f64)>,
    pub notes: Vec<String>,
}

/// The final specification of a version.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Specification {
    pub name: String,
    pub version: String,
    pub platform: String,
    pub backend: String,
    pub inputs: Vec<(String, String, Vec<i64>, bool)>,
    pub outputs: Vec<(String, String, Vec<i64>)>,
    pub max_batch_size: u32,
    #[serde(default)]
    pub decoupled: bool,
    pub default_timeout_us: Option<u64>,
    #[serde(default)]
    pub max_queue_delay_us: u64,
    #[serde(default)]
    pub labels: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub config_json: String,
    #[serde(default = "yes")]
    pub warmup: bool,
    #[serde(default)]
    pub sequence: Option<SequenceSpecification>,
}

/// How a version's sequences are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceSpecification {
    /// None: each sequence has a row of its own; a number: so many may live on one lane.
    max_candidates: Option<u32>,
    max_idle_us: u64,
    controls: Vec<ControlSpecification>,
    states: Vec<StateSpecification>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlSpecification {
    name: String,
    kind: String,
    datatype: String,
    shape: Vec<i64>,
    /// The elements for no and yes, as bytes.
    values: [Vec<u8>; 2],
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateSpecification {
    input: String,
    output: String,
    datatype: String,
    shape: Vec<i64>,
    /// None: zeros.
    initial: Option<Vec<u8>>,
}

impl SequenceSpecification {
    fn policy(&self) -> Result<SequencePolicy> {
        let strategy = match self.max_candidates {
            None => Strategy::Direct,
            Some(max_candidates) => Strategy::Oldest { max_candidates },
        };
        Ok(SequencePolicy {
            strategy,
            max_idle_us: self.max_idle_us,
            controls: self.controls.iter().map(ControlSpecification::control).collect::<Result<_>>()?,
            states: self.states.iter().map(StateSpecification::state).collect::<Result<_>>()?,
        })
    }
}

impl ControlSpecification {
    fn control(&self) -> Result<Control> {
        let kind = match self.kind.as_str() {
            "start" => ControlKind::Start,
            "end" => ControlKind::End,
            "ready" => ControlKind::Ready,
            "correlation" => ControlKind::Correlation,
            other => return Err(refuse(format!("control '{}': unknown kind '{other}'", self.name))),
        };
        Ok(Control {
            name: self.name.as_str().into(),
            kind,
            datatype: datatype(&self.name, &self.datatype)?,
            shape: Shape::new(&self.shape),
            values: self.values.clone().map(Into::into),
        })
    }
}

impl StateSpecification {
    fn state(&self) -> Result<State> {
        let datatype = datatype(&self.input, &self.datatype)?;
        let shape = Shape::new(&self.shape);
        let bytes = shape.elements().unwrap_or(0) * datatype.element_bytes().unwrap_or(0);
        let data = self.initial.clone().unwrap_or_else(|| vec![0; bytes]).into();
        let initial = Tensor { name: self.input.as_str().into(), datatype, shape, data };
        initial.check_size().map_err(|error| refuse(format!("initial state: {}", error.message)))?;
        Ok(State { input: initial.name.clone(), output: self.output.as_str().into(), datatype, initial })
    }
}

fn refuse(message: String) -> Error {
    Error::new(Code::FailedPrecondition, message)
}

fn datatype(tensor: &str, name: &str) -> Result<Datatype> {
    Datatype::from_name(name).ok_or_else(|| {
        refuse(format!("tensor '{tensor}': unknown datatype '{name}', expected one such as FP32"))
    })
}

fn yes() -> bool {
    true
}

impl Specification {
    pub fn spec(&self) -> Result<ModelSpec> {
        Ok(ModelSpec {
            name: ByteString::from(self.name.as_str()),
            version: ByteString::from(self.version.as_str()),
            platform: self.platform.clone(),
            backend: self.backend.clone(),
            inputs: self
                .inputs
                .iter()
                .map(|(name, datatype, shape, optional)| tensor(name, datatype, shape, *optional))
                .collect::<Result<_>>()?,
            outputs: self
                .outputs
                .iter()
                .map(|(name, datatype, shape)| tensor(name, datatype, shape, false))
                .collect::<Result<_>>()?,
            max_batch_size: self.max_batch_size,
            decoupled: self.decoupled,
            sequence: self.sequence.as_ref().map(SequenceSpecification::policy).transpose()?,
            default_timeout_us: self.default_timeout_us,
            max_queue_delay_us: self.max_queue_delay_us,
            labels: self.labels.iter().map(|(name, labels)| (name.as_str().into(), labels.clone())).collect(),
            description: self.description.clone(),
            config_json: self.config_json.clone(),
        })
    }
}

fn tensor(name: &str, datatype: &str, shape: &[i64], optional: bool) -> Result<TensorSpec> {
    let datatype = self::datatype(name, datatype)?;
    Ok(TensorSpec { name: ByteString::from(name), datatype, shape: Shape::new(shape), optional })
}

/// Parse what Python sent; a mismatch is a fault of ours, so it says which value is off.
pub fn parse<'a, T: Deserialize<'a>>(what: &str, json: &'a [u8]) -> Result<T> {
    serde_json::from_slice(json)
        .map_err(|error| Error::new(Code::FailedPrecondition, format!("{what}: {error}")))
}
