//! The client against servers that do exactly as they are told: what it sends, when it waits, and what it does not
//! send twice.

use std::future::Future;
use std::time::{Duration, Instant};

use kingpole_client::{Client, ClientBuilder, Code, Request, Response, Stage, Tensor};
use kingpole_values::Error;
use kingpole_wire::Scatter;
use kingpole_wire::frame::{
    Frame, FrameReader, Message, encode_cancelled, encode_credit, encode_error, encode_ready, encode_response,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// One connection of frames, from the server's side.
struct Peer {
    stream: TcpStream,
    reader: FrameReader,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        Self { stream, reader: FrameReader::new(1 << 24) }
    }

    /// The next frame; `None` at the end.
    async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.reader.next_frame().unwrap() {
                return Some(frame);
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece).await {
                Ok(0) | Err(_) => return None,
                Ok(nbytes) => self.reader.push(&piece[..nbytes]),
            }
        }
    }

    /// The exchange of the request that must come now.
    async fn request(&mut self) -> u64 {
        match self.hear().await {
            Some(Frame { exchange, message: Message::Request { .. } }) => exchange,
            other => panic!("a request, not {other:?}"),
        }
    }

    async fn say(&mut self, frame: Scatter) {
        self.stream.write_all(&frame.into_bytes()).await.unwrap();
    }
}

async fn serve<F>(
    script: impl FnOnce(TcpListener) -> F,
    scheme: &str,
) -> (ClientBuilder, JoinHandle<F::Output>)
where
    F: Future<Output: Send> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    (Client::builder(&url).timeout(Duration::from_secs(10)), tokio::spawn(script(listener)))
}

fn response(model: &str) -> Response {
    Response { model: model.into(), ..Response::default() }
}

fn ask() -> Request {
    Request::new("m").input(Tensor::new("x", &[1], vec![1.0f32]).unwrap())
}

#[tokio::test]
async fn no_more_requests_are_open_than_the_server_granted() {
    let script = |listener: TcpListener| async move {
        let mut peer = Peer::accept(&listener).await;
        let first = peer.request().await;
        assert!(timeout(Duration::from_millis(200), peer.hear()).await.is_err(), "one is open");
        peer.say(encode_credit(1)).await;
        let second = peer.request().await;
        assert!(timeout(Duration::from_millis(100), peer.hear()).await.is_err(), "two are open");
        // In another order than they came.
        peer.say(encode_response(&response("second"), &[], second)).await;
        peer.say(encode_response(&response("first"), &[], first)).await;
        let third = peer.request().await;
        peer.say(encode_response(&response("third"), &[], third)).await;
    };
    let (client, server) = serve(script, "frame").await;
    let client = client.build().unwrap();
    let (first, second, third) = tokio::join!(client.infer(ask()), client.infer(ask()), client.infer(ask()));
    let models = [first, second, third].map(|answer| answer.unwrap().model);
    assert_eq!(models, ["first", "second", "third"]);
    server.await.unwrap();
}

#[tokio::test]
async fn a_dropped_future_is_a_cancel_and_keeps_its_credit_until_the_server_has_done_with_it() {
    let script = |listener: TcpListener| async move {
        let mut peer = Peer::accept(&listener).await;
        let exchange = peer.request().await;
        let cancel = peer.hear().await.unwrap();
        assert_eq!((cancel.exchange, cancel.message), (exchange, Message::Cancel));
        assert!(timeout(Duration::from_millis(100), peer.hear()).await.is_err(), "it is still open");
        peer.say(encode_cancelled(exchange)).await;
        let next = peer.request().await;
        peer.say(encode_response(&response("next"), &[], next)).await;
    };
    let (client, server) = serve(script, "frame").await;
    let client = client.build().unwrap();
    assert!(timeout(Duration::from_millis(100), client.infer(ask())).await.is_err());
    assert_eq!(client.infer(ask()).await.unwrap().model, "next");
    server.await.unwrap();
}

