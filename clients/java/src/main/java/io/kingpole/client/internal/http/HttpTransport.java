package io.kingpole.client.internal.http;

import io.kingpole.client.Code;
import io.kingpole.client.InferRequest;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.internal.Address;
import io.kingpole.client.internal.exchange.Exchanges;
import io.kingpole.client.internal.exchange.FrameSource;
import io.kingpole.client.internal.exchange.Pending;
import io.kingpole.client.internal.exchange.Transport;
import io.kingpole.client.internal.openinference.HttpAnswer;
import io.kingpole.client.internal.openinference.OpenInference;
import io.kingpole.client.internal.openinference.OpenInferenceAnswer;
import io.kingpole.client.internal.openinference.Rest;
import io.kingpole.client.internal.wire.Answer;
import io.kingpole.client.internal.wire.AnswerDecoder;
import io.kingpole.client.internal.wire.Buffers;
import io.kingpole.client.internal.wire.DecodeException;
import io.kingpole.client.internal.wire.Failure;
import io.kingpole.client.internal.wire.FrameLayout;
import io.kingpole.client.internal.wire.RequestEncoder;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;
import java.util.function.Function;
import javax.net.ssl.SSLContext;

/**
 * One frame for each POST, many at a time on as many connections; Open Inference where no frames
 * are known.
 */
public final class HttpTransport implements Transport {
  static final String INFER_PATH = "/v1/infer";
  static final long ONLY_EXCHANGE = 1;
  private static final Buffers NOTHING = Buffers.of(List.of());
  private static final Map<String, String> FRAME_HEADERS =
      Map.of("Content-Type", FrameLayout.MEDIA_TYPE);

  private final HttpConnection connection;
  private final int limit;
  private final Set<HttpPending> open = ConcurrentHashMap.newKeySet();
  private volatile OpenInference openInference;
  private volatile boolean closed;

  /** Will connect to an address, when first needed. */
  public HttpTransport(
      Address address, Optional<String> token, Optional<SSLContext> tls, int limit) {
    this.connection = new HttpConnection(address, token, tls);
    this.limit = limit;
  }

  /** An answer whose connection is closed when it is given up. */
  private final class HttpPending extends Pending {
    private volatile CompletableFuture<?> running = new CompletableFuture<>();

    void exchange(
        String method,
        String path,
        Map<String, String> headers,
        Buffers body,
        Consumer<HttpAnswer> then) {
      if (closed) {
        complete(new Failure(Code.CANCELLED, "the client is closed").beforeSending());
        return;
      }
      var sent =
          connection.send(method, path, headers, body, info -> new CollectedBody(info, limit));
      running = sent;
      if (isDone()) {
        sent.cancel(true);
      }
      CompletableFuture<Void> received =
          sent.thenAccept(response -> then.accept(HttpConnection.answerOf(response)));
      received.exceptionally(
          thrown -> {
            complete(connection.failureOf(thrown));
            return null;
          });
    }

    @Override
    public void giveUp() {
      complete(new Failure(Code.CANCELLED, "the caller gave up"));
      running.cancel(true);
    }
  }

  private HttpPending begin() {
    HttpPending pending = new HttpPending();
    open.add(pending);
    pending.thenRun(() -> open.remove(pending));
    return pending;
  }

  @Override
  public Pending infer(InferRequest request, long timeoutUs) {
    HttpPending pending = begin();
    try {
      if (openInference == null) {
        Buffers frame = new RequestEncoder(request, timeoutUs).encode(ONLY_EXCHANGE);
        pending.exchange(
            "POST",
            INFER_PATH,
            FRAME_HEADERS,
            frame,
            answer -> readInferred(pending, request, timeoutUs, answer));
      } else {
        askOpenInference(pending, request, timeoutUs);
      }
    } catch (KingpoleException refusal) {
      pending.complete(Failure.of(refusal).beforeSending());
    }
    return pending;
  }

  private void readInferred(
      HttpPending pending, InferRequest request, long timeoutUs, HttpAnswer answer) {
    if (!answer.refusesFrames()) {
      pending.complete(readFrame(answer, limit));
      return;
    }
    pending.exchange(
        "GET",
        Rest.serverPath(),
        Map.of(),
        NOTHING,
        described -> {
          Answer read = Rest.readServerInfo(described);
          if (read instanceof Answer.Info info) {
            openInference = OpenInference.of(info.info());
            askOpenInference(pending, request, timeoutUs);
          } else {
            pending.complete(read);
          }
        });
  }

  private void askOpenInference(HttpPending pending, InferRequest request, long timeoutUs) {
    try {
      OpenInference.Asked asked = openInference.encode(request, timeoutUs);
      pending.exchange(
          "POST",
          asked.path(),
          asked.headers(),
          asked.body(),
          answer -> pending.complete(OpenInferenceAnswer.decode(answer)));
    } catch (KingpoleException refusal) {
      pending.complete(Failure.of(refusal).beforeSending());
    }
  }

  /** Reads a body that is a frame, whatever the status, unless something in between spoke. */
  static Answer readFrame(HttpAnswer answer, int limit) {
    if (!answer.isFrame()) {
      return answer.status() == 200
          ? new Failure(Code.INTERNAL, "the server answered with something else than a frame")
          : Rest.failureOf(answer);
    }
    try {
      return Exchanges.oneResponse(AnswerDecoder.decode(FrameLayout.read(answer.body(), limit)));
    } catch (DecodeException e) {
      return e.asFailure();
    }
  }

  @Override
  public FrameSource open(InferRequest request, long timeoutUs) {
    if (openInference != null) {
      throw KingpoleException.of(Code.UNIMPLEMENTED, HttpSource.NO_FRAMES);
    }
    Buffers frame = new RequestEncoder(request, timeoutUs).encode(ONLY_EXCHANGE);
    return new HttpSource(connection, frame, limit);
  }

  private Pending get(String path, Function<HttpAnswer, Answer> read) {
    HttpPending pending = begin();
    pending.exchange(
        "GET", path, Map.of(), NOTHING, answer -> pending.complete(read.apply(answer)));
    return pending;
  }

  @Override
  public Pending live() {
    return get(Rest.livePath(), Rest::readReady);
  }

  @Override
  public Pending ready(Optional<String> model, Optional<String> version) {
    return get(Rest.readyPath(model, version), Rest::readReady);
  }

  @Override
  public Pending metadata(String model, Optional<String> version) {
    return get(Rest.modelPath(model, version), Rest::readMetadata);
  }

  @Override
  public Pending serverInfo() {
    return get(Rest.serverPath(), Rest::readServerInfo);
  }

  @Override
  public void close() {
    closed = true;
    for (HttpPending pending : open) {
      pending.complete(new Failure(Code.CANCELLED, "the client is closed"));
      pending.giveUp();
    }
  }
}
