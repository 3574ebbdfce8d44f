//! How errors look in HTTP.

use http::{HeaderValue, StatusCode, header};
use kingpole_values::{Code, Error};

use crate::body::{BodyError, unknown_coding};
use crate::coding::{SUPPORTED, Wanted};
use crate::message::{HttpResponse, TEXT};

/// The HTTP status of a code.
pub(crate) fn of(code: Code) -> StatusCode {
    // The table holds valid numbers only.
    StatusCode::from_u16(kingpole_wire::status::http(code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// How errors are written: as JSON for Open Inference, as text for `GraphPipe`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Json,
    Text,
}

impl Dialect {
    pub(crate) fn write(self, status: StatusCode, message: &str) -> HttpResponse {
        match self {
            Self::Json => HttpResponse::error(status, message),
            Self::Text => HttpResponse::new(status, TEXT, vec![format!("{message}\n").into()])
                .with(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        }
    }

    /// The response to a request that failed.
    pub(crate) fn error(self, error: &Error) -> HttpResponse {
        let response = self.write(of(error.code), &error.message);
        match error.code {
            Code::ResourceExhausted | Code::Unavailable => {
                response.with(header::RETRY_AFTER, HeaderValue::from_static("1"))
            }
            _ => response,
        }
    }

    /// The refusal of a request that wants its answer in a way that it cannot be written; its body is not read.
    pub(crate) fn unless_possible(self, wanted: Wanted) -> Option<HttpResponse> {
        let refuse = || {
            let message =
                format!("Accept-Encoding allows no coding that is supported; use one of {SUPPORTED}");
            self.write(StatusCode::NOT_ACCEPTABLE, &message).closing()
        };
        wanted.is_impossible().then(refuse)
    }

    /// The response to a request whose body was not read.
    pub(crate) fn body_error(self, error: &BodyError) -> HttpResponse {
        match error {
            BodyError::TooLong(error) => self.write(StatusCode::PAYLOAD_TOO_LARGE, &error.message).closing(),
            // The body is passed over.
            BodyError::NoRoom(error) => self.error(error),
            BodyError::Coding(name) => self
                .write(StatusCode::UNSUPPORTED_MEDIA_TYPE, &unknown_coding(name))
                .with(header::ACCEPT_ENCODING, HeaderValue::from_static(SUPPORTED))
                .closing(),
            BodyError::Other(error) => self.error(error).closing(),
        }
    }
}
