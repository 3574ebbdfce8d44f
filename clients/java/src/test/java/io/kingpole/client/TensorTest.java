package io.kingpole.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class TensorTest {
  @Test
  void aTensorOfABufferIsAViewOfIt() {
    ByteBuffer direct = ByteBuffer.allocateDirect(8);
    Tensor tensor = Tensor.of(Datatype.FP32, direct, 2);
    direct.put(3, (byte) 0x3F).put(2, (byte) 0x80);
    assertArrayEquals(new float[] {1, 0}, tensor.toFloatArray());
    assertTrue(tensor.data().isReadOnly());
  }

  @Test
  void textsAreReadAsTheyWereWritten() {
    Tensor tensor = Tensor.ofTexts(List.of("", "ünï", "x"), 3);
    assertEquals(List.of("", "ünï", "x"), tensor.toTexts());
  }

  @Test
  void whatDoesNotBelongTogetherIsRefusedAndNamed() {
    KingpoleException wrong =
        assertThrows(KingpoleException.InvalidArgument.class, () -> Tensor.of(new float[3], 2, 2));
    assertEquals("FP32 [2, 2] needs 16 bytes, got 12", wrong.getMessage());
    assertThrows(KingpoleException.InvalidArgument.class, () -> Tensor.ofTexts(List.of("a"), 2));
    assertThrows(KingpoleException.InvalidArgument.class, () -> Tensor.of(new float[1], -1));
    assertThrows(
        KingpoleException.InvalidArgument.class,
        () -> Tensor.of(new float[0], Long.MAX_VALUE, Long.MAX_VALUE));
    assertThrows(KingpoleException.InvalidArgument.class, () -> Tensor.of(new int[1], 1).floats());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "ftp://x",
        "http://",
        "grpc://host/path",
        "http://u@h",
        "unix:",
        "http://h?q",
        "h:1"
      })
  void anAddressThatIsNoneIsRefused(String url) {
    assertThrows(KingpoleException.InvalidArgument.class, () -> Client.connect(url));
  }

  @Test
  void aTokenOrACertificateThatCannotTravelIsRefused() {
    assertThrows(
        KingpoleException.InvalidArgument.class, () -> Client.builder("unix:/s").token("t"));
    assertThrows(
        KingpoleException.InvalidArgument.class, () -> Client.builder("http://h").token("a\nb"));
    assertThrows(
        KingpoleException.InvalidArgument.class,
        () -> Client.builder("grpcs://h").rootCertificates(new byte[] {1}));
  }
}
