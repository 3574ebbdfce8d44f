//! Models made of models: what is refused when they are put together, and what their requests get.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kingpole_engine::{
    Clock, Engine, EngineConfiguration, InlineModel, Lane, LaneBatch, LaneFuture, Model, ModelSpec, Pipeline,
    Placement, Pool, Profile, ServerInfo, Shared, StepConfiguration, TensorSpec, waiter,
};
use kingpole_values::{
    Code, Datatype, Error, InferRequest, InferResponse, RequestedOutput, Result, Shape, Tensor,
};
use tokio::sync::oneshot;

fn tensor(name: &'static str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: Shape::new(shape), optional: false }
}

fn model(
    name: &'static str,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    max_batch_size: u32,
) -> ModelSpec {
    ModelSpec {
        name: name.into(),
        version: "1".into(),
        inputs,
        outputs,
        max_batch_size,
        ..ModelSpec::default()
    }
}

/// What a model does with its inputs.
type Compute = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync;

/// Runs a function, and remembers the shape of each batch's first input.
struct Function(Box<Compute>, Arc<Mutex<Vec<Shape>>>);

impl InlineModel for Function {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.1.lock().unwrap().push(inputs[0].shape.clone());
        self.0(inputs)
    }
}

struct Bench {
    shared: Arc<Shared>,
    engine: Engine,
}

impl Bench {
    fn publish(
        &self,
        spec: ModelSpec,
        compute: impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    ) -> Arc<Mutex<Vec<Shape>>> {
        let batches = Arc::default();
        let placement = Placement::Inline(Arc::new(Function(Box::new(compute), Arc::clone(&batches))));
        self.shared.publish(Model::new(spec, placement, Profile::default(), 1).0);
        batches
    }

    /// `plus`: UINT8 `x` of any number of rows, each of 2, to `y`, each element one more; 3 rows at most at once.
    fn publish_plus(&self) -> Arc<Mutex<Vec<Shape>>> {
        let (x, y) = (tensor("x", Datatype::Uint8, &[-1, 2]), tensor("y", Datatype::Uint8, &[-1, 2]));
        self.publish(model("plus", vec![x], vec![y], 3), |inputs| {
            let data: Vec<u8> = inputs[0].data.iter().map(|value| value + 1).collect();
            Ok(vec![Tensor { name: "y".into(), data: data.into(), ..inputs[0].clone() }])
        })
    }

    /// `positive`: whether the first element of `x`, of any shape of two dimensions, is not 0, as one BOOL `y`.
    fn publish_positive(&self) {
        let (x, y) = (tensor("x", Datatype::Uint8, &[-1, 2]), tensor("y", Datatype::Bool, &[1]));
        self.publish(model("positive", vec![x], vec![y], 0), |inputs| {
            let data = Bytes::from(vec![u8::from(inputs[0].data[0] > 0)]);
            let shape = Shape::new(&[1]);
            Ok(vec![Tensor { name: "y".into(), datatype: Datatype::Bool, shape, data }])
        });
    }

    fn check(&self, spec: &ModelSpec, steps: &[StepConfiguration]) -> Result<Pipeline> {
        Pipeline::new(spec, steps, |name, version| self.shared.find(name, version))
    }

    fn publish_pipeline(&self, spec: ModelSpec, steps: &[StepConfiguration]) {
        let pipeline = self.check(&spec, steps).unwrap();
        let placement = Placement::Pipeline(Arc::new(pipeline));
        self.shared.publish(Model::new(spec, placement, Profile::default(), 1).0);
    }

    fn ask(&self, request: InferRequest) -> oneshot::Receiver<Result<InferResponse>> {
        let (responder, answer) = waiter();
        self.engine.infer(request, Instant::now(), responder);
        answer
    }
}

fn on_a_reactor(test: impl AsyncFnOnce(Bench)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let info = ServerInfo { name: "kingpole", version: "0", extensions: vec![] };
        let configuration =
            EngineConfiguration { reactors: 1, queue_bytes: 1 << 20, default_model: None, info };
        let shared = Shared::new(configuration, Clock::new(Instant::now())).0;
        let engine = Engine::new(shared.clone(), 0);
        tokio::task::spawn_local(engine.clone().run());
        tokio::time::timeout(Duration::from_secs(20), test(Bench { shared, engine })).await.unwrap();
    });
}

