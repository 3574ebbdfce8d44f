package kingpole

// Every call as frames on a stream, whatever carries them: gRPC, TCP or a Unix socket.

import (
	"context"
	"errors"
	"net"
)

// carrier carries exchanges on one stream, and opens a stream of its own for a request with any number of responses: so whoever
// takes responses slowly holds up nothing but the model that makes them.
type carrier interface {
	ask(ctx context.Context, what asking) (any, error)
	stream(ctx context.Context, request *prepared) (source, error)
	close()
}

// source is where the frames of one answer come from. end lets go of it; before the answer has ended this cancels the request.
type source interface {
	next() (*frame, error)
	end(isEnded bool)
}

type framesTransport struct{ carrier }

func (f *framesTransport) infer(ctx context.Context, request *prepared) (*Response, error) {
	return oneResponse(f.ask(ctx, asking{request: request}))
}

// oneResponse returns the answer to a request that waits for one response.
func oneResponse(answer any, err error) (*Response, error) {
	if err != nil {
		return nil, received(err)
	}
	switch answer := answer.(type) {
	case *Error:
		return nil, answer
	case *Response:
		if answer.stage != stageOnly {
			return nil, failure(Unimplemented, "model '%s' answers a request with any number of responses: use Stream", answer.Model)
		}
		return answer, nil
	}
	return nil, failure(Internal, "the server answered with %T, not with a response", answer)
}

// question asks something that is no request and awaits an answer of one kind.
func question[A any](ctx context.Context, f *framesTransport, write func(exchange uint64) (net.Buffers, error)) (A, error) {
	answer, err := f.ask(ctx, asking{write: write})
	wanted, is := answer.(A)
	if err == nil && !is {
		err = failure(Internal, "the server answered with %T, not with %T", answer, wanted)
	}
	return wanted, received(err)
}

func (f *framesTransport) live(ctx context.Context) (bool, error) {
	_, err := f.serverInfo(ctx)
	return err == nil, err
}

func (f *framesTransport) ready(ctx context.Context, model, version string) (bool, error) {
	answer, err := question[ready](ctx, f, func(exchange uint64) (net.Buffers, error) {
		return encodeReadyRequest(model, version, exchange)
	})
	if errors.Is(err, Unavailable) {
		return false, nil
	}
	return answer.is, err
}

func (f *framesTransport) serverInfo(ctx context.Context) (*ServerInfo, error) {
	return question[*ServerInfo](ctx, f, encodeServerInfoRequest)
}

func (f *framesTransport) metadata(ctx context.Context, model, version string) (*ModelMetadata, error) {
	return question[*ModelMetadata](ctx, f, func(exchange uint64) (net.Buffers, error) {
		return encodeMetadataRequest(model, version, exchange)
	})
}
