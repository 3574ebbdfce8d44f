package io.kingpole.client.internal.exchange;

import io.kingpole.client.InferRequest;
import io.kingpole.client.internal.wire.Encoder;
import io.kingpole.client.internal.wire.Questions;
import io.kingpole.client.internal.wire.RequestEncoder;
import java.util.Optional;

/** A transport that asks everything with frames, on one stream. */
public abstract class FrameTransport implements Transport {
  /** The exchange of a request that has its stream for itself. */
  protected static final long ONLY_EXCHANGE = 1;

  /** Sends a frame on the stream, which is opened if it must be. */
  protected abstract Pending start(Encoder encoder, boolean isRequest);

  /** Sends a request on a stream of its own. */
  protected abstract FrameSource open(Encoder encoder);

  @Override
  public final Pending infer(InferRequest request, long timeoutUs) {
    return start(new RequestEncoder(request, timeoutUs), true);
  }

  @Override
  public final FrameSource open(InferRequest request, long timeoutUs) {
    return open(new RequestEncoder(request, timeoutUs));
  }

  @Override
  public final Pending live() {
    return serverInfo();
  }

  @Override
  public final Pending ready(Optional<String> model, Optional<String> version) {
    return start(Questions.ready(model, version), false);
  }

  @Override
  public final Pending metadata(String model, Optional<String> version) {
    return start(Questions.metadata(model, version), false);
  }

  @Override
  public final Pending serverInfo() {
    return start(Questions::serverInfo, false);
  }
}
