package io.kingpole.conformance;

import static io.kingpole.conformance.Check.floats;
import static io.kingpole.conformance.Check.holds;

import io.kingpole.client.Client;
import io.kingpole.client.InferResponse;
import io.kingpole.client.KingpoleException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;

/** A server that answers with bad bytes: every request ends with the client's own error, soon. */
final class Hostile {
  private static final int REQUESTS = 50;
  private static final int LIMIT_BYTES = 16 << 20;
  private static final long MOST_MORE_KIB = 64 * 1024;

  private Hostile() {}

  static void run(String url) throws IOException {
    try (Client client =
        Client.builder(url).timeout(Duration.ofSeconds(5)).maxFrameBytes(LIMIT_BYTES).build()) {
      long before = residentKib();
      long most = before;
      for (int number = 0; number < REQUESTS; number++) {
        long start = System.nanoTime();
        try {
          InferResponse response = client.infer("echo-fp32", Map.of("x", floats(1)));
          throw new Check.Failed("request " + number + " was answered: " + response);
        } catch (KingpoleException e) {
          holds("request " + number + " has a text", !e.getMessage().isEmpty());
        }
        Check.takes("request " + number, start, 0, 10);
        most = Math.max(most, residentKib());
      }
      holds(
          "memory stays below " + before + " + " + MOST_MORE_KIB + " KiB: " + most,
          most <= before + MOST_MORE_KIB);
    }
  }

  private static long residentKib() throws IOException {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith("VmRSS:")) {
        return Long.parseLong(line.replaceAll("[^0-9]", ""));
      }
    }
    throw new Check.NotApplicable("this system does not say how much memory a process has");
  }
}
