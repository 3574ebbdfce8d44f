package io.kingpole.client.internal.grpc;

import io.grpc.Drainable;
import io.grpc.KnownLength;
import io.grpc.MethodDescriptor;
import io.kingpole.client.internal.wire.Buffers;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;

/**
 * The identity codec of {@code kingpole.v1.Inference}: a message's bytes are one frame, not
 * protobuf.
 *
 * <p>Tensors go straight from where they are into the buffers of the transport, and received bytes
 * are copied once, to be in one piece.
 */
final class Frames {
  private static final int PIECE_BYTES = 64 * 1024;

  private Frames() {}

  static final MethodDescriptor<Buffers, ByteBuffer> STREAM =
      MethodDescriptor.<Buffers, ByteBuffer>newBuilder()
          .setType(MethodDescriptor.MethodType.BIDI_STREAMING)
          .setFullMethodName("kingpole.v1.Inference/Stream")
          .setRequestMarshaller(new Writing())
          .setResponseMarshaller(new Reading())
          .build();

  private static final class Writing implements MethodDescriptor.Marshaller<Buffers> {
    @Override
    public InputStream stream(Buffers value) {
      return new Drain(value);
    }

    @Override
    public Buffers parse(InputStream stream) {
      throw new UnsupportedOperationException("a client receives no requests");
    }
  }

  private static final class Reading implements MethodDescriptor.Marshaller<ByteBuffer> {
    @Override
    public InputStream stream(ByteBuffer value) {
      throw new UnsupportedOperationException("a client sends no answers");
    }

    @Override
    public ByteBuffer parse(InputStream stream) {
      try {
        // The whole message is there, within the limit of the channel.
        return ByteBuffer.wrap(stream.readNBytes(stream.available()));
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }

  /** A message that writes itself; it is read as a stream only by who does not know that. */
  private static final class Drain extends InputStream implements Drainable, KnownLength {
    private final Buffers message;
    private InputStream joined;
    private boolean drained;

    Drain(Buffers message) {
      this.message = message;
    }

    @Override
    public int drainTo(OutputStream target) throws IOException {
      byte[] piece = new byte[0];
      for (ByteBuffer part : message.parts()) {
        ByteBuffer left = part.duplicate();
        if (left.hasArray()) {
          target.write(left.array(), left.arrayOffset() + left.position(), left.remaining());
          continue;
        }
        while (left.hasRemaining()) {
          int bytes = Math.min(left.remaining(), PIECE_BYTES);
          piece = piece.length < bytes ? new byte[bytes] : piece;
          left.get(piece, 0, bytes);
          target.write(piece, 0, bytes);
        }
      }
      drained = true;
      return Math.toIntExact(message.bytes());
    }

    @Override
    public int available() throws IOException {
      return drained ? 0 : joined == null ? Math.toIntExact(message.bytes()) : joined.available();
    }

    @Override
    public int read() throws IOException {
      return asStream().read();
    }

    @Override
    public int read(byte[] target, int offset, int length) throws IOException {
      return asStream().read(target, offset, length);
    }

    private InputStream asStream() {
      if (joined == null) {
        joined = new java.io.ByteArrayInputStream(message.joined().array());
      }
      return joined;
    }
  }
}
