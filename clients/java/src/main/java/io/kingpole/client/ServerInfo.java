package io.kingpole.client;

import java.util.List;

/**
 * Who the server is.
 *
 * @param name its name
 * @param version its version
 * @param extensions what it offers beyond Open Inference
 * @param maxFrameBytes the largest frame it takes; 0: not said
 */
public record ServerInfo(String name, String version, List<String> extensions, long maxFrameBytes) {
  /** Keeps a copy of the list. */
  public ServerInfo {
    extensions = List.copyOf(extensions);
  }
}
