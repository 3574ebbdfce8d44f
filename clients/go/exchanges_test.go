package kingpole

import (
	"context"
	"errors"
	"testing"
	"time"

	flatbuffers "github.com/google/flatbuffers/go"

	fb "github.com/kingpole/kingpole/clients/go/internal/generated/kingpole/frame"
)

func frameOf(t *testing.T, kind fb.Message, exchange uint64, write func(*flatbuffers.Builder) flatbuffers.UOffsetT) *frame {
	t.Helper()
	builder := flatbuffers.NewBuilder(64)
	buffers, err := finishFrame(builder, kind, write(builder), exchange, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := splitFrame(buffers[0], defaultMaxFrameBytes)
	if err != nil {
		t.Fatal(err)
	}
	return whole
}

func creditFrame(t *testing.T, exchange uint64, requests uint32) *frame {
	return frameOf(t, fb.MessageCredit, exchange, func(builder *flatbuffers.Builder) flatbuffers.UOffsetT {
		fb.CreditStart(builder)
		fb.CreditAddRequests(builder, requests)
		return fb.CreditEnd(builder)
	})
}

func responseFrame(t *testing.T, exchange uint64, stage fb.Stage) *frame {
	return frameOf(t, fb.MessageResponse, exchange, func(builder *flatbuffers.Builder) flatbuffers.UOffsetT {
		fb.ResponseStart(builder)
		fb.ResponseAddStage(builder, stage)
		return fb.ResponseEnd(builder)
	})
}

func errorFrame(t *testing.T, exchange uint64, code Code) *frame {
	return frameOf(t, fb.MessageError, exchange, func(builder *flatbuffers.Builder) flatbuffers.UOffsetT {
		fb.ErrorStart(builder)
		fb.ErrorAddCode(builder, byte(code))
		return fb.ErrorEnd(builder)
	})
}

// allowed reports how many requests may begin now, and begins them.
func allowed(e *exchanges) (numbers []uint64) {
	for {
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Millisecond)
		begun, err := e.begin(ctx, true)
		stop()
		if err != nil {
			return numbers
		}
		numbers = append(numbers, begun.number)
	}
}

func receive(t *testing.T, e *exchanges, frame *frame) uint64 {
	t.Helper()
	unwanted, err := e.receive(frame)
	if err != nil {
		t.Fatal(err)
	}
	return unwanted
}

func TestOneRequestIsOpenUntilTheServerGrantsMore(t *testing.T) {
	e := newExchanges()
	if found := allowed(e); len(found) != 1 {
		t.Fatalf("%d requests were allowed at first", len(found))
	}
	receive(t, e, creditFrame(t, 0, 3))
	if found := allowed(e); len(found) != 3 {
		t.Fatalf("%d requests were allowed by a credit of 3", len(found))
	}
}

func TestALastAnswerGivesOneCreditBackAndAPartNone(t *testing.T) {
	e := newExchanges()
	number := allowed(e)[0]
	if unwanted := receive(t, e, responseFrame(t, number, fb.StagePART)); unwanted != number {
		t.Errorf("a part of a request that waits for one response is to be cancelled, got %d", unwanted)
	}
	if found := allowed(e); len(found) != 0 {
		t.Errorf("a part gave %d credits", len(found))
	}
	receive(t, e, responseFrame(t, number, fb.StageEND))
	if found := allowed(e); len(found) != 1 {
		t.Errorf("the end gave %d credits", len(found))
	}
}

func TestARequestThatWasGivenUpGivesItsCreditBackOnce(t *testing.T) {
	for name, answer := range map[string]func(uint64) *frame{
		"by the credit in place of its answer": func(number uint64) *frame { return creditFrame(t, number, 1) },
		"by its answer":                        func(number uint64) *frame { return responseFrame(t, number, fb.StageONLY) },
	} {
		e := newExchanges()
		number := allowed(e)[0]
		if !e.giveUp(number) || e.giveUp(number) {
			t.Errorf("%s: it waited once", name)
		}
		receive(t, e, answer(number))
		if found := allowed(e); len(found) != 1 {
			t.Errorf("%s: %d credits came back", name, len(found))
		}
	}
}

func TestAQuestionTakesAndGivesNoCredit(t *testing.T) {
	e := newExchanges()
	begun, err := e.begin(context.Background(), false)
	if err != nil {
		t.Fatal(err)
	}
	receive(t, e, errorFrame(t, begun.number, NotFound))
	if got := <-begun.answer; !errors.Is(got.err, NotFound) {
		t.Errorf("the question was answered with %v", got.err)
	}
	if found := allowed(e); len(found) != 1 {
		t.Errorf("%d requests were allowed", len(found))
	}
}

func TestAnErrorAboutTheStreamEndsEverythingOnIt(t *testing.T) {
	e := newExchanges()
	begun, err := e.begin(context.Background(), true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.receive(errorFrame(t, 0, Unavailable))
	if !errors.Is(err, Unavailable) {
		t.Fatalf("the stream's error is %v", err)
	}
	e.fail(err)
	if got := <-begun.answer; !errors.Is(got.err, Unavailable) {
		t.Errorf("what waited got %v", got.err)
	}
	var failed *Error
	if _, err := e.begin(context.Background(), true); !errors.As(err, &failed) || !failed.unsent {
		t.Errorf("what comes later got %v", err)
	}
}

func TestCreditBeyondReasonCostsNothing(t *testing.T) {
	e := newExchanges()
	receive(t, e, creditFrame(t, 0, 1<<32-1))
	receive(t, e, creditFrame(t, 0, 1<<32-1))
	if len(e.credit) != mostGranted {
		t.Errorf("%d credits are kept", len(e.credit))
	}
}

func TestAnyGarbledHeaderIsAValueOrARefusal(t *testing.T) {
	for name, vector := range readVectors(t, "frame-*.json") {
		if vector.Error != nil {
			continue
		}
		for position := range min(len(vector.data), 700) {
			for _, flip := range []byte{0x01, 0x80, 0xFF} {
				data := append([]byte{}, vector.data...)
				data[position] ^= flip
				whole, err := splitFrame(data, 1<<20)
				if err == nil {
					_, err = decodeAnswer(whole, nil)
				}
				var failed *Error
				if err != nil && !errors.As(err, &failed) {
					t.Fatalf("%s with byte %d garbled gave %v", name, position, err)
				}
			}
		}
	}
}
