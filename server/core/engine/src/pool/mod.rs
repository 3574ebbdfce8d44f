//! Lanes outside the reactors: queues shared by all reactors, batches formed by whichever is awake.
//!
//! A request lives in `requests` from admission to its answer, and answering it means taking it out
//! of there. That is why it is answered once, whoever comes first: its batch, its deadline, the end
//! of its lane.

mod queues;
mod sequenced;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use kingpole_values::{Error, Sequence, Tensor, Timing};
use tokio::sync::oneshot;

use crate::batch::{LaneBatch, Splitter, check_outputs};
use crate::decide::Reason;
use crate::departures::Departures;
use crate::inline::wall_clock_ms;
use crate::pending::Pending;
use crate::{Clock, Lane, LaneFailure, LaneOutcome, Model};
use queues::{LaneSlot, PoolState, Queued};

/// A batch on its way to a lane.
pub(crate) struct Dispatched {
    pub lane: Arc<dyn Lane>,
    lane_index: usize,
    pub handle: u32,
    pub batch: Option<LaneBatch>,
    /// The requests' own numbers.
    sequences: Vec<u64>,
    /// For a model that keeps sequences: the step that each row is.
    steps: Vec<Option<Sequence>>,
    request_rows: Vec<u32>,
    model: Arc<Model>,
    rows: u32,
    reason: Reason,
    started_us: u64,
    /// For a decoupled model: closed when the request is answered, by whomever.
    pub answered: Option<oneshot::Receiver<()>>,
}

/// The lanes of one device (or of one model with processes of its own), and who waits for them.
pub struct Pool {
    number: usize,
    state: Mutex<PoolState>,
}

impl Dispatched {
    fn timing(&self, request: &Pending, execute_us: u64) -> Timing {
        Timing {
            queue_us: self.started_us.saturating_sub(request.enqueued_us),
            execute_us,
            batch_rows: self.rows,
            reason: self.reason.name(),
        }
    }
}

static NEXT_NUMBER: AtomicUsize = AtomicUsize::new(1);

/// How often a request is handed to a lane that then goes away before it is answered for good.
const MAX_ATTEMPTS: u8 = 2;

