package io.kingpole.client.internal;

import io.kingpole.client.Code;
import io.kingpole.client.InferRequest;
import io.kingpole.client.InferResponse;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.internal.exchange.Deadline;
import io.kingpole.client.internal.exchange.Pending;
import io.kingpole.client.internal.exchange.Retries;
import io.kingpole.client.internal.exchange.Transport;
import io.kingpole.client.internal.exchange.Waiting;
import io.kingpole.client.internal.wire.Answer;
import io.kingpole.client.internal.wire.Failure;
import java.time.Duration;
import java.util.Optional;

/** One request, asked until its answer stands. Knows no transport's workings. */
public final class Inferring {
  private final Transport transport;
  private final Retries retries;
  private final InferRequest request;
  private final Optional<Duration> timeout;
  private final Deadline deadline;
  private Pending pending;
  private int tries;

  /** Asks at once; the timeout is the request's own or the client's. */
  public Inferring(
      Transport transport, Retries retries, InferRequest request, Optional<Duration> timeout) {
    this.transport = transport;
    this.retries = retries;
    this.request = request;
    this.timeout = timeout;
    this.deadline = Deadline.after(timeout);
    ask();
  }

  /** Asks, for the first time or again; what is left of the timeout travels. */
  void ask() {
    long timeoutUs = microseconds(timeout);
    if (tries++ > 0 && deadline.limited()) {
      timeoutUs = Math.max(1, Math.min(timeoutUs, deadline.leftNanos() / 1000));
    }
    pending = transport.infer(request, timeoutUs);
  }

  /** Returns a timeout as it travels; 0 is none. */
  public static long microseconds(Optional<Duration> timeout) {
    return timeout
        .map(limit -> Math.max(1, limit.getSeconds() * 1_000_000 + limit.getNano() / 1000))
        .orElse(0L);
  }

  Pending pending() {
    return pending;
  }

  Deadline deadline() {
    return deadline;
  }

  Optional<Duration> pauseAfter(Failure failure) {
    return retries.pauseAfter(failure, tries - 1, deadline);
  }

  /**
   * Waits for the answer that stands.
   *
   * @throws KingpoleException if it is a failure
   */
  public InferResponse await() {
    while (true) {
      Answer answer = Waiting.await(pending, deadline);
      Optional<Duration> pause =
          answer instanceof Failure failure ? pauseAfter(failure) : Optional.empty();
      if (pause.isEmpty()) {
        return responseOf(answer);
      }
      try {
        Thread.sleep(pause.get().toMillis());
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw KingpoleException.of(Code.CANCELLED, "the thread that waited was interrupted");
      }
      ask();
    }
  }

  /** Says that the answer is no longer wanted. */
  public void giveUp() {
    pending.giveUp();
  }

  /**
   * Returns the response that an answer is.
   *
   * @throws KingpoleException if it is none
   */
  static InferResponse responseOf(Answer answer) {
    if (answer instanceof Answer.Inferred inferred) {
      return inferred.response();
    }
    throw unexpected(answer);
  }

  /** Returns the exception of an answer that is not of the kind asked for. */
  public static KingpoleException unexpected(Answer answer) {
    return answer instanceof Failure failure
        ? failure.asException()
        : KingpoleException.of(
            Code.INTERNAL,
            "the server answered with "
                + answer.getClass().getSimpleName()
                + ", which was not asked for");
  }
}
