package kingpole

// One stream of frames with many exchanges in flight, whatever carries it. Knows neither gRPC nor sockets.

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// grace is how long the server's own word on a timeout, which says more, gets to arrive before the client gives up by itself.
const grace = 250 * time.Millisecond

// link carries frames. send is called by one goroutine at a time, receive by one.
type link interface {
	// send sends one frame. After an error part of it may be out: the stream is of no more use.
	send(ctx context.Context, buffers net.Buffers) error
	// receive gives each frame that comes to take, until the stream ends or take fails; it says why.
	receive(take func(*frame) error) error
	close()
}

// asking is what a transport is asked to carry: a question, or a request if `request` is set.
type asking struct {
	write   func(exchange uint64) (net.Buffers, error)
	request *prepared
}

type pipeline struct {
	link      link
	exchanges *exchanges
	sending   chan struct{}
	memory    atomic.Pointer[arena]
}

func newPipeline(link link) *pipeline {
	p := &pipeline{link: link, exchanges: newExchanges(), sending: make(chan struct{}, 1)}
	go p.receive()
	return p
}

func (p *pipeline) receive() {
	err := p.link.receive(func(frame *frame) error {
		unwanted, err := p.exchanges.receive(frame)
		if err == nil && unwanted != 0 {
			p.cancel(unwanted)
		}
		return err
	})
	p.fail(received(err))
}

// fail ends the stream and everything that waits on it.
func (p *pipeline) fail(err error) {
	p.exchanges.fail(err)
	p.link.close()
	if memory := p.memory.Load(); memory != nil {
		memory.abandon()
	}
}

// ask sends and waits for the answer.
func (p *pipeline) ask(ctx context.Context, what asking) (any, error) {
	begun, err := p.exchanges.begin(ctx, what.request != nil)
	if err != nil {
		return nil, err
	}
	buffers, err := p.write(begun.number, what)
	if err != nil {
		p.exchanges.withdraw(begun.number)
		return nil, err
	}
	select {
	case p.sending <- struct{}{}:
	case <-ctx.Done():
		p.exchanges.withdraw(begun.number)
		return nil, errorOfContext(ctx)
	}
	err = p.link.send(ctx, buffers)
	<-p.sending
	if err != nil {
		p.fail(err)
		if ctx.Err() != nil {
			return nil, errorOfContext(ctx)
		}
		// The reader may know better why the stream ended.
		got := <-begun.answer
		return got.answer, got.err
	}
	select {
	case got := <-begun.answer:
		return got.answer, got.err
	case <-ctx.Done():
		if p.exchanges.giveUp(begun.number) {
			// Not here: the caller has waited long enough.
			go p.cancel(begun.number)
			return nil, errorOfContext(ctx)
		}
		got := <-begun.answer
		return got.answer, got.err
	}
}

func (p *pipeline) write(number uint64, what asking) (net.Buffers, error) {
	if what.request == nil {
		return what.write(number)
	}
	var placed *placement
	if memory := p.memory.Load(); memory != nil {
		placed = memory.placeRequest(what.request.Request)
		if err := p.exchanges.place(number, placed); err != nil {
			placed.release(nil)
			return nil, err
		}
	}
	return what.request.frame(number, placed)
}

func (p *pipeline) cancel(number uint64) {
	ctx, stop := context.WithTimeout(context.Background(), grace)
	defer stop()
	select {
	case p.sending <- struct{}{}:
	case <-p.exchanges.ended:
		return
	}
	err := p.link.send(ctx, encodeCancel(number))
	<-p.sending
	if err != nil {
		p.fail(err)
	}
}

// reconnecting is a pipeline that is opened when first needed and again after it has ended.
type reconnecting struct {
	open func(ctx context.Context) (*pipeline, error)

	// mutex is a channel so that waiting for it can be given up.
	mutex    chan struct{}
	current  *pipeline
	isClosed bool
	closing  sync.Once
}

func newReconnecting(open func(ctx context.Context) (*pipeline, error)) *reconnecting {
	return &reconnecting{open: open, mutex: make(chan struct{}, 1)}
}

func (r *reconnecting) connected(ctx context.Context) (*pipeline, error) {
	select {
	case r.mutex <- struct{}{}:
	case <-ctx.Done():
		return nil, errorOfContext(ctx)
	}
	defer func() { <-r.mutex }()
	if r.isClosed {
		return nil, failure(Cancelled, "the client is closed")
	}
	if r.current == nil || r.current.exchanges.failed() {
		opened, err := r.open(ctx)
		if err != nil {
			return nil, err
		}
		r.current = opened
	}
	return r.current, nil
}

func (r *reconnecting) ask(ctx context.Context, what asking) (any, error) {
	connected, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	return connected.ask(ctx, what)
}

// close ends the stream; what waits is answered Cancelled.
func (r *reconnecting) close() {
	r.closing.Do(func() {
		r.mutex <- struct{}{}
		defer func() { <-r.mutex }()
		r.isClosed = true
		if r.current != nil {
			r.current.fail(failure(Cancelled, "the client was closed"))
		}
	})
}
