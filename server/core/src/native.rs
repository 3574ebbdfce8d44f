//! Backends that the core can run itself, without Python: what `inline` needs.
//!
//! Each says whether a model may run on the reactors, which is a promise: its batches neither block nor run
//! the user's code. Whether a model is quick enough is measured by whoever opens it.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use kingpole_engine::InlineModel;
use kingpole_instances::onnx::{GraphOptimization, Runtime, Session, SessionConfiguration, Signature};
use kingpole_values::{Code, Error, Result, Tensor};
use serde_json::{Value, json};

use crate::configuration::{OpenRequest, Opened};

/// Weights of more than this cannot be read from memory within the inline limit on any machine we know, so
/// that such a model is not loaded on trial.
const LARGEST_INLINE_FILE_BYTES: u64 = 64 << 20;

/// A backend of the core's own.
pub trait NativeBackend: Send + Sync {
    /// Whether this model may run on a reactor, and if not, why.
    fn inline_safe(&self, request: &OpenRequest) -> Result<()>;

    /// Whether it may turn out to be quick enough for one, so that it is worth opening to see.
    fn worth_a_trial(&self, _request: &OpenRequest) -> bool {
        true
    }

    /// Open a model to run on reactors.
    fn open(&self, request: &OpenRequest) -> Result<(Arc<dyn InlineModel>, Opened)>;
}

/// The native backends by name.
pub struct NativeBackends {
    onnx: Onnx,
}

impl NativeBackends {
    pub fn new(onnxruntime_library: Option<&Path>) -> Self {
        Self { onnx: Onnx { library: onnxruntime_library.map(Path::to_owned), runtime: OnceLock::new() } }
    }

    /// The native form of a backend, if it has one.
    pub fn find(&self, name: &str) -> Option<&dyn NativeBackend> {
        match name {
            "onnx" => Some(&self.onnx),
            "identity" => Some(&Identity),
            _ => None,
        }
    }
}

fn refuse(message: impl Into<String>) -> Error {
    Error::new(Code::FailedPrecondition, message.into())
}

struct Onnx {
    library: Option<std::path::PathBuf>,
    runtime: OnceLock<Result<Arc<Runtime>>>,
}

impl Onnx {
    fn runtime(&self) -> Result<Arc<Runtime>> {
        let load = || {
            let path = self
                .library
                .as_ref()
                .ok_or_else(|| refuse("ONNX Runtime is not installed: pip install 'kingpole[onnx]'"))?;
            Runtime::load(path)
        };
        self.runtime.get_or_init(load).clone()
    }
}

impl NativeBackend for Onnx {
    fn inline_safe(&self, request: &OpenRequest) -> Result<()> {
        if request.device != "cpu" {
            return Err(refuse("inline models run on the CPU; use worker: shared or own"));
        }
        let providers = option(request, "providers").and_then(Value::as_str).unwrap_or_default();
        let cpu_only = |name: &str| matches!(name.trim(), "" | "CPU" | "CPUExecutionProvider");
        if !providers.split(',').all(cpu_only) {
            return Err(refuse(format!(
                "option 'providers' asks for {providers}, inline models have only the CPU's"
            )));
        }
        self.runtime().map(drop)
    }

    fn worth_a_trial(&self, request: &OpenRequest) -> bool {
        let file = request.file.as_ref().and_then(|file| std::fs::metadata(file).ok());
        // Several instances were asked for by somebody who expects batches to take their time.
        request.instances <= 1 && file.is_some_and(|file| file.len() <= LARGEST_INLINE_FILE_BYTES)
    }

    fn open(&self, request: &OpenRequest) -> Result<(Arc<dyn InlineModel>, Opened)> {
        let file = request.file.as_deref().ok_or_else(|| refuse("the onnx backend needs a model file"))?;
        let (configuration, notes) = session_configuration(request)?;
        let session = self.runtime()?.open(file, &configuration)?;
        let opened = Opened {
            platform: "onnxruntime_onnx".to_owned(),
            inputs: rows(session.inputs()),
            outputs: rows(session.outputs()),
            description: session.metadata().description.clone(),
            notes,
            ..Opened::default()
        };
        Ok((Arc::new(OnnxInline(session)), opened))
    }
}

struct OnnxInline(Session);

