package io.kingpole.client.internal;

import io.kingpole.client.InferResponse;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.Stage;
import io.kingpole.client.internal.exchange.Deadline;
import io.kingpole.client.internal.exchange.FrameSource;
import io.kingpole.client.internal.wire.Answer;
import io.kingpole.client.internal.wire.AnswerDecoder;
import java.util.NoSuchElementException;

/** The responses to one request, as they come. */
public final class PartResponses extends SinglePass {
  private final FrameSource source;
  private final Deadline deadline;
  private InferResponse next;
  private boolean last;
  private boolean closed;

  /** Takes responses from a source until they end, or the deadline passes. */
  public PartResponses(FrameSource source, Deadline deadline) {
    this.source = source;
    this.deadline = deadline;
  }

  @Override
  boolean hasResponse() {
    while (next == null && !last && !isClosed()) {
      try {
        take(AnswerDecoder.decodeOrFail(source.next(deadline)));
      } catch (KingpoleException e) {
        end(false);
        throw e;
      }
    }
    return next != null;
  }

  private void take(Answer answer) {
    if (answer instanceof Answer.Credit) {
      return;
    }
    InferResponse response = Inferring.responseOf(answer);
    last = response.stage() != Stage.PART;
    if (response.stage() != Stage.END) {
      next = response;
    }
    if (last) {
      end(true);
    }
  }

  @Override
  InferResponse takeResponse() {
    if (!hasResponse()) {
      throw new NoSuchElementException("there are no more responses");
    }
    InferResponse taken = next;
    next = null;
    return taken;
  }

  private synchronized boolean isClosed() {
    return closed;
  }

  private void end(boolean ended) {
    synchronized (this) {
      if (closed) {
        return;
      }
      closed = true;
    }
    source.close(ended);
  }

  @Override
  public void close() {
    end(false);
  }
}
