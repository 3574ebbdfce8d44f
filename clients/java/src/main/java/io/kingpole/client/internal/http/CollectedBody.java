package io.kingpole.client.internal.http;

import io.kingpole.client.Code;
import io.kingpole.client.internal.wire.DecodeException;
import java.net.http.HttpResponse.BodySubscriber;
import java.net.http.HttpResponse.ResponseInfo;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Flow;

/** Receives a body into one buffer, which is never longer than the client's limit. */
final class CollectedBody implements BodySubscriber<ByteBuffer> {
  private final int limit;
  private final long announced;
  private final CompletableFuture<ByteBuffer> body = new CompletableFuture<>();
  private final List<ByteBuffer> pieces = new ArrayList<>();
  private ByteBuffer whole;
  private long received;
  private Flow.Subscription subscription;

  CollectedBody(ResponseInfo info, int limit) {
    this.limit = limit;
    this.announced = announcedBytes(info);
  }

  private static long announcedBytes(ResponseInfo info) {
    try {
      return info.headers().firstValueAsLong("content-length").orElse(-1);
    } catch (NumberFormatException e) {
      return Long.MAX_VALUE;
    }
  }

  @Override
  public CompletionStage<ByteBuffer> getBody() {
    return body;
  }

  @Override
  public void onSubscribe(Flow.Subscription opened) {
    subscription = opened;
    if (announced > limit) {
      refuse(announced);
      return;
    }
    try {
      whole = announced < 0 ? null : ByteBuffer.allocate((int) announced);
    } catch (OutOfMemoryError e) {
      refuse(announced);
      return;
    }
    subscription.request(Long.MAX_VALUE);
  }

  @Override
  public void onNext(List<ByteBuffer> next) {
    for (ByteBuffer piece : next) {
      received += piece.remaining();
      if (received > (whole == null ? limit : whole.capacity())) {
        refuse(received);
        return;
      }
      if (whole == null) {
        pieces.add(piece);
      } else {
        whole.put(piece);
      }
    }
  }

  private void refuse(long bytes) {
    body.completeExceptionally(
        new DecodeException(
            Code.RESOURCE_EXHAUSTED,
            "the answer has at least " + bytes + " bytes, this client takes " + limit));
    subscription.cancel();
  }

  @Override
  public void onError(Throwable error) {
    body.completeExceptionally(error);
  }

  @Override
  public void onComplete() {
    if (whole == null) {
      whole = ByteBuffer.allocate((int) received);
      pieces.forEach(whole::put);
      pieces.clear();
    }
    body.complete(whole.flip().asReadOnlyBuffer());
  }
}
