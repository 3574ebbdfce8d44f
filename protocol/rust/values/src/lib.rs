//! The values every layer speaks of: tensors, requests, responses, codes.
//!
//! This crate may not know any protocol, framework, clock or socket. It exists so that the codecs
//! (`kingpole-wire`) and the core (`kingpole-engine`) can share one vocabulary without either
//! knowing the other.

mod code;
mod datatype;
#[cfg(feature = "elements")]
mod elements;
mod request;
mod tensor;

pub use bytestring::ByteString;
pub use code::{Code, Error, Result};
pub use datatype::Datatype;
#[cfg(feature = "elements")]
pub use elements::Element;
pub use request::{
    InferRequest, InferResponse, Parameter, Parameters, RequestedOutput, Sequence, SequenceId, Stage, Timing,
};
pub use tensor::{Shape, Tensor, split_byte_strings, write_byte_string};
