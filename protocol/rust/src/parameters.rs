//! The parameters that have a meaning of their own in Open Inference, whatever its encoding.

use kingpole_values::{Error, InferRequest, Parameter, Result};

/// Move `timeout` (microseconds, 0 is none) and `priority` out of the parameters into their fields.
pub(crate) fn lift_reserved(request: &mut InferRequest) -> Result<()> {
    if let Some(timeout_us) = take_unsigned(request, "timeout")? {
        request.timeout_us = Some(timeout_us).filter(|&timeout_us| timeout_us > 0);
    }
    if let Some(priority) = take_unsigned(request, "priority")? {
        request.priority = u32::try_from(priority)
            .map_err(|_| Error::invalid(format!("parameter 'priority': {priority} is above {}", u32::MAX)))?;
    }
    Ok(())
}

fn take_unsigned(request: &mut InferRequest, name: &str) -> Result<Option<u64>> {
    let Some(position) = request.parameters.iter().position(|(other, _)| other == name) else {
        return Ok(None);
    };
    match request.parameters.remove(position).1 {
        Parameter::Uint64(value) => Ok(Some(value)),
        Parameter::Int64(value) if value >= 0 => Ok(Some(value.unsigned_abs())),
        other => Err(Error::invalid(format!(
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
