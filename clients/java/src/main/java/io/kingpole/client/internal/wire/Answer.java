package io.kingpole.client.internal.wire;

import io.kingpole.client.InferResponse;
import io.kingpole.client.ModelMetadata;
import io.kingpole.client.ServerInfo;

/** What a server sends. */
public sealed interface Answer
    permits Answer.Inferred,
        Answer.Credit,
        Answer.Ready,
        Answer.Info,
        Answer.Described,
        Answer.Done,
        Failure {
  /** One response to a request. */
  record Inferred(InferResponse response) implements Answer {}

  /** The server takes this many more requests on the stream. */
  record Credit(long requests) implements Answer {}

  /** Whether a model or the server is ready. */
  record Ready(boolean ready) implements Answer {}

  /** Who the server is. */
  record Info(ServerInfo info) implements Answer {}

  /** What a model takes and gives. */
  record Described(ModelMetadata metadata) implements Answer {}

  /** What was asked for is done. */
  record Done() implements Answer {}
}
