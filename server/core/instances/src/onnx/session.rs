//! A model that is open.

use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kingpole_values::{ByteString, Code, Datatype, Error, Result, Tensor};
use smallvec::SmallVec;

use super::ffi::{self, Elements, Input, RawSession, Side};
use super::{Metadata, SessionConfiguration, Signature};

/// What an input's bytes are aligned to where they lie well.
const ALIGNMENT_BYTES: usize = 64;

/// A model that is open. May be run from any number of threads at once.
pub struct Session {
    raw: Arc<RawSession>,
    inputs: Vec<Signature>,
    outputs: Vec<Signature>,
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    tensor_names: Vec<ByteString>,
    metadata: Metadata,
}

impl Session {
    pub(super) fn open(
        api: &Arc<ffi::Api>,
        path: &Path,
        configuration: &SessionConfiguration,
    ) -> Result<Self> {
        // Whatever the library calls it, a model that does not load is a matter of what was given.
        let refuse = |error: Error| Error::new(Code::FailedPrecondition, error.message);
        let raw = Arc::new(RawSession::open(api, path, configuration).map_err(refuse)?);
        let inputs = signatures(&raw, Side::Input)?;
        let outputs = signatures(&raw, Side::Output)?;
        let c_names = |signatures: &[Signature]| {
            signatures.iter().map(|signature| ffi::c_string(signature.name.as_bytes())).collect::<Result<_>>()
        };
        Ok(Self {
            input_names: c_names(&inputs)?,
            output_names: c_names(&outputs)?,
            tensor_names: outputs.iter().map(|output| ByteString::from(output.name.as_str())).collect(),
            metadata: raw.metadata().map_err(refuse)?,
            raw,
            inputs,
            outputs,
        })
    }

    /// The inputs that must be given, in the graph's order.
    pub fn inputs(&self) -> &[Signature] {
        &self.inputs
    }

    /// The outputs, in the graph's order.
    pub fn outputs(&self) -> &[Signature] {
        &self.outputs
    }

    /// What the model says of itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The execution providers that the session uses, by priority.
    pub fn providers(&self) -> &[&'static str] {
        // No other one is ever added: models for other devices run in workers.
        &["CPUExecutionProvider"]
    }

    /// Run a batch: every input by name, in any order; every output in the graph's order.
    ///
    /// Bytes of inputs are used where they lie if they start at a multiple of 64, else copied once.
    /// Those of outputs are ONNX Runtime's own and are released when the last view is dropped; only
    /// `BYTES` tensors are copied, both ways.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut names: SmallVec<[&CString; 8]> = SmallVec::with_capacity(inputs.len());
        let mut aligned: SmallVec<[Option<BytesMut>; 4]> = SmallVec::with_capacity(inputs.len());
        for (position, tensor) in inputs.iter().enumerate() {
            names.push(&self.input_names[self.find_input(position, tensor)?]);
            aligned.push(align(tensor));
        }
        let mut values: SmallVec<[Input<'_>; 4]> = SmallVec::with_capacity(inputs.len());
        for (tensor, copy) in inputs.iter().zip(&aligned) {
            let data = copy.as_ref().map_or(&tensor.data[..], |copy| &copy[copy.len() - tensor.data.len()..]);
            values.push(Input::new(&self.raw, tensor.datatype, &tensor.shape, data).map_err(|error| {
                Error::new(error.code, format!("input '{}': {}", tensor.name, error.message))
            })?);
        }
        let mut outputs = Vec::with_capacity(self.outputs.len());
        self.raw.run(&names, &values, &self.output_names, |produced| {
            let data = match produced.elements {
                Elements::Own(data) => data,
                Elements::OfInput(index, range) => inputs[index].data.slice(range),
            };
            outputs.push(Tensor {
                name: self.tensor_names[outputs.len()].clone(),
                datatype: produced.datatype,
                shape: produced.shape,
                data,
            });
            Ok(())
        })?;
        Ok(outputs)
    }

    /// The place of an input; at its own position, as a rule.
    fn find_input(&self, position: usize, tensor: &Tensor) -> Result<usize> {
        let name: &str = &tensor.name;
        if self.inputs.get(position).is_some_and(|input| input.name == name) {
            return Ok(position);
        }
        self.inputs
            .iter()
            .position(|input| input.name == name)
            .ok_or_else(|| Error::invalid(format!("the model has no input '{name}'")))
    }
}

/// A copy that ends with the tensor's bytes at an aligned address, if they do not lie at one.
fn align(tensor: &Tensor) -> Option<BytesMut> {
    let data: &Bytes = &tensor.data;
    if tensor.datatype == Datatype::Bytes || data.as_ptr().addr().is_multiple_of(ALIGNMENT_BYTES) {
        return None;
    }
    let mut copy = BytesMut::with_capacity(data.len() + ALIGNMENT_BYTES);
    let padding = copy.as_ptr().addr().next_multiple_of(ALIGNMENT_BYTES) - copy.as_ptr().addr();
    copy.resize(padding, 0);
    copy.extend_from_slice(data);
    Some(copy)
}

fn signatures(raw: &RawSession, side: Side) -> Result<Vec<Signature>> {
    let side_name = match side {
        Side::Input => "input",
        Side::Output => "output",
    };
    let declared = raw.declared(side)?;
    declared
        .into_iter()
        .map(|declared| {
            let refuse = |what: String| {
                Error::new(Code::FailedPrecondition, format!("{side_name} '{}' is {what}", declared.name))
            };
            let kind = match declared.kind {
                1 => None,
                2 => Some("a sequence"),
                3 => Some("a map"),
                4 => Some("an opaque type"),
                5 => Some("a sparse tensor"),
                6 => Some("an optional type"),
                _ => Some("of an unknown type"),
            };
            if let Some(kind) = kind {
                return Err(refuse(format!("{kind}; only tensors can be served")));
            }
            let datatype = ffi::datatype_of(declared.element).ok_or_else(|| {
                refuse(format!("a tensor of ONNX element type {}, which has no equal here", declared.element))
            })?;
            Ok(Signature { name: declared.name, datatype, shape: declared.shape })
        })
        .collect()
}
