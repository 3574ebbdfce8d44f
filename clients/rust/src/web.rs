//! Asking over HTTP: with frames, or with Open Inference where the server knows no frames.
//!
//! The first request is a frame. A server that does not know what that is says so before anything has run, and is
//! asked in Open Inference from then on: with binary tensors if it offers them, else in JSON.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use kingpole_values::{Code, InferResponse};
use kingpole_wire::Scatter;
use kingpole_wire::frame::{FrameReader, MAGIC, MEDIA_TYPE, Metadata, ServerInfo, encode_request};
use kingpole_wire::rest::{
    self, HEADER_LENGTH, decode_error, decode_model_metadata, decode_ready, decode_server_metadata,
    model_path,
};

use crate::answer::{ONLY_EXCHANGE, check_frame, judge, one_response, read};
use crate::clock::Deadline;
use crate::http1::{Answer, Asked, Head, Pool, ReceivedBody, content};
use crate::outgoing::Outgoing;
use crate::{Error, Request, Result};

const INFER_PATH: &str = "/v1/infer";
const STREAM_MEDIA_TYPE: &str = "application/x-kingpole-stream";
const BINARY_EXTENSIONS: [&str; 2] = ["binary_tensor_data", "binary_data"];
/// The most bytes of an answer that says who is there, or that something went wrong.
const MOST_SAID_BYTES: usize = 1 << 20;

/// A server asked over HTTP.
pub(crate) struct Web {
    pool: Arc<Pool>,
    /// How to ask a server that takes no frames: whether with binary tensors. Empty while frames are taken.
    open_inference: OnceLock<bool>,
}

impl Web {
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool: Arc::new(pool), open_inference: OnceLock::new() }
    }

    /// Ask for an inference.
    pub(crate) async fn infer(&self, request: &Request, deadline: Deadline) -> Result<InferResponse> {
        if self.open_inference.get().is_none() {
            let asked = posted(frame_of(request)?, content(MEDIA_TYPE));
            let answer = self.pool.exchange(asked, deadline).await?;
            if !refuses_frames(&answer.head) {
                return read_frame(&answer);
            }
            let binary = self.offers_binary(deadline).await?;
            let _ = self.open_inference.set(binary);
        }
        let binary = self.open_inference.get().copied().unwrap_or_default();
        let asked = open_inference(request, binary)?;
        let answer = self.pool.exchange(asked, deadline).await?;
        if answer.head.status != http::StatusCode::OK {
            return Err(refusal(&answer));
        }
        let header_length = answer.head.header_length()?;
        let response = rest::decode_infer_response(answer.body, header_length).map_err(Error::unreadable)?;
        for output in &response.outputs {
            output.check_size().map_err(Error::unreadable)?;
        }
        Ok(response)
    }

    async fn offers_binary(&self, deadline: Deadline) -> Result<bool> {
        let body = self.get("/v2".to_owned(), deadline).await?;
        let info = decode_server_metadata(&body)?;
        Ok(info.extensions.iter().any(|extension| BINARY_EXTENSIONS.contains(&&**extension)))
    }

    /// Ask for an inference that may be answered by any number of responses.
    pub(crate) async fn stream(
        &self,
        request: &Request,
        deadline: Deadline,
        limit: usize,
    ) -> Result<(WebSource, FrameReader)> {
        if self.open_inference.get().is_some() {
            return Err(takes_no_frames());
        }
        let mut headers = content(MEDIA_TYPE);
        headers.push((http::header::ACCEPT, HeaderValue::from_static(STREAM_MEDIA_TYPE)));
        let asked = posted(frame_of(request)?, headers);
        let late = || "no answer came in time".to_owned();
        let (head, mut body) = deadline.limit(self.pool.begin(asked, deadline), late).await?;
        let mut reader = FrameReader::new(limit);
        if head.status == http::StatusCode::OK && head.is(STREAM_MEDIA_TYPE) {
            return Ok((WebSource { body: Some(body) }, reader));
        }
        let body = deadline.limit(body.whole(limit), late).await?;
        if head.is(MEDIA_TYPE) {
            reader.push(&body);
            return Ok((WebSource { body: None }, reader));
        }
        let error = refusal(&Answer { head, body });
        let knows_none = [Code::NotFound, Code::Unimplemented].contains(&error.code());
        Err(if knows_none { takes_no_frames() } else { error })
    }

    async fn get(&self, path: String, deadline: Deadline) -> Result<Bytes> {
        let answer = self.ask(path, deadline).await?;
        if answer.head.status != http::StatusCode::OK {
            return Err(refusal(&answer));
        }
        if answer.body.len() > MOST_SAID_BYTES {
            return Err(Error::internal(format!("the server says {} bytes of itself", answer.body.len())));
        }
        Ok(answer.body)
    }

    async fn ask(&self, path: String, deadline: Deadline) -> Result<Answer> {
        let asked = Asked { method: Method::GET, path, headers: Vec::new(), body: Outgoing::default() };
        self.pool.exchange(asked, deadline).await
    }

    /// Ask whether the server lives.
    pub(crate) async fn live(&self, deadline: Deadline) -> Result<bool> {
        let answer = self.ask("/v2/health/live".to_owned(), deadline).await?;
        Ok(decode_ready(answer.head.status.as_u16(), &answer.body)?)
    }

    /// Ask whether a model, or without one the server, is ready.
    pub(crate) async fn ready(
        &self,
        model: Option<(&str, Option<&str>)>,
        deadline: Deadline,
    ) -> Result<bool> {
        let path = match model {
            None => "/v2/health/ready".to_owned(),
            Some((model, version)) => format!("{}/ready", model_path(model, version)),
        };
        let answer = self.ask(path, deadline).await?;
        Ok(decode_ready(answer.head.status.as_u16(), &answer.body)?)
    }

    pub(crate) async fn server_info(&self, deadline: Deadline) -> Result<ServerInfo> {
        Ok(decode_server_metadata(&self.get("/v2".to_owned(), deadline).await?)?)
    }

    pub(crate) async fn metadata(
        &self,
        model: &str,
        version: Option<&str>,
        deadline: Deadline,
    ) -> Result<Metadata> {
        if model.is_empty() {
            return Err(Error::invalid("over http the model must be named"));
        }
        Ok(decode_model_metadata(&self.get(model_path(model, version), deadline).await?)?)
    }
}

