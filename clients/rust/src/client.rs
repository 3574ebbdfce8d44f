//! The client: what can be asked, over whichever transport.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use kingpole_values::{Code, InferResponse};
use kingpole_wire::frame::{
    Message, Metadata, ModelName, ServerInfo, encode_metadata_request, encode_ready_request,
    encode_server_info_request,
};

use crate::address::Address;
use crate::answer::{one_response, unexpected};
use crate::builder::ClientBuilder;
use crate::clock::Deadline;
use crate::line::Line;
use crate::responses::{Responses, Source};
use crate::web::Web;
use crate::{Error, Request, Result};

/// How long to wait before the first try again of what could not be sent.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A client of one server. Cheap to clone; all clones share its connections, and may be used from any task.
///
/// Nothing is sent twice, unless [`ClientBuilder::retries`] says so: a request whose connection breaks fails with
/// `UNAVAILABLE`, and it is the caller who knows whether to ask again. The one exception is the first request over
/// HTTP to a server that knows no frames: it refused that one unread, and is asked again in Open Inference.
///
/// Dropping a future cancels what it asked for; the server is told. Connections are closed when the last clone is
/// dropped.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) address: Address,
    pub(crate) transport: Transport,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) limit: usize,
}

pub(crate) enum Transport {
    Web(Web),
    Line(Box<Line>),
}

impl Client {
    /// A client of the server at this address, with everything as it is by default. Connects when it is first
    /// asked something.
    ///
    /// | URL | travels as |
    /// | --- | --- |
    /// | `http://host:port`, `https://` | one frame per POST; Open Inference where no frames are known |
    /// | `grpc://host:port`, `grpcs://` | one stream, many requests in flight |
    /// | `frame://host:port` | frames straight over TCP, many in flight |
    /// | `unix:/path` | the same over a Unix socket |
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the address is none of these.
    pub fn new(url: &str) -> Result<Self> {
        Self::builder(url).build()
    }

