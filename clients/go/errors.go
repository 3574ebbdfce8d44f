package kingpole

// What can go wrong, one value per code. Knows no transport: how a code looks in HTTP or gRPC is the transports' business.
// Source: protocol/spec/errors.md; the codes and their numbers are gRPC's.

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Code says who is at fault and whether trying again makes sense. It is an error itself, so that errors.Is(err, NotFound) asks
// for the code of whatever is in err's chain.
type Code uint8

// The codes, by gRPC's numbers.
const (
	// Cancelled: the caller gave up before an answer existed, or the client was closed.
	Cancelled Code = 1
	// InvalidArgument: the request is wrong; the message names what, what was expected and what came.
	InvalidArgument Code = 3
	// DeadlineExceeded: the timeout passed, here or at the server.
	DeadlineExceeded Code = 4
	// NotFound: no such model or version.
	NotFound Code = 5
	// AlreadyExists: something of this name is there already.
	AlreadyExists Code = 6
	// PermissionDenied: the caller is known but may not do this.
	PermissionDenied Code = 7
	// ResourceExhausted: refused before being queued, or above a size limit. Trying again makes sense after RetryAfter, if that is set.
	ResourceExhausted Code = 8
	// FailedPrecondition: the model or server is not in a state that allows this.
	FailedPrecondition Code = 9
	// Unimplemented: known to the protocol, not offered by this server or over this transport.
	Unimplemented Code = 12
	// Internal: a fault of the server or of a backend, or an answer that makes no sense.
	Internal Code = 13
	// Unavailable: not ready, draining, or not reachable.
	Unavailable Code = 14
	// Unauthenticated: no or wrong credentials.
	Unauthenticated Code = 16
)

var codeNames = map[Code]string{
	Cancelled: "CANCELLED", InvalidArgument: "INVALID_ARGUMENT", DeadlineExceeded: "DEADLINE_EXCEEDED", NotFound: "NOT_FOUND",
	AlreadyExists: "ALREADY_EXISTS", PermissionDenied: "PERMISSION_DENIED", ResourceExhausted: "RESOURCE_EXHAUSTED",
	FailedPrecondition: "FAILED_PRECONDITION", Unimplemented: "UNIMPLEMENTED", Internal: "INTERNAL", Unavailable: "UNAVAILABLE",
	Unauthenticated: "UNAUTHENTICATED",
}

// String returns the code's name, for example "NOT_FOUND".
func (c Code) String() string {
	if name, known := codeNames[c]; known {
		return name
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Error makes a code something that errors.Is can be asked for.
func (c Code) Error() string { return c.String() }

// Error is everything that a client reports: errors.As gives it, errors.Is with a Code asks for its code.
type Error struct {
	// Code says what kind of thing went wrong.
	Code Code
	// Message is the server's own text, or the client's.
	Message string
	// RetryAfter says when trying again makes sense; 0 is not said.
	RetryAfter time.Duration
	// ID is the request's, if the server said it.
	ID string

	cause error
	// unsent: nothing of the request left this machine, so that it cannot have run.
	unsent bool
	// malformed: the bytes that came cannot be read.
	malformed bool
}

// Error returns the code and the text.
func (e *Error) Error() string { return e.Code.String() + ": " + e.Message }

// Is reports whether target is the error's code.
func (e *Error) Is(target error) bool {
	code, is := target.(Code)
	return is && code == e.Code
}

// Unwrap returns what caused the error on this side, if something did: for example context.Canceled.
func (e *Error) Unwrap() error { return e.cause }

func failure(code Code, format string, arguments ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, arguments...)}
}

func malformed(format string, arguments ...any) *Error {
	return &Error{Code: InvalidArgument, Message: fmt.Sprintf(format, arguments...), malformed: true}
}

// received makes the error of an answer that cannot be read the server's fault.
func received(err error) error {
	var known *Error
	if errors.As(err, &known) && known.malformed {
		return &Error{Code: Internal, Message: "the server's answer cannot be read: " + known.Message}
	}
	return err
}

// errorOfNumber makes the error of a code's number; an unknown one is an Internal that says so.
func errorOfNumber(number uint32, message string) *Error {
	if number < 256 {
		if _, known := codeNames[Code(number)]; known {
			return &Error{Code: Code(number), Message: message}
		}
	}
	return failure(Internal, "unknown code %d: %s", number, message)
}

// errorOfContext makes the error of a context that is done.
func errorOfContext(ctx context.Context) *Error {
	cause := context.Cause(ctx)
	var known *Error
	if errors.As(cause, &known) {
		return known
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{Code: DeadlineExceeded, Message: "no answer came in time", cause: ctx.Err()}
	}
	return &Error{Code: Cancelled, Message: "the caller gave up", cause: ctx.Err()}
}

var codesByStatus = map[int]Code{
	400: InvalidArgument, 401: Unauthenticated, 403: PermissionDenied, 404: NotFound, 408: DeadlineExceeded, 409: FailedPrecondition,
	413: ResourceExhausted, 415: InvalidArgument, 422: InvalidArgument, 429: ResourceExhausted, 499: Cancelled, 501: Unimplemented,
	502: Unavailable, 503: Unavailable, 504: DeadlineExceeded,
}

// codeOfStatus reads the table of protocol/spec/errors.md from right to left.
func codeOfStatus(status int) Code {
	if code, known := codesByStatus[status]; known {
		return code
	}
	if status >= 400 && status < 500 {
		return InvalidArgument
	}
	return Internal
}
