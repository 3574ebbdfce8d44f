//! `TensorFlow` Serving over gRPC.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kingpole_engine::{Engine, TensorSpec};
use kingpole_values::{Code, Error, Result};
use kingpole_wire::migration::tensorflow::{
    ModelReference, decode_predict_request, encode_predict_response_message, proto, type_number,
};
use prost::Message;
use proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelMetadataResponse, GetModelStatusRequest, GetModelStatusResponse,
    ModelSpec, ModelVersionStatus, SignatureDefMap, StatusProto, model_spec::VersionChoice,
    model_version_status::State,
};
use proto::tensorflow::{SignatureDef, TensorInfo, TensorShapeProto, tensor_shape_proto::Dim};

use super::{SIGNATURE, check_signature, refused, state_of, versions_of};
use crate::connection::Shared;
use crate::forward;
use crate::grpc::Metadata;
use crate::grpc::messages::Messages;
use crate::grpc::reply::{self, Reply};
use crate::http2::unless_reset;
use crate::respond;
use crate::rest::Named;

/// What the path of every method here begins with.
pub(crate) const SERVICES: &str = "/tensorflow.serving.";

const METADATA_FIELD: &str = "signature_def";

/// Read the request of a call, answer it, and stop when the client leaves.
pub(crate) async fn serve(
    shared: Rc<Shared>,
    path: String,
    mut messages: Messages,
    mut reply: Reply,
    metadata: Metadata,
) {
    let received = Instant::now();
    let limit = metadata.timeout_us.map_or(shared.configuration.body_timeout, Duration::from_micros);
    let call = async {
        let message = std::future::poll_fn(|cx| messages.poll_message(cx));
        let message = match tokio::time::timeout(limit, message).await {
            Ok(Some(message)) => message.map_err(Error::from),
            Ok(None) => Err(Error::invalid("the call has no request message")),
            Err(_) => Err(Error::new(Code::DeadlineExceeded, "the client took too long to send its request")),
        };
        let message = message.map_err(|error| refused(error, &shared))?;
        answer(&shared, &path, message, &metadata, received).await
    };
    let answered = {
        let call = std::pin::pin!(call);
        unless_reset(call, reply.respond()).await
    };
    match answered {
        None => {}
        Some(Ok(pieces)) => {
            reply.message(pieces);
            messages.finish();
        }
        Some(Err(error)) => reply.error(&error),
    }
}

async fn answer(
    shared: &Shared,
    path: &str,
    message: Bytes,
    metadata: &Metadata,
    received: Instant,
) -> Result<Vec<Bytes>> {
    let engine = &shared.engine;
    let unary = |message: Vec<u8>| vec![reply::frame(&message)];
    match path.strip_prefix(SERVICES).unwrap_or_default() {
        "PredictionService/Predict" => predict(shared, message, metadata, received).await,
        "PredictionService/GetModelMetadata" => {
            Ok(unary(model_metadata(engine, &decode(message)?)?.encode_to_vec()))
        }
        "ModelService/GetModelStatus" => Ok(unary(status(engine, decode(message)?)?.encode_to_vec())),
        "PredictionService/Classify" | "PredictionService/Regress" | "PredictionService/MultiInference" => {
            let message = format!(
                "the method '{path}' is not offered: use Predict, or :classify and :regress over REST"
            );
            Err(Error::new(Code::Unimplemented, message))
        }
        "ModelService/HandleReloadConfigRequest" => {
            let message =
                format!("the method '{path}' is not offered: use the repository API to load models");
            Err(Error::new(Code::Unimplemented, message))
        }
        _ => Err(Error::new(Code::Unimplemented, format!("the method '{path}' is not offered"))),
    }
}

fn decode<M: Message + Default>(message: Bytes) -> Result<M> {
    M::decode(message).map_err(|error| Error::invalid(format!("the request message is malformed: {error}")))
}

async fn predict(
    shared: &Shared,
    message: Bytes,
    metadata: &Metadata,
    received: Instant,
) -> Result<Vec<Bytes>> {
    let decode = || {
        let (request, signature) = decode_predict_request(message)?;
        check_signature(&signature)?;
        Ok(request)
    };
    let mut request = decode().map_err(|error| refused(error, shared))?;
    respond::shorten(&mut request, metadata.timeout_us);
    forward::add(&metadata.forwarded, &mut request.parameters);
    let response = respond::infer(&shared.engine, request, received).await?;
    let mut pieces = encode_predict_response_message(&response, SIGNATURE).into_chunks().into_vec();
    shared.memory.hold_answer(&mut pieces)?;
    Ok(pieces)
}

fn reference(model: Option<ModelSpec>) -> Result<ModelReference> {
    model.map(ModelReference::from).ok_or_else(|| Error::invalid("the request has no 'model_spec'"))
}

fn model_metadata(engine: &Engine, request: &GetModelMetadataRequest) -> Result<GetModelMetadataResponse> {
    let reference = reference(request.model_spec.clone())?;
    match request.metadata_field.as_slice() {
        [] => return Err(Error::invalid("the request has no 'metadata_field'")),
        fields => {
            if let Some(other) = fields.iter().find(|field| *field != METADATA_FIELD) {
                let shown: String = other.chars().take(128).collect();
                let shown = shown.escape_debug();
                return Err(Error::invalid(format!(
                    "metadata_field '{shown}' is not known, only '{METADATA_FIELD}'"
                )));
            }
        }
    }
    let specification = engine.model(&reference.model, reference.version.as_deref())?;
    let signature = SignatureDef {
        inputs: tensors(&specification.inputs),
        outputs: tensors(&specification.outputs),
        method_name: "tensorflow/serving/predict".to_owned(),
    };
    let map = SignatureDefMap { signature_def: [(SIGNATURE.to_owned(), signature)].into() };
    let any = prost_types::Any {
        type_url: "type.googleapis.com/tensorflow.serving.SignatureDefMap".to_owned(),
        value: map.encode_to_vec(),
    };
    let model_spec = ModelSpec {
        name: specification.name.to_string(),
        version_choice: specification.version.parse().ok().map(VersionChoice::Version),
        signature_name: String::new(),
    };
    Ok(GetModelMetadataResponse {
        model_spec: Some(model_spec),
        metadata: [(METADATA_FIELD.to_owned(), any)].into(),
    })
}

fn tensors(specifications: &[TensorSpec]) -> BTreeMap<String, TensorInfo> {
    let tensor = |tensor: &TensorSpec| {
        let dim = tensor.shape.iter().map(|&size| Dim { size, name: String::new() }).collect();
        let information = TensorInfo {
            name: tensor.name.to_string(),
            dtype: type_number(tensor.datatype),
            tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        };
        (tensor.name.to_string(), information)
    };
    specifications.iter().map(tensor).collect()
}

fn status(engine: &Engine, request: GetModelStatusRequest) -> Result<GetModelStatusResponse> {
    let reference = reference(request.model_spec)?;
    let named = Named { model: &reference.model, version: reference.version.as_deref() };
    let (_, rows) = versions_of(engine, &named)?;
    let version = |row: &kingpole_engine::IndexRow| {
        let (state, code, reason) = state_of(row);
        ModelVersionStatus {
            version: row.version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default(),
            state: State::from_str_name(state).unwrap_or(State::Unknown).into(),
            status: Some(StatusProto {
                error_code: code.map_or(0, |code| code.number().into()),
                error_message: reason.to_owned(),
            }),
        }
    };
    Ok(GetModelStatusResponse { model_version_status: rows.iter().map(version).collect() })
}
