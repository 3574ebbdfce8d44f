//! What a client sees of deadlines, batching and replacement, through the engine's front door.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kingpole_engine::{
    Clock, Engine, EngineConfiguration, InlineModel, Lane, LaneBatch, LaneFailure, LaneFuture, LaneOutcome,
    Model, ModelSpec, Placement, Pool, Profile, Responder, ServerInfo, Shared, TensorSpec, waiter,
};
use kingpole_values::{
    Code, Datatype, Error, InferRequest, InferResponse, Parameter, Parameters, Result, Shape, Stage, Tensor,
};
use tokio::sync::mpsc;

fn shared() -> Arc<Shared> {
    let info = ServerInfo { name: "kingpole", version: "0", extensions: vec![] };
    let configuration = EngineConfiguration { reactors: 1, queue_bytes: 64, default_model: None, info };
    Shared::new(configuration, Clock::new(Instant::now())).0
}

fn specification(name: &'static str, version: &'static str) -> ModelSpec {
    let tensor = |name: &'static str| TensorSpec {
        name: name.into(),
        datatype: Datatype::Uint8,
        shape: Shape::new(&[-1]),
        optional: false,
    };
    ModelSpec {
        name: name.into(),
        version: version.into(),
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
        max_batch_size: 8,
        ..ModelSpec::default()
    }
}

/// Adds a number to every element, and remembers how many rows each batch had.
struct Add(u8, Arc<Mutex<Vec<i64>>>);

impl InlineModel for Add {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.1.lock().unwrap().push(inputs[0].shape[0]);
        let data: Vec<u8> = inputs[0].data.iter().map(|value| value + self.0).collect();
        Ok(vec![Tensor { name: "y".into(), data: data.into(), ..inputs[0].clone() }])
    }
}

/// A lane that never finishes.
struct Stuck;

impl Lane for Stuck {
    fn execute(&self, _handle: u32, _batch: LaneBatch) -> LaneFuture {
        Box::pin(std::future::pending())
    }
}

struct Channel(mpsc::UnboundedSender<Result<InferResponse>>);

impl Responder for Channel {
    fn answer(self: Box<Self>, result: Result<InferResponse>) {
        let _ = self.0.send(result);
    }
}

fn ask(
    engine: &Engine,
    model: &'static str,
    values: &[u8],
    timeout_us: Option<u64>,
) -> mpsc::UnboundedReceiver<Result<InferResponse>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let input = Tensor {
        name: "x".into(),
        datatype: Datatype::Uint8,
        shape: Shape::new(&[i64::try_from(values.len()).unwrap()]),
        data: Bytes::copy_from_slice(values),
    };
    let request =
        InferRequest { model: model.into(), inputs: vec![input], timeout_us, ..InferRequest::default() };
    engine.infer(request, Instant::now(), Box::new(Channel(sender)));
    receiver
}

fn on_a_reactor(test: impl AsyncFnOnce(Arc<Shared>, Engine)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let shared = shared();
        let engine = Engine::new(shared.clone(), 0);
        tokio::task::spawn_local(engine.clone().run());
        test(shared, engine).await;
    });
}

fn publish_inline(shared: &Shared, version: &'static str, add: u8) -> Arc<Mutex<Vec<i64>>> {
    let batches = Arc::default();
    let placement = Placement::Inline(Arc::new(Add(add, Arc::clone(&batches))));
    shared.publish(Model::new(specification("m", version), placement, Profile::default(), 1).0);
    batches
}

#[test]
fn what_arrived_together_leaves_as_one_batch() {
    on_a_reactor(async |shared, engine| {
        let batches = publish_inline(&shared, "1", 1);
        let mut answers: Vec<_> = (0..5).map(|value| ask(&engine, "m", &[value, value], None)).collect();
        for (value, answer) in (0..).zip(&mut answers) {
            let response = answer.recv().await.unwrap().unwrap();
            assert_eq!(response.outputs[0].data, vec![value + 1; 2]);
            assert_eq!(response.outputs[0].shape, Shape::new(&[2]));
        }
        assert_eq!(*batches.lock().unwrap(), [8, 2], "10 rows, at most 8 together");
    });
}

