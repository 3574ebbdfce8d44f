package io.kingpole.client.internal.openinference;

import io.kingpole.client.internal.wire.FrameLayout;
import java.net.http.HttpHeaders;
import java.nio.ByteBuffer;
import java.util.Set;

/**
 * An answer over HTTP, wholly received.
 *
 * @param status its status
 * @param headers its headers
 * @param body its body
 */
public record HttpAnswer(int status, HttpHeaders headers, ByteBuffer body) {
  // What servers say to a path or a content type that they do not know.
  private static final Set<Integer> REFUSALS = Set.of(404, 405, 415, 501);

  /** Returns a header's value, empty if it is absent. */
  public String header(String name) {
    return headers.firstValue(name).orElse("");
  }

  /** Returns whether the body is a frame. */
  public boolean isFrame() {
    return header("content-type").startsWith(FrameLayout.MEDIA_TYPE);
  }

  /** Returns whether a server that was sent a frame knows none: it did not run anything. */
  public boolean refusesFrames() {
    return REFUSALS.contains(status) && !isFrame();
  }
}
