//! Bodies that are written while the responses in them are made.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use kingpole_values::{Error, InferResponse, Result};
use kingpole_wire::Scatter;

use crate::budget::Account;
use crate::respond::Responses;

/// How responses, and an error that comes after one of them, look in a body.
pub(crate) trait Form {
    /// What is written of a response, the end included; maybe nothing.
    fn response(&self, response: &InferResponse) -> Result<Scatter>;

    /// What is written of an error.
    fn error(&self, error: &Error) -> Scatter;
}

/// The body of a response whose length nobody knows yet. Dropping it cancels the request.
pub(crate) struct Streamed {
    responses: Responses,
    form: Box<dyn Form>,
    memory: Arc<Account>,
    pieces: VecDeque<Bytes>,
    ended: bool,
}

impl Streamed {
    /// A body that begins with the first response, once that is there.
    ///
    /// # Errors
    /// Whatever comes instead of a first response, so that it can be said by the status.
    pub(crate) async fn open(
        mut responses: Responses,
        form: impl Form + 'static,
        memory: &Arc<Account>,
    ) -> Result<Self> {
        let first = responses.next().await;
        let first = first.unwrap_or_else(|| Err(Error::internal("the request was dropped unanswered")))?;
        let mut streamed = Self {
            responses,
            form: Box::new(form),
            memory: Arc::clone(memory),
            pieces: VecDeque::new(),
            ended: false,
        };
        streamed.write(&first)?;
        Ok(streamed)
    }

    fn write(&mut self, response: &InferResponse) -> Result<()> {
        let mut written = self.form.response(response)?;
        self.memory.hold_answer(written.chunks_mut())?;
        self.pieces.extend(written.into_chunks());
        Ok(())
    }

    /// The next piece, never empty; `None` at the end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                if piece.is_empty() {
                    continue;
                }
                return Poll::Ready(Some(piece));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let Some(next) = ready!(self.responses.poll_next(cx)) else {
                self.ended = true;
                continue;
            };
            if let Err(error) = next.and_then(|response| self.write(&response)) {
                self.ended = true;
                self.pieces.extend(self.form.error(&error).into_chunks());
            }
        }
    }
}
