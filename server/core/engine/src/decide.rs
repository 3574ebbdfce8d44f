//! Which model runs next, and how much of its queue: a pure function of queue, policy and clock.
//!
//! This is the seat of the scheduler: whatever replaces `decide` sees the same values and gives the
//! same answer type, under a real or a virtual clock.

/// Why a batch left when it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Nothing more would have fitted.
    Full = 0,
    /// Something was free to run it and nobody else was waiting.
    Idle = 1,
    /// The next request has another shape.
    Shape = 2,
    /// A larger batch would not have been faster per row.
    Efficient = 3,
    /// The configured queue delay had passed.
    Delay = 4,
    /// A request run by itself after its batch failed.
    Alone = 5,
}

impl Reason {
    /// Every reason, by number.
    pub const ALL: [Self; 6] =
        [Self::Full, Self::Idle, Self::Shape, Self::Efficient, Self::Delay, Self::Alone];

    /// The name in metrics and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Idle => "idle",
            Self::Shape => "shape",
            Self::Efficient => "efficient",
            Self::Delay => "delay",
            Self::Alone => "alone",
        }
    }
}

/// The limits a queue is batched under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchingPolicy {
    /// Most rows of a batch; 0 for a model that does not batch.
    pub max_batch_size: u32,
    /// Rows beyond which a batch only adds latency, by the learned profile.
    pub efficient_rows: u32,
    /// How long the oldest may wait for company; 0 never waits.
    pub max_queue_delay_us: u64,
}

/// One queued request, as far as batching is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its rows.
    pub rows: u32,
    /// When it was admitted.
    pub enqueued_us: u64,
    /// Whether it may share a batch with the head of the queue.
    pub joins_head: bool,
    /// Whether it must run by itself.
    pub alone: bool,
}

/// What to do with a queue now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send the first `requests` of the queue.
    Dispatch {
        /// How many requests, from the head.
        requests: usize,
        /// Their rows.
        rows: u32,
        /// Why now.
        reason: Reason,
    },
    /// Look again at this time, or when something arrives.
    WaitUntil(u64),
    /// Nothing is waiting.
    Nothing,
}

/// Decide how much of a queue to send, now that something is free to run it.
///
/// The batch is the longest head of the queue that fits the policy. It leaves at once, unless the
/// model's configuration asks for a queue delay. Requests are never reordered: a request that does
/// not fit ends the batch, and is the head of the next.
///
/// `queue` gives the waiting requests, oldest first.
///
/// Source: docs/adr/0004-batching-policy.md.
pub fn decide(queue: impl IntoIterator<Item = Waiting>, now_us: u64, policy: BatchingPolicy) -> Decision {
    let mut queue = queue.into_iter();
    let Some(head) = queue.next() else { return Decision::Nothing };
    if head.alone || policy.max_batch_size == 0 {
        let reason = if head.alone { Reason::Alone } else { Reason::Full };
        return Decision::Dispatch { requests: 1, rows: head.rows, reason };
    }
    let limit = policy.max_batch_size.min(policy.efficient_rows.max(head.rows));
    let capped = limit < policy.max_batch_size;
    let (mut requests, mut rows) = (1, head.rows);
    let mut reason = Reason::Idle;
    for next in queue {
        if next.alone || !next.joins_head {
            reason = Reason::Shape;
            break;
        }
        if rows + next.rows > limit {
            reason = if capped { Reason::Efficient } else { Reason::Full };
            break;
        }
        requests += 1;
        rows += next.rows;
    }
    if reason == Reason::Idle && rows == limit {
        reason = if capped { Reason::Efficient } else { Reason::Full };
    }
    if reason == Reason::Idle && policy.max_queue_delay_us > 0 {
        let leaves_us = head.enqueued_us.saturating_add(policy.max_queue_delay_us);
        if now_us < leaves_us {
            return Decision::WaitUntil(leaves_us);
        }
        reason = Reason::Delay;
    }
    Decision::Dispatch { requests, rows, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BatchingPolicy =
        BatchingPolicy { max_batch_size: 4, efficient_rows: 4, max_queue_delay_us: 0 };

    fn waiting(rows: u32) -> Waiting {
        Waiting { rows, enqueued_us: 100, joins_head: true, alone: false }
    }

    #[test]
    fn a_lone_request_leaves_at_once() {
        assert_eq!(
            decide([waiting(1)], 100, POLICY),
            Decision::Dispatch { requests: 1, rows: 1, reason: Reason::Idle }
        );
    }

    #[test]
    fn a_batch_never_passes_the_limit_and_never_reorders() {
        assert_eq!(
            decide([waiting(3), waiting(2), waiting(1)], 100, POLICY),
            Decision::Dispatch { requests: 1, rows: 3, reason: Reason::Full }
        );
        assert_eq!(
            decide([waiting(3), waiting(1), waiting(1)], 100, POLICY),
            Decision::Dispatch { requests: 2, rows: 4, reason: Reason::Full }
        );
    }

    #[test]
    fn shapes_never_mix() {
        let other = Waiting { joins_head: false, ..waiting(1) };
        assert_eq!(
            decide([waiting(1), other, waiting(1)], 100, POLICY),
            Decision::Dispatch { requests: 1, rows: 1, reason: Reason::Shape }
        );
    }

    #[test]
    fn a_configured_delay_is_waited_for_unless_the_batch_is_full() {
        let policy = BatchingPolicy { max_queue_delay_us: 50, ..POLICY };
        assert_eq!(decide([waiting(1)], 100, policy), Decision::WaitUntil(150));
        assert_eq!(
            decide([waiting(1)], 150, policy),
            Decision::Dispatch { requests: 1, rows: 1, reason: Reason::Delay }
        );
        assert_eq!(
            decide([waiting(4)], 100, policy),
            Decision::Dispatch { requests: 1, rows: 4, reason: Reason::Full }
        );
    }

    #[test]
    fn a_batch_stops_where_growing_no_longer_pays() {
        let policy = BatchingPolicy { efficient_rows: 2, ..POLICY };
        assert_eq!(
            decide([waiting(1), waiting(1), waiting(1)], 100, policy),
            Decision::Dispatch { requests: 2, rows: 2, reason: Reason::Efficient }
        );
        assert_eq!(
            decide([waiting(3), waiting(1)], 100, policy),
            Decision::Dispatch { requests: 1, rows: 3, reason: Reason::Efficient },
            "a request larger than the efficient size still runs"
        );
    }

    #[test]
    fn a_model_that_does_not_batch_takes_one_request() {
        let policy = BatchingPolicy { max_batch_size: 0, ..POLICY };
        assert_eq!(
            decide([waiting(1), waiting(1)], 100, policy),
            Decision::Dispatch { requests: 1, rows: 1, reason: Reason::Full }
        );
    }
}
