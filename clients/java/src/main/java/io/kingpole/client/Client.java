package io.kingpole.client;

import io.kingpole.client.internal.AsyncInference;
import io.kingpole.client.internal.Inferring;
import io.kingpole.client.internal.ManyResponses;
import io.kingpole.client.internal.PartResponses;
import io.kingpole.client.internal.exchange.Deadline;
import io.kingpole.client.internal.exchange.Pending;
import io.kingpole.client.internal.exchange.Retries;
import io.kingpole.client.internal.exchange.Transport;
import io.kingpole.client.internal.exchange.Waiting;
import io.kingpole.client.internal.wire.Answer;
import io.kingpole.client.internal.wire.Failure;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.ScheduledThreadPoolExecutor;

/**
 * A client of one server. May be shared between threads; every method may throw a {@link
 * KingpoleException} of the code that says what went wrong.
 *
 * <p>Nothing that may have run is ever sent twice: a request whose connection breaks fails with
 * {@link KingpoleException.Unavailable}, and it is the caller who knows whether to ask again.
 * {@link ClientBuilder#retries} allows a bounded number of repetitions of what certainly did not
 * run. The first request over HTTP to a server that knows no frames is refused there unread, and
 * asked again in Open Inference.
 */
public final class Client implements AutoCloseable {
  // Asking who is there needs no model and must not wait for ever.
  private static final Duration ASK_TIMEOUT = Duration.ofSeconds(10);

  private final Transport transport;
  private final Optional<Duration> timeout;
  private final Retries retries;
  private final Executor executor;
  private final ScheduledThreadPoolExecutor clock;

  Client(Transport transport, Optional<Duration> timeout, Retries retries, Executor executor) {
    this.transport = transport;
    this.timeout = timeout;
    this.retries = retries;
    this.executor = executor;
    // Its only thread begins with the first deadline.
    this.clock =
        new ScheduledThreadPoolExecutor(
            1,
            run -> {
              Thread thread = new Thread(run, "kingpole deadlines");
              thread.setDaemon(true);
              return thread;
            });
    clock.setRemoveOnCancelPolicy(true);
    clock.setExecuteExistingDelayedTasksAfterShutdownPolicy(false);
  }

  /**
   * Makes a client with everything left as it is; it connects when it first has to.
   *
   * @param url {@code http://host:port}, {@code https://}, {@code grpc://}, {@code grpcs://},
   *     {@code frame://} or {@code unix:/path}
   * @return the client
   * @throws KingpoleException.InvalidArgument if the address is none of these
   */
  public static Client connect(String url) {
    return builder(url).build();
  }

  /**
   * Begins a client.
   *
   * @param url as in {@link #connect}
   * @return a builder
   * @throws KingpoleException.InvalidArgument if the address is none that is known
   */
  public static ClientBuilder builder(String url) {
    return new ClientBuilder(url);
  }

  private Inferring ask(InferRequest request) {
    return new Inferring(transport, retries, request, timeoutOf(request));
  }

  private Optional<Duration> timeoutOf(InferRequest request) {
    return request.timeout().or(() -> timeout);
  }

  /**
   * Asks for an inference and waits for the response. Interrupting the thread gives the request up.
   *
   * @param request what is asked for
   * @return the response
   */
  public InferResponse infer(InferRequest request) {
    return ask(request).await();
  }

  /**
   * Asks for an inference of a model's latest version and waits for the response.
   *
   * @param model the model's name
   * @param inputs tensors by name
   * @return the response
   */
  public InferResponse infer(String model, Map<String, Tensor> inputs) {
    InferRequest.Builder request = InferRequest.of(model);
    inputs.forEach(request::input);
    return infer(request.build());
  }

  /**
   * Asks for an inference without waiting.
   *
   * @param request what is asked for; the buffers of its tensors must not change before the answer
   * @return the response that will come, in the client's executor; cancelling it gives the request
   *     up, and a failure is a {@link KingpoleException}
   */
  public CompletableFuture<InferResponse> inferAsync(InferRequest request) {
    return new AsyncInference(ask(request), clock, executor);
  }

