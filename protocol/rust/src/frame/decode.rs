//! Bytes to a frame.

use bytes::Bytes;
use flatbuffers::{ForwardsUOffset, Vector};
use kingpole_values::{
    ByteString, Code, Datatype, Error, InferRequest, InferResponse, Parameter, Parameters, RequestedOutput,
    Result, Sequence, SequenceId, Shape, Stage, Tensor, Timing,
};

use super::layout::{PRELUDE_BYTES, Prelude, payload_ranges, read_header};
use super::{Frame, FrameError, Message, Metadata, ModelName, ServerInfo, SharedTensor, TensorSpec};
use crate::generated::frame as fb;
use crate::{MAX_PARAMETERS, MAX_TENSORS};

/// A vector of tables.
type Tables<'a, T> = Vector<'a, ForwardsUOffset<T>>;

/// Decode one whole frame. Tensors and strings are views of `bytes`.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything malformed, and for bytes missing or left over;
/// `RESOURCE_EXHAUSTED` for what passes a limit of the format.
#[allow(clippy::needless_pass_by_value)] // the frame is a view of the bytes: this gives them away
pub fn decode(bytes: Bytes) -> Result<Frame> {
    let prelude = Prelude::read(&bytes)?
        .ok_or_else(|| Error::invalid(format!("the frame is cut off after {} bytes", bytes.len())))?;
    let Some(header) = bytes.get(PRELUDE_BYTES..PRELUDE_BYTES + prelude.header_bytes) else {
        return Err(Error::invalid(format!(
            "the frame is cut off within its header, after {} bytes",
            bytes.len()
        )));
    };
    let header = read_header(header)?;
    let (ranges, frame_bytes) = payload_ranges(prelude, &header)?;
    if frame_bytes != bytes.len() {
        return Err(Error::invalid(format!("the frame says {frame_bytes} bytes, got {}", bytes.len())));
    }
    let source = Source { bytes: &bytes, payloads: &ranges };
    let message = source.message(&header)?;
    Ok(Frame { exchange: header.exchange(), message })
}

/// The frame that views are cut from.
struct Source<'a> {
    bytes: &'a Bytes,
    payloads: &'a [(usize, usize)],
}

impl<'a> Source<'a> {
    fn message(&self, header: &fb::Header<'a>) -> Result<Message> {
        // The verifier leaves a union's type and its value's presence to us: a type without a value
        // falls through to the end.
        if let Some(request) = header.message_as_request() {
            return self.request(&request);
        }
        if let Some(response) = header.message_as_response() {
            return self.response(&response);
        }
        if let Some(error) = header.message_as_error() {
            let code = Code::from_number(error.code()).ok_or_else(|| {
                Error::invalid(format!("an error frame with code {}, which is not a code", error.code()))
            })?;
            let message = error.message().unwrap_or_default().to_owned();
            return Ok(Message::Error(FrameError {
                error: Error::new(code, message),
                retry_after_ms: error.retry_after_ms(),
                id: self.optional(error.id())?,
            }));
        }
        if let Some(credit) = header.message_as_credit() {
            return Ok(Message::Credit { requests: credit.requests() });
        }
        if header.message_as_cancel().is_some() {
            return Ok(Message::Cancel);
        }
        if let Some(request) = header.message_as_ready_request() {
            return Ok(Message::ReadyRequest(self.model_name(request.model(), request.version())?));
        }
        if let Some(ready) = header.message_as_ready() {
            return Ok(Message::Ready(ready.ready()));
        }
        if header.message_as_server_info_request().is_some() {
            return Ok(Message::ServerInfoRequest);
        }
        if let Some(info) = header.message_as_server_info() {
            return Ok(Message::ServerInfo(ServerInfo {
                name: self.text(info.name())?,
                version: self.text(info.version())?,
                extensions: self.texts(info.extensions())?,
                max_frame_bytes: info.max_frame_bytes(),
            }));
        }
        if let Some(request) = header.message_as_metadata_request() {
            return Ok(Message::MetadataRequest(self.model_name(request.model(), request.version())?));
        }
        if let Some(metadata) = header.message_as_metadata() {
            return self.metadata(&metadata);
        }
        if let Some(handed) = header.message_as_hand_over() {
            return Ok(Message::HandOver { arena: handed.arena(), nbytes: handed.nbytes() });
        }
        if let Some(released) = header.message_as_release() {
            return Ok(Message::Release { arena: released.arena() });
        }
        if header.message_as_done().is_some() {
            return Ok(Message::Done);
        }
        match header.message_type() {
            fb::Message::NONE => Err(Error::invalid("a frame without a message")),
            kind if kind.0 > fb::Message::ENUM_MAX => Ok(Message::Unknown(kind.0)),
            kind => Err(Error::invalid(format!("a frame's message of kind {} is absent", kind.0))),
        }
    }

