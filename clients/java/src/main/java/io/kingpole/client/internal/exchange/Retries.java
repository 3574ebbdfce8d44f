package io.kingpole.client.internal.exchange;

import io.kingpole.client.Code;
import io.kingpole.client.internal.wire.Failure;
import java.time.Duration;
import java.util.Optional;

/**
 * Which failures a request is asked again after: only those that certainly ran nothing.
 *
 * @param most how often a request is asked again
 */
public record Retries(int most) {
  private static final Duration FIRST_PAUSE = Duration.ofMillis(50);
  private static final int MOST_DOUBLINGS = 6;

  /** Returns how long to wait before asking again; empty: the failure stands. */
  public Optional<Duration> pauseAfter(Failure failure, int triesBefore, Deadline deadline) {
    if (triesBefore >= most) {
      return Optional.empty();
    }
    Optional<Duration> pause = Optional.empty();
    if (failure.code() == Code.RESOURCE_EXHAUSTED) {
      // Refused before it was queued; without a pause it is a size limit, and trying again is no
      // use.
      pause = failure.details().retryAfter();
    } else if (failure.code() == Code.UNAVAILABLE && failure.details().neverSent()) {
      pause = Optional.of(FIRST_PAUSE.multipliedBy(1L << Math.min(triesBefore, MOST_DOUBLINGS)));
    }
    return pause.filter(wait -> wait.toNanos() < deadline.leftNanos());
  }
}
