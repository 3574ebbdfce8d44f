//! What clients of `TensorFlow` Serving ask for over gRPC.

use bytes::Bytes;
use h2::client::SendRequest;
use kingpole_wire::migration::tensorflow::proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelMetadataResponse, GetModelStatusRequest, GetModelStatusResponse,
    ModelSpec, PredictRequest, PredictResponse, SignatureDefMap, model_spec::VersionChoice,
    model_version_status::State,
};
use kingpole_wire::migration::tensorflow::proto::tensorflow::{
    TensorProto, TensorShapeProto, tensor_shape_proto::Dim,
};
use prost::Message;

use crate::grpc::{Answer, call, client, framed};
use crate::server::Server;

const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
const METADATA: &str = "/tensorflow.serving.PredictionService/GetModelMetadata";
const STATUS: &str = "/tensorflow.serving.ModelService/GetModelStatus";

fn model(name: &str) -> ModelSpec {
    ModelSpec { name: name.to_owned(), ..ModelSpec::default() }
}

fn floats(values: &[f32], shape: &[i64]) -> TensorProto {
    let dim = shape.iter().map(|&size| Dim { size, name: String::new() }).collect();
    TensorProto {
        dtype: 1,
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        float_val: values.to_vec(),
        ..TensorProto::default()
    }
}

fn predict(model_spec: ModelSpec, name: &str, tensor: TensorProto) -> PredictRequest {
    PredictRequest {
        model_spec: Some(model_spec),
        inputs: [(name.to_owned(), tensor)].into(),
        output_filter: Vec::new(),
    }
}

async fn ask(client: &SendRequest<Bytes>, path: &str, message: &impl Message) -> Answer {
    call(client, path, &[], &[framed(&message.encode_to_vec())]).await
}

