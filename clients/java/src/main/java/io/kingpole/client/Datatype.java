package io.kingpole.client;

import java.util.Optional;

/** The type of a tensor's elements. Names and numbers are those of the protocol. */
public enum Datatype {
  /** One byte, 0 or 1. */
  BOOL(1, 1),
  /** Unsigned, 8 bits. */
  UINT8(2, 1),
  /** Unsigned, 16 bits. */
  UINT16(3, 2),
  /** Unsigned, 32 bits. */
  UINT32(4, 4),
  /** Unsigned, 64 bits. */
  UINT64(5, 8),
  /** Signed, 8 bits. */
  INT8(6, 1),
  /** Signed, 16 bits. */
  INT16(7, 2),
  /** Signed, 32 bits. */
  INT32(8, 4),
  /** Signed, 64 bits. */
  INT64(9, 8),
  /** IEEE 754 half precision; {@link HalfPrecision} converts. */
  FP16(10, 2),
  /** IEEE 754 single precision. */
  FP32(11, 4),
  /** IEEE 754 double precision. */
  FP64(12, 8),
  /** Elements of any number of bytes, each after its length; texts are UTF-8. */
  BYTES(13, 0),
  /** The upper half of FP32; {@link HalfPrecision} converts. */
  BF16(14, 2);

  private static final Datatype[] BY_NUMBER = new Datatype[15];

  static {
    for (Datatype datatype : values()) {
      BY_NUMBER[datatype.number] = datatype;
    }
  }

  private final int number;
  private final int elementBytes;

  Datatype(int number, int elementBytes) {
    this.number = number;
    this.elementBytes = elementBytes;
  }

  /**
   * Returns the number that stands for the datatype in a frame.
   *
   * @return the number
   */
  public int number() {
    return number;
  }

  /**
   * Returns how many bytes an element takes.
   *
   * @return bytes, 0 for {@link #BYTES}, whose elements differ
   */
  public int elementBytes() {
    return elementBytes;
  }

  /**
   * Finds the datatype of a number.
   *
   * @param number what stands in a frame
   * @return the datatype, empty for a number that is not known
   */
  public static Optional<Datatype> ofNumber(int number) {
    return number > 0 && number < BY_NUMBER.length
        ? Optional.of(BY_NUMBER[number])
        : Optional.empty();
  }

  /**
   * Finds the datatype of a name.
   *
   * @param name upper case, as in metadata
   * @return the datatype, empty for a name that is not known
   */
  public static Optional<Datatype> ofName(String name) {
    for (Datatype datatype : values()) {
      if (datatype.name().equals(name)) {
        return Optional.of(datatype);
      }
    }
    return Optional.empty();
  }
}