fn step(
    model: &'static str,
    inputs: &[(&'static str, &'static str)],
    outputs: &[(&'static str, &'static str)],
) -> StepConfiguration {
    let names = |pairs: &[(&'static str, &'static str)]| {
        pairs.iter().map(|&(theirs, ours)| (theirs.into(), ours.into())).collect()
    };
    StepConfiguration {
        name: model.to_owned(),
        model: model.into(),
        inputs: names(inputs),
        outputs: names(outputs),
        ..StepConfiguration::default()
    }
}

fn rows(name: &'static str, rows: &[[u8; 2]]) -> Tensor {
    Tensor {
        name: name.into(),
        datatype: Datatype::Uint8,
        shape: Shape::new(&[i64::try_from(rows.len()).unwrap(), 2]),
        data: rows.concat().into(),
    }
}

fn request(model: &'static str, inputs: Vec<Tensor>) -> InferRequest {
    InferRequest { model: model.into(), inputs, id: Some("me".into()), ..InferRequest::default() }
}

/// `in` through `plus` twice to `out`; given in the wrong order.
fn twice(shape: &[i64], max_batch_size: u32) -> (ModelSpec, [StepConfiguration; 2]) {
    let (x, y) = (tensor("in", Datatype::Uint8, shape), tensor("out", Datatype::Uint8, shape));
    let second =
        StepConfiguration { name: "second".into(), ..step("plus", &[("x", "middle")], &[("y", "out")]) };
    let first = step("plus", &[("x", "in")], &[("y", "middle")]);
    (model("twice", vec![x], vec![y], max_batch_size), [second, first])
}

#[test]
fn tensors_go_through_the_steps_in_their_order() {
    on_a_reactor(async |bench| {
        bench.publish_plus();
        let (spec, steps) = twice(&[-1, 2], 3);
        bench.publish_pipeline(spec, &steps);
        let response = bench.ask(request("twice", vec![rows("in", &[[1, 2]])])).await.unwrap().unwrap();
        assert_eq!(response.outputs, [rows("out", &[[3, 4]])]);
        assert_eq!((response.model, response.id), ("twice".into(), Some("me".into())));
        assert_eq!(response.timing.reason, "pipeline");
        assert_eq!(bench.shared.in_flight(), 0);
    });
}

#[test]
fn each_step_batches_the_rows_of_all_requests() {
    on_a_reactor(async |bench| {
        let batches = bench.publish_plus();
        let (spec, steps) = twice(&[-1, 2], 3);
        bench.publish_pipeline(spec, &steps);
        let answers: Vec<_> =
            (0..6).map(|value| bench.ask(request("twice", vec![rows("in", &[[value, 0]])]))).collect();
        for (value, answer) in (0..).zip(answers) {
            assert_eq!(answer.await.unwrap().unwrap().outputs, [rows("out", &[[value + 2, 2]])]);
        }
        let batches = batches.lock().unwrap();
        assert_eq!(batches.len(), 4, "two steps of 6 rows, 3 at once: {batches:?}");
    });
}

#[test]
fn more_rows_than_a_model_takes_are_parted_and_none_ask_nothing() {
    on_a_reactor(async |bench| {
        let batches = bench.publish_plus();
        let (spec, steps) = twice(&[-1, 2], 0);
        bench.publish_pipeline(spec, &steps);
        let sent: Vec<_> = (0..7).map(|value| [value, value]).collect();
        let expected: Vec<_> = (0..7).map(|value| [value + 2, value + 2]).collect();
        let response = bench.ask(request("twice", vec![rows("in", &sent)])).await.unwrap().unwrap();
        assert_eq!(response.outputs, [rows("out", &expected)]);
        assert!(batches.lock().unwrap().iter().all(|shape| shape[0] <= 3));
        batches.lock().unwrap().clear();
        let response = bench.ask(request("twice", vec![rows("in", &[])])).await.unwrap().unwrap();
        assert_eq!(response.outputs, [rows("out", &[])]);
        assert_eq!(*batches.lock().unwrap(), []);
    });
}

