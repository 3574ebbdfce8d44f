package kingpole

// Many requests at a time, and many responses to one. Knows no transport.

import (
	"context"
	"iter"
)

type outcome struct {
	response *Response
	err      error
}

// InferMany asks for many inferences, up to inFlight at a time, and gives their responses or errors in the requests' order. Requests
// are read as responses are taken. Leaving the loop gives up those on their way.
func (c *Client) InferMany(ctx context.Context, requests iter.Seq[*Request], inFlight int) iter.Seq2[*Response, error] {
	return func(yield func(*Response, error) bool) {
		if inFlight < 1 {
			yield(nil, failure(InvalidArgument, "%d requests in flight, it must be at least 1", inFlight))
			return
		}
		ctx, stop := context.WithCancel(ctx)
		waiting := make([]chan outcome, 0, inFlight)
		defer func() {
			stop()
			// The tensors are the caller's again only when nobody sends them any more.
			for _, each := range waiting {
				<-each
			}
		}()
		take := func() bool {
			oldest := waiting[0]
			waiting = waiting[1:]
			got := <-oldest
			return yield(got.response, got.err)
		}
		for request := range requests {
			answer := make(chan outcome, 1)
			go func() {
				response, err := c.Infer(ctx, request)
				answer <- outcome{response, err}
			}()
			if waiting = append(waiting, answer); len(waiting) >= inFlight && !take() {
				return
			}
		}
		for len(waiting) > 0 {
			if !take() {
				return
			}
		}
	}
}

// Stream asks for an inference that may be answered by any number of responses, and gives them as they are made. The request is sent
// when the loop begins, over a connection or call of its own: responses that are not taken hold up the model that makes them, and
// nothing else. An error ends the loop; the responses before it stay good. Leaving the loop tells the model to make no more.
func (c *Client) Stream(ctx context.Context, request *Request) iter.Seq2[*Response, error] {
	return func(yield func(*Response, error) bool) {
		known, ctx, stop, err := c.prepare(ctx, request)
		if err != nil {
			yield(nil, err)
			return
		}
		defer stop()
		opened, err := c.transport.stream(ctx, known)
		if err != nil {
			yield(nil, err)
			return
		}
		isEnded := false
		defer func() { opened.end(isEnded) }()
		for {
			response, err := nextResponse(opened)
			if err != nil {
				yield(nil, err)
				return
			}
			isEnded = response == nil || response.stage == stageOnly
			if response != nil && !yield(response, nil) {
				return
			}
			if isEnded {
				return
			}
		}
	}
}

// nextResponse returns the next response, or nil at the end.
func nextResponse(from source) (*Response, error) {
	for {
		frame, err := from.next()
		if err != nil {
			return nil, err
		}
		answer, err := decodeAnswer(frame, nil)
		if err != nil {
			return nil, received(err)
		}
		switch answer := answer.(type) {
		case credit, ready:
			continue
		case *Error:
			return nil, answer
		case *Response:
			if answer.stage == stageEnd {
				return nil, nil
			}
			return answer, nil
		}
		return nil, failure(Internal, "the server answered with %T, not with a response", answer)
	}
}
