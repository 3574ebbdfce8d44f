//! What can go wrong: one type, told apart by its code. Knows no transport.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kingpole_values::Code;
use kingpole_wire::frame::FrameError;

/// The result of anything asked of a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An inference, or anything else asked of a server, that failed.
///
/// [`code`](Self::code) says whose fault it is and whether to try again; [`message`](Self::message) has the
/// server's own words, or the client's where no server spoke.
///
/// ```
/// use kingpole_client::{Code, Error};
///
/// let error = Error::new(Code::NotFound, "no model 'm'");
/// assert_eq!(error.code(), Code::NotFound);
/// assert_eq!(error.to_string(), "NOT_FOUND: no model 'm'");
/// ```
#[derive(Clone)]
pub struct Error(Box<Said>);

#[derive(Clone)]
struct Said {
    code: Code,
    message: String,
    retry_after: Option<Duration>,
    id: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    unsent: bool,
}

impl Error {
    /// An error of any code; for tests of those who handle them, and for layers between.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Said {
            code,
            message: message.into(),
            retry_after: None,
            id: None,
            source: None,
            unsent: false,
        }))
    }

    /// Whose fault it is, and whether to try again.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What was wrong, what was expected and what came.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// With `RESOURCE_EXHAUSTED`: when to try again. `None`: trying again is of no use, or nothing was said.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The request's id, if it had one and the server said it.
    pub fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    /// Whether the request certainly did not reach the server.
    pub fn is_unsent(&self) -> bool {
        self.0.unsent
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    pub(crate) fn late(message: impl Into<String>) -> Self {
        Self::new(Code::DeadlineExceeded, message)
    }

    pub(crate) fn cancelled(message: impl Into<String>) -> Self {
        Self::new(Code::Cancelled, message)
    }

    pub(crate) fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    pub(crate) fn unsent(mut self) -> Self {
        self.0.unsent = true;
        self
    }

    pub(crate) fn retry_after_ms(mut self, retry_after_ms: u32) -> Self {
        self.0.retry_after = (retry_after_ms > 0).then(|| Duration::from_millis(retry_after_ms.into()));
        self
    }

    /// What the codec found wrong in what a server sent: the server's fault, not the caller's.
    pub(crate) fn unreadable(error: kingpole_values::Error) -> Self {
        match error.code {
            Code::InvalidArgument => {
                Self::internal(format!("the server's answer cannot be read: {}", error.message))
            }
            code => Self::new(code, error.message.clone().into_owned()),
        }
        .caused_by(error)
    }
}

impl From<kingpole_values::Error> for Error {
    fn from(error: kingpole_values::Error) -> Self {
        Self::new(error.code, error.message)
    }
}

impl From<FrameError> for Error {
    fn from(said: FrameError) -> Self {
        let mut error = Self::from(said.error).retry_after_ms(said.retry_after_ms);
        error.0.id = said.id.map(|id| id.to_string());
        error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.0.code, self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Error");
        debug.field("code", &self.0.code).field("message", &self.0.message);
        if let Some(retry_after) = self.0.retry_after {
            debug.field("retry_after", &retry_after);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
