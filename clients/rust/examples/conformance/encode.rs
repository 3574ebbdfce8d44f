//! This client's own encoding of what vectors say.

use std::path::Path;

use kingpole_client::{Bytes, Datatype, Parameter, Sequence, SequenceId, Shape, Tensor};
use kingpole_values::{InferRequest, RequestedOutput};
use kingpole_wire::frame::encode_request;
use serde_json::Value;

use crate::expect::{Failure, Outcome};

pub fn encode(vectors: &Path, out: &Path) -> Outcome {
    for entry in std::fs::read_dir(vectors)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("frame-request-") {
            continue;
        }
        let vector: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        if vector.get("error").is_some() {
            continue;
        }
        let (value, exchange) = (&vector["value"]["message"]["request"], &vector["value"]["exchange"]);
        let request = request(value).ok_or_else(|| Failure(format!("{name} cannot be read")))?;
        let bytes = encode_request(&request, &[], exchange.as_u64().unwrap_or(0)).into_bytes();
        std::fs::write(out.join(format!("{name}.bin")), bytes)?;
    }
    Ok(())
}

fn request(value: &Value) -> Option<InferRequest> {
    let text = |key: &str| value[key].as_str().map(Into::into);
    let output = |output: &Value| {
        Some(RequestedOutput {
            name: output["name"].as_str()?.into(),
            parameters: parameters(&output["parameters"])?,
        })
    };
    let sequence = value.get("sequence").map(|sequence| {
        let id = match &sequence["id"] {
            Value::String(text) => SequenceId::Text(text.as_str().into()),
            number => SequenceId::Number(number.as_u64()?),
        };
        Some(Sequence { id, start: sequence["start"].as_bool()?, end: sequence["end"].as_bool()? })
    });
    Some(InferRequest {
        model: text("model")?,
        version: text("version"),
        id: text("id"),
        timeout_us: value["timeout_us"].as_u64(),
        priority: u32::try_from(value["priority"].as_u64()?).ok()?,
        inputs: value["inputs"].as_array()?.iter().map(tensor).collect::<Option<_>>()?,
        outputs: value["outputs"].as_array()?.iter().map(output).collect::<Option<_>>()?,
        parameters: parameters(&value["parameters"])?,
        sequence: match sequence {
            None => None,
            Some(sequence) => Some(sequence?),
        },
        inputs_may_change: false,
    })
}

fn tensor(value: &Value) -> Option<Tensor> {
    let shape: Option<Vec<i64>> = value["shape"].as_array()?.iter().map(Value::as_i64).collect();
    let hex = value["data_hex"].as_str()?;
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let data: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    Some(Tensor {
        name: value["name"].as_str()?.into(),
        datatype: Datatype::from_name(value["datatype"].as_str()?)?,
        shape: Shape::new(&shape?),
        data: Bytes::from(data?),
    })
}

fn parameters(value: &Value) -> Option<Vec<(kingpole_client::ByteString, Parameter)>> {
    let parameter = |parameter: &Value| {
        let value = &parameter["value"];
        let value = match parameter["kind"].as_str()? {
            "bool" => Parameter::Bool(value.as_bool()?),
            "int64" => Parameter::Int64(value.as_i64()?),
            "uint64" => Parameter::Uint64(value.as_u64()?),
            "double" => Parameter::Double(value.as_f64()?),
            _ => Parameter::String(value.as_str()?.into()),
        };
        Some((parameter["name"].as_str()?.into(), value))
    };
    value.as_array()?.iter().map(parameter).collect()
}
