//! A frame to bytes.

use bytes::{BufMut, Bytes};
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, UnionWIPOffset, Vector, WIPOffset};
use kingpole_values::{
    Error, InferRequest, InferResponse, Parameter, Parameters, Sequence, SequenceId, Stage, Tensor,
};

use super::layout::{MAGIC, PRELUDE_BYTES, padded};
use super::{Metadata, ModelName, ServerInfo, SharedTensor, TensorSpec};
use crate::generated::frame as fb;
use crate::{Scatter, ScatterWriter};

static PADDING: [u8; super::ALIGNMENT] = [0; super::ALIGNMENT];

type Builder = FlatBufferBuilder<'static>;
type Text = Option<WIPOffset<&'static str>>;
type Tables<T> = Option<WIPOffset<Vector<'static, ForwardsUOffset<T>>>>;

/// A Request frame. `shared` names the inputs that are in shared memory; the others go inline.
pub fn encode_request(request: &InferRequest, shared: &[SharedTensor], exchange: u64) -> Scatter {
    encode_request_in_place(request, shared, &[], exchange)
}

/// The same; `places` names the outputs that are wanted in shared memory.
pub fn encode_request_in_place(
    request: &InferRequest,
    shared: &[SharedTensor],
    places: &[SharedTensor],
    exchange: u64,
) -> Scatter {
    let mut builder = Builder::with_capacity(1024);
    let mut payloads = Payloads::default();
    let inputs = tensors(&mut builder, &request.inputs, shared, &mut payloads);
    let outputs: Vec<_> = request
        .outputs
        .iter()
        .enumerate()
        .map(|(index, output)| {
            let mut arguments = fb::RequestedOutputArgs {
                name: text(&mut builder, &output.name),
                parameters: parameters(&mut builder, &output.parameters),
                ..fb::RequestedOutputArgs::default()
            };
            if let Some(place) = places.iter().find(|place| place.index == index) {
                arguments.location = fb::Location::SHARED;
                arguments.payload = place.arena;
                arguments.offset = place.offset;
                arguments.nbytes = place.nbytes;
            }
            fb::RequestedOutput::create(&mut builder, &arguments)
        })
        .collect();
    let sequence = request.sequence.as_ref();
    let arguments = fb::RequestArgs {
        model: text(&mut builder, &request.model),
        version: optional(&mut builder, request.version.as_deref()),
        id: optional(&mut builder, request.id.as_deref()),
        // 0 says "no limit"; a timeout of nothing is as good as the shortest one.
        timeout_us: request.timeout_us.map_or(0, |timeout_us| timeout_us.max(1)),
        priority: request.priority,
        inputs,
        outputs: tables(&mut builder, &outputs),
        parameters: parameters(&mut builder, &request.parameters),
        sequence_id: match sequence {
            Some(Sequence { id: SequenceId::Number(number), .. }) => *number,
            _ => 0,
        },
        sequence_name: match sequence {
            Some(Sequence { id: SequenceId::Text(name), .. }) => text(&mut builder, name),
            _ => None,
        },
        sequence_start: sequence.is_some_and(|sequence| sequence.start),
        sequence_end: sequence.is_some_and(|sequence| sequence.end),
    };
    let message = fb::Request::create(&mut builder, &arguments).as_union_value();
    finish(builder, fb::Message::Request, message, exchange, &payloads)
}

/// A Response frame. `shared` names the outputs that are in shared memory; the others go inline.
pub fn encode_response(response: &InferResponse, shared: &[SharedTensor], exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(1024);
    let mut payloads = Payloads::default();
    let arguments = fb::ResponseArgs {
        model: text(&mut builder, &response.model),
        version: text(&mut builder, &response.version),
        id: optional(&mut builder, response.id.as_deref()),
        outputs: tensors(&mut builder, &response.outputs, shared, &mut payloads),
        parameters: parameters(&mut builder, &response.parameters),
        queue_us: response.timing.queue_us,
        execute_us: response.timing.execute_us,
        batch_rows: response.timing.batch_rows,
        reason: text(&mut builder, response.timing.reason),
        stage: match response.stage {
            Stage::Only => fb::Stage::ONLY,
            Stage::Part => fb::Stage::PART,
            Stage::End => fb::Stage::END,
        },
    };
    let message = fb::Response::create(&mut builder, &arguments).as_union_value();
    finish(builder, fb::Message::Response, message, exchange, &payloads)
}

/// An Error frame. `retry_after_ms` 0: not said.
pub fn encode_error(error: &Error, retry_after_ms: u32, id: Option<&str>, exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(256);
    let arguments = fb::ErrorArgs {
        code: error.code.number(),
        message: text(&mut builder, &error.message),
        retry_after_ms,
        id: optional(&mut builder, id),
    };
    let message = fb::Error::create(&mut builder, &arguments).as_union_value();
    finish(builder, fb::Message::Error, message, exchange, &Payloads::default())
}