    /// The same, with a choice of everything else.
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder::new(url)
    }

    pub(crate) fn of(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Ask for an inference and wait for its answer.
    ///
    /// ```no_run
    /// # async fn example() -> kingpole_client::Result<()> {
    /// use kingpole_client::{Client, Request, Tensor};
    ///
    /// let client = Client::new("grpc://localhost:8000")?;
    /// let x = Tensor::new("x", &[2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?;
    /// let response = client.infer(Request::new("m").input(x)).await?;
    /// if let Some(y) = response.output("y") {
    ///     println!("{:?} {:?}", y.shape, y.elements::<f32>()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The server's, or what kept the client from reaching it.
    pub async fn infer(&self, request: Request) -> Result<InferResponse> {
        let request = self.prepared(request)?;
        let deadline = Deadline::of_timeout(request.infer.timeout_us);
        let mut pause = FIRST_PAUSE;
        for left in (0..=self.0.retries).rev() {
            let error = match self.infer_once(&request, deadline).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let wait = match error.code() {
                Code::ResourceExhausted => error.retry_after(),
                Code::Unavailable if error.is_unsent() => Some(pause),
                _ => None,
            };
            match wait {
                Some(wait) if left > 0 && deadline.allows(wait) => tokio::time::sleep(wait).await,
                _ => return Err(error),
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        unreachable!("the last try returns")
    }

    fn prepared(&self, mut request: Request) -> Result<Request> {
        if let (None, Some(timeout)) = (request.infer.timeout_us, self.0.timeout) {
            request = request.timeout(timeout);
        }
        request.check()?;
        Ok(request)
    }

    async fn infer_once(&self, request: &Request, deadline: Deadline) -> Result<InferResponse> {
        match &self.0.transport {
            Transport::Web(web) => web.infer(request, deadline).await,
            Transport::Line(line) => {
                one_response(line.conversation(deadline).await?.infer(request, deadline).await?)
            }
        }
    }

    /// Ask for many inferences, up to `in_flight` at a time; the responses come in the order of the requests, which
    /// are read as responses are taken.
    ///
    /// ```no_run
    /// # async fn example(pictures: Vec<kingpole_client::Tensor>) -> kingpole_client::Result<()> {
    /// use futures_util::{StreamExt, pin_mut};
    /// use kingpole_client::{Client, Request};
    ///
    /// let client = Client::new("unix:/run/kingpole")?;
    /// let requests = pictures.into_iter().map(|picture| Request::new("m").input(picture));
    /// let responses = client.infer_many(requests, 64);
    /// pin_mut!(responses);
    /// while let Some(response) = responses.next().await {
    ///     println!("{:?}", response?.outputs);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn infer_many<I>(
        &self,
        requests: I,
        in_flight: usize,
    ) -> impl Stream<Item = Result<InferResponse>> + Send + use<I>
    where
        I: IntoIterator<Item = Request>,
        I::IntoIter: Send,
    {
        let client = self.clone();
        let infer = move |request| {
            let client = client.clone();
            async move { client.infer(request).await }
        };
        futures_util::stream::iter(requests).map(infer).buffered(in_flight.max(1))
    }

    /// Ask for an inference that may be answered by any number of responses; they come as they are made.
    ///
    /// The request is on its way when this returns, over a connection or call of its own: responses that are not
    /// taken hold up the model that makes them, and nothing else. Dropping the stream tells the model to make no
    /// more.
    ///
    /// ```no_run
    /// # async fn example(prompt: kingpole_client::Tensor) -> kingpole_client::Result<()> {
    /// use kingpole_client::{Client, Request};
    ///
    /// let client = Client::new("http://localhost:8000")?;
    /// let mut responses = client.stream(Request::new("tokens").input(prompt)).await?;
    /// while let Some(response) = responses.next().await {
    ///     println!("{:?}", response?.outputs);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As those of [`infer`](Self::infer), here or in place of a response.
    pub async fn stream(&self, request: Request) -> Result<Responses> {
        let request = self.prepared(request)?;
        let deadline = Deadline::of_timeout(request.infer.timeout_us);
        let (source, reader) = match &self.0.transport {
            Transport::Web(web) => {
                let (source, reader) = web.stream(&request, deadline, self.0.limit).await?;
                (Source::Web(source), reader)
            }
            Transport::Line(line) => line.stream(&request, deadline).await?,
        };
        Ok(Responses::new(source, reader, deadline))
    }

    /// Whether the server answers at all.
    ///
    /// # Errors
    /// What it answered instead of yes or no.
    pub async fn live(&self) -> Result<bool> {
        let answer = match &self.0.transport {
            Transport::Web(web) => web.live(Deadline::of_question()).await,
            Transport::Line(_) => self.server_info().await.map(|_| true),
        };
        unless_unavailable(answer)
    }

    /// Whether the server is ready: every model that it should have is.
    ///
    /// # Errors
    /// What the server refused to say.
    pub async fn ready(&self) -> Result<bool> {
        unless_unavailable(match &self.0.transport {
            Transport::Web(web) => web.ready(None, Deadline::of_question()).await,
            Transport::Line(_) => self.ask_ready(ModelName::default()).await,
        })
    }

    /// Whether a model is ready, or without a version any version of it. One that is not known is not.
    ///
    /// # Errors
    /// What the server refused to say.
    pub async fn model_ready(&self, model: &str, version: Option<&str>) -> Result<bool> {
        let answer = unless_unavailable(match &self.0.transport {
            Transport::Web(web) => web.ready(Some((model, version)), Deadline::of_question()).await,
            Transport::Line(_) => self.ask_ready(model_name(model, version)).await,
        });
        match answer {
            Err(error) if error.code() == Code::NotFound => Ok(false),
            other => other,
        }
    }

    async fn ask_ready(&self, name: ModelName) -> Result<bool> {
        match self.ask(|exchange| encode_ready_request(&name, exchange)).await? {
            Message::Ready(ready) => Ok(ready),
            other => Err(unexpected(&other, "readiness")),
        }
    }

    /// Who the server is.
    ///
    /// # Errors
    /// The server's, or what kept the client from reaching it.
    pub async fn server_info(&self) -> Result<ServerInfo> {
        match &self.0.transport {
            Transport::Web(web) => web.server_info(Deadline::of_question()).await,
            Transport::Line(_) => match self.ask(encode_server_info_request).await? {
                Message::ServerInfo(info) => Ok(info),
                other => Err(unexpected(&other, "who it is")),
            },
        }
    }

    /// What a model takes and gives; without a version, the latest ready one.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such model or version.
    pub async fn metadata(&self, model: &str, version: Option<&str>) -> Result<Metadata> {
        match &self.0.transport {
            Transport::Web(web) => web.metadata(model, version, Deadline::of_question()).await,
            Transport::Line(_) => {
                let name = model_name(model, version);
                match self.ask(|exchange| encode_metadata_request(&name, exchange)).await? {
                    Message::Metadata(metadata) => Ok(metadata),
                    other => Err(unexpected(&other, "metadata")),
                }
            }
        }
    }

    async fn ask(&self, encode: impl FnOnce(u64) -> kingpole_wire::Scatter) -> Result<Message> {
        let Transport::Line(line) = &self.0.transport else {
            return Err(Error::internal("asked in frames over HTTP"));
        };
        let deadline = Deadline::of_question();
        line.conversation(deadline).await?.ask(encode, deadline).await
    }

    /// Room in the memory that is shared with the server, for an input that is not copied when it is sent.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the client was made without [`ClientBuilder::shared_memory`], `RESOURCE_EXHAUSTED` if
    /// there is no room.
    #[cfg(target_os = "linux")]
    pub async fn shared_buffer(&self, nbytes: usize) -> Result<crate::SharedBuffer> {
        let arena = match &self.0.transport {
            Transport::Web(_) => None,
            Transport::Line(line) => line.conversation(Deadline::of_question()).await?.arena().cloned(),
        };
        let Some(arena) = arena else {
            return Err(Error::invalid("this client shares no memory: say so when it is built"));
        };
        arena.take(nbytes).map(crate::SharedBuffer::new).ok_or_else(|| {
            let message = format!("no room for {nbytes} bytes in {} of shared memory", arena.nbytes());
            Error::new(Code::ResourceExhausted, message)
        })
    }
}

fn model_name(model: &str, version: Option<&str>) -> ModelName {
    ModelName { model: model.into(), version: version.map(Into::into) }
}

fn unless_unavailable(answer: Result<bool>) -> Result<bool> {
    match answer {
        Err(error) if error.code() == Code::Unavailable => Ok(false),
        other => other,
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Client({})", self.0.address)
    }
}
