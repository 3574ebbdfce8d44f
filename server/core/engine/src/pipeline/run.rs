//! One request on its way through a pipeline: which steps can start, what they answered, when to stop.
//!
//! Every step is asked as a client would ask, so that its batches are formed with everybody else's rows. Dropping the
//! run drops what it still waits for, which takes it out of its queues.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Instant;

use kingpole_values::{
    ByteString, Code, Error, InferRequest, Parameters, RequestedOutput, Result, Sequence, Tensor, Timing,
};

use super::rows::{Parting, apart, nothing, parting, together};
use super::{Pipeline, Step};
use crate::pending::Pending;
use crate::{Engine, waiter};

/// A request whose time is less than this part of what its way needs, by what was learned, is refused. What was learned
/// is a mean, and a request may be luckier.
const HOPELESS_PART: u64 = 2;

/// A tensor of one run.
enum Slot {
    /// A step that gives it has not ended.
    Awaited,
    /// The steps that would have given it did not run.
    Absent,
    Here(Tensor),
}

/// What all steps of a run are asked with.
struct Carried {
    deadline_us: Option<u64>,
    parameters: Parameters,
    sequence: Option<Sequence>,
    inputs_may_change: bool,
}

type StepFuture = Pin<Box<dyn Future<Output = Result<Vec<Tensor>>>>>;

struct Run {
    engine: Engine,
    pipeline: Arc<Pipeline>,
    carried: Arc<Carried>,
    slots: Vec<Slot>,
    /// Steps that were neither started nor left out.
    unstarted: Vec<usize>,
    running: Vec<(usize, StepFuture)>,
    ended: Vec<bool>,
    ahead_us: Vec<u64>,
}

/// Take a request through its pipeline and answer it.
pub(crate) async fn run(engine: Engine, pipeline: Arc<Pipeline>, mut pending: Pending) {
    let clock = engine.shared().clock;
    let mut run = Run::new(engine, &pipeline, &mut pending);
    let began_us = clock.now_us();
    let deadline = pending.deadline_us.map(|at_us| tokio::time::Instant::from_std(clock.instant(at_us)));
    let expired = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        biased;
        result = run.finish() => Some(result),
        () = expired => None,
        () = std::future::poll_fn(|cx| pending.answer.poll_cancelled(cx)) => {
            drop(run);
            return pending.discard(clock.now_us());
        }
    };
    let now_us = clock.now_us();
    match result {
        None => pending.expire(now_us),
        Some(Err(error)) => pending.fail(error, now_us),
        Some(Ok(())) => {
            let outputs = run.outputs(&pending);
            let execute_us = now_us.saturating_sub(began_us);
            if let Ok(mut profile) = pending.model.profile.lock() {
                profile.record(pending.rows, execute_us);
            }
            let queue_us = began_us.saturating_sub(pending.enqueued_us);
            let batch_rows = if pending.model.spec.max_batch_size > 0 { pending.rows } else { 0 };
            pending.respond(outputs, Timing { queue_us, execute_us, batch_rows, reason: "pipeline" }, now_us);
        }
    }
}

impl Run {
    fn new(engine: Engine, pipeline: &Arc<Pipeline>, pending: &mut Pending) -> Self {
        let mut slots: Vec<Slot> = pipeline.tensors.iter().map(|_| Slot::Awaited).collect();
        let inputs = std::mem::take(&mut pending.inputs);
        for (&slot, tensor) in pipeline.inputs.iter().zip(inputs) {
            slots[slot] = tensor.map_or(Slot::Absent, Slot::Here);
        }
        let carried = Carried {
            deadline_us: pending.deadline_us,
            parameters: std::mem::take(&mut pending.parameters),
            sequence: pending.sequence.take(),
            inputs_may_change: pending.inputs_may_change,
        };
        let ahead_us = if pending.deadline_us.is_some() {
            pipeline.ahead_us(&pipeline.expected_us(&engine))
        } else {
            vec![0; pipeline.steps.len()]
        };
        Self {
            engine,
            carried: Arc::new(carried),
            slots,
            unstarted: (0..pipeline.steps.len()).collect(),
            running: Vec::new(),
            ended: vec![false; pipeline.steps.len()],
            ahead_us,
            pipeline: Arc::clone(pipeline),
        }
    }

