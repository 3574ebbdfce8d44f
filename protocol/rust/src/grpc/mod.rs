//! Open Inference over gRPC.
//!
//! The messages of an inference are read and written by hand, so that `raw_input_contents` and
//! `raw_output_contents` are never copied; everything else goes through [`proto`].

mod config;
mod contents;
pub(crate) mod protobuf;
mod request;
mod response;

pub use config::model_config_from_json;
pub use request::{GrpcInferRequest, decode_infer_request, encode_infer_request};
pub use response::{
    decode_infer_response, encode_infer_response, encode_infer_response_message, encode_stream_error_message,
    encode_stream_response_message,
};

/// The generated messages of every schema but those read by hand.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));

    /// `grpc.health.v1`.
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
    }
    /// `grpc.reflection.v1`; `v1alpha` has the same messages on the wire.
    pub mod reflection {
        include!(concat!(env!("OUT_DIR"), "/grpc.reflection.v1.rs"));
    }
}

/// A serialized `FileDescriptorSet` of every schema, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

impl proto::RepositoryModelLoadRequest {
    /// The model asked for, in whichever of the two fields the client's dialect puts it.
    pub fn model(&self) -> &str {
        if self.model_name.is_empty() { &self.repository_name } else { &self.model_name }
    }
}

impl proto::RepositoryModelUnloadRequest {
    /// The model asked for, in whichever of the two fields the client's dialect puts it.
    pub fn model(&self) -> &str {
        if self.model_name.is_empty() { &self.repository_name } else { &self.model_name }
    }
}

#[cfg(test)]
mod tests;
