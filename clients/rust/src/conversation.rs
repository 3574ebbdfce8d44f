//! One stream of frames on which many requests are open: who asks, who waits, who gave up. Knows neither sockets
//! nor gRPC: two tasks that others start move the bytes.

use std::sync::Arc;

use kingpole_values::Code;
use kingpole_wire::Scatter;
use kingpole_wire::frame::{
    Message, encode_cancel, encode_hand_over, encode_request, encode_request_in_place,
};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::answer::{check_frame, unexpected};
use crate::arena::Arena;
use crate::clock::Deadline;
use crate::exchanges::{Answer, Exchanges};
use crate::{Error, Request, Result};

/// Frames to be written, in order.
pub(crate) type Outbox = mpsc::UnboundedReceiver<Scatter>;

/// A stream of frames. It ends when the last who holds it lets go.
pub(crate) struct Conversation {
    exchanges: Arc<Exchanges>,
    outbox: mpsc::UnboundedSender<Scatter>,
    reader: Option<AbortHandle>,
    arena: Option<Arc<Arena>>,
}

/// The two ends that are moved by tasks: what is received goes to the exchanges, what is to be sent comes from
/// the outbox.
pub(crate) struct Ends {
    pub(crate) exchanges: Arc<Exchanges>,
    pub(crate) outbox: Outbox,
    /// To say that an exchange is not wanted any more.
    pub(crate) cancel: mpsc::WeakUnboundedSender<Scatter>,
}

impl Conversation {
    /// A conversation, and its ends.
    pub(crate) fn new() -> (Self, Ends) {
        let exchanges = Exchanges::new();
        let (sender, outbox) = mpsc::unbounded_channel();
        let cancel = sender.downgrade();
        let ends = Ends { exchanges: Arc::clone(&exchanges), outbox, cancel };
        (Self { exchanges, outbox: sender, reader: None, arena: None }, ends)
    }

    /// The task that receives, to be ended with the conversation.
    pub(crate) fn read_by(&mut self, reader: AbortHandle) {
        self.reader = Some(reader);
    }

    /// The memory that the server was given.
    pub(crate) fn share(&mut self, arena: Arc<Arena>) {
        self.arena = Some(arena);
    }

    pub(crate) fn arena(&self) -> Option<&Arc<Arena>> {
        self.arena.as_ref()
    }

    /// Whether more can be asked here.
    pub(crate) fn is_usable(&self) -> bool {
        self.exchanges.is_usable()
    }

    /// Whether nobody may be there any more.
    pub(crate) fn is_doubted(&self) -> bool {
        self.exchanges.is_doubted()
    }

    /// Ask for an inference and wait for its answer. Dropping the future cancels the request.
    pub(crate) async fn infer(&self, request: &Request, deadline: Deadline) -> Result<Message> {
        let late = || "the server answered none of the requests before this one in time".to_owned();
        let credit = deadline.limit(self.exchanges.await_credit(), late).await;
        credit.map_err(|error| self.doubt(error).unsent())?;
        let (exchange, answer) =
            self.exchanges.begin(true).inspect_err(|_| self.exchanges.return_credit())?;
        let frame = match &self.arena {
            None => encode_request(&request.infer, &[], exchange),
            Some(arena) => {
                let (infer, placement) = arena.place(&request.infer);
                let places: Vec<_> = placement.places().collect();
                let frame = encode_request_in_place(&infer, placement.inputs(), &places, exchange);
                self.exchanges.place(exchange, placement);
                frame
            }
        };
        let frame = check_frame(frame).inspect_err(|_| self.exchanges.withdraw(exchange))?;
        self.send(frame);
        let late = || "no answer came in time".to_owned();
        deadline.limit(self.wait(exchange, answer), late).await.map_err(|error| self.doubt(error))
    }

    /// Ask something else and wait for its answer.
    pub(crate) async fn ask(
        &self,
        encode: impl FnOnce(u64) -> Scatter,
        deadline: Deadline,
    ) -> Result<Message> {
        let (exchange, answer) = self.exchanges.begin(false)?;
        let frame = check_frame(encode(exchange)).inspect_err(|_| self.exchanges.withdraw(exchange))?;
        self.send(frame);
        let late = || "no answer came in time".to_owned();
        deadline.limit(self.wait(exchange, answer), late).await.map_err(|error| self.doubt(error))
    }

    /// Say that an arena of so many bytes comes with the bytes that are given to `send`; wait until it is taken.
    pub(crate) async fn hand_over<F: Future<Output = Result<()>>>(
        &self,
        arena: u32,
        nbytes: u64,
        deadline: Deadline,
        send: impl FnOnce(Scatter) -> F,
    ) -> Result<()> {
        let (exchange, answer) = self.exchanges.begin(false)?;
        send(encode_hand_over(arena, nbytes, exchange)).await?;
        let late = || "the server did not take the shared memory in time".to_owned();
        match deadline.limit(self.wait(exchange, answer), late).await? {
            Message::Done => Ok(()),
            other => Err(unexpected(&other, "that it is done")),
        }
    }

    fn doubt(&self, error: Error) -> Error {
        if error.code() == Code::DeadlineExceeded {
            self.exchanges.doubt();
        }
        error
    }

    async fn wait(&self, exchange: u64, answer: Answer) -> Result<Message> {
        let _guard = Waiting { conversation: self, exchange };
        // Without an answer the sender is only dropped for a request that the server thinks was cancelled.
        answer.await.unwrap_or_else(|_| Err(Error::internal("the server gave no answer to a request")))
    }

    fn send(&self, frame: Scatter) {
        // If nobody takes it, the stream has failed, and so has the exchange.
        let _ = self.outbox.send(frame);
    }
}

/// Gives the exchange up when it is dropped before its answer.
struct Waiting<'a> {
    conversation: &'a Conversation,
    exchange: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.conversation.exchanges.give_up(self.exchange) {
            self.conversation.send(encode_cancel(self.exchange));
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.exchanges.fail(&Error::cancelled("the client was closed"));
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

/// Everything that is to be sent now: what waits, and what came meanwhile, up to so many bytes.
pub(crate) async fn next_to_send(outbox: &mut Outbox) -> Option<crate::outgoing::Outgoing> {
    use bytes::Buf;
    /// Enough for one system call; more would only make a big tensor wait behind another.
    const MOST_JOINED_BYTES: usize = 256 * 1024;

    let mut outgoing = crate::outgoing::Outgoing::from(outbox.recv().await?);
    while outgoing.remaining() < MOST_JOINED_BYTES {
        let Ok(more) = outbox.try_recv() else { break };
        outgoing.append(more);
    }
    Some(outgoing)
}
