package io.kingpole.conformance;

import static io.kingpole.conformance.Check.echoes;
import static io.kingpole.conformance.Check.floats;
import static io.kingpole.conformance.Check.only;
import static io.kingpole.conformance.Check.same;

import io.kingpole.client.Client;
import io.kingpole.client.InferRequest;
import io.kingpole.client.InferResponse;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.Parameter;
import io.kingpole.client.Responses;
import io.kingpole.client.Sequence;
import io.kingpole.client.Tensor;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** The cases of many requests, many responses and many bytes. */
final class Flowing {
  private Flowing() {}

  private static InferRequest.Builder count(int count) {
    return InferRequest.of("count").input("count", Tensor.of(new int[] {count}, 1));
  }

  private static int value(InferResponse response) {
    return response.output("value").data().getInt(0);
  }

  static void stream(Client client, Path mark) throws InterruptedException {
    for (int count : new int[] {0, 1, 1000}) {
      try (Responses responses = client.stream(count(count).build())) {
        int next = 0;
        for (InferResponse response : responses) {
          same("value", next++, value(response));
        }
        same("responses", count, next);
      }
    }
    failing(client);
    leaving(client, mark);
    try (Responses responses =
            client.stream(InferRequest.of("echo-fp32").input("x", floats(5)).build());
        Stream<InferResponse> one = responses.stream()) {
      same("responses of echo-fp32", 1L, one.count());
    }
    echoes(client);
    Check.waitForFile(mark, Duration.ofSeconds(10));
  }

  private static void failing(Client client) {
    int next = 0;
    InferRequest request = count(10).parameter("fail_at", Parameter.of(3)).build();
    try (Responses responses = client.stream(request)) {
      for (InferResponse response : responses) {
        same("value", next++, value(response));
      }
      throw new Check.Failed("count did not fail after " + next);
    } catch (KingpoleException.Unavailable e) {
      same("responses before the failure", 3, next);
      same("text", "cannot count beyond 3", e.getMessage());
    }
  }

  private static void leaving(Client client, Path mark) {
    InferRequest request =
        count(1_000_000).parameter("mark", Parameter.of(mark.toString())).build();
    try (Responses responses = client.stream(request)) {
      var iterator = responses.iterator();
      same("value", 0, value(iterator.next()));
      same("value", 1, value(iterator.next()));
    }
  }

  static void sequence(Client client) {
    float[] sums = {1, 3, 6};
    for (int step = 0; step < sums.length; step++) {
      boolean first = step == 0;
      boolean last = step == 2;
      for (Sequence place :
          new Sequence[] {
            Sequence.of(77, first, last), Sequence.of("seventy-seven", first, last)
          }) {
        InferRequest request =
            InferRequest.of("sums")
                .input("x", Tensor.of(new float[] {step + 1}, 1, 1))
                .sequence(place)
                .build();
        same("sum of " + place, sums[step], only(client.infer(request), "sum"));
      }
    }
  }

  static void pipeline(Client client) {
    int requests = 10_000;
    Iterable<InferRequest> numbered =
        () ->
            IntStream.range(0, requests)
                .mapToObj(n -> InferRequest.of("echo-fp32").input("x", floats(n, -n)).build())
                .iterator();
    try (Responses responses = client.inferMany(numbered, 64)) {
      int next = 0;
      for (InferResponse response : responses) {
        same("answer " + next, floats(next, -next), response.output("x"));
        next++;
      }
      same("answers", requests, next);
    }
  }

  static void large(Client client) {
    byte[] bytes = new byte[100_000_000];
    new Random(7).nextBytes(bytes);
    Tensor x =
        Tensor.of(io.kingpole.client.Datatype.FP32, ByteBuffer.wrap(bytes), 1, bytes.length / 4);
    Tensor got = client.infer("echo-fp32", Map.of("x", x)).output("x");
    Check.holds("the bytes are the same", x.data().equals(got.data()));
  }
}
