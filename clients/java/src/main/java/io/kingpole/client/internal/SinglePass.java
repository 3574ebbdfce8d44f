package io.kingpole.client.internal;

import io.kingpole.client.InferResponse;
import io.kingpole.client.Responses;
import java.util.Iterator;

/** Responses that can be gone through once, by the only iterator there is. */
abstract class SinglePass implements Responses {
  private final Iterator<InferResponse> iterator =
      new Iterator<>() {
        @Override
        public boolean hasNext() {
          return hasResponse();
        }

        @Override
        public InferResponse next() {
          return takeResponse();
        }
      };

  abstract boolean hasResponse();

  abstract InferResponse takeResponse();

  @Override
  public final Iterator<InferResponse> iterator() {
    return iterator;
  }
}
