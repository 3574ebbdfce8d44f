package io.kingpole.client.internal.wire;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/**
 * One table of a flatbuffer that came from somebody else; every field is checked when it is read.
 *
 * <p>The runtime of flatbuffers trusts its bytes, and for Java there is no verifier. So nothing
 * received goes near it: this class checks each offset against the buffer as it follows it, which
 * makes reading and verifying one pass. Knows the format, not our schema; a slot counts fields from
 * 0. Depth is bounded because each reader names its own children, the number of tables by a budget,
 * against graphs that share children to look bigger than they are.
 *
 * <p>Source: flatbuffers.dev/internals; the limits follow the Rust and C++ verifiers.
 */
public final class FlatTable {
  private static final int MOST_TABLES = 8192;

  /** Received bytes, and how many more tables and strings may be read from them. */
  private static final class Source {
    final ByteBuffer bytes;
    final int size;
    int tablesLeft = MOST_TABLES;

    Source(ByteBuffer bytes) {
      this.bytes = bytes;
      this.size = bytes.limit();
    }

    void spend() throws DecodeException {
      if (--tablesLeft < 0) {
        throw DecodeException.malformed(
            "the header has more than " + MOST_TABLES + " tables and strings");
      }
    }

    /** Returns where the unsigned offset at a position that is known to be inside leads. */
    int follow(int position) throws DecodeException {
      long target = position + Integer.toUnsignedLong(bytes.getInt(position));
      if (target <= position || target + 4 > size || (target & 3) != 0) {
        throw DecodeException.malformed(
            "the header's offset at "
                + position
                + " leads to "
                + target
                + " of "
                + size
                + " bytes");
      }
      return (int) target;
    }

    String string(int position) throws DecodeException {
      spend();
      int start = follow(position) + 4;
      long length = Integer.toUnsignedLong(bytes.getInt(start - 4));
      if (start + length + 1 > size || bytes.get((int) (start + length)) != 0) {
        throw DecodeException.malformed(
            "a string of " + length + " bytes at " + start + " does not end inside the header");
      }
      try {
        CharBuffer text =
            StandardCharsets.UTF_8.newDecoder().decode(bytes.slice(start, (int) length));
        return text.toString();
      } catch (CharacterCodingException e) {
        throw DecodeException.malformed("the string at " + start + " is not UTF-8");
      }
    }

    /** Returns the position of a vector's length, which was checked. */
    int vector(int position, int elementBytes) throws DecodeException {
      int found = follow(position);
      long length = Integer.toUnsignedLong(bytes.getInt(found));
      long start = found + 4L;
      if (start + length * elementBytes > size) {
        throw DecodeException.malformed(
            "a vector of " + length + " elements at " + start + " is longer than the header");
      }
      if (length > 0 && start % elementBytes != 0) {
        throw DecodeException.malformed(
            "the vector at " + start + " is not aligned to " + elementBytes + " bytes");
      }
      return found;
    }
  }

  private final Source source;
  private final int position;
  private final int vtable;
  private final int vtableBytes;
  private final int end;

  private FlatTable(Source source, int position) throws DecodeException {
    source.spend();
    long start = (long) position - source.bytes.getInt(position);
    if (start < 0 || (start & 1) != 0 || start + 4 > source.size) {
      throw DecodeException.malformed(
          "the vtable of the table at " + position + " lies outside of the header");
    }
    int says = Short.toUnsignedInt(source.bytes.getShort((int) start));
    int tableBytes = Short.toUnsignedInt(source.bytes.getShort((int) start + 2));
    if (says < 4 || (says & 1) != 0 || start + says > source.size) {
      throw DecodeException.malformed("the vtable at " + start + " says " + says + " bytes");
    }
    if (tableBytes < 4 || (long) position + tableBytes > source.size) {
      throw DecodeException.malformed(
          "the table at " + position + " says " + tableBytes + " bytes");
    }
    this.source = source;
    this.position = position;
    this.vtable = (int) start;
    this.vtableBytes = says;
    this.end = position + tableBytes;
  }

