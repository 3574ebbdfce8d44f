//! What a lane is to the engine: it runs one batch at a time, in another thread or process.

use std::future::Future;
use std::pin::Pin;

use kingpole_values::{Error, Tensor};

use crate::batch::LaneBatch;

/// What a lane did with a batch.
#[derive(Debug)]
pub struct LaneOutcome {
    /// Outputs in the specification's order.
    pub outputs: Vec<Tensor>,
    /// Time of execution alone, by the instance's own clock.
    pub execute_us: u64,
}

/// Why a lane did not finish a batch.
#[derive(Debug)]
pub enum LaneFailure {
    /// The batch was not begun: it cannot be given to the lane as it is.
    Refused(Error),
    /// The batch failed; the lane lives.
    Batch(Error),
    /// The lane is gone.
    Lost(Error),
    /// The batch did not end in its time, and its lane was given up for it.
    Hung(Error),
}

/// The future of one batch.
pub type LaneFuture = Pin<Box<dyn Future<Output = Result<LaneOutcome, LaneFailure>> + Send>>;

/// Something that runs one batch at a time, elsewhere.
pub trait Lane: Send + Sync {
    /// Run a batch of the model with this handle.
    fn execute(&self, handle: u32, batch: LaneBatch) -> LaneFuture;

    /// Whether it can run this model now. One that has just been started again takes its models back one
    /// by one; whoever changes the answer to yes wakes the reactors, as after `Pool::attach`.
    fn takes(&self, _handle: u32) -> bool {
        true
    }
}

impl LaneFailure {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Batch(error) | Self::Lost(error) | Self::Hung(error) => error,
        }
    }
}