#[test]
fn a_deadline_is_kept_while_the_lane_is_stuck() {
    on_a_reactor(async |shared, engine| {
        let pool = Pool::new(1);
        let placement = Placement::Lanes(pool.clone(), 1);
        shared.publish(Model::new(specification("m", "1"), placement, Profile::default(), 1).0);
        pool.attach(0, Arc::new(Stuck));
        let _running = ask(&engine, "m", &[1], None);
        let mut in_lane = ask(&engine, "m", &[2], Some(20_000));
        tokio::task::yield_now().await;
        let mut queued = ask(&engine, "m", &[3], Some(10_000));
        let began = Instant::now();
        assert_eq!(queued.recv().await.unwrap().unwrap_err().code, Code::DeadlineExceeded);
        assert_eq!(in_lane.recv().await.unwrap().unwrap_err().code, Code::DeadlineExceeded);
        assert!(began.elapsed().as_millis() < 2_000, "answered at the deadline, not when a lane is free");
    });
}

/// A lane that echoes.
struct Echo;

impl Lane for Echo {
    fn execute(&self, _handle: u32, batch: LaneBatch) -> LaneFuture {
        let input = &batch.inputs[0];
        let data: Vec<u8> = input.pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        let output = Tensor {
            name: "y".into(),
            datatype: input.datatype,
            shape: input.shape.clone(),
            data: data.into(),
        };
        Box::pin(std::future::ready(Ok(LaneOutcome { outputs: vec![output], execute_us: 1 })))
    }
}

/// A lane that gives each element of its input as a response of its own.
struct OneByOne;

impl Lane for OneByOne {
    fn execute(&self, _handle: u32, mut batch: LaneBatch) -> LaneFuture {
        let parts = batch.parts.take();
        Box::pin(async move {
            let parts = parts.expect("a decoupled model's batch has a listener");
            for &value in &batch.inputs[0].pieces[0] {
                let shape = Shape::new(&[1]);
                let data = Bytes::copy_from_slice(&[value]);
                let part = Tensor { name: "y".into(), datatype: Datatype::Uint8, shape, data };
                if parts.send(vec![part]).await.is_err() {
                    break;
                }
            }
            Ok(LaneOutcome { outputs: vec![], execute_us: 1 })
        })
    }
}

/// Takes responses one by one; `None` is the permit to take another.
struct Stream {
    responses: mpsc::UnboundedSender<Result<InferResponse>>,
    permits: mpsc::UnboundedReceiver<()>,
    given: Arc<Mutex<usize>>,
}

impl Responder for Stream {
    fn answer(self: Box<Self>, result: Result<InferResponse>) {
        let _ = self.responses.send(result);
    }

    fn is_cancelled(&mut self) -> bool {
        self.responses.is_closed()
    }

    fn takes_parts(&self) -> bool {
        true
    }

    fn part(&mut self, response: InferResponse) {
        *self.given.lock().unwrap() += 1;
        let _ = self.responses.send(Ok(response));
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.permits.poll_recv(cx).map(|_| ())
    }
}

fn publish_decoupled(shared: &Shared) -> Arc<Pool> {
    let pool = Pool::new(1);
    let spec = ModelSpec { decoupled: true, ..specification("m", "1") };
    let placement = Placement::Lanes(pool.clone(), 1);
    shared.publish(Model::new(spec, placement, Profile::default(), 1).0);
    pool.attach(0, Arc::new(OneByOne));
    pool
}

type Asked = (mpsc::UnboundedReceiver<Result<InferResponse>>, mpsc::UnboundedSender<()>, Arc<Mutex<usize>>);

