//! What a model takes and gives: plain values, made by whoever loaded it.

use std::collections::BTreeMap;

use kingpole_values::{ByteString, Datatype, Shape};

use crate::SequencePolicy;

/// One declared input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: ByteString,
    /// Type of its elements.
    pub datatype: Datatype,
    /// Its full shape, including the leading -1 of a model that batches; -1 stands for any size.
    pub shape: Shape,
    /// Whether a request may leave it out. Never true for outputs.
    pub optional: bool,
}

/// One version of a model, as clients and the batcher see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelSpec {
    /// The model's name.
    pub name: ByteString,
    /// The version.
    pub version: ByteString,
    /// The platform reported to clients, for example `onnxruntime_onnx`.
    pub platform: String,
    /// The backend that runs it.
    pub backend: String,
    /// Inputs, in the model's order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, in the model's order.
    pub outputs: Vec<TensorSpec>,
    /// Most rows of one batch; 0 for a model that does not batch.
    pub max_batch_size: u32,
    /// The timeout of requests that name none.
    pub default_timeout_us: Option<u64>,
    /// Whether a request is answered by any number of responses.
    pub decoupled: bool,
    /// How its sequences are kept, if its requests belong to sequences.
    pub sequence: Option<SequencePolicy>,
    /// How long the oldest request may wait for company. 0, the default, never waits.
    pub max_queue_delay_us: u64,
    /// What the classes of an output are called, by the output's name.
    pub labels: BTreeMap<ByteString, Vec<String>>,
    /// Free text for people.
    pub description: String,
    /// The model's configuration as the JSON of Triton's `ModelConfig`.
    pub config_json: String,
}

/// What the server says of itself.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The Open Inference extensions it offers.
    pub extensions: Vec<&'static str>,
}
