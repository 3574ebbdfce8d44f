//! What a client asks beside inference: where, and how to read the answers of any server of Open Inference.

use kingpole_values::{Code, Datatype, Error, Result, Shape};
use serde::Deserialize;

use crate::frame::{Metadata, ServerInfo, TensorSpec};
use crate::status::code_of_http;
use crate::{MAX_TENSORS, rest::schema::Capped};

/// The most bytes of a text that are taken for an error's message.
const MAX_MESSAGE_BYTES: usize = 8192;

/// The path of a model, or of one version of it; `/infer` and `/ready` go behind it.
pub fn model_path(model: &str, version: Option<&str>) -> String {
    let mut path = String::from("/v2/models/");
    quote(&mut path, model);
    if let Some(version) = version.filter(|version| !version.is_empty()) {
        path.push_str("/versions/");
        quote(&mut path, version);
    }
    path
}

/// Everything but what RFC 3986 calls unreserved, as `%XX`.
fn quote(path: &mut String, segment: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in segment.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push('%');
            path.push(char::from(HEX[usize::from(byte >> 4)]));
            path.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// The error of an answer whose status is not 200: its code by the status, its text from the body.
pub fn decode_error(status: u16, body: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct Said {
        error: Option<String>,
        // Servers made with FastAPI say `detail` for what they refuse themselves.
        detail: Option<String>,
    }
    let message = serde_json::from_slice::<Said>(body).ok().and_then(|said| said.error.or(said.detail));
    let mut message = message.unwrap_or_else(|| {
        String::from_utf8_lossy(&body[..body.len().min(MAX_MESSAGE_BYTES)]).trim().to_owned()
    });
    if message.is_empty() {
        message = format!("HTTP status {status}");
    }
    let mut end = message.len().min(MAX_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    Error::new(code_of_http(status), message)
}

/// Whether the answer to a question of readiness means yes.
///
/// # Errors
/// What the server refused to say, or that there is no such model.
pub fn decode_ready(status: u16, body: &[u8]) -> Result<bool> {
    match status {
        200 => Ok(true),
        // Triton says 400 for a model that is there and not ready.
        400 | 503 => Ok(false),
        _ => Err(decode_error(status, body)),
    }
}

/// A text, or what some servers write in its place.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Text(String),
    Number(u64),
}

impl Said {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Read the answer to `GET /v2`.
///
/// # Errors
/// `INTERNAL` if it makes no sense.
pub fn decode_server_metadata(body: &[u8]) -> Result<ServerInfo> {
    #[derive(Deserialize)]
    struct Fields {
        name: String,
        version: Said,
        extensions: Option<Capped<String, MAX_TENSORS>>,
    }
    let fields: Fields = read(body, "server's")?;
    Ok(ServerInfo {
        name: fields.name.into(),
        version: fields.version.text().into(),
        extensions: fields.extensions.unwrap_or_default().0.into_iter().map(Into::into).collect(),
        max_frame_bytes: 0,
    })
}

/// Read the answer to `GET /v2/models/{name}`.
///
/// # Errors
/// `INTERNAL` if it makes no sense.
pub fn decode_model_metadata(body: &[u8]) -> Result<Metadata> {
    #[derive(Deserialize)]
    struct Fields {
        name: String,
        versions: Option<Capped<Said, MAX_TENSORS>>,
        platform: Option<String>,
        inputs: Option<Capped<Spec, MAX_TENSORS>>,
        outputs: Option<Capped<Spec, MAX_TENSORS>>,
    }
    let fields: Fields = read(body, "model's")?;
    Ok(Metadata {
        name: fields.name.into(),
        versions: fields.versions.unwrap_or_default().0.into_iter().map(|said| said.text().into()).collect(),
        platform: fields.platform.unwrap_or_default().into(),
        inputs: specs(fields.inputs)?,
        outputs: specs(fields.outputs)?,
        ..Metadata::default()
    })
}

#[derive(Deserialize)]
struct Spec {
    name: String,
    datatype: String,
    shape: Capped<i64, { Shape::MAX_RANK }>,
}

fn specs(specs: Option<Capped<Spec, MAX_TENSORS>>) -> Result<Vec<TensorSpec>> {
    let spec = |spec: Spec| {
        let Some(datatype) = Datatype::from_name(&spec.datatype) else {
            let message = format!("tensor '{}': unknown datatype '{:.40}'", spec.name, spec.datatype);
            return Err(Error::new(Code::Internal, message));
        };
        let shape = Shape::new(&spec.shape.0);
        Ok(TensorSpec { name: spec.name.into(), datatype, shape, optional: false })
    };
    specs.unwrap_or_default().0.into_iter().map(spec).collect()
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8], whose: &str) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|error| Error::internal(format!("the {whose} metadata cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_the_path_whatever_it_is() {
        assert_eq!(model_path("m", None), "/v2/models/m");
        assert_eq!(model_path("a/b ü?", Some("1")), "/v2/models/a%2Fb%20%C3%BC%3F/versions/1");
        assert_eq!(model_path("m", Some("")), "/v2/models/m");
    }

    #[test]
    fn an_error_has_the_servers_text() {
        let error = decode_error(404, br#"{"error": "Request for unknown model: 'm'"}"#);
        assert_eq!((error.code, &*error.message), (Code::NotFound, "Request for unknown model: 'm'"));
        assert_eq!(decode_error(422, br#"{"detail": "no"}"#).message, "no");
        assert_eq!(decode_error(503, b" busy\n").message, "busy");
        assert_eq!(decode_error(500, br#"{"detail": [1]}"#).message, r#"{"detail": [1]}"#);
        assert_eq!(decode_error(502, b"").message, "HTTP status 502");
        let long = "ü".repeat(MAX_MESSAGE_BYTES);
        assert_eq!(decode_error(500, long.as_bytes()).message.len(), MAX_MESSAGE_BYTES);
        let long = format!("{{\"error\": \"a{long}\"}}");
        assert_eq!(decode_error(500, long.as_bytes()).message.len(), MAX_MESSAGE_BYTES - 1);
    }

    #[test]
    fn readiness_is_a_status() {
        assert_eq!(decode_ready(200, b""), Ok(true));
        assert_eq!(decode_ready(503, b""), Ok(false));
        assert_eq!(decode_ready(404, b"").unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn metadata_is_read_from_any_server() {
        let info = decode_server_metadata(br#"{"name":"s","version":1,"extensions":["a"],"more":{}}"#);
        let info = info.unwrap();
        assert_eq!((&*info.name, &*info.version, info.extensions.len()), ("s", "1", 1));
        let metadata = decode_model_metadata(
            br#"{"name":"m","versions":["1",2],"platform":"p",
                 "inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]}],"outputs":null}"#,
        );
        let metadata = metadata.unwrap();
        assert_eq!(metadata.versions, ["1", "2"]);
        assert_eq!(
            (metadata.inputs[0].datatype, &metadata.inputs[0].shape[..]),
            (Datatype::Fp32, &[-1, 3][..])
        );
        assert!(metadata.outputs.is_empty());
    }

    #[test]
    fn metadata_that_makes_no_sense_is_the_servers_fault() {
        for body in [
            &b"{"[..],
            br#"{"name":1}"#,
            br#"{"name":"m","inputs":[{"name":"x","datatype":"FP31","shape":[]}]}"#,
        ] {
            assert_eq!(decode_model_metadata(body).unwrap_err().code, Code::Internal);
        }
        assert_eq!(decode_server_metadata(b"[]").unwrap_err().code, Code::Internal);
    }
}
