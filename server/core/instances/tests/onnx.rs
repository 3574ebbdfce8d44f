//! ONNX Runtime through its C API, on models made here.

mod models;

use std::time::Instant;

use bytes::Bytes;
use kingpole_instances::onnx::{Session, SessionConfiguration};
use kingpole_values::{Code, Datatype, Shape, Tensor, write_byte_string};
use models::{Graph, bytes, external, floats, identity, matmul, node, number, runtime, tensor_info};

fn tensor(name: &str, datatype: Datatype, shape: &[i64], data: impl Into<Bytes>) -> Tensor {
    Tensor { name: name.into(), datatype, shape: Shape::new(shape), data: data.into() }
}

fn fp32(name: &str, shape: &[i64], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, Datatype::Fp32, shape, data)
}

/// ONNX's element types by ours.
const ELEMENTS: [(Datatype, u64); 14] = [
    (Datatype::Bool, 9),
    (Datatype::Uint8, 2),
    (Datatype::Uint16, 4),
    (Datatype::Uint32, 12),
    (Datatype::Uint64, 13),
    (Datatype::Int8, 3),
    (Datatype::Int16, 5),
    (Datatype::Int32, 6),
    (Datatype::Int64, 7),
    (Datatype::Fp16, 10),
    (Datatype::Fp32, 1),
    (Datatype::Fp64, 11),
    (Datatype::Bytes, 8),
    (Datatype::Bf16, 16),
];

fn sample(datatype: Datatype, elements: usize) -> Bytes {
    if datatype == Datatype::Bytes {
        let mut data = Vec::new();
        for index in 0..elements {
            // Empty, with NUL, and longer than a short string that lies in place.
            let element: &[u8] = [&b""[..], b"a\0b", "grüße an alle, die länger lesen".as_bytes()][index % 3];
            write_byte_string(&mut data, element);
        }
        return data.into();
    }
    let total = elements * datatype.element_bytes().expect("fixed");
    let highest = if datatype == Datatype::Bool { 2 } else { 100 };
    (0..highest).cycle().take(total).collect()
}

#[test]
fn every_datatype_passes_unchanged_at_every_rank() {
    let Some(runtime) = runtime() else { return };
    for (datatype, element) in ELEMENTS {
        for shape in [&[][..], &[3], &[2, 3], &[0, 4], &[1, 1, 5]] {
            let (_directory, path) = identity(element, shape).write();
            let session = runtime.open(&path, &SessionConfiguration::default()).expect("opens");
            assert_eq!(session.inputs()[0].datatype, datatype);
            assert_eq!(*session.outputs()[0].shape, *shape);
            let elements = Shape::new(shape).elements().expect("counts");
            let input = tensor("x", datatype, shape, sample(datatype, elements));
            let outputs = session.run(std::slice::from_ref(&input)).expect("runs");
            drop(session);
            assert_eq!(outputs, [Tensor { name: "y".into(), ..input }], "{datatype} {shape:?}");
        }
    }
}

