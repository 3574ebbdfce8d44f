package io.kingpole.client.internal.http;

import io.kingpole.client.internal.wire.Buffers;
import java.net.http.HttpRequest;
import java.nio.ByteBuffer;
import java.util.concurrent.Flow;

/** Hands buffers to the JDK's client piece by piece, without copying them. Knows no protocol. */
record BufferPublisher(Buffers buffers) implements HttpRequest.BodyPublisher {
  // What the JDK copies at once of a buffer on the heap.
  private static final int PIECE_BYTES = 128 * 1024;
  // Each piece is a write of its own: up to here joining costs less.
  private static final int JOINED_BYTES = 16 * 1024;

  static HttpRequest.BodyPublisher of(Buffers buffers) {
    if (buffers.bytes() == 0) {
      return HttpRequest.BodyPublishers.noBody();
    }
    return buffers.bytes() > JOINED_BYTES
        ? new BufferPublisher(buffers)
        : HttpRequest.BodyPublishers.ofByteArray(buffers.joined().array());
  }

  @Override
  public long contentLength() {
    return buffers.bytes();
  }

  @Override
  public void subscribe(Flow.Subscriber<? super ByteBuffer> subscriber) {
    subscriber.onSubscribe(new Pieces(subscriber));
  }

  private final class Pieces implements Flow.Subscription {
    private final Flow.Subscriber<? super ByteBuffer> subscriber;
    private int index;
    private int position;
    private long wanted;
    private boolean handing;
    private boolean done;

    Pieces(Flow.Subscriber<? super ByteBuffer> subscriber) {
      this.subscriber = subscriber;
    }

    @Override
    public void request(long count) {
      synchronized (this) {
        wanted += count;
        if (handing) {
          // The subscriber asks for more while it is given some: the loop below goes on.
          return;
        }
        handing = true;
      }
      for (ByteBuffer piece = next(); piece != null; piece = next()) {
        subscriber.onNext(piece);
      }
      if (finished()) {
        subscriber.onComplete();
      }
    }

    private synchronized boolean finished() {
      handing = false;
      boolean finishes = !done && index == buffers.parts().size();
      done |= finishes;
      return finishes;
    }

    private synchronized ByteBuffer next() {
      while (index < buffers.parts().size()) {
        ByteBuffer part = buffers.parts().get(index);
        int left = part.remaining() - position;
        if (left > 0) {
          if (wanted == 0 || done) {
            handing = false;
            return null;
          }
          wanted--;
          int bytes = Math.min(left, PIECE_BYTES);
          ByteBuffer piece = part.slice(part.position() + position, bytes);
          position += bytes;
          return piece;
        }
        index++;
        position = 0;
      }
      return null;
    }

    @Override
    public synchronized void cancel() {
      done = true;
    }
  }
}
