//! The one monotonic clock, in microseconds since the server began.

use std::time::Instant;

/// Turns instants into microseconds since an origin. Copies share the origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that began at `origin`.
    pub fn new(origin: Instant) -> Self {
        Self { origin }
    }

    /// Microseconds from the origin to `instant`; 0 if it lies before.
    #[allow(clippy::cast_possible_truncation, reason = "2^64 µs are half a million years")]
    pub fn at_us(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.origin).as_micros() as u64
    }

    /// The present.
    pub fn now_us(&self) -> u64 {
        self.at_us(Instant::now())
    }

    /// The instant of a point on this clock.
    pub fn instant(&self, at_us: u64) -> Instant {
        self.origin + std::time::Duration::from_micros(at_us)
    }
}
