package io.kingpole.client;

import java.time.Duration;
import java.util.Optional;

/**
 * An inference, or anything else asked of a server, that failed.
 *
 * <p>Every failure that a client reports is one of the classes in here, one for each {@link Code};
 * {@link #getMessage} carries the server's own words.
 */
public abstract sealed class KingpoleException extends RuntimeException {
  private final Code code;
  private final transient Details details;

  /**
   * What is known beyond code and text.
   *
   * @param id the request's id, if it had one and the server said it
   * @param retryAfter when trying again makes sense, if the server said it
   * @param neverSent whether the request certainly never left this machine
   */
  public record Details(Optional<String> id, Optional<Duration> retryAfter, boolean neverSent) {
    /** Nothing more is known. */
    public static final Details NONE = new Details(Optional.empty(), Optional.empty(), false);
  }

  private KingpoleException(Code code, String message, Details details) {
    super(message);
    this.code = code;
    this.details = details;
  }

  /**
   * Makes the exception of a code.
   *
   * @param code what went wrong
   * @param message the text, as a person reads it
   * @return the exception, of the class of its code
   */
  public static KingpoleException of(Code code, String message) {
    return of(code, message, Details.NONE);
  }

  /**
   * Makes the exception of a code, with what else is known.
   *
   * @param code what went wrong
   * @param message the text, as a person reads it
   * @param details what else is known
   * @return the exception, of the class of its code
   */
  public static KingpoleException of(Code code, String message, Details details) {
    return switch (code) {
      case CANCELLED -> new Cancelled(message, details);
      case INVALID_ARGUMENT -> new InvalidArgument(message, details);
      case DEADLINE_EXCEEDED -> new DeadlineExceeded(message, details);
      case NOT_FOUND -> new NotFound(message, details);
      case ALREADY_EXISTS -> new AlreadyExists(message, details);
      case PERMISSION_DENIED -> new PermissionDenied(message, details);
      case RESOURCE_EXHAUSTED -> new ResourceExhausted(message, details);
      case FAILED_PRECONDITION -> new FailedPrecondition(message, details);
      case UNIMPLEMENTED -> new Unimplemented(message, details);
      case INTERNAL -> new Internal(message, details);
      case UNAVAILABLE -> new Unavailable(message, details);
      case UNAUTHENTICATED -> new Unauthenticated(message, details);
    };
  }

  /**
   * Returns what went wrong.
   *
   * @return the code
   */
  public Code code() {
    return code;
  }

  /**
   * Returns the id of the request that failed.
   *
   * @return the id, if the request had one and the server said it
   */
  public Optional<String> id() {
    return details.id();
  }

  /**
   * Returns when trying again makes sense.
   *
   * @return the duration, if the server said one; without it, trying again is no use
   */
  public Optional<Duration> retryAfter() {
    return details.retryAfter();
  }

  /**
   * Returns whether the request certainly never left this machine, so that it can be asked again.
   *
   * @return true if nothing was sent
   */
  public boolean neverSent() {
    return details.neverSent();
  }

  /** The caller gave up before an answer existed, or the client was closed. */
  public static final class Cancelled extends KingpoleException {
    private Cancelled(String message, Details details) {
      super(Code.CANCELLED, message, details);
    }
  }

  /** The request is wrong; the message names what, what was expected and what came. */
  public static final class InvalidArgument extends KingpoleException {
    private InvalidArgument(String message, Details details) {
      super(Code.INVALID_ARGUMENT, message, details);
    }
  }

  /** The timeout passed, here or at the server. */
  public static final class DeadlineExceeded extends KingpoleException {
    private DeadlineExceeded(String message, Details details) {
      super(Code.DEADLINE_EXCEEDED, message, details);
    }
  }

  /** No such model or version. */
  public static final class NotFound extends KingpoleException {
    private NotFound(String message, Details details) {
      super(Code.NOT_FOUND, message, details);
    }
  }

  /** Something of this name is there already. */
  public static final class AlreadyExists extends KingpoleException {
    private AlreadyExists(String message, Details details) {
      super(Code.ALREADY_EXISTS, message, details);
    }
  }

  /** The caller is known but may not do this. */
  public static final class PermissionDenied extends KingpoleException {
    private PermissionDenied(String message, Details details) {
      super(Code.PERMISSION_DENIED, message, details);
    }
  }

  /** Refused before it was queued, or above a size limit. */
  public static final class ResourceExhausted extends KingpoleException {
    private ResourceExhausted(String message, Details details) {
      super(Code.RESOURCE_EXHAUSTED, message, details);
    }
  }

  /** The model or server is not in a state that allows this. */
  public static final class FailedPrecondition extends KingpoleException {
    private FailedPrecondition(String message, Details details) {
      super(Code.FAILED_PRECONDITION, message, details);
    }
  }

  /** Known to the protocol, not offered by this server or over this transport. */
  public static final class Unimplemented extends KingpoleException {
    private Unimplemented(String message, Details details) {
      super(Code.UNIMPLEMENTED, message, details);
    }
  }

  /** A fault of the server or of a backend, or an answer that makes no sense. */
  public static final class Internal extends KingpoleException {
    private Internal(String message, Details details) {
      super(Code.INTERNAL, message, details);
    }
  }

  /** Not ready, draining, or not reachable: try again. */
  public static final class Unavailable extends KingpoleException {
    private Unavailable(String message, Details details) {
      super(Code.UNAVAILABLE, message, details);
    }
  }

  /** No or wrong credentials. */
  public static final class Unauthenticated extends KingpoleException {
    private Unauthenticated(String message, Details details) {
      super(Code.UNAUTHENTICATED, message, details);
    }
  }
}
