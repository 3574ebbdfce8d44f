package io.kingpole.conformance;

import io.kingpole.client.Client;
import io.kingpole.client.Code;
import io.kingpole.client.InferRequest;
import io.kingpole.client.InferResponse;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.Tensor;
import java.time.Duration;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;

/** What every case checks with; a failure says what was expected and what came. */
final class Check {
  private Check() {}

  /** A case that is not as it should be. */
  static final class Failed extends RuntimeException {
    Failed(String message) {
      super(message);
    }
  }

  /** A case that does not apply. */
  static final class NotApplicable extends RuntimeException {
    NotApplicable(String message) {
      super(message);
    }
  }

  static void same(String what, Object expected, Object got) {
    if (!Objects.equals(expected, got)) {
      throw new Failed(what + ": expected " + expected + ", got " + got);
    }
  }

  static void holds(String what, boolean holds) {
    if (!holds) {
      throw new Failed("it does not hold that " + what);
    }
  }

  static void fails(String what, Code code, String inText, Callable<?> call) {
    try {
      Object got = call.call();
      throw new Failed(what + ": expected " + code + ", got " + got);
    } catch (KingpoleException e) {
      same(what + " (" + e.getMessage() + ")", code, e.code());
      holds(
          what + ": '" + e.getMessage() + "' has '" + inText + "'",
          e.getMessage().contains(inText));
    } catch (Failed e) {
      throw e;
    } catch (Exception e) {
      throw new Failed(what + ": expected " + code + ", got " + e);
    }
  }

  static Tensor floats(float... elements) {
    return Tensor.of(elements, 1, elements.length);
  }

  static void echoes(Client client) {
    Tensor x = floats(1, 2, 3);
    same("echo-fp32", x, client.infer("echo-fp32", Map.of("x", x)).output("x"));
  }

  static InferRequest.Builder sleeps(double seconds) {
    return InferRequest.of("sleeps")
        .input("x", floats(1))
        .parameter("seconds", io.kingpole.client.Parameter.of(seconds));
  }

  static float only(InferResponse response, String output) {
    return response.output(output).floats().get(0);
  }

  static double secondsSince(long startNanos) {
    return Duration.ofNanos(System.nanoTime() - startNanos).toMillis() / 1000.0;
  }

  static void takes(String what, long startNanos, double least, double most) {
    double took = secondsSince(startNanos);
    if (took < least || took > most) {
      throw new Failed(what + ": expected " + least + " to " + most + " s, it took " + took + " s");
    }
  }

  static void waitForFile(java.nio.file.Path file, Duration most) throws InterruptedException {
    long start = System.nanoTime();
    while (!java.nio.file.Files.exists(file)) {
      if (System.nanoTime() - start > most.toNanos()) {
        throw new Failed("expected the file " + file + " within " + most + ", it is not there");
      }
      Thread.sleep(20);
    }
  }
}