fn ask_for_parts(engine: &Engine, values: &[u8], timeout_us: Option<u64>) -> Asked {
    let ((responses, received), (permit, permits)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let input = Tensor {
        name: "x".into(),
        datatype: Datatype::Uint8,
        shape: Shape::new(&[i64::try_from(values.len()).unwrap()]),
        data: Bytes::copy_from_slice(values),
    };
    let request =
        InferRequest { model: "m".into(), inputs: vec![input], timeout_us, ..InferRequest::default() };
    let given = Arc::default();
    let stream = Stream { responses, permits, given: Arc::clone(&given) };
    engine.infer(request, Instant::now(), Box::new(stream));
    (received, permit, given)
}

#[test]
fn a_decoupled_model_gives_its_responses_one_by_one_and_then_the_end() {
    on_a_reactor(async |shared, engine| {
        publish_decoupled(&shared);
        let (mut received, permit, _) = ask_for_parts(&engine, &[5, 6, 7], None);
        drop(permit);
        for value in 5..8 {
            let response = received.recv().await.unwrap().unwrap();
            assert_eq!((response.stage, &response.outputs[0].data[..]), (Stage::Part, &[value][..]));
        }
        let end = received.recv().await.unwrap().unwrap();
        assert_eq!((end.stage, end.outputs.len()), (Stage::End, 0));
        assert!(received.recv().await.is_none(), "nothing follows the end");
        let counted = shared.statistics(Some("m"), None).unwrap().remove(0);
        let places: Vec<_> =
            counted.responses.iter().map(|place| (place.success.count, place.empty.count)).collect();
        assert_eq!(places, [(1, 0), (1, 0), (1, 0), (0, 1)], "three responses, and the end after them");
        assert_eq!((counted.success.count, counted.execution_count), (1, 1));
        assert_eq!(shared.in_flight(), 0);
    });
}

#[test]
fn a_decoupled_model_waits_for_a_client_that_takes_its_time() {
    on_a_reactor(async |shared, engine| {
        publish_decoupled(&shared);
        let (mut received, permit, given) = ask_for_parts(&engine, &[1; 8], None);
        for taken in 1..4 {
            permit.send(()).unwrap();
            received.recv().await.unwrap().unwrap();
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            assert_eq!(*given.lock().unwrap(), taken, "no more than it was ready for");
        }
    });
}

#[test]
fn a_client_that_leaves_or_a_deadline_ends_a_decoupled_batch() {
    on_a_reactor(async |shared, engine| {
        publish_decoupled(&shared);
        let (received, permit, _) = ask_for_parts(&engine, &[1; 8], None);
        drop(received);
        drop(permit);
        let (mut received, permit, _) = ask_for_parts(&engine, &[2; 8], Some(20_000));
        permit.send(()).unwrap();
        assert_eq!(received.recv().await.unwrap().unwrap().outputs[0].data[..], [2]);
        assert_eq!(received.recv().await.unwrap().unwrap_err().code, Code::DeadlineExceeded);
        drop(permit);
        let (mut received, _, _) = ask_for_parts(&engine, &[3], None);
        assert_eq!(
            received.recv().await.unwrap().unwrap().outputs[0].data[..],
            [3],
            "the lane is free again"
        );
        while received.recv().await.is_some() {}
        assert_eq!(shared.in_flight(), 0);
    });
}

#[test]
fn a_request_whose_client_goes_leaves_the_queue_while_no_lane_looks_at_it() {
    on_a_reactor(async |shared, engine| {
        let pool = Pool::new(1);
        let placement = Placement::Lanes(pool.clone(), 1);
        shared.publish(Model::new(specification("m", "1"), placement, Profile::default(), 1).0);
        let ask = |value: u8| {
            let (responder, answer) = waiter();
            let input = Tensor {
                name: "x".into(),
                datatype: Datatype::Uint8,
                shape: Shape::new(&[1]),
                data: Bytes::copy_from_slice(&[value]),
            };
            let request = InferRequest { model: "m".into(), inputs: vec![input], ..InferRequest::default() };
            engine.infer(request, Instant::now(), responder);
            answer
        };
        let (gone, stays) = (ask(1), ask(2));
        tokio::task::yield_now().await;
        assert_eq!(shared.in_flight(), 2);
        drop(gone);
        while shared.in_flight() == 2 {
            tokio::task::yield_now().await;
        }
        pool.attach(0, Arc::new(Echo));
        shared.wake();
        assert_eq!(stays.await.unwrap().unwrap().outputs[0].data[..], [2]);
        assert_eq!(shared.in_flight(), 0);
    });
}

/// A lane that gives up a client which takes nothing for a while.
struct Impatient;

impl Lane for Impatient {
    fn execute(&self, _handle: u32, mut batch: LaneBatch) -> LaneFuture {
        let parts = batch.parts.take();
        Box::pin(async move {
            let parts = parts.expect("a decoupled model's batch has a listener");
            loop {
                let shape = Shape::new(&[1]);
                let part = Tensor {
                    name: "y".into(),
                    datatype: Datatype::Uint8,
                    shape,
                    data: Bytes::from_static(&[1]),
                };
                let sent = tokio::time::timeout(Duration::from_millis(10), parts.send(vec![part])).await;
                if sent.is_err() {
                    let error = Error::new(Code::DeadlineExceeded, "nobody takes it");
                    return Err(LaneFailure::Batch(error));
                }
            }
        })
    }
}

#[test]
fn a_client_that_stops_reading_does_not_keep_the_lane() {
    on_a_reactor(async |shared, engine| {
        publish_decoupled(&shared).attach(0, Arc::new(Impatient));
        let (mut received, _permit, _) = ask_for_parts(&engine, &[1], None);
        let answer = tokio::time::timeout(Duration::from_secs(5), received.recv()).await;
        assert_eq!(answer.unwrap().unwrap().unwrap_err().code, Code::DeadlineExceeded);
        assert_eq!(shared.in_flight(), 0);
    });
}

#[test]
fn a_lane_that_cannot_be_had_leaves_the_others_working() {
    on_a_reactor(async |shared, engine| {
        let pool = Pool::new(2);
        let placement = Placement::Lanes(pool.clone(), 1);
        shared.publish(Model::new(specification("m", "1"), placement, Profile::default(), 1).0);
        pool.attach(0, Arc::new(Echo));
        let error = Error::unavailable("it does not start");
        pool.give_up(1, &error, shared.clock().now_us());
        let response = ask(&engine, "m", &[7], None).recv().await.unwrap().unwrap();
        assert_eq!(response.outputs[0].data[..], [7]);
        pool.detach(0);
        pool.give_up(0, &error, shared.clock().now_us());
        let error = ask(&engine, "m", &[7], None).recv().await.unwrap().unwrap_err();
        assert_eq!((error.code, &*error.message), (Code::Unavailable, "it does not start"));
        pool.attach(1, Arc::new(Echo));
        shared.wake();
        assert!(ask(&engine, "m", &[8], None).recv().await.unwrap().is_ok());
    });
}

#[test]
fn a_call_for_one_response_is_told_that_a_decoupled_model_gives_several() {
    on_a_reactor(async |shared, engine| {
        publish_decoupled(&shared);
        let error = ask(&engine, "m", &[1], None).try_recv().unwrap().unwrap_err();
        assert_eq!(error.code, Code::Unimplemented);
        assert!(error.message.contains("any number of responses"), "{error}");
    });
}

#[test]
fn parameters_count_in_the_queue_and_travel_with_their_rows() {
    on_a_reactor(async |shared, engine| {
        let pool = Pool::new(1);
        let placement = Placement::Lanes(pool.clone(), 1);
        shared.publish(Model::new(specification("m", "1"), placement, Profile::default(), 1).0);
        let mut asked = Vec::new();
        for (value, text) in [(1, ""), (2, "two"), (3, &*"x".repeat(100))] {
            let (responses, receiver) = mpsc::unbounded_channel();
            let input = Tensor {
                name: "x".into(),
                datatype: Datatype::Uint8,
                shape: Shape::new(&[1]),
                data: vec![value].into(),
            };
            let parameters = match text {
                "" => vec![],
                text => vec![("p".into(), Parameter::String(text.to_owned().into()))],
            };
            let request =
                InferRequest { model: "m".into(), inputs: vec![input], parameters, ..Default::default() };
            engine.infer(request, Instant::now(), Box::new(Channel(responses)));
            asked.push(receiver);
        }
        let error = asked[2].try_recv().unwrap().unwrap_err();
        assert_eq!(error.code, Code::ResourceExhausted, "its text alone is longer than the queue: {error}");
        let seen = Arc::new(Mutex::new(Vec::new()));
        pool.attach(0, Arc::new(Watching(Arc::clone(&seen))));
        shared.wake();
        for answer in &mut asked[..2] {
            answer.recv().await.unwrap().unwrap();
        }
        let two = vec![("p".into(), Parameter::String("two".into()))];
        assert_eq!(*seen.lock().unwrap(), [vec![vec![], two]]);
    });
}

/// A lane that echoes and remembers the parameters.
struct Watching(Arc<Mutex<Vec<Vec<Parameters>>>>);

impl Lane for Watching {
    fn execute(&self, handle: u32, batch: LaneBatch) -> LaneFuture {
        self.0.lock().unwrap().push(batch.parameters.clone());
        Echo.execute(handle, batch)
    }
}

#[test]
fn requests_that_wait_for_a_lane_run_when_one_comes() {
    on_a_reactor(async |shared, engine| {
        let pool = Pool::new(2);
        let placement = Placement::Lanes(pool.clone(), 1);
        shared.publish(Model::new(specification("m", "1"), placement, Profile::default(), 1).0);
        for (index, lane) in [Arc::new(Stuck) as Arc<dyn Lane>, Arc::new(Echo)].into_iter().enumerate() {
            let mut answer = ask(&engine, "m", &[7], None);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert!(answer.try_recv().is_err(), "nothing is there to run it");
            pool.attach(index, lane);
            shared.wake();
            if index == 1 {
                let response = answer.recv().await.unwrap().unwrap();
                assert_eq!(response.outputs[0].data[..], [7]);
            } else {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
}

#[test]
fn a_timeout_of_zero_is_answered_at_once() {
    on_a_reactor(async |shared, engine| {
        publish_inline(&shared, "1", 1);
        let mut answer = ask(&engine, "m", &[1], Some(0));
        assert_eq!(answer.try_recv().unwrap().unwrap_err().code, Code::DeadlineExceeded);
    });
}

#[test]
fn a_full_queue_refuses_at_once_and_forgets_nothing() {
    on_a_reactor(async |shared, engine| {
        let pool = Pool::new(1);
        shared
            .publish(Model::new(specification("m", "1"), Placement::Lanes(pool, 1), Profile::default(), 1).0);
        let _waiting: Vec<_> = (0..8).map(|_| ask(&engine, "m", &[0; 8], None)).collect();
        let mut refused = ask(&engine, "m", &[0; 8], None);
        let error = refused.try_recv().unwrap().unwrap_err();
        assert_eq!(error.code, Code::ResourceExhausted);
        assert!(error.message.contains("limit is 64"), "{error}");
        assert_eq!(shared.in_flight(), 8);
    });
}

#[test]
fn the_latest_version_answers_and_a_reload_takes_its_place() {
    on_a_reactor(async |shared, engine| {
        publish_inline(&shared, "9", 9);
        publish_inline(&shared, "10", 10);
        let response = ask(&engine, "m", &[0], None).recv().await.unwrap().unwrap();
        assert_eq!((&*response.version, &response.outputs[0].data[..]), ("10", &[10][..]));
        publish_inline(&shared, "10", 11);
        let response = ask(&engine, "m", &[0], None).recv().await.unwrap().unwrap();
        assert_eq!(response.outputs[0].data[..], [11]);
        assert_eq!(engine.versions("m"), ["9", "10"]);
    });
}

#[test]
fn an_unknown_model_is_named_and_draining_refuses() {
    on_a_reactor(async |shared, engine| {
        let error = ask(&engine, "nope", &[1], None).try_recv().unwrap().unwrap_err();
        assert_eq!(error.code, Code::NotFound);
        assert_eq!(error.message, "Request for unknown model: 'nope' is not found");
        publish_inline(&shared, "1", 1);
        shared.drain();
        let error = ask(&engine, "m", &[1], None).try_recv().unwrap().unwrap_err();
        assert_eq!(error.code, Code::Unavailable);
        assert!(shared.metrics().contains("kingpole_refused_total{code=\"NOT_FOUND\"} 1"));
    });
}
