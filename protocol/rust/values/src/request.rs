//! One inference asked for, and one answered.

use bytestring::ByteString;

use crate::Tensor;

/// A request or tensor parameter's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A signed integer.
    Int64(i64),
    /// An unsigned integer; only used where a peer sent one, or above `i64::MAX`.
    Uint64(u64),
    /// A finite float.
    Double(f64),
    /// Text.
    String(ByteString),
}

/// Named parameters, in the order they came; a name appears once.
pub type Parameters = Vec<(ByteString, Parameter)>;

/// One inference asked for, whatever protocol it came by.
///
/// The codecs fill it without judging it: names, datatypes, shapes and sizes are checked once, by
/// the engine's validator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest {
    /// The model's name; empty asks for the server's default model.
    pub model: ByteString,
    /// The version; `None` asks for the latest ready one.
    pub version: Option<ByteString>,
    /// The client's own id, echoed in the response.
    pub id: Option<ByteString>,
    /// Input tensors, in the client's order. An empty name stands for the input at that position.
    pub inputs: Vec<Tensor>,
    /// Outputs asked for, in the order wanted; empty asks for all.
    pub outputs: Vec<RequestedOutput>,
    /// Parameters that are not part of the protocol's own vocabulary.
    pub parameters: Parameters,
    /// How long the client is willing to wait for the answer, from the moment it was received.
    pub timeout_us: Option<u64>,
    /// 0 is the default; 1 the highest.
    pub priority: u32,
    /// Where it stands in a sequence of requests, if it is part of one.
    pub sequence: Option<Sequence>,
    /// Inputs are in memory that others may write to at any time. They may be copied; whoever computes with
    /// them must do so with a copy.
    pub inputs_may_change: bool,
}

/// What ties the requests of a sequence together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SequenceId {
    /// A number other than 0.
    Number(u64),
    /// A text that is not empty.
    Text(ByteString),
}

/// A request's place in a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Which sequence.
    pub id: SequenceId,
    /// Whether this is its first request.
    pub start: bool,
    /// Whether this is its last.
    pub end: bool,
}

/// An output asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestedOutput {
    /// The output's name; empty stands for the output at that position.
    pub name: ByteString,
    /// Parameters of this output.
    pub parameters: Parameters,
}

/// Where a response stands among those of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It is the only one.
    #[default]
    Only,
    /// More may follow.
    Part,
    /// Nothing follows; it holds no outputs.
    End,
}

/// One inference answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferResponse {
    /// The model that answered.
    pub model: ByteString,
    /// Its version.
    pub version: ByteString,
    /// The request's id, if it had one.
    pub id: Option<ByteString>,
    /// Outputs, in the order asked for.
    pub outputs: Vec<Tensor>,
    /// Parameters given by the model.
    pub parameters: Parameters,
    /// How the request was served.
    pub timing: Timing,
    /// Whether others come before or after it.
    pub stage: Stage,
}

/// How a request was served: what a frontend shows as `Server-Timing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From admission to dispatch, in microseconds.
    pub queue_us: u64,
    /// The batch's execution, in microseconds.
    pub execute_us: u64,
    /// Rows of the batch it rode in; 0 for a model that does not batch.
    pub batch_rows: u32,
    /// Why the batch left when it did, for example `full` or `idle`.
    pub reason: &'static str,
}

impl InferResponse {
    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|output| output.name == name)
    }
}