impl InlineModel for OnnxInline {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.0.run(inputs)
    }
}

fn option<'a>(request: &'a OpenRequest, name: &str) -> Option<&'a Value> {
    request.configuration.get("options")?.get(name)
}

/// The backend's options, as `kingpole_backends.onnx` reads them.
fn session_configuration(request: &OpenRequest) -> Result<(SessionConfiguration, Vec<String>)> {
    let mut made = SessionConfiguration::default();
    let mut notes = Vec::new();
    let options = request.configuration.get("options").and_then(Value::as_object);
    for (name, value) in options.into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let number = || {
            text.parse::<i64>()
                .map_err(|_| refuse(format!("option '{name}': expected a whole number, got {text}")))
        };
        let threads = || {
            u16::try_from(number()?)
                .map_err(|_| refuse(format!("option '{name}': expected 0 to {}, got {text}", u16::MAX)))
        };
        match name.as_str() {
            // 0 is "as is usual where it runs", which on a reactor is one.
            "intra_op_thread_count" => made.intra_op_threads = threads()?.max(1),
            "inter_op_thread_count" => made.inter_op_threads = threads()?.max(1),
            "execution_mode" => {
                if number()? == 1 {
                    made.inter_op_threads = made.inter_op_threads.max(2);
                }
            }
            "graph_level" => {
                made.graph_optimization = match number()? {
                    -1 => GraphOptimization::Basic,
                    0 => GraphOptimization::Extended,
                    1 | 99 => GraphOptimization::All,
                    other => {
                        return Err(refuse(format!(
                            "option 'graph_level': expected -1, 0 or 1, got {other}"
                        )));
                    }
                }
            }
            "providers" => {}
            _ => notes.push(format!("option '{name}' is not known to the onnx backend and has no effect")),
        }
    }
    Ok((made, notes))
}

fn rows(signatures: &[Signature]) -> Vec<(String, String, Vec<i64>)> {
    signatures
        .iter()
        .map(|tensor| (tensor.name.clone(), tensor.datatype.name().to_owned(), tensor.shape.to_vec()))
        .collect()
}

struct Identity;

impl NativeBackend for Identity {
    fn inline_safe(&self, _request: &OpenRequest) -> Result<()> {
        Ok(())
    }

    fn open(&self, request: &OpenRequest) -> Result<(Arc<dyn InlineModel>, Opened)> {
        let inputs = declared(request, "inputs")?;
        if inputs.is_empty() {
            return Err(refuse("the identity backend needs `inputs` in the configuration"));
        }
        let mut outputs = declared(request, "outputs")?;
        if outputs.is_empty() {
            outputs = inputs
                .iter()
                .enumerate()
                .map(|(index, (_, datatype, shape))| {
                    (format!("OUTPUT{index}"), datatype.clone(), shape.clone())
                })
                .collect();
        }
        let same = inputs.len() == outputs.len()
            && inputs
                .iter()
                .zip(&outputs)
                .all(|(input, output)| (&input.1, &input.2) == (&output.1, &output.2));
        if !same {
            return Err(refuse("identity: outputs must match the inputs one for one"));
        }
        let names = outputs.iter().map(|output| output.0.clone()).collect();
        let opened = Opened { platform: "identity".to_owned(), inputs, outputs, ..Opened::default() };
        Ok((Arc::new(IdentityInline(names)), opened))
    }
}

/// Gives each input back under the name of the output at its position.
struct IdentityInline(Vec<String>);

impl InlineModel for IdentityInline {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        Ok(inputs
            .iter()
            .zip(&self.0)
            .map(|(input, name)| Tensor { name: name.as_str().into(), ..input.clone() })
            .collect())
    }
}

/// A tensor as the model's configuration declares it; further fields are Python's concern.
#[derive(serde::Deserialize)]
struct Declared {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

fn declared(request: &OpenRequest, side: &str) -> Result<Vec<(String, String, Vec<i64>)>> {
    let rows = request.configuration.get(side).and_then(Value::as_array).cloned().unwrap_or_default();
    rows.into_iter()
        .map(|row| {
            let declared: Declared =
                serde_json::from_value(row).map_err(|error| refuse(format!("identity: {side}: {error}")))?;
            Ok((declared.name, declared.datatype, declared.shape))
        })
        .collect()
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
