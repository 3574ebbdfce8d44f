//! The front door: one `Engine` for each reactor, over what all reactors share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use kingpole_values::{ByteString, Code, Error, InferRequest, Parameter, Parameters};
use tokio::sync::{Notify, mpsc};

use crate::batch::PARTS_ON_THE_WAY;
use crate::departures::Departures;
use crate::inline::{self, InlineQueues};
use crate::pending::{Answer, Pending};
use crate::relay::{Relay, relay};
use crate::shared::Shared;
use crate::{Pipeline, Placement, Pool, Responder, pipeline, validate};

struct Reactor {
    shared: Arc<Shared>,
    index: usize,
    wake: Arc<Notify>,
    departures: Arc<Departures>,
    /// Requests admitted here so far; shows whether the sockets have gone calm.
    arrived: Cell<u64>,
    /// Whether `run` is between its waits, so that it needs no waking.
    running: Cell<bool>,
    queues: RefCell<InlineQueues>,
    /// Pools that this reactor should look at.
    touched: RefCell<Vec<Arc<Pool>>>,
    /// When a pool asked to be looked at again.
    look_again_us: Cell<Option<u64>>,
    /// Deadlines of requests this reactor handed to pools: (deadline, pool, sequence).
    deadlines: RefCell<BTreeMap<(u64, usize, u64), Arc<Pool>>>,
    deadlines_after_sweep: Cell<usize>,
}

/// One reactor's handle on the core. Cheap to clone; stays on its thread.
#[derive(Clone)]
pub struct Engine {
    reactor: Rc<Reactor>,
}

/// What parameters take of a queue's bytes.
fn parameter_bytes(parameters: &Parameters) -> usize {
    let of = |(name, value): &(ByteString, Parameter)| {
        name.len() + if let Parameter::String(text) = value { text.len() } else { size_of::<u64>() }
    };
    parameters.iter().map(of).sum()
}

/// How many looks at the sockets must bring nothing before a batch leaves. Measured: one look left
/// batches at a third of the size, three cost latency and gained nothing.
const CALM_LOOKS: u32 = 2;

impl Engine {
    pub(crate) fn shared(&self) -> &Shared {
        &self.reactor.shared
    }

    /// The engine of reactor number `index`.
    pub fn new(shared: Arc<Shared>, index: usize) -> Self {
        let wake = Arc::new(Notify::new());
        shared.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(wake.clone());
        let reactor = Reactor {
            shared,
            index,
            departures: Departures::new(Arc::clone(&wake)),
            wake,
            arrived: Cell::new(0),
            running: Cell::new(false),
            queues: RefCell::default(),
            touched: RefCell::default(),
            look_again_us: Cell::new(None),
            deadlines: RefCell::default(),
            deadlines_after_sweep: Cell::new(1024),
        };
        Self { reactor: Rc::new(reactor) }
    }

    /// Validate, admit and queue a request. Never blocks; the answer may come at once.
    pub fn infer(&self, request: InferRequest, received: Instant, responder: Box<dyn Responder>) {
        if self.reactor.shared.draining.load(Relaxed) {
            self.count_refused(Code::Unavailable);
            return Answer::new(responder).give(Err(Error::unavailable("the server is shutting down")));
        }
        self.infer_step(request, received, responder);
    }

