//! What is asked of a model, built field by field. Knows no transport.

use std::time::Duration;

use kingpole_values::{ByteString, InferRequest, Parameter, RequestedOutput, Sequence, SequenceId, Tensor};
use kingpole_wire::{MAX_PARAMETERS, MAX_TENSORS};

use crate::{Error, Result};

/// One inference to ask for.
///
/// ```
/// use std::time::Duration;
/// use kingpole_client::{Request, Tensor};
///
/// # fn main() -> kingpole_client::Result<()> {
/// let request = Request::new("digits")
///     .input(Tensor::new("image", &[1, 2, 2], vec![0.0f32, 0.5, 0.5, 1.0])?)
///     .output("scores")
///     .timeout(Duration::from_millis(200));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Request {
    pub(crate) infer: InferRequest,
}

impl Request {
    /// An inference with this model; an empty name is the server's default model.
    pub fn new(model: impl Into<ByteString>) -> Self {
        Self { infer: InferRequest { model: model.into(), ..InferRequest::default() } }
    }

    /// The version wanted; otherwise the latest ready one answers.
    pub fn version(mut self, version: impl Into<ByteString>) -> Self {
        self.infer.version = Some(version.into()).filter(|version| !version.is_empty());
        self
    }

    /// An id of the caller's, echoed in the response.
    pub fn id(mut self, id: impl Into<ByteString>) -> Self {
        self.infer.id = Some(id.into()).filter(|id| !id.is_empty());
        self
    }

    /// One more input. Its bytes are sent from where they are.
    pub fn input(mut self, tensor: Tensor) -> Self {
        self.infer.inputs.push(tensor);
        self
    }

    /// One more output wanted; they come in the order asked. Without any, all come.
    pub fn output(mut self, name: impl Into<ByteString>) -> Self {
        self.infer.outputs.push(RequestedOutput { name: name.into(), ..RequestedOutput::default() });
        self
    }

    /// One more parameter for the model.
    pub fn parameter(mut self, name: impl Into<ByteString>, value: Parameter) -> Self {
        self.infer.parameters.push((name.into(), value));
        self
    }

    /// How long to wait. It travels with the request: the server answers when it expires, and the client stops
    /// waiting a quarter of a second later, both with `DEADLINE_EXCEEDED`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        // 0 would say "no limit".
        self.infer.timeout_us = Some(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX).max(1));
        self
    }

    /// 0 is the default, 1 the highest.
    pub fn priority(mut self, priority: u32) -> Self {
        self.infer.priority = priority;
        self
    }

    /// Where it stands in a sequence that a stateful model keeps together.
    ///
    /// ```
    /// use kingpole_client::{Request, Sequence, SequenceId};
    ///
    /// let first = Sequence { id: SequenceId::Number(7), start: true, end: false };
    /// let request = Request::new("sums").sequence(first);
    /// ```
    pub fn sequence(mut self, sequence: Sequence) -> Self {
        self.infer.sequence = Some(sequence);
        self
    }

    /// Refuse what could not be sent, or would be refused without its fault being named as well.
    pub(crate) fn check(&self) -> Result<()> {
        let infer = &self.infer;
        if infer.inputs.len() > MAX_TENSORS || infer.outputs.len() > MAX_TENSORS {
            return Err(Error::invalid(format!("more than {MAX_TENSORS} tensors")));
        }
        if infer.parameters.len() > MAX_PARAMETERS {
            return Err(Error::invalid(format!("more than {MAX_PARAMETERS} parameters")));
        }
        for tensor in &infer.inputs {
            tensor.check_size()?;
        }
        match &infer.sequence {
            Some(Sequence { id: SequenceId::Number(0), .. }) => {
                Err(Error::invalid("a sequence's number must be above 0"))
            }
            Some(Sequence { id: SequenceId::Text(text), .. }) if text.is_empty() => {
                Err(Error::invalid("a sequence's text must not be empty"))
            }
            _ => Ok(()),
        }
    }
}
