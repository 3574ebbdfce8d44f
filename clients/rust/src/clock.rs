//! How long to wait.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, Result};

/// The server knows the timeout too and answers when it expires: its word, which says more, gets this long to
/// arrive before the client gives up itself.
const GRACE: Duration = Duration::from_millis(250);
/// Asking who is there needs no model and must not wait for ever.
const ASKING: Duration = Duration::from_secs(10);

/// When to give up; never, if there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// That of an answer asked for with this timeout.
    pub(crate) fn of_timeout(timeout_us: Option<u64>) -> Self {
        // A sum beyond what a clock can say is as good as none.
        Self(timeout_us.and_then(|timeout_us| {
            Instant::now().checked_add(Duration::from_micros(timeout_us).checked_add(GRACE)?)
        }))
    }

    /// That of a question about the server or a model.
    pub(crate) fn of_question() -> Self {
        Self(Some(Instant::now() + ASKING))
    }

    pub(crate) fn instant(self) -> Option<Instant> {
        self.0
    }

    /// Whether so much time is left.
    pub(crate) fn allows(self, wait: Duration) -> bool {
        self.0.is_none_or(|deadline| deadline.saturating_duration_since(Instant::now()) > wait)
    }

    /// What a future gives, or `DEADLINE_EXCEEDED` with this text.
    pub(crate) async fn limit<T>(
        self,
        future: impl Future<Output = Result<T>>,
        late: impl FnOnce() -> String,
    ) -> Result<T> {
        match self.0 {
            None => future.await,
            Some(deadline) => {
                tokio::time::timeout_at(deadline, future).await.unwrap_or_else(|_| Err(Error::late(late())))
            }
        }
    }
}
