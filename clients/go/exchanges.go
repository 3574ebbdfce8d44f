package kingpole

// Requests on a stream that wait for their answers. Knows no socket and no clock.
//
// Every exchange begun is answered exactly once: by its frame, by the end of its stream, or by being given up. No more requests are
// open than the server has granted: one, and what its Credit messages say. The answer of a request that was given up gives its
// credit back as well, and so does the Credit in its place.

import (
	"context"
	"sync"
)

// mostGranted bounds what grants add up to: no stream has that many requests open.
const mostGranted = 1 << 16

type answered struct {
	answer any
	err    error
}

// exchange is one that waits.
type exchange struct {
	number uint64
	answer chan answered
}

type exchanges struct {
	credit chan struct{}
	ended  chan struct{}

	mutex      sync.Mutex
	last       uint64
	waiting    map[uint64]*exchange
	questions  map[uint64]bool
	placements map[uint64]*placement
	failure    *Error
}

func newExchanges() *exchanges {
	e := &exchanges{
		credit: make(chan struct{}, mostGranted), ended: make(chan struct{}), waiting: map[uint64]*exchange{},
		questions: map[uint64]bool{}, placements: map[uint64]*placement{},
	}
	e.grant(1)
	return e
}

func (e *exchanges) grant(requests uint32) {
	for range min(requests, mostGranted) {
		select {
		case e.credit <- struct{}{}:
		default:
			return
		}
	}
}

// begin takes the next number; for a request, once the server allows one more.
func (e *exchanges) begin(ctx context.Context, isRequest bool) (*exchange, error) {
	if isRequest {
		select {
		case <-e.credit:
		case <-e.ended:
		case <-ctx.Done():
			return nil, errorOfContext(ctx)
		}
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.failure != nil {
		return nil, unsentAfter(e.failure)
	}
	e.last++
	if !isRequest {
		e.questions[e.last] = true
	}
	begun := &exchange{e.last, make(chan answered, 1)}
	e.waiting[e.last] = begun
	return begun, nil
}

// unsentAfter is the error of what was never sent because the stream had ended.
func unsentAfter(failed *Error) *Error {
	again := *failed
	again.unsent = true
	return &again
}

// place keeps where a request's tensors are until the server says that it does not use them any more.
func (e *exchanges) place(number uint64, placed *placement) error {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.failure != nil {
		return unsentAfter(e.failure)
	}
	e.placements[number] = placed
	return nil
}

// withdraw forgets an exchange that the server was not told of.
func (e *exchanges) withdraw(number uint64) {
	e.mutex.Lock()
	isQuestion, placed := e.questions[number], e.placements[number]
	delete(e.waiting, number)
	delete(e.questions, number)
	delete(e.placements, number)
	e.mutex.Unlock()
	placed.release(nil)
	if !isQuestion {
		e.grant(1)
	}
}

// giveUp forgets an exchange that the server knows; it reports whether its answer had not come.
func (e *exchanges) giveUp(number uint64) bool {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	_, waited := e.waiting[number]
	delete(e.waiting, number)
	return waited
}

// receive hands a frame to whom it belongs. It returns the number of an exchange to cancel, or 0; an error ends the stream.
func (e *exchanges) receive(frame *frame) (uint64, error) {
	number := frame.exchange
	e.mutex.Lock()
	placed := e.placements[number]
	e.mutex.Unlock()
	answer, err := decodeAnswer(frame, placed)
	if number == 0 {
		return 0, e.aboutTheStream(answer, err)
	}
	response, isResponse := answer.(*Response)
	isPart := isResponse && response.stage == stagePart
	if isResponse && response.stage != stageOnly {
		err = failure(Unimplemented, "model '%s' answers a request with any number of responses: use Stream", response.Model)
	}
	e.mutex.Lock()
	waiting := e.take(number, answer)
	if !isPart {
		delete(e.placements, number)
	}
	e.mutex.Unlock()
	if !isPart && placed != nil {
		e.settle(placed, response, waiting != nil && err == nil)
	}
	if waiting == nil {
		return 0, nil
	}
	if failed, is := answer.(*Error); is {
		err = failed
	}
	waiting.answer <- answered{answer, err}
	if isPart {
		return number, nil
	}
	return 0, nil
}

// settle frees what the server no longer uses, but for the outputs of a response that somebody gets.
func (e *exchanges) settle(placed *placement, response *Response, isTaken bool) {
	placed.learn(response)
	if !isTaken {
		response = nil
	}
	placed.release(response)
}

// take books what an answer gives back, and returns who waits for it.
func (e *exchanges) take(number uint64, answer any) *exchange {
	granted, isCredit := answer.(credit)
	response, isResponse := answer.(*Response)
	switch {
	case isCredit:
		e.grant(granted.requests)
		return nil
	case isResponse && response.stage == stagePart:
	case e.questions[number]:
		delete(e.questions, number)
	default:
		e.grant(1)
	}
	waiting := e.waiting[number]
	delete(e.waiting, number)
	return waiting
}

func (e *exchanges) aboutTheStream(answer any, err error) error {
	if err != nil {
		return received(err)
	}
	switch answer := answer.(type) {
	case *Error:
		return answer
	case credit:
		e.grant(answer.requests)
	}
	// A Ready says that the server drains: it answers what it has, and refuses by itself what comes.
	return nil
}

// fail ends the stream: everything that waits, and everything later, fails.
func (e *exchanges) fail(err error) {
	failed, is := err.(*Error)
	if !is {
		failed = failure(Unavailable, "%s", err)
	}
	e.mutex.Lock()
	if e.failure != nil {
		e.mutex.Unlock()
		return
	}
	e.failure = failed
	waiting, placements := e.waiting, e.placements
	e.waiting, e.placements = map[uint64]*exchange{}, map[uint64]*placement{}
	close(e.ended)
	e.mutex.Unlock()
	for _, placed := range placements {
		placed.release(nil)
	}
	for _, each := range waiting {
		each.answer <- answered{nil, failed}
	}
}

func (e *exchanges) failed() bool {
	select {
	case <-e.ended:
		return true
	default:
		return false
	}
}
