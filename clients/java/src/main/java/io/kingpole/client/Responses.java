package io.kingpole.client;

import java.util.Iterator;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * Responses that come one after another; going to the next one waits for it.
 *
 * <p>A failure is thrown where it comes and ends it; the responses before it stay good. Closing it
 * before its end cancels what is still wanted. Not for use from several threads at once, except
 * {@link #close}.
 */
public interface Responses extends Iterable<InferResponse>, AutoCloseable {
  /** Takes no more responses; what was asked for and not yet answered is cancelled. */
  @Override
  void close();

  /**
   * Returns the responses from where they stand; they can be gone through once.
   *
   * @return always the same iterator, whose methods throw {@link KingpoleException}
   */
  @Override
  Iterator<InferResponse> iterator();

  /**
   * Returns the responses as a stream, whose closing closes this.
   *
   * @return the stream, sequential
   */
  default Stream<InferResponse> stream() {
    return StreamSupport.stream(spliterator(), false).onClose(this::close);
  }
}
