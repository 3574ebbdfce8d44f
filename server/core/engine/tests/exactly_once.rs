//! Whatever is interleaved - requests, cancellations, deadlines, failing batches, dying lanes - each
//! request is answered exactly once, and a response holds the request's own rows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use kingpole_engine::{
    Clock, Engine, EngineConfiguration, InlineModel, Lane, LaneBatch, LaneFailure, LaneFuture, LaneOutcome,
    Model, ModelSpec, Placement, Pool, Profile, Responder, ServerInfo, Shared, TensorSpec,
};
use kingpole_values::{Code, Datatype, Error, InferRequest, InferResponse, Result, Shape, Tensor};
use proptest::prelude::*;
use tokio::sync::oneshot;

const LANES: usize = 2;

/// What a batch in a lane comes to.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    Failed,
    Lost,
    Hung,
    WrongRows,
}

#[derive(Clone, Debug)]
enum Step {
    /// Ask for rows of a model: inline or in a lane; maybe with a timeout; maybe cancelled at once.
    Infer { inline: bool, rows: u8, columns: u8, timeout_us: Option<u64>, cancelled: bool, poison: bool },
    /// Let the server run a little.
    Yield(u8),
    /// End the oldest batch in a lane.
    End(Fate),
    /// Lanes that were lost come back.
    Attach,
    /// No lane can be had for a while.
    GiveUp,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let infer = (any::<bool>(), 1..4u8, 1..3u8, prop::option::weighted(0.3, 0..400u64), any::<u8>())
        .prop_map(|(inline, rows, columns, timeout_us, dice)| Step::Infer {
            inline,
            rows,
            columns,
            timeout_us,
            cancelled: dice % 7 == 0,
            poison: dice % 11 == 0,
        });
    let fate = prop_oneof![
        4 => Just(Fate::Done), 2 => Just(Fate::Failed), 2 => Just(Fate::Lost),
        1 => Just(Fate::Hung), 1 => Just(Fate::WrongRows)
    ];
    let step = prop_oneof![
        8 => infer,
        3 => (1..6u8).prop_map(Step::Yield),
        5 => fate.prop_map(Step::End),
        2 => Just(Step::Attach),
        1 => Just(Step::GiveUp),
    ];
    prop::collection::vec(step, 1..60)
}

/// Batches that wait in lanes for the script to end them.
#[derive(Default)]
struct Running(Mutex<Vec<(LaneBatch, oneshot::Sender<Fate>)>>);

struct ScriptedLane(Arc<Running>);

impl Lane for ScriptedLane {
    fn execute(&self, _handle: u32, batch: LaneBatch) -> LaneFuture {
        let (sender, receiver) = oneshot::channel();
        self.0.0.lock().unwrap().push((batch.clone(), sender));
        Box::pin(async move {
            match receiver.await.unwrap_or(Fate::Lost) {
                Fate::Done => Ok(LaneOutcome { outputs: echo(&batch, 0), execute_us: 1 }),
                Fate::WrongRows => Ok(LaneOutcome { outputs: echo(&batch, 1), execute_us: 1 }),
                Fate::Failed => Err(LaneFailure::Batch(Error::internal("the script says so"))),
                Fate::Lost => Err(LaneFailure::Lost(Error::unavailable("the lane is gone"))),
                Fate::Hung => Err(LaneFailure::Hung(Error::internal("the batch does not end"))),
            }
        })
    }
}

fn echo(batch: &LaneBatch, extra_rows: i64) -> Vec<Tensor> {
    let input = &batch.inputs[0];
    let mut shape = input.shape.clone();
    shape.dimensions_mut()[0] += extra_rows;
    let data: Vec<u8> = input.pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
    vec![Tensor { name: "y".into(), datatype: input.datatype, shape, data: Bytes::from(data) }]
}

/// Echoes, but fails any batch that holds a poisoned value.
struct Echo;

impl InlineModel for Echo {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        assert_eq!(inputs[0].data.as_ptr().addr() % 64, 0, "inputs are aligned");
        if inputs[0].data.chunks_exact(4).any(|value| value == f32::MAX.to_le_bytes()) {
            return Err(Error::internal("poisoned"));
        }
        Ok(vec![Tensor { name: "y".into(), ..inputs[0].clone() }])
    }
}

struct Recorder {
    number: usize,
    cancelled: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Vec<Result<InferResponse>>>>>,
}

impl Responder for Recorder {
    fn answer(self: Box<Self>, result: Result<InferResponse>) {
        self.answers.lock().unwrap()[self.number].push(result);
    }

