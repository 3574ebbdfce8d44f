package io.kingpole.client.internal.openinference;

import static io.kingpole.client.internal.Vectors.at;
import static io.kingpole.client.internal.Vectors.integer;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;

import io.kingpole.client.Code;
import io.kingpole.client.InferResponse;
import io.kingpole.client.internal.Vectors;
import io.kingpole.client.internal.Vectors.Vector;
import io.kingpole.client.internal.wire.Answer;
import io.kingpole.client.internal.wire.Failure;
import java.net.http.HttpHeaders;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class ResponseVectorsTest {
  static List<Vector> vectors() {
    return Vectors.named("http-response-");
  }

  private static Answer decode(Vector vector, byte[] bytes) {
    Object length = at(vector.fields(), "header_length");
    Map<String, List<String>> headers =
        length == null
            ? Map.of()
            : Map.of(OpenInference.HEADER_LENGTH, List.of(Long.toString(integer(length))));
    return OpenInferenceAnswer.decode(
        new HttpAnswer(200, HttpHeaders.of(headers, (n, v) -> true), ByteBuffer.wrap(bytes)));
  }

  @ParameterizedTest
  @MethodSource("vectors")
  void aVectorDecodesToItsValue(Vector vector) {
    Answer answer = decode(vector, vector.bytes());
    if (vector.errorCode() != null) {
      assertInstanceOf(Failure.class, answer);
      return;
    }
    InferResponse response = assertInstanceOf(Answer.Inferred.class, answer).response();
    Object expected = at(vector.fields(), "value", "response");
    assertEquals(at(expected, "model"), response.model());
    assertEquals(at(expected, "version"), response.version());
    assertEquals(at(expected, "id"), response.id().orElse(null));
    assertEquals(Vectors.tensors(at(expected, "outputs")), response.outputs());
    assertEquals(Vectors.parameters(at(expected, "parameters")), response.parameters());
  }

  @ParameterizedTest
  @MethodSource("vectors")
  void aCutVectorIsAFailureAndNothingElse(Vector vector) {
    byte[] bytes = vector.bytes();
    for (int size = 0; size < bytes.length; size++) {
      Failure failure = assertInstanceOf(Failure.class, decode(vector, Arrays.copyOf(bytes, size)));
      assertEquals(Code.INTERNAL, failure.code());
    }
  }
}
