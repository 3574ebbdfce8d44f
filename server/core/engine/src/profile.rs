//! What is known of a model's speed, learned from its own batches.

/// Latency by batch size: a table, not a line (an affine fit was off by up to 92 % on real models).
///
/// Sizes are kept by powers of two; entry `i` is for batches of more than `2^(i-1)` and up to `2^i`
/// rows. Each entry is an exponentially weighted mean in microseconds.
///
/// Source: docs/adr/0004-batching-policy.md.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    entries: [Option<f64>; 17],
    /// Batches learned from.
    recorded: u32,
}

/// Weight of a new observation.
const NEW_WEIGHT: f64 = 0.1;

/// One batch in this many may be twice as large as what paid so far.
const EXPLORE_EVERY: u32 = 64;

/// A larger batch must give at least this much more throughput to be worth its latency.
const WORTHWHILE_GAIN: f64 = 1.05;

impl Profile {
    fn slot(rows: u32) -> usize {
        (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(16)
    }

    /// Learn from one successful, warm batch.
    #[allow(clippy::cast_precision_loss, reason = "microseconds of one batch are far below 2^52")]
    pub fn record(&mut self, rows: u32, execute_us: u64) {
        self.recorded = self.recorded.wrapping_add(1);
        let entry = &mut self.entries[Self::slot(rows)];
        let seen = execute_us as f64;
        *entry = Some(entry.map_or(seen, |mean| mean + NEW_WEIGHT * (seen - mean)));
    }

    /// Expected time of a batch of this size, if one like it has been seen.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive mean of u64s")]
    pub fn expected_us(&self, rows: u32) -> Option<u64> {
        self.entries[Self::slot(rows)].map(|mean| mean.ceil() as u64)
    }

    /// The slowest batch seen, by its mean.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive mean of u64s")]
    pub fn slowest_us(&self) -> Option<u64> {
        self.entries.iter().flatten().copied().reduce(f64::max).map(|mean| mean.ceil() as u64)
    }

    /// The largest batch worth forming: the smallest size whose throughput is within 5 % of the best
    /// one seen. A batch beyond it only adds latency. Sizes never seen are worth trying, so the
    /// answer is `limit` unless larger sizes were tried and did not pay.
    pub fn efficient_rows(&self, limit: u32) -> u32 {
        let rate =
            |slot: usize| self.entries[slot].map(|mean| f64::from(1u32 << slot.min(31)) / mean.max(0.5));
        let top = Self::slot(limit);
        let Some(best) = (0..=top).filter_map(rate).reduce(f64::max) else { return limit };
        let smallest = (0..=top).find(|&slot| rate(slot).is_some_and(|r| r * WORTHWHILE_GAIN >= best));
        match smallest {
            // Nothing larger was ever tried: there may be more to gain.
            Some(slot) if (slot + 1..=top).all(|larger| rate(larger).is_none()) => limit,
            // What was once measured may have been noise: now and then the next size gets its chance.
            Some(slot) if self.recorded % EXPLORE_EVERY == EXPLORE_EVERY - 1 => limit.min(2 << slot),
            Some(slot) => limit.min(1 << slot),
            None => limit,
        }
    }

    /// What was learned: (largest rows of the entry, mean microseconds).
    pub fn table(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        self.entries.iter().enumerate().filter_map(|(slot, mean)| mean.map(|mean| (1u32 << slot, mean)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_gains_from_batching_gets_full_batches() {
        let mut profile = Profile::default();
        for (rows, us) in [(1, 36), (2, 38), (4, 42), (8, 50), (16, 60), (32, 80)] {
            profile.record(rows, us);
        }
        assert_eq!(profile.efficient_rows(32), 32);
        assert_eq!(profile.expected_us(5), Some(50), "sizes share the entry of the next power of two");
    }

    #[test]
    fn a_model_that_gains_nothing_runs_one_by_one() {
        let mut profile = Profile::default();
        for (rows, us) in [(1, 12_000), (2, 24_500), (4, 49_000)] {
            profile.record(rows, us);
        }
        assert_eq!(profile.efficient_rows(32), 1);
    }

    #[test]
    fn a_size_that_once_looked_bad_is_tried_again() {
        let mut profile = Profile::default();
        for (rows, us) in [(1, 100), (2, 5_000)] {
            profile.record(rows, us);
        }
        assert_eq!(profile.efficient_rows(2), 1);
        for _ in 0..200 * EXPLORE_EVERY {
            let rows = profile.efficient_rows(2);
            profile.record(rows, if rows == 2 { 110 } else { 100 });
        }
        assert_eq!(profile.efficient_rows(2), 2, "it is nearly twice as good, after all");
    }

    #[test]
    fn what_was_never_tried_is_not_ruled_out() {
        let mut profile = Profile::default();
        assert_eq!(profile.efficient_rows(8), 8);
        profile.record(1, 100);
        assert_eq!(profile.efficient_rows(8), 8);
        assert_eq!(profile.expected_us(8), None);
    }
}