    fn is_cancelled(&mut self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

fn specification(name: &'static str) -> ModelSpec {
    let tensor = |name: &'static str| TensorSpec {
        name: name.into(),
        datatype: Datatype::Fp32,
        shape: Shape::new(&[-1, -1]),
        optional: false,
    };
    ModelSpec {
        name: name.into(),
        version: "1".into(),
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
        max_batch_size: 6,
        ..ModelSpec::default()
    }
}

#[allow(clippy::struct_excessive_bools, reason = "what the script chose for a request, each by itself")]
struct Sent {
    data: Bytes,
    poison: bool,
    inline: bool,
    has_timeout: bool,
    cancelled: bool,
}

struct World {
    engine: Engine,
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    running: Arc<Running>,
    answers: Arc<Mutex<Vec<Vec<Result<InferResponse>>>>>,
    sent: Vec<Sent>,
}

impl World {
    fn new() -> Self {
        let info = ServerInfo { name: "kingpole", version: "0", extensions: vec![] };
        let configuration =
            EngineConfiguration { reactors: 1, queue_bytes: 1 << 12, default_model: None, info };
        let (shared, _control) = Shared::new(configuration, Clock::new(Instant::now()));
        let pool = Pool::new(LANES);
        let lanes = Placement::Lanes(pool.clone(), 1);
        shared.publish(Model::new(specification("lane"), lanes, Profile::default(), 1).0);
        let inline = Placement::Inline(Arc::new(Echo));
        shared.publish(Model::new(specification("inline"), inline, Profile::default(), 1).0);
        let engine = Engine::new(shared.clone(), 0);
        let (running, answers) = (Arc::default(), Arc::default());
        let world = Self { engine, shared, pool, running, answers, sent: Vec::new() };
        world.attach();
        world
    }

    fn attach(&self) {
        for index in 0..LANES {
            // An attached lane may still run a batch: replacing it stands for a restarted process.
            self.pool.attach(index, Arc::new(ScriptedLane(self.running.clone())));
        }
        self.shared.wake();
    }

    fn infer(&mut self, step: &Step) {
        let &Step::Infer { inline, rows, columns, timeout_us, cancelled, poison } = step else { return };
        let number = self.sent.len();
        let mut values: Vec<f32> = (0..rows * columns)
            .map(|element| f32::from(u16::try_from(number).unwrap()) * 100.0 + f32::from(element))
            .collect();
        if poison && inline {
            values[0] = f32::MAX;
        }
        let data: Bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into();
        let input = Tensor {
            name: "x".into(),
            datatype: Datatype::Fp32,
            shape: Shape::new(&[i64::from(rows), i64::from(columns)]),
            data: data.clone(),
        };
        let request = InferRequest {
            model: if inline { "inline" } else { "lane" }.into(),
            inputs: vec![input],
            timeout_us,
            ..InferRequest::default()
        };
        let has_timeout = timeout_us.is_some();
        self.sent.push(Sent { data, poison: poison && inline, inline, has_timeout, cancelled });
        self.answers.lock().unwrap().push(Vec::new());
        let recorder = Recorder {
            number,
            cancelled: Arc::new(AtomicBool::new(cancelled)),
            answers: self.answers.clone(),
        };
        self.engine.infer(request, Instant::now(), Box::new(recorder));
    }

    fn end(&self, fate: Fate) -> bool {
        let oldest = {
            let mut running = self.running.0.lock().unwrap();
            if running.is_empty() { None } else { Some(running.remove(0)) }
        };
        oldest.is_some_and(|(_, sender)| sender.send(fate).is_ok())
    }

    async fn play(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Infer { .. } => self.infer(step),
                Step::Yield(times) => yields(*times).await,
                Step::End(fate) => {
                    self.end(*fate);
                }
                Step::Attach => self.attach(),
                Step::GiveUp => {
                    let error = Error::unavailable("no lane can be had");
                    for index in 0..LANES {
                        self.pool.give_up(index, &error, self.shared.clock().now_us());
                    }
                }
            }
        }
        // The end of the world: lanes come back and finish whatever is left.
        self.attach();
        for _ in 0..20 * (self.sent.len() + 1) {
            yields(8).await;
            self.end(Fate::Done);
            if self.answers.lock().unwrap().iter().all(|answers| !answers.is_empty()) {
                break;
            }
        }
        yields(20).await;
    }
}

async fn yields(times: u8) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

fn check(world: &World) -> std::result::Result<(), TestCaseError> {
    let answers = world.answers.lock().unwrap();
    for (sent, answers) in world.sent.iter().zip(answers.iter()) {
        prop_assert_eq!(answers.len(), 1, "answered exactly once");
        match &answers[0] {
            Ok(response) => {
                prop_assert_eq!(&response.outputs[0].data, &sent.data, "its own rows");
                prop_assert!(!sent.poison, "a poisoned request cannot succeed");
            }
            Err(error) => match error.code {
                Code::DeadlineExceeded => prop_assert!(sent.has_timeout),
                Code::Cancelled => prop_assert!(sent.cancelled),
                Code::Internal if sent.inline => {
                    prop_assert!(sent.poison, "mates of a poisoned one are fine");
                }
                Code::Internal | Code::Unavailable => prop_assert!(!sent.inline),
                Code::ResourceExhausted => {}
                other => prop_assert!(false, "unexpected {} {}", other, error),
            },
        }
    }
    prop_assert_eq!(world.shared.in_flight(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_request_is_answered_once_with_its_own_rows(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let local = tokio::task::LocalSet::new();
        let world = local.block_on(&runtime, async {
            let mut world = World::new();
            tokio::task::spawn_local(world.engine.clone().run());
            world.play(&steps).await;
            world
        });
        check(&world)?;
    }
}