#[test]
fn each_row_may_be_a_request_of_its_own_to_a_model_that_does_not_batch() {
    on_a_reactor(async |bench| {
        // Texts, whose rows have different numbers of bytes.
        let (x, y) = (tensor("x", Datatype::Bytes, &[2]), tensor("y", Datatype::Uint32, &[]));
        let batches = bench.publish(model("lengths", vec![x], vec![y], 0), |inputs| {
            let data = Bytes::copy_from_slice(&u32::try_from(inputs[0].data.len()).unwrap().to_le_bytes());
            Ok(vec![Tensor { name: "y".into(), datatype: Datatype::Uint32, shape: Shape::new(&[]), data }])
        });
        let (x, y) = (tensor("in", Datatype::Bytes, &[-1, 2]), tensor("out", Datatype::Uint32, &[-1]));
        let each = StepConfiguration { each_row: true, ..step("lengths", &[("x", "in")], &[("y", "out")]) };
        bench.publish_pipeline(model("all", vec![x], vec![y], 0), &[each]);
        let texts = ["", "a", "bcd", "efgh", "i", ""];
        let mut data = Vec::new();
        for text in texts {
            data.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        let sent = Tensor {
            name: "in".into(),
            datatype: Datatype::Bytes,
            shape: Shape::new(&[3, 2]),
            data: data.into(),
        };
        let response = bench.ask(request("all", vec![sent])).await.unwrap().unwrap();
        let lengths: Vec<u8> = [9u32, 15, 9].iter().flat_map(|length| length.to_le_bytes()).collect();
        assert_eq!(response.outputs[0].data, lengths);
        assert_eq!(response.outputs[0].shape, Shape::new(&[3]));
        assert_eq!(*batches.lock().unwrap(), vec![Shape::new(&[2]); 3]);
    });
}

/// `in` as it is if its first element is 0, else through `plus`; and `out2` where the caller wants it.
fn conditional() -> (ModelSpec, Vec<StepConfiguration>) {
    let (x, y) = (tensor("in", Datatype::Uint8, &[-1, 2]), tensor("out", Datatype::Uint8, &[-1, 2]));
    let when = |name: &str, is, outputs: &[(&'static str, &'static str)]| StepConfiguration {
        name: name.to_owned(),
        condition: Some(("is positive".into(), is)),
        ..step(if is { "plus" } else { "same" }, &[("x", "in")], outputs)
    };
    let steps = vec![
        when("one more", true, &[("y", "out")]),
        step("positive", &[("x", "in")], &[("y", "is positive")]),
        when("the same", false, &[("y", "out")]),
    ];
    (model("choice", vec![x], vec![y], 0), steps)
}

impl Bench {
    fn publish_same(&self) {
        let (x, y) = (tensor("x", Datatype::Uint8, &[-1, 2]), tensor("y", Datatype::Uint8, &[-1, 2]));
        self.publish(model("same", vec![x], vec![y], 8), |inputs| {
            Ok(vec![Tensor { name: "y".into(), ..inputs[0].clone() }])
        });
    }
}

#[test]
fn a_condition_chooses_who_gives_a_tensor() {
    on_a_reactor(async |bench| {
        let batches = bench.publish_plus();
        bench.publish_positive();
        bench.publish_same();
        let (spec, steps) = conditional();
        bench.publish_pipeline(spec, &steps);
        for (sent, expected, asked) in [([0, 7], [0, 7], 0), ([5, 7], [6, 8], 1)] {
            let response = bench.ask(request("choice", vec![rows("in", &[sent])])).await.unwrap().unwrap();
            assert_eq!(response.outputs, [rows("out", &[expected])]);
            assert_eq!(batches.lock().unwrap().len(), asked);
        }
    });
}

#[test]
fn only_the_outputs_that_are_wanted_are_given_in_their_order() {
    on_a_reactor(async |bench| {
        bench.publish_plus();
        let (mut spec, steps) = twice(&[-1, 2], 3);
        spec.outputs.push(tensor("middle", Datatype::Uint8, &[-1, 2]));
        bench.publish_pipeline(spec, &steps);
        let output = |name: &'static str| RequestedOutput { name: name.into(), parameters: Vec::new() };
        let mut asked = request("twice", vec![rows("in", &[[1, 2]])]);
        asked.outputs = vec![output("middle"), output("out")];
        let response = bench.ask(asked).await.unwrap().unwrap();
        assert_eq!(response.outputs, [rows("middle", &[[2, 3]]), rows("out", &[[3, 4]])]);
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_the_step_and_the_tensor() {
    on_a_reactor(async |bench| {
        bench.publish_plus();
        bench.publish_positive();
        bench.publish_same();
        let (spec, good) = twice(&[-1, 2], 0);
        bench.check(&spec, &good).unwrap();
        let with = |change: &dyn Fn(&mut Vec<StepConfiguration>)| {
            let mut steps = good.to_vec();
            change(&mut steps);
            bench.check(&spec, &steps).map(drop)
        };
        let cases: Vec<(&str, Result<()>)> = vec![
            ("1 to 256 steps, this one has 0", with(&|steps| steps.clear())),
            ("have the same name", with(&|steps| steps[0].name = "plus".into())),
            (
                "step 'second': Request for unknown model: 'gone'",
                with(&|steps| steps[0].model = "gone".into()),
            ),
            (
                "step 'second': model 'plus' has no input 'z'",
                with(&|steps| steps[0].inputs[0].0 = "z".into()),
            ),
            (
                "step 'second': input 'x' of model 'plus' is given nothing",
                with(&|steps| steps[0].inputs.clear()),
            ),
            (
                "step 'second': model 'plus' has no output 'z'",
                with(&|steps| steps[0].outputs[0].0 = "z".into()),
            ),
            ("step 'second': none of its outputs", with(&|steps| steps[0].outputs.clear())),
            ("step 'second': nobody gives the tensor 'q'", with(&|steps| steps[0].inputs[0].1 = "q".into())),
            ("in a circle: 'second', 'plus'", with(&|steps| steps[1].inputs[0].1 = "out".into())),
            (
                "'out' is given by step 'plus' and by step 'third', which may both run",
                with(&|steps| {
                    steps.push(StepConfiguration { name: "third".into(), ..steps[0].clone() });
                    steps[0] = step("plus", &[("x", "in")], &[("y", "out")]);
                    steps[1].name = "other".into();
                }),
            ),
            (
                "step 'second': its condition 'in' must be one BOOL, but the request gives UINT8 [-1,2]",
                with(&|steps| steps[0].condition = Some(("in".into(), true))),
            ),
            (
                "step 'second': input 'x' of model 'positive' is UINT8 [-1,2], but step 'plus' gives 'middle' as BOOL",
                with(&|steps| {
                    steps[0].model = "positive".into();
                    steps[1].model = "positive".into();
                }),
            ),
            (
                "output 'out': it is declared as UINT8 [-1,2], but step 'second' gives BOOL [1]",
                with(&|steps| steps[0].model = "positive".into()),
            ),
            ("output 'out': no step gives it", with(&|steps| steps[0].outputs[0].1 = "else".into())),
            ("model 'plus' batches, so that its rows", with(&|steps| steps[0].each_row = true)),
            ("output 'out': it is absent unless 'is positive' is true", {
                let (spec, steps) = conditional();
                bench.check(&spec, &steps[..2]).map(drop)
            }),
            ("it needs 'is positive' to be both true and false", {
                let (spec, mut steps) = conditional();
                steps[2].inputs[0].1 = "out".into();
                steps[2].outputs[0].1 = "more".into();
                bench.check(&spec, &steps).map(drop)
            }),
        ];
        for (words, result) in cases {
            let error = result.expect_err(words);
            assert_eq!(error.code, Code::FailedPrecondition, "{error}");
            assert!(error.message.contains(words), "{error} lacks {words}");
        }
    });
}

#[test]
fn a_pipeline_that_would_ask_itself_is_refused_also_through_another() {
    on_a_reactor(async |bench| {
        bench.publish_plus();
        let (spec, steps) = twice(&[-1, 2], 0);
        bench.publish_pipeline(spec.clone(), &steps);
        let outer = ModelSpec { name: "outer".into(), ..spec.clone() };
        bench.publish_pipeline(outer, &[step("twice", &[("in", "in")], &[("out", "out")])]);
        let response = bench.ask(request("outer", vec![rows("in", &[[1, 2]])])).await.unwrap().unwrap();
        assert_eq!(response.outputs, [rows("out", &[[3, 4]])]);
        let error = bench.check(&spec, &[step("outer", &[("in", "in")], &[("out", "out")])]).unwrap_err();
        assert!(error.message.contains("pipeline 'twice' would ask itself"), "{error}");
    });
}

#[test]
fn what_fails_in_a_step_is_told_with_its_name() {
    on_a_reactor(async |bench| {
        bench.publish_plus();
        let (spec, steps) = twice(&[-1, 2], 0);
        bench.publish_pipeline(spec, &steps);
        let (x, y) = (tensor("x", Datatype::Uint8, &[-1, 2]), tensor("y", Datatype::Uint8, &[-1, 2]));
        bench.publish(model("plus", vec![x], vec![y], 3), |_| Err(Error::internal("it broke")));
        let error = bench.ask(request("twice", vec![rows("in", &[[1, 2]])])).await.unwrap().unwrap_err();
        assert_eq!(error, Error::internal("step 'plus' of pipeline 'twice': it broke"));
        assert_eq!(bench.engine.model_ready("twice", None), Ok(true));
        bench.shared.withdraw(&bench.shared.find("plus", None).unwrap());
        assert_eq!(bench.engine.model_ready("twice", None), Ok(false), "a step's model is gone");
        let error = bench.ask(request("twice", vec![rows("in", &[[1, 2]])])).await.unwrap().unwrap_err();
        assert_eq!(error.code, Code::Unavailable, "{error}");
        assert_eq!(bench.shared.in_flight(), 0);
    });
}

/// A lane that never finishes.
struct Stuck;

impl Lane for Stuck {
    fn execute(&self, _handle: u32, _batch: LaneBatch) -> LaneFuture {
        Box::pin(std::future::pending())
    }
}

fn publish_stuck(bench: &Bench, profile: Profile) {
    let pool = Pool::new(1);
    let (x, y) = (tensor("x", Datatype::Uint8, &[-1, 2]), tensor("y", Datatype::Uint8, &[-1, 2]));
    let spec = model("plus", vec![x], vec![y], 3);
    bench.shared.publish(Model::new(spec, Placement::Lanes(pool.clone(), 1), profile, 1).0);
    pool.attach(0, Arc::new(Stuck));
    let (spec, steps) = twice(&[-1, 2], 0);
    bench.publish_pipeline(spec, &steps);
}

#[test]
fn one_deadline_holds_for_all_steps() {
    on_a_reactor(async |bench| {
        publish_stuck(&bench, Profile::default());
        let asked =
            InferRequest { timeout_us: Some(30_000), ..request("twice", vec![rows("in", &[[1, 2]])]) };
        let began = Instant::now();
        let error = bench.ask(asked).await.unwrap().unwrap_err();
        assert_eq!(error.code, Code::DeadlineExceeded, "{error}");
        assert!(began.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn a_request_that_cannot_make_it_through_all_steps_does_not_begin() {
    on_a_reactor(async |bench| {
        let mut profile = Profile::default();
        profile.record(1, 400_000);
        publish_stuck(&bench, profile);
        let asked =
            InferRequest { timeout_us: Some(200_000), ..request("twice", vec![rows("in", &[[1, 2]])]) };
        let began = Instant::now();
        let error = bench.ask(asked).await.unwrap().unwrap_err();
        assert_eq!(error.code, Code::DeadlineExceeded);
        assert!(
            error.message.contains("step 'plus'") && error.message.contains("about 800000 µs"),
            "{error}"
        );
        assert!(began.elapsed() < Duration::from_millis(150), "at once, not at the deadline");
    });
}

#[test]
fn a_client_that_leaves_takes_its_steps_with_it() {
    on_a_reactor(async |bench| {
        publish_stuck(&bench, Profile::default());
        let answers: Vec<_> =
            (0..3).map(|_| bench.ask(request("twice", vec![rows("in", &[[1, 2]])]))).collect();
        while bench.shared.in_flight() < 6 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(answers);
        while bench.shared.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn what_runs_when_the_server_drains_goes_through_all_steps() {
    on_a_reactor(async |bench| {
        bench.publish_plus();
        let (spec, steps) = twice(&[-1, 2], 0);
        bench.publish_pipeline(spec, &steps);
        let answer = bench.ask(request("twice", vec![rows("in", &[[1, 2]])]));
        bench.shared.drain();
        assert_eq!(answer.await.unwrap().unwrap().outputs, [rows("out", &[[3, 4]])]);
    });
}