    fn request(&self, request: &fb::Request<'a>) -> Result<Message> {
        let (inputs, shared) = self.tensors(request.inputs(), "input")?;
        let outputs = request.outputs();
        check_tensors(outputs.map_or(0, |outputs| outputs.len()))?;
        let mut places = Vec::new();
        let outputs = outputs.into_iter().flatten().enumerate().map(|(index, output)| {
            let (name, parameters) = (self.text(output.name())?, self.parameters(output.parameters())?);
            match output.location() {
                fb::Location::INLINE => {}
                fb::Location::SHARED => {
                    let (arena, offset, nbytes) = (output.payload(), output.offset(), output.nbytes());
                    places.push(SharedTensor { index, arena, offset, nbytes });
                }
                other => {
                    return Err(Error::invalid(format!("output '{name}': unknown location {}", other.0)));
                }
            }
            Ok(RequestedOutput { name, parameters })
        });
        let outputs = outputs.collect::<Result<_>>()?;
        let request = InferRequest {
            model: self.text(request.model())?,
            version: self.optional(request.version())?,
            id: self.optional(request.id())?,
            inputs,
            outputs,
            parameters: self.parameters(request.parameters())?,
            timeout_us: Some(request.timeout_us()).filter(|&timeout_us| timeout_us > 0),
            priority: request.priority(),
            sequence: self.sequence(request)?,
            inputs_may_change: false,
        };
        Ok(Message::Request { request, shared, places })
    }

    fn sequence(&self, request: &fb::Request<'a>) -> Result<Option<Sequence>> {
        let name = self.text(request.sequence_name())?;
        let id = match (request.sequence_id(), name) {
            (0, name) if name.is_empty() => {
                return crate::parameters::no_sequence(request.sequence_start(), request.sequence_end());
            }
            (0, name) => SequenceId::Text(name),
            (number, name) if name.is_empty() => SequenceId::Number(number),
            _ => return Err(Error::invalid("sequence_id and sequence_name are both given, expected one")),
        };
        Ok(Some(Sequence { id, start: request.sequence_start(), end: request.sequence_end() }))
    }

    fn response(&self, response: &fb::Response<'a>) -> Result<Message> {
        let (outputs, shared) = self.tensors(response.outputs(), "output")?;
        let response = InferResponse {
            model: self.text(response.model())?,
            version: self.text(response.version())?,
            id: self.optional(response.id())?,
            outputs,
            parameters: self.parameters(response.parameters())?,
            timing: Timing {
                queue_us: response.queue_us(),
                execute_us: response.execute_us(),
                batch_rows: response.batch_rows(),
                reason: known_reason(response.reason().unwrap_or_default()),
            },
            stage: match response.stage() {
                fb::Stage::PART => Stage::Part,
                fb::Stage::END => Stage::End,
                _ => Stage::Only,
            },
        };
        Ok(Message::Response { response, shared })
    }

    fn metadata(&self, metadata: &fb::Metadata<'a>) -> Result<Message> {
        Ok(Message::Metadata(Metadata {
            name: self.text(metadata.name())?,
            versions: self.texts(metadata.versions())?,
            platform: self.text(metadata.platform())?,
            inputs: self.specs(metadata.inputs())?,
            outputs: self.specs(metadata.outputs())?,
            max_batch_size: metadata.max_batch_size(),
            description: self.text(metadata.description())?,
        }))
    }

    fn specs(&self, specs: Option<Tables<'a, fb::TensorSpec<'a>>>) -> Result<Vec<TensorSpec>> {
        check_tensors(specs.map_or(0, |specs| specs.len()))?;
        let specs = specs.into_iter().flatten().map(|spec| {
            let name = self.text(spec.name())?;
            let datatype = datatype(spec.datatype(), "tensor", &name)?;
            let shape = shape(spec.shape(), "tensor", &name)?;
            Ok(TensorSpec { name, datatype, shape, optional: spec.optional() })
        });
        specs.collect()
    }

    fn tensors(
        &self,
        tensors: Option<Tables<'a, fb::Tensor<'a>>>,
        kind: &str,
    ) -> Result<(Vec<Tensor>, Vec<SharedTensor>)> {
        let announced = tensors.map_or(0, |tensors| tensors.len());
        check_tensors(announced)?;
        let mut read = Vec::with_capacity(announced);
        let mut shared = Vec::new();
        for (index, tensor) in tensors.into_iter().flatten().enumerate() {
            let name = self.text(tensor.name())?;
            let datatype = datatype(tensor.datatype(), kind, &name)?;
            let shape = shape(tensor.shape(), kind, &name)?;
            let data = match tensor.location() {
                fb::Location::INLINE => self.inline(&tensor, kind, &name)?,
                fb::Location::SHARED => {
                    let (arena, offset, nbytes) = (tensor.payload(), tensor.offset(), tensor.nbytes());
                    shared.push(SharedTensor { index, arena, offset, nbytes });
                    Bytes::new()
                }
                other => {
                    return Err(Error::invalid(format!("{kind} '{name}': unknown location {}", other.0)));
                }
            };
            read.push(Tensor { name, datatype, shape, data });
        }
        Ok((read, shared))
    }

