package io.kingpole.client.internal.wire;

import io.kingpole.client.Code;

/**
 * Bytes that are not what the specification says.
 *
 * <p>The code is the decoder's: INVALID_ARGUMENT, RESOURCE_EXHAUSTED or UNIMPLEMENTED. A client
 * that received them has its server to blame, which {@link #asFailure} says.
 */
public final class DecodeException extends Exception {
  private final Code code;

  /** Says what is wrong with the bytes. */
  public DecodeException(Code code, String message) {
    super(message);
    this.code = code;
  }

  static DecodeException malformed(String message) {
    return new DecodeException(Code.INVALID_ARGUMENT, message);
  }

  /** Returns the decoder's code. */
  public Code code() {
    return code;
  }

  /** Returns what the caller of a client is told. */
  public Failure asFailure() {
    return new Failure(code == Code.INVALID_ARGUMENT ? Code.INTERNAL : code, getMessage());
  }
}
