package io.kingpole.conformance;

import static io.kingpole.conformance.Check.fails;
import static io.kingpole.conformance.Check.floats;
import static io.kingpole.conformance.Check.holds;
import static io.kingpole.conformance.Check.same;

import io.kingpole.client.Client;
import io.kingpole.client.Code;
import io.kingpole.client.Datatype;
import io.kingpole.client.InferRequest;
import io.kingpole.client.InferResponse;
import io.kingpole.client.ModelMetadata;
import io.kingpole.client.Parameter;
import io.kingpole.client.ServerInfo;
import io.kingpole.client.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/** The cases of single requests: what goes there and comes back. */
final class Values {
  private Values() {}

  static void server(Client client) {
    holds("the server lives", client.live());
    holds("the server is ready", client.ready());
    ready(client);
    ServerInfo info = client.serverInfo();
    same("the server's name", "kingpole", info.name());
    holds("the server has a version", !info.version().isEmpty());
    holds("the server has extensions", !info.extensions().isEmpty());
    metadata(client);
  }

  static void ready(Client client) {
    holds("echo-fp32 is ready", client.ready("echo-fp32"));
    boolean absent;
    try {
      absent = client.ready("absent");
    } catch (io.kingpole.client.KingpoleException.NotFound e) {
      absent = false;
    }
    holds("absent is not ready", !absent);
  }

  static void metadata(Client client) {
    ModelMetadata metadata = client.metadata("echo-fp32");
    same("name", "echo-fp32", metadata.name());
    same("versions", List.of("1"), metadata.versions());
    for (var specs : List.of(metadata.inputs(), metadata.outputs())) {
      same("tensors", 1, specs.size());
      same("tensor", "x", specs.get(0).name());
      same("datatype", Datatype.FP32, specs.get(0).datatype());
      same("shape", List.of(-1L, -1L), specs.get(0).shape());
    }
    fails("metadata of absent", Code.NOT_FOUND, "absent", () -> client.metadata("absent"));
  }

  static void datatypes(Client client) {
    for (Datatype datatype : Datatype.values()) {
      Tensor x = extremes(datatype);
      String model = "echo-" + datatype.name().toLowerCase(Locale.ROOT);
      same(model, x, client.infer(model, Map.of("x", x)).output("x"));
    }
  }

  private static Tensor extremes(Datatype datatype) {
    if (datatype == Datatype.BYTES) {
      return Tensor.ofElements(
          List.of(
              new byte[0],
              "ünï, 日本".getBytes(StandardCharsets.UTF_8),
              new byte[] {(byte) 0xFF, (byte) 0xFE, 0},
              new byte[300],
              new byte[] {0},
              "x".getBytes(StandardCharsets.UTF_8)),
          2,
          3);
    }
    ByteBuffer data =
        ByteBuffer.allocate(6 * datatype.elementBytes()).order(ByteOrder.LITTLE_ENDIAN);
    switch (datatype) {
      case BOOL -> data.put(new byte[] {0, 1, 1, 0, 1, 0});
      case UINT8, INT8 -> data.put(new byte[] {0, 1, 127, -128, -1, 5});
      case UINT16, INT16 -> shorts(data, 0, 1, 0x7FFF, 0x8000, 0xFFFF, 5);
      case FP16 -> shorts(data, 0x7BFF, 0xFBFF, 0x7E01, 0x7C00, 0xFC00, 0x8000);
      case BF16 -> shorts(data, 0x7F7F, 0xFF7F, 0x7FC1, 0x7F80, 0xFF80, 0x8000);
      case UINT32, INT32 -> ints(data, 0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 5);
      case FP32 ->
          ints(data, 0x7F7F_FFFF, 0xFF7F_FFFF, 0x7FC0_0001, 0x7F80_0000, 0xFF80_0000, 0x8000_0000);
      case UINT64, INT64 -> longs(data, 0, 1, Long.MAX_VALUE, Long.MIN_VALUE, -1, 5);
      default ->
          longs(
              data,
              Double.doubleToRawLongBits(Double.MAX_VALUE),
              Double.doubleToRawLongBits(-Double.MAX_VALUE),
              0x7FF8_0000_0000_0001L,
              Double.doubleToRawLongBits(Double.POSITIVE_INFINITY),
              Double.doubleToRawLongBits(Double.NEGATIVE_INFINITY),
              Double.doubleToRawLongBits(-0.0));
    }
    return Tensor.of(datatype, data.rewind(), 2, 3);
  }

  private static void shorts(ByteBuffer data, int... elements) {
    for (int element : elements) {
      data.putShort((short) element);
    }
  }

  private static void ints(ByteBuffer data, int... elements) {
    data.asIntBuffer().put(elements);
  }

  private static void longs(ByteBuffer data, long... elements) {
    data.asLongBuffer().put(elements);
  }

  static void shapes(Client client) {
    echo(client, "scalar", Tensor.of(new float[] {7}));
    echo(client, "echo-fp32", Tensor.of(new float[0], 0, 3));
    echo(client, "echo-fp32", Tensor.of(new float[] {7}, 1, 1));
    echo(client, "echo-fp32", Tensor.of(new float[0], 3, 0));
    echo(
        client,
        "rank8",
        Tensor.of(
            new float[] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
            1,
            2,
            1,
            2,
            1,
            2,
            1,
            2));
    echo(client, "echo-bytes", Tensor.ofElements(List.of(), 0, 2));
  }

  private static void echo(Client client, String model, Tensor x) {
    same(model + " " + x, x, client.infer(model, Map.of("x", x)).output("x"));
  }

  static void parameters(Client client) {
    InferRequest request =
        InferRequest.of("describe")
            .input("x", floats(1))
            .id("id-7")
            .version("1")
            .parameter("flag", Parameter.of(true))
            .parameter("negative", Parameter.of(-7))
            .parameter("big", Parameter.ofUnsigned(Long.MIN_VALUE + 1))
            .parameter("fraction", Parameter.of(0.25))
            .parameter("text", Parameter.of("ünï"))
            .build();
    InferResponse response = client.infer(request);
    same("id", Optional.of("id-7"), response.id());
    same("version", "1", response.version());
    same("shape of text", 1, response.output("text").shape().length);
    String text = response.output("text").toTexts().get(0);
    for (String part :
        List.of(
            "\"flag\": true",
            "\"negative\": -7",
            "\"big\": 9223372036854775809",
            "\"fraction\": 0.25")) {
      holds(text + " has " + part, text.contains(part));
    }
    holds(
        text + " has the text ünï",
        text.contains("\"text\": \"ünï\"") || text.contains("\"text\": \"\\u00fcn\\u00ef\""));
    outputs(client);
  }

  private static void outputs(Client client) {
    InferRequest.Builder alone = InferRequest.of("twice").input("x", floats(3)).outputs("b");
    InferResponse b = client.infer(alone.build());
    same("outputs", List.of("b"), List.copyOf(b.outputs().keySet()));
    same("b", floats(6), b.output("b"));
    InferRequest.Builder both = InferRequest.of("twice").input("x", floats(3)).outputs("b", "a");
    InferResponse ba = client.infer(both.build());
    same("outputs", List.of("b", "a"), List.copyOf(ba.outputs().keySet()));
    same("a", floats(3), ba.output("a"));
  }

  static void token(Client client) {
    InferResponse response = client.infer("describe", Map.of("x", floats(1)));
    String text = response.output("text").toTexts().get(0);
    holds(text + " has the token", text.contains("\"authorization\": \"Bearer abc\""));
  }
}