    fn inline(&self, tensor: &fb::Tensor<'a>, kind: &str, name: &str) -> Result<Bytes> {
        let payload = tensor.payload() as usize;
        let Some(&(start, end)) = self.payloads.get(payload) else {
            return Err(Error::invalid(format!(
                "{kind} '{name}': payload {payload} of {} does not exist",
                self.payloads.len()
            )));
        };
        let range = usize::try_from(tensor.offset())
            .ok()
            .and_then(|offset| start.checked_add(offset))
            .and_then(|first| Some((first, first.checked_add(usize::try_from(tensor.nbytes()).ok()?)?)))
            .filter(|&(_, last)| last <= end);
        let Some((first, last)) = range else {
            return Err(Error::invalid(format!(
                "{kind} '{name}': {} bytes at {} pass the end of payload {payload}, which has {}",
                tensor.nbytes(),
                tensor.offset(),
                end - start
            )));
        };
        Ok(self.bytes.slice(first..last))
    }

    fn parameters(&self, parameters: Option<Tables<'a, fb::Parameter<'a>>>) -> Result<Parameters> {
        let announced = parameters.map_or(0, |parameters| parameters.len());
        if announced > MAX_PARAMETERS {
            return Err(Error::exhausted(format!("more than {MAX_PARAMETERS} parameters")));
        }
        let mut read = Parameters::with_capacity(announced);
        for parameter in parameters.into_iter().flatten() {
            let name = self.text(parameter.name())?;
            let value = match parameter.kind() {
                fb::ParameterKind::BOOL => Parameter::Bool(parameter.bool_value()),
                fb::ParameterKind::INT64 => Parameter::Int64(parameter.int64_value()),
                fb::ParameterKind::UINT64 => Parameter::Uint64(parameter.uint64_value()),
                fb::ParameterKind::DOUBLE => Parameter::Double(parameter.double_value()),
                fb::ParameterKind::STRING => Parameter::String(self.text(parameter.string_value())?),
                _ => return Err(Error::invalid(format!("parameter '{name}' has no value of a known kind"))),
            };
            if read.iter().any(|(other, _)| *other == name) {
                return Err(Error::invalid(format!("parameter '{name}' is given twice")));
            }
            read.push((name, value));
        }
        Ok(read)
    }

    fn model_name(&self, model: Option<&'a str>, version: Option<&'a str>) -> Result<ModelName> {
        Ok(ModelName { model: self.text(model)?, version: self.optional(version)? })
    }

    fn optional(&self, text: Option<&'a str>) -> Result<Option<ByteString>> {
        text.filter(|text| !text.is_empty()).map(|text| self.text(Some(text))).transpose()
    }

    fn texts(&self, texts: Option<Tables<'a, &'a str>>) -> Result<Vec<ByteString>> {
        texts.into_iter().flatten().map(|text| self.text(Some(text))).collect()
    }

    fn text(&self, text: Option<&'a str>) -> Result<ByteString> {
        let text = text.unwrap_or_default();
        if text.is_empty() {
            return Ok(ByteString::new());
        }
        ByteString::try_from(self.bytes.slice_ref(text.as_bytes()))
            .map_err(|_| Error::invalid("a string of the frame's header is not UTF-8"))
    }
}

fn check_tensors(announced: usize) -> Result<()> {
    if announced > MAX_TENSORS {
        return Err(Error::exhausted(format!("more than {MAX_TENSORS} tensors")));
    }
    Ok(())
}

fn datatype(datatype: fb::Datatype, kind: &str, name: &str) -> Result<Datatype> {
    Datatype::from_number(datatype.0)
        .ok_or_else(|| Error::invalid(format!("{kind} '{name}': unknown datatype {}", datatype.0)))
}

fn shape(shape: Option<Vector<'_, i64>>, kind: &str, name: &str) -> Result<Shape> {
    if shape.is_some_and(|shape| shape.len() > Shape::MAX_RANK) {
        return Err(Error::invalid(format!("{kind} '{name}': more than {} dimensions", Shape::MAX_RANK)));
    }
    Ok(shape.into_iter().flatten().collect())
}

/// The reasons an engine gives; another server's are not kept.
fn known_reason(reason: &str) -> &'static str {
    const KNOWN: [&str; 6] = ["full", "idle", "shape", "efficient", "delay", "alone"];
    KNOWN.into_iter().find(|&known| known == reason).unwrap_or_default()
}