fn read<M: Message + Default>(answer: &Answer) -> M {
    assert_eq!(answer.status, 0, "{}", answer.message);
    M::decode(answer.body.slice(5..)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_prediction_is_answered_as_content() {
    let server = Server::start();
    let client = client(&server).await;
    let version = |choice| ModelSpec { version_choice: Some(choice), ..model("identity") };
    for model_spec in [
        model("identity"),
        model(""),
        version(VersionChoice::Version(1)),
        version(VersionChoice::VersionLabel("1".to_owned())),
        ModelSpec { signature_name: "serving_default".to_owned(), ..model("identity") },
    ] {
        let request = predict(model_spec, "x", floats(&[1.0, 2.0], &[2, 2]));
        let response: PredictResponse = read(&ask(&client, PREDICT, &request).await);
        let output = &response.outputs["y"];
        let expected: Vec<u8> =
            [1.0f32, 2.0, 2.0, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!((output.dtype, &output.tensor_content[..]), (1, &expected[..]));
        let shape = output.tensor_shape.as_ref().unwrap();
        assert_eq!(shape.dim.iter().map(|dim| dim.size).collect::<Vec<_>>(), [2, 2]);
        let answered = response.model_spec.unwrap();
        assert_eq!(
            (answered.name.as_str(), answered.version_choice),
            ("identity", Some(VersionChoice::Version(1)))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn faults_have_their_code() {
    let server = Server::start();
    let client = client(&server).await;
    let one = || floats(&[1.0], &[1, 1]);
    let signed = ModelSpec { signature_name: "other".to_owned(), ..model("identity") };
    let filtered =
        PredictRequest { output_filter: vec!["z".to_owned()], ..predict(model("identity"), "x", one()) };
    for (request, status, part) in [
        (predict(model("nobody"), "x", one()), 5, "Request for unknown model"),
        (predict(model("identity"), "q", one()), 3, "unexpected inference input 'q'"),
        (predict(model("identity"), "x", floats(&[1.0], &[1])), 3, "has shape [1], expected [-1,-1]"),
        (
            predict(model("identity"), "x", TensorProto { dtype: 3, ..floats(&[], &[1, 1]) }),
            3,
            "has datatype INT32",
        ),
        (predict(model("identity"), "x", floats(&[1.0, 2.0], &[1, 1])), 3, "needs 4 bytes, got 8"),
        (predict(model("identity"), "x", floats(&[1.0], &[1, 1 << 40])), 8, "values that stand for others"),
        (predict(model("identity"), "x", floats(&[666.0], &[1, 1])), 13, "666"),
        (predict(signed, "x", one()), 3, "signature 'other' is not found"),
        (filtered, 3, "unexpected inference output 'z'"),
    ] {
        let answer = ask(&client, PREDICT, &request).await;
        assert_eq!(answer.status, status, "{}", answer.message);
        assert!(answer.message.contains(part), "{}", answer.message);
    }
    let malformed = call(&client, PREDICT, &[], &[framed(b"\xff\xff\xff")]).await;
    assert_eq!(malformed.status, 3, "{}", malformed.message);
    assert_eq!(call(&client, PREDICT, &[], &[]).await.status, 3);
    let request = framed(&predict(model("identity"), "x", one()).encode_to_vec());
    assert_eq!(call(&client, PREDICT, &[("grpc-timeout", "0n")], &[request]).await.status, 4);
    for method in ["PredictionService/Classify", "ModelService/HandleReloadConfigRequest", "Nobody/Nothing"] {
        let answer = call(&client, &format!("/tensorflow.serving.{method}"), &[], &[framed(b"")]).await;
        assert_eq!(answer.status, 12, "{method}");
        assert!(answer.message.contains("is not offered"), "{}", answer.message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_that_comes_in_pieces_is_read_whole() {
    let server = Server::start();
    let client = client(&server).await;
    let request = framed(&predict(model("identity"), "x", floats(&[1.0, 2.0], &[1, 2])).encode_to_vec());
    let pieces: Vec<Bytes> = request.chunks(7).map(Bytes::copy_from_slice).collect();
    read::<PredictResponse>(&call(&client, PREDICT, &[], &pieces).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn metadata_is_a_signature_and_status_a_list() {
    let server = Server::start();
    let client = client(&server).await;
    let request = |field: &str| GetModelMetadataRequest {
        model_spec: Some(model("identity")),
        metadata_field: vec![field.to_owned()],
    };
    let response: GetModelMetadataResponse = read(&ask(&client, METADATA, &request("signature_def")).await);
    let any = &response.metadata["signature_def"];
    assert_eq!(any.type_url, "type.googleapis.com/tensorflow.serving.SignatureDefMap");
    let map = SignatureDefMap::decode(&any.value[..]).unwrap();
    let input = &map.signature_def["serving_default"].inputs["x"];
    assert_eq!((input.dtype, input.tensor_shape.as_ref().unwrap().dim[0].size), (1, -1));
    assert_eq!(ask(&client, METADATA, &request("other")).await.status, 3);
    assert_eq!(ask(&client, METADATA, &GetModelMetadataRequest::default()).await.status, 3);

    let request = GetModelStatusRequest { model_spec: Some(model("identity")) };
    let response: GetModelStatusResponse = read(&ask(&client, STATUS, &request).await);
    let [version] = response.model_version_status.as_slice() else { panic!("one version") };
    assert_eq!((version.version, version.state()), (1, State::Available));
    let request = GetModelStatusRequest { model_spec: Some(model("nobody")) };
    assert_eq!(ask(&client, STATUS, &request).await.status, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reflection_knows_the_services_and_what_they_import() {
    use kingpole_wire::grpc::proto::reflection::server_reflection_request::MessageRequest;
    use kingpole_wire::grpc::proto::reflection::server_reflection_response::MessageResponse;
    use kingpole_wire::grpc::proto::reflection::{ServerReflectionRequest, ServerReflectionResponse};

    let server = Server::start();
    let client = client(&server).await;
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    for symbol in
        ["tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", "tensorflow.TensorProto"]
    {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::FileContainingSymbol(symbol.to_owned())),
        };
        let response: ServerReflectionResponse = read(&ask(&client, path, &request).await);
        let Some(MessageResponse::FileDescriptorResponse(files)) = response.message_response else {
            panic!("{symbol}: {response:?}")
        };
        let imports = if symbol.contains("serving") { 4 } else { 1 };
        assert_eq!(files.file_descriptor_proto.len(), imports, "{symbol}");
    }
}
