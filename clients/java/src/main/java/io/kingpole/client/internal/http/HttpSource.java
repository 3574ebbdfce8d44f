package io.kingpole.client.internal.http;

import io.kingpole.client.Code;
import io.kingpole.client.internal.exchange.FrameSource;
import io.kingpole.client.internal.openinference.HttpAnswer;
import io.kingpole.client.internal.openinference.Rest;
import io.kingpole.client.internal.wire.Buffers;
import io.kingpole.client.internal.wire.DecodeException;
import io.kingpole.client.internal.wire.Failure;
import io.kingpole.client.internal.wire.Frame;
import io.kingpole.client.internal.wire.FrameAssembler;
import io.kingpole.client.internal.wire.FrameLayout;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodySubscriber;
import java.net.http.HttpResponse.BodySubscribers;
import java.net.http.HttpResponse.ResponseInfo;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Flow;

/** Frames one after another in the body of one HTTP answer, which is read while it is made. */
final class HttpSource extends FrameSource {
  static final String NO_FRAMES =
      "this server takes no frames, and so gives one response to a request at most: use infer";
  private static final Map<String, String> HEADERS =
      Map.of("Content-Type", FrameLayout.MEDIA_TYPE, "Accept", FrameLayout.STREAM_MEDIA_TYPE);

  private final int limit;
  private final CompletableFuture<HttpResponse<Void>> running;
  private final CompletableFuture<Flow.Subscription> subscription = new CompletableFuture<>();

  HttpSource(HttpConnection connection, Buffers request, int limit) {
    this.limit = limit;
    this.running =
        connection.send("POST", HttpTransport.INFER_PATH, HEADERS, request, this::subscriber);
    running.exceptionally(
        thrown -> {
          fail(connection.failureOf(thrown));
          return null;
        });
  }

  private BodySubscriber<Void> subscriber(ResponseInfo info) {
    String type = info.headers().firstValue("content-type").orElse("");
    if (info.statusCode() == 200 && type.startsWith(FrameLayout.STREAM_MEDIA_TYPE)) {
      return new Body();
    }
    return BodySubscribers.mapping(
        new CollectedBody(info, limit),
        body -> {
          takeOther(new HttpAnswer(info.statusCode(), info.headers(), body));
          return null;
        });
  }

  /** Takes an answer that is no stream: one frame, or none at all. */
  private void takeOther(HttpAnswer answer) {
    try {
      if (answer.isFrame()) {
        give(List.of(FrameLayout.read(answer.body(), limit)));
      } else if (answer.status() == 200 || answer.refusesFrames()) {
        fail(new Failure(Code.UNIMPLEMENTED, NO_FRAMES));
      } else {
        fail(Rest.failureOf(answer));
      }
    } catch (DecodeException e) {
      fail(e.asFailure());
    }
  }

  @Override
  protected void readOn() {
    subscription.thenAccept(opened -> opened.request(1));
  }

  @Override
  public void close(boolean ended) {
    if (ended) {
      // Reads the end, so that the connection can be used again.
      readOn();
    } else {
      subscription.thenAccept(Flow.Subscription::cancel);
      running.cancel(true);
    }
  }

  private final class Body implements BodySubscriber<Void> {
    private final FrameAssembler assembler = new FrameAssembler(limit);
    private final CompletableFuture<Void> body = new CompletableFuture<>();

    @Override
    public CompletionStage<Void> getBody() {
      return body;
    }

    @Override
    public void onSubscribe(Flow.Subscription opened) {
      opened.request(1);
      subscription.complete(opened);
    }

    @Override
    public void onNext(List<ByteBuffer> pieces) {
      List<Frame> frames = new ArrayList<>();
      try {
        for (ByteBuffer piece : pieces) {
          assembler.feed(piece, frames);
        }
        give(frames);
      } catch (DecodeException e) {
        if (!frames.isEmpty()) {
          give(frames);
        }
        fail(e.asFailure());
        body.completeExceptionally(e);
        subscription.thenAccept(Flow.Subscription::cancel);
      }
    }

    @Override
    public void onError(Throwable error) {
      body.completeExceptionally(error);
    }

    @Override
    public void onComplete() {
      fail(new Failure(Code.UNAVAILABLE, "the server ended its answer before the last response"));
      body.complete(null);
    }
  }
}
