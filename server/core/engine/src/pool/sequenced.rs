//! Batches of models that keep sequences: who may ride, what is laid out for them, what is remembered after.

use std::sync::Arc;

use bytes::Bytes;
use kingpole_values::{Error, Result, Sequence, Tensor};

use super::queues::PoolState;
use super::{Dispatched, MAX_ATTEMPTS, Pool};
use crate::batch::{LaneBatch, Row, check_outputs};
use crate::decide::Reason;
use crate::pending::Pending;
use crate::sequences::{Outcome, Sequences};
use crate::{Lane, LaneFailure, LaneOutcome, ModelSpec, SequencePolicy, Strategy};

/// The sequences of one load of a model.
pub(super) struct Kept {
    pub spec: Arc<ModelSpec>,
    pub sequences: Sequences,
}

impl Kept {
    pub fn new(spec: &Arc<ModelSpec>) -> Self {
        Self { spec: Arc::clone(spec), sequences: Sequences::default() }
    }

    /// The bookkeeping beside its rules.
    pub fn with_policy(&mut self) -> Option<(&mut Sequences, &SequencePolicy)> {
        self.spec.sequence.as_ref().map(|policy| (&mut self.sequences, policy))
    }
}

/// No request has this number: it stands for a row that is empty.
const EMPTY_ROW: u64 = 0;

impl PoolState {
    /// Take a request's step into the bookkeeping, if its model keeps sequences.
    pub(super) fn admit_step(&mut self, pending: &Pending) -> Result<()> {
        let spec = &pending.model.spec;
        let Some(policy) = &spec.sequence else { return Ok(()) };
        if let Some(sequence) = &pending.sequence {
            policy.check_id(&spec.name, &sequence.id)?;
        }
        let kept = self.kept.entry(pending.model.number).or_insert_with(|| Kept::new(spec));
        kept.sequences.admit(policy, &spec.name, pending.sequence.as_ref(), pending.enqueued_us)
    }

    /// A request leaves for good; one that is in a batch is settled when that ends.
    pub(super) fn drop_step(&mut self, request: &Pending) {
        let Some(sequence) = request.sequence.as_ref().filter(|_| !request.in_batch) else { return };
        self.end_step(request.model.number, sequence, Outcome::Dropped, request.enqueued_us);
    }

    fn end_step(&mut self, number: usize, sequence: &Sequence, outcome: Outcome, now_us: u64) {
        if let Some((sequences, policy)) = self.kept.get_mut(&number).and_then(Kept::with_policy) {
            sequences.end(policy, sequence, outcome, now_us);
        }
    }

    /// A lane is gone, and what its models remembered with it.
    pub(super) fn lose_lane(&mut self, lane: usize) {
        for kept in self.kept.values_mut() {
            if let Some((sequences, policy)) = kept.with_policy() {
                sequences.lose_lane(policy, lane);
            }
        }
    }

    /// Forget what has been idle for too long.
    pub(super) fn forget_idle(&mut self, now_us: u64) {
        self.kept.retain(|_, kept| {
            if let Some((sequences, policy)) = kept.with_policy() {
                sequences.forget_idle(policy, now_us);
            }
            !kept.sequences.is_empty()
        });
    }

