"""What can go wrong, one class per code.

Knows no transport: how a code looks in HTTP or gRPC is the business of the transports. Imports nothing
heavy, so that `except kingpole_client.Unavailable` costs nothing.
"""

from __future__ import annotations

from typing import ClassVar


class KingpoleError(Exception):
    """An inference, or anything else asked of a server, that failed.

    Every failure that a client reports is one of these; `code` says whose fault it is and whether to try
    again, `message` carries the server's own words.

    Source: protocol/spec/errors.md; the codes and their numbers are gRPC's.
    """

    code: ClassVar[str] = "INTERNAL"
    number: ClassVar[int] = 13

    def __init__(self, message: str, *, id: str | None = None, retry_after_ms: int | None = None) -> None:  # noqa: A002 - the protocol's word
        super().__init__(message)
        self.message = message
        self.id = id
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        state = {"id": self.id, "retry_after_ms": self.retry_after_ms}
        return (type(self), (self.message,), state)


class Cancelled(KingpoleError):  # noqa: N818 - named after its code, like all below
    """The caller gave up before an answer existed, or the client was closed."""

    code = "CANCELLED"
    number = 1


class InvalidArgument(KingpoleError):  # noqa: N818 - see Cancelled
    """The request is wrong; the message names what, what was expected and what came."""

    code = "INVALID_ARGUMENT"
    number = 3


class DeadlineExceeded(KingpoleError):  # noqa: N818 - see Cancelled
    """The timeout passed, here or at the server."""

    code = "DEADLINE_EXCEEDED"
    number = 4


class NotFound(KingpoleError):  # noqa: N818 - see Cancelled
    """No such model or version."""

    code = "NOT_FOUND"
    number = 5


class AlreadyExists(KingpoleError):  # noqa: N818 - see Cancelled
    """Something of this name is there already."""

    code = "ALREADY_EXISTS"
    number = 6


class PermissionDenied(KingpoleError):  # noqa: N818 - see Cancelled
    """The caller is known but may not do this."""

    code = "PERMISSION_DENIED"
    number = 7


class ResourceExhausted(KingpoleError):  # noqa: N818 - see Cancelled
    """Refused before being queued: safe to try again after `retry_after_ms`."""

    code = "RESOURCE_EXHAUSTED"
    number = 8


class FailedPrecondition(KingpoleError):  # noqa: N818 - see Cancelled
    """The model or server is not in a state that allows this."""

    code = "FAILED_PRECONDITION"
    number = 9


class Unimplemented(KingpoleError):  # noqa: N818 - see Cancelled
    """Known to the protocol, not offered by this server or over this transport."""

    code = "UNIMPLEMENTED"
    number = 12


class Internal(KingpoleError):  # noqa: N818 - see Cancelled
    """A fault of the server or of a backend, or an answer that makes no sense."""


class Unavailable(KingpoleError):  # noqa: N818 - see Cancelled
    """Not ready, draining, or not reachable: try again."""

    code = "UNAVAILABLE"
    number = 14


class Unauthenticated(KingpoleError):  # noqa: N818 - see Cancelled
    """No or wrong credentials."""

    code = "UNAUTHENTICATED"
    number = 16


_CLASSES: tuple[type[KingpoleError], ...] = (
    Cancelled, InvalidArgument, DeadlineExceeded, NotFound, AlreadyExists, PermissionDenied,
    ResourceExhausted, FailedPrecondition, Unimplemented, Internal, Unavailable, Unauthenticated,
)  # fmt: skip
_BY_NUMBER = {error.number: error for error in _CLASSES}
_BY_HTTP_STATUS: dict[int, type[KingpoleError]] = {
    400: InvalidArgument, 401: Unauthenticated, 403: PermissionDenied, 404: NotFound, 408: DeadlineExceeded,
    409: FailedPrecondition, 413: ResourceExhausted, 415: InvalidArgument, 422: InvalidArgument,
    429: ResourceExhausted, 499: Cancelled, 501: Unimplemented, 502: Unavailable, 503: Unavailable,
    504: DeadlineExceeded,
}  # fmt: skip


def error_of_number(
    number: int,
    message: str,
    *,
    id: str | None = None,  # noqa: A002 - the protocol's word
    retry_after_ms: int | None = None,
) -> KingpoleError:
    """Make the error of a code's number; an unknown number is an `Internal` that says so."""
    error = _BY_NUMBER.get(number)
    if error is None:
        return Internal(f"unknown code {number}: {message}", id=id, retry_after_ms=retry_after_ms)
    return error(message, id=id, retry_after_ms=retry_after_ms)


def error_of_http_status(status: int, message: str, *, retry_after_ms: int | None = None) -> KingpoleError:
    """Make the error of an HTTP status that came without a frame.

    Source: the table of protocol/spec/errors.md, read from right to left.
    """
    default = InvalidArgument if 400 <= status < 500 else Internal
    return _BY_HTTP_STATUS.get(status, default)(message, retry_after_ms=retry_after_ms)
