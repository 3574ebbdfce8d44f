//! Who waits for the lanes of a pool, and which batch goes next. Everything here happens under the pool's lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use kingpole_values::Error;
use tokio::sync::oneshot;

use super::Dispatched;
use super::sequenced::Kept;
use crate::Lane;
use crate::batch::LaneBatch;
use crate::decide::{Decision, Reason, Waiting, decide};
use crate::pending::Pending;

pub(super) struct Queued {
    pub model_number: usize,
    pub waiting: VecDeque<u64>,
    pub bytes: usize,
    /// Requests of this model that are not answered yet, waiting or running.
    pub held: usize,
    pub handle: u32,
}

#[derive(Default)]
pub(super) struct LaneSlot {
    pub lane: Option<Arc<dyn Lane>>,
    pub busy: bool,
    /// Why none can be had, for now.
    pub given_up: Option<Error>,
}

impl LaneSlot {
    pub(super) fn free(&self) -> Option<Arc<dyn Lane>> {
        self.lane.clone().filter(|_| !self.busy)
    }
}

#[derive(Default)]
pub(super) struct PoolState {
    pub next_sequence: u64,
    pub requests: HashMap<u64, Pending>,
    pub queues: Vec<Queued>,
    pub lanes: Vec<LaneSlot>,
    /// What is kept for models whose requests belong to sequences, by the number of their load.
    pub kept: HashMap<usize, Kept>,
}

impl PoolState {
    /// Why no lane can be had at all.
    pub(super) fn broken(&self) -> Option<&Error> {
        let given_up = |slot: &LaneSlot| slot.lane.is_none() && slot.given_up.is_some();
        if self.lanes.iter().all(given_up) { self.lanes.first()?.given_up.as_ref() } else { None }
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<Pending> {
        let request = self.requests.remove(&sequence)?;
        if let Some(queue) = self.queues.iter_mut().find(|queue| queue.model_number == request.model.number) {
            queue.bytes -= request.bytes;
            queue.held -= 1;
        }
        self.drop_step(&request);
        Some(request)
    }

    /// Whether requests wait for a lane that is missing, or that does not take their model yet.
    pub(super) fn lacks_lanes(&self) -> bool {
        let mut waiting = self.queues.iter().filter(|queue| !queue.waiting.is_empty());
        waiting.any(|queue| {
            let takes = |slot: &LaneSlot| slot.lane.as_ref().is_some_and(|lane| lane.takes(queue.handle));
            !self.lanes.iter().all(takes)
        })
    }

    /// The next batch for a free lane: the model whose head has waited longest goes first. Requests
    /// that are past their deadline or whose client has gone are moved to `dead`. `Err` is the time
    /// to look again when the only models waiting are configured to wait.
    pub(super) fn next_batch(
        &mut self,
        lane: &Arc<dyn Lane>,
        lane_index: usize,
        now_us: u64,
        dead: &mut Vec<Pending>,
    ) -> Result<Option<Dispatched>, u64> {
        let mut order: Vec<(u64, usize)> = Vec::new();
        for index in 0..self.queues.len() {
            if self.queues[index].waiting.is_empty() || !lane.takes(self.queues[index].handle) {
                continue;
            }
            if let Some(enqueued_us) = self.skip_the_dead(index, now_us, dead) {
                order.push((enqueued_us, index));
            }
        }
        order.sort_unstable();
        let mut look_again_us = None;
        for (_, index) in order {
            if self.keeps_sequences(index) {
                match self.next_of_sequences(index, (lane, lane_index), now_us, dead) {
                    Ok(None) => {}
                    Ok(Some(batch)) => return Ok(Some(batch)),
                    Err(at_us) => {
                        look_again_us = Some(look_again_us.map_or(at_us, |earlier: u64| earlier.min(at_us)));
                    }
                }
                continue;
            }
            match self.decide(index, now_us) {
                Decision::Dispatch { requests, rows, reason } => {
                    let lane = (Arc::clone(lane), lane_index);
                    return Ok(self.form(index, lane, requests, (rows, reason, now_us)));
                }
                Decision::WaitUntil(at_us) => {
                    look_again_us = Some(look_again_us.map_or(at_us, |earlier: u64| earlier.min(at_us)));
                }
                Decision::Nothing => {}
            }
        }
        look_again_us.map_or(Ok(None), Err)
    }

    pub(super) fn keeps_sequences(&self, index: usize) -> bool {
        let head = self.queues[index].waiting.iter().find_map(|number| self.requests.get(number));
        head.is_some_and(|request| request.model.spec.sequence.is_some())
    }

    /// Clear a queue's head of requests that need no batch any more, as far as one batch reaches.
    /// Returns when its head was admitted.
    pub(super) fn skip_the_dead(
        &mut self,
        index: usize,
        now_us: u64,
        dead: &mut Vec<Pending>,
    ) -> Option<u64> {
        let (mut position, mut rows) = (0, 0);
        let mut head_us = None;
        while let Some(&sequence) = self.queues[index].waiting.get(position) {
            let gone = match self.requests.get_mut(&sequence) {
                None => true,
                Some(request) => request.is_expired(now_us) || request.answer.is_cancelled(),
            };
            if gone {
                self.queues[index].waiting.remove(position);
                dead.extend(self.remove(sequence));
                continue;
            }
            let request = &self.requests[&sequence];
            head_us = head_us.or(Some(request.enqueued_us));
            rows += request.rows;
            position += 1;
            if rows > request.model.spec.max_batch_size {
                break;
            }
        }
        head_us
    }

    pub(super) fn decide(&self, index: usize, now_us: u64) -> Decision {
        let mut requests = self.queues[index].waiting.iter().filter_map(|s| self.requests.get(s)).peekable();
        let Some(&head) = requests.peek() else { return Decision::Nothing };
        let waiting = requests.map(|request| Waiting {
            rows: request.rows,
            enqueued_us: request.enqueued_us,
            joins_head: request.joins(head),
            alone: request.alone,
        });
        decide(waiting, now_us, head.model.policy())
    }

    pub(super) fn form(
        &mut self,
        index: usize,
        (lane, lane_index): (Arc<dyn Lane>, usize),
        requests: usize,
        (rows, reason, started_us): (u32, Reason, u64),
    ) -> Option<Dispatched> {
        let queue = &mut self.queues[index];
        let handle = queue.handle;
        let mut sequences = Vec::with_capacity(requests);
        while sequences.len() < requests {
            let sequence = queue.waiting.pop_front()?;
            if self.requests.contains_key(&sequence) {
                sequences.push(sequence);
            }
        }
        let pending: Vec<&Pending> = sequences.iter().filter_map(|s| self.requests.get(s)).collect();
        let batch = LaneBatch::of(&pending);
        let model = pending[0].model.clone();
        let answered = model.spec.decoupled.then(|| {
            let (relayed, answered) = oneshot::channel();
            if let Some(request) = self.requests.get_mut(&sequences[0]) {
                request.relayed = Some(relayed);
            }
            answered
        });
        Some(Dispatched {
            answered,
            lane,
            lane_index,
            handle,
            request_rows: batch.request_rows.clone(),
            batch: Some(batch),
            sequences,
            steps: Vec::new(),
            model,
            rows,
            reason,
            started_us,
        })
    }
}
