//! Counting: always on, a handful of uncontended additions for each request.
//!
//! Each reactor writes a shard of its own; reading sums them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kingpole_values::Code;

use crate::Reason;

/// Upper bounds of the latency histograms, in microseconds.
pub(crate) const LATENCY_BOUNDS_US: [u64; 18] = [
    100, 200, 400, 700, 1_000, 2_000, 4_000, 7_000, 10_000, 20_000, 40_000, 70_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 10_000_000,
];

/// A latency histogram.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One for each bound, and one for what lies above the last.
    pub buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    pub sum_us: AtomicU64,
}

impl Histogram {
    pub fn record(&self, value_us: u64) {
        let bucket = LATENCY_BOUNDS_US.partition_point(|&bound_us| bound_us < value_us);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(value_us, Relaxed);
    }
}

/// What one reactor counted for one model version. Aligned so that reactors do not share lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Shard {
    pub admitted: AtomicU64,
    pub succeeded: AtomicU64,
    pub failed: [AtomicU64; 17],
    /// Of the failed: those refused before they were admitted.
    pub refused: AtomicU64,
    pub batches: [AtomicU64; Reason::ALL.len()],
    pub batch_rows: [AtomicU64; 12],
    pub rows: AtomicU64,
    pub succeeded_us: AtomicU64,
    /// The execution of its batch, once for each request that succeeded.
    pub executed_us: AtomicU64,
    pub failed_us: AtomicU64,
    pub request: Histogram,
    pub queue: Histogram,
    pub execute: Histogram,
}

/// How often, and for how long in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountAndTime {
    /// Occurrences.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

/// One batch size of [`ModelStatistics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStatistics {
    /// Rows.
    pub batch_size: u64,
    /// Laying the batch out.
    pub compute_input: CountAndTime,
    /// Running it.
    pub compute_infer: CountAndTime,
    /// Splitting it.
    pub compute_output: CountAndTime,
}

/// One model version's counters in the form of the Open Inference statistics extension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelStatistics {
    /// The model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When it last answered, in milliseconds since 1970; 0 for never.
    pub last_inference_ms: u64,
    /// Rows inferred.
    pub inference_count: u64,
    /// Batches run.
    pub execution_count: u64,
    /// Requests answered with a response.
    pub success: CountAndTime,
    /// Requests answered with an error.
    pub fail: CountAndTime,
    /// Time in the queue.
    pub queue: CountAndTime,
    /// Laying its batch out, for each request that succeeded; the time is included in `compute_infer`.
    pub compute_input: CountAndTime,
    /// Running its batch, for each request that succeeded: one of many in a batch counts its whole time.
    pub compute_infer: CountAndTime,
    /// Splitting its batch, for each request that succeeded; the time is included in `compute_infer`.
    pub compute_output: CountAndTime,
    /// By batch size.
    pub batches: Vec<BatchStatistics>,
    /// Of a decoupled model: by the place of a response among those of its request, from 0.
    pub responses: Vec<ResponseStatistics>,
}

/// One place of a response among those of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseStatistics {
    /// Responses that were given, and the time since the one before or since the execution began.
    pub success: CountAndTime,
    /// Requests that failed where this response would have come.
    pub fail: CountAndTime,
    /// Requests that ended where this response would have come.
    pub empty: CountAndTime,
    /// Requests that nobody waited for any more where this response would have come.
    pub cancel: CountAndTime,
}

/// What came at one place of a request's responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseEvent {
    Given,
    Failed,
    Ended,
    Cancelled,
}

/// Places that are told apart; what comes later is counted at the last.
const MAX_PLACES: usize = 256;

/// Counters of one model version.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    shards: Box<[Shard]>,
    by_size: Mutex<BTreeMap<u32, CountAndTime>>,
    by_place: Mutex<Vec<ResponseStatistics>>,
    last_inference_ms: AtomicU64,
}

impl ModelMetrics {
    pub fn new(reactors: usize) -> Self {
        Self {
            shards: (0..reactors.max(1)).map(|_| Shard::default()).collect(),
            by_size: Mutex::default(),
            by_place: Mutex::default(),
            last_inference_ms: AtomicU64::new(0),
        }
    }

    pub fn shard(&self, reactor: usize) -> &Shard {
        &self.shards[reactor % self.shards.len()]
    }

