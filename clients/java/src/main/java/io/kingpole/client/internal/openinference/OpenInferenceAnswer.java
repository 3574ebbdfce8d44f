package io.kingpole.client.internal.openinference;

import static io.kingpole.client.internal.openinference.JsonReader.field;
import static io.kingpole.client.internal.openinference.JsonReader.list;
import static io.kingpole.client.internal.openinference.JsonReader.optional;

import io.kingpole.client.Code;
import io.kingpole.client.Datatype;
import io.kingpole.client.InferResponse;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.Parameter;
import io.kingpole.client.Stage;
import io.kingpole.client.Tensor;
import io.kingpole.client.Timing;
import io.kingpole.client.internal.openinference.JsonReader.JsonException;
import io.kingpole.client.internal.openinference.JsonReader.JsonNull;
import io.kingpole.client.internal.openinference.JsonReader.JsonNumber;
import io.kingpole.client.internal.wire.Answer;
import io.kingpole.client.internal.wire.Failure;
import java.nio.ByteBuffer;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** Reads the answer to what {@link OpenInference} wrote; binary outputs are views of it. */
public final class OpenInferenceAnswer {
  private final ByteBuffer binary;

  private OpenInferenceAnswer(ByteBuffer binary) {
    this.binary = binary;
  }

  /** Reads an answer; one that makes no sense is a failure. */
  public static Answer decode(HttpAnswer answer) {
    if (answer.status() != 200) {
      return Rest.failureOf(answer);
    }
    try {
      ByteBuffer body = answer.body().duplicate();
      int headerLength = headerLength(answer.header(OpenInference.HEADER_LENGTH), body.remaining());
      ByteBuffer head = body.slice(body.position(), headerLength);
      body.position(body.position() + headerLength);
      return new Answer.Inferred(new OpenInferenceAnswer(body).response(JsonReader.read(head)));
    } catch (JsonException e) {
      return new Failure(Code.INTERNAL, "the server's answer cannot be read: " + e.getMessage());
    }
  }

  private static int headerLength(String said, int bodyBytes) throws JsonException {
    if (said.isEmpty()) {
      return bodyBytes;
    }
    if (!said.chars().allMatch(c -> c >= '0' && c <= '9')
        || said.length() > 9
        || Integer.parseInt(said) > bodyBytes) {
      throw new JsonException(
          String.format(
              "%s is '%.40s', the answer has %d bytes",
              OpenInference.HEADER_LENGTH, said, bodyBytes));
    }
    return Integer.parseInt(said);
  }

  private InferResponse response(Object document) throws JsonException {
    Map<String, Tensor> outputs = new LinkedHashMap<>();
    for (Object output : list(document, "outputs")) {
      String name = field(output, "name", String.class);
      if (outputs.put(name, tensor(name, output)) != null) {
        throw new JsonException("output '" + name + "' is there twice");
      }
    }
    if (binary.hasRemaining()) {
      throw new JsonException(binary.remaining() + " bytes belong to no output");
    }
    return new InferResponse(
        text(document, "model_name"),
        text(document, "model_version"),
        Optional.ofNullable(optional(document, "id", String.class)),
        outputs,
        parameters(optional(document, "parameters", Map.class)),
        Timing.NONE,
        Stage.ONLY);
  }

  private static String text(Object document, String name) throws JsonException {
    // Some servers write a version as a number.
    Object value = optional(document, name, Object.class);
    if (value instanceof JsonNumber number) {
      return number.text();
    }
    return value instanceof String text ? text : "";
  }

  private Tensor tensor(String name, Object output) throws JsonException {
    String said = field(output, "datatype", String.class);
    Optional<Datatype> datatype = Datatype.ofName(said);
    if (datatype.isEmpty()) {
      throw new JsonException(String.format("output '%s': unknown datatype '%.40s'", name, said));
    }
    long[] shape = shape(field(output, "shape", List.class));
    Map<?, ?> parameters = optional(output, "parameters", Map.class);
    Object size = parameters == null ? null : parameters.get("binary_data_size");
    ByteBuffer data =
        size == null
            ? JsonElements.read(datatype.get(), field(output, "data", Object.class))
            : take(name, size);
    try {
      return Tensor.of(datatype.get(), data, shape);
    } catch (KingpoleException.InvalidArgument e) {
      throw new JsonException("output '" + name + "': " + e.getMessage());
    }
  }

  private static long[] shape(List<?> sizes) throws JsonException {
    long[] shape = new long[sizes.size()];
    for (int index = 0; index < shape.length; index++) {
      shape[index] = Rest.integer(sizes.get(index));
    }
    return shape;
  }

  private ByteBuffer take(String name, Object size) throws JsonException {
    long bytes = Rest.integer(size);
    if (bytes < 0 || bytes > binary.remaining()) {
      throw new JsonException(
          String.format(
              "output '%s': binary_data_size %d passes the end of the answer", name, bytes));
    }
    ByteBuffer taken = binary.slice(binary.position(), (int) bytes);
    binary.position(binary.position() + (int) bytes);
    return taken;
  }

  private static Map<String, Parameter> parameters(Map<?, ?> fields) throws JsonException {
    Map<String, Parameter> parameters = new LinkedHashMap<>();
    if (fields != null) {
      for (Map.Entry<?, ?> field : fields.entrySet()) {
        Optional<Parameter> value = parameter(field.getValue());
        value.ifPresent(given -> parameters.put((String) field.getKey(), given));
      }
    }
    return parameters;
  }

  private static Optional<Parameter> parameter(Object value) throws JsonException {
    if (value instanceof Boolean bool) {
      return Optional.of(Parameter.of(bool));
    }
    if (value instanceof String text) {
      return Optional.of(Parameter.of(text));
    }
    if (value instanceof JsonNumber number) {
      return Optional.of(number(number.text()));
    }
    if (value == JsonNull.NULL || value instanceof Map || value instanceof List) {
      // Not of this protocol, and no reason to throw an answer away.
      return Optional.empty();
    }
    throw new JsonException("a parameter has an unknown kind of value");
  }

  private static Parameter number(String text) {
    boolean whole = text.chars().allMatch(c -> c == '-' || (c >= '0' && c <= '9'));
    if (!whole) {
      return Parameter.of(Double.parseDouble(text));
    }
    try {
      return Parameter.of(Long.parseLong(text));
    } catch (NumberFormatException e) {
      return unsigned(text);
    }
  }

  private static Parameter unsigned(String text) {
    try {
      return Parameter.ofUnsigned(Long.parseUnsignedLong(text));
    } catch (NumberFormatException e) {
      return Parameter.of(Double.parseDouble(text));
    }
  }
}
