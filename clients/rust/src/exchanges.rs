//! The exchanges of one stream of frames, by number. Knows no socket.
//!
//! Every exchange begun is answered exactly once: by its frame, by the end of the stream, or by being given up.
//! No more requests are open than the server has granted: one, and what its Credit messages say. A request that
//! was given up counts until the server has done with it, and its shared memory stays as it is until then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kingpole_wire::frame::Message;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::answer::{self, goes_on};
use crate::arena::Placement;
use crate::{Error, Result};

/// No stream has more requests open; what is granted beyond is not counted.
const MOST_OPEN: usize = 1 << 16;
/// A stream on which a request was not answered in time, and nothing else came for so long, is asked no more.
const SILENT: Duration = Duration::from_secs(5);

/// The answer that will come.
pub(crate) type Answer = oneshot::Receiver<Result<Message>>;

/// The exchanges of one stream.
pub(crate) struct Exchanges {
    credit: Semaphore,
    state: Mutex<State>,
}

struct State {
    open: HashMap<u64, Open>,
    last: u64,
    failure: Option<Error>,
    draining: bool,
    doubted: bool,
    /// When the last frame came.
    heard: Instant,
}

struct Open {
    /// Whoever waits; `None` once it was given up.
    waiting: Option<oneshot::Sender<Result<Message>>>,
    /// Whether its last answer gives a credit back.
    is_request: bool,
    /// Where its tensors are in shared memory.
    placement: Option<Placement>,
}

