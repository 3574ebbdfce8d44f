package io.kingpole.client.internal.exchange;

import io.kingpole.client.internal.wire.Answer;
import java.util.concurrent.CompletableFuture;

/** An answer that will come. It never fails: what goes wrong is an answer too. */
public abstract class Pending extends CompletableFuture<Answer> {
  /** Says that the answer is no longer wanted; the server is told if it can be. */
  public abstract void giveUp();
}
