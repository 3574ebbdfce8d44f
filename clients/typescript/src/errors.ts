/**
 * What can go wrong, one class per code.
 *
 * Knows no transport but the table of HTTP statuses; how a code looks elsewhere is the transports' business.
 *
 * Source: protocol/spec/errors.md; the codes and their numbers are gRPC's.
 */

/** Says whose fault it is and whether to try again. */
export type Code =
  | "CANCELLED"
  | "INVALID_ARGUMENT"
  | "DEADLINE_EXCEEDED"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "UNIMPLEMENTED"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "UNAUTHENTICATED";

/** What is known of an error beside its text. */
export interface ErrorDetail {
  /** The id of the request, if it had one. */
  readonly id?: string | undefined;
  /** When trying again makes sense; absent: not said. */
  readonly retryAfterMs?: number | undefined;
  /** True only if it is certain that nothing of the request reached the server. */
  readonly neverSent?: boolean | undefined;
  /** What this was made from. */
  readonly cause?: unknown;
}

/**
 * Anything asked of a server that failed. Every failure that a client reports is one of these, except that
 * a call given up by its `AbortSignal` rejects with the signal's reason. `message` is the server's own text.
 */
export abstract class KingpoleError extends Error {
  /** The code, the same over every protocol. */
  abstract readonly code: Code;
  /** The id of the request, if it had one. */
  readonly id: string | undefined;
  /** When trying again makes sense; undefined: not said. */
  readonly retryAfterMs: number | undefined;
  /** True only if it is certain that nothing of the request reached the server. */
  readonly neverSent: boolean;

  constructor(message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.id = detail.id;
    this.retryAfterMs = detail.retryAfterMs;
    this.neverSent = detail.neverSent ?? false;
  }
}

/** The caller gave up before an answer existed, or the client was closed. */
export class Cancelled extends KingpoleError {
  override readonly name: string = "Cancelled";
  override readonly code = "CANCELLED";
}

/** The request is wrong; the message names what, what was expected and what came. */
export class InvalidArgument extends KingpoleError {
  override readonly name: string = "InvalidArgument";
  override readonly code = "INVALID_ARGUMENT";
}

/** The timeout passed, here or at the server. */
export class DeadlineExceeded extends KingpoleError {
  override readonly name: string = "DeadlineExceeded";
  override readonly code = "DEADLINE_EXCEEDED";
}

/** No such model or version. */
export class NotFound extends KingpoleError {
  override readonly name: string = "NotFound";
  override readonly code = "NOT_FOUND";
}

/** Something of this name is there already. */
export class AlreadyExists extends KingpoleError {
  override readonly name: string = "AlreadyExists";
  override readonly code = "ALREADY_EXISTS";
}

/** The caller is known but may not do this. */
export class PermissionDenied extends KingpoleError {
  override readonly name: string = "PermissionDenied";
  override readonly code = "PERMISSION_DENIED";
}

/** Refused before being queued: with `retryAfterMs` it is safe to try again then. Or above a limit. */
export class ResourceExhausted extends KingpoleError {
  override readonly name: string = "ResourceExhausted";
  override readonly code = "RESOURCE_EXHAUSTED";
}

/** The model or server is not in a state that allows this. */
export class FailedPrecondition extends KingpoleError {
  override readonly name: string = "FailedPrecondition";
  override readonly code = "FAILED_PRECONDITION";
}

/** Known to the protocol, not offered by this server or over this transport. */
export class Unimplemented extends KingpoleError {
  override readonly name: string = "Unimplemented";
  override readonly code = "UNIMPLEMENTED";
}

/** A fault of the server or of a backend, or an answer that makes no sense. */
export class Internal extends KingpoleError {
  override readonly name: string = "Internal";
  override readonly code = "INTERNAL";
}

/** The server sent bytes that are not what its protocol says. */
export class MalformedFrame extends Internal {
  override readonly name: string = "MalformedFrame";
}

/** Not ready, draining, or not reachable: try again. */
export class Unavailable extends KingpoleError {
  override readonly name: string = "Unavailable";
  override readonly code = "UNAVAILABLE";
}

/** No or wrong credentials. */
export class Unauthenticated extends KingpoleError {
  override readonly name: string = "Unauthenticated";
  override readonly code = "UNAUTHENTICATED";
}

type ErrorClass = new (message: string, detail?: ErrorDetail) => KingpoleError;

const BY_NUMBER = new Map<number, ErrorClass>([
  [1, Cancelled],
  [3, InvalidArgument],
  [4, DeadlineExceeded],
  [5, NotFound],
  [6, AlreadyExists],
  [7, PermissionDenied],
  [8, ResourceExhausted],
  [9, FailedPrecondition],
  [12, Unimplemented],
  [13, Internal],
  [14, Unavailable],
  [16, Unauthenticated],
]);

const BY_HTTP_STATUS = new Map<number, ErrorClass>([
  [401, Unauthenticated],
  [403, PermissionDenied],
  [404, NotFound],
  [408, DeadlineExceeded],
  [409, FailedPrecondition],
  [413, ResourceExhausted],
  [429, ResourceExhausted],
  [499, Cancelled],
  [501, Unimplemented],
  [502, Unavailable],
  [503, Unavailable],
  [504, DeadlineExceeded],
]);

/** Makes the error of a code's number; an unknown number is an `Internal` that says so. */
export function errorOfNumber(number: number, message: string, detail: ErrorDetail = {}): KingpoleError {
  const known = BY_NUMBER.get(number);
  return known === undefined
    ? new Internal(`unknown code ${number}: ${message}`, detail)
    : new known(message, detail);
}

/** Makes the error of an HTTP status that came without a frame: the table of the codes, read backwards. */
export function errorOfHttpStatus(status: number, message: string, detail: ErrorDetail = {}): KingpoleError {
  const known = BY_HTTP_STATUS.get(status) ?? (status >= 400 && status < 500 ? InvalidArgument : Internal);
  return new known(message, detail);
}

/** Makes the same error once more, for another call that it ends too: each rejection has a stack of its own. */
export function sameError(error: KingpoleError, neverSent: boolean): KingpoleError {
  const same = error.constructor as ErrorClass;
  return new same(error.message, { neverSent, cause: error });
}
