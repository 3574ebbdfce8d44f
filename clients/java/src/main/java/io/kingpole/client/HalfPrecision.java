package io.kingpole.client;

/**
 * Numbers of 16 bits to Java's and back; every conversion rounds once, to the nearest, ties to
 * even.
 *
 * <p>Knows no tensor: it converts single elements. Java 17 has no type for them.
 */
public final class HalfPrecision {
  private static final int FP16_MANTISSA = 10;
  private static final int FP16_LEAST_EXPONENT = -14;
  private static final double FP16_OVERFLOW = 65520.0;
  private static final int BF16_MANTISSA = 7;
  private static final int BF16_LEAST_EXPONENT = -126;
  private static final double BF16_OVERFLOW = 0x1.FFp127;

  private HalfPrecision() {}

  /**
   * Rounds a number to FP16.
   *
   * @param value any number
   * @return its bits; too large becomes infinity
   */
  public static short toFp16(double value) {
    return (short)
        (sign(value)
            | magnitude(
                Math.abs(value), FP16_MANTISSA, FP16_LEAST_EXPONENT, FP16_OVERFLOW, 0x7C00));
  }

  /**
   * Rounds a number to BF16.
   *
   * @param value any number
   * @return its bits; too large becomes infinity
   */
  public static short toBf16(double value) {
    return (short)
        (sign(value)
            | magnitude(
                Math.abs(value), BF16_MANTISSA, BF16_LEAST_EXPONENT, BF16_OVERFLOW, 0x7F80));
  }

  /**
   * Reads a number of FP16.
   *
   * @param bits its bits
   * @return the same number
   */
  public static float fromFp16(short bits) {
    int exponent = (bits >> FP16_MANTISSA) & 0x1F;
    int mantissa = bits & 0x3FF;
    int sign = (bits & 0x8000) << 16;
    if (exponent == 0x1F) {
      return Float.intBitsToFloat(sign | 0x7F800000 | (mantissa << 13));
    }
    if (exponent == 0) {
      float least = mantissa * 0x1p-24f;
      return sign == 0 ? least : -least;
    }
    return Float.intBitsToFloat(sign | ((exponent + 112) << 23) | (mantissa << 13));
  }

  /**
   * Reads a number of BF16.
   *
   * @param bits its bits
   * @return the same number
   */
  public static float fromBf16(short bits) {
    return Float.intBitsToFloat(bits << 16);
  }

  private static int sign(double value) {
    return (int) (Double.doubleToRawLongBits(value) >>> 48) & 0x8000;
  }

  private static int magnitude(
      double value, int mantissaBits, int leastExponent, double overflow, int infinity) {
    if (Double.isNaN(value)) {
      return infinity | 1 << (mantissaBits - 1);
    }
    if (value >= overflow) {
      return infinity;
    }
    int exponent = Math.max(Math.getExponent(value), leastExponent);
    // A double holds the scaled number exactly, so that rint is the only rounding; a mantissa that
    // is
    // rounded up to the next power of two carries into the exponent, as it should.
    long steps = (long) Math.rint(Math.scalb(value, mantissaBits - exponent));
    return (int) (((long) (exponent - leastExponent) << mantissaBits) + steps);
  }
}
