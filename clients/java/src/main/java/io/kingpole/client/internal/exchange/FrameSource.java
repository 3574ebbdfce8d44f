package io.kingpole.client.internal.exchange;

import io.kingpole.client.Code;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.internal.wire.Failure;
import io.kingpole.client.internal.wire.Frame;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * The frames that answer one request, on a connection or call of its own.
 *
 * <p>More is read only when what was read has been taken: so whoever takes responses slowly holds
 * up nothing but the model that makes them, and unread bytes stay where the server can see that
 * they do.
 */
public abstract class FrameSource {
  private final BlockingQueue<Object> arrived = new LinkedBlockingQueue<>();
  // A source begins by reading.
  private final AtomicBoolean reading = new AtomicBoolean(true);

  /** Reads on, until {@link #give} gets at least one frame, or {@link #fail}. */
  protected abstract void readOn();

  /** Lets go of it; before the answer has ended this cancels the request. */
  public abstract void close(boolean ended);

  /** Hands over what was read; nothing means that a frame is not complete yet. */
  protected final void give(List<Frame> frames) {
    if (frames.isEmpty()) {
      readOn();
    } else {
      reading.set(false);
      arrived.addAll(frames);
    }
  }

  /** Says that nothing will come any more. */
  protected final void fail(Failure failure) {
    arrived.add(failure);
  }

  /**
   * Waits for the next frame.
   *
   * @throws KingpoleException if there is none, or none in time
   */
  public final Frame next(Deadline deadline) {
    Object next = arrived.poll();
    if (next == null) {
      if (!reading.getAndSet(true)) {
        readOn();
      }
      next = await(deadline);
    }
    if (next instanceof Failure failure) {
      arrived.add(failure);
      throw failure.asException();
    }
    return (Frame) next;
  }

  private Object await(Deadline deadline) {
    try {
      Object next = arrived.poll(deadline.leftNanos(), TimeUnit.NANOSECONDS);
      if (next == null) {
        throw KingpoleException.of(Code.DEADLINE_EXCEEDED, "no answer came in time");
      }
      return next;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw KingpoleException.of(Code.CANCELLED, "the thread that waited was interrupted");
    }
  }
}
