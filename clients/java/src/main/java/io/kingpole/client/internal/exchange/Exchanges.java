package io.kingpole.client.internal.exchange;

import io.kingpole.client.Code;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.Stage;
import io.kingpole.client.internal.wire.Answer;
import io.kingpole.client.internal.wire.AnswerDecoder;
import io.kingpole.client.internal.wire.Buffers;
import io.kingpole.client.internal.wire.DecodeException;
import io.kingpole.client.internal.wire.Encoder;
import io.kingpole.client.internal.wire.Failure;
import io.kingpole.client.internal.wire.Frame;
import io.kingpole.client.internal.wire.Questions;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * Requests on a stream that wait for their answers. Knows no socket.
 *
 * <p>Every exchange begun is answered exactly once: by its frame, by the end of its stream, or by
 * being given up. No more requests are open than the server has granted: one, and what its Credit
 * messages say; those beyond wait here, in their order.
 *
 * <p>Source: protocol/spec/messages.md
 */
public final class Exchanges {
  // One grant of more than this is cut to it: no stream has that many requests open.
  private static final long MOST_GRANTED = 1 << 16;

  /** Where frames go; it takes them without blocking, from any thread. */
  public interface Sender {
    /** Takes a frame to be sent after those before. */
    void send(Buffers frame);
  }

  private final Sender sender;
  private final Map<Long, Exchange> waiting = new HashMap<>();
  private final Set<Exchange> withoutCredit = new LinkedHashSet<>();
  private final Set<Long> questions = new HashSet<>();
  private long credit = 1;
  private long last;
  private Failure failure;

  /** Sends frames there. */
  public Exchanges(Sender sender) {
    this.sender = sender;
  }

  /** One question or request, and its answer that will come. */
  private final class Exchange extends Pending {
    final Encoder encoder;
    final boolean isRequest;
    long number;
    // Guarded by the exchange itself.
    boolean sent;

    Exchange(Encoder encoder, boolean isRequest) {
      this.encoder = encoder;
      this.isRequest = isRequest;
    }

    @Override
    public void giveUp() {
      complete(new Failure(Code.CANCELLED, "the caller gave up"));
      if (forget(this)) {
        synchronized (this) {
          if (sent) {
            sender.send(Questions.cancel(number));
          }
        }
      }
    }

    void transmit() {
      Buffers frame;
      try {
        frame = encoder.encode(number);
      } catch (KingpoleException refusal) {
        complete(Failure.of(refusal).beforeSending());
        withdraw(this);
        return;
      }
      synchronized (this) {
        if (!isDone()) {
          sent = true;
          sender.send(frame);
          return;
        }
      }
      withdraw(this);
    }
  }

  /** Asks; a request waits until the server allows one more. */
  public Pending start(Encoder encoder, boolean isRequest) {
    Exchange exchange = new Exchange(encoder, isRequest);
    synchronized (this) {
      if (failure != null) {
        exchange.complete(failure.beforeSending());
        return exchange;
      }
      if (isRequest && credit == 0) {
        withoutCredit.add(exchange);
        return exchange;
      }
      begin(exchange);
    }
    exchange.transmit();
    return exchange;
  }

  private void begin(Exchange exchange) {
    exchange.number = ++last;
    waiting.put(exchange.number, exchange);
    if (exchange.isRequest) {
      credit--;
    } else {
      questions.add(exchange.number);
    }
  }

  private synchronized boolean forget(Exchange exchange) {
    return !withoutCredit.remove(exchange) && waiting.remove(exchange.number, exchange);
  }

  /** Forgets an exchange that the server was not told of. */
  private void withdraw(Exchange exchange) {
    List<Exchange> admitted;
    synchronized (this) {
      waiting.remove(exchange.number, exchange);
      questions.remove(exchange.number);
      credit += exchange.isRequest ? 1 : 0;
      admitted = admit();
    }
    admitted.forEach(Exchange::transmit);
  }

  private List<Exchange> admit() {
    List<Exchange> admitted = new ArrayList<>();
    Iterator<Exchange> oldest = withoutCredit.iterator();
    while (credit > 0 && oldest.hasNext()) {
      Exchange exchange = oldest.next();
      oldest.remove();
      begin(exchange);
      admitted.add(exchange);
    }
    return admitted;
  }

  /**
   * Hands a received frame to whom it belongs.
   *
   * @return why the stream cannot go on, if it cannot
   */
  public Optional<Failure> answer(Frame frame) {
    long number;
    try {
      number = frame.exchange();
    } catch (DecodeException e) {
      return Optional.of(e.asFailure());
    }
    Answer answer = AnswerDecoder.decodeOrFail(frame);
    Exchange exchange;
    List<Exchange> admitted;
    synchronized (this) {
      credit += returned(number, answer);
      exchange = answer instanceof Answer.Credit ? null : waiting.remove(number);
      admitted = admit();
    }
    if (exchange != null) {
      exchange.complete(oneResponse(answer));
      if (goesOn(answer)) {
        sender.send(Questions.cancel(number));
      }
    }
    admitted.forEach(Exchange::transmit);
    // No request has the number 0: the server means the stream as a whole.
    return number == 0 && answer instanceof Failure said ? Optional.of(said) : Optional.empty();
  }

  /** Returns how many requests an answer allows beyond those allowed before. */
  private long returned(long number, Answer answer) {
    if (answer instanceof Answer.Credit granted) {
      return Math.min(granted.requests(), MOST_GRANTED);
    }
    if (goesOn(answer) || questions.remove(number)) {
      return 0;
    }
    // The answer of a request that was given up counts as well.
    return number == 0 ? 0 : 1;
  }

  private static boolean goesOn(Answer answer) {
    return answer instanceof Answer.Inferred inferred && inferred.response().stage() == Stage.PART;
  }

  /** Makes a failure of one response of several, for a request that waits for one. */
  public static Answer oneResponse(Answer answer) {
    return answer instanceof Answer.Inferred inferred && inferred.response().stage() != Stage.ONLY
        ? new Failure(
            Code.UNIMPLEMENTED,
            "model '"
                + inferred.response().model()
                + "' answers a request with any number of responses: use stream")
        : answer;
  }

  /** Ends the stream: everything that waits, and everything later, fails like that. */
  public void fail(Failure reason) {
    List<Exchange> sent;
    List<Exchange> unsent;
    synchronized (this) {
      if (failure != null) {
        return;
      }
      failure = reason;
      sent = new ArrayList<>(waiting.values());
      unsent = new ArrayList<>(withoutCredit);
      waiting.clear();
      withoutCredit.clear();
    }
    sent.forEach(exchange -> exchange.complete(reason));
    unsent.forEach(exchange -> exchange.complete(reason.beforeSending()));
  }

  /** Returns whether the stream has ended. */
  public synchronized boolean failed() {
    return failure != null;
  }
}
