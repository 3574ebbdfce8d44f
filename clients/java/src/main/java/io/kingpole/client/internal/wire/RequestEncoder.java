package io.kingpole.client.internal.wire;

import com.google.flatbuffers.FlatBufferBuilder;
import io.kingpole.client.InferRequest;
import io.kingpole.client.Parameter;
import io.kingpole.client.Sequence;
import io.kingpole.client.Tensor;
import io.kingpole.frame.Message;
import io.kingpole.frame.ParameterKind;
import io.kingpole.frame.Request;
import io.kingpole.frame.RequestedOutput;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * Writes a request as a frame; its tensors are sent from where they are. Knows no transport.
 *
 * @param request what is asked for
 * @param timeoutUs how long it may take, 0 for no limit
 */
public record RequestEncoder(InferRequest request, long timeoutUs) implements Encoder {
  private static final int USUAL_BYTES = 512;

  @Override
  public Buffers encode(long exchange) {
    FlatBufferBuilder builder = new FlatBufferBuilder(USUAL_BYTES);
    List<ByteBuffer> payloads = new ArrayList<>(request.inputs().size());
    int inputs = inputs(builder, payloads);
    int outputs = outputs(builder);
    int parameters = parameters(builder);
    int model = Questions.text(builder, request.model());
    int version = Questions.text(builder, request.version().orElse(""));
    int id = Questions.text(builder, request.id().orElse(""));
    int sequenceName = sequenceName(builder);
    Request.startRequest(builder);
    addNumbers(builder);
    addOffset(builder, 0, model);
    addOffset(builder, 1, version);
    addOffset(builder, 2, id);
    addOffset(builder, 5, inputs);
    addOffset(builder, 6, outputs);
    addOffset(builder, 7, parameters);
    addOffset(builder, 9, sequenceName);
    int message = Request.endRequest(builder);
    return Questions.finish(builder, Message.Request, message, exchange, payloads);
  }

  private void addNumbers(FlatBufferBuilder builder) {
    Request.addTimeoutUs(builder, timeoutUs);
    Request.addPriority(builder, request.priority());
    if (request.sequence().isPresent()) {
      Sequence sequence = request.sequence().get();
      if (sequence.id() instanceof Sequence.Id.Numeric number) {
        Request.addSequenceId(builder, number.bits());
      }
      Request.addSequenceStart(builder, sequence.start());
      Request.addSequenceEnd(builder, sequence.end());
    }
  }

  /** The slots are those of Request in protocol/schema/kingpole.fbs. */
  private static void addOffset(FlatBufferBuilder builder, int slot, int offset) {
    builder.addOffset(slot, offset, 0);
  }

  private int sequenceName(FlatBufferBuilder builder) {
    return request.sequence().isPresent()
            && request.sequence().get().id() instanceof Sequence.Id.Text text
        ? Questions.string(builder, text.value())
        : 0;
  }

  private int inputs(FlatBufferBuilder builder, List<ByteBuffer> payloads) {
    int[] offsets = new int[request.inputs().size()];
    for (Map.Entry<String, Tensor> input : request.inputs().entrySet()) {
      int index = payloads.size();
      offsets[index] = tensor(builder, index, input.getKey(), input.getValue());
      payloads.add(input.getValue().data());
    }
    return vector(builder, offsets);
  }

  private static int tensor(FlatBufferBuilder builder, int index, String name, Tensor tensor) {
    int nameOffset = Questions.text(builder, name);
    int shape = io.kingpole.frame.Tensor.createShapeVector(builder, tensor.shape());
    io.kingpole.frame.Tensor.startTensor(builder);
    io.kingpole.frame.Tensor.addNbytes(builder, tensor.data().remaining());
    io.kingpole.frame.Tensor.addPayload(builder, index);
    io.kingpole.frame.Tensor.addShape(builder, shape);
    builder.addOffset(0, nameOffset, 0);
    io.kingpole.frame.Tensor.addDatatype(builder, tensor.datatype().number());
    return io.kingpole.frame.Tensor.endTensor(builder);
  }

  private int outputs(FlatBufferBuilder builder) {
    int[] offsets = new int[request.outputs().size()];
    for (int index = 0; index < offsets.length; index++) {
      int name = Questions.text(builder, request.outputs().get(index));
      RequestedOutput.startRequestedOutput(builder);
      builder.addOffset(0, name, 0);
      offsets[index] = RequestedOutput.endRequestedOutput(builder);
    }
    return vector(builder, offsets);
  }

  private int parameters(FlatBufferBuilder builder) {
    int[] offsets = new int[request.parameters().size()];
    int index = 0;
    for (Map.Entry<String, Parameter> parameter : request.parameters().entrySet()) {
      offsets[index++] = parameter(builder, parameter.getKey(), parameter.getValue());
    }
    return vector(builder, offsets);
  }

  private static int parameter(FlatBufferBuilder builder, String name, Parameter value) {
    int nameOffset = Questions.text(builder, name);
    // An empty text is a value too, unlike an empty name.
    int text =
        value instanceof Parameter.Text string ? Questions.string(builder, string.value()) : 0;
    io.kingpole.frame.Parameter.startParameter(builder);
    builder.addOffset(0, nameOffset, 0);
    if (value instanceof Parameter.Bool bool) {
      io.kingpole.frame.Parameter.addKind(builder, ParameterKind.BOOL);
      io.kingpole.frame.Parameter.addBoolValue(builder, bool.value());
    } else if (value instanceof Parameter.Int64 number) {
      io.kingpole.frame.Parameter.addKind(builder, ParameterKind.INT64);
      io.kingpole.frame.Parameter.addInt64Value(builder, number.value());
    } else if (value instanceof Parameter.Uint64 number) {
      io.kingpole.frame.Parameter.addKind(builder, ParameterKind.UINT64);
      io.kingpole.frame.Parameter.addUint64Value(builder, number.bits());
    } else if (value instanceof Parameter.Float64 number) {
      io.kingpole.frame.Parameter.addKind(builder, ParameterKind.DOUBLE);
      io.kingpole.frame.Parameter.addDoubleValue(builder, number.value());
    } else {
      io.kingpole.frame.Parameter.addKind(builder, ParameterKind.STRING);
      io.kingpole.frame.Parameter.addStringValue(builder, text);
    }
    return io.kingpole.frame.Parameter.endParameter(builder);
  }

  private static int vector(FlatBufferBuilder builder, int[] offsets) {
    return offsets.length == 0 ? 0 : builder.createVectorOfTables(offsets);
  }
}