/// A Credit frame.
pub fn encode_credit(requests: u32) -> Scatter {
    credit(requests, 0)
}

/// The Credit that takes the place of a cancelled request's answer.
pub fn encode_cancelled(exchange: u64) -> Scatter {
    credit(1, exchange)
}

fn credit(requests: u32, exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(128);
    let message = fb::Credit::create(&mut builder, &fb::CreditArgs { requests }).as_union_value();
    finish(builder, fb::Message::Credit, message, exchange, &Payloads::default())
}

/// A `HandOver` frame. Its descriptor travels with its first byte.
pub fn encode_hand_over(arena: u32, nbytes: u64, exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(128);
    let arguments = fb::HandOverArgs { arena, nbytes };
    let message = fb::HandOver::create(&mut builder, &arguments).as_union_value();
    finish(builder, fb::Message::HandOver, message, exchange, &Payloads::default())
}

/// A Release frame.
pub fn encode_release(arena: u32, exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(128);
    let message = fb::Release::create(&mut builder, &fb::ReleaseArgs { arena }).as_union_value();
    finish(builder, fb::Message::Release, message, exchange, &Payloads::default())
}

/// A Done frame.
pub fn encode_done(exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(128);
    let message = fb::Done::create(&mut builder, &fb::DoneArgs {}).as_union_value();
    finish(builder, fb::Message::Done, message, exchange, &Payloads::default())
}

/// A Cancel frame.
pub fn encode_cancel(exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(128);
    let message = fb::Cancel::create(&mut builder, &fb::CancelArgs {}).as_union_value();
    finish(builder, fb::Message::Cancel, message, exchange, &Payloads::default())
}

/// A `ReadyRequest` frame.
pub fn encode_ready_request(model: &ModelName, exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(128);
    let arguments = fb::ReadyRequestArgs {
        model: text(&mut builder, &model.model),
        version: optional(&mut builder, model.version.as_deref()),
    };
    let message = fb::ReadyRequest::create(&mut builder, &arguments).as_union_value();
    finish(builder, fb::Message::ReadyRequest, message, exchange, &Payloads::default())
}

/// A Ready frame.
pub fn encode_ready(ready: bool, exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(128);
    let message = fb::Ready::create(&mut builder, &fb::ReadyArgs { ready }).as_union_value();
    finish(builder, fb::Message::Ready, message, exchange, &Payloads::default())
}

/// A `ServerInfoRequest` frame.
pub fn encode_server_info_request(exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(128);
    let message = fb::ServerInfoRequest::create(&mut builder, &fb::ServerInfoRequestArgs {}).as_union_value();
    finish(builder, fb::Message::ServerInfoRequest, message, exchange, &Payloads::default())
}

/// A `ServerInfo` frame.
pub fn encode_server_info(info: &ServerInfo, exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(256);
    let extensions: Vec<_> =
        info.extensions.iter().map(|extension| builder.create_string(extension)).collect();
    let arguments = fb::ServerInfoArgs {
        name: text(&mut builder, &info.name),
        version: text(&mut builder, &info.version),
        extensions: tables(&mut builder, &extensions),
        max_frame_bytes: info.max_frame_bytes,
    };
    let message = fb::ServerInfo::create(&mut builder, &arguments).as_union_value();
    finish(builder, fb::Message::ServerInfo, message, exchange, &Payloads::default())
}

/// A `MetadataRequest` frame.
pub fn encode_metadata_request(model: &ModelName, exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(128);
    let arguments = fb::MetadataRequestArgs {
        model: text(&mut builder, &model.model),
        version: optional(&mut builder, model.version.as_deref()),
    };
    let message = fb::MetadataRequest::create(&mut builder, &arguments).as_union_value();
    finish(builder, fb::Message::MetadataRequest, message, exchange, &Payloads::default())
}

/// A Metadata frame.
pub fn encode_metadata(metadata: &Metadata, exchange: u64) -> Scatter {
    let mut builder = Builder::with_capacity(1024);
    let versions: Vec<_> = metadata.versions.iter().map(|version| builder.create_string(version)).collect();
    let arguments = fb::MetadataArgs {
        name: text(&mut builder, &metadata.name),
        versions: tables(&mut builder, &versions),
        platform: text(&mut builder, &metadata.platform),
        inputs: specs(&mut builder, &metadata.inputs),
        outputs: specs(&mut builder, &metadata.outputs),
        max_batch_size: metadata.max_batch_size,
        description: text(&mut builder, &metadata.description),
    };
    let message = fb::Metadata::create(&mut builder, &arguments).as_union_value();
    finish(builder, fb::Message::Metadata, message, exchange, &Payloads::default())
}

/// The payloads of a frame, in order.
#[derive(Default)]
struct Payloads<'a>(Vec<&'a Bytes>);