    async fn finish(&mut self) -> Result<()> {
        loop {
            self.start_what_can()?;
            if self.running.is_empty() {
                return Ok(());
            }
            let (position, result) = std::future::poll_fn(|cx| self.poll_running(cx)).await;
            let step = &self.pipeline.steps[position];
            let outputs = result.map_err(|error| self.pipeline.of_step(step, &error))?;
            for (&(_, slot), tensor) in step.outputs.iter().zip(outputs) {
                let name = self.pipeline.tensors[slot].clone();
                self.slots[slot] = Slot::Here(Tensor { name, ..tensor });
            }
            self.ended[position] = true;
        }
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Result<Vec<Tensor>>)> {
        for index in 0..self.running.len() {
            if let Poll::Ready(result) = self.running[index].1.as_mut().poll(cx) {
                let (position, _) = self.running.swap_remove(index);
                return Poll::Ready((position, result));
            }
        }
        Poll::Pending
    }

    /// Start every step whose tensors are there, and leave out those whose tensors will never be.
    fn start_what_can(&mut self) -> Result<()> {
        // Steps are in order, so that one that is left out is known to be before those that need it are looked at.
        for position in std::mem::take(&mut self.unstarted) {
            let step = &self.pipeline.steps[position];
            if !step.after.iter().all(|&before| self.ended[before]) {
                self.unstarted.push(position);
            } else if self.is_wanted(step)? {
                self.refuse_the_hopeless(position)?;
                let future = ask(
                    self.engine.clone(),
                    Arc::clone(&self.pipeline),
                    position,
                    Arc::clone(&self.carried),
                    self.inputs_of(step),
                );
                self.running.push((position, Box::pin(future)));
            } else {
                for &(_, slot) in &step.outputs {
                    // Another step, whose condition is the opposite, may have given it.
                    if matches!(self.slots[slot], Slot::Awaited) {
                        self.slots[slot] = Slot::Absent;
                    }
                }
                self.ended[position] = true;
            }
        }
        Ok(())
    }

    fn is_wanted(&self, step: &Step) -> Result<bool> {
        if let Some((slot, wanted)) = step.condition {
            let Slot::Here(tensor) = &self.slots[slot] else { return Ok(false) };
            let &[value] = &tensor.data[..] else {
                let message = format!(
                    "its condition '{}' must be one BOOL, but has shape {}",
                    self.pipeline.tensors[slot], tensor.shape
                );
                return Err(self.pipeline.of_step(step, &Error::invalid(message)));
            };
            if (value != 0) != wanted {
                return Ok(false);
            }
        }
        let is_here = |slot: usize| matches!(self.slots[slot], Slot::Here(_));
        Ok(step.inputs.iter().all(|input| input.optional || is_here(input.tensor)))
    }

    fn inputs_of(&self, step: &Step) -> Vec<Tensor> {
        let tensor = |input: &super::StepInput| match &self.slots[input.tensor] {
            Slot::Here(tensor) => Some(Tensor { name: input.name.clone(), ..tensor.clone() }),
            Slot::Absent | Slot::Awaited => None,
        };
        step.inputs.iter().filter_map(tensor).collect()
    }

    fn refuse_the_hopeless(&self, position: usize) -> Result<()> {
        let Some(deadline_us) = self.carried.deadline_us else { return Ok(()) };
        let left_us = deadline_us.saturating_sub(self.engine.shared().clock.now_us());
        let needed_us = self.ahead_us[position];
        if left_us >= needed_us / HOPELESS_PART {
            return Ok(());
        }
        let message = format!("{left_us} µs are left, and from here on it takes about {needed_us} µs");
        let error = Error::new(Code::DeadlineExceeded, message);
        Err(self.pipeline.of_step(&self.pipeline.steps[position], &error))
    }