impl Exchanges {
    pub(crate) fn new() -> Arc<Self> {
        let (open, heard) = (HashMap::new(), Instant::now());
        let state = State { open, last: 0, failure: None, draining: false, doubted: false, heard };
        Arc::new(Self { credit: Semaphore::new(1), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait until the server allows one more request.
    pub(crate) async fn await_credit(&self) -> Result<()> {
        match self.credit.acquire().await {
            Ok(permit) => {
                permit.forget();
                Ok(())
            }
            Err(_) => Err(self.failure().unsent()),
        }
    }

    /// Give back what `await_credit` took, for a request that was not begun.
    pub(crate) fn return_credit(&self) {
        self.grant(1);
    }

    fn grant(&self, requests: usize) {
        let room = MOST_OPEN.saturating_sub(self.credit.available_permits());
        self.credit.add_permits(requests.min(room));
    }

    /// Take the next number. A request must have its credit.
    pub(crate) fn begin(&self, is_request: bool) -> Result<(u64, Answer)> {
        let mut state = self.state();
        if let Some(failure) = &state.failure {
            return Err(failure.clone().unsent());
        }
        state.last += 1;
        let exchange = state.last;
        let (sender, receiver) = oneshot::channel();
        state.open.insert(exchange, Open { waiting: Some(sender), is_request, placement: None });
        Ok((exchange, receiver))
    }

    /// Keep where a request's tensors are until the server does not use them any more.
    pub(crate) fn place(&self, exchange: u64, placement: Placement) {
        if let Some(open) = self.state().open.get_mut(&exchange) {
            open.placement = Some(placement);
        }
    }

    /// Forget an exchange that the server was not told of.
    pub(crate) fn withdraw(&self, exchange: u64) {
        let open = self.state().open.remove(&exchange);
        if open.is_some_and(|open| open.is_request) {
            self.grant(1);
        }
    }

    /// Wait no more; whether there is a request left that the server should be told of.
    pub(crate) fn give_up(&self, exchange: u64) -> bool {
        let mut state = self.state();
        let Some(open) = state.open.get_mut(&exchange) else { return false };
        let was_waiting = open.waiting.take().is_some();
        was_waiting && open.is_request
    }

    /// Hand a received frame to whom it belongs; gives an exchange to cancel, if there is one.
    ///
    /// # Errors
    /// The frame makes no sense and belongs to nobody: the stream cannot go on.
    pub(crate) fn answer(&self, bytes: &Bytes) -> Result<Option<u64>> {
        self.state().heard = Instant::now();
        let (exchange, message) = answer::read(bytes);
        let Some(exchange) = exchange else { return message.map(|_| None) };
        if let Ok(Message::Credit { requests }) = message {
            self.grant(usize::try_from(requests).unwrap_or(MOST_OPEN));
            // In place of the answer to a request that was given up; what it granted is that request's credit.
            self.state().open.remove(&exchange);
            return Ok(None);
        }
        if exchange == 0 {
            // No request has this number: the server means the stream as a whole.
            return match message.and_then(|message| answer::judge(message, None)) {
                Ok(Message::Ready(false)) => {
                    self.state().draining = true;
                    Ok(None)
                }
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            };
        }
        Ok(self.resolve(exchange, message))
    }

    fn resolve(&self, exchange: u64, message: Result<Message>) -> Option<u64> {
        let mut state = self.state();
        let open = state.open.get_mut(&exchange)?;
        let message = message.and_then(|message| answer::judge(message, open.placement.as_ref()));
        let more = goes_on(&message);
        let waiting = open.waiting.take();
        let ended = if more { None } else { state.open.remove(&exchange) };
        drop(state);
        if let Some(ended) = ended {
            if let Some(placement) = &ended.placement {
                placement.learn(message.as_ref().ok());
            }
            if ended.is_request {
                self.grant(1);
            }
        }
        // Whoever waits may be gone already.
        let unwanted = more && waiting.is_some();
        if let Some(waiting) = waiting {
            let _ = waiting.send(message);
        }
        unwanted.then_some(exchange)
    }

    /// End the stream: everything that waits, and everything later, fails with `error`.
    pub(crate) fn fail(&self, error: &Error) {
        let open = {
            let mut state = self.state();
            if state.failure.is_some() {
                return;
            }
            state.failure = Some(error.clone());
            std::mem::take(&mut state.open)
        };
        self.credit.close();
        for waiting in open.into_values().filter_map(|open| open.waiting) {
            let _ = waiting.send(Err(error.clone()));
        }
    }

    /// Why the stream has ended.
    pub(crate) fn failure(&self) -> Error {
        self.state().failure.clone().unwrap_or_else(|| Error::cancelled("the client was closed"))
    }

    /// Whether more can be asked here.
    pub(crate) fn is_usable(&self) -> bool {
        let state = self.state();
        state.failure.is_none() && !state.draining && !state.doubted
    }

    /// A request was not answered in time, not even with that: if all is silent, nobody may be there any more.
    pub(crate) fn doubt(&self) {
        let mut state = self.state();
        state.doubted |= state.heard.elapsed() >= SILENT;
    }

    /// Whether it is for its silence that nothing more is asked here.
    pub(crate) fn is_doubted(&self) -> bool {
        self.state().doubted
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use kingpole_values::{Code, InferResponse, Stage};
    use kingpole_wire::Scatter;
    use kingpole_wire::frame::{
        encode_cancelled, encode_credit, encode_error, encode_ready, encode_response,
    };

    use super::*;

    fn answer(exchanges: &Exchanges, scatter: Scatter) -> Result<Option<u64>> {
        exchanges.answer(&scatter.into_bytes())
    }

    fn ask(exchanges: &Exchanges) -> Option<(u64, Answer)> {
        exchanges.await_credit().now_or_never()?.unwrap();
        Some(exchanges.begin(true).unwrap())
    }

    fn response(stage: Stage) -> InferResponse {
        InferResponse { model: "m".into(), stage, ..InferResponse::default() }
    }

    #[test]
    fn one_request_is_open_until_the_server_grants_more() {
        let exchanges = Exchanges::new();
        let (first, mut waiting) = ask(&exchanges).unwrap();
        assert!(ask(&exchanges).is_none());
        answer(&exchanges, encode_credit(1)).unwrap();
        assert!(ask(&exchanges).is_some());
        assert!(ask(&exchanges).is_none());
        answer(&exchanges, encode_response(&response(Stage::Only), &[], first)).unwrap();
        assert!(matches!(waiting.try_recv(), Ok(Ok(Message::Response { .. }))));
        assert!(ask(&exchanges).is_some());
    }

    #[test]
    fn questions_neither_take_nor_give_credit() {
        let exchanges = Exchanges::new();
        let (question, _waiting) = exchanges.begin(false).unwrap();
        answer(&exchanges, encode_ready(true, question)).unwrap();
        assert!(ask(&exchanges).is_some());
        assert!(ask(&exchanges).is_none());
    }

    #[test]
    fn a_request_given_up_counts_until_the_server_has_done_with_it() {
        let exchanges = Exchanges::new();
        let (given_up, _waiting) = ask(&exchanges).unwrap();
        assert!(exchanges.give_up(given_up));
        assert!(!exchanges.give_up(given_up), "only once");
        assert!(ask(&exchanges).is_none());
        answer(&exchanges, encode_cancelled(given_up)).unwrap();
        assert!(ask(&exchanges).is_some());
        assert!(ask(&exchanges).is_none());
    }

    #[test]
    fn one_of_several_responses_is_cancelled_and_its_end_gives_the_credit_back() {
        let exchanges = Exchanges::new();
        let (exchange, mut waiting) = ask(&exchanges).unwrap();
        let part = || encode_response(&response(Stage::Part), &[], exchange);
        assert_eq!(answer(&exchanges, part()).unwrap(), Some(exchange));
        assert!(waiting.try_recv().is_ok());
        assert_eq!(answer(&exchanges, part()).unwrap(), None, "it was said already");
        assert!(ask(&exchanges).is_none());
        answer(&exchanges, encode_response(&response(Stage::End), &[], exchange)).unwrap();
        assert!(ask(&exchanges).is_some());
    }

    #[test]
    fn answers_that_nobody_asked_for_grant_nothing_and_credit_has_a_bound() {
        let exchanges = Exchanges::new();
        for exchange in [5, u64::MAX] {
            answer(&exchanges, encode_response(&response(Stage::Only), &[], exchange)).unwrap();
        }
        for _ in 0..3 {
            answer(&exchanges, encode_credit(u32::MAX)).unwrap();
        }
        assert_eq!(exchanges.credit.available_permits(), MOST_OPEN);
    }

    #[test]
    fn the_end_of_the_stream_answers_everybody() {
        let exchanges = Exchanges::new();
        let (_, mut waiting) = ask(&exchanges).unwrap();
        let next = exchanges.await_credit();
        let error = kingpole_values::Error::unavailable("gone");
        let end = answer(&exchanges, encode_error(&error, 0, None, 0)).unwrap_err();
        exchanges.fail(&end);
        exchanges.fail(&Error::internal("too late"));
        assert_eq!(waiting.try_recv().unwrap().unwrap_err().message(), "gone");
        let refused = next.now_or_never().unwrap().unwrap_err();
        assert!(refused.is_unsent() && refused.code() == Code::Unavailable);
        assert!(exchanges.begin(false).unwrap_err().is_unsent());
        assert!(!exchanges.is_usable());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_doubted_when_an_answer_is_late_and_no_other() {
        let exchanges = Exchanges::new();
        exchanges.doubt();
        assert!(exchanges.is_usable(), "it is new");
        tokio::time::advance(SILENT).await;
        answer(&exchanges, encode_credit(1)).unwrap();
        exchanges.doubt();
        assert!(exchanges.is_usable(), "somebody is there");
        tokio::time::advance(SILENT).await;
        exchanges.doubt();
        assert!(!exchanges.is_usable() && exchanges.is_doubted());
    }

    #[test]
    fn a_draining_server_is_asked_nothing_more_and_answers_what_it_has() {
        let exchanges = Exchanges::new();
        let (exchange, mut waiting) = ask(&exchanges).unwrap();
        answer(&exchanges, encode_ready(false, 0)).unwrap();
        assert!(!exchanges.is_usable());
        answer(&exchanges, encode_response(&response(Stage::Only), &[], exchange)).unwrap();
        assert!(waiting.try_recv().unwrap().is_ok());
    }

    #[test]
    fn a_tensor_of_another_size_than_its_shape_is_the_servers_fault() {
        let exchanges = Exchanges::new();
        let (exchange, mut waiting) = ask(&exchanges).unwrap();
        let mut lie = response(Stage::Only);
        let mut tensor = kingpole_values::Tensor::new("x", &[1], vec![1.0f32]).unwrap();
        tensor.shape.push(2);
        lie.outputs.push(tensor);
        answer(&exchanges, encode_response(&lie, &[], exchange)).unwrap();
        let error = waiting.try_recv().unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(error.message().contains("'x'"), "{error}");
    }
}
