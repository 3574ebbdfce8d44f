//! HTTP/1.1: connections that are kept, each lent to one request at a time. Knows no frame.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use kingpole_values::Code;
use kingpole_wire::rest::HEADER_LENGTH;

use crate::address::Address;
use crate::clock::Deadline;
use crate::connect::{connect, reasons};
use crate::outgoing::Outgoing;
use crate::tls::Trust;
use crate::{Error, Result};

/// The most room that is made for an answer before it comes.
const MOST_FORESEEN_BYTES: usize = 128 << 20;

/// What is asked: the path behind the address's own, and a body with the headers that describe it.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Outgoing,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Bytes,
}

/// What an answer's first lines say.
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
}

impl Head {
    fn text(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whether the body is of this media type.
    pub(crate) fn is(&self, media_type: &str) -> bool {
        let said = self.text(CONTENT_TYPE.as_str()).split(';').next().unwrap_or_default().trim();
        said.eq_ignore_ascii_case(media_type)
    }

    /// How many bytes of the body are JSON, if that is said.
    pub(crate) fn header_length(&self) -> Result<Option<usize>> {
        match self.text(HEADER_LENGTH) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Error::internal(format!("the server's {HEADER_LENGTH} is {text:.40?}, which is no length"))
            }),
        }
    }

    /// When trying again makes sense; 0: not said.
    pub(crate) fn retry_after_ms(&self) -> u32 {
        let seconds = self.text(RETRY_AFTER.as_str()).parse::<u32>();
        seconds.map_or(0, |seconds| seconds.saturating_mul(1000))
    }
}

/// Connections to one address.
pub(crate) struct Pool {
    address: Address,
    trust: Arc<Trust>,
    headers: HeaderMap,
    prefix: String,
    limit: usize,
    idle: Mutex<Vec<SendRequest<Outgoing>>>,
}

impl Pool {
    pub(crate) fn new(
        address: Address,
        trust: Arc<Trust>,
        token: Option<HeaderValue>,
        limit: usize,
    ) -> Result<Self> {
        let mut headers = HeaderMap::new();
        let host = HeaderValue::from_str(&address.authority())
            .map_err(|_| Error::invalid(format!("the address {address} has a host that cannot be said")))?;
        headers.insert(HOST, host);
        headers.insert(http::header::USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
        if let Some(token) = token {
            headers.insert(http::header::AUTHORIZATION, token);
        }
        let prefix = match &address {
            Address::Tcp { prefix, .. } => prefix.clone(),
            Address::Unix { .. } => String::new(),
        };
        Ok(Self { address, trust, headers, prefix, limit, idle: Mutex::default() })
    }

    /// Ask and receive the whole answer.
    pub(crate) async fn exchange(self: &Arc<Self>, asked: Asked, deadline: Deadline) -> Result<Answer> {
        let whole = async {
            let (head, mut body) = self.begin(asked, deadline).await?;
            let body = body.whole(self.limit).await?;
            Ok(Answer { head, body })
        };
        deadline.limit(whole, || format!("no answer came from {} in time", self.address)).await
    }

    /// Ask and receive the beginning of the answer. Nothing is ever sent twice: only if a kept connection turned
    /// out to be closed before anything was written to it, another is taken.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        asked: Asked,
        deadline: Deadline,
    ) -> Result<(Head, ReceivedBody)> {
        let mut request = self.request(asked)?;
        loop {
            let (mut sender, is_new) = match self.idle_one() {
                Some(sender) => (sender, false),
                None => (self.open(deadline).await?, true),
            };
            if sender.ready().await.is_err() && !is_new {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let head = Head { status: head.status, headers: head.headers };
                    return Ok((head, ReceivedBody::new(body, sender, Arc::clone(self))));
                }
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if !is_new => request = unsent,
                    unsent => {
                        let error = self.broken(failed.into_error());
                        return Err(if unsent.is_some() { error.unsent() } else { error });
                    }
                },
            }
        }
    }

    fn request(&self, asked: Asked) -> Result<Request<Outgoing>> {
        let path = format!("{}{}", self.prefix, asked.path);
        let uri =
            path.parse().map_err(|_| Error::invalid(format!("the path {path:.200} cannot be asked for")))?;
        let mut request = Request::new(asked.body);
        *request.method_mut() = asked.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        for (name, value) in asked.headers {
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    fn idle_one(&self) -> Option<SendRequest<Outgoing>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn give_back(&self, sender: SendRequest<Outgoing>) {
        if !sender.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
    }

    async fn open(&self, deadline: Deadline) -> Result<SendRequest<Outgoing>> {
        let socket = connect(&self.address, &self.trust, b"http/1.1", deadline).await?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (sender, connection) = handshake.map_err(|error| self.broken(error).unsent())?;
        // It ends with its sender; its errors reach the request.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn broken(&self, error: hyper::Error) -> Error {
        let (address, why) = (&self.address, reasons(&error));
        if error.is_parse() {
            return Error::internal(format!("{address} does not speak HTTP/1.1: {why}")).caused_by(error);
        }
        Error::unavailable(format!("the connection to {address} broke: {why}")).caused_by(error)
    }
}

/// The body of an answer while it is received, and the connection to give back when all of it is here. Dropped
/// before, the connection is closed, which cancels the request.
pub(crate) struct ReceivedBody {
    body: Incoming,
    sender: Option<SendRequest<Outgoing>>,
    pool: Arc<Pool>,
}

impl ReceivedBody {
    fn new(body: Incoming, sender: SendRequest<Outgoing>, pool: Arc<Pool>) -> Self {
        Self { body, sender: Some(sender), pool }
    }

    /// The next piece; `None` at the end.
    pub(crate) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            match ready!(std::pin::Pin::new(&mut self.body).poll_frame(context)) {
                None => {
                    if let Some(sender) = self.sender.take() {
                        self.pool.give_back(sender);
                    }
                    return Poll::Ready(None);
                }
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Poll::Ready(Some(Ok(piece)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.pool.broken(error)))),
            }
        }
    }

    /// All of it, in one piece that is aligned.
    pub(crate) async fn whole(&mut self, limit: usize) -> Result<Bytes> {
        let too_long = |nbytes: u64| {
            let message = format!("the answer has at least {nbytes} bytes, this client takes {limit}");
            Error::new(Code::ResourceExhausted, message)
        };
        let announced = self.body.size_hint().lower();
        let Some(room) = usize::try_from(announced).ok().filter(|&room| room <= limit) else {
            return Err(too_long(announced));
        };
        // Growing beyond costs a copy now and then; a lie about the length costs no more than this.
        let mut whole = BytesMut::with_capacity(room.min(MOST_FORESEEN_BYTES));
        while let Some(piece) = std::future::poll_fn(|context| self.poll_piece(context)).await {
            let piece = piece?;
            if whole.len() + piece.len() > limit {
                return Err(too_long((whole.len() + piece.len()) as u64));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

/// The headers of a body.
pub(crate) fn content(media_type: &'static str) -> Vec<(HeaderName, HeaderValue)> {
    vec![(CONTENT_TYPE, HeaderValue::from_static(media_type))]
}