fn frame_of(request: &Request) -> Result<Scatter> {
    check_frame(encode_request(&request.infer, &[], ONLY_EXCHANGE))
}

fn posted(frame: Scatter, headers: Vec<(HeaderName, HeaderValue)>) -> Asked {
    Asked { method: Method::POST, path: INFER_PATH.to_owned(), headers, body: frame.into() }
}

/// A request in Open Inference.
fn open_inference(request: &Request, binary: bool) -> Result<Asked> {
    let infer = &request.infer;
    if infer.model.is_empty() {
        return Err(Error::invalid("this server speaks Open Inference only, where a model must be named"));
    }
    let encoded = rest::encode_infer_request(infer, binary)?;
    let mut headers = content(if encoded.header_length.is_some() {
        "application/octet-stream"
    } else {
        "application/json"
    });
    if let Some(length) = encoded.header_length {
        headers.push((HeaderName::from_static(HEADER_LENGTH), HeaderValue::from(length)));
    }
    let path = format!("{}/infer", model_path(&infer.model, infer.version.as_deref()));
    Ok(Asked { method: Method::POST, path, headers, body: encoded.body.into() })
}

/// Whether an answer to a frame says that the server knows no frames: it did not run anything.
fn refuses_frames(head: &Head) -> bool {
    matches!(head.status.as_u16(), 404 | 405 | 415 | 501) && !head.is(MEDIA_TYPE)
}

/// The answer to a frame: a frame, whatever the status, unless something in between spoke.
fn read_frame(answer: &Answer) -> Result<InferResponse> {
    if answer.head.is(MEDIA_TYPE) || answer.body.starts_with(&MAGIC) {
        let (_, message) = read(&answer.body);
        return one_response(judge(message?, None)?);
    }
    if answer.head.status == http::StatusCode::OK {
        return Err(Error::internal("the server answered with something else than a frame"));
    }
    Err(refusal(answer))
}

fn refusal(answer: &Answer) -> Error {
    let head = &answer.head;
    let body = &answer.body[..answer.body.len().min(MOST_SAID_BYTES)];
    Error::from(decode_error(head.status.as_u16(), body)).retry_after_ms(head.retry_after_ms())
}

fn takes_no_frames() -> Error {
    let message = "this server takes no frames, and so gives one response to a request at most: use infer";
    Error::new(Code::Unimplemented, message)
}

/// The frames that answer one request.
pub(crate) struct WebSource {
    /// `None`: all of them are in the reader.
    body: Option<ReceivedBody>,
}

impl WebSource {
    /// Receive into the reader; whether there was something.
    pub(crate) fn poll_more(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut FrameReader,
    ) -> Poll<Result<bool>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(false)) };
        body.poll_piece(context).map(|piece| match piece {
            None => Ok(false),
            Some(piece) => {
                reader.push(&piece?);
                Ok(true)
            }
        })
    }
}