  /** Reads the root table of the bytes between 0 and the buffer's limit. */
  public static FlatTable root(ByteBuffer bytes) throws DecodeException {
    Source source = new Source(bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN));
    if (source.size < 8) {
      throw DecodeException.malformed(
          "the header has " + source.size + " bytes, a flatbuffer needs at least 8");
    }
    return new FlatTable(source, source.follow(0));
  }

  /** Returns the position of a field, -1 if it is absent. */
  private int field(int slot, int size) throws DecodeException {
    int entry = 4 + 2 * slot;
    if (entry + 2 > vtableBytes) {
      return -1;
    }
    int offset = Short.toUnsignedInt(source.bytes.getShort(vtable + entry));
    if (offset == 0) {
      return -1;
    }
    int found = position + offset;
    if (offset < 4 || found + size > end || found % size != 0) {
      throw DecodeException.malformed(
          "field " + slot + " of the table at " + position + " lies outside of it");
    }
    return found;
  }

  /** Returns a byte, 0 if absent. */
  public int uint8(int slot) throws DecodeException {
    int found = field(slot, 1);
    return found < 0 ? 0 : Byte.toUnsignedInt(source.bytes.get(found));
  }

  /** Returns an unsigned 32-bit integer, 0 if absent. */
  public long uint32(int slot) throws DecodeException {
    int found = field(slot, 4);
    return found < 0 ? 0 : Integer.toUnsignedLong(source.bytes.getInt(found));
  }

  /** Returns the 64 bits of an integer, 0 if absent. */
  public long int64(int slot) throws DecodeException {
    int found = field(slot, 8);
    return found < 0 ? 0 : source.bytes.getLong(found);
  }

  /** Returns a double, 0.0 if absent. */
  public double float64(int slot) throws DecodeException {
    int found = field(slot, 8);
    return found < 0 ? 0 : source.bytes.getDouble(found);
  }

  /** Returns a string, null if absent. */
  public String string(int slot) throws DecodeException {
    int found = field(slot, 4);
    return found < 0 ? null : source.string(found);
  }

  /** Returns a string, empty if absent. */
  public String text(int slot) throws DecodeException {
    String found = string(slot);
    return found == null ? "" : found;
  }

  /** Returns a child table, null if absent. */
  public FlatTable table(int slot) throws DecodeException {
    int found = field(slot, 4);
    return found < 0 ? null : new FlatTable(source, source.follow(found));
  }

  /** Returns a vector of 64-bit integers, empty if absent. */
  public long[] int64s(int slot) throws DecodeException {
    int found = field(slot, 4);
    if (found < 0) {
      return new long[0];
    }
    int vector = source.vector(found, 8);
    long[] numbers = new long[source.bytes.getInt(vector)];
    source
        .bytes
        .slice(vector + 4, 8 * numbers.length)
        .order(ByteOrder.LITTLE_ENDIAN)
        .asLongBuffer()
        .get(numbers);
    return numbers;
  }

  /** Returns a vector of tables, empty if absent. */
  public List<FlatTable> tables(int slot) throws DecodeException {
    int found = field(slot, 4);
    List<FlatTable> tables = new ArrayList<>();
    if (found >= 0) {
      int vector = source.vector(found, 4);
      for (int index = source.bytes.getInt(vector); index > 0; index--) {
        vector += 4;
        tables.add(new FlatTable(source, source.follow(vector)));
      }
    }
    return tables;
  }

  /** Returns a vector of strings, empty if absent. */
  public List<String> strings(int slot) throws DecodeException {
    int found = field(slot, 4);
    List<String> strings = new ArrayList<>();
    if (found >= 0) {
      int vector = source.vector(found, 4);
      for (int index = source.bytes.getInt(vector); index > 0; index--) {
        vector += 4;
        strings.add(source.string(vector));
      }
    }
    return strings;
  }
}
