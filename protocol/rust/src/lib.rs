//! Sans-IO codecs of every protocol that Kingpole speaks: bytes to values and back.
//!
//! No module here may do I/O, read a clock, wait, or know of a model. Every decoder gives a value or
//! a [`kingpole_values::Error`], never panics, and takes time and memory bounded by the bytes it was
//! given. Tensors are views of the received bytes wherever the format allows.

mod classification;
pub mod frame;
mod generated;
#[cfg(feature = "graphpipe")]
pub mod graphpipe;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "migration")]
pub mod migration;
mod parameters;
mod regions;
pub mod rest;
#[cfg(test)]
mod sample;
mod scatter;
pub mod status;

pub use classification::classify;
pub use regions::{RegionRange, Regions};
pub use scatter::{Scatter, ScatterWriter};

/// The most tensors (inputs, outputs, requested outputs) that one message may have.
pub const MAX_TENSORS: usize = 1024;
/// The most parameters that one parameter list may have.
pub const MAX_PARAMETERS: usize = 256;
