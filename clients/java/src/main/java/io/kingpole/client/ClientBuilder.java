package io.kingpole.client;

import io.kingpole.client.internal.Address;
import io.kingpole.client.internal.Trust;
import io.kingpole.client.internal.exchange.Retries;
import io.kingpole.client.internal.exchange.Transport;
import io.kingpole.client.internal.grpc.GrpcTransport;
import io.kingpole.client.internal.http.HttpTransport;
import io.kingpole.client.internal.socket.SocketTransport;
import io.kingpole.client.internal.wire.FrameLayout;
import java.time.Duration;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.Executor;
import java.util.concurrent.ForkJoinPool;
import javax.net.ssl.SSLContext;

/** Collects how a {@link Client} connects and how patient it is. */
public final class ClientBuilder {
  private static final int MOST_RETRIES = 100;

  private final Address address;
  private Optional<Duration> timeout = Optional.empty();
  private Optional<String> token = Optional.empty();
  private Optional<byte[]> certificates = Optional.empty();
  private Optional<SSLContext> tls = Optional.empty();
  private Executor executor = ForkJoinPool.commonPool();
  private int maxFrameBytes = FrameLayout.MOST_FRAME_BYTES;
  private int retries;

  ClientBuilder(String url) {
    this.address = Address.parse(url);
  }

  /**
   * Says how long an answer is waited for, where a request does not say it. The server is told, and
   * answers when it expires; the client stops waiting a quarter of a second later.
   *
   * @param timeout above 0; without it there is no limit
   * @return this
   */
  public ClientBuilder timeout(Duration timeout) {
    if (timeout.isNegative() || timeout.isZero()) {
      throw invalid("timeout is " + timeout + ", it must be above 0");
    }
    this.timeout = Optional.of(timeout);
    return this;
  }

  /**
   * Sends a token with everything, as {@code authorization: Bearer TOKEN}.
   *
   * @param token for http, https, grpc and grpcs
   * @return this
   */
  public ClientBuilder token(String token) {
    if (address.unix() || address.scheme().equals("frame")) {
      throw invalid("a token cannot travel over " + address + ": use http, https, grpc or grpcs");
    }
    if (token.isEmpty() || !token.chars().allMatch(c -> c >= ' ' && c < 0x7F)) {
      throw invalid("the token has characters that cannot stand in a header");
    }
    this.token = Optional.of(token);
    return this;
  }

  /**
   * Trusts these authorities instead of those of the JDK.
   *
   * @param pem their certificates, in PEM
   * @return this
   */
  public ClientBuilder rootCertificates(byte[] pem) {
    if (!address.secure()) {
      throw invalid("root certificates are for https and grpcs, the address is " + address);
    }
    // Read here also for gRPC, which would say only later that it cannot.
    tls = Optional.of(Trust.of(pem));
    certificates = Optional.of(pem.clone());
    return this;
  }

  /**
   * Uses a TLS context, for client certificates and the like.
   *
   * @param context for https only
   * @return this
   */
  public ClientBuilder sslContext(SSLContext context) {
    if (!address.scheme().equals("https")) {
      throw invalid("a TLS context is for https, the address is " + address);
    }
    tls = Optional.of(context);
    return this;
  }

  /**
   * Limits how long a frame or body of an answer may be; longer ones are refused before there is
   * memory for them.
   *
   * @param bytes above 0; without it what a buffer of Java holds, nearly 2 GiB
   * @return this
   */
  public ClientBuilder maxFrameBytes(int bytes) {
    if (bytes < 1) {
      throw invalid("maxFrameBytes is " + bytes + ", it must be above 0");
    }
    maxFrameBytes = Math.min(bytes, FrameLayout.MOST_FRAME_BYTES);
    return this;
  }

  /**
   * Allows inferences to be asked again that certainly did not run: refused before they were queued
   * with a word on when to come back, or never sent because no connection could be opened.
   *
   * @param most how often, at most; without it never
   * @return this
   */
  public ClientBuilder retries(int most) {
    if (most < 0 || most > MOST_RETRIES) {
      throw invalid("retries is " + most + ", it must be from 0 to " + MOST_RETRIES);
    }
    retries = most;
    return this;
  }

  /**
   * Completes what {@link Client#inferAsync} gives in an executor.
   *
   * @param executor without it the common pool
   * @return this
   */
  public ClientBuilder executor(Executor executor) {
    this.executor = Objects.requireNonNull(executor, "executor");
    return this;
  }

  /**
   * Makes the client; it connects when it first has to.
   *
   * @return the client
   * @throws KingpoleException.Unimplemented if gRPC is asked for and is not on the class path
   */
  public Client build() {
    return new Client(transport(), timeout, new Retries(retries), executor);
  }

  private Transport transport() {
    return switch (address.scheme()) {
      case "http", "https" -> new HttpTransport(address, token, tls, maxFrameBytes);
      case "grpc", "grpcs" -> grpc();
      default -> new SocketTransport(address, maxFrameBytes);
    };
  }

  private Transport grpc() {
    try {
      return new GrpcTransport(address, token, certificates, maxFrameBytes);
    } catch (NoClassDefFoundError e) {
      throw KingpoleException.of(
          Code.UNIMPLEMENTED,
          address + " needs io.grpc:grpc-netty-shaded, which is not on the class path");
    }
  }

  private static KingpoleException invalid(String text) {
    return KingpoleException.of(Code.INVALID_ARGUMENT, text);
  }
}
