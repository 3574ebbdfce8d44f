//! gRPC over a real HTTP/2 client.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use kingpole_frontends::FrontendConfiguration;
use kingpole_values::{Datatype, InferRequest, InferResponse, Shape, Tensor};
use kingpole_wire::grpc::{decode_infer_response, encode_infer_request, proto};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::server::{LIMIT, SWOLLEN_BYTES, Server};
use crate::transports::Folder;

pub const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

pub async fn client(server: &Server) -> SendRequest<Bytes> {
    over(tokio::net::TcpStream::connect(&server.addresses[0]).await.unwrap()).await
}

pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

pub fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    framed.freeze()
}

pub fn request(id: &str, values: &[f32]) -> InferRequest {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let columns = i64::try_from(values.len()).unwrap();
    let input = Tensor {
        name: "x".into(),
        datatype: Datatype::Fp32,
        shape: Shape::new(&[1, columns]),
        data: data.into(),
    };
    InferRequest {
        model: "identity".into(),
        id: Some(id.into()),
        inputs: vec![input],
        ..InferRequest::default()
    }
}

pub fn encoded(id: &str, values: &[f32]) -> Bytes {
    framed(&encode_infer_request(&request(id, values), false).into_bytes())
}

/// The head of a call.
fn opened(path: &str) -> Request<()> {
    Request::post(format!("http://test{path}")).header("content-type", "application/grpc").body(()).unwrap()
}

pub struct Answer {
    pub headers: HeaderMap,
    pub status: u16,
    pub message: String,
    pub body: Bytes,
}

impl Answer {
    pub fn response(&self) -> InferResponse {
        assert_eq!(self.status, 0, "{}", self.message);
        decode_infer_response(self.body.slice(5..)).unwrap()
    }
}

fn status_of(headers: &HeaderMap) -> Option<(u16, String)> {
    let status = headers.get("grpc-status")?.to_str().unwrap().parse().unwrap();
    let message = headers.get("grpc-message").map_or("", |message| message.to_str().unwrap());
    Some((status, message.to_owned()))
}

