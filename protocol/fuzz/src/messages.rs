//! gRPC's messages and `GraphPipe`'s.

use bytes::Bytes;
use kingpole_values::InferResponse;
use kingpole_wire::graphpipe::{self as graphpipe_wire, GraphpipeRequest};
use kingpole_wire::grpc::{self, proto};
use prost::Message;

use super::{bounded, is_view, value};

/// An inference over gRPC, as a request and as a response.
pub fn grpc_infer(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    let request = bounded(body.len(), 0, || grpc::decode_infer_request(body.clone()));
    if let Some(decoded) = value(request) {
        let message = proto::ModelInferRequest::decode(body.clone()).expect("protobuf reads it too");
        assert_eq!(
            message.raw_input_contents.is_empty() || decoded.used_contents,
            message.raw_input_contents.is_empty()
        );
        if !message.raw_input_contents.is_empty() {
            assert!(decoded.request.inputs.iter().all(|input| is_view(input, &body)));
            for (input, raw) in decoded.request.inputs.iter().zip(&message.raw_input_contents) {
                assert_eq!(input.data, raw);
            }
        }
        assert_eq!(decoded.request.model, message.model_name);
        if decoded.request.inputs.iter().all(|input| input.check_size().is_ok()) {
            for use_contents in [false, true] {
                let again = grpc::encode_infer_request(&decoded.request, use_contents).into_bytes();
                let again = grpc::decode_infer_request(again).expect("what was written is read");
                // As text: a NaN among the parameters is not equal to itself. The order of reserved
                // parameters and a timeout above what a signed number holds are not kept.
                assert_eq!(again.request.inputs.len(), decoded.request.inputs.len());
                assert_eq!(format!("{:?}", again.request.outputs), format!("{:?}", decoded.request.outputs));
            }
        }
    }
    let response = bounded(body.len(), 0, || grpc::decode_infer_response(body.clone()));
    if let Some(response) = value(response) {
        let message = proto::ModelInferResponse::decode(body.clone()).expect("protobuf reads it too");
        if !message.raw_output_contents.is_empty() {
            assert!(response.outputs.iter().all(|output| is_view(output, &body)));
        }
        let again = grpc::encode_infer_response(&response, false).into_bytes();
        let again = grpc::decode_infer_response(again).expect("what was written is read");
        assert_eq!(format!("{again:?}"), format!("{response:?}"));
    }
}

/// Every other message that a client sends; the first byte says which.
pub fn grpc_messages(input: &[u8]) {
    fn read<M: Message + Default>(body: &[u8]) {
        if let Ok(message) = bounded(body.len(), 0, || M::decode(body)) {
            let again = message.encode_to_vec();
            assert!(M::decode(&*again).is_ok());
        }
    }
    let Some((&kind, body)) = input.split_first() else { return };
    match kind % 12 {
        0 => read::<proto::ModelReadyRequest>(body),
        1 => read::<proto::ModelMetadataRequest>(body),
        2 => read::<proto::ModelConfigRequest>(body),
        3 => read::<proto::ModelStatisticsRequest>(body),
        4 => read::<proto::RepositoryIndexRequest>(body),
        5 => read::<proto::RepositoryModelLoadRequest>(body),
        6 => read::<proto::RepositoryModelUnloadRequest>(body),
        7 => read::<proto::health::HealthCheckRequest>(body),
        8 => read::<proto::reflection::ServerReflectionRequest>(body),
        9 => read::<proto::ModelInferRequest>(body),
        10 => read::<proto::ModelStreamInferResponse>(body),
        _ => {
            if let Ok(text) = std::str::from_utf8(body) {
                // The schemas are read once, by whoever comes first.
                let _ = grpc::model_config_from_json("{}");
                value(bounded(text.len(), 0, || grpc::model_config_from_json(text)));
            }
        }
    }
}

/// A `GraphPipe` body, as a request, a response and metadata.
pub fn graphpipe(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    let request = bounded(body.len(), 0, || graphpipe_wire::decode_request(body.clone()));
    if let Some(GraphpipeRequest::Infer { request, config }) = value(request) {
        for input in &request.inputs {
            assert!(input.datatype.element_bytes().is_none() || is_view(input, &body));
            input.check_size().expect("GraphPipe's tensors are checked as they are read");
        }
        let config = config.unwrap_or_default();
        if let Some(again) = value(graphpipe_wire::encode_request(&request, &config)) {
            let again = graphpipe_wire::decode_request(again.into_bytes()).expect("what was written is read");
            let GraphpipeRequest::Infer { request: again, .. } = again else { panic!("an inference") };
            assert_eq!(again.inputs, request.inputs);
            assert_eq!(again.outputs, request.outputs);
        }
    }
    let response = bounded(body.len(), 0, || graphpipe_wire::decode_response(body.clone()));
    if let Some(response) = value(response) {
        for output in &response.outputs {
            assert!(output.datatype.element_bytes().is_none() || is_view(output, &body));
        }
        let answer = InferResponse { outputs: response.outputs, ..InferResponse::default() };
        if let Some(again) = value(graphpipe_wire::encode_infer_response(&answer)) {
            let again =
                graphpipe_wire::decode_response(again.into_bytes()).expect("what was written is read");
            assert_eq!(again.outputs, answer.outputs);
        }
    }
    let metadata = bounded(body.len(), 0, || graphpipe_wire::decode_metadata_response(body.clone()));
    if let Some(metadata) = value(metadata) {
        let again = graphpipe_wire::encode_metadata_response(&metadata);
        assert_eq!(graphpipe_wire::decode_metadata_response(again).as_ref(), Ok(&metadata));
    }
}