#[test]
fn inputs_are_found_by_name_and_the_batch_dimension_is_open() {
    let Some(runtime) = runtime() else { return };
    let graph = Graph {
        nodes: vec![node("Sub", &["a", "b"], &["d"], &[]), node("Add", &["a", "b"], &["s"], &[])],
        inputs: vec![tensor_info("a", 1, &[-1, 2]), tensor_info("b", 1, &[-1, 2])],
        outputs: vec![tensor_info("d", 1, &[-1, 2]), tensor_info("s", 1, &[-1, 2])],
        ..Graph::default()
    };
    let (_directory, path) = graph.write();
    let session = runtime.open(&path, &SessionConfiguration::default()).expect("opens");
    assert_eq!(*session.inputs()[1].shape, [-1, 2]);
    assert_eq!(session.metadata().producer, "kingpole-tests");
    assert_eq!(session.metadata().custom, [("labels".to_owned(), "cat,dog".to_owned())]);
    assert_eq!(session.providers(), ["CPUExecutionProvider"]);
    let (a, b) = (fp32("a", &[1, 2], &[5.0, 7.0]), fp32("b", &[1, 2], &[1.0, 2.0]));
    let wanted = [fp32("d", &[1, 2], &[4.0, 5.0]), fp32("s", &[1, 2], &[6.0, 9.0])];
    assert_eq!(session.run(&[a.clone(), b.clone()]).expect("runs"), wanted);
    assert_eq!(session.run(&[b.clone(), a.clone()]).expect("runs"), wanted, "any order");
    let error = session.run(&[a.clone(), fp32("c", &[1, 2], &[1.0, 2.0])]).unwrap_err();
    assert_eq!((error.code, &*error.message), (Code::InvalidArgument, "the model has no input 'c'"));
    session.run(std::slice::from_ref(&a)).expect_err("one is missing");
    let error = session.run(&[fp32("a", &[1, 2], &[1.0]), b]).unwrap_err();
    assert!(error.message.starts_with("input 'a': "), "too few bytes are refused: {error}");
}

#[test]
fn bytes_are_used_wherever_they_lie() {
    let Some(runtime) = runtime() else { return };
    let (_directory, path) = matmul().write();
    let session = runtime.open(&path, &SessionConfiguration::default()).expect("opens");
    let values: Vec<f32> = (0..16u8).map(f32::from).collect();
    let doubled: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
    let plain = fp32("x", &[1, 16], &values);
    for shift in 0..70 {
        let mut data = vec![0u8; shift];
        data.extend_from_slice(&plain.data);
        let shifted = Tensor { data: Bytes::from(data).slice(shift..), ..plain.clone() };
        assert_eq!(session.run(&[shifted]).expect("runs"), [fp32("y", &[1, 16], &doubled)]);
    }
}

#[test]
fn an_output_that_is_an_input_or_a_weight_outlives_both() {
    let Some(runtime) = runtime() else { return };
    let graph = Graph {
        nodes: vec![node("Identity", &["x"], &["y"], &[])],
        inputs: vec![tensor_info("x", 1, &[4])],
        outputs: vec![tensor_info("y", 1, &[4]), tensor_info("x", 1, &[4]), tensor_info("w", 1, &[4])],
        initializers: vec![floats("w", &[4], &[9.0, 8.0, 7.0, 6.0])],
    };
    let (_directory, path) = graph.write();
    let session: Session = runtime.open(&path, &SessionConfiguration::default()).expect("opens");
    let input = fp32("x", &[4], &[1.0, 2.0, 3.0, 4.0]);
    let outputs = session.run(std::slice::from_ref(&input)).expect("runs");
    assert_eq!(outputs[1].data.as_ptr(), input.data.as_ptr(), "passed through: a view of the input");
    drop(input);
    drop(session);
    assert_eq!(outputs[0], fp32("y", &[4], &[1.0, 2.0, 3.0, 4.0]));
    assert_eq!(outputs[1], fp32("x", &[4], &[1.0, 2.0, 3.0, 4.0]));
    assert_eq!(outputs[2], fp32("w", &[4], &[9.0, 8.0, 7.0, 6.0]));
}

#[test]
fn a_sequence_output_is_refused_by_name() {
    let Some(runtime) = runtime() else { return };
    let tensor_type = bytes(1, number(1, 1));
    let sequence = [bytes(1, "probabilities"), bytes(2, bytes(4, bytes(1, tensor_type)))].concat();
    let graph = Graph {
        nodes: vec![node("SequenceConstruct", &["x"], &["probabilities"], &[])],
        inputs: vec![tensor_info("x", 1, &[4])],
        outputs: vec![sequence],
        ..Graph::default()
    };
    let (_directory, path) = graph.write();
    let error = runtime.open(&path, &SessionConfiguration::default()).err().expect("refused");
    assert_eq!(error.code, Code::FailedPrecondition);
    assert_eq!(error.message, "output 'probabilities' is a sequence; only tensors can be served");
}