#[tokio::test]
async fn a_late_answer_is_a_deadline_that_the_server_hears_of() {
    let script = |listener: TcpListener| async move {
        let mut peer = Peer::accept(&listener).await;
        match peer.hear().await.unwrap().message {
            Message::Request { request, .. } => assert_eq!(request.timeout_us, Some(50_000)),
            other => panic!("a request, not {other:?}"),
        }
        assert_eq!(peer.hear().await.unwrap().message, Message::Cancel);
    };
    let (client, server) = serve(script, "frame").await;
    let began = Instant::now();
    let error = client.build().unwrap().infer(ask().timeout(Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() >= Duration::from_millis(300), "the server has a quarter of a second more");
    server.await.unwrap();
}

#[tokio::test]
async fn only_what_was_refused_with_a_time_to_come_back_is_asked_again() {
    let script = |listener: TcpListener| async move {
        let mut peer = Peer::accept(&listener).await;
        let exhausted = Error::exhausted("full");
        let exchange = peer.request().await;
        peer.say(encode_error(&exhausted, 30, None, exchange)).await;
        let exchange = peer.request().await;
        peer.say(encode_response(&response("again"), &[], exchange)).await;
        for (error, retry_after_ms) in [(exhausted, 0), (Error::unavailable("down"), 30)] {
            let exchange = peer.request().await;
            peer.say(encode_error(&error, retry_after_ms, Some("id"), exchange)).await;
        }
    };
    let (client, server) = serve(script, "frame").await;
    let client = client.retries(3).build().unwrap();
    assert_eq!(client.infer(ask()).await.unwrap().model, "again");
    let error = client.infer(ask()).await.unwrap_err();
    assert_eq!((error.code(), error.retry_after(), error.id()), (Code::ResourceExhausted, None, Some("id")));
    assert_eq!(client.infer(ask()).await.unwrap_err().code(), Code::Unavailable);
    server.await.unwrap();
}

#[tokio::test]
async fn what_could_not_be_sent_says_so_and_is_tried_again_if_wanted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for scheme in ["frame", "grpc", "http"] {
        let url = format!("{scheme}://{address}");
        let error = Client::new(&url).unwrap().infer(ask()).await.unwrap_err();
        assert!(error.code() == Code::Unavailable && error.is_unsent(), "{error}");
        assert!(error.message().contains(&url), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        assert!(!Client::new(&url).unwrap().live().await.unwrap());
    }
    let client = Client::builder(&format!("frame://{address}")).retries(20).build().unwrap();
    let asking = tokio::spawn(async move { client.infer(ask()).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let mut peer = Peer::accept(&listener).await;
    let exchange = peer.request().await;
    peer.say(encode_response(&response("up"), &[], exchange)).await;
    assert_eq!(asking.await.unwrap().unwrap().model, "up");
}

#[tokio::test]
async fn a_broken_connection_answers_everybody_and_the_next_request_has_another() {
    let script = |listener: TcpListener| async move {
        let mut peer = Peer::accept(&listener).await;
        peer.request().await;
        drop(peer);
        let mut peer = Peer::accept(&listener).await;
        let exchange = peer.request().await;
        // Draining: what is open is answered, what is new goes elsewhere.
        peer.say(encode_ready(false, 0)).await;
        peer.say(encode_response(&response("drained"), &[], exchange)).await;
        let mut other = Peer::accept(&listener).await;
        let exchange = other.request().await;
        other.say(encode_response(&response("other"), &[], exchange)).await;
    };
    let (client, server) = serve(script, "frame").await;
    let client = client.build().unwrap();
    let (first, second) = tokio::join!(client.infer(ask()), client.infer(ask()));
    let (first, second) = (first.unwrap_err(), second.unwrap_err());
    assert_eq!((first.code(), second.code()), (Code::Unavailable, Code::Unavailable));
    assert!(!first.is_unsent() && second.is_unsent(), "the second waited for its turn");
    assert_eq!(client.infer(ask()).await.unwrap().model, "drained");
    assert_eq!(client.infer(ask()).await.unwrap().model, "other");
    server.await.unwrap();
}

#[tokio::test]
async fn responses_of_a_stream_come_until_its_error_and_dropping_it_ends_the_connection() {
    let script = |listener: TcpListener| async move {
        let mut peer = Peer::accept(&listener).await;
        let exchange = peer.request().await;
        let part = Response { stage: Stage::Part, ..response("part") };
        peer.say(encode_credit(7)).await;
        peer.say(encode_response(&part, &[], exchange)).await;
        peer.say(encode_error(&Error::internal("broke"), 0, None, exchange)).await;
        let mut peer = Peer::accept(&listener).await;
        let exchange = peer.request().await;
        peer.say(encode_response(&part, &[], exchange)).await;
        assert_eq!(peer.hear().await, None);
    };
    let (client, server) = serve(script, "frame").await;
    let client = client.build().unwrap();
    let mut responses = client.stream(ask()).await.unwrap();
    assert_eq!(responses.next().await.unwrap().unwrap().model, "part");
    assert_eq!(responses.next().await.unwrap().unwrap_err().message(), "broke");
    assert!(responses.next().await.is_none());
    let mut responses = client.stream(ask()).await.unwrap();
    assert_eq!(responses.next().await.unwrap().unwrap().model, "part");
    drop(responses);
    server.await.unwrap();
}

/// One request over HTTP, its head and body; the answer is written as it is given.
async fn answer_http(stream: &mut TcpStream, answer: &str) -> String {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let nbytes = stream.read(&mut piece).await.unwrap();
        assert!(nbytes > 0, "the client left");
        seen.extend_from_slice(&piece[..nbytes]);
        let text = String::from_utf8_lossy(&seen);
        let Some(end) = text.find("\r\n\r\n") else { continue };
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        if seen.len() >= end + 4 + length {
            break;
        }
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8_lossy(&seen).into_owned()
}

fn json(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_server_that_knows_no_frames_is_asked_in_its_own_words_from_then_on() {
    let answer =
        json(r#"{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1,2.5]}]}"#);
    let script = |listener: TcpListener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let refusal = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        assert!(answer_http(&mut stream, refusal).await.starts_with("POST /v1/infer "));
        let who = json(r#"{"name":"s","version":"1","extensions":[]}"#);
        assert!(answer_http(&mut stream, &who).await.starts_with("GET /v2 "));
        for _ in 0..2 {
            let seen = answer_http(&mut stream, &answer).await;
            assert!(seen.starts_with("POST /v2/models/m/infer "), "{seen}");
            assert!(seen.contains("authorization: Bearer t") && seen.contains(r#""data":[1.0]"#), "{seen}");
        }
    };
    let (client, server) = serve(script, "http").await;
    let client = client.token("t").build().unwrap();
    for _ in 0..2 {
        let response = client.infer(ask()).await.unwrap();
        assert_eq!(response.output("y").unwrap().elements::<f32>().unwrap()[..], [1.0, 2.5]);
    }
    assert_eq!(client.stream(ask()).await.unwrap_err().code(), Code::Unimplemented);
    let nan = Request::new("m").input(Tensor::new("x", &[1], vec![f32::NAN]).unwrap());
    assert_eq!(client.infer(nan).await.unwrap_err().code(), Code::InvalidArgument);
    server.await.unwrap();
}

#[tokio::test]
async fn a_status_without_a_frame_is_an_error_with_its_text() {
    let script = |listener: TcpListener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let busy =
            "HTTP/1.1 429 Too Many\r\nretry-after: 2\r\ncontent-length: 20\r\n\r\n{\"error\": \"be back\"}";
        answer_http(&mut stream, busy).await;
    };
    let (client, server) = serve(script, "http").await;
    let error = client.build().unwrap().infer(ask()).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::ResourceExhausted, "be back"));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
    server.await.unwrap();
}

#[tokio::test]
async fn an_answer_above_the_limit_is_refused_from_its_announcement() {
    let script = |listener: TcpListener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let endless = "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
        answer_http(&mut stream, endless).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    };
    let (client, server) = serve(script, "http").await;
    let client = client.max_frame_bytes(1000).build().unwrap();
    let error = client.infer(ask()).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("99999999999"), "{error}");
    server.await.unwrap();
}

#[test]
fn what_cannot_be_sent_is_refused_where_it_is_said() {
    let refused = |builder: ClientBuilder| builder.build().unwrap_err();
    for builder in [
        Client::builder("ftp://h"),
        Client::builder("frame://h:1").token("t"),
        Client::builder("http://h:1").token("a\nb"),
        Client::builder("http://h:1").shared_memory(4096),
        Client::builder("https://h:1").root_certificates("no certificate"),
    ] {
        assert_eq!(refused(builder).code(), Code::InvalidArgument);
    }
    let error: kingpole_client::Error = Tensor::new("x", &[2], vec![1u8]).unwrap_err().into();
    assert_eq!(error.code(), Code::InvalidArgument);
}
