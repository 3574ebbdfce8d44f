package io.kingpole.client;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;

/**
 * The bytes of a BYTES tensor: for each element a u32 length and that many bytes.
 *
 * <p>Knows no shape and no frame. Lengths come from somebody else and are not trusted.
 */
final class TextElements {
  private static final int LENGTH_BYTES = Integer.BYTES;

  private final ByteBuffer data;

  TextElements(ByteBuffer data) {
    this.data = data.duplicate().order(ByteOrder.LITTLE_ENDIAN);
  }

  /** Checks that the bytes are that many elements. */
  void check(long elements) {
    long found = 0;
    for (int position = data.position(); position < data.limit(); found++) {
      position = end(position);
    }
    if (found != elements) {
      throw KingpoleException.of(
          Code.INVALID_ARGUMENT,
          "the shape has " + elements + " elements, the bytes have " + found);
    }
  }

  /** Returns a view of each element of bytes that were checked. */
  List<ByteBuffer> views() {
    List<ByteBuffer> views = new ArrayList<>();
    for (int position = data.position(); position < data.limit(); ) {
      int start = position + LENGTH_BYTES;
      position = end(position);
      views.add(data.slice(start, position - start));
    }
    return views;
  }

  private int end(int position) {
    long start = (long) position + LENGTH_BYTES;
    if (start > data.limit()) {
      throw KingpoleException.of(Code.INVALID_ARGUMENT, "the last element's length is cut off");
    }
    long end = start + Integer.toUnsignedLong(data.getInt(position));
    if (end > data.limit()) {
      throw KingpoleException.of(Code.INVALID_ARGUMENT, "an element passes the end of the tensor");
    }
    return (int) end;
  }

  static ByteBuffer join(Collection<byte[]> elements) {
    long bytes = 0;
    for (byte[] element : elements) {
      bytes += LENGTH_BYTES + (long) element.length;
    }
    if (bytes > Integer.MAX_VALUE - 8) {
      throw KingpoleException.of(
          Code.INVALID_ARGUMENT, "a tensor of " + bytes + " bytes does not fit in a buffer");
    }
    ByteBuffer joined = ByteBuffer.allocate((int) bytes).order(ByteOrder.LITTLE_ENDIAN);
    for (byte[] element : elements) {
      joined.putInt(element.length).put(element);
    }
    return joined.flip();
  }
}
