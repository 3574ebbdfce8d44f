package io.kingpole.client;

import java.util.Optional;

/**
 * Who is at fault, and whether to try again: the one table of every protocol of the server.
 *
 * <p>Source: protocol/spec/errors.md; the numbers are gRPC's.
 */
public enum Code {
  /** The caller gave up before an answer existed, or the client was closed. */
  CANCELLED(1),
  /** The request is wrong; the text names what, what was expected and what came. */
  INVALID_ARGUMENT(3),
  /** The timeout passed, here or at the server. */
  DEADLINE_EXCEEDED(4),
  /** No such model or version. */
  NOT_FOUND(5),
  /** Something of this name is there already. */
  ALREADY_EXISTS(6),
  /** The caller is known but may not do this. */
  PERMISSION_DENIED(7),
  /** Refused before it was queued, or above a size limit. */
  RESOURCE_EXHAUSTED(8),
  /** The model or server is not in a state that allows this. */
  FAILED_PRECONDITION(9),
  /** Known to the protocol, not offered by this server or over this transport. */
  UNIMPLEMENTED(12),
  /** A fault of the server or of a backend, or an answer that makes no sense. */
  INTERNAL(13),
  /** Not ready, draining, or not reachable: try again. */
  UNAVAILABLE(14),
  /** No or wrong credentials. */
  UNAUTHENTICATED(16);

  private final int number;

  Code(int number) {
    this.number = number;
  }

  /**
   * Returns gRPC's number of the code.
   *
   * @return the number, as it travels
   */
  public int number() {
    return number;
  }

  /**
   * Finds the code of a number.
   *
   * @param number gRPC's number
   * @return the code, empty for a number that no server of this protocol sends
   */
  public static Optional<Code> ofNumber(int number) {
    for (Code code : values()) {
      if (code.number == number) {
        return Optional.of(code);
      }
    }
    return Optional.empty();
  }

  /**
   * Returns the code that an HTTP status means when it came without a frame.
   *
   * @param status the status of an answer that is an error
   * @return the code
   */
  public static Code ofHttpStatus(int status) {
    return switch (status) {
      case 401 -> UNAUTHENTICATED;
      case 403 -> PERMISSION_DENIED;
      case 404 -> NOT_FOUND;
      case 408, 504 -> DEADLINE_EXCEEDED;
      case 409 -> FAILED_PRECONDITION;
      case 413, 429 -> RESOURCE_EXHAUSTED;
      case 499 -> CANCELLED;
      case 501 -> UNIMPLEMENTED;
      case 502, 503 -> UNAVAILABLE;
      default -> status >= 400 && status < 500 ? INVALID_ARGUMENT : INTERNAL;
    };
  }
}
