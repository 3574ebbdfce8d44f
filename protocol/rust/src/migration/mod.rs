//! The wire of other servers, so that their clients work unchanged: TensorFlow Serving, `KServe` V1, `SageMaker`, `MLflow`.
//!
//! Their JSON says neither datatypes nor shapes, so its decoders are told what the model declares. They fill a
//! request without judging it further: that is the validator's, as for every protocol.
//!
//! Source: protocol/spec/migration.md.

mod answer;
mod column;
mod cursor;
mod dataframe;
mod examples;
mod npy;
mod predict;
mod tensor_proto;
pub mod tensorflow;

use kingpole_values::{ByteString, Datatype, Error, InferRequest, Result, Shape};

pub use answer::{Layout, encode_classifications, encode_predictions, encode_regressions};
pub use dataframe::{decode_csv, decode_invocation};
pub use examples::decode_examples;
pub use npy::{decode_npy, encode_npy};
pub use predict::decode_predict;

/// An input as the model declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredInput {
    /// Its name.
    pub name: ByteString,
    /// Type of its elements.
    pub datatype: Datatype,
    /// Its full shape; -1 stands for any size.
    pub shape: Shape,
    /// Whether a request may leave it out.
    pub optional: bool,
}

/// A prediction asked for in JSON, and how its answer is laid out.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPredict {
    /// The request. The model and version are in the path, which this crate does not see.
    pub request: InferRequest,
    /// Whether rows or columns came, which is how they go back.
    pub layout: Layout,
    /// The signature asked for, if one was.
    pub signature: Option<ByteString>,
}

/// The input that values without a name are for.
fn only_input(declared: &[DeclaredInput]) -> Result<usize> {
    let mut required = (0..declared.len()).filter(|&index| !declared[index].optional);
    match (declared.len(), required.next(), required.next()) {
        (1, ..) => Ok(0),
        (_, Some(index), None) => Ok(index),
        _ => Err(Error::invalid(format!(
            "values without a name need a model with one input, this one has {}: {}",
            declared.len(),
            names(declared)
        ))),
    }
}

fn find_input(declared: &[DeclaredInput], name: &str) -> Result<usize> {
    declared.iter().position(|input| input.name == *name).ok_or_else(|| {
        Error::invalid(format!("unexpected inference input '{}', expected: {}", shown(name), names(declared)))
    })
}

fn names(declared: &[DeclaredInput]) -> String {
    declared.iter().map(|input| format!("'{}'", input.name)).collect::<Vec<_>>().join(", ")
}

/// A client's text, made fit for an error.
fn shown(text: &str) -> String {
    text.chars().take(128).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests;
