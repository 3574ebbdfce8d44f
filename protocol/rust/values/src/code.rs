//! What went wrong, in one protocol-neutral set of codes.

use std::borrow::Cow;
use std::fmt;

/// The result of anything that can fail towards a caller.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. The set and the numbers are gRPC's; only those we use exist.
///
/// Source: protocol/spec/errors.md, which says when each is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// The caller gave up before an answer existed.
    Cancelled = 1,
    /// The request itself is wrong; the message names what, what was expected and what came.
    InvalidArgument = 3,
    /// The deadline passed, or could not have been met.
    DeadlineExceeded = 4,
    /// No such model or version.
    NotFound = 5,
    /// Something of this name is there already.
    AlreadyExists = 6,
    /// The caller is known but may not do this.
    PermissionDenied = 7,
    /// Refused before being queued (or a size limit): safe to retry later.
    ResourceExhausted = 8,
    /// The model or server is not in a state that allows this (load and configuration errors).
    FailedPrecondition = 9,
    /// Known to the protocol, not offered here.
    Unimplemented = 12,
    /// A fault of the server or of a backend.
    Internal = 13,
    /// Not ready, draining, or the worker went away: try again.
    Unavailable = 14,
    /// No or wrong credentials.
    Unauthenticated = 16,
}

impl Code {
    /// Every code, in ascending numeric order.
    pub const ALL: [Self; 12] = [
        Self::Cancelled,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::Unauthenticated,
    ];

    /// The name used on the wire, in logs and in metrics, for example `INVALID_ARGUMENT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The number on the wire (gRPC's).
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The code of a wire number, if it is one of ours.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// The code of a wire name, if it is one of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A code and a sentence for the caller: what was wrong, what was expected and what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Who is at fault, and whether to try again.
    pub code: Code,
    /// A sentence that names the thing. Never holds addresses, paths outside the repository or secrets.
    pub message: Cow<'static, str>,
}

impl Error {
    /// An error with any code.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// The caller's fault.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// No such thing.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// Refused for want of room; nothing was done.
    pub fn exhausted(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::ResourceExhausted, message)
    }

    /// Our own or a backend's fault.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// Not now.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unavailable, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number_and_its_name() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(code));
            assert_eq!(Code::from_name(code.name()), Some(code));
        }
        assert_eq!(Code::from_number(0), None, "0 is success, not an error");
    }
}
