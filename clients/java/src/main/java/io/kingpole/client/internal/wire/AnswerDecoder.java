package io.kingpole.client.internal.wire;

import io.kingpole.client.Code;
import io.kingpole.client.Datatype;
import io.kingpole.client.InferResponse;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.ModelMetadata;
import io.kingpole.client.Parameter;
import io.kingpole.client.ServerInfo;
import io.kingpole.client.Stage;
import io.kingpole.client.Tensor;
import io.kingpole.client.TensorSpec;
import io.kingpole.client.Timing;
import io.kingpole.frame.Location;
import io.kingpole.frame.Message;
import io.kingpole.frame.ParameterKind;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;

/**
 * Reads what a server sent. Knows the schema, not how frames travel.
 *
 * <p>Slots are the positions of the fields in protocol/schema/kingpole.fbs.
 */
public final class AnswerDecoder {
  private AnswerDecoder() {}

  /** Reads a frame; a server's error is an answer like others. */
  public static Answer decode(Frame frame) throws DecodeException {
    int kind = frame.header().uint8(0);
    FlatTable message = frame.header().table(1);
    if (message == null) {
      throw DecodeException.malformed("a frame without a message");
    }
    return switch (kind) {
      case Message.Response -> new Answer.Inferred(response(message, frame.payloads()));
      case Message.Error -> error(message);
      case Message.Credit -> new Answer.Credit(message.uint32(0));
      case Message.Ready -> new Answer.Ready(message.uint8(0) != 0);
      case Message.ServerInfo -> new Answer.Info(serverInfo(message));
      case Message.Metadata -> new Answer.Described(metadata(message));
      case Message.Done -> new Answer.Done();
      default ->
          throw new DecodeException(
              Code.UNIMPLEMENTED,
              "the server sent a message of kind " + kind + ", which this client does not know");
    };
  }

  /** Reads a frame; one that makes no sense is a failure. */
  public static Answer decodeOrFail(Frame frame) {
    try {
      return decode(frame);
    } catch (DecodeException e) {
      return e.asFailure();
    }
  }

  private static InferResponse response(FlatTable table, List<ByteBuffer> payloads)
      throws DecodeException {
    List<FlatTable> tensors = table.tables(3);
    Map<String, Tensor> outputs = new LinkedHashMap<>(2 * tensors.size());
    for (int index = 0; index < tensors.size(); index++) {
      String said = tensors.get(index).text(0);
      String name = said.isEmpty() ? Integer.toString(index) : said;
      if (outputs.put(name, tensor(name, tensors.get(index), payloads)) != null) {
        throw DecodeException.malformed("output '" + name + "' is there twice");
      }
    }
    return new InferResponse(
        table.text(0),
        table.text(1),
        Optional.ofNullable(table.string(2)),
        outputs,
        parameters(table.tables(4)),
        new Timing(table.int64(5), table.int64(6), table.uint32(7), table.text(8)),
        stage(table.uint8(9)));
  }

  private static Stage stage(int number) throws DecodeException {
    return switch (number) {
      case io.kingpole.frame.Stage.ONLY -> Stage.ONLY;
      case io.kingpole.frame.Stage.PART -> Stage.PART;
      case io.kingpole.frame.Stage.END -> Stage.END;
      default -> throw DecodeException.malformed("unknown stage " + number);
    };
  }

  private static Tensor tensor(String name, FlatTable table, List<ByteBuffer> payloads)
      throws DecodeException {
    if (table.uint8(3) != Location.INLINE) {
      throw new DecodeException(
          Code.UNIMPLEMENTED, "output '" + name + "' is in shared memory, which was not asked for");
    }
    long index = table.uint32(4);
    long offset = table.int64(5);
    long nbytes = table.int64(6);
    if (index >= payloads.size()) {
      throw DecodeException.malformed(
          String.format(
              "output '%s': payload %d of %d does not exist", name, index, payloads.size()));
    }
    ByteBuffer payload = payloads.get((int) index);
    if (offset < 0 || nbytes < 0 || nbytes > payload.limit() - offset) {
      throw DecodeException.malformed(
          String.format(
              "output '%s': %d bytes at %d pass the end of payload %d, which has %d",
              name, nbytes, offset, index, payload.limit()));
    }
    ByteBuffer data = payload.slice((int) offset, (int) nbytes);
    try {
      return Tensor.of(datatype(name, table.uint8(1)), data, table.int64s(2));
    } catch (KingpoleException.InvalidArgument e) {
      throw DecodeException.malformed("output '" + name + "': " + e.getMessage());
    }
  }

  private static Datatype datatype(String name, int number) throws DecodeException {
    Optional<Datatype> datatype = Datatype.ofNumber(number);
    if (datatype.isEmpty()) {
      throw DecodeException.malformed("tensor '" + name + "': unknown datatype " + number);
    }
    return datatype.get();
  }

  /** Reads parameters. */
  public static Map<String, Parameter> parameters(List<FlatTable> tables) throws DecodeException {
    Map<String, Parameter> parameters = new LinkedHashMap<>();
    for (FlatTable table : tables) {
      String name = table.text(0);
      Parameter value =
          switch (table.uint8(1)) {
            case ParameterKind.BOOL -> new Parameter.Bool(table.uint8(2) != 0);
            case ParameterKind.INT64 -> new Parameter.Int64(table.int64(3));
            case ParameterKind.UINT64 -> new Parameter.Uint64(table.int64(4));
            case ParameterKind.DOUBLE -> new Parameter.Float64(table.float64(5));
            case ParameterKind.STRING -> new Parameter.Text(table.text(6));
            default ->
                throw DecodeException.malformed(
                    "parameter '" + name + "' has no value of a known kind");
          };
      if (parameters.put(name, value) != null) {
        throw DecodeException.malformed("parameter '" + name + "' is given twice");
      }
    }
    return parameters;
  }

  private static Failure error(FlatTable table) throws DecodeException {
    int number = table.uint8(0);
    long retryAfterMs = table.uint32(2);
    String message = table.text(1);
    Optional<Code> code = Code.ofNumber(number);
    return new Failure(
        code.orElse(Code.INTERNAL),
        code.isPresent() ? message : "unknown code " + number + ": " + message,
        new KingpoleException.Details(
            Optional.ofNullable(table.string(3)),
            retryAfterMs == 0 ? Optional.empty() : Optional.of(Duration.ofMillis(retryAfterMs)),
            false));
  }

  private static ServerInfo serverInfo(FlatTable table) throws DecodeException {
    return new ServerInfo(table.text(0), table.text(1), table.strings(2), table.int64(3));
  }

  private static ModelMetadata metadata(FlatTable table) throws DecodeException {
    return new ModelMetadata(
        table.text(0),
        table.strings(1),
        table.text(2),
        specs(table.tables(3)),
        specs(table.tables(4)),
        OptionalLong.of(table.uint32(5)),
        table.text(6));
  }

  private static List<TensorSpec> specs(List<FlatTable> tables) throws DecodeException {
    List<TensorSpec> specs = new ArrayList<>(tables.size());
    for (FlatTable table : tables) {
      String name = table.text(0);
      List<Long> shape = new ArrayList<>();
      for (long size : table.int64s(2)) {
        shape.add(size);
      }
      specs.add(new TensorSpec(name, datatype(name, table.uint8(1)), shape, table.uint8(3) != 0));
    }
    return specs;
  }
}
