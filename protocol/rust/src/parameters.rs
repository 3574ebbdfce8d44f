//! The parameters that have a meaning of their own in Open Inference, whatever its encoding.

use kingpole_values::{Error, InferRequest, Parameter, Parameters, Result, Sequence, SequenceId};

/// The one parameter of the `triton_` family that a client may send.
const EMPTY_FINAL_RESPONSE: &str = "triton_enable_empty_final_response";

/// Take out whether a stream's client wants to be told of an end by a response without outputs; refuse
/// other parameters whose names are reserved to servers.
pub(crate) fn take_empty_final_response(request: &mut InferRequest) -> Result<bool> {
    if !request.parameters.iter().any(|(name, _)| name.starts_with("triton_")) {
        return Ok(false);
    }
    let wanted = take_flag(request, EMPTY_FINAL_RESPONSE)?;
    match request.parameters.iter().find(|(name, _)| name.starts_with("triton_")) {
        None => Ok(wanted),
        Some((name, _)) => Err(Error::invalid(format!(
            "parameter '{name}': names that begin with 'triton_' are reserved; \
             only '{EMPTY_FINAL_RESPONSE}' may be sent"
        ))),
    }
}

/// Move `timeout` (microseconds, 0 is none), `priority` and those of sequences out of the parameters into
/// their fields.
pub(crate) fn lift_reserved(request: &mut InferRequest) -> Result<()> {
    if let Some(timeout_us) = take_unsigned(request, "timeout")? {
        request.timeout_us = Some(timeout_us).filter(|&timeout_us| timeout_us > 0);
    }
    if let Some(priority) = take_unsigned(request, "priority")? {
        request.priority = u32::try_from(priority)
            .map_err(|_| Error::invalid(format!("parameter 'priority': {priority} is above {}", u32::MAX)))?;
    }
    if request.parameters.iter().any(|(name, _)| name.starts_with("sequence_")) {
        request.sequence = take_sequence(request)?;
    }
    Ok(())
}

/// The opposite: the parameters that say what these fields say.
pub(crate) fn reserved(request: &InferRequest) -> Parameters {
    let mut parameters = Parameters::new();
    if let Some(timeout_us) = request.timeout_us {
        let timeout_us = i64::try_from(timeout_us).unwrap_or(i64::MAX);
        parameters.push(("timeout".into(), Parameter::Int64(timeout_us)));
    }
    if request.priority != 0 {
        parameters.push(("priority".into(), Parameter::Int64(request.priority.into())));
    }
    if let Some(Sequence { id, start, end }) = &request.sequence {
        let id = match id {
            SequenceId::Text(text) => Parameter::String(text.clone()),
            SequenceId::Number(number) => {
                i64::try_from(*number).map_or(Parameter::Uint64(*number), Parameter::Int64)
            }
        };
        parameters.push(("sequence_id".into(), id));
        parameters.push(("sequence_start".into(), Parameter::Bool(*start)));
        parameters.push(("sequence_end".into(), Parameter::Bool(*end)));
    }
    parameters
}

fn take_sequence(request: &mut InferRequest) -> Result<Option<Sequence>> {
    let start = take_flag(request, "sequence_start")?;
    let end = take_flag(request, "sequence_end")?;
    let id = match take(request, "sequence_id") {
        Some(Parameter::String(text)) if !text.is_empty() => SequenceId::Text(text),
        Some(Parameter::Uint64(number)) if number > 0 => SequenceId::Number(number),
        Some(Parameter::Int64(number)) if number > 0 => SequenceId::Number(number.unsigned_abs()),
        None | Some(Parameter::String(_) | Parameter::Uint64(_) | Parameter::Int64(0)) => {
            return no_sequence(start, end);
        }
        Some(other) => {
            return Err(Error::invalid(format!(
                "parameter 'sequence_id' must be a text or an integer of at least 0, got {}",
                show(&other)
            )));
        }
    };
    Ok(Some(Sequence { id, start, end }))
}

/// A request without a sequence, which then cannot begin or end one.
pub(crate) fn no_sequence(start: bool, end: bool) -> Result<Option<Sequence>> {
    if start || end {
        return Err(Error::invalid("a request that starts or ends a sequence must say which: sequence_id"));
    }
    Ok(None)
}

fn take(request: &mut InferRequest, name: &str) -> Option<Parameter> {
    let position = request.parameters.iter().position(|(other, _)| other == name)?;
    Some(request.parameters.remove(position).1)
}

fn take_flag(request: &mut InferRequest, name: &str) -> Result<bool> {
    match take(request, name) {
        None => Ok(false),
        Some(Parameter::Bool(flag)) => Ok(flag),
        Some(other) => {
            Err(Error::invalid(format!("parameter '{name}' must be true or false, got {}", show(&other))))
        }
    }
}

fn take_unsigned(request: &mut InferRequest, name: &str) -> Result<Option<u64>> {
    match take(request, name) {
        None => Ok(None),
        Some(Parameter::Uint64(value)) => Ok(Some(value)),
        Some(Parameter::Int64(value)) if value >= 0 => Ok(Some(value.unsigned_abs())),
        Some(other) => Err(Error::invalid(format!(
            "parameter '{name}' must be an integer of at least 0, got {}",
            show(&other)
        ))),
    }
}

fn show(parameter: &Parameter) -> String {
    match parameter {
        Parameter::Bool(value) => value.to_string(),
        Parameter::Int64(value) => value.to_string(),
        Parameter::Uint64(value) => value.to_string(),
        Parameter::Double(value) => value.to_string(),
        Parameter::String(_) => "a string".to_owned(),
    }
}
