package io.kingpole.client;

/** The value of a request's or response's parameter. */
public sealed interface Parameter {
  /**
   * True or false.
   *
   * @param value the value
   */
  record Bool(boolean value) implements Parameter {}

  /**
   * A signed integer.
   *
   * @param value the value
   */
  record Int64(long value) implements Parameter {}

  /**
   * An unsigned integer; {@link Long#toUnsignedString(long)} and the like read it.
   *
   * @param bits the 64 bits
   */
  record Uint64(long bits) implements Parameter {}

  /**
   * A number.
   *
   * @param value the value
   */
  record Float64(double value) implements Parameter {}

  /**
   * A text.
   *
   * @param value the value
   */
  record Text(String value) implements Parameter {}

  /**
   * Makes a parameter.
   *
   * @param value the value
   * @return the parameter
   */
  static Parameter of(boolean value) {
    return new Bool(value);
  }

  /**
   * Makes a parameter.
   *
   * @param value the value
   * @return the parameter
   */
  static Parameter of(long value) {
    return new Int64(value);
  }

  /**
   * Makes a parameter.
   *
   * @param value the value
   * @return the parameter
   */
  static Parameter of(double value) {
    return new Float64(value);
  }

  /**
   * Makes a parameter.
   *
   * @param value the value
   * @return the parameter
   */
  static Parameter of(String value) {
    return new Text(value);
  }

  /**
   * Makes a parameter of an unsigned integer.
   *
   * @param bits the 64 bits
   * @return the parameter
   */
  static Parameter ofUnsigned(long bits) {
    return new Uint64(bits);
  }
}
