package io.kingpole.client.internal.wire;

import java.nio.ByteBuffer;
import java.util.List;

/**
 * A received frame.
 *
 * @param header its header, verified as it is read
 * @param payloads read-only views of its payloads
 */
public record Frame(FlatTable header, List<ByteBuffer> payloads) {
  /** Returns the number that ties an answer to its request. */
  public long exchange() throws DecodeException {
    return header.int64(2);
  }
}
