package io.kingpole.client.internal.socket;

import io.kingpole.client.internal.Address;
import io.kingpole.client.internal.wire.Buffers;
import java.io.Closeable;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;

/** A blocking socket that takes buffers without joining them. Knows no protocol. */
final class Socket implements Closeable {
  private static final int CONNECT_TIMEOUT_MS = 10_000;
  // What the JDK copies at once of a buffer on the heap, and how many buffers one call gets.
  private static final int PIECE_BYTES = 256 * 1024;
  private static final int MOST_BUFFERS = 16;

  private final SocketChannel channel;
  private volatile long writingSinceNanos;
  private volatile boolean writing;

  private Socket(SocketChannel channel) {
    this.channel = channel;
  }

  static Socket open(Address address) throws IOException {
    if (address.unix()) {
      SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
      try {
        channel.connect(UnixDomainSocketAddress.of(address.path()));
        return new Socket(channel);
      } catch (IOException | RuntimeException e) {
        channel.close();
        throw e;
      }
    }
    SocketChannel channel = SocketChannel.open();
    try {
      channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
      channel
          .socket()
          .connect(new InetSocketAddress(address.bareHost(), address.port()), CONNECT_TIMEOUT_MS);
      return new Socket(channel);
    } catch (IOException | RuntimeException e) {
      channel.close();
      throw e;
    }
  }

  /** Returns how long the other side has taken none of the bytes that are being written. */
  long stuckNanos() {
    long since = writingSinceNanos;
    return writing ? System.nanoTime() - since : 0;
  }

  /** Reads some bytes; -1 at the end. */
  int read(ByteBuffer space) throws IOException {
    int bytes = Math.min(space.remaining(), PIECE_BYTES);
    ByteBuffer piece = space.slice(space.position(), bytes);
    int received = channel.read(piece);
    space.position(space.position() + Math.max(0, received));
    return received;
  }

  /** Writes all bytes. For one thread at a time. */
  void write(Buffers buffers) throws IOException {
    ByteBuffer[] parts =
        buffers.parts().stream().map(ByteBuffer::duplicate).toArray(ByteBuffer[]::new);
    int first = 0;
    writingSinceNanos = System.nanoTime();
    writing = true;
    while (first < parts.length) {
      if (writePiece(parts, first) > 0) {
        writingSinceNanos = System.nanoTime();
      }
      while (first < parts.length && !parts[first].hasRemaining()) {
        first++;
      }
    }
    writing = false;
  }

  /** Writes what one call should get; the last buffer of it is shortened for the call. */
  private long writePiece(ByteBuffer[] parts, int first) throws IOException {
    int room = PIECE_BYTES;
    int end = first;
    int lastLimit = 0;
    while (end < parts.length && end - first < MOST_BUFFERS && room > 0) {
      ByteBuffer part = parts[end++];
      lastLimit = part.limit();
      part.limit(Math.min(lastLimit, part.position() + room));
      room -= part.remaining();
    }
    long written = channel.write(parts, first, end - first);
    parts[end - 1].limit(lastLimit);
    return written;
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
