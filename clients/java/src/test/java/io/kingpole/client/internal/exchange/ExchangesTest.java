package io.kingpole.client.internal.exchange;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.kingpole.client.Code;
import io.kingpole.client.InferRequest;
import io.kingpole.client.internal.Vectors;
import io.kingpole.client.internal.Vectors.Vector;
import io.kingpole.client.internal.wire.Answer;
import io.kingpole.client.internal.wire.Buffers;
import io.kingpole.client.internal.wire.DecodeException;
import io.kingpole.client.internal.wire.Failure;
import io.kingpole.client.internal.wire.Frame;
import io.kingpole.client.internal.wire.FrameLayout;
import io.kingpole.client.internal.wire.Questions;
import io.kingpole.client.internal.wire.RequestEncoder;
import io.kingpole.frame.Message;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

class ExchangesTest {
  private static final int LIMIT = 1 << 20;
  // The exchange of every vector.
  private static final int GOLDEN = 7;

  private final List<Frame> sent = new ArrayList<>();
  private final Exchanges exchanges = new Exchanges(this::take);

  private void take(Buffers frame) {
    try {
      sent.add(FrameLayout.read(frame.joined(), LIMIT));
    } catch (DecodeException e) {
      throw new AssertionError(e);
    }
  }

  private Pending request() {
    return exchanges.start(new RequestEncoder(InferRequest.of("m").build(), 0), true);
  }

  private Pending question() {
    return exchanges.start(Questions::serverInfo, false);
  }

  private static Frame golden(String name) throws DecodeException {
    Vector vector =
        Vectors.named(name).stream().filter(v -> v.name().equals(name)).findFirst().orElseThrow();
    return FrameLayout.read(ByteBuffer.wrap(vector.bytes()), LIMIT);
  }

  private void askUntilGolden() {
    for (int asked = 1; asked < GOLDEN; asked++) {
      question();
    }
  }

  @Test
  void oneRequestIsSentBeforeAnyCreditAndTheOthersWaitForIt() throws DecodeException {
    askUntilGolden();
    Pending first = request();
    Pending second = request();
    assertEquals(GOLDEN, sent.size());
    exchanges.answer(golden("frame-response-fp32"));
    assertInstanceOf(Answer.Inferred.class, first.join());
    assertEquals(GOLDEN + 1, sent.size(), "the answer gave the credit back");
    assertFalse(second.isDone());
  }

  @Test
  void grantedCreditAdmitsThatManyInTheirOrder() throws DecodeException {
    for (int asked = 0; asked < 100; asked++) {
      request();
    }
    assertEquals(1, sent.size());
    Frame credit = golden("frame-credit");
    long granted = credit.header().table(1).uint32(0);
    exchanges.answer(credit);
    assertEquals(1 + granted, sent.size());
    assertEquals(1 + granted, sent.get(sent.size() - 1).exchange());
  }

  @Test
  void questionsNeedNoCreditAndGiveNoneBack() throws DecodeException {
    askUntilGolden();
    Pending question = question();
    request();
    Pending waiting = request();
    exchanges.answer(golden("frame-server-info"));
    assertInstanceOf(Answer.Info.class, question.join());
    assertFalse(waiting.isDone());
    assertEquals(GOLDEN + 1, sent.size());
  }

  @Test
  void givingUpSendsCancelAndTheCreditComesBackWithItsAnswer() throws DecodeException {
    askUntilGolden();
    Pending given = request();
    request();
    given.giveUp();
    assertEquals(Code.CANCELLED, ((Failure) given.join()).code());
    assertEquals(Message.Cancel, sent.get(GOLDEN).header().uint8(0));
    assertEquals(GOLDEN + 1, sent.size());
    exchanges.answer(golden("frame-credit-cancelled"));
    assertEquals(GOLDEN + 2, sent.size());
  }

  @Test
  void whatWaitsForCreditAndIsGivenUpIsNeverSent() throws DecodeException {
    request();
    Pending waiting = request();
    waiting.giveUp();
    exchanges.answer(golden("frame-credit"));
    assertEquals(1, sent.size());
  }

  @Test
  void aPartialResponseToInferIsRefusedAndCancelled() throws DecodeException {
    askUntilGolden();
    Pending request = request();
    exchanges.answer(golden("frame-response-part"));
    assertEquals(Code.UNIMPLEMENTED, ((Failure) request.join()).code());
    assertEquals(Message.Cancel, sent.get(GOLDEN).header().uint8(0));
  }

  @Test
  void theEndOfTheStreamAnswersEverythingAndWhatWasNotSentSaysSo() {
    Pending sentOne = request();
    Pending waiting = request();
    exchanges.fail(new Failure(Code.UNAVAILABLE, "gone"));
    assertFalse(((Failure) sentOne.join()).details().neverSent());
    assertTrue(((Failure) waiting.join()).details().neverSent());
    assertTrue(((Failure) request().join()).details().neverSent());
    assertTrue(exchanges.failed());
  }

  @Test
  void aRequestThatCannotBeWrittenGivesItsCreditBack() {
    InferRequest broken = InferRequest.of("half a \uD800").build();
    Pending refused = exchanges.start(new RequestEncoder(broken, 0), true);
    assertEquals(Code.INVALID_ARGUMENT, ((Failure) refused.join()).code());
    request();
    assertEquals(1, sent.size());
  }
}
