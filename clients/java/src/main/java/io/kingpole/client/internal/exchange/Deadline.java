package io.kingpole.client.internal.exchange;

import java.time.Duration;
import java.util.Optional;

/**
 * When to give up waiting, on this machine's monotonic clock.
 *
 * @param atNanos a point of {@link System#nanoTime}
 * @param limited false where nothing is given up
 */
public record Deadline(long atNanos, boolean limited) {
  // The server knows the timeout too and answers when it expires: its word, which says more, gets
  // this
  // long to arrive before we give up ourselves.
  private static final Duration GRACE = Duration.ofMillis(250);

  /** Returns when to give up on what was asked for with this timeout. */
  public static Deadline after(Optional<Duration> timeout) {
    return timeout
        .map(limit -> new Deadline(System.nanoTime() + nanos(limit.plus(GRACE)), true))
        .orElse(new Deadline(0, false));
  }

  private static long nanos(Duration duration) {
    // As long as nobody waits; longer ones do not fit.
    Duration most = Duration.ofDays(365);
    return duration.compareTo(most) > 0 ? most.toNanos() : duration.toNanos();
  }

  /** Returns how long is left; at least 0, and nearly for ever if there is no limit. */
  public long leftNanos() {
    return limited ? Math.max(0, atNanos - System.nanoTime()) : Long.MAX_VALUE;
  }
}