    /// The same for a request that an admitted one needs, so that it is taken while the server drains, too.
    pub(crate) fn infer_step(
        &self,
        mut request: InferRequest,
        received: Instant,
        responder: Box<dyn Responder>,
    ) {
        let shared = &self.reactor.shared;
        let answer = Answer::new(responder);
        let registry = shared.registry.load();
        let model = match registry.find(&request.model, request.version.as_deref()) {
            Ok(model) => model.clone(),
            Err(error) => {
                self.count_refused(error.code);
                return answer.give(Err(error));
            }
        };
        drop(registry);
        let validated = match validate(&model.spec, &mut request) {
            Ok(validated) => validated,
            Err(error) => {
                model.metrics.record_refused(self.reactor.index, error.code);
                return answer.give(Err(error));
            }
        };
        if model.spec.decoupled && !answer.takes_parts() {
            model.metrics.record_refused(self.reactor.index, Code::Unimplemented);
            return answer.give(Err(Error::new(
                Code::Unimplemented,
                format!(
                    "model '{}' answers a request with any number of responses, which this call cannot carry; \
                     use a streaming one",
                    model.spec.name
                ),
            )));
        }
        if model.spec.sequence.is_some() && validated.rows != 1 {
            model.metrics.record_refused(self.reactor.index, Code::InvalidArgument);
            return answer.give(Err(Error::invalid(format!(
                "inference request to model '{}' must have batch size 1, as it belongs to a sequence; it has {} rows",
                model.spec.name, validated.rows
            ))));
        }
        let enqueued_us = shared.clock.at_us(received);
        let timeout_us = request.timeout_us.or(model.spec.default_timeout_us);
        let pending = Pending {
            reactor: self.reactor.index,
            inputs: validated.inputs,
            outputs: validated.outputs,
            rows: validated.rows,
            bytes: validated.bytes + parameter_bytes(&request.parameters),
            inputs_may_change: request.inputs_may_change,
            id: request.id,
            parameters: request.parameters,
            enqueued_us,
            deadline_us: timeout_us.map(|timeout_us| enqueued_us.saturating_add(timeout_us)),
            attempts: 0,
            given: 0,
            given_us: enqueued_us,
            alone: false,
            sequence: request.sequence.filter(|_| model.takes_sequences()),
            in_batch: false,
            doom: None,
            relayed: None,
            answer,
            model,
        };
        self.admit(pending);
    }

    fn admit(&self, pending: Pending) {
        let reactor = &self.reactor;
        let shard = pending.model.metrics.shard(reactor.index);
        shard.admitted.fetch_add(1, Relaxed);
        let now_us = pending.enqueued_us;
        if pending.deadline_us == Some(now_us) {
            return pending.expire(now_us);
        }
        let limit_bytes = reactor.shared.configuration.queue_bytes;
        match &pending.model.placement {
            Placement::Inline(_) => {
                if let Err(pending) = reactor.queues.borrow_mut().push(pending, limit_bytes) {
                    let error = Error::exhausted(format!(
                        "the queue of model '{}' is full, the limit is {limit_bytes} bytes",
                        pending.model.spec.name
                    ));
                    return pending.fail(error, now_us);
                }
            }
            Placement::Pipeline(pipeline) => {
                return self.enter(Arc::clone(pipeline), pending, limit_bytes);
            }
            Placement::Lanes(pool, handle) => {
                let (pool, handle, deadline_us) = (pool.clone(), *handle, pending.deadline_us);
                match pool.submit(pending, handle, limit_bytes, &reactor.departures) {
                    Ok(sequence) => self.watch(&pool, sequence, deadline_us),
                    Err(refused) => {
                        let (pending, error) = *refused;
                        return pending.fail(error, now_us);
                    }
                }
                self.touch(pool);
            }
        }
        reactor.arrived.set(reactor.arrived.get() + 1);
        if !reactor.running.get() {
            reactor.wake.notify_one();
        }
    }

    /// Begin a request's way through a pipeline, on this reactor.
    fn enter(&self, pipeline: Arc<Pipeline>, pending: Pending, limit_bytes: usize) {
        let bytes = pending.bytes;
        if !pipeline.take_in(bytes, limit_bytes) {
            let error = Error::exhausted(format!(
                "pipeline '{}' is full, the limit is {limit_bytes} bytes",
                pending.model.spec.name
            ));
            let now_us = pending.enqueued_us;
            return pending.fail(error, now_us);
        }
        let engine = self.clone();
        tokio::task::spawn_local(async move {
            pipeline::run(engine, Arc::clone(&pipeline), pending).await;
            pipeline.let_go(bytes);
        });
    }

    fn touch(&self, pool: Arc<Pool>) {
        let mut touched = self.reactor.touched.borrow_mut();
        if !touched.iter().any(|known| Arc::ptr_eq(known, &pool)) {
            touched.push(pool);
        }
    }

    fn watch(&self, pool: &Arc<Pool>, sequence: u64, deadline_us: Option<u64>) {
        let Some(deadline_us) = deadline_us else { return };
        let mut deadlines = self.reactor.deadlines.borrow_mut();
        deadlines.insert((deadline_us, pool.number(), sequence), pool.clone());
        // Answered requests leave their entry behind until its time; sweep when they pile up.
        if deadlines.len() > 2 * self.reactor.deadlines_after_sweep.get() {
            deadlines.retain(|&(_, _, sequence), pool| pool.holds(sequence));
            self.reactor.deadlines_after_sweep.set(deadlines.len().max(1024));
        }
    }

