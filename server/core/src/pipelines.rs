//! Pipelines as their configuration writes them.

use std::collections::BTreeMap;

use kingpole_engine::StepConfiguration;
use kingpole_values::{ByteString, Code, Error, Result};
use serde::Deserialize;

use crate::configuration::{OpenRequest, Opened};

/// What configurations call the backend of models that are made of others.
pub const BACKEND: &str = "pipeline";

/// What Triton calls it.
const PLATFORM: &str = "ensemble";

/// The part of a configuration that is about pipelines; Python has checked its form.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    steps: Vec<Step>,
    #[serde(default)]
    inputs: Vec<Declared>,
    #[serde(default)]
    outputs: Vec<Declared>,
    #[serde(default)]
    max_batch_size: Option<u32>,
}

#[derive(Deserialize)]
struct Step {
    model: String,
    name: Option<String>,
    version: Option<u64>,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    #[serde(default)]
    outputs: BTreeMap<String, String>,
    when: Option<String>,
    unless: Option<String>,
    #[serde(default)]
    each_row: bool,
}

#[derive(Deserialize)]
struct Declared {
    name: String,
    datatype: Option<String>,
    shape: Option<Vec<i64>>,
}

/// Read a pipeline. Whether it makes sense is found when it is to be served, beside the models that it asks.
pub fn open(request: &OpenRequest) -> Result<(Vec<StepConfiguration>, Opened)> {
    let refuse = |message: String| Error::new(Code::FailedPrecondition, message);
    let written: Written = Deserialize::deserialize(&request.configuration)
        .map_err(|error: serde_json::Error| refuse(format!("pipeline '{}': {error}", request.name)))?;
    let declared = |kind: &str, tensors: Vec<Declared>| {
        let row = |tensor: Declared| match (tensor.datatype, tensor.shape) {
            (Some(datatype), Some(shape)) => Ok((tensor.name, datatype, shape)),
            _ => Err(refuse(format!(
                "{kind} '{}': a pipeline must say the datatype and the shape",
                tensor.name
            ))),
        };
        tensors.into_iter().map(row).collect::<Result<Vec<_>>>()
    };
    let opened = Opened {
        platform: PLATFORM.to_owned(),
        inputs: declared("input", written.inputs)?,
        outputs: declared("output", written.outputs)?,
        max_batch_size: Some(written.max_batch_size.unwrap_or(0)),
        ..Opened::default()
    };
    if opened.outputs.is_empty() {
        return Err(refuse("a pipeline must say its outputs".to_owned()));
    }
    Ok((written.steps.into_iter().map(step).collect(), opened))
}

fn step(step: Step) -> StepConfiguration {
    let names = |names: BTreeMap<String, String>| {
        names.into_iter().map(|(theirs, ours)| (ByteString::from(theirs), ByteString::from(ours))).collect()
    };
    StepConfiguration {
        name: step.name.unwrap_or_else(|| step.model.clone()),
        model: step.model.into(),
        version: step.version.map(|version| version.to_string().into()),
        inputs: names(step.inputs),
        outputs: names(step.outputs),
        condition: step
            .when
            .map(|tensor| (tensor.into(), true))
            .or_else(|| step.unless.map(|tensor| (tensor.into(), false))),
        each_row: step.each_row,
    }
}