    /// The next batch of a queue whose model keeps sequences; `Err` is when to look again.
    pub(super) fn next_of_sequences(
        &mut self,
        index: usize,
        (lane, lane_index): (&Arc<dyn Lane>, usize),
        now_us: u64,
        dead: &mut Vec<Pending>,
    ) -> std::result::Result<Option<Dispatched>, u64> {
        self.drop_every_dead(index, now_us, dead);
        let lanes = self.lanes.len();
        let queue = &self.queues[index];
        let offered: Vec<(u64, &Pending, &Sequence)> = queue
            .waiting
            .iter()
            .filter_map(|number| self.requests.get(number).map(|request| (*number, request)))
            .filter_map(|(number, request)| Some((number, request, request.sequence.as_ref()?)))
            .collect();
        let Some(&(_, head, _)) = offered.first() else { return Ok(None) };
        let doomed: Vec<u64> = self
            .kept
            .get(&queue.model_number)
            .map(|kept| kept.sequences.doomed(offered.iter().map(|&(number, _, step)| (number, step))))
            .unwrap_or_default();
        if !doomed.is_empty() {
            drop(offered);
            self.refuse_doomed(index, &doomed, dead);
            return self.next_of_sequences(index, (lane, lane_index), now_us, dead);
        }
        let model = Arc::clone(&head.model);
        let kept = self.kept.entry(queue.model_number).or_insert_with(|| Kept::new(&model.spec));
        let Some((sequences, policy)) = kept.with_policy() else { return Ok(None) };
        let max_rows = model.spec.max_batch_size.max(1);
        let steps = offered.iter().map(|&(_, _, sequence)| sequence);
        let mut chosen = sequences.choose(policy, (lane_index, lanes), max_rows, steps);
        if let Some(&alone) = chosen.iter().find(|chosen| offered[chosen.position].1.alone) {
            chosen = vec![alone];
        }
        let Some(first) = chosen.iter().map(|chosen| chosen.position).min() else {
            return sequences.next_idle_us(policy).map_or(Ok(None), Err);
        };
        let first = offered[first].1;
        chosen.retain(|chosen| offered[chosen.position].1.joins(first));
        let full = chosen.len() >= max_rows as usize;
        let leaves_us = first.enqueued_us.saturating_add(model.spec.max_queue_delay_us);
        if !full && !first.alone && now_us < leaves_us && policy.strategy != Strategy::Direct {
            return Err(leaves_us);
        }
        let reason = match (first.alone, full) {
            (true, _) => Reason::Alone,
            (_, true) => Reason::Full,
            _ => Reason::Idle,
        };
        let own_rows = policy.has_rows_of_their_own() && model.spec.max_batch_size > 0;
        let height =
            if own_rows { chosen.last().map_or(0, |last| last.row as usize + 1) } else { chosen.len() };
        let mut numbers = vec![EMPTY_ROW; height];
        let mut rows: Vec<Option<Row<'_>>> = (0..height).map(|_| None).collect();
        for (position, chosen) in chosen.iter().enumerate() {
            let (number, request, sequence) = offered[chosen.position];
            let row = if own_rows { chosen.row as usize } else { position };
            numbers[row] = number;
            rows[row] = Some(Row { request, sequence, states: sequences.states(&sequence.id) });
        }
        let batch = LaneBatch::of_sequences(&model.spec, policy, &rows);
        let steps: Vec<Option<Sequence>> =
            rows.iter().map(|row| row.as_ref().map(|row| row.sequence.clone())).collect();
        drop(rows);
        for step in steps.iter().flatten() {
            sequences.begin(step);
        }
        for number in &numbers {
            if let Some(request) = self.requests.get_mut(number) {
                request.in_batch = true;
            }
        }
        let queue = &mut self.queues[index];
        queue.waiting.retain(|number| !numbers.contains(number));
        Ok(Some(Dispatched {
            answered: None,
            lane: Arc::clone(lane),
            lane_index,
            handle: queue.handle,
            request_rows: batch.request_rows.clone(),
            rows: batch.rows,
            batch: Some(batch),
            sequences: numbers,
            steps,
            model,
            reason,
            started_us: now_us,
        }))
    }

    /// Take the steps that follow on what was lost out of a queue, each with the reason to answer.
    fn refuse_doomed(&mut self, index: usize, doomed: &[u64], dead: &mut Vec<Pending>) {
        self.queues[index].waiting.retain(|number| !doomed.contains(number));
        for &number in doomed {
            let Some(mut request) = self.remove(number) else { continue };
            let kept = self.kept.get(&request.model.number);
            request.doom = request
                .sequence
                .as_ref()
                .zip(kept)
                .map(|(step, kept)| kept.sequences.cannot_go_on(&request.model.spec.name, &step.id));
            dead.push(request);
        }
    }

    /// Clear a queue of every request that needs no batch any more: any of them may be the next of its sequence.
    fn drop_every_dead(&mut self, index: usize, now_us: u64, dead: &mut Vec<Pending>) {
        let mut position = 0;
        while let Some(&number) = self.queues[index].waiting.get(position) {
            let gone = match self.requests.get_mut(&number) {
                None => true,
                Some(request) => request.is_expired(now_us) || request.answer.is_cancelled(),
            };
            if gone {
                self.queues[index].waiting.remove(position);
                dead.extend(self.remove(number));
            } else {
                position += 1;
            }
        }
    }
}

impl Pool {
    /// Remember what the model gave for each sequence. Gives the outputs that clients know.
    pub(super) fn remember(
        &self,
        dispatched: &Dispatched,
        outcome: LaneOutcome,
        now_us: u64,
    ) -> std::result::Result<LaneOutcome, LaneFailure> {
        let spec = &dispatched.model.spec;
        let Some(policy) = &spec.sequence else { return Ok(outcome) };
        let LaneOutcome { outputs, execute_us } = outcome;
        let (outputs, mut states) = take_states(spec, policy, outputs, dispatched.steps.len())
            .and_then(|(outputs, states)| Ok((check_outputs(spec, outputs, Some(dispatched.rows))?, states)))
            .map_err(LaneFailure::Batch)?;
        let mut state = self.lock();
        for (row, step) in dispatched.steps.iter().enumerate() {
            if let Some(step) = step {
                let own = std::mem::take(&mut states[row]);
                state.end_step(dispatched.model.number, step, Outcome::Done(own), now_us);
            }
        }
        Ok(LaneOutcome { outputs, execute_us })
    }

