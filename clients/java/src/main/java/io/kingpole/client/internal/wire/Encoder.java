package io.kingpole.client.internal.wire;

/** Writes a frame once it is known which number it gets. May be asked more than once. */
@FunctionalInterface
public interface Encoder {
  /**
   * Writes the frame.
   *
   * @throws io.kingpole.client.KingpoleException if it cannot be written
   */
  Buffers encode(long exchange);
}
