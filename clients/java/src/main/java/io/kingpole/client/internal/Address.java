package io.kingpole.client.internal;

import io.kingpole.client.Code;
import io.kingpole.client.KingpoleException;
import java.net.URI;
import java.net.URISyntaxException;
import java.util.Map;
import java.util.Optional;

/**
 * A server's address, read from a URL. Opens no socket.
 *
 * @param scheme http, https, grpc, grpcs, frame or unix
 * @param host empty for a Unix socket
 * @param port 0 for a Unix socket
 * @param path of a Unix socket, or what stands before the paths of http and https
 */
public record Address(String scheme, String host, int port, String path) {
  private static final Map<String, Integer> PORTS =
      Map.of("http", 80, "https", 443, "grpc", 8000, "grpcs", 443, "frame", 8000);
  private static final String KNOWN =
      "http://host:port, https://host:port, grpc://host:port, grpcs://host:port, frame://host:port,"
          + " unix:/path";

  /**
   * Reads a URL.
   *
   * @throws KingpoleException.InvalidArgument if it is none that this client knows
   */
  public static Address parse(String url) {
    if (url.startsWith("unix:")) {
      String path = url.substring(url.startsWith("unix://") ? 7 : 5);
      if (path.isEmpty()) {
        throw invalid(url, "has no path");
      }
      return new Address("unix", "", 0, path);
    }
    URI uri;
    try {
      uri = new URI(url);
    } catch (URISyntaxException e) {
      throw invalid(url, "cannot be read: " + e.getReason());
    }
    String scheme = Optional.ofNullable(uri.getScheme()).orElse("");
    if (!PORTS.containsKey(scheme) || uri.getHost() == null || uri.getPort() > 65_535) {
      throw invalid(url, "is none of " + KNOWN);
    }
    if (uri.getRawUserInfo() != null || uri.getRawQuery() != null || uri.getRawFragment() != null) {
      throw invalid(url, "may have no user, query or fragment; a token has its own place");
    }
    String prefix = uri.getRawPath().replaceAll("/+$", "");
    if (!prefix.isEmpty() && !scheme.startsWith("http")) {
      throw invalid(url, "may have no path");
    }
    int port = uri.getPort() < 0 ? PORTS.get(scheme) : uri.getPort();
    return new Address(scheme, uri.getHost(), port, prefix);
  }

  private static KingpoleException invalid(String url, String what) {
    return KingpoleException.of(Code.INVALID_ARGUMENT, "the address '" + url + "' " + what);
  }

  /** Returns whether TLS is spoken. */
  public boolean secure() {
    return scheme.equals("https") || scheme.equals("grpcs");
  }

  /** Returns whether it is a Unix socket. */
  public boolean unix() {
    return scheme.equals("unix");
  }

  /** Returns the host without the brackets of IPv6. */
  public String bareHost() {
    return host.startsWith("[") ? host.substring(1, host.length() - 1) : host;
  }

  @Override
  public String toString() {
    return unix() ? "unix:" + path : scheme + "://" + host + ":" + port + path;
  }
}
