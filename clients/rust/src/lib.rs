//! The client of the Kingpole model server: tensors in, tensors out, over HTTP, gRPC, TCP and Unix sockets.
//!
//! ```no_run
//! # async fn example() -> kingpole_client::Result<()> {
//! use std::time::Duration;
//! use kingpole_client::{Client, Request, Tensor};
//!
//! let client = Client::builder("http://localhost:8000").timeout(Duration::from_secs(2)).build()?;
//! let image = Tensor::new("image", &[1, 28, 28], vec![0.0f32; 28 * 28])?;
//! let response = client.infer(Request::new("digits").input(image)).await?;
//! for output in &response.outputs {
//!     println!("{} {:?}", output.name, output.elements::<f32>()?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Requests leave as scatter writes: a [`Tensor`]'s bytes are sent from where they are. A response's tensors are views
//! of what was received. A hostile server can make a call fail, nothing else: lengths are checked against
//! [`ClientBuilder::max_frame_bytes`] before there is room for them, and headers are verified before they are read.
//!
//! Everything asynchronous needs a [tokio](https://docs.rs/tokio) runtime with I/O and time. Features: `tls` (on by
//! default), `ndarray`, `tower`, `blocking`.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod address;
mod answer;
#[cfg(target_os = "linux")]
mod arena;
#[cfg(not(target_os = "linux"))]
#[path = "no_arena.rs"]
mod arena;
#[cfg(feature = "blocking")]
pub mod blocking;
mod builder;
mod client;
mod clock;
mod connect;
mod conversation;
#[cfg(target_os = "linux")]
mod descriptor;
mod error;
mod exchanges;
mod frames;
mod grpc;
mod http1;
mod line;
mod outgoing;
mod request;
mod responses;
#[cfg(feature = "tower")]
mod service;
mod tls;
mod web;

pub use bytes::Bytes;
pub use kingpole_values::{
    ByteString, Code, Datatype, Element, InferResponse as Response, Parameter, Parameters, Sequence,
    SequenceId, Shape, Stage, Tensor, Timing, split_byte_strings,
};
pub use kingpole_wire::frame::{Metadata, ServerInfo, TensorSpec};

#[cfg(target_os = "linux")]
pub use arena::SharedBuffer;
pub use builder::{ClientBuilder, DEFAULT_MAX_FRAME_BYTES};
pub use client::Client;
pub use error::{Error, Result};
pub use request::Request;
pub use responses::Responses;

const USER_AGENT: &str = concat!("kingpole-client-rust/", env!("CARGO_PKG_VERSION"));
