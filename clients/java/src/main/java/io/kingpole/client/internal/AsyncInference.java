package io.kingpole.client.internal;

import io.kingpole.client.InferResponse;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.internal.exchange.Pending;
import io.kingpole.client.internal.exchange.Waiting;
import io.kingpole.client.internal.wire.Answer;
import io.kingpole.client.internal.wire.Failure;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/**
 * A response that will come; cancelling it gives up the request.
 *
 * <p>It completes in the executor, never in the thread that reads the network: whoever depends on
 * it may block.
 */
public final class AsyncInference extends CompletableFuture<InferResponse> {
  private final Inferring inferring;
  private final ScheduledExecutorService clock;
  private final Executor executor;
  private volatile Future<?> alarm;

  /** Takes over a request that was asked; the clock is the one that tells deadlines and pauses. */
  public AsyncInference(Inferring inferring, ScheduledExecutorService clock, Executor executor) {
    this.inferring = inferring;
    this.clock = clock;
    this.executor = executor;
    if (inferring.deadline().limited()) {
      alarm = schedule(inferring.deadline().leftNanos(), this::expire);
    }
    follow(inferring.pending());
  }

  private void follow(Pending pending) {
    pending.thenAcceptAsync(this::settle, executor);
    whenComplete(
        (response, thrown) -> {
          if (isCancelled()) {
            pending.giveUp();
          }
        });
  }

  private void settle(Answer answer) {
    Optional<Duration> pause =
        answer instanceof Failure failure && !isDone()
            ? inferring.pauseAfter(failure)
            : Optional.empty();
    if (pause.isPresent()) {
      schedule(pause.get().toNanos(), this::askAgain);
      return;
    }
    if (alarm != null) {
      alarm.cancel(false);
    }
    try {
      complete(Inferring.responseOf(answer));
    } catch (KingpoleException e) {
      completeExceptionally(e);
    }
  }

  private void askAgain() {
    if (!isDone()) {
      inferring.ask();
      follow(inferring.pending());
    }
  }

  private void expire() {
    executor.execute(
        () -> {
          completeExceptionally(Waiting.expired().asException());
          inferring.giveUp();
        });
  }

  private Future<?> schedule(long nanos, Runnable run) {
    try {
      return clock.schedule(run, nanos, TimeUnit.NANOSECONDS);
    } catch (RejectedExecutionException e) {
      // The client is closed: what was asked is answered CANCELLED by then.
      executor.execute(run);
      return new CompletableFuture<Void>();
    }
  }
}