    /// Drive this reactor's batching, for ever. Spawn it once, on the reactor's thread.
    pub async fn run(self) {
        let reactor = &self.reactor;
        loop {
            reactor.running.set(false);
            match self.next_wake_us() {
                None => reactor.wake.notified().await,
                Some(at_us) => {
                    let at = tokio::time::Instant::from_std(reactor.shared.clock.instant(at_us));
                    tokio::select! {
                        () = reactor.wake.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
            reactor.running.set(true);
            loop {
                self.settle().await;
                self.expire();
                reactor.departures.settle(reactor.shared.clock.now_us());
                if !self.dispatch() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn next_wake_us(&self) -> Option<u64> {
        let reactor = &self.reactor;
        let deadline_us = reactor.deadlines.borrow().first_key_value().map(|(key, _)| key.0);
        let inline_us = reactor.queues.borrow().wake_us();
        [deadline_us, inline_us, reactor.look_again_us.get()].into_iter().flatten().min()
    }

    /// Let every readable socket be read before a batch is formed, so that the batch is as large as
    /// what has arrived. This, not a delay, is what makes batches grow under load.
    async fn settle(&self) {
        let reactor = &self.reactor;
        let mut calm = 0;
        let mut seen = reactor.arrived.get();
        while calm < CALM_LOOKS {
            tokio::task::yield_now().await;
            let arrived = reactor.arrived.get();
            if arrived == seen {
                calm += 1;
                continue;
            }
            calm = 0;
            seen = arrived;
            if reactor.queues.borrow().has_full_batch() {
                break;
            }
        }
    }

    /// Answer every request in a pool whose deadline has come.
    fn expire(&self) {
        let reactor = &self.reactor;
        let now_us = reactor.shared.clock.now_us();
        loop {
            let due = {
                let mut deadlines = reactor.deadlines.borrow_mut();
                let entry = deadlines.first_entry().filter(|entry| entry.key().0 <= now_us);
                entry.map(std::collections::btree_map::OccupiedEntry::remove_entry)
            };
            let Some(((_, _, sequence), pool)) = due else { break };
            pool.expire(sequence, now_us);
        }
    }

    /// Send what can be sent. True if a batch ran here, so that there may be more.
    fn dispatch(&self) -> bool {
        let reactor = &self.reactor;
        let clock = reactor.shared.clock;
        reactor.look_again_us.set(None);
        let touched = std::mem::take(&mut *reactor.touched.borrow_mut());
        for pool in touched {
            let (batches, look_again_us, lacks_lanes) = pool.dispatch(clock.now_us());
            if let Some(at_us) = look_again_us {
                let earliest = reactor.look_again_us.get().map_or(at_us, |other| other.min(at_us));
                reactor.look_again_us.set(Some(earliest));
                self.touch(pool.clone());
            } else if lacks_lanes {
                // `Shared::wake` follows the next lane; this reactor must then know where to look.
                self.touch(pool.clone());
            }
            for batch in batches {
                self.start(&pool, batch);
            }
        }
        let mut queues = reactor.queues.borrow_mut();
        if queues.is_empty() {
            return false;
        }
        let Some((batch, reason)) = queues.take(clock) else { return false };
        inline::run(batch, reason, clock, reactor.index, &mut queues);
        true
    }

    /// Hand a batch to its lane, and look at the pool again when it is done.
    fn start(&self, pool: &Arc<Pool>, mut batch: crate::pool::Dispatched) {
        let (engine, pool) = (self.clone(), pool.clone());
        let Some(mut inputs) = batch.batch.take() else { return };
        let relayed = batch.answered.take().map(|answered| {
            let (sender, parts) = mpsc::channel(PARTS_ON_THE_WAY);
            inputs.parts = Some(sender);
            Relay { parts, answered }
        });
        let running = batch.lane.execute(batch.handle, inputs);
        tokio::task::spawn_local(async move {
            let result = match relayed {
                None => running.await,
                Some(relayed) => relay((&pool, engine.reactor.shared.clock), &batch, running, relayed).await,
            };
            let reactor = &engine.reactor;
            pool.complete(&batch, result, reactor.shared.clock, reactor.index);
            engine.touch(pool);
            reactor.wake.notify_one();
        });
    }

    /// Wait until the last connection of every reactor has ended. Any reactor may be reading a worker's
    /// answers, or running the batch, for a request of another, so none may end before all can.
    pub async fn all_connections_ended(&self) {
        self.reactor.shared.last_connection.wait().await;
    }
}
