//! `GraphPipe`: flatbuffers as its real clients write them.
//!
//! Those clients leave out the NUL of strings and misalign 8-byte elements, so flatbuffers' own
//! verifier would refuse genuine requests: this module reads by itself, checks every offset, and
//! demands neither. What it writes is aligned and NUL-terminated.
//!
//! Source: protocol/spec/graphpipe.md.

mod flat;
mod read;
mod write;

use kingpole_values::{ByteString, Datatype, InferRequest, Shape, Tensor};

pub use read::{decode_metadata_response, decode_request, decode_response};
pub use write::{
    encode_error_response, encode_infer_response, encode_metadata_request, encode_metadata_response,
    encode_request,
};

/// What a body asks for.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // made once per request and taken apart at once
pub enum GraphpipeRequest {
    /// An inference.
    Infer {
        /// The request; the model is in the path. Inputs without a name go by position.
        request: InferRequest,
        /// Free text for the server.
        config: Option<ByteString>,
    },
    /// The default model's metadata.
    Metadata,
}

/// An answer to an inference.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphpipeResponse {
    /// Outputs, without names.
    pub outputs: Vec<Tensor>,
    /// Errors: a number without a list of meanings, and a text.
    pub errors: Vec<(i64, ByteString)>,
}

/// What a server says of its model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphpipeMetadata {
    /// The model's name.
    pub name: ByteString,
    /// The server's version.
    pub version: ByteString,
    /// The server's name.
    pub server: ByteString,
    /// For humans.
    pub description: ByteString,
    /// Inputs, in order.
    pub inputs: Vec<GraphpipeSpec>,
    /// Outputs, in order.
    pub outputs: Vec<GraphpipeSpec>,
}

/// One input or output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphpipeSpec {
    /// Its name.
    pub name: ByteString,
    /// For humans.
    pub description: ByteString,
    /// Sizes of the dimensions; -1: any.
    pub shape: Shape,
    /// Type of its elements; `None` where `GraphPipe` has no type for it.
    pub datatype: Option<Datatype>,
}

/// `GraphPipe`'s number of a datatype; BOOL goes as Uint8, and BF16 has none.
pub fn type_number(datatype: Datatype) -> Option<u8> {
    Some(match datatype {
        Datatype::Uint8 | Datatype::Bool => 1,
        Datatype::Int8 => 2,
        Datatype::Uint16 => 3,
        Datatype::Int16 => 4,
        Datatype::Uint32 => 5,
        Datatype::Int32 => 6,
        Datatype::Uint64 => 7,
        Datatype::Int64 => 8,
        Datatype::Fp16 => 9,
        Datatype::Fp32 => 10,
        Datatype::Fp64 => 11,
        Datatype::Bytes => 12,
        Datatype::Bf16 => return None,
    })
}

/// The datatype of `GraphPipe`'s number.
pub fn datatype_of(number: u8) -> Option<Datatype> {
    // BOOL shares its number with UINT8, which the number means.
    Datatype::ALL
        .into_iter()
        .find(|&datatype| datatype != Datatype::Bool && type_number(datatype) == Some(number))
}

#[cfg(test)]
mod tests;
