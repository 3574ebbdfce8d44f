package io.kingpole.client.internal.http;

import io.kingpole.client.Code;
import io.kingpole.client.internal.Address;
import io.kingpole.client.internal.openinference.HttpAnswer;
import io.kingpole.client.internal.wire.Buffers;
import io.kingpole.client.internal.wire.DecodeException;
import io.kingpole.client.internal.wire.Failure;
import java.io.IOException;
import java.net.ConnectException;
import java.net.ProtocolException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpConnectTimeoutException;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import javax.net.ssl.SSLContext;

/**
 * The JDK's HTTP client towards one server: connections are kept and used again. Knows no frame.
 *
 * <p>The JDK sends a POST again only when its connection could not be opened, never when one broke.
 */
final class HttpConnection {
  private static final Duration CONNECT_TIMEOUT = Duration.ofSeconds(10);

  private final Address address;
  private final Optional<String> token;
  private final HttpClient client;

  HttpConnection(Address address, Optional<String> token, Optional<SSLContext> tls) {
    this.address = address;
    this.token = token;
    HttpClient.Builder builder =
        HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .followRedirects(HttpClient.Redirect.NEVER)
            .connectTimeout(CONNECT_TIMEOUT);
    tls.ifPresent(builder::sslContext);
    this.client = builder.build();
  }

  /**
   * Sends a request; the answer's body goes where the handler says. Cancelling ends the connection.
   */
  <T> CompletableFuture<HttpResponse<T>> send(
      String method,
      String path,
      Map<String, String> headers,
      Buffers body,
      HttpResponse.BodyHandler<T> handler) {
    URI uri =
        URI.create(
            address.scheme()
                + "://"
                + address.host()
                + ":"
                + address.port()
                + address.path()
                + path);
    HttpRequest.Builder request = HttpRequest.newBuilder(uri);
    headers.forEach(request::setHeader);
    token.ifPresent(secret -> request.setHeader("Authorization", "Bearer " + secret));
    request.method(method, BufferPublisher.of(body));
    return client.sendAsync(request.build(), handler);
  }

  static HttpAnswer answerOf(HttpResponse<java.nio.ByteBuffer> response) {
    return new HttpAnswer(response.statusCode(), response.headers(), response.body());
  }

  /** Makes a failure of what the JDK throws. */
  Failure failureOf(Throwable thrown) {
    Throwable cause =
        thrown instanceof CompletionException && thrown.getCause() != null
            ? thrown.getCause()
            : thrown;
    DecodeException refusal = find(cause, DecodeException.class);
    if (refusal != null) {
      return refusal.asFailure();
    }
    if (find(cause, ConnectException.class) != null
        || cause instanceof HttpConnectTimeoutException) {
      return new Failure(Code.UNAVAILABLE, "cannot connect to " + address + ": " + textOf(cause))
          .beforeSending();
    }
    if (cause instanceof ProtocolException) {
      return new Failure(Code.INTERNAL, address + " does not speak HTTP/1.1: " + textOf(cause));
    }
    if (cause instanceof IOException) {
      return new Failure(
          Code.UNAVAILABLE, "the connection to " + address + " broke: " + textOf(cause));
    }
    return new Failure(Code.INTERNAL, "the answer of " + address + ": " + textOf(cause));
  }

  private static <T extends Throwable> T find(Throwable thrown, Class<T> kind) {
    for (Throwable cause = thrown; cause != null; cause = cause.getCause()) {
      if (kind.isInstance(cause)) {
        return kind.cast(cause);
      }
    }
    return null;
  }

  private static String textOf(Throwable thrown) {
    return thrown.getMessage() == null ? thrown.getClass().getSimpleName() : thrown.getMessage();
  }
}
