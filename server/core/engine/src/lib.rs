//! The core: admission, queues, batching, scheduling, answers.
//!
//! This crate may not know any protocol, framework, socket or process. The clock, what runs a batch
//! and the way back to a client are arguments. Its promises:
//!
//! * every admitted request is answered exactly once: a response, an error, or its own cancellation;
//! * what happens to one request of a batch never changes the answer of another;
//! * nothing becomes a batch before something is free to run it (late binding).

mod batch;
mod clock;
mod decide;
mod departures;
mod engine;
mod inline;
mod lane;
mod metrics;
mod pending;
mod pipeline;
mod pool;
mod profile;
mod queries;
mod registry;
mod relay;
mod render;
mod sequence_policy;
mod sequences;
mod settings;
mod shared;
mod spec;
mod trace;
mod validate;

pub use batch::{LaneBatch, LaneInput};
pub use clock::Clock;
pub use decide::{BatchingPolicy, Decision, Reason, Waiting, decide};
pub use engine::Engine;
pub use lane::{Lane, LaneFailure, LaneFuture, LaneOutcome};
pub use metrics::{BatchStatistics, CountAndTime, ModelStatistics, ResponseStatistics};
pub use pending::{Responder, waiter};
pub use pipeline::{Pipeline, StepConfiguration};
pub use pool::Pool;
pub use profile::Profile;
pub use registry::{IndexRow, Model, Placement};
pub use sequence_policy::{Control, ControlKind, SequencePolicy, State, Strategy};
pub use settings::{LogFormat, LogSettings};
pub use shared::{ControlRequest, EngineConfiguration, PendingControl, Shared};
pub use spec::{ModelSpec, ServerInfo, TensorSpec};
pub use trace::{Trace, TraceSink};
pub use validate::{Validated, validate};

use kingpole_values::{Error, Tensor};

/// A model that runs on the reactor's own thread: quick, never blocking.
pub trait InlineModel: Send + Sync {
    /// Run one batch.
    ///
    /// `inputs` are in the specification's order, absent optional ones left out, joined along
    /// dimension 0, each starting at a multiple of 64 bytes in memory. The outputs come in the
    /// specification's order.
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error>;
}