    /// The tensors that the client wants, in its order.
    fn outputs(&self, pending: &Pending) -> Vec<Tensor> {
        let tensor = |&output: &u16| match &self.slots[self.pipeline.outputs[usize::from(output)]] {
            Slot::Here(tensor) => Some(tensor.clone()),
            Slot::Absent | Slot::Awaited => None,
        };
        pending.outputs.iter().filter_map(tensor).collect()
    }
}

impl Pipeline {
    /// What each step takes at least, by what its model took so far; 0 where that is not known or it may not run.
    fn expected_us(&self, engine: &Engine) -> Vec<u64> {
        let registry = engine.shared().registry.load();
        let of_step = |step: &Step| {
            let model = registry.find(&step.model, step.version.as_deref()).ok()?;
            let profile = model.profile.lock().ok()?;
            profile.expected_us(1).filter(|_| step.condition.is_none() && !step.each_row)
        };
        self.steps.iter().map(|step| of_step(step).unwrap_or(0)).collect()
    }

    /// Take a request's bytes into the pipeline, if there is room for them.
    pub(crate) fn take_in(&self, bytes: usize, limit_bytes: usize) -> bool {
        let fits = |held: usize| {
            let total = held.saturating_add(bytes);
            // One request alone always fits, however large.
            (held == 0 || total <= limit_bytes).then_some(total)
        };
        self.held_bytes.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    /// A request that was taken in has ended.
    pub(crate) fn let_go(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, Relaxed);
    }
}

/// Ask a step's model. Gives the outputs in the step's order.
async fn ask(
    engine: Engine,
    pipeline: Arc<Pipeline>,
    position: usize,
    carried: Arc<Carried>,
    inputs: Vec<Tensor>,
) -> Result<Vec<Tensor>> {
    let step = &pipeline.steps[position];
    let model = engine.model(&step.model, step.version.as_deref())?;
    let (rows, parting) = parting(&model, step.each_row, &inputs)?;
    if parting == Parting::Nothing {
        return step.outputs.iter().map(|(output, _)| nothing(&model, output, step.each_row)).collect();
    }
    let mut waiting = Vec::new();
    for inputs in apart(inputs, rows, parting)? {
        let (responder, answer) = waiter();
        engine.infer_step(request(&engine, step, &carried, inputs), Instant::now(), responder);
        waiting.push(answer);
    }
    let mut by_output: Vec<Vec<Tensor>> =
        step.outputs.iter().map(|_| Vec::with_capacity(waiting.len())).collect();
    for answer in waiting {
        let response =
            answer.await.unwrap_or_else(|_| Err(Error::internal("a step was dropped unanswered")))?;
        for (tensors, tensor) in by_output.iter_mut().zip(response.outputs) {
            tensors.push(tensor);
        }
    }
    by_output.into_iter().map(|answers| together(answers, parting)).collect()
}

fn request(engine: &Engine, step: &Step, carried: &Carried, inputs: Vec<Tensor>) -> InferRequest {
    let output =
        |(name, _): &(ByteString, usize)| RequestedOutput { name: name.clone(), parameters: Vec::new() };
    InferRequest {
        model: step.model.clone(),
        version: step.version.clone(),
        inputs,
        outputs: step.outputs.iter().map(output).collect(),
        parameters: carried.parameters.clone(),
        timeout_us: carried.deadline_us.map(|at_us| at_us.saturating_sub(engine.shared().clock.now_us())),
        sequence: carried.sequence.clone(),
        inputs_may_change: carried.inputs_may_change,
        ..InferRequest::default()
    }
}
