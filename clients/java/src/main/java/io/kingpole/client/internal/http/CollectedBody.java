package io.kingpole.client.internal.http;

import io.kingpole.client.Code;
import io.kingpole.client.internal.wire.DecodeException;
import io.kingpole.client.internal.wire.FrameLayout;
import java.net.http.HttpResponse.BodySubscriber;
import java.net.http.HttpResponse.ResponseInfo;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Flow;

/** Receives a body into one buffer, which is never longer than the client's limit. */
final class CollectedBody implements BodySubscriber<ByteBuffer> {
  private final int limit;
  private final long announced;
  private final CompletableFuture<ByteBuffer> body = new CompletableFuture<>();
  private ByteBuffer whole;
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
    whole = ByteBuffer.allocate((int) Math.min(Math.max(announced, 0), FrameLayout.TRUSTED_BYTES));
    subscription.request(Long.MAX_VALUE);
  }

  @Override
  public void onNext(List<ByteBuffer> pieces) {
    try {
      for (ByteBuffer piece : pieces) {
        long bytes = (long) whole.position() + piece.remaining();
        if (bytes > limit) {
          refuse(bytes);
          return;
        }
        makeRoom((int) bytes);
        whole.put(piece);
      }
    } catch (DecodeException e) {
      body.completeExceptionally(e);
      subscription.cancel();
    }
  }

  /** What was announced is believed once some of it has come; what was not announced doubles. */
  private void makeRoom(int bytes) throws DecodeException {
    if (bytes > whole.capacity()) {
      long wanted = announced < bytes ? Math.min(2L * bytes, limit) : announced;
      whole = FrameLayout.allocate((int) wanted).put(whole.flip());
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
    body.complete(whole.flip().asReadOnlyBuffer());
  }
}
