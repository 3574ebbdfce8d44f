//! Tiny ONNX models, written by hand: enough protobuf for a graph of a few nodes.

#![allow(dead_code)] // each test program uses its own part

use std::path::PathBuf;
use std::sync::Arc;

use kingpole_instances::onnx::Runtime;

/// The runtime, or why there is none to test with.
pub fn runtime() -> Option<Arc<Runtime>> {
    let Some(path) = library() else {
        println!(
            "skipped: no ONNX Runtime (set KINGPOLE_ORT_LIBRARY, or KINGPOLE_PYTHON to one that has it)"
        );
        return None;
    };
    Some(Runtime::load(&path).expect("the library loads"))
}

fn library() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KINGPOLE_ORT_LIBRARY") {
        return Some(path.into());
    }
    let python = std::env::var_os("KINGPOLE_PYTHON").unwrap_or_else(|| "python3".into());
    let find = "import importlib.util as u; s = u.find_spec('onnxruntime'); \
                print(s.submodule_search_locations[0] if s else '')";
    let output = std::process::Command::new(python).args(["-c", find]).output().ok()?;
    let package = String::from_utf8(output.stdout).ok()?;
    let package = package.trim();
    if package.is_empty() {
        return None;
    }
    let entries = std::fs::read_dir(PathBuf::from(package).join("capi")).ok()?;
    entries.filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
    })
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
    out
}

/// A field holding a number.
pub fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field holding bytes, text or a message.
pub fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

/// A `ValueInfoProto` of a tensor; a negative dimension is left open.
pub fn tensor_info(name: &str, element: u64, shape: &[i64]) -> Vec<u8> {
    let dimensions: Vec<u8> = shape
        .iter()
        .flat_map(|&dimension| match u64::try_from(dimension) {
            Ok(value) => bytes(1, number(1, value)),
            Err(_) => bytes(1, bytes(2, "n")),
        })
        .collect();
    let tensor = [number(1, element), bytes(2, dimensions)].concat();
    [bytes(1, name), bytes(2, bytes(1, tensor))].concat()
}

/// A `NodeProto`.
pub fn node(operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|name| bytes(1, name));
    let outputs = outputs.iter().flat_map(|name| bytes(2, name));
    let attributes = attributes.iter().flat_map(|attribute| bytes(5, attribute));
    inputs.chain(outputs).chain(bytes(4, operator)).chain(attributes).collect()
}

/// An FP32 `TensorProto` with its data in it.
pub fn floats(name: &str, shape: &[i64], values: &[f32]) -> Vec<u8> {
    let dimensions = shape.iter().flat_map(|&dimension| number(1, dimension.cast_unsigned()));
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    dimensions.chain(number(2, 1)).chain(bytes(8, name)).chain(bytes(9, data)).collect()
}

/// An FP32 `TensorProto` of 4 elements with its data in another file.
pub fn external(name: &str, location: &str) -> Vec<u8> {
    let entry = [bytes(1, "location"), bytes(2, location)].concat();
    [number(1, 4), number(2, 1), bytes(8, name), bytes(13, entry), number(14, 1)].concat()
}

/// What a graph is made of.
#[derive(Default)]
pub struct Graph {
    pub nodes: Vec<Vec<u8>>,
    pub inputs: Vec<Vec<u8>>,
    pub outputs: Vec<Vec<u8>>,
    pub initializers: Vec<Vec<u8>>,
}

impl Graph {
    /// The `ModelProto`.
    pub fn model(&self) -> Vec<u8> {
        let fields = |number: u64, messages: &[Vec<u8>]| -> Vec<u8> {
            messages.iter().flat_map(|message| bytes(number, message)).collect()
        };
        let graph = [
            fields(1, &self.nodes),
            bytes(2, "g"),
            fields(5, &self.initializers),
            fields(11, &self.inputs),
            fields(12, &self.outputs),
        ]
        .concat();
        let property = [bytes(1, "labels"), bytes(2, "cat,dog")].concat();
        [
            number(1, 8),
            bytes(2, "kingpole-tests"),
            bytes(7, graph),
            bytes(8, number(2, 17)),
            bytes(14, property),
        ]
        .concat()
    }

    /// The model in a new directory, which goes when dropped.
    pub fn write(&self) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("model.onnx");
        std::fs::write(&path, self.model()).expect("written");
        (directory, path)
    }
}

/// `y = x` for one datatype.
pub fn identity(element: u64, shape: &[i64]) -> Graph {
    Graph {
        nodes: vec![node("Identity", &["x"], &["y"], &[])],
        inputs: vec![tensor_info("x", element, shape)],
        outputs: vec![tensor_info("y", element, shape)],
        ..Graph::default()
    }
}

/// `y = x * 2I`, FP32 `[n, 16]`.
pub fn matmul() -> Graph {
    let mut weights = vec![0f32; 256];
    for index in 0..16 {
        weights[index * 17] = 2.0;
    }
    Graph {
        nodes: vec![node("MatMul", &["x", "w"], &["y"], &[])],
        inputs: vec![tensor_info("x", 1, &[-1, 16])],
        outputs: vec![tensor_info("y", 1, &[-1, 16])],
        initializers: vec![floats("w", &[16, 16], &weights)],
    }
}
