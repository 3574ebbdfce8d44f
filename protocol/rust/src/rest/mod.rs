//! Open Inference over HTTP: JSON, with the binary tensor extension.
//!
//! Source: protocol/spec/http.md.

mod ask;
pub(crate) mod elements;
mod generate;
mod half_precision;
mod request;
mod response;
pub(crate) mod schema;
mod single_pass;
pub(crate) mod write;

use bytes::Bytes;
use kingpole_values::{ByteString, Error, InferRequest};

use crate::{Regions, Scatter};
pub use ask::{decode_error, decode_model_metadata, decode_ready, decode_server_metadata, model_path};
pub use generate::{GenerateModel, decode_generate_request, encode_generate_response};
pub use request::{decode_infer_request, raw_request};
pub use response::{
    decode_infer_response, encode_infer_request, encode_infer_response, encode_infer_response_in_regions,
};

/// The header that says how many bytes of the body are JSON.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// An inference asked for over HTTP, and how it wants to be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct RestInferRequest {
    /// The request. The model and version are in the path, which this crate does not see.
    pub request: InferRequest,
    /// How the outputs should travel.
    pub reply: RestReply,
    /// Where tensors in shared memory are.
    pub regions: Regions,
    /// The body was one tensor's bytes and nothing else: its name, datatype and shape come from the
    /// model's specification.
    pub raw: bool,
}

/// How outputs should travel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestReply {
    /// Whether outputs that say nothing are binary (`binary_data_output`).
    pub binary_default: bool,
    /// What requested outputs say themselves (`binary_data`), in the order they were requested.
    pub outputs: Vec<(ByteString, Option<bool>)>,
}

impl RestReply {
    /// Whether the output at `index`, called `name`, should be binary.
    pub fn is_binary(&self, index: usize, name: &str) -> bool {
        let said = match self.outputs.get(index) {
            Some((requested, binary)) if requested.is_empty() || requested == name => Some(*binary),
            _ => self.outputs.iter().find(|(requested, _)| requested == name).map(|(_, binary)| *binary),
        };
        said.flatten().unwrap_or(self.binary_default)
    }
}

/// A body: JSON, and maybe tensors after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestBody {
    /// The body.
    pub body: Scatter,
    /// Bytes of JSON, to be said in [`HEADER_LENGTH`], if something follows; else the body is all JSON.
    pub header_length: Option<usize>,
}

/// `{"error": "..."}`.
pub fn encode_error(error: &Error) -> Bytes {
    let mut body = bytes::BytesMut::with_capacity(error.message.len() + 16);
    body.extend_from_slice(b"{\"error\":");
    write::string(&mut body, &error.message);
    body.extend_from_slice(b"}");
    body.freeze()
}

#[cfg(test)]
mod tests;
