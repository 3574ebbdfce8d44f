//! How each code looks in HTTP and in gRPC: one table for all frontends.

use kingpole_values::Code;

/// The HTTP status of a code.
///
/// Source: protocol/spec/errors.md.
pub const fn http(code: Code) -> u16 {
    match code {
        // Open Inference's clients know this status and not 409.
        Code::InvalidArgument | Code::AlreadyExists => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::FailedPrecondition => 409,
        Code::ResourceExhausted => 429,
        // Nobody is left to read it; nginx's number keeps access logs readable.
        Code::Cancelled => 499,
        Code::Internal => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    }
}

/// The gRPC status number of a code; 0 (OK) is never one.
pub const fn grpc(code: Code) -> u8 {
    code.number()
}

/// The code that an HTTP status stands for, for clients of servers that say nothing more.
pub const fn code_of_http(status: u16) -> Code {
    match status {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::FailedPrecondition,
        413 | 429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        501 => Code::Unimplemented,
        502 | 503 => Code::Unavailable,
        408 | 504 => Code::DeadlineExceeded,
        400..=499 => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_but_one_survives_http() {
        // Two share a status; its common meaning is the other.
        for code in Code::ALL.into_iter().filter(|&code| code != Code::AlreadyExists) {
            assert_eq!(code_of_http(http(code)), code);
        }
    }

    #[test]
    fn grpc_numbers_are_grpcs() {
        assert_eq!(grpc(Code::InvalidArgument), 3);
        assert_eq!(grpc(Code::Unauthenticated), 16);
    }
}
