package io.kingpole.client.internal.grpc;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import io.kingpole.client.internal.Address;
import io.kingpole.client.internal.exchange.FrameSource;
import io.kingpole.client.internal.wire.Buffers;
import io.kingpole.client.internal.wire.DecodeException;
import io.kingpole.client.internal.wire.FrameLayout;
import java.nio.ByteBuffer;
import java.util.List;

/** The answer to one request on a call of its own. */
final class GrpcSource extends FrameSource {
  private final Address address;
  private final int limit;
  private final ClientCall<Buffers, ByteBuffer> call;

  GrpcSource(Channel channel, Address address, Metadata headers, int limit, Buffers request) {
    this.address = address;
    this.limit = limit;
    this.call = channel.newCall(Frames.STREAM, CallOptions.DEFAULT);
    call.start(new Listener(), headers);
    call.request(1);
    call.sendMessage(request);
    call.halfClose();
  }

  @Override
  protected void readOn() {
    call.request(1);
  }

  @Override
  public void close(boolean ended) {
    if (ended) {
      // Lets the call end well instead of being reset.
      call.request(1);
    } else {
      call.cancel("the responses are not wanted any more", null);
    }
  }

  private final class Listener extends ClientCall.Listener<ByteBuffer> {
    @Override
    public void onMessage(ByteBuffer message) {
      try {
        give(List.of(FrameLayout.read(message, limit)));
      } catch (DecodeException e) {
        fail(e.asFailure());
        call.cancel(e.getMessage(), e);
      }
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      fail(Failures.of(status, address));
    }
  }
}