impl Pool {
    /// A pool of this many lanes, none of them attached yet.
    pub fn new(lanes: usize) -> Arc<Self> {
        let state = PoolState {
            lanes: (0..lanes.max(1)).map(|_| LaneSlot::default()).collect(),
            ..PoolState::default()
        };
        Arc::new(Self { number: NEXT_NUMBER.fetch_add(1, Relaxed), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// A lane can take batches (again). Wake a reactor afterwards: `Shared::wake`.
    pub fn attach(&self, index: usize, lane: Arc<dyn Lane>) {
        if let Some(slot) = self.lock().lanes.get_mut(index) {
            *slot = LaneSlot { lane: Some(lane), busy: false, given_up: None };
        }
    }

    /// A lane is gone. Its batch, if it had one, ends with the future that runs it.
    pub fn detach(&self, index: usize) {
        let mut state = self.lock();
        if let Some(slot) = state.lanes.get_mut(index) {
            slot.lane = None;
        }
        state.lose_lane(index);
    }

    /// This lane cannot be had. Once that is true of every one: answer all who wait, and refuse newcomers until
    /// one is attached.
    pub fn give_up(&self, index: usize, error: &Error, now_us: u64) {
        let waiting: Vec<Pending> = {
            let mut guard = self.lock();
            let state = &mut *guard;
            if let Some(slot) = state.lanes.get_mut(index) {
                slot.given_up = Some(error.clone());
            }
            if state.broken().is_none() {
                return;
            }
            let sequences: Vec<u64> =
                state.queues.iter_mut().flat_map(|queue| queue.waiting.drain(..)).collect();
            sequences.into_iter().filter_map(|sequence| state.remove(sequence)).collect()
        };
        for request in waiting {
            request.fail(error.clone(), now_us);
        }
    }

    /// A load of a model is gone: nothing is remembered for it any more.
    pub fn forget(&self, model: &Model) {
        self.lock().kept.remove(&model.number);
    }

    /// Admit a request. On refusal the request comes back with the reason. `departures` hears of its client.
    pub(crate) fn submit(
        self: &Arc<Self>,
        mut pending: Pending,
        handle: u32,
        limit_bytes: usize,
        departures: &Arc<Departures>,
    ) -> Result<u64, Box<(Pending, Error)>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(error) = state.broken() {
            let error = error.clone();
            return Err(Box::new((pending, error)));
        }
        let number = pending.model.number;
        let index = state.queues.iter().position(|queue| queue.model_number == number);
        let index = index.unwrap_or_else(|| {
            state.queues.push(Queued {
                model_number: number,
                waiting: VecDeque::new(),
                bytes: 0,
                held: 0,
                handle,
            });
            state.queues.len() - 1
        });
        let queue = &mut state.queues[index];
        if queue.bytes > 0 && queue.bytes.saturating_add(pending.bytes) > limit_bytes {
            let error = Error::exhausted(format!(
                "the queue of model '{}' is full: {} bytes wait or run, the limit is {limit_bytes}",
                pending.model.spec.name, queue.bytes
            ));
            return Err(Box::new((pending, error)));
        }
        // Last, as it changes the sequence.
        if let Err(error) = state.admit_step(&pending) {
            return Err(Box::new((pending, error)));
        }
        let queue = &mut state.queues[index];
        state.next_sequence += 1;
        let sequence = state.next_sequence;
        queue.bytes += pending.bytes;
        queue.held += 1;
        queue.waiting.push_back(sequence);
        let waker = Waker::from(departures.watch(self, sequence));
        if pending.answer.poll_cancelled(&mut Context::from_waker(&waker)).is_ready() {
            waker.wake();
        }
        state.requests.insert(sequence, pending);
        Ok(sequence)
    }

    /// Whether this request is still unanswered.
    pub(crate) fn holds(&self, sequence: u64) -> bool {
        self.lock().requests.contains_key(&sequence)
    }

    /// A request whose client has gone, taken out of wherever it is; else `waker` hears of it.
    pub(crate) fn take_if_abandoned(&self, sequence: u64, waker: &Waker) -> Option<Pending> {
        let mut state = self.lock();
        let answer = &mut state.requests.get_mut(&sequence)?.answer;
        match answer.poll_cancelled(&mut Context::from_waker(waker)) {
            Poll::Ready(()) => state.remove(sequence),
            Poll::Pending => None,
        }
    }

    /// Answer a request whose deadline has come, wherever it is.
    pub(crate) fn expire(&self, sequence: u64, now_us: u64) {
        let expired = self.lock().remove(sequence);
        if let Some(request) = expired {
            request.expire(now_us);
        }
    }

    /// Form a batch for each free lane. The second value is when to look again, if a model asked to
    /// wait; the third whether requests wait for a lane that is missing or does not take their model yet,
    /// as when a worker starts again: the caller must then look again when it is woken.
    pub(crate) fn dispatch(&self, now_us: u64) -> (Vec<Dispatched>, Option<u64>, bool) {
        let mut dispatched = Vec::new();
        let mut look_again_us: Option<u64> = None;
        let mut dead = Vec::new();
        let lacks_lanes = {
            let mut guard = self.lock();
            let state = &mut *guard;
            state.forget_idle(now_us);
            for lane_index in 0..state.lanes.len() {
                let Some(lane) = state.lanes[lane_index].free() else { continue };
                match state.next_batch(&lane, lane_index, now_us, &mut dead) {
                    Ok(Some(batch)) => {
                        state.lanes[lane_index].busy = true;
                        dispatched.push(batch);
                    }
                    Ok(None) => {}
                    Err(at_us) => {
                        look_again_us = Some(look_again_us.map_or(at_us, |earlier| earlier.min(at_us)));
                    }
                }
            }
            state.queues.retain(|queue| queue.held > 0);
            // Decided under the same lock: a lane attached later wakes whoever was told so.
            state.lacks_lanes()
        };
        for mut request in dead {
            if let Some(doom) = request.doom.take() {
                request.fail(doom, now_us);
            } else if request.is_expired(now_us) {
                request.expire(now_us);
            } else {
                request.discard(now_us);
            }
        }
        (dispatched, look_again_us, lacks_lanes)
    }

    /// Take back a lane and answer its batch.
    pub(crate) fn complete(
        &self,
        dispatched: &Dispatched,
        result: Result<LaneOutcome, LaneFailure>,
        clock: Clock,
        reactor: usize,
    ) {
        let ended_us = clock.now_us();
        let (model, rows) = (dispatched.model.clone(), dispatched.rows);
        let result = match result {
            Ok(outcome) if model.spec.decoupled => Ok(outcome),
            Ok(outcome) if model.spec.sequence.is_some() => self.remember(dispatched, outcome, ended_us),
            Ok(LaneOutcome { outputs, execute_us }) => {
                match check_outputs(&model.spec, outputs, Some(rows)) {
                    Ok(outputs) => Ok(LaneOutcome { outputs, execute_us }),
                    Err(error) => Err(LaneFailure::Batch(error)),
                }
            }
            Err(failure) => Err(failure),
        };
        let mut answers: Vec<(Pending, Error)> = Vec::new();
        match result {
            Ok(outcome) => {
                self.free(dispatched.lane_index, &dispatched.lane, true);
                model.metrics.record_batch(
                    reactor,
                    rows,
                    dispatched.reason,
                    outcome.execute_us,
                    wall_clock_ms(),
                );
                if let Ok(mut profile) = model.profile.lock() {
                    // What counts for batching is the lane's time, hop included.
                    profile.record(rows, ended_us - dispatched.started_us);
                }
                self.answer_rows(dispatched, &outcome, ended_us);
            }
            Err(failure) if model.spec.sequence.is_some() => {
                let alive = matches!(failure, LaneFailure::Batch(_) | LaneFailure::Refused(_));
                self.free(dispatched.lane_index, &dispatched.lane, alive);
                let spent = self.give_steps_back(dispatched, &failure, ended_us);
                let error = failure.into_error();
                answers.extend(spent.into_iter().map(|request| (request, error.clone())));
            }
            Err(LaneFailure::Batch(error) | LaneFailure::Refused(error)) => {
                self.free(dispatched.lane_index, &dispatched.lane, true);
                if let [only] = dispatched.sequences[..] {
                    answers.extend(self.lock().remove(only).map(|request| (request, error.clone())));
                } else {
                    let spent = self.requeue_alone(dispatched, 0);
                    answers.extend(spent.into_iter().map(|request| (request, error.clone())));
                }
            }
            Err(LaneFailure::Lost(error)) => {
                self.free(dispatched.lane_index, &dispatched.lane, false);
                for request in self.requeue_alone(dispatched, 1) {
                    answers.push((request, error.clone()));
                }
            }
            Err(LaneFailure::Hung(error)) => {
                self.free(dispatched.lane_index, &dispatched.lane, false);
                // By itself it is to blame, and would cost the next lane as long; among others any of them may be.
                let attempts = if dispatched.sequences.len() == 1 { MAX_ATTEMPTS } else { 1 };
                for request in self.requeue_alone(dispatched, attempts) {
                    answers.push((request, error.clone()));
                }
            }
        }
        for (request, error) in answers {
            request.fail(error, ended_us);
        }
    }

    fn answer_rows(&self, dispatched: &Dispatched, outcome: &LaneOutcome, ended_us: u64) {
        let model = &dispatched.model;
        let taken: Vec<(u32, Option<Pending>)> = {
            let mut state = self.lock();
            let sequences = dispatched.sequences.iter().zip(&dispatched.request_rows);
            sequences.map(|(&sequence, &rows)| (rows, state.remove(sequence))).collect()
        };
        let mut splitter = Splitter::new(&model.spec, &outcome.outputs, dispatched.rows);
        for (rows, request) in taken {
            // Rows of a request that was answered meanwhile are stepped over; the end of parts has none.
            let selected = request.as_ref().filter(|_| !model.spec.decoupled);
            let own = splitter.next(rows, selected.map_or(&[], |request| &request.outputs[..]));
            if let Some(request) = request {
                let timing = dispatched.timing(&request, outcome.execute_us);
                request.respond(own, timing, ended_us);
            }
        }
    }

    /// Ready with whether the one request of a decoupled batch wants another part.
    pub(crate) fn poll_ready_for_part(&self, dispatched: &Dispatched, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        let request = dispatched.sequences.first().and_then(|sequence| state.requests.get_mut(sequence));
        let Some(request) = request else { return Poll::Ready(false) };
        if request.answer.is_cancelled() {
            return Poll::Ready(false);
        }
        request.answer.poll_ready(cx).map(|()| true)
    }

    /// Give the one request of a decoupled batch a response. False once it wants no more: it has expired, its
    /// client has gone, or the model has broken its word, which it was then told.
    pub(crate) fn give_part(&self, dispatched: &Dispatched, outputs: Vec<Tensor>, now_us: u64) -> bool {
        let [sequence] = dispatched.sequences[..] else { return false };
        let checked = check_outputs(&dispatched.model.spec, outputs, None);
        let mut state = self.lock();
        let Some(request) = state.requests.get_mut(&sequence) else { return false };
        // A client that was given something must not be given it again.
        request.attempts = MAX_ATTEMPTS;
        match checked {
            Ok(outputs) => {
                let selected =
                    request.outputs.iter().map(|&index| outputs[usize::from(index)].clone()).collect();
                let timing = dispatched.timing(request, 0);
                request.respond_part(selected, timing, dispatched.started_us, now_us);
                true
            }
            Err(error) => {
                let request = state.remove(sequence);
                drop(state);
                if let Some(request) = request {
                    request.fail(error, now_us);
                }
                false
            }
        }
    }

    fn free(&self, index: usize, lane: &Arc<dyn Lane>, alive: bool) {
        let mut state = self.lock();
        if let Some(slot) = state.lanes.get_mut(index) {
            // A new process may have taken the slot already; its state is its own.
            if slot.lane.as_ref().is_some_and(|current| Arc::ptr_eq(current, lane)) {
                slot.busy = false;
                if !alive {
                    slot.lane = None;
                }
            } else if slot.lane.is_none() {
                slot.busy = false;
            }
        }
    }

    /// Put a batch's requests back at the head of the queue, each to run by itself. Those that have
    /// been tried often enough come back to the caller.
    fn requeue_alone(&self, dispatched: &Dispatched, attempts: u8) -> Vec<Pending> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let no_lane_comes = state.broken().is_some();
        let mut spent = Vec::new();
        for &sequence in dispatched.sequences.iter().rev() {
            let Some(request) = state.requests.get_mut(&sequence) else { continue };
            request.alone = true;
            request.attempts += attempts;
            // Where no lane will come, nobody would ever look at the queue again.
            if request.attempts >= MAX_ATTEMPTS || no_lane_comes {
                spent.extend(state.remove(sequence));
                continue;
            }
            let number = dispatched.model.number;
            if let Some(queue) = state.queues.iter_mut().find(|queue| queue.model_number == number) {
                queue.waiting.push_front(sequence);
            }
        }
        spent
    }
}
