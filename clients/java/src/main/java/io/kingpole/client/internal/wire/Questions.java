package io.kingpole.client.internal.wire;

import com.google.flatbuffers.FlatBufferBuilder;
import io.kingpole.client.Code;
import io.kingpole.client.KingpoleException;
import io.kingpole.frame.Cancel;
import io.kingpole.frame.Header;
import io.kingpole.frame.Message;
import io.kingpole.frame.MetadataRequest;
import io.kingpole.frame.ReadyRequest;
import io.kingpole.frame.ServerInfoRequest;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;

/**
 * Writes the messages that a client sends beside requests. Knows the schema, not how frames travel.
 */
public final class Questions {
  private static final int SMALL_BYTES = 128;

  private Questions() {}

  /** Says that the answer of an exchange is no longer wanted. */
  public static Buffers cancel(long exchange) {
    FlatBufferBuilder builder = new FlatBufferBuilder(SMALL_BYTES);
    Cancel.startCancel(builder);
    return finish(builder, Message.Cancel, Cancel.endCancel(builder), exchange, List.of());
  }

  /** Asks who the server is. */
  public static Buffers serverInfo(long exchange) {
    FlatBufferBuilder builder = new FlatBufferBuilder(SMALL_BYTES);
    ServerInfoRequest.startServerInfoRequest(builder);
    int message = ServerInfoRequest.endServerInfoRequest(builder);
    return finish(builder, Message.ServerInfoRequest, message, exchange, List.of());
  }

  /** Asks whether a model, or without one the server, is ready. */
  public static Encoder ready(Optional<String> model, Optional<String> version) {
    return exchange -> {
      FlatBufferBuilder builder = new FlatBufferBuilder(SMALL_BYTES);
      int message =
          ReadyRequest.createReadyRequest(
              builder, text(builder, model.orElse("")), text(builder, version.orElse("")));
      return finish(builder, Message.ReadyRequest, message, exchange, List.of());
    };
  }

  /** Asks what a model takes and gives. */
  public static Encoder metadata(String model, Optional<String> version) {
    return exchange -> {
      FlatBufferBuilder builder = new FlatBufferBuilder(SMALL_BYTES);
      int message =
          MetadataRequest.createMetadataRequest(
              builder, text(builder, model), text(builder, version.orElse("")));
      return finish(builder, Message.MetadataRequest, message, exchange, List.of());
    };
  }

  /** Writes a string; an empty one is 0, which stands for an absent field. */
  static int text(FlatBufferBuilder builder, String text) {
    return text.isEmpty() ? 0 : string(builder, text);
  }

  static int string(FlatBufferBuilder builder, String text) {
    try {
      return builder.createString(text);
    } catch (IllegalArgumentException e) {
      throw KingpoleException.of(
          Code.INVALID_ARGUMENT, "a text has half a surrogate pair and cannot be written as UTF-8");
    }
  }

  static Buffers finish(
      FlatBufferBuilder builder,
      byte messageType,
      int message,
      long exchange,
      List<ByteBuffer> payloads) {
    int lengths = 0;
    if (!payloads.isEmpty()) {
      Header.startPayloadsVector(builder, payloads.size());
      for (int index = payloads.size() - 1; index >= 0; index--) {
        builder.addLong(payloads.get(index).remaining());
      }
      lengths = builder.endVector();
    }
    Header.startHeader(builder);
    Header.addExchange(builder, exchange);
    if (lengths != 0) {
      Header.addPayloads(builder, lengths);
    }
    Header.addMessage(builder, message);
    Header.addMessageType(builder, messageType);
    builder.finish(Header.endHeader(builder));
    return FrameLayout.join(builder.dataBuffer(), payloads);
  }
}
