package io.kingpole.client.internal.exchange;

import io.kingpole.client.InferRequest;
import java.util.Optional;

/** What carries requests to a server and answers back. None of these blocks. */
public interface Transport {
  /** Asks for an inference that has one answer; {@code timeoutUs} 0 is no limit. */
  Pending infer(InferRequest request, long timeoutUs);

  /**
   * Asks for an inference that may have any number of answers, on a connection or call of its own.
   */
  FrameSource open(InferRequest request, long timeoutUs);

  /** Asks whether the server lives: any answer but a failure says so. */
  Pending live();

  /** Asks whether a model, or without one the server, is ready. */
  Pending ready(Optional<String> model, Optional<String> version);

  /** Asks what a model takes and gives. */
  Pending metadata(String model, Optional<String> version);

  /** Asks who the server is. */
  Pending serverInfo();

  /** Ends it; what waits is answered CANCELLED. */
  void close();
}
