package io.kingpole.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A server that is not there, or takes a connection and says nothing. */
class UnreachableTest {
  private static final InferRequest REQUEST =
      InferRequest.of("m").input("x", Tensor.of(new float[] {1}, 1)).build();

  private static String silent(String scheme, ServerSocket socket) {
    return scheme + "://127.0.0.1:" + socket.getLocalPort();
  }

  private static ServerSocket listen() throws IOException {
    return new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
  }

  @ParameterizedTest
  @ValueSource(strings = {"http", "grpc", "frame"})
  void aServerThatIsNotThereIsUnavailableAndNothingWasSent(String scheme) throws IOException {
    String url;
    try (ServerSocket closed = listen()) {
      url = silent(scheme, closed);
    }
    try (Client client = Client.builder(url).retries(2).build()) {
      KingpoleException.Unavailable lost =
          assertThrows(KingpoleException.Unavailable.class, () -> client.infer(REQUEST));
      assertTrue(lost.neverSent(), lost.getMessage());
      assertFalse(client.live());
      assertThrows(
          KingpoleException.Unavailable.class, () -> client.stream(REQUEST).iterator().hasNext());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"http", "grpc", "frame"})
  void aServerThatSaysNothingIsGivenUpInTimeHoweverItIsAsked(String scheme) throws Exception {
    try (ServerSocket socket = listen();
        Client client =
            Client.builder(silent(scheme, socket)).timeout(Duration.ofMillis(100)).build()) {
      assertThrows(KingpoleException.DeadlineExceeded.class, () -> client.infer(REQUEST));
      ExecutionException late =
          assertThrows(
              ExecutionException.class, () -> client.inferAsync(REQUEST).get(5, TimeUnit.SECONDS));
      assertInstanceOf(KingpoleException.DeadlineExceeded.class, late.getCause());
      try (Responses responses = client.stream(REQUEST)) {
        assertThrows(KingpoleException.DeadlineExceeded.class, () -> responses.iterator().next());
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"http", "grpc", "frame"})
  void cancellingAndClosingEndWhatWaits(String scheme) throws Exception {
    try (ServerSocket socket = listen()) {
      Client client = Client.connect(silent(scheme, socket));
      CompletableFuture<InferResponse> cancelled = client.inferAsync(REQUEST);
      CompletableFuture<InferResponse> closed = client.inferAsync(REQUEST);
      assertTrue(cancelled.cancel(true));
      assertThrows(CancellationException.class, cancelled::join);
      client.close();
      ExecutionException end =
          assertThrows(ExecutionException.class, () -> closed.get(5, TimeUnit.SECONDS));
      assertEquals(Code.CANCELLED, ((KingpoleException) end.getCause()).code());
      assertThrows(KingpoleException.Cancelled.class, () -> client.infer(REQUEST));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"http", "grpc", "frame"})
  void anInterruptedThreadStopsWaiting(String scheme) throws Exception {
    try (ServerSocket socket = listen();
        Client client = Client.connect(silent(scheme, socket))) {
      Thread.currentThread().interrupt();
      assertThrows(KingpoleException.Cancelled.class, () -> client.infer(REQUEST));
      assertTrue(Thread.interrupted());
    }
  }
}
