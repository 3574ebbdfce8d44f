//! Worker processes: child processes in which a framework runs a model.
//!
//! Control travels as msgpack packets over a `SOCK_SEQPACKET` socket pair, tensors through shared
//! memory (`arena`). A worker that dies takes nothing with it: what it was doing fails with
//! `UNAVAILABLE`, and its owner starts another. This module may not know what a worker runs.

pub mod arena;
pub mod channel;
mod connection;
mod layout;
mod process;
pub mod protocol;
mod replies;
mod shared;
mod watched;

pub use connection::{Connection, Parts};
pub use layout::{BatchInput, ExecuteRequest, Executed, Part};
pub use process::WorkerProcess;
pub use protocol::{LoadRequest, Loaded, Ready};
