//! The packets of the worker protocol, and the checks on what a worker says.
//!
//! Every packet is one msgpack map with a `type`. Whatever a worker sends, the outcome is a value
//! or an error; nothing it says about memory is believed before it was compared with the arena.

use std::ops::Range;

use kingpole_values::{ByteString, Code, Datatype, Error, Parameter, Parameters, Result, Shape};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::arena::ALIGNMENT_BYTES;
use super::channel::MAX_PACKET_BYTES;

/// A tensor in an arena: name, datatype, shape, offset, bytes.
pub type TensorRow<T> = (T, T, Vec<i64>, u64, u64);
/// A declared tensor: name, datatype, shape.
pub type SignatureRow = (String, String, Vec<i64>);

/// What a server says to a worker.
#[derive(Serialize, Debug)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs)] // the fields are the protocol's
pub enum ToWorker<'a> {
    Load(&'a LoadRequest),
    Execute {
        sequence: u64,
        handle: u32,
        arena: u32,
        inputs: Vec<TensorRow<&'a str>>,
        rows: u32,
        request_rows: &'a [u32],
        free: (u64, u64),
        parameters: Vec<ParameterMap<'a>>,
    },
    /// Nobody wants the rest of a batch's parts any more.
    Cancel {
        sequence: u64,
    },
    Unload {
        handle: u32,
    },
    Release {
        arena: u32,
    },
    Stop {},
}

impl ToWorker<'_> {
    /// The packet; refused if it would be too large.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let packet = rmp_serde::to_vec_named(self)
            .map_err(|error| Error::internal(format!("a packet cannot be written: {error}")))?;
        if packet.len() > MAX_PACKET_BYTES {
            return Err(Error::new(
                Code::FailedPrecondition,
                format!("a packet to a worker has {} bytes, at most {MAX_PACKET_BYTES} fit", packet.len()),
            ));
        }
        Ok(packet)
    }
}

/// Parameters as a map.
#[derive(Debug, Clone, Copy)]
pub struct ParameterMap<'a>(pub &'a Parameters);

impl Serialize for ParameterMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            let name: &str = name;
            match value {
                Parameter::Bool(value) => map.serialize_entry(name, value)?,
                Parameter::Int64(value) => map.serialize_entry(name, value)?,
                Parameter::Uint64(value) => map.serialize_entry(name, value)?,
                Parameter::Double(value) => map.serialize_entry(name, value)?,
                Parameter::String(value) => map.serialize_entry::<str, str>(name, value)?,
            }
        }
        map.end()
    }
}

/// A model to load.
#[derive(Serialize, Debug, Clone)]
pub struct LoadRequest {
    /// The server's number for it, unique among the worker's models.
    pub handle: u32,
    /// Name of the backend.
    pub backend: String,
    /// Where the version's files are.
    pub directory: String,
    /// The model's configuration.
    pub configuration: serde_json::Value,
    /// For example `cpu` or `cuda:0`.
    pub device: String,
}

/// A worker has started.
#[derive(Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its process id, as it sees it.
    pub pid: u32,
    /// The version of its Python.
    pub python: String,
}

/// A model was loaded.
#[derive(Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The handle of the request.
    pub handle: u32,
    /// The platform's name, for example `onnx_cpu`.
    pub platform: String,
    /// What the model's own files say of its inputs; may be empty.
    pub inputs: Vec<SignatureRow>,
    /// The same for outputs.
    pub outputs: Vec<SignatureRow>,
    /// Rows that fit in a batch, where the model says so; 0 if it does not batch.
    #[serde(default)]
    pub max_batch_size: Option<u32>,
    /// Whether it answers a request with any number of responses.
    #[serde(default)]
    pub decoupled: bool,
    /// What the model is for.
    #[serde(default)]
    pub description: String,
    /// What an operator should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What a worker says to its server.
#[derive(Deserialize, Debug)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs)] // the fields are the protocol's
pub enum FromWorker {
    Ready(Ready),
    Loaded(Loaded),
    Failed {
        handle: u32,
        code: String,
        message: String,
    },
    /// One of several responses; `Done` or `Error` still follows.
    Part {
        sequence: u64,
        arena: u32,
        outputs: Vec<TensorRow<String>>,
    },
    Done {
        sequence: u64,
        arena: u32,
        outputs: Vec<TensorRow<String>>,
        execute_us: u64,
    },
    Error {
        sequence: u64,
        code: String,
        message: String,
    },
    Unloaded {
        handle: u32,
    },
}

impl FromWorker {
    /// Read a packet.
    pub fn decode(packet: &[u8]) -> Result<Self> {
        rmp_serde::from_slice(packet)
            .map_err(|error| Error::internal(format!("a worker sent a packet that cannot be read: {error}")))
    }
}

/// An error as a worker words it; an unknown code counts as an internal fault.
pub fn worker_error(code: &str, message: String) -> Error {
    Error::new(Code::from_name(code).unwrap_or(Code::Internal), message)
}

/// An output that was checked against its arena, all but the elements of `BYTES`.
#[derive(Debug)]
pub struct CheckedOutput {
    /// Its name.
    pub name: ByteString,
    /// Type of its elements.
    pub datatype: Datatype,
    /// Its shape.
    pub shape: Shape,
    /// Where in the arena it lies.
    pub range: Range<usize>,
}

/// Check what a worker says of an output.
pub fn check_output(row: TensorRow<String>, arena_bytes: usize) -> Result<CheckedOutput> {
    let (name, datatype, shape, offset, bytes) = row;
    let refuse = |what: String| Error::internal(format!("the worker's output '{name}' {what}"));
    let datatype = Datatype::from_name(&datatype)
        .ok_or_else(|| refuse(format!("has the unknown datatype '{datatype}'")))?;
    if shape.len() > Shape::MAX_RANK {
        return Err(refuse(format!("has rank {}, at most {} is served", shape.len(), Shape::MAX_RANK)));
    }
    let shape = Shape::new(&shape);
    let elements = shape
        .elements()
        .ok_or_else(|| refuse(format!("has shape {shape}, which is negative or too large")))?;
    let range = usize::try_from(offset)
        .ok()
        .zip(usize::try_from(bytes).ok())
        .and_then(|(offset, bytes)| Some(offset..offset.checked_add(bytes)?))
        .filter(|range| range.end <= arena_bytes)
        .ok_or_else(|| {
            refuse(format!("has {bytes} bytes at {offset}, beyond its arena of {arena_bytes} bytes"))
        })?;
    if !range.start.is_multiple_of(ALIGNMENT_BYTES) {
        return Err(refuse(format!("starts at {offset}, not a multiple of {ALIGNMENT_BYTES}")));
    }
    if let Some(element_bytes) = datatype.element_bytes()
        && elements.checked_mul(element_bytes) != Some(range.len())
    {
        return Err(refuse(format!("has {bytes} bytes, which {datatype} {shape} does not need")));
    }
    Ok(CheckedOutput { name: name.into(), datatype, shape, range })
}