  /**
   * Asks for many inferences, of which a bounded number is on its way at once.
   *
   * @param requests read as responses are taken
   * @param inFlight how many may wait for their answer at once
   * @return the responses, in the requests' order
   */
  public Responses inferMany(Iterable<InferRequest> requests, int inFlight) {
    if (inFlight < 1) {
      throw KingpoleException.of(
          Code.INVALID_ARGUMENT, "inFlight is " + inFlight + ", it must be at least 1");
    }
    return new ManyResponses(requests.iterator(), inFlight, this::ask);
  }

  /**
   * Asks for an inference that may be answered by any number of responses, which come as they are
   * made.
   *
   * <p>It travels on a connection or call of its own: responses that are not taken hold up the
   * model that makes them, and nothing else.
   *
   * @param request what is asked for
   * @return the responses; closing them before the last tells the model to make no more
   */
  public Responses stream(InferRequest request) {
    Optional<Duration> limit = timeoutOf(request);
    Deadline deadline = Deadline.after(limit);
    return new PartResponses(transport.open(request, Inferring.microseconds(limit)), deadline);
  }

  /**
   * Asks whether the server answers at all.
   *
   * @return true if it does
   */
  public boolean live() {
    Answer answer = await(transport.live());
    return switch (readinessOf(answer)) {
      case YES -> true;
      case NO -> false;
      case UNKNOWN -> {
        if (answer instanceof Answer.Info) {
          yield true;
        }
        throw Inferring.unexpected(answer);
      }
    };
  }

  /**
   * Asks whether the server is ready to infer.
   *
   * @return true if it is
   */
  public boolean ready() {
    return ready(Optional.empty(), Optional.empty());
  }

  /**
   * Asks whether a model is ready to infer.
   *
   * @param model its name
   * @return true if it is; false also for a model that is not there, where the server says so
   */
  public boolean ready(String model) {
    return ready(Optional.of(model), Optional.empty());
  }

  /**
   * Asks whether a version of a model is ready to infer.
   *
   * @param model its name
   * @param version the version
   * @return true if it is
   */
  public boolean ready(String model, String version) {
    return ready(Optional.of(model), Optional.of(version));
  }

  private boolean ready(Optional<String> model, Optional<String> version) {
    Answer answer = await(transport.ready(model, version));
    return switch (readinessOf(answer)) {
      case YES -> true;
      case NO -> false;
      case UNKNOWN -> throw Inferring.unexpected(answer);
    };
  }

  private enum Readiness {
    YES,
    NO,
    UNKNOWN
  }

  private static Readiness readinessOf(Answer answer) {
    if (answer instanceof Answer.Ready said) {
      return said.ready() ? Readiness.YES : Readiness.NO;
    }
    return answer instanceof Failure failure && failure.code() == Code.UNAVAILABLE
        ? Readiness.NO
        : Readiness.UNKNOWN;
  }

  /**
   * Asks who the server is.
   *
   * @return what it says of itself
   */
  public ServerInfo serverInfo() {
    Answer answer = await(transport.serverInfo());
    if (answer instanceof Answer.Info said) {
      return said.info();
    }
    throw Inferring.unexpected(answer);
  }

  /**
   * Asks what a model takes and gives.
   *
   * @param model its name
   * @return what is known of it
   */
  public ModelMetadata metadata(String model) {
    return metadata(model, Optional.empty());
  }

  /**
   * Asks what a version of a model takes and gives.
   *
   * @param model its name
   * @param version the version
   * @return what is known of it
   */
  public ModelMetadata metadata(String model, String version) {
    return metadata(model, Optional.of(version));
  }

  private ModelMetadata metadata(String model, Optional<String> version) {
    Answer answer = await(transport.metadata(model, version));
    if (answer instanceof Answer.Described said) {
      return said.metadata();
    }
    throw Inferring.unexpected(answer);
  }

  private static Answer await(Pending pending) {
    return Waiting.await(pending, Deadline.after(Optional.of(ASK_TIMEOUT)));
  }

  /** Ends the connections; what still waits fails with {@link KingpoleException.Cancelled}. */
  @Override
  public void close() {
    transport.close();
    clock.shutdown();
  }
}
