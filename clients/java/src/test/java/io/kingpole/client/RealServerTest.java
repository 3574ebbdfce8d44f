package io.kingpole.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * The client against the real server, whose command the variable KINGPOLE says. The conformance
 * program shows more.
 */
class RealServerTest {
  private static final String MODEL =
      """
      backend: identity
      inputs:
        - {name: x, datatype: FP32, shape: [-1, -1]}
      outputs:
        - {name: x, datatype: FP32, shape: [-1, -1]}
      """;
  private static final Pattern URL = Pattern.compile("http://([0-9.]+:[0-9]+)");

  @TempDir static Path directory;
  private static Process server;
  private static String authority;

  @BeforeAll
  static void serve() throws Exception {
    String command = System.getenv("KINGPOLE");
    assumeTrue(command != null, "KINGPOLE does not say the server's command");
    Path model = Files.createDirectories(directory.resolve("models/echo"));
    Files.writeString(model.resolve("model.yaml"), MODEL);
    List<String> arguments = new ArrayList<>(List.of(command.split(" ")));
    arguments.addAll(
        List.of(
            "serve",
            directory.resolve("models").toString(),
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "unix:" + directory.resolve("s"),
            "--management",
            "off"));
    server = new ProcessBuilder(arguments).redirectErrorStream(true).start();
    CompletableFuture<String> ready = new CompletableFuture<>();
    Thread reader = new Thread(() -> read(ready), "server output");
    reader.setDaemon(true);
    reader.start();
    authority = ready.get(60, TimeUnit.SECONDS);
  }

  private static void read(CompletableFuture<String> ready) {
    String found = null;
    StringBuilder said = new StringBuilder();
    try (BufferedReader lines =
        new BufferedReader(
            new InputStreamReader(server.getInputStream(), StandardCharsets.UTF_8))) {
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        said.append(line).append('\n');
        Matcher url = URL.matcher(line);
        found = found == null && url.find() ? url.group(1) : found;
        if (line.startsWith("ready")) {
          ready.complete(found);
        }
      }
    } catch (IOException e) {
      said.append(e);
    }
    ready.completeExceptionally(new IllegalStateException("the server ended: " + said));
  }

  @AfterAll
  static void stop() throws InterruptedException {
    if (server != null) {
      server.destroy();
      assertTrue(server.waitFor(20, TimeUnit.SECONDS), "the server ends");
    }
  }

  private static Client connect(String scheme) {
    return Client.connect(
        scheme.equals("unix") ? "unix:" + directory.resolve("s") : scheme + "://" + authority);
  }

  private static InferRequest request(float value) {
    return InferRequest.of("echo").input("x", Tensor.of(new float[] {value}, 1, 1)).build();
  }

  @ParameterizedTest
  @ValueSource(strings = {"http", "grpc", "frame", "unix"})
  void everyWayToAskIsAnswered(String scheme) {
    try (Client client = connect(scheme)) {
      assertTrue(client.live() && client.ready() && client.ready("echo"));
      assertEquals(List.of(-1L, -1L), client.metadata("echo").inputs().get(0).shape());
      assertEquals(1f, client.infer(request(1)).output("x").floats().get(0));
      assertEquals(2f, client.inferAsync(request(2)).join().output("x").floats().get(0));
      assertEquals(1, client.stream(request(3)).stream().count());
      List<InferRequest> many = IntStream.range(0, 500).mapToObj(n -> request(n)).toList();
      try (Responses responses = client.inferMany(many, 16)) {
        float next = 0;
        for (InferResponse response : responses) {
          assertEquals(next++, response.output("x").floats().get(0));
        }
        assertEquals(500, next);
      }
      assertThrows(KingpoleException.NotFound.class, () -> client.infer("absent", Map.of()));
    }
  }
}
