//! Pipelines: models made of other models, whose tensors go from one to the next inside the engine.
//!
//! This module is the graph: what a pipeline is, and whether it makes sense beside the models that are served. Running
//! one is [`run`]. Neither may know a protocol, nor how a step's model runs: a step is a request like a client's.
//!
//! Source: the ensembles of Triton, with conditions, rows that go each on their own, and absent steps added.

mod check;
mod rows;
mod run;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use kingpole_values::{ByteString, Code, Error, Result};

use crate::{Model, ModelSpec};

pub(crate) use run::run;

/// One step as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepConfiguration {
    /// What messages call it; no two steps share a name.
    pub name: String,
    /// The model that it asks.
    pub model: ByteString,
    /// The version; `None` asks for the latest ready one, at each request.
    pub version: Option<ByteString>,
    /// The model's inputs, and the pipeline's tensors that they are given.
    pub inputs: Vec<(ByteString, ByteString)>,
    /// The model's outputs, and the names that they have in the pipeline.
    pub outputs: Vec<(ByteString, ByteString)>,
    /// Run only if this tensor is what is said; else its outputs are absent.
    pub condition: Option<(ByteString, bool)>,
    /// Each row of its inputs is a request of its own, without dimension 0; the outputs are stacked.
    pub each_row: bool,
}

/// A pipeline that was checked against the models that its steps ask.
#[derive(Debug)]
pub struct Pipeline {
    name: ByteString,
    /// In an order in which each step comes after those that it needs.
    steps: Vec<Step>,
    /// Names of the tensors, by number.
    tensors: Vec<ByteString>,
    /// Numbers of the tensors that are the pipeline's inputs and outputs, in its specification's order.
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    /// Bytes of the inputs of all requests that run.
    held_bytes: AtomicUsize,
}

#[derive(Debug)]
struct Step {
    name: String,
    model: ByteString,
    version: Option<ByteString>,
    inputs: Vec<StepInput>,
    outputs: Vec<(ByteString, usize)>,
    condition: Option<(usize, bool)>,
    each_row: bool,
    /// Positions of the steps that it waits for.
    after: Vec<usize>,
}

#[derive(Debug)]
struct StepInput {
    name: ByteString,
    tensor: usize,
    /// Without it the step runs all the same.
    optional: bool,
}

impl Pipeline {
    /// Check steps against a pipeline's specification and the models that they ask, which `find` gives.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION`, naming the step and the tensor: a model that is not served, a tensor that nobody gives or
    /// that two steps give, datatypes or shapes that do not fit, a circle, an output that may be absent.
    pub fn new(
        specification: &ModelSpec,
        steps: &[StepConfiguration],
        find: impl Fn(&str, Option<&str>) -> Result<Arc<Model>>,
    ) -> Result<Self> {
        check::pipeline(specification, steps, &find)
    }

    /// The models that its steps ask, each once.
    pub fn models(&self) -> Vec<(&str, Option<&str>)> {
        let mut models: Vec<_> =
            self.steps.iter().map(|step| (&*step.model, step.version.as_deref())).collect();
        models.sort_unstable();
        models.dedup();
        models
    }

    /// For each step, how long it and the slowest way on from it take at least, by what its models took.
    fn ahead_us(&self, expected_us: &[u64]) -> Vec<u64> {
        let mut ahead_us = vec![0; self.steps.len()];
        for position in (0..self.steps.len()).rev() {
            ahead_us[position] += expected_us[position];
            for &earlier in &self.steps[position].after {
                ahead_us[earlier] = ahead_us[earlier].max(ahead_us[position]);
            }
        }
        ahead_us
    }

    fn of_step(&self, step: &Step, error: &Error) -> Error {
        let message = format!("step '{}' of pipeline '{}': {}", step.name, self.name, error.message);
        // A client that asks for a pipeline which is there must not hear that it is not.
        let code = if error.code == Code::NotFound { Code::Unavailable } else { error.code };
        Error::new(code, message)
    }
}
