//! The Kingpole frame: a verified flatbuffer header, and payloads beside it.
//!
//! Source: protocol/spec/frame.md; the header's schema is protocol/schema/kingpole.fbs.

mod decode;
mod encode;
mod layout;
mod reader;

use kingpole_values::{ByteString, Datatype, Error, InferRequest, InferResponse, Shape};

pub use decode::decode;
pub use encode::{
    encode_cancel, encode_cancelled, encode_credit, encode_done, encode_error, encode_hand_over,
    encode_metadata, encode_metadata_request, encode_ready, encode_ready_request, encode_release,
    encode_request, encode_request_in_place, encode_response, encode_server_info, encode_server_info_request,
};
pub use layout::{ALIGNMENT, MAGIC, MAX_HEADER_BYTES, PRELUDE_BYTES};
pub use reader::{FrameReader, peek_exchange};

/// The media type of a body that is one frame.
pub const MEDIA_TYPE: &str = "application/x-kingpole";

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Ties an answer to its request on a stream: chosen by the asker, echoed by the answerer.
    pub exchange: u64,
    /// What it says.
    pub message: Message,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// One inference asked for.
    Request {
        /// The request. A tensor that is in shared memory has empty data.
        request: InferRequest,
        /// Where the inputs in shared memory are.
        shared: Vec<SharedTensor>,
        /// Where outputs are wanted in shared memory, and how long they may be there. The index counts the
        /// outputs asked for.
        places: Vec<SharedTensor>,
    },
    /// One inference answered.
    Response {
        /// The response. A tensor that is in shared memory has empty data.
        response: InferResponse,
        /// Where the outputs in shared memory are.
        shared: Vec<SharedTensor>,
    },
    /// Something went wrong.
    Error(FrameError),
    /// The receiver will take this many more requests.
    Credit {
        /// Requests beyond those allowed before.
        requests: u32,
    },
    /// The client no longer wants the answer of this exchange.
    Cancel,
    /// Asks whether a model, or with an empty name the server, is ready.
    ReadyRequest(ModelName),
    /// The answer.
    Ready(bool),
    /// Asks who the server is.
    ServerInfoRequest,
    /// The answer.
    ServerInfo(ServerInfo),
    /// Asks for a model's inputs and outputs.
    MetadataRequest(ModelName),
    /// The answer.
    Metadata(Metadata),
    /// Gives the server an arena, whose descriptor came with the frame.
    HandOver {
        /// The client's number for it.
        arena: u32,
        /// Its size.
        nbytes: u64,
    },
    /// Takes an arena back.
    Release {
        /// Its number.
        arena: u32,
    },
    /// What was asked for is done.
    Done,
    /// A message of a later version: answer it with `UNIMPLEMENTED`.
    Unknown(u8),
}

/// Where a tensor in shared memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedTensor {
    /// Which input or output, counted from 0.
    pub index: usize,
    /// Number of the arena.
    pub arena: u32,
    /// First byte in it.
    pub offset: u64,
    /// Bytes.
    pub nbytes: u64,
}

/// An error as a frame carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// What went wrong.
    pub error: Error,
    /// When trying again makes sense; 0: not said.
    pub retry_after_ms: u32,
    /// The request's id, if it had one.
    pub id: Option<ByteString>,
}

/// A model, and maybe one version of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelName {
    /// The name; empty is the default model (or the server, when readiness is asked).
    pub model: ByteString,
    /// The version; `None` is the latest ready one.
    pub version: Option<ByteString>,
}

/// Who the server is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its name.
    pub name: ByteString,
    /// Its version.
    pub version: ByteString,
    /// What it offers beyond the protocol's core.
    pub extensions: Vec<ByteString>,
    /// Largest frame it takes; 0: not said.
    pub max_frame_bytes: u64,
}

/// A model's inputs and outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The model.
    pub name: ByteString,
    /// Versions that are ready, ascending.
    pub versions: Vec<ByteString>,
    /// The platform.
    pub platform: ByteString,
    /// Inputs, in order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, in order.
    pub outputs: Vec<TensorSpec>,
    /// 0: the model does not batch.
    pub max_batch_size: u32,
    /// For humans.
    pub description: ByteString,
}

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: ByteString,
    /// Type of its elements.
    pub datatype: Datatype,
    /// Size of each dimension; -1: any.
    pub shape: Shape,
    /// Whether a request may leave it out.
    pub optional: bool,
}

#[cfg(test)]
mod tests;