    pub fn sum(&self, pick: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| pick(shard).load(Relaxed)).sum()
    }

    /// Admitted and not yet answered.
    pub fn in_flight(&self) -> u64 {
        let answered = self.sum(|s| &s.succeeded)
            + (0..17).map(|code| self.sum(|s| &s.failed[code])).sum::<u64>()
            - self.sum(|s| &s.refused);
        self.sum(|s| &s.admitted).saturating_sub(answered)
    }

    /// Requests that ended with each code, successes first as `OK`.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        std::iter::once(("OK", self.sum(|s| &s.succeeded))).chain(
            Code::ALL
                .into_iter()
                .map(|code| (code.name(), self.sum(|shard| &shard.failed[usize::from(code.number())]))),
        )
    }

    pub fn record_batch(&self, reactor: usize, rows: u32, reason: Reason, execute_us: u64, now_ms: u64) {
        let shard = self.shard(reactor);
        shard.batches[reason as usize].fetch_add(1, Relaxed);
        let bucket = (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(11);
        shard.batch_rows[bucket].fetch_add(1, Relaxed);
        shard.rows.fetch_add(u64::from(rows), Relaxed);
        shard.execute.record(execute_us);
        self.last_inference_ms.store(now_ms, Relaxed);
        if let Ok(mut by_size) = self.by_size.lock() {
            let entry = by_size.entry(rows).or_default();
            entry.count += 1;
            entry.ns += execute_us * 1000;
        }
    }

    pub fn record_success(&self, reactor: usize, total_us: u64, queue_us: u64, execute_us: u64) {
        let shard = self.shard(reactor);
        shard.succeeded.fetch_add(1, Relaxed);
        shard.succeeded_us.fetch_add(total_us, Relaxed);
        shard.executed_us.fetch_add(execute_us, Relaxed);
        shard.request.record(total_us);
        shard.queue.record(queue_us);
    }

    /// Count what came at a place of a decoupled model's responses, after so long.
    pub fn record_response(&self, place: u32, event: ResponseEvent, after_us: u64) {
        let Ok(mut by_place) = self.by_place.lock() else { return };
        let place = usize::try_from(place).unwrap_or(MAX_PLACES).min(MAX_PLACES - 1);
        if by_place.len() <= place {
            by_place.resize_with(place + 1, ResponseStatistics::default);
        }
        let counted = &mut by_place[place];
        let counted = match event {
            ResponseEvent::Given => &mut counted.success,
            ResponseEvent::Failed => &mut counted.fail,
            ResponseEvent::Ended => &mut counted.empty,
            ResponseEvent::Cancelled => &mut counted.cancel,
        };
        counted.count += 1;
        counted.ns += after_us * 1000;
    }

    pub fn record_failure(&self, reactor: usize, code: Code, total_us: u64) {
        let shard = self.shard(reactor);
        shard.failed[usize::from(code.number())].fetch_add(1, Relaxed);
        shard.failed_us.fetch_add(total_us, Relaxed);
    }

    pub fn record_refused(&self, reactor: usize, code: Code) {
        self.shard(reactor).refused.fetch_add(1, Relaxed);
        self.record_failure(reactor, code, 0);
    }

    pub fn histogram(&self, pick: impl Fn(&Shard) -> &Histogram) -> ([u64; 19], u64) {
        let mut buckets = [0; LATENCY_BOUNDS_US.len() + 1];
        for shard in &self.shards {
            for (total, bucket) in buckets.iter_mut().zip(&pick(shard).buckets) {
                *total += bucket.load(Relaxed);
            }
        }
        (buckets, self.sum(|shard| &pick(shard).sum_us))
    }

    pub fn statistics(&self, name: &str, version: &str) -> ModelStatistics {
        let by_size = self.by_size.lock().map(|sizes| sizes.clone()).unwrap_or_default();
        let batches: u64 = by_size.values().map(|size| size.count).sum();
        let succeeded = self.sum(|s| &s.succeeded);
        let within = |count| CountAndTime { count, ns: 0 };
        let (queue_counts, queue_us) = self.histogram(|s| &s.queue);
        let failures = (0..17).map(|code| self.sum(|s| &s.failed[code])).sum();
        ModelStatistics {
            name: name.to_owned(),
            version: version.to_owned(),
            last_inference_ms: self.last_inference_ms.load(Relaxed),
            inference_count: self.sum(|s| &s.rows),
            execution_count: batches,
            success: CountAndTime { count: succeeded, ns: self.sum(|s| &s.succeeded_us) * 1000 },
            fail: CountAndTime { count: failures, ns: self.sum(|s| &s.failed_us) * 1000 },
            queue: CountAndTime { count: queue_counts.iter().sum(), ns: queue_us * 1000 },
            compute_input: within(succeeded),
            compute_infer: CountAndTime { count: succeeded, ns: self.sum(|s| &s.executed_us) * 1000 },
            compute_output: within(succeeded),
            batches: by_size
                .into_iter()
                .map(|(rows, compute_infer)| BatchStatistics {
                    batch_size: u64::from(rows),
                    compute_input: within(compute_infer.count),
                    compute_infer,
                    compute_output: within(compute_infer.count),
                })
                .collect(),
            responses: self.by_place.lock().map(|places| places.clone()).unwrap_or_default(),
        }
    }
}
