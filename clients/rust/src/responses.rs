//! A request that is answered by any number of responses. Each has a connection or call of its own, so that
//! whoever takes responses slowly holds up nothing but the model that makes them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use kingpole_values::InferResponse;
use kingpole_wire::frame::FrameReader;
use tokio::time::{Sleep, sleep_until};

use crate::answer::{judge, next_response, read};
use crate::clock::Deadline;
use crate::frames::FrameSource;
use crate::grpc::GrpcSource;
use crate::web::WebSource;
use crate::{Error, Result};

/// How long the end of an answer may take after its last response, for its connection to be used again.
const ENDING: Duration = Duration::from_secs(1);

/// Where the frames of one answer come from.
pub(crate) enum Source {
    Frames(FrameSource),
    Grpc(GrpcSource),
    Web(WebSource),
}

impl Source {
    fn poll_more(&mut self, context: &mut Context<'_>, reader: &mut FrameReader) -> Poll<Result<bool>> {
        match self {
            Self::Frames(source) => source.poll_more(context, reader),
            Self::Grpc(source) => source.poll_more(context, reader),
            Self::Web(source) => source.poll_more(context, reader),
        }
    }
}

/// The responses to one request, as they come. Dropping it before the last one cancels the request.
///
/// It is a [`Stream`]; [`next`](Self::next) takes one response without the help of another crate. An error ends
/// it; the responses before it stay good, and nothing is ever given twice.
pub struct Responses {
    source: Option<Source>,
    reader: FrameReader,
    deadline: Option<Pin<Box<Sleep>>>,
    last: bool,
}

impl Responses {
    pub(crate) fn new(source: Source, reader: FrameReader, deadline: Deadline) -> Self {
        let deadline = deadline.instant().map(|instant| Box::pin(sleep_until(instant)));
        Self { source: Some(source), reader, deadline, last: false }
    }

    /// The next response; `None` after the last one, or after an error.
    pub async fn next(&mut self) -> Option<Result<InferResponse>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<InferResponse>>> {
        loop {
            if self.last {
                return Poll::Ready(Ok(None));
            }
            if let Some(frame) = self.reader.next_frame_bytes().map_err(Error::unreadable)? {
                let (response, last) = next_response(judge(read(&frame).1?, None)?)?;
                self.last = last;
                if response.is_some() {
                    return Poll::Ready(Ok(response));
                }
                continue;
            }
            let Some(source) = &mut self.source else { return Poll::Ready(Ok(None)) };
            match source.poll_more(context, &mut self.reader) {
                Poll::Ready(more) => {
                    if !more? {
                        let message = "the server ended its answer before the last response";
                        return Poll::Ready(Err(Error::unavailable(message)));
                    }
                }
                Poll::Pending => {
                    if let Some(deadline) = &mut self.deadline {
                        ready!(deadline.as_mut().poll(context));
                        return Poll::Ready(Err(Error::late("no answer came in time")));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Let the answer end, so that its connection can be used again.
    fn finish(&mut self) {
        let Some(mut source) = self.source.take() else { return };
        if !matches!(source, Source::Web(_)) {
            return;
        }
        let mut reader = std::mem::replace(&mut self.reader, FrameReader::new(0));
        tokio::spawn(async move {
            let end = std::future::poll_fn(|context| source.poll_more(context, &mut reader));
            let _ = tokio::time::timeout(ENDING, end).await;
        });
    }
}

impl Stream for Responses {
    type Item = Result<InferResponse>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.source.is_none() {
            return Poll::Ready(None);
        }
        let response = ready!(self.poll_response(context));
        match &response {
            Ok(Some(_)) => {}
            Ok(None) => self.finish(),
            Err(_) => self.source = None,
        }
        Poll::Ready(response.transpose())
    }
}

impl fmt::Debug for Responses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Responses").field("ended", &self.source.is_none()).finish_non_exhaustive()
    }
}
