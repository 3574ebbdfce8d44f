package io.kingpole.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class HalfPrecisionTest {
  @Test
  void everyNumberOf16BitsIsReadAndWrittenBack() {
    for (int bits = 0; bits <= 0xFFFF; bits++) {
      float fp16 = HalfPrecision.fromFp16((short) bits);
      float bf16 = HalfPrecision.fromBf16((short) bits);
      if (Float.isNaN(fp16)) {
        assertTrue(Float.isNaN(HalfPrecision.fromFp16(HalfPrecision.toFp16(fp16))));
      } else {
        assertEquals((short) bits, HalfPrecision.toFp16(fp16));
      }
      if (!Float.isNaN(bf16)) {
        assertEquals((short) bits, HalfPrecision.toBf16(bf16));
      }
    }
  }

  @Test
  void whatLiesBetweenIsRoundedToTheNearestAndTiesToEven() {
    assertEquals(0x3C00, HalfPrecision.toFp16(1 + 0x1p-11), "a tie, down to even");
    assertEquals(0x3C02, HalfPrecision.toFp16(1 + 3 * 0x1p-11), "a tie, up to even");
    assertEquals(0x3C01, HalfPrecision.toFp16(1 + 0x1p-11 + 0x1p-40));
    assertEquals(0x7BFF, HalfPrecision.toFp16(65519.99));
    assertEquals(0x7C00, HalfPrecision.toFp16(65520));
    assertEquals(0, HalfPrecision.toFp16(0x1p-25), "half of the smallest");
    assertEquals(1, HalfPrecision.toFp16(0x1.01p-25));
    assertEquals(0x3F80, HalfPrecision.toBf16(1 + 0x1p-8));
    assertEquals((short) 0xBF80, HalfPrecision.toBf16(-1 - 0x1p-8));
  }
}
