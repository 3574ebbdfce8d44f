package io.kingpole.conformance;

import io.kingpole.client.InferRequest;
import io.kingpole.client.internal.RequestVectors;
import io.kingpole.client.internal.Vectors;
import io.kingpole.client.internal.Vectors.Vector;
import io.kingpole.client.internal.wire.RequestEncoder;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/**
 * Writes this client's own encoding of each request among the vectors, for the others to decode.
 */
final class Encode {
  private Encode() {}

  static void run(Path directory, Path out) throws IOException {
    Files.createDirectories(out);
    for (Vector vector : Vectors.named(directory, "frame-request-")) {
      Object message =
          vector.errorCode() == null ? Vectors.at(vector.fields(), "value", "message") : null;
      // This client puts no tensors into shared memory.
      if (message == null
          || Vectors.at(message, "places") != null
          || !((List<?>) Vectors.at(message, "shared")).isEmpty()) {
        continue;
      }
      InferRequest request = RequestVectors.of(Vectors.at(message, "request"));
      long timeoutUs = request.timeout().map(t -> t.toNanos() / 1000).orElse(0L);
      long exchange = Vectors.integer(Vectors.at(vector.fields(), "value", "exchange"));
      byte[] frame = new RequestEncoder(request, timeoutUs).encode(exchange).joined().array();
      Files.write(out.resolve(vector.name() + ".bin"), frame);
    }
  }
}