    /// Settle the steps of a batch that did not run to its end: those that may run again go back to the queue, by
    /// themselves; the others are given back to be answered.
    pub(super) fn give_steps_back(
        &self,
        dispatched: &Dispatched,
        failure: &LaneFailure,
        now_us: u64,
    ) -> Vec<Pending> {
        let Some(policy) = &dispatched.model.spec.sequence else { return Vec::new() };
        let members = dispatched.steps.iter().flatten().count();
        let attempts = match failure {
            // By itself it is to blame.
            LaneFailure::Batch(_) | LaneFailure::Hung(_) if members == 1 => MAX_ATTEMPTS,
            LaneFailure::Batch(_) | LaneFailure::Refused(_) => 0,
            LaneFailure::Lost(_) | LaneFailure::Hung(_) => 1,
        };
        let number = dispatched.model.number;
        let mut guard = self.lock();
        let state = &mut *guard;
        let refused = matches!(failure, LaneFailure::Refused(_));
        let lanes_come = state.broken().is_none();
        let mut spent = Vec::new();
        for (&request_number, step) in dispatched.sequences.iter().zip(&dispatched.steps).rev() {
            let Some(step) = step else { continue };
            let again = state.requests.get_mut(&request_number).is_some_and(|request| {
                request.attempts = request.attempts.saturating_add(attempts);
                // A model that remembers by itself may have taken the step already, if it was begun.
                let safe = if refused { members > 1 } else { policy.remembers() };
                safe && lanes_come && request.attempts < MAX_ATTEMPTS
            });
            if !again {
                let outcome = if refused { Outcome::NotRun } else { Outcome::Failed };
                state.end_step(number, step, outcome, now_us);
                spent.extend(state.remove(request_number));
                continue;
            }
            if let Some(request) = state.requests.get_mut(&request_number) {
                request.alone = true;
                request.in_batch = false;
            }
            if let Some(kept) = state.kept.get_mut(&number) {
                kept.sequences.wait_again(step);
            }
            if let Some(queue) = state.queues.iter_mut().find(|queue| queue.model_number == number) {
                queue.waiting.push_front(request_number);
            }
        }
        spent
    }
}

/// Take the states out of a batch's outputs, row by row.
fn take_states(
    spec: &ModelSpec,
    policy: &SequencePolicy,
    mut outputs: Vec<Tensor>,
    rows: usize,
) -> Result<(Vec<Tensor>, Vec<Vec<Tensor>>)> {
    let mut states: Vec<Vec<Tensor>> = (0..rows).map(|_| Vec::with_capacity(policy.states.len())).collect();
    for state in &policy.states {
        let wrong = |what: String| {
            Error::internal(format!("model '{}': output '{}' {what}", spec.name, state.output))
        };
        let position = outputs.iter().position(|output| output.name == state.output);
        let output =
            outputs.swap_remove(position.ok_or_else(|| wrong("is missing, which is a state".into()))?);
        if output.datatype != state.datatype {
            return Err(wrong(format!("is {}, its state is {}", output.datatype, state.datatype)));
        }
        output.check_size().map_err(|error| wrong(error.message.into_owned()))?;
        let in_rows = spec.max_batch_size > 0;
        let fits = !in_rows || output.shape.first().is_some_and(|&first| usize::try_from(first) == Ok(rows));
        if !fits {
            return Err(wrong(format!("has shape {}, expected {rows} rows", output.shape)));
        }
        let row_bytes = output.data.len() / if in_rows { rows.max(1) } else { 1 };
        for (row, own) in states.iter_mut().enumerate() {
            let mut shape = output.shape.clone();
            if in_rows {
                shape.dimensions_mut()[0] = 1;
            }
            let start = if in_rows { row * row_bytes } else { 0 };
            // Copied: the sequence may live long, and the memory belongs to the batch.
            let data = Bytes::copy_from_slice(&output.data[start..start + row_bytes]);
            own.push(Tensor { name: state.input.clone(), datatype: state.datatype, shape, data });
        }
    }
    Ok((outputs, states))
}
