package io.kingpole.conformance;

import static io.kingpole.conformance.Check.echoes;
import static io.kingpole.conformance.Check.fails;
import static io.kingpole.conformance.Check.floats;
import static io.kingpole.conformance.Check.holds;
import static io.kingpole.conformance.Check.sleeps;
import static io.kingpole.conformance.Check.takes;

import io.kingpole.client.Client;
import io.kingpole.client.Code;
import io.kingpole.client.InferRequest;
import io.kingpole.client.InferResponse;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.Parameter;
import io.kingpole.client.Tensor;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** The cases of what goes wrong. */
final class Failing {
  private static final List<Code> RAISED =
      List.of(
          Code.INVALID_ARGUMENT,
          Code.NOT_FOUND,
          Code.RESOURCE_EXHAUSTED,
          Code.FAILED_PRECONDITION,
          Code.UNAVAILABLE,
          Code.INTERNAL);

  private Failing() {}

  static void errors(Client client) {
    firstFive(client);
    for (Code code : RAISED) {
      String text = "the text of " + code;
      InferRequest request =
          InferRequest.of("fails")
              .input("x", floats(1))
              .parameter("code", Parameter.of(code.name()))
              .parameter("text", Parameter.of(text))
              .build();
      fails("fails with " + code, code, text, () -> client.infer(request));
    }
    echoes(client);
  }

  static void firstFive(Client client) {
    fails("absent", Code.NOT_FOUND, "absent", () -> client.infer("absent", Map.of("x", floats(1))));
    refused(client, "wrong datatype", "x", Map.of("x", Tensor.of(new int[] {1}, 1, 1)));
    refused(client, "wrong shape", "x", Map.of("x", Tensor.of(new float[] {1}, 1)));
    refused(client, "unknown input", "stranger", Map.of("x", floats(1), "stranger", floats(1)));
    refused(client, "missing input", "x", Map.of());
  }

  private static void refused(
      Client client, String what, String named, Map<String, Tensor> inputs) {
    fails(what, Code.INVALID_ARGUMENT, named, () -> client.infer("echo-fp32", inputs));
  }

  static void deadline(Client client) {
    long start = System.nanoTime();
    InferRequest request = sleeps(5).timeout(Duration.ofMillis(300)).build();
    fails("sleeps", Code.DEADLINE_EXCEEDED, "", () -> client.infer(request));
    takes("sleeps", start, 0.25, 2);
    echoes(client);
  }

  static void cancel(Client client, Path heard) throws Exception {
    long start = System.nanoTime();
    CompletableFuture<InferResponse> answer = client.inferAsync(sleeps(30).build());
    try {
      throw new Check.Failed("sleeps answered: " + answer.get(200, TimeUnit.MILLISECONDS));
    } catch (TimeoutException e) {
      answer.cancel(true);
    }
    try {
      throw new Check.Failed("a cancelled request answered: " + answer.get(2, TimeUnit.SECONDS));
    } catch (CancellationException e) {
      takes("cancelling", start, 0.2, 2.2);
    }
    echoes(client);
    Check.waitForFile(heard, Duration.ofSeconds(5));
  }

  static void killed(Client client) throws Exception {
    CompletableFuture<InferResponse> answer = client.inferAsync(sleeps(60).build());
    // Sent is what another request was answered after.
    echoes(client);
    System.out.println("waiting");
    try {
      throw new Check.Failed("sleeps answered: " + answer.get(30, TimeUnit.SECONDS));
    } catch (ExecutionException e) {
      holds(
          "the loss is UNAVAILABLE: " + e.getCause(),
          e.getCause() instanceof KingpoleException.Unavailable);
    }
    System.out.println("lost");
    long start = System.nanoTime();
    while (true) {
      try {
        echoes(client);
        return;
      } catch (KingpoleException e) {
        // UNAVAILABLE until it listens, NOT_FOUND until it has loaded the model.
        if (Check.secondsSince(start) > 20) {
          throw new Check.Failed("the server is back and does not answer: " + e.getMessage());
        }
        Thread.sleep(100);
      }
    }
  }

  static void tls(String url, byte[] authority) {
    try (Client trusting = Client.builder(url).rootCertificates(authority).build()) {
      echoes(trusting);
    }
    try (Client doubting = Client.connect(url)) {
      try {
        echoes(doubting);
        throw new Check.Failed("a server that is not trusted answered");
      } catch (KingpoleException.Unavailable e) {
        holds("'" + e.getMessage() + "' says why", e.getMessage().contains("certification path"));
      }
    }
  }
}
