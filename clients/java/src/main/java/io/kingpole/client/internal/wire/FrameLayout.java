package io.kingpole.client.internal.wire;

import io.kingpole.client.Code;
import io.kingpole.client.KingpoleException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/**
 * Where header and payloads lie in a frame. Knows no socket and no schema but the payloads'
 * lengths.
 *
 * <p>Source: protocol/spec/frame.md
 */
public final class FrameLayout {
  /** The media type of a frame. */
  public static final String MEDIA_TYPE = "application/x-kingpole";

  /** The media type of frames one after another. */
  public static final String STREAM_MEDIA_TYPE = "application/x-kingpole-stream";

  /** The most that a buffer of Java holds. */
  public static final int MOST_FRAME_BYTES = Integer.MAX_VALUE - 64;

  /** How much memory is made ready for a length that somebody only says. */
  public static final int TRUSTED_BYTES = 1 << 20;

  static final int PRELUDE_BYTES = 16;
  private static final int ALIGNMENT = 64;
  private static final int MAX_HEADER_BYTES = 262_144;
  private static final int MAX_PAYLOADS = 1024;
  // KINGPOL and the version, read as one little-endian number.
  private static final long MAGIC = 0x01_4C4F_5047_4E49_4BL;
  private static final long MAGIC_WITHOUT_VERSION = MAGIC & 0x00FF_FFFF_FFFF_FFFFL;
  private static final int PAYLOADS_SLOT = 3;
  private static final ByteBuffer ZEROS = ByteBuffer.allocate(ALIGNMENT).asReadOnlyBuffer();

  private FrameLayout() {}

  /** What a frame's first bytes say. */
  record Prelude(int headerBytes, int payloads) {
    /** Returns where the first payload begins. */
    int end() {
      return (int) padded(PRELUDE_BYTES + (long) headerBytes);
    }
  }

  static long padded(long bytes) {
    return (bytes + ALIGNMENT - 1) & -ALIGNMENT;
  }

  /** Lays out a frame; the payloads are not copied. */
  static Buffers join(ByteBuffer header, List<ByteBuffer> payloads) {
    if (header.remaining() > MAX_HEADER_BYTES) {
      throw KingpoleException.of(
          Code.RESOURCE_EXHAUSTED,
          String.format(
              "the request's header has %d bytes, the most is %d",
              header.remaining(), MAX_HEADER_BYTES));
    }
    if (payloads.size() > MAX_PAYLOADS) {
      throw KingpoleException.of(
          Code.RESOURCE_EXHAUSTED,
          "the request has " + payloads.size() + " tensors, the most is " + MAX_PAYLOADS);
    }
    Prelude prelude = new Prelude(header.remaining(), payloads.size());
    ByteBuffer head = ByteBuffer.allocate(prelude.end()).order(ByteOrder.LITTLE_ENDIAN);
    head.putLong(MAGIC).putInt(prelude.headerBytes).putInt(prelude.payloads).put(header).rewind();
    List<ByteBuffer> parts = new ArrayList<>(1 + 2 * payloads.size());
    parts.add(head);
    for (ByteBuffer payload : payloads) {
      int bytes = payload.remaining();
      if (bytes > 0) {
        parts.add(payload);
        int padding = (int) (padded(bytes) - bytes);
        if (padding > 0) {
          parts.add(ZEROS.slice(0, padding));
        }
      }
    }
    return Buffers.of(parts);
  }

  static Prelude readPrelude(ByteBuffer bytes) throws DecodeException {
    ByteBuffer little = bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN);
    long magic = little.getLong(0);
    if ((magic & 0x00FF_FFFF_FFFF_FFFFL) != MAGIC_WITHOUT_VERSION) {
      throw DecodeException.malformed(
          "not a Kingpole frame: it does not start with KINGPOL and a version");
    }
    if (magic != MAGIC) {
      throw DecodeException.malformed(
          "frame version " + (magic >>> 56) + " is not known; this side speaks 1");
    }
    long headerBytes = Integer.toUnsignedLong(little.getInt(8));
    long payloads = Integer.toUnsignedLong(little.getInt(12));
    if (headerBytes > MAX_HEADER_BYTES) {
      throw exhausted("the frame's header says " + headerBytes, " bytes", MAX_HEADER_BYTES);
    }
    if (payloads > MAX_PAYLOADS) {
      throw exhausted("the frame says " + payloads, " payloads", MAX_PAYLOADS);
    }
    return new Prelude((int) headerBytes, (int) payloads);
  }

  /**
   * Returns the lengths of the payloads, after checking that the frame is no longer than the limit.
   */
  static int[] readLengths(FlatTable header, Prelude prelude, int limit) throws DecodeException {
    long[] lengths = header.int64s(PAYLOADS_SLOT);
    if (lengths.length != prelude.payloads) {
      throw DecodeException.malformed(
          "the frame says " + prelude.payloads + " payloads, its header " + lengths.length);
    }
    long end = prelude.end();
    int[] checked = new int[lengths.length];
    for (int index = 0; index < lengths.length; index++) {
      if (lengths[index] < 0 || lengths[index] > limit) {
        String says = Long.toUnsignedString(lengths[index]);
        throw exhausted("payload " + index + " has " + says, " bytes", limit);
      }
      checked[index] = (int) lengths[index];
      end += padded(lengths[index]);
    }
    if (end > limit) {
      throw exhausted("the frame has " + end, " bytes", limit);
    }
    return checked;
  }

  static long payloadBytes(int[] lengths) {
    long bytes = 0;
    for (int length : lengths) {
      bytes += padded(length);
    }
    return bytes;
  }

  static Frame split(FlatTable header, int[] lengths, ByteBuffer payloadBytes) {
    List<ByteBuffer> payloads = new ArrayList<>(lengths.length);
    int start = 0;
    for (int length : lengths) {
      payloads.add(payloadBytes.slice(start, length).asReadOnlyBuffer());
      start += (int) padded(length);
    }
    return new Frame(header, payloads);
  }

  /** Reads one whole frame; the payloads are views of the bytes between position and limit. */
  public static Frame read(ByteBuffer body, int limit) throws DecodeException {
    ByteBuffer bytes = body.slice();
    int size = bytes.limit();
    if (size < PRELUDE_BYTES) {
      throw DecodeException.malformed("the frame is cut off after " + size + " bytes");
    }
    Prelude prelude = readPrelude(bytes);
    if (PRELUDE_BYTES + prelude.headerBytes > size) {
      throw DecodeException.malformed(
          "the frame is cut off within its header, after " + size + " bytes");
    }
    FlatTable header = FlatTable.root(bytes.slice(PRELUDE_BYTES, prelude.headerBytes));
    int[] lengths = readLengths(header, prelude, limit);
    long says = prelude.end() + payloadBytes(lengths);
    if (says != size) {
      throw DecodeException.malformed("the frame says " + says + " bytes, got " + size);
    }
    return split(header, lengths, bytes.slice(prelude.end(), size - prelude.end()));
  }

  /** Returns memory for what was announced, is within the limit and has begun to come. */
  public static ByteBuffer allocate(int bytes) throws DecodeException {
    try {
      return ByteBuffer.allocate(bytes);
    } catch (OutOfMemoryError e) {
      throw new DecodeException(
          Code.RESOURCE_EXHAUSTED, "there is no memory for an answer of " + bytes + " bytes");
    }
  }

  private static DecodeException exhausted(String says, String unit, int most) {
    return new DecodeException(
        Code.RESOURCE_EXHAUSTED, says + unit + "; at most " + most + " are taken");
  }
}
