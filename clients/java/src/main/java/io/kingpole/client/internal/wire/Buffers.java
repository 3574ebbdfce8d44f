package io.kingpole.client.internal.wire;

import java.nio.ByteBuffer;
import java.util.List;

/**
 * Bytes to be sent one buffer after another; none is copied to join them.
 *
 * @param parts the buffers; each sender takes duplicates
 * @param bytes how many bytes they are together
 */
public record Buffers(List<ByteBuffer> parts, long bytes) {
  /** Adds up the buffers. */
  public static Buffers of(List<ByteBuffer> parts) {
    long bytes = 0;
    for (ByteBuffer part : parts) {
      bytes += part.remaining();
    }
    return new Buffers(parts, bytes);
  }

  /** Returns everything in one buffer, for what is small or has to be one. */
  public ByteBuffer joined() {
    ByteBuffer joined = ByteBuffer.allocate(Math.toIntExact(bytes));
    for (ByteBuffer part : parts) {
      joined.put(part.duplicate());
    }
    return joined.flip();
  }
}
