package io.kingpole.client.internal;

import io.kingpole.client.InferRequest;
import io.kingpole.client.InferResponse;
import io.kingpole.client.KingpoleException;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.function.Function;

/**
 * The responses to many requests, in the requests' order, of which a bounded number is on its way.
 */
public final class ManyResponses extends SinglePass {
  private final Iterator<InferRequest> requests;
  private final int inFlight;
  private final Function<InferRequest, Inferring> ask;
  private final Deque<Inferring> waiting = new ArrayDeque<>();
  private boolean closed;

  /** Reads the requests as responses are taken. */
  public ManyResponses(
      Iterator<InferRequest> requests, int inFlight, Function<InferRequest, Inferring> ask) {
    this.requests = requests;
    this.inFlight = inFlight;
    this.ask = ask;
  }

  @Override
  synchronized boolean hasResponse() {
    while (!closed && waiting.size() < inFlight && requests.hasNext()) {
      waiting.add(ask.apply(requests.next()));
    }
    return !waiting.isEmpty();
  }

  @Override
  InferResponse takeResponse() {
    Inferring oldest;
    synchronized (this) {
      if (!hasResponse()) {
        throw new NoSuchElementException("there are no more requests");
      }
      oldest = waiting.remove();
    }
    try {
      return oldest.await();
    } catch (KingpoleException e) {
      close();
      throw e;
    }
  }

  @Override
  public synchronized void close() {
    closed = true;
    waiting.forEach(Inferring::giveUp);
    waiting.clear();
  }
}
