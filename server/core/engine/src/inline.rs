//! Batches that run on the reactor itself: its own queues, shared with nobody.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kingpole_values::{Error, Result, Tensor, Timing};

use crate::batch::{Splitter, check_outputs, join_inline};
use crate::decide::{Decision, Reason, Waiting, decide};
use crate::pending::Pending;
use crate::{Clock, InlineModel, Model, Placement};

/// The waiting requests of one model version. Exists only while it holds some.
struct InlineQueue {
    model: Arc<Model>,
    requests: VecDeque<Pending>,
    rows: u32,
    bytes: usize,
}

/// All inline queues of one reactor.
#[derive(Default)]
pub(crate) struct InlineQueues {
    queues: Vec<InlineQueue>,
    /// When a model with a configured queue delay wants to be looked at again.
    wake_us: Option<u64>,
}

impl InlineQueues {
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    pub fn wake_us(&self) -> Option<u64> {
        self.wake_us
    }

    /// Whether some model has a full batch waiting, so that draining sockets further gains nothing.
    pub fn has_full_batch(&self) -> bool {
        self.queues.iter().any(|queue| queue.rows >= queue.model.spec.max_batch_size.max(1))
    }

    /// Queue a request, or give it back if its model's queue is full.
    pub fn push(&mut self, pending: Pending, limit_bytes: usize) -> std::result::Result<(), Box<Pending>> {
        let found = self.queues.iter_mut().find(|queue| queue.model.number == pending.model.number);
        let queue = if let Some(queue) = found {
            queue
        } else {
            self.queues.push(InlineQueue {
                model: pending.model.clone(),
                requests: VecDeque::with_capacity(32),
                rows: 0,
                bytes: 0,
            });
            self.queues.last_mut().expect("just pushed")
        };
        if !queue.requests.is_empty() && queue.bytes.saturating_add(pending.bytes) > limit_bytes {
            return Err(Box::new(pending));
        }
        queue.rows += pending.rows;
        queue.bytes += pending.bytes;
        queue.requests.push_back(pending);
        Ok(())
    }

    /// Take the next batch, if one may leave now: the model whose head has waited longest goes first.
    pub fn take(&mut self, clock: Clock) -> Option<(Vec<Pending>, Reason)> {
        let now_us = clock.now_us();
        self.wake_us = None;
        for queue in &mut self.queues {
            queue.drop_the_dead(now_us);
        }
        self.queues.retain(|queue| !queue.requests.is_empty());
        let mut order: smallvec::SmallVec<[usize; 8]> = (0..self.queues.len()).collect();
        order.sort_by_key(|&index| self.queues[index].requests[0].enqueued_us);
        for index in order {
            let queue = &mut self.queues[index];
            let head = &queue.requests[0];
            let waiting = queue.requests.iter().map(|request| Waiting {
                rows: request.rows,
                enqueued_us: request.enqueued_us,
                joins_head: request.joins(head),
                alone: request.alone,
            });
            match decide(waiting, now_us, queue.model.policy()) {
                Decision::Dispatch { requests, rows, reason } => {
                    let batch: Vec<Pending> = queue.requests.drain(..requests).collect();
                    queue.rows -= rows;
                    queue.bytes -= batch.iter().map(|request| request.bytes).sum::<usize>();
                    return Some((batch, reason));
                }
                Decision::WaitUntil(at_us) => {
                    // A deadline that comes before is kept all the same.
                    let deadlines = queue.requests.iter().filter_map(|request| request.deadline_us);
                    let at_us = deadlines.fold(at_us, u64::min);
                    self.wake_us = Some(self.wake_us.map_or(at_us, |earlier| earlier.min(at_us)));
                }
                Decision::Nothing => {}
            }
        }
        None
    }

    /// Put a failed batch back, each request to run by itself.
    fn put_back_alone(&mut self, batch: Vec<Pending>) {
        for mut request in batch.into_iter().rev() {
            request.alone = true;
            let number = request.model.number;
            if !self.queues.iter().any(|queue| queue.model.number == number) {
                self.queues.push(InlineQueue {
                    model: request.model.clone(),
                    requests: VecDeque::new(),
                    rows: 0,
                    bytes: 0,
                });
            }
            let queue = self
                .queues
                .iter_mut()
                .find(|queue| queue.model.number == number)
                .expect("found or just pushed");
            queue.rows += request.rows;
            queue.bytes += request.bytes;
            queue.requests.push_front(request);
        }
    }
}

impl InlineQueue {
    /// Answer those whose deadline has passed, forget those whose client has gone.
    fn drop_the_dead(&mut self, now_us: u64) {
        let mut index = 0;
        while index < self.requests.len() {
            let request = &mut self.requests[index];
            let expired = request.is_expired(now_us);
            if !expired && !request.answer.is_cancelled() {
                index += 1;
                continue;
            }
            let Some(request) = self.requests.remove(index) else { return };
            self.rows -= request.rows;
            self.bytes -= request.bytes;
            if expired {
                request.expire(now_us);
            } else {
                request.discard(now_us);
            }
        }
    }
}

/// Run one batch here and now, and answer every request in it.
pub(crate) fn run(
    batch: Vec<Pending>,
    reason: Reason,
    clock: Clock,
    reactor: usize,
    queues: &mut InlineQueues,
) {
    let model = batch[0].model.clone();
    let Placement::Inline(instance) = &model.placement else {
        return batch.into_iter().for_each(|request| {
            request.answer.give(Err(Error::internal("a batch reached a reactor that cannot run it")));
        });
    };
    let rows: u32 = batch.iter().map(|request| request.rows).sum();
    let started_us = clock.now_us();
    let result = execute(&**instance, &batch, &model, rows);
    let ended_us = clock.now_us();
    let execute_us = ended_us - started_us;
    match result {
        Ok(outputs) => {
            model.metrics.record_batch(reactor, rows, reason, execute_us, wall_clock_ms());
            if let Ok(mut profile) = model.profile.lock() {
                profile.record(rows, execute_us);
            }
            let mut splitter = Splitter::new(&model.spec, &outputs, rows);
            for request in batch {
                let own = splitter.next(request.rows, &request.outputs);
                let queue_us = started_us.saturating_sub(request.enqueued_us);
                let timing = Timing { queue_us, execute_us, batch_rows: rows, reason: reason.name() };
                request.respond(own, timing, ended_us);
            }
        }
        Err(error) if batch.len() == 1 => {
            for request in batch {
                request.fail(error.clone(), ended_us);
            }
        }
        Err(_) => queues.put_back_alone(batch),
    }
}

fn execute(instance: &dyn InlineModel, batch: &[Pending], model: &Model, rows: u32) -> Result<Vec<Tensor>> {
    let inputs = join_inline(batch);
    let outputs = catch_unwind(AssertUnwindSafe(|| instance.execute(&inputs))).unwrap_or_else(|_| {
        Err(Error::internal(format!("the backend of model '{}' panicked", model.spec.name)))
    })?;
    check_outputs(&model.spec, outputs, Some(rows))
}

/// Milliseconds since 1970, for the statistics extension.
#[allow(clippy::cast_possible_truncation, reason = "2^64 ms are half a billion years")]
pub(crate) fn wall_clock_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
