package io.kingpole.client.internal.openinference;

import io.kingpole.client.Code;
import io.kingpole.client.InferRequest;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.Parameter;
import io.kingpole.client.Sequence;
import io.kingpole.client.ServerInfo;
import io.kingpole.client.Tensor;
import io.kingpole.client.internal.wire.Buffers;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Writes inference as Open Inference over HTTP, for servers that take no frames. Opens no socket.
 *
 * <p>The client asks with a frame first. A server that does not know what that is says so before
 * anything has run, and is asked like this from then on: with binary tensors if it offers them,
 * else as JSON.
 *
 * @param binary whether the server takes tensors as bytes
 */
public record OpenInference(boolean binary) {
  /** Says how many bytes of a body are JSON. */
  static final String HEADER_LENGTH = "inference-header-content-length";

  /** A request as it is posted. */
  public record Asked(String path, Map<String, String> headers, Buffers body) {}

  /** Chooses how to ask a server, from what it says of itself. */
  public static OpenInference of(ServerInfo info) {
    return new OpenInference(
        info.extensions().contains("binary_tensor_data")
            || info.extensions().contains("binary_data"));
  }

  /**
   * Writes a request; tensors are sent from where they are if the server takes them as bytes.
   *
   * @throws KingpoleException.InvalidArgument if JSON cannot hold an input, and the server takes
   *     nothing else
   */
  public Asked encode(InferRequest request, long timeoutUs) {
    if (request.model().isEmpty()) {
      throw KingpoleException.of(
          Code.INVALID_ARGUMENT,
          "this server speaks Open Inference only, where a model must be named");
    }
    JsonWriter json = new JsonWriter();
    json.open('{');
    request.id().ifPresent(id -> json.name("id").string(id));
    writeParameters(json, request, timeoutUs);
    writeInputs(json, request);
    writeOutputs(json, request);
    json.close('}');
    byte[] head = json.bytes();
    List<ByteBuffer> parts = new ArrayList<>();
    parts.add(ByteBuffer.wrap(head));
    Map<String, String> headers = new LinkedHashMap<>();
    headers.put("Content-Type", binary ? "application/octet-stream" : "application/json");
    if (binary) {
      headers.put(HEADER_LENGTH, Integer.toString(head.length));
      request.inputs().values().forEach(tensor -> parts.add(tensor.data()));
    }
    return new Asked(
        Rest.inferPath(request.model(), request.version()), headers, Buffers.of(parts));
  }

  private void writeParameters(JsonWriter json, InferRequest request, long timeoutUs) {
    json.name("parameters").open('{');
    request.parameters().forEach((name, value) -> writeParameter(json.name(name), value));
    if (timeoutUs > 0) {
      json.name("timeout").raw(Long.toUnsignedString(timeoutUs));
    }
    if (request.priority() > 0) {
      json.name("priority").raw(Integer.toString(request.priority()));
    }
    request.sequence().ifPresent(sequence -> writeSequence(json, sequence));
    if (binary && request.outputs().isEmpty()) {
      json.name("binary_data_output").raw("true");
    }
    json.close('}');
  }

  private static void writeSequence(JsonWriter json, Sequence sequence) {
    json.name("sequence_id");
    if (sequence.id() instanceof Sequence.Id.Numeric number) {
      json.raw(Long.toUnsignedString(number.bits()));
    } else if (sequence.id() instanceof Sequence.Id.Text text) {
      json.string(text.value());
    }
    json.name("sequence_start").raw(Boolean.toString(sequence.start()));
    json.name("sequence_end").raw(Boolean.toString(sequence.end()));
  }

  private static void writeParameter(JsonWriter json, Parameter value) {
    if (value instanceof Parameter.Bool bool) {
      json.raw(Boolean.toString(bool.value()));
    } else if (value instanceof Parameter.Int64 number) {
      json.raw(Long.toString(number.value()));
    } else if (value instanceof Parameter.Uint64 number) {
      json.raw(Long.toUnsignedString(number.bits()));
    } else if (value instanceof Parameter.Float64 number) {
      if (!Double.isFinite(number.value())) {
        throw KingpoleException.of(
            Code.INVALID_ARGUMENT, "a parameter is " + number.value() + ", which JSON cannot hold");
      }
      json.raw(Double.toString(number.value()));
    } else if (value instanceof Parameter.Text text) {
      json.string(text.value());
    }
  }

  private void writeInputs(JsonWriter json, InferRequest request) {
    json.name("inputs").open('[');
    request.inputs().forEach((name, tensor) -> writeInput(json, name, tensor));
    json.close(']');
  }

  private void writeInput(JsonWriter json, String name, Tensor tensor) {
    json.open('{').name("name").string(name);
    json.name("datatype").string(tensor.datatype().name());
    json.name("shape").open('[');
    for (long size : tensor.shape()) {
      json.raw(Long.toString(size));
    }
    json.close(']');
    if (binary) {
      json.name("parameters").open('{').name("binary_data_size");
      json.raw(Integer.toString(tensor.data().remaining())).close('}');
    } else {
      JsonElements.write(json.name("data"), name, tensor);
    }
    json.close('}');
  }

  private void writeOutputs(JsonWriter json, InferRequest request) {
    if (request.outputs().isEmpty()) {
      return;
    }
    json.name("outputs").open('[');
    for (String output : request.outputs()) {
      json.open('{').name("name").string(output);
      if (binary) {
        json.name("parameters").open('{').name("binary_data").raw("true").close('}');
      }
      json.close('}');
    }
    json.close(']');
  }
}