/// Call a method with the request body in these pieces, and read everything.
pub async fn call(
    client: &SendRequest<Bytes>,
    path: &str,
    metadata: &[(&str, &str)],
    pieces: &[Bytes],
) -> Answer {
    let mut client = client.clone().ready().await.unwrap();
    let mut request = Request::post(format!("http://test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    let (response, mut send) = client.send_request(request.body(()).unwrap(), pieces.is_empty()).unwrap();
    for (position, piece) in pieces.iter().enumerate() {
        // A server that refuses early closes the stream before it has taken everything.
        let _ = send.send_data(piece.clone(), position + 1 == pieces.len());
        tokio::task::yield_now().await;
    }
    let (head, mut stream) = response.await.unwrap().into_parts();
    assert_eq!(
        (head.status.as_u16(), &head.headers["content-type"]),
        (200, &"application/grpc".parse().unwrap())
    );
    let mut body = BytesMut::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.unwrap();
        stream.flow_control().release_capacity(piece.len()).unwrap();
        body.extend_from_slice(&piece);
    }
    let (status, message) = match status_of(&head.headers) {
        Some(status) => status,
        None => status_of(&stream.trailers().await.unwrap().unwrap()).unwrap(),
    };
    Answer { headers: head.headers, status, message, body: body.freeze() }
}

async fn unary<M: Message + Default>(client: &SendRequest<Bytes>, path: &str, message: &impl Message) -> M {
    let answer = call(client, path, &[], &[framed(&message.encode_to_vec())]).await;
    assert_eq!(answer.status, 0, "{path}: {}", answer.message);
    M::decode(answer.body.slice(5..)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_inference_is_answered_however_its_bytes_come() {
    let server = Server::start();
    let client = client(&server).await;
    let whole = encoded("a", &[1.0, 2.0]);
    for size in [whole.len(), 1, 4, 7] {
        let pieces: Vec<Bytes> = whole.chunks(size).map(Bytes::copy_from_slice).collect();
        let response = call(&client, INFER, &[], &pieces).await.response();
        assert_eq!(response.id.as_deref(), Some("a"));
        assert_eq!(response.outputs[0].data, request("a", &[1.0, 2.0]).inputs[0].data, "pieces of {size}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hundred_streams_each_get_their_own_answer() {
    let server = Server::start();
    let client = client(&server).await;
    let calls = (0..100u16).map(|number| {
        let client = client.clone();
        tokio::spawn(async move {
            let answer =
                call(&client, INFER, &[], &[encoded(&number.to_string(), &[f32::from(number)])]).await;
            let response = answer.response();
            assert_eq!(response.id.unwrap(), number.to_string());
            assert_eq!(response.outputs[0].data, f32::from(number).to_le_bytes()[..]);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn big_tensors_pass_flow_control_both_ways() {
    let server = Server::start();
    let client = client(&server).await;
    let values = vec![0.5; 200_000];
    let response = call(&client, INFER, &[], &[encoded("big", &values)]).await.response();
    assert_eq!(response.outputs[0].data.len(), 800_000);
}

/// What is wrong, the metadata, the body; the status and a part of its text.
type Refusal<'a> = (&'a str, &'a [(&'a str, &'a str)], Bytes, u16, &'a str);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_refusal_has_its_status() {
    let server = Server::start();
    let client = client(&server).await;
    let good = encoded("a", &[1.0]);
    let mut unknown = request("a", &[1.0]);
    unknown.model = "n\u{e9}ant%".into();
    let unknown = framed(&encode_infer_request(&unknown, false).into_bytes());
    let announced = {
        let mut prefix = BytesMut::new();
        prefix.put_u8(0);
        prefix.put_u32(u32::try_from(LIMIT + 1).unwrap());
        prefix.freeze()
    };
    let cut = good.slice(..good.len() - 1);
    let mut packed = BytesMut::from(&good[..]);
    packed[0] = 1;
    let packed = packed.freeze();
    let cases: [Refusal<'_>; 12] = [
        ("an unknown model", &[], unknown, 5, "n%C3%A9ant%25"),
        ("an announced length above the limit", &[], announced, 8, "1048576 bytes"),
        ("a message that is cut off", &[], cut, 3, "cut off"),
        ("not protobuf", &[], framed(b"\xff\xff"), 3, ""),
        ("a zero timeout", &[("grpc-timeout", "0m")], good.clone(), 4, "deadline"),
        ("a malformed timeout", &[("grpc-timeout", "soon")], good.clone(), 3, "grpc-timeout"),
        ("an unknown coding", &[("grpc-encoding", "snappy")], good.clone(), 12, "snappy"),
        ("compressed without a coding", &[], packed.clone(), 13, "compressed"),
        ("corrupt gzip", &[("grpc-encoding", "gzip")], packed, 3, "corrupt"),
        ("a failing model", &[], encoded("a", &[666.0]), 13, "does not like"),
        ("no message", &[], Bytes::new(), 3, "no request message"),
        ("an unknown flag", &[], Bytes::from_static(b"\x07\0\0\0\0"), 13, "flag 7"),
    ];
    for (what, metadata, body, status, text) in cases {
        let answer = call(&client, INFER, metadata, &[body]).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.message);
        assert!(answer.message.contains(text), "{what}: {}", answer.message);
    }
    let answer = call(&client, "/inference.GRPCInferenceService/Guess", &[], &[framed(b"")]).await;
    assert_eq!(answer.status, 12);
    assert!(answer.message.contains("Guess"), "{}", answer.message);
    assert_eq!(call(&client, INFER, &[], &[good]).await.status, 0, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn compressed_requests_are_unpacked() {
    use std::io::Write;
    let server = Server::start();
    let client = client(&server).await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&encoded("z", &[3.0])[5..]).unwrap();
    let mut message = BytesMut::from(&framed(&gzip.finish().unwrap())[..]);
    message[0] = 1;
    let answer = call(&client, INFER, &[("grpc-encoding", "gzip")], &[message.freeze()]).await;
    assert_eq!(answer.response().id.as_deref(), Some("z"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_other_methods_answer() {
    const SERVICE: &str = "/inference.GRPCInferenceService";
    let server = Server::start();
    let client = client(&server).await;
    let live: proto::ServerLiveResponse =
        unary(&client, &format!("{SERVICE}/ServerLive"), &proto::ServerLiveRequest {}).await;
    assert!(live.live);
    let ready: proto::ServerReadyResponse =
        unary(&client, &format!("{SERVICE}/ServerReady"), &proto::ServerReadyRequest {}).await;
    assert!(ready.ready);
    let asked = proto::ModelMetadataRequest { name: "identity".to_owned(), version: String::new() };
    let metadata: proto::ModelMetadataResponse =
        unary(&client, &format!("{SERVICE}/ModelMetadata"), &asked).await;
    assert_eq!(
        (metadata.versions, metadata.inputs[0].shape.as_slice()),
        (vec!["1".to_owned()], &[-1, -1][..])
    );
    let asked = proto::ModelConfigRequest { name: "identity".to_owned(), version: String::new() };
    let config: proto::ModelConfigResponse = unary(&client, &format!("{SERVICE}/ModelConfig"), &asked).await;
    assert_eq!(config.config.unwrap().max_batch_size, 32);
    let index: proto::RepositoryIndexResponse =
        unary(&client, &format!("{SERVICE}/RepositoryIndex"), &proto::RepositoryIndexRequest::default())
            .await;
    assert_eq!(index.models.len(), 3);
    call(&client, INFER, &[], &[encoded("a", &[1.0])]).await.response();
    let asked = proto::ModelStatisticsRequest { name: "identity".to_owned(), version: String::new() };
    let statistics: proto::ModelStatisticsResponse =
        unary(&client, &format!("{SERVICE}/ModelStatistics"), &asked).await;
    assert_eq!(statistics.model_stats[0].inference_stats.unwrap().success.unwrap().count, 1);
    let load = proto::RepositoryModelLoadRequest { model_name: "identity".to_owned(), ..Default::default() };
    let load = framed(&load.encode_to_vec());
    assert_eq!(call(&client, &format!("{SERVICE}/RepositoryModelLoad"), &[], &[load]).await.status, 14);
    let asked = proto::ModelReadyRequest { name: "nobody".to_owned(), version: String::new() };
    let asked = framed(&asked.encode_to_vec());
    assert_eq!(call(&client, &format!("{SERVICE}/ModelReady"), &[], &[asked]).await.status, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn health_knows_the_server_and_its_models() {
    use proto::health::{HealthCheckRequest, HealthCheckResponse};
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    let server = Server::start();
    let client = client(&server).await;
    for (service, status) in [("", 1), ("identity", 1), ("inference.GRPCInferenceService", 1)] {
        let asked = HealthCheckRequest { service: service.to_owned() };
        let answer: HealthCheckResponse = unary(&client, CHECK, &asked).await;
        assert_eq!(answer.status, status, "{service}");
    }
    let asked = HealthCheckRequest { service: "nobody".to_owned() }.encode_to_vec();
    assert_eq!(call(&client, CHECK, &[], &[framed(&asked)]).await.status, 5);
    server.engine.set_ready(false);
    let answer: HealthCheckResponse = unary(&client, CHECK, &HealthCheckRequest::default()).await;
    assert_eq!(answer.status, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_watcher_hears_of_the_end() {
    let server = Server::start();
    let client = client(&server).await;
    let mut ready = client.clone().ready().await.unwrap();
    let request = opened("/grpc.health.v1.Health/Watch");
    let (response, mut send) = ready.send_request(request, false).unwrap();
    send.send_data(framed(b""), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), framed(&[8, 1]), "SERVING");
    server.engine.set_ready(false);
    assert_eq!(body.data().await.unwrap().unwrap(), framed(&[8, 2]), "NOT_SERVING");
    server.engine.set_ready(true);
    assert_eq!(body.data().await.unwrap().unwrap(), framed(&[8, 1]), "SERVING again");
    server.drain();
    assert_eq!(body.data().await.unwrap().unwrap(), framed(&[8, 2]), "NOT_SERVING");
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(status_of(&trailers).unwrap().0, 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reflection_describes_every_service() {
    use proto::reflection::server_reflection_request::MessageRequest;
    use proto::reflection::server_reflection_response::MessageResponse;
    use proto::reflection::{ServerReflectionRequest, ServerReflectionResponse};
    let server = Server::start();
    let client = client(&server).await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let ask = async |question: MessageRequest| {
            let asked = ServerReflectionRequest { message_request: Some(question), ..Default::default() };
            let answer: ServerReflectionResponse = unary(&client, &path, &asked).await;
            answer.message_response.unwrap()
        };
        let MessageResponse::ListServicesResponse(list) =
            ask(MessageRequest::ListServices(String::new())).await
        else {
            panic!("not a list")
        };
        assert!(list.service.iter().any(|service| service.name == "inference.GRPCInferenceService"));
        let symbol = "inference.ModelInferRequest.InferInputTensor".to_owned();
        let found = ask(MessageRequest::FileContainingSymbol(symbol)).await;
        assert!(
            matches!(found, MessageResponse::FileDescriptorResponse(files) if !files.file_descriptor_proto.is_empty())
        );
        let absent = ask(MessageRequest::FileByFilename("nothing.proto".to_owned())).await;
        assert!(matches!(absent, MessageResponse::ErrorResponse(error) if error.error_code == 5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_triton_stream_answers_in_order_and_survives_errors() {
    let server = Server::start();
    let client = client(&server).await;
    let pieces = [encoded("a", &[1.0]), encoded("b", &[666.0]), framed(b"\xff"), encoded("c", &[3.0])];
    let answer = call(&client, "/inference.GRPCInferenceService/ModelStreamInfer", &[], &pieces).await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    let mut rest = answer.body;
    let mut answers = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        let message = rest.split_to(5 + length).slice(5..);
        answers.push(proto::ModelStreamInferResponse::decode(message).unwrap());
    }
    let ids: Vec<_> =
        answers.iter().map(|a| a.infer_response.as_ref().map_or("", |response| &response.id)).collect();
    assert_eq!(ids, ["a", "b", "", "c"]);
    assert!(answers[1].error_message.contains("does not like"), "{}", answers[1].error_message);
    let last = &answers[3].infer_response.as_ref().unwrap().parameters["triton_final_response"];
    assert!(last.parameter_choice.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn http2_carries_open_inference_as_well() {
    let server = Server::start();
    let mut client = client(&server).await;
    let request = Request::get("http://test/v2/models/identity/ready").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(body.data().await.unwrap().unwrap(), r#"{"name":"identity","ready":true}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_resets_its_call_hurts_nobody() {
    let server = Server::start();
    let client = client(&server).await;
    let mut ready = client.clone().ready().await.unwrap();
    let request = opened(INFER);
    let (response, mut send) = ready.send_request(request, false).unwrap();
    send.send_data(Bytes::from_static(b"\0\0\0"), false).unwrap();
    send.send_reset(h2::Reason::CANCEL);
    assert!(response.await.is_err());
    call(&client, INFER, &[], &[encoded("a", &[1.0])]).await.response();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_drained_connection_says_goodbye() {
    let server = Server::start();
    let stream = tokio::net::TcpStream::connect(&server.addresses[0]).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    call(&client, INFER, &[], &[encoded("a", &[1.0])]).await.response();
    server.drain();
    connection.await.unwrap().unwrap();
    let refused = client.clone().ready().await;
    assert!(refused.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn clients_that_end_their_side_by_itself_are_answered_for_ever() {
    let server = Server::start();
    let client = client(&server).await;
    for path in [INFER, "/inference.GRPCInferenceService/ServerLive"] {
        // More than the streams that may be reset before a connection is given up.
        for _ in 0..1500 {
            let mut ready = client.clone().ready().await.unwrap();
            let request = opened(path);
            let (response, mut send) = ready.send_request(request, false).unwrap();
            let message = if path == INFER { encoded("a", &[1.0]) } else { framed(&[]) };
            send.send_data(message, false).unwrap();
            let mut body = response.await.unwrap().into_body();
            while let Some(piece) = body.data().await {
                let length = piece.unwrap().len();
                body.flow_control().release_capacity(length).unwrap();
            }
            assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
            send.send_data(Bytes::new(), true).unwrap();
        }
    }
}

/// A stream of which no more than `bytes_per_ms` come through from `far`.
fn slowed(far: tokio::net::UnixStream, bytes_per_ms: usize) -> tokio::io::DuplexStream {
    let (near, mut middle) = tokio::io::duplex(bytes_per_ms);
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(far);
        let (mut back, mut forth) = tokio::io::split(&mut middle);
        let slow = async {
            let mut piece = vec![0; bytes_per_ms];
            while let Ok(read @ 1..) = from.read(&mut piece).await {
                forth.write_all(&piece[..read]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! { () = slow => {}, _ = tokio::io::copy(&mut back, &mut to) => {} }
    });
    near
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_reads_slowly_gets_its_whole_answers_from_a_server_that_drains() {
    const ANSWERS: usize = 32;
    // A Unix socket holds little, so that the ends of answers wait in the server.
    let directory = Folder::new("drain");
    let server =
        Server::start_with(&[format!("unix:{}", directory.path("s"))], FrontendConfiguration::default());
    server.publish_swell();
    let stream = tokio::net::UnixStream::connect(directory.path("s")).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(64 << 20)
        .handshake::<_, Bytes>(slowed(stream, 6 << 10))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..ANSWERS {
        let mut ready = client.clone().ready().await.unwrap();
        let request = opened(INFER);
        let (response, mut send) = ready.send_request(request, false).unwrap();
        let asked = InferRequest { model: "swell".into(), ..self::request("a", &[1.0]) };
        send.send_data(framed(&encode_infer_request(&asked, false).into_bytes()), true).unwrap();
        answers.push(response);
    }
    let mut first = Some(answers.remove(0).await.unwrap());
    server.drain();
    let mut bytes = Vec::new();
    for _ in 0..ANSWERS {
        let answer = match first.take() {
            Some(first) => first,
            None => answers.remove(0).await.unwrap(),
        };
        let mut body = answer.into_body();
        let mut length = 0;
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            length += piece.len();
            body.flow_control().release_capacity(piece.len()).unwrap();
        }
        assert!(body.trailers().await.unwrap().is_some());
        bytes.push(length);
    }
    assert!(bytes.iter().all(|&length| length > SWOLLEN_BYTES), "{bytes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_watcher_of_a_model_hears_of_it_coming_and_going() {
    use proto::health::HealthCheckRequest;
    let server = Server::start();
    let client = client(&server).await;
    let mut ready = client.clone().ready().await.unwrap();
    let request = opened("/grpc.health.v1.Health/Watch");
    let (response, mut send) = ready.send_request(request, false).unwrap();
    let asked = HealthCheckRequest { service: "held".to_owned() };
    send.send_data(framed(&asked.encode_to_vec()), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), framed(&[8, 3]), "SERVICE_UNKNOWN");
    let _held = server.publish_held();
    assert_eq!(body.data().await.unwrap().unwrap(), framed(&[8, 1]), "SERVING");
}

#[test]
fn a_client_that_no_longer_answers_pings_is_left() {
    use std::io::{Read, Write};
    let configuration = kingpole_frontends::FrontendConfiguration {
        ping_interval: std::time::Duration::from_millis(50),
        ..Default::default()
    };
    let server = Server::start_with(&["127.0.0.1:0".to_owned()], configuration);
    let mut stream = server.connect();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
    // HEADERS of "POST http://.../" without an end: the server waits for a body.
    stream.write_all(&[0, 0, 6, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84, 0x41, 0x01, b't']).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let mut kinds = Vec::new();
    let mut rest = &bytes[..];
    while let Some((head, after)) = rest.split_at_checked(9) {
        kinds.push(head[3]);
        rest = &after[u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize..];
    }
    assert!(kinds.contains(&6), "no PING in {kinds:?}");
}
