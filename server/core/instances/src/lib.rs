//! Instances: what runs a batch once the engine has laid it out.
//!
//! `onnx` runs ONNX models in this process through ONNX Runtime's C API, without Python and its
//! lock. `worker` speaks to child processes in which any other framework runs. This crate may not
//! know protocols, queues or when a batch leaves; it is given batches.

pub mod onnx;
pub mod worker;
