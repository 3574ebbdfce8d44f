package io.kingpole.client.internal.socket;

import io.kingpole.client.Code;
import io.kingpole.client.internal.Address;
import io.kingpole.client.internal.exchange.FrameSource;
import io.kingpole.client.internal.exchange.FrameTransport;
import io.kingpole.client.internal.exchange.Pending;
import io.kingpole.client.internal.wire.Encoder;
import io.kingpole.client.internal.wire.Failure;

/** Frames straight over TCP or a Unix socket: a stream that is opened again after it has ended. */
public final class SocketTransport extends FrameTransport {
  private final Address address;
  private final int limit;
  private StreamConnection connection;
  private boolean closed;

  /** Will connect to an address, when first needed. */
  public SocketTransport(Address address, int limit) {
    this.address = address;
    this.limit = limit;
  }

  @Override
  protected Pending start(Encoder encoder, boolean isRequest) {
    return connected().exchanges().start(encoder, isRequest);
  }

  private synchronized StreamConnection connected() {
    if (connection == null || (connection.exchanges().failed() && !closed)) {
      connection = new StreamConnection(address, limit);
    }
    return connection;
  }

  @Override
  protected FrameSource open(Encoder encoder) {
    return new SocketSource(address, limit, encoder.encode(ONLY_EXCHANGE));
  }

  @Override
  public synchronized void close() {
    closed = true;
    connected().fail(new Failure(Code.CANCELLED, "the client is closed"));
  }
}
