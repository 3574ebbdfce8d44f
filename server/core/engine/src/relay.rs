//! The responses of a decoupled batch on their way from its lane to its client.

use kingpole_values::Tensor;
use tokio::sync::{mpsc, oneshot};

use crate::pool::Dispatched;
use crate::{Clock, LaneFailure, LaneFuture, LaneOutcome, Pool};

/// What a decoupled batch is relayed by: its responses as they come, and word that its request was answered.
pub(crate) struct Relay {
    pub parts: mpsc::Receiver<Vec<Tensor>>,
    pub answered: oneshot::Receiver<()>,
}

/// Give a decoupled model's responses to its client as they come, for as long as it wants them.
pub(crate) async fn relay(
    (pool, clock): (&Pool, Clock),
    batch: &Dispatched,
    mut running: LaneFuture,
    Relay { mut parts, mut answered }: Relay,
) -> std::result::Result<LaneOutcome, LaneFailure> {
    let mut ended = None;
    loop {
        tokio::select! {
            // What was given before the end comes before the end.
            biased;
            part = parts.recv() => {
                // The lane has let go of it, so that it has ended or is about to.
                let Some(outputs) = part else { break };
                let wanted = tokio::select! {
                    wanted = std::future::poll_fn(|cx| pool.poll_ready_for_part(batch, cx)) => wanted,
                    _ = &mut answered => false,
                    // The lane has its own patience with a client that does not read.
                    result = &mut running, if ended.is_none() => {
                        let gives_up = result.is_err();
                        ended = Some(result);
                        !gives_up && std::future::poll_fn(|cx| pool.poll_ready_for_part(batch, cx)).await
                    }
                };
                if !wanted || !pool.give_part(batch, outputs, clock.now_us()) {
                    // The lane sees that nobody listens, and ends the batch.
                    break;
                }
            }
            result = &mut running, if ended.is_none() => ended = Some(result),
            // Its deadline has come, or its client has gone.
            _ = &mut answered => break,
        }
    }
    drop(parts);
    match ended {
        Some(result) => result,
        None => running.await,
    }
}
