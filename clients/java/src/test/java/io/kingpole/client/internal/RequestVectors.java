package io.kingpole.client.internal;

import static io.kingpole.client.internal.Vectors.at;
import static io.kingpole.client.internal.Vectors.integer;

import io.kingpole.client.Datatype;
import io.kingpole.client.InferRequest;
import io.kingpole.client.Parameter;
import io.kingpole.client.Sequence;
import io.kingpole.client.Tensor;
import io.kingpole.client.internal.openinference.JsonReader.JsonNumber;
import io.kingpole.client.internal.wire.AnswerDecoder;
import io.kingpole.client.internal.wire.DecodeException;
import io.kingpole.client.internal.wire.FlatTable;
import io.kingpole.client.internal.wire.Frame;
import java.time.Duration;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** Requests as vectors and frames say them; the client itself only writes them. */
public final class RequestVectors {
  private RequestVectors() {}

  /**
   * Makes the request that a vector's value describes. Parameters of outputs are not this client's.
   */
  public static InferRequest of(Object described) {
    List<String> outputs = new ArrayList<>();
    ((List<?>) at(described, "outputs")).forEach(o -> outputs.add((String) at(o, "name")));
    long timeoutUs = integer(at(described, "timeout_us"));
    return new InferRequest(
        (String) at(described, "model"),
        Optional.ofNullable((String) at(described, "version")),
        Optional.ofNullable((String) at(described, "id")),
        Vectors.tensors(at(described, "inputs")),
        outputs,
        Vectors.parameters(at(described, "parameters")),
        timeout(timeoutUs),
        (int) integer(at(described, "priority")),
        sequence(at(described, "sequence")));
  }

  private static Optional<Duration> timeout(long timeoutUs) {
    return timeoutUs == 0
        ? Optional.empty()
        : Optional.of(Duration.of(timeoutUs, ChronoUnit.MICROS));
  }

  private static Optional<Sequence> sequence(Object described) {
    if (described == null) {
      return Optional.empty();
    }
    boolean start = (Boolean) at(described, "start");
    boolean end = (Boolean) at(described, "end");
    return Optional.of(
        at(described, "id") instanceof JsonNumber number
            ? Sequence.of(integer(number), start, end)
            : Sequence.of((String) at(described, "id"), start, end));
  }

  /** Reads the request of a frame. */
  public static InferRequest read(Frame frame) throws DecodeException {
    FlatTable table = frame.header().table(1);
    Map<String, Tensor> inputs = new LinkedHashMap<>();
    for (FlatTable input : table.tables(5)) {
      var payload = frame.payloads().get((int) input.uint32(4));
      var data = payload.slice((int) input.int64(5), (int) input.int64(6));
      inputs.put(
          input.text(0),
          Tensor.of(Datatype.ofNumber(input.uint8(1)).orElseThrow(), data, input.int64s(2)));
    }
    List<String> outputs = new ArrayList<>();
    for (FlatTable output : table.tables(6)) {
      outputs.add(output.text(0));
    }
    Map<String, Parameter> parameters = AnswerDecoder.parameters(table.tables(7));
    return new InferRequest(
        table.text(0),
        Optional.ofNullable(table.string(1)),
        Optional.ofNullable(table.string(2)),
        inputs,
        outputs,
        parameters,
        timeout(table.int64(3)),
        (int) table.uint32(4),
        readSequence(table));
  }

  private static Optional<Sequence> readSequence(FlatTable table) throws DecodeException {
    long number = table.int64(8);
    String name = table.text(9);
    if (number == 0 && name.isEmpty()) {
      return Optional.empty();
    }
    boolean start = table.uint8(10) != 0;
    boolean end = table.uint8(11) != 0;
    return Optional.of(
        number == 0 ? Sequence.of(name, start, end) : Sequence.of(number, start, end));
  }
}
