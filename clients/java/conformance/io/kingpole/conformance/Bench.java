package io.kingpole.conformance;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Measures the client against plain stubs and the bare transport, one request at a time.
 *
 * <p>The contenders take turns in blocks, so that a noisy machine hurts all alike.
 */
final class Bench {
  private static final int BLOCKS = 6;
  private static final int[] ELEMENTS = {4, 1000, 250_000, 2_500_000};
  private static final int[] REQUESTS_OF_A_BLOCK = {1500, 1500, 40, 8};

  private Bench() {}

  /** One way to send the same elements there and back. */
  interface Contender extends AutoCloseable {
    /** Sends one request and checks that its answer has as many bytes. */
    void request() throws Exception;

    @Override
    void close();
  }

  private static final class Measured {
    final long[] nanos;
    long cpuNanos;
    int requests;

    Measured(int requests) {
      nanos = new long[requests];
    }

    long quantile(double part) {
      long[] sorted = nanos.clone();
      Arrays.sort(sorted);
      return sorted[(int) (part * (sorted.length - 1))];
    }
  }

  static void run(String url) throws Exception {
    for (int size = 0; size < ELEMENTS.length; size++) {
      Map<String, Contender> contenders = new LinkedHashMap<>();
      contenders.put("kingpole", Contenders.kingpole(url, ELEMENTS[size]));
      contenders.put("stubs", Contenders.stubs(url, ELEMENTS[size]));
      contenders.put("floor", Contenders.floor(url, ELEMENTS[size]));
      measure(contenders, ELEMENTS[size], REQUESTS_OF_A_BLOCK[size]);
      for (Contender contender : List.copyOf(contenders.values())) {
        contender.close();
      }
    }
  }

  private static void measure(Map<String, Contender> contenders, int elements, int block)
      throws Exception {
    Map<String, Measured> measured = new LinkedHashMap<>();
    // The first rounds warm up: the compiler of the JVM has work to do.
    for (int round = -2; round < BLOCKS; round++) {
      for (Map.Entry<String, Contender> contender : contenders.entrySet()) {
        Measured into =
            round < 0
                ? new Measured(block)
                : measured.computeIfAbsent(
                    contender.getKey(), name -> new Measured(BLOCKS * block));
        runBlock(contender.getValue(), into, block);
      }
    }
    measured.forEach(
        (name, result) ->
            System.out.printf(
                Locale.ROOT,
                "{\"contender\": \"%s\", \"bytes\": %d, \"requests\": %d, \"cpu_us\": %.1f,"
                    + " \"p50_us\": %.1f, \"p99_us\": %.1f}%n",
                name,
                4L * elements,
                result.requests,
                result.cpuNanos / 1e3 / result.requests,
                result.quantile(0.5) / 1e3,
                result.quantile(0.99) / 1e3));
  }

  private static void runBlock(Contender contender, Measured into, int requests) throws Exception {
    long cpu = cpuNanos();
    for (int request = 0; request < requests; request++) {
      long start = System.nanoTime();
      contender.request();
      into.nanos[into.requests++] = System.nanoTime() - start;
    }
    into.cpuNanos += cpuNanos() - cpu;
  }

  private static long cpuNanos() {
    return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
        .getProcessCpuTime();
  }
}
