//! A client for programs without a runtime: it brings one of one thread, and its calls block.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use kingpole_values::{Code, InferResponse};
use kingpole_wire::frame::{Metadata, ServerInfo};
use tokio::runtime::{Builder, Runtime};

use crate::{ClientBuilder, Error, Request, Result};

/// A [`Client`](crate::Client) whose calls block. Not for use within a runtime, where blocking panics.
///
/// ```no_run
/// # fn main() -> kingpole_client::Result<()> {
/// use kingpole_client::{Request, Tensor, blocking};
///
/// let client = blocking::Client::new("http://localhost:8000")?;
/// let x = Tensor::new("x", &[1, 4], vec![0.0f32; 4])?;
/// println!("{:?}", client.infer(Request::new("m").input(x))?.outputs);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    client: crate::Client,
    runtime: Arc<Runtime>,
}

impl Client {
    /// As [`Client::new`](crate::Client::new).
    ///
    /// # Errors
    /// As there, or `UNAVAILABLE` if there can be no thread.
    pub fn new(url: &str) -> Result<Self> {
        Self::build(crate::Client::builder(url))
    }

    /// A client with everything chosen.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`], or `UNAVAILABLE` if there can be no thread.
    pub fn build(builder: ClientBuilder) -> Result<Self> {
        let client = builder.build()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kingpole-client")
            .enable_all()
            .build()
            .map_err(|error| Error::new(Code::Unavailable, format!("no thread for the client: {error}")))?;
        Ok(Self { client, runtime: Arc::new(runtime) })
    }

    /// As [`Client::infer`](crate::Client::infer).
    ///
    /// # Errors
    /// As there.
    pub fn infer(&self, request: Request) -> Result<InferResponse> {
        self.runtime.block_on(self.client.infer(request))
    }

    /// As [`Client::infer_many`](crate::Client::infer_many).
    pub fn infer_many<I>(&self, requests: I, in_flight: usize) -> Responses
    where
        I: IntoIterator<Item = Request> + 'static,
        I::IntoIter: Send,
    {
        let responses = self.client.infer_many(requests, in_flight).boxed();
        Responses { responses, runtime: Arc::clone(&self.runtime) }
    }

    /// As [`Client::stream`](crate::Client::stream).
    ///
    /// # Errors
    /// As there.
    pub fn stream(&self, request: Request) -> Result<Responses> {
        let responses = self.runtime.block_on(self.client.stream(request))?.boxed();
        Ok(Responses { responses, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`Client::live`](crate::Client::live).
    ///
    /// # Errors
    /// As there.
    pub fn live(&self) -> Result<bool> {
        self.runtime.block_on(self.client.live())
    }

    /// As [`Client::ready`](crate::Client::ready).
    ///
    /// # Errors
    /// As there.
    pub fn ready(&self) -> Result<bool> {
        self.runtime.block_on(self.client.ready())
    }

    /// As [`Client::model_ready`](crate::Client::model_ready).
    ///
    /// # Errors
    /// As there.
    pub fn model_ready(&self, model: &str, version: Option<&str>) -> Result<bool> {
        self.runtime.block_on(self.client.model_ready(model, version))
    }

    /// As [`Client::server_info`](crate::Client::server_info).
    ///
    /// # Errors
    /// As there.
    pub fn server_info(&self) -> Result<ServerInfo> {
        self.runtime.block_on(self.client.server_info())
    }

    /// As [`Client::metadata`](crate::Client::metadata).
    ///
    /// # Errors
    /// As there.
    pub fn metadata(&self, model: &str, version: Option<&str>) -> Result<Metadata> {
        self.runtime.block_on(self.client.metadata(model, version))
    }
}

/// Responses, one after another; dropping it cancels what is not answered yet.
pub struct Responses {
    responses: BoxStream<'static, Result<InferResponse>>,
    runtime: Arc<Runtime>,
}

impl Iterator for Responses {
    type Item = Result<InferResponse>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.responses.next())
    }
}

impl std::fmt::Debug for Responses {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Responses").finish_non_exhaustive()
    }
}
