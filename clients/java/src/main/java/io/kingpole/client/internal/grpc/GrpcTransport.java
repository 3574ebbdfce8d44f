package io.kingpole.client.internal.grpc;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import io.kingpole.client.Code;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.internal.Address;
import io.kingpole.client.internal.exchange.FrameSource;
import io.kingpole.client.internal.exchange.FrameTransport;
import io.kingpole.client.internal.exchange.Pending;
import io.kingpole.client.internal.wire.Encoder;
import io.kingpole.client.internal.wire.Failure;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.util.Optional;

/**
 * Frames over gRPC: a channel and its stream, which is opened again after it has ended.
 *
 * <p>The only package that knows gRPC, which is an optional dependency: nothing else may refer to
 * its classes.
 */
public final class GrpcTransport extends FrameTransport {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final Address address;
  private final Optional<String> token;
  private final int limit;
  private final ManagedChannel channel;
  private GrpcStream stream;
  private boolean closed;

  /**
   * Will connect to an address, when first needed.
   *
   * @param certificates what is trusted, in PEM; empty: what the JDK trusts
   */
  public GrpcTransport(
      Address address, Optional<String> token, Optional<byte[]> certificates, int limit) {
    this.address = address;
    this.token = token;
    this.limit = limit;
    this.channel =
        Grpc.newChannelBuilder(
                "dns:///" + address.host() + ":" + address.port(),
                credentials(address, certificates))
            .maxInboundMessageSize(limit)
            // Nothing here blocks: whoever waits for an answer waits in a thread of its own.
            .directExecutor()
            .disableRetry()
            .build();
  }

  private static ChannelCredentials credentials(Address address, Optional<byte[]> certificates) {
    if (!address.secure()) {
      return InsecureChannelCredentials.create();
    }
    TlsChannelCredentials.Builder trust = TlsChannelCredentials.newBuilder();
    try {
      if (certificates.isPresent()) {
        trust.trustManager(new ByteArrayInputStream(certificates.get()));
      }
      return trust.build();
    } catch (IOException e) {
      throw KingpoleException.of(
          Code.INVALID_ARGUMENT, "the certificates cannot be read: " + e.getMessage());
    }
  }

  private Metadata headers() {
    Metadata headers = new Metadata();
    token.ifPresent(secret -> headers.put(AUTHORIZATION, "Bearer " + secret));
    return headers;
  }

  @Override
  protected Pending start(Encoder encoder, boolean isRequest) {
    return opened().exchanges().start(encoder, isRequest);
  }

  private synchronized GrpcStream opened() {
    if (stream == null || (stream.exchanges().failed() && !closed)) {
      if (stream != null) {
        // Who asks again after a failure does not want to wait for gRPC's own pause.
        channel.resetConnectBackoff();
      }
      stream = new GrpcStream(channel, address, headers(), limit);
    }
    return stream;
  }

  @Override
  protected FrameSource open(Encoder encoder) {
    return new GrpcSource(channel, address, headers(), limit, encoder.encode(ONLY_EXCHANGE));
  }

  @Override
  public synchronized void close() {
    closed = true;
    if (stream != null) {
      stream.fail(new Failure(Code.CANCELLED, "the client is closed"));
    } else {
      opened().fail(new Failure(Code.CANCELLED, "the client is closed"));
    }
    channel.shutdownNow();
  }
}
