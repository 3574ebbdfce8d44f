package io.kingpole.client.internal.grpc;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import io.kingpole.client.internal.Address;
import io.kingpole.client.internal.exchange.Exchanges;
import io.kingpole.client.internal.wire.Buffers;
import io.kingpole.client.internal.wire.DecodeException;
import io.kingpole.client.internal.wire.Failure;
import io.kingpole.client.internal.wire.FrameLayout;
import java.nio.ByteBuffer;
import java.util.Optional;

/** One bidirectional call with many requests in flight. */
final class GrpcStream {
  private final Address address;
  private final int limit;
  private final Exchanges exchanges = new Exchanges(this::send);
  private final ClientCall<Buffers, ByteBuffer> call;

  GrpcStream(Channel channel, Address address, Metadata headers, int limit) {
    this.address = address;
    this.limit = limit;
    this.call = channel.newCall(Frames.STREAM, CallOptions.DEFAULT);
    call.start(new Listener(), headers);
    // Answers that nobody waits for are dropped, so none is ever held up.
    call.request(Integer.MAX_VALUE);
  }

  Exchanges exchanges() {
    return exchanges;
  }

  private void send(Buffers frame) {
    // A call takes messages from one thread at a time.
    synchronized (call) {
      if (!exchanges.failed()) {
        call.sendMessage(frame);
      }
    }
  }

  /** Ends the stream and everything that waits on it. */
  void fail(Failure failure) {
    exchanges.fail(failure);
    call.cancel(failure.message(), null);
  }

  private final class Listener extends ClientCall.Listener<ByteBuffer> {
    @Override
    public void onMessage(ByteBuffer message) {
      try {
        Optional<Failure> end = exchanges.answer(FrameLayout.read(message, limit));
        end.ifPresent(GrpcStream.this::fail);
      } catch (DecodeException e) {
        fail(e.asFailure());
      }
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      exchanges.fail(Failures.of(status, address));
    }
  }
}
