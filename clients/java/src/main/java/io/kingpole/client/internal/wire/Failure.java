package io.kingpole.client.internal.wire;

import io.kingpole.client.Code;
import io.kingpole.client.KingpoleException;
import java.util.Optional;

/**
 * An error as a value: it becomes an exception where the caller's own stack is.
 *
 * @param code what went wrong
 * @param message the text
 * @param details what else is known
 */
public record Failure(Code code, String message, KingpoleException.Details details)
    implements Answer {
  /** A failure of which nothing else is known. */
  public Failure(Code code, String message) {
    this(code, message, KingpoleException.Details.NONE);
  }

  /** Keeps what an exception says. */
  public static Failure of(KingpoleException exception) {
    return new Failure(
        exception.code(),
        exception.getMessage(),
        new KingpoleException.Details(
            exception.id(), exception.retryAfter(), exception.neverSent()));
  }

  /** Returns the same, of a request that never left this machine. */
  public Failure beforeSending() {
    return new Failure(
        code, message, new KingpoleException.Details(Optional.empty(), Optional.empty(), true));
  }

  /** Returns the exception to throw. */
  public KingpoleException asException() {
    return KingpoleException.of(code, message, details);
  }
}
