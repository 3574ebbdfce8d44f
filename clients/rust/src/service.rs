//! The client as a `tower::Service`, so that layers written for any service fit around it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use kingpole_values::InferResponse;
use tower_service::Service;

use crate::{Client, Error, Request, Result};

impl Service<Request> for Client {
    type Response = InferResponse;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<InferResponse>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        // How much the server takes is seen by each request, which waits for it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.infer(request).await })
    }
}
