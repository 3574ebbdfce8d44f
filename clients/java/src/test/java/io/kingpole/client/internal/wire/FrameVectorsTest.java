package io.kingpole.client.internal.wire;

import static io.kingpole.client.internal.Vectors.at;
import static io.kingpole.client.internal.Vectors.fields;
import static io.kingpole.client.internal.Vectors.integer;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.kingpole.client.Code;
import io.kingpole.client.Datatype;
import io.kingpole.client.InferRequest;
import io.kingpole.client.InferResponse;
import io.kingpole.client.ModelMetadata;
import io.kingpole.client.ServerInfo;
import io.kingpole.client.Stage;
import io.kingpole.client.TensorSpec;
import io.kingpole.client.internal.RequestVectors;
import io.kingpole.client.internal.Vectors;
import io.kingpole.client.internal.Vectors.Vector;
import io.kingpole.frame.Message;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class FrameVectorsTest {
  private static final int LIMIT = 1 << 20;
  private static final int[] PIECES = {1, 3, 17, 64, 1000};
  private static final Set<String> ASKED =
      Set.of(
          "cancel",
          "ready_request",
          "metadata_request",
          "server_info_request",
          "hand_over",
          "release");

  static List<Vector> good() {
    return Vectors.named("frame-").stream().filter(v -> v.errorCode() == null).toList();
  }

  static List<Vector> malformed() {
    return Vectors.named("frame-").stream().filter(v -> v.errorCode() != null).toList();
  }

  static List<Vector> requests() {
    return good().stream()
        .filter(v -> kind(v).equals("request") && !isShared(v) && v.errorCode() == null)
        .toList();
  }

  private static Map<String, Object> message(Vector vector) {
    return fields(at(vector.fields(), "value", "message"));
  }

  private static String kind(Vector vector) {
    return message(vector).keySet().stream()
        .filter(field -> !Set.of("shared", "places").contains(field))
        .findFirst()
        .orElseThrow();
  }

  private static boolean isShared(Vector vector) {
    Object places = message(vector).get("places");
    return places != null || !((List<?>) message(vector).get("shared")).isEmpty();
  }

  private static List<Frame> inPieces(byte[] bytes, int pieceBytes) throws DecodeException {
    FrameAssembler assembler = new FrameAssembler(LIMIT);
    List<Frame> frames = new ArrayList<>();
    for (int start = 0; start < bytes.length; start += pieceBytes) {
      int end = Math.min(bytes.length, start + pieceBytes);
      assembler.feed(ByteBuffer.wrap(bytes, start, end - start), frames);
    }
    return frames;
  }

  @ParameterizedTest
  @MethodSource("good")
  void aVectorDecodesToItsValueWholeAndInPieces(Vector vector) throws DecodeException {
    check(vector, FrameLayout.read(ByteBuffer.wrap(vector.bytes()), LIMIT));
    for (int pieceBytes : PIECES) {
      List<Frame> frames = inPieces(vector.bytes(), pieceBytes);
      assertEquals(1, frames.size());
      check(vector, frames.get(0));
    }
  }

  @ParameterizedTest
  @MethodSource("good")
  void whatFollowsAFrameIsTheNext(Vector vector) throws DecodeException {
    byte[] one = vector.bytes();
    ByteBuffer two = ByteBuffer.allocate(2 * one.length).put(one).put(one);
    List<Frame> frames = inPieces(two.array(), 37);
    assertEquals(2, frames.size());
    check(vector, frames.get(1));
  }

  @ParameterizedTest
  @MethodSource("malformed")
  void aMalformedVectorIsRefusedWithItsCode(Vector vector) {
    DecodeException refusal =
        assertThrows(
            DecodeException.class,
            () -> AnswerDecoder.decode(FrameLayout.read(ByteBuffer.wrap(vector.bytes()), LIMIT)));
    assertEquals(vector.errorCode(), refusal.code().name());
    for (int pieceBytes : PIECES) {
      try {
        assertEquals(List.of(), inPieces(vector.bytes(), pieceBytes), "waits for the rest");
      } catch (DecodeException e) {
        assertEquals(vector.errorCode(), e.code().name());
      }
    }
  }

  @ParameterizedTest
  @MethodSource("good")
  void anyCutOfAVectorIsRefused(Vector vector) {
    byte[] bytes = vector.bytes();
    for (int size = 0; size < bytes.length; size++) {
      ByteBuffer cut = ByteBuffer.wrap(bytes, 0, size);
      assertThrows(DecodeException.class, () -> FrameLayout.read(cut, LIMIT));
    }
  }

  @ParameterizedTest
  @MethodSource("good")
  void aVectorWithAnyByteChangedGivesAValueOrAnErrorAndNothingElse(Vector vector) {
    byte[] bytes = vector.bytes();
    for (int index = 0; index < bytes.length; index++) {
      for (int change : new int[] {0x01, 0x80, 0xFF}) {
        bytes[index] ^= (byte) change;
        try {
          AnswerDecoder.decode(FrameLayout.read(ByteBuffer.wrap(bytes), LIMIT));
        } catch (DecodeException e) {
          assertTrue(e.getMessage().length() > 10);
        }
        bytes[index] ^= (byte) change;
      }
    }
  }

  @ParameterizedTest
  @MethodSource("requests")
  void aRequestEncodedHereReadsAsTheVectorSays(Vector vector) throws DecodeException {
    InferRequest request = RequestVectors.of(message(vector).get("request"));
    long timeoutUs = request.timeout().map(t -> t.toNanos() / 1000).orElse(0L);
    Buffers written = new RequestEncoder(request, timeoutUs).encode(7);
    Frame frame = FrameLayout.read(written.joined(), LIMIT);
    assertEquals(7, frame.exchange());
    assertEquals(0, written.bytes() % 64);
    assertEquals(request, RequestVectors.read(frame));
  }

  private void check(Vector vector, Frame frame) throws DecodeException {
    assertEquals(integer(at(vector.fields(), "value", "exchange")), frame.exchange());
    String kind = kind(vector);
    Object value = message(vector).get(kind);
    if (ASKED.contains(kind)) {
      assertEquals(
          Code.UNIMPLEMENTED,
          assertThrows(DecodeException.class, () -> AnswerDecoder.decode(frame)).code());
      checkQuestion(kind, value, frame);
    } else if (kind.equals("request")) {
      if (!isShared(vector)) {
        assertEquals(RequestVectors.of(value), RequestVectors.read(frame));
      }
    } else if (kind.equals("response") && isShared(vector)) {
      // What is in memory that this client never shared is nowhere.
      assertThrows(DecodeException.class, () -> AnswerDecoder.decode(frame));
    } else {
      checkAnswer(kind, value, AnswerDecoder.decode(frame));
    }
  }

  private void checkQuestion(String kind, Object value, Frame golden) throws DecodeException {
    Optional<String> version = Optional.ofNullable((String) at(value, "version"));
    Buffers written;
    switch (kind) {
      case "cancel" -> written = Questions.cancel(7);
      case "server_info_request" -> written = Questions.serverInfo(7);
      case "ready_request" -> {
        Optional<String> model = Optional.of((String) at(value, "model"));
        written = Questions.ready(model, version).encode(7);
      }
      case "metadata_request" ->
          written = Questions.metadata((String) at(value, "model"), version).encode(7);
      default -> {
        // HandOver and Release: this client shares no memory.
        assertTrue(golden.header().uint8(0) >= Message.HandOver);
        return;
      }
    }
    Frame frame = FrameLayout.read(written.joined(), LIMIT);
    assertEquals(golden.header().uint8(0), frame.header().uint8(0));
    assertEquals(golden.exchange(), frame.exchange());
    if (kind.endsWith("y_request") || kind.startsWith("metadata")) {
      FlatTable table = frame.header().table(1);
      assertEquals(golden.header().table(1).string(0), table.string(0));
      assertEquals(golden.header().table(1).string(1), table.string(1));
    }
  }

  private static void checkAnswer(String kind, Object value, Answer answer) {
    switch (kind) {
      case "response" -> checkResponse(value, (Answer.Inferred) answer);
      case "error" -> {
        Failure failure = assertInstanceOf(Failure.class, answer);
        assertEquals(at(value, "code"), failure.code().name());
        assertEquals(at(value, "message"), failure.message());
        long retryAfterMs = failure.details().retryAfter().map(d -> d.toMillis()).orElse(0L);
        assertEquals(integer(at(value, "retry_after_ms")), retryAfterMs);
        assertEquals(at(value, "id"), failure.details().id().orElse(null));
      }
      case "credit" -> assertEquals(new Answer.Credit(integer(at(value, "requests"))), answer);
      case "ready" -> assertEquals(new Answer.Ready((Boolean) value), answer);
      case "done" -> assertEquals(new Answer.Done(), answer);
      case "server_info" ->
          assertEquals(
              new ServerInfo(
                  (String) at(value, "name"),
                  (String) at(value, "version"),
                  texts(at(value, "extensions")),
                  integer(at(value, "max_frame_bytes"))),
              ((Answer.Info) answer).info());
      case "metadata" ->
          assertEquals(
              new ModelMetadata(
                  (String) at(value, "name"),
                  texts(at(value, "versions")),
                  (String) at(value, "platform"),
                  specs(at(value, "inputs")),
                  specs(at(value, "outputs")),
                  OptionalLong.of(integer(at(value, "max_batch_size"))),
                  (String) at(value, "description")),
              ((Answer.Described) answer).metadata());
      default -> throw new AssertionError("a vector of a new kind: " + kind);
    }
  }

  private static void checkResponse(Object value, Answer.Inferred answer) {
    InferResponse response = answer.response();
    assertEquals(at(value, "model"), response.model());
    assertEquals(at(value, "version"), response.version());
    assertEquals(at(value, "id"), response.id().orElse(null));
    assertEquals(Vectors.tensors(at(value, "outputs")), response.outputs());
    assertEquals(Vectors.parameters(at(value, "parameters")), response.parameters());
    Object stage = at(value, "stage");
    assertEquals(
        stage == null ? Stage.ONLY : "part".equals(stage) ? Stage.PART : Stage.END,
        response.stage());
  }

  private static List<String> texts(Object list) {
    return ((List<?>) list).stream().map(String.class::cast).toList();
  }

  private static List<TensorSpec> specs(Object list) {
    return ((List<?>) list)
        .stream()
            .map(
                spec ->
                    new TensorSpec(
                        (String) at(spec, "name"),
                        Datatype.ofName((String) at(spec, "datatype")).orElseThrow(),
                        ((List<?>) at(spec, "shape")).stream().map(Vectors::integer).toList(),
                        (Boolean) at(spec, "optional")))
            .toList();
  }
}
