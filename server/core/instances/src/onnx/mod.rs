//! ONNX models in this process, through ONNX Runtime's C API.
//!
//! The library is found at run time (the one in the `onnxruntime` Python package), so the server
//! builds and starts without it. This module may not know batching, queues or Python.

mod external_data;
mod ffi;
mod session;

use std::path::Path;
use std::sync::Arc;

use kingpole_values::{Code, Datatype, Error, Result, Shape};

pub use session::Session;

/// The loaded library and its environment (its logger and allocators). One per process is enough.
pub struct Runtime {
    api: Arc<ffi::Api>,
}

impl Runtime {
    /// Load `libonnxruntime.so` from this path. It stays loaded until the process ends.
    pub fn load(path: &Path) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { api: Arc::new(ffi::Api::load(path)?) }))
    }

    /// The library's version, for example `1.22.0`.
    pub fn version(&self) -> &str {
        self.api.version()
    }

    /// Execution providers that the library was built with.
    pub fn available_providers(&self) -> Result<Vec<String>> {
        self.api.available_providers()
    }

    /// Open a model. Fails with ONNX Runtime's own message, and `FAILED_PRECONDITION`.
    ///
    /// Weights kept in files beside the model may only lie beneath the model's directory.
    pub fn open(&self, model_path: &Path, configuration: &SessionConfiguration) -> Result<Session> {
        // A file that the scan cannot follow is still given to ONNX Runtime, whose message says
        // more; but should it load, what the scan did not see was not checked, so it is refused.
        let scanned = external_data::check(model_path);
        if let Err(external_data::Refusal::Outside(location)) = &scanned {
            return Err(Error::new(
                Code::FailedPrecondition,
                format!("the model keeps weights in '{location}', which is not beneath its own directory"),
            ));
        }
        let session = Session::open(&self.api, model_path, configuration)?;
        match scanned {
            Ok(()) => Ok(session),
            Err(_) => Err(Error::new(
                Code::FailedPrecondition,
                "the model file is not plain ONNX: where it keeps its weights could not be checked",
            )),
        }
    }
}

/// How a session runs. The defaults are those for a small model on the thread that calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfiguration {
    /// Threads within an operator; 1 runs on the calling thread, 0 lets ONNX Runtime choose.
    pub intra_op_threads: u16,
    /// Operators run at once; above 1 turns on parallel execution.
    pub inter_op_threads: u16,
    /// How much the graph is rewritten at load.
    pub graph_optimization: GraphOptimization,
    /// Let idle threads of the session burn CPU while they wait.
    pub allow_spinning: bool,
    /// Further session configuration entries of ONNX Runtime, by key.
    pub entries: Vec<(String, String)>,
}

impl Default for SessionConfiguration {
    fn default() -> Self {
        Self {
            intra_op_threads: 1,
            inter_op_threads: 1,
            graph_optimization: GraphOptimization::All,
            allow_spinning: false,
            entries: Vec::new(),
        }
    }
}

/// ONNX Runtime's levels of graph optimization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GraphOptimization {
    /// Run the graph as it is.
    Disabled,
    /// Rewrites that keep to standard operators.
    Basic,
    /// Fused operators as well.
    Extended,
    /// Everything, layouts included.
    #[default]
    All,
}

/// A declared input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Its name in the graph.
    pub name: String,
    /// Type of its elements.
    pub datatype: Datatype,
    /// Its shape; -1 for a dimension that the model leaves open.
    pub shape: Shape,
}

/// What a model says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The program that wrote the model.
    pub producer: String,
    /// The graph's name.
    pub graph_name: String,
    /// The model's domain.
    pub domain: String,
    /// What it is for.
    pub description: String,
    /// The version its author gave it.
    pub version: i64,
    /// Free-form properties, sorted by key.
    pub custom: Vec<(String, String)>,
}