#[test]
fn a_model_that_does_not_load_gives_the_librarys_reason() {
    let Some(runtime) = runtime() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.onnx");
    let open = || runtime.open(&path, &SessionConfiguration::default()).err().expect("refused");
    let missing = open();
    assert_eq!(missing.code, Code::FailedPrecondition);
    assert!(missing.message.contains("ONNX Runtime: "), "{missing}");
    std::fs::write(&path, b"not a model").expect("written");
    assert!(open().message.to_lowercase().contains("protobuf"), "{}", open());
    let unknown = Graph { nodes: vec![node("NoSuchOperator", &["x"], &["y"], &[])], ..identity(1, &[1]) };
    std::fs::write(&path, unknown.model()).expect("written");
    assert!(open().message.contains("NoSuchOperator"), "{}", open());
}

#[test]
fn weights_may_only_lie_beneath_the_model() {
    let Some(runtime) = runtime() else { return };
    let graph = |location: &str| Graph {
        nodes: vec![node("Add", &["x", "w"], &["y"], &[])],
        initializers: vec![external("w", location)],
        ..identity(1, &[4])
    };
    let (directory, path) = graph("weights.bin").write();
    let weights: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(directory.path().join("weights.bin"), &weights).expect("written");
    let session = runtime.open(&path, &SessionConfiguration::default()).expect("opens");
    let outputs = session.run(&[fp32("x", &[4], &[0.0; 4])]).expect("runs");
    assert_eq!(outputs[0].data, weights);

    let inner = directory.path().join("inner");
    std::fs::create_dir(&inner).expect("made");
    let absolute = directory.path().join("weights.bin").display().to_string();
    for location in ["../weights.bin", &absolute] {
        let path = inner.join("model.onnx");
        std::fs::write(&path, graph(location).model()).expect("written");
        let error = runtime.open(&path, &SessionConfiguration::default()).err().expect("refused");
        assert_eq!(error.code, Code::FailedPrecondition);
        assert!(error.message.contains("not beneath its own directory"), "{error}");
    }
}

#[test]
fn a_session_runs_on_many_threads_at_once() {
    let Some(runtime) = runtime() else { return };
    let (_directory, path) = matmul().write();
    let session = runtime.open(&path, &SessionConfiguration::default()).expect("opens");
    std::thread::scope(|scope| {
        for seed in 0..4u8 {
            let session = &session;
            scope.spawn(move || {
                for _ in 0..200 {
                    let values = [f32::from(seed); 32];
                    let outputs = session.run(&[fp32("x", &[2, 16], &values)]).expect("runs");
                    assert_eq!(outputs, [fp32("y", &[2, 16], &[f32::from(seed) * 2.0; 32])]);
                }
            });
        }
    });
}

/// Not a promise but a number: run with `--release --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn overhead() {
    let Some(runtime) = runtime() else { return };
    for (name, graph) in [("identity", identity(1, &[1, 16])), ("matmul", matmul())] {
        let (_directory, path) = graph.write();
        let session = runtime.open(&path, &SessionConfiguration::default()).expect("opens");
        let mut data = ::bytes::BytesMut::with_capacity(128);
        let padding = data.as_ptr().addr().next_multiple_of(64) - data.as_ptr().addr();
        data.resize(padding + 64, 0);
        let input = [tensor("x", Datatype::Fp32, &[1, 16], data.freeze().slice(padding..))];
        let mut best = u128::MAX;
        for _ in 0..20 {
            let started = Instant::now();
            for _ in 0..10_000 {
                std::hint::black_box(session.run(&input).expect("runs"));
            }
            best = best.min(started.elapsed().as_nanos() / 10_000);
        }
        println!("{name}: {best} ns per run");
    }
}
