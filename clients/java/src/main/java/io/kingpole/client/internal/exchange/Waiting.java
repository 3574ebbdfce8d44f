package io.kingpole.client.internal.exchange;

import io.kingpole.client.Code;
import io.kingpole.client.internal.wire.Answer;
import io.kingpole.client.internal.wire.Failure;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** How a thread waits for an answer. */
public final class Waiting {
  private Waiting() {}

  /**
   * Waits; an answer that does not come in time is given up, and so is one whose thread is
   * interrupted.
   */
  public static Answer await(Pending pending, Deadline deadline) {
    try {
      return deadline.limited()
          ? pending.get(deadline.leftNanos(), TimeUnit.NANOSECONDS)
          : pending.get();
    } catch (TimeoutException e) {
      pending.giveUp();
      return expired();
    } catch (InterruptedException e) {
      pending.giveUp();
      Thread.currentThread().interrupt();
      return new Failure(Code.CANCELLED, "the thread that waited was interrupted");
    } catch (ExecutionException e) {
      return new Failure(Code.INTERNAL, "the client failed: " + e.getCause());
    }
  }

  /** Returns what is said of an answer that did not come in time. */
  public static Failure expired() {
    return new Failure(Code.DEADLINE_EXCEEDED, "no answer came in time");
  }
}
