package kingpole

// The answer to one request on a connection of its own. Closing it cancels the request: so a server reads it.

import (
	"context"
	"time"
)

type socketSource struct {
	link   *socketLink
	ctx    context.Context
	stop   func() bool
	frames chan *frame
	quit   chan struct{}
	failed chan error
}

func (s *socketTransport) stream(ctx context.Context, request *prepared) (source, error) {
	buffers, err := request.frame(1, nil)
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, s.where, nil)
	if err != nil {
		return nil, err
	}
	opened := &socketSource{
		link: &socketLink{conn, s.where, s.limit}, ctx: ctx, frames: make(chan *frame), quit: make(chan struct{}),
		failed: make(chan error, 1),
	}
	if err := opened.link.send(ctx, buffers); err != nil {
		opened.link.close()
		return nil, opened.translated(err)
	}
	opened.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	go opened.receive()
	return opened, nil
}

// receive reads one frame ahead at most of who takes them: what is not read holds up the model.
func (s *socketSource) receive() {
	s.failed <- s.link.receive(func(whole *frame) error {
		select {
		case s.frames <- whole:
			return nil
		case <-s.quit:
			return failure(Cancelled, "nobody reads any more")
		}
	})
}

func (s *socketSource) translated(err error) error {
	if s.ctx.Err() != nil {
		return errorOfContext(s.ctx)
	}
	return received(err)
}

func (s *socketSource) next() (*frame, error) {
	select {
	case whole := <-s.frames:
		return whole, nil
	case err := <-s.failed:
		return nil, s.translated(err)
	}
}

func (s *socketSource) end(bool) {
	s.stop()
	close(s.quit)
	s.link.close()
}
