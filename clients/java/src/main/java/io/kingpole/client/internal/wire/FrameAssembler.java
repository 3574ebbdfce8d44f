package io.kingpole.client.internal.wire;

import java.nio.ByteBuffer;
import java.util.List;

/**
 * Collects the pieces of a stream into frames. Knows no socket.
 *
 * <p>Ask {@link #space} for the memory the next bytes go to, fill any part of it, and call {@link
 * #filled}. Nothing is allocated before the length that asks for it has been checked, and much only
 * once some of it has come: a length costs a liar nothing.
 */
public final class FrameAssembler {
  private final int limit;
  private ByteBuffer memory;
  private int payloadBytes;
  private FrameLayout.Prelude prelude;
  private FlatTable header;
  private int[] lengths;

  /** Takes frames of at most {@code limit} bytes. */
  public FrameAssembler(int limit) {
    this.limit = limit;
    begin();
  }

  private void begin() {
    memory = ByteBuffer.allocate(FrameLayout.PRELUDE_BYTES);
    prelude = null;
    header = null;
    lengths = null;
  }

  /** Returns the memory that the next bytes of the stream belong in; never full. */
  public ByteBuffer space() {
    return memory;
  }

  /**
   * Takes note of what was put into {@link #space}; returns the frame that is complete, or null.
   */
  public Frame filled() throws DecodeException {
    while (!memory.hasRemaining()) {
      if (prelude == null) {
        prelude = FrameLayout.readPrelude(memory);
        memory = ByteBuffer.allocate(prelude.end() - FrameLayout.PRELUDE_BYTES);
      } else if (header == null) {
        header = FlatTable.root(memory.slice(0, prelude.headerBytes()));
        lengths = FrameLayout.readLengths(header, prelude, limit);
        payloadBytes = (int) FrameLayout.payloadBytes(lengths);
        memory = ByteBuffer.allocate(Math.min(payloadBytes, FrameLayout.TRUSTED_BYTES));
      } else if (memory.capacity() < payloadBytes) {
        memory = FrameLayout.allocate(payloadBytes).put(memory.flip());
      } else {
        Frame frame = FrameLayout.split(header, lengths, memory.rewind());
        begin();
        return frame;
      }
    }
    return null;
  }

  /** Copies a piece of the stream in, and adds the frames that it completes. */
  public void feed(ByteBuffer piece, List<? super Frame> frames) throws DecodeException {
    while (piece.hasRemaining()) {
      ByteBuffer space = space();
      int bytes = Math.min(space.remaining(), piece.remaining());
      space.put(piece.slice().limit(bytes));
      piece.position(piece.position() + bytes);
      Frame frame = filled();
      if (frame != null) {
        frames.add(frame);
      }
    }
  }
}