fn finish(
    mut builder: Builder,
    message_type: fb::Message,
    message: WIPOffset<UnionWIPOffset>,
    exchange: u64,
    payloads: &Payloads<'_>,
) -> Scatter {
    let lengths: Vec<u64> = payloads.0.iter().map(|payload| payload.len() as u64).collect();
    let lengths = (!lengths.is_empty()).then(|| builder.create_vector(&lengths));
    let header = fb::Header::create(
        &mut builder,
        &fb::HeaderArgs { message_type, message: Some(message), exchange, payloads: lengths },
    );
    fb::finish_header_buffer(&mut builder, header);
    let header = builder.finished_data();
    let mut frame_bytes = padded(PRELUDE_BYTES + header.len());
    for payload in &payloads.0 {
        frame_bytes += padded(payload.len());
    }
    let mut writer = ScatterWriter::new(frame_bytes);
    let buffer = writer.buffer();
    buffer.put_slice(&MAGIC);
    // Headers of 4 GiB cannot be: names and shapes alone make them up.
    buffer.put_u32_le(u32::try_from(header.len()).unwrap_or(u32::MAX));
    buffer.put_u32_le(u32::try_from(payloads.0.len()).unwrap_or(u32::MAX));
    buffer.put_slice(header);
    pad(&mut writer);
    for payload in &payloads.0 {
        writer.put(payload);
        pad(&mut writer);
    }
    writer.finish()
}

fn pad(writer: &mut ScatterWriter) {
    let missing = padded(writer.len()) - writer.len();
    writer.buffer().put_slice(&PADDING[..missing]);
}

fn tensors<'a>(
    builder: &mut Builder,
    tensors: &'a [Tensor],
    shared: &[SharedTensor],
    payloads: &mut Payloads<'a>,
) -> Tables<fb::Tensor<'static>> {
    let mut offsets = Vec::with_capacity(tensors.len());
    for (index, tensor) in tensors.iter().enumerate() {
        let (location, payload, offset, nbytes) =
            if let Some(place) = shared.iter().find(|place| place.index == index) {
                (fb::Location::SHARED, place.arena, place.offset, place.nbytes)
            } else {
                payloads.0.push(&tensor.data);
                let payload = u32::try_from(payloads.0.len() - 1).unwrap_or(u32::MAX);
                (fb::Location::INLINE, payload, 0, tensor.data.len() as u64)
            };
        let arguments = fb::TensorArgs {
            name: text(builder, &tensor.name),
            datatype: fb::Datatype(tensor.datatype.number()),
            shape: Some(builder.create_vector(&tensor.shape)),
            location,
            payload,
            offset,
            nbytes,
        };
        offsets.push(fb::Tensor::create(builder, &arguments));
    }
    tables(builder, &offsets)
}

fn specs(builder: &mut Builder, specs: &[TensorSpec]) -> Tables<fb::TensorSpec<'static>> {
    let mut offsets = Vec::with_capacity(specs.len());
    for spec in specs {
        let arguments = fb::TensorSpecArgs {
            name: text(builder, &spec.name),
            datatype: fb::Datatype(spec.datatype.number()),
            shape: Some(builder.create_vector(&spec.shape)),
            optional: spec.optional,
        };
        offsets.push(fb::TensorSpec::create(builder, &arguments));
    }
    tables(builder, &offsets)
}

fn parameters(builder: &mut Builder, parameters: &Parameters) -> Tables<fb::Parameter<'static>> {
    let mut offsets = Vec::with_capacity(parameters.len());
    for (name, value) in parameters {
        let mut arguments = fb::ParameterArgs { name: text(builder, name), ..Default::default() };
        match value {
            Parameter::Bool(value) => {
                arguments.kind = fb::ParameterKind::BOOL;
                arguments.bool_value = *value;
            }
            Parameter::Int64(value) => {
                arguments.kind = fb::ParameterKind::INT64;
                arguments.int64_value = *value;
            }
            Parameter::Uint64(value) => {
                arguments.kind = fb::ParameterKind::UINT64;
                arguments.uint64_value = *value;
            }
            Parameter::Double(value) => {
                arguments.kind = fb::ParameterKind::DOUBLE;
                arguments.double_value = *value;
            }
            Parameter::String(value) => {
                arguments.kind = fb::ParameterKind::STRING;
                arguments.string_value = Some(builder.create_string(value));
            }
        }
        offsets.push(fb::Parameter::create(builder, &arguments));
    }
    tables(builder, &offsets)
}

fn tables<T: 'static>(builder: &mut Builder, offsets: &[WIPOffset<T>]) -> Tables<T> {
    (!offsets.is_empty()).then(|| builder.create_vector(offsets))
}

fn text(builder: &mut Builder, text: &str) -> Text {
    (!text.is_empty()).then(|| builder.create_string(text))
}

fn optional(builder: &mut Builder, text: Option<&str>) -> Text {
    text.and_then(|value| self::text(builder, value))
}
