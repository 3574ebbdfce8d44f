package kingpole

// Frames one after another on a socket, TCP or Unix. Knows nothing of exchanges.

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

const readBytes = 64 << 10

// dial opens a connection; what fails here was certainly not sent.
func dial(ctx context.Context, where address, trust *tls.Config) (net.Conn, error) {
	network, target := where.network()
	conn, err := new(net.Dialer).DialContext(ctx, network, target)
	if err == nil && where.isSecure() {
		secured := tls.Client(conn, trust)
		if err = secured.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			err = &net.OpError{Op: "TLS handshake (certificate)", Net: network, Err: err}
		}
		conn = secured
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, errorOfContext(ctx)
		}
		return nil, &Error{Code: Unavailable, Message: "cannot connect to " + where.String() + ": " + err.Error(), cause: err, unsent: true}
	}
	return conn, nil
}

// sendAll writes buffers, and stops when the context is done. The deadline is left as it was: none.
func sendAll(ctx context.Context, conn net.Conn, buffers net.Buffers) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) })
	_, err := buffers.WriteTo(conn)
	if !stop() && err == nil {
		// The context ended while the last byte left: later writes may go on.
		err = conn.SetWriteDeadline(time.Time{})
	}
	return err
}

type socketLink struct {
	conn  net.Conn
	where address
	limit int64
}

func (s *socketLink) send(ctx context.Context, buffers net.Buffers) error {
	if err := sendAll(ctx, s.conn, buffers); err != nil {
		return s.broken(err)
	}
	return nil
}

func (s *socketLink) broken(err error) error {
	if errors.Is(err, io.EOF) {
		return failure(Unavailable, "%s closed the connection", s.where)
	}
	return &Error{Code: Unavailable, Message: "the connection to " + s.where.String() + " broke: " + err.Error(), cause: err}
}

func (s *socketLink) receive(take func(*frame) error) error {
	return receiveFrames(s.conn, s.limit, s.broken, take)
}

// receiveFrames reads into place where much is awaited, and by way of a scratch buffer where many short frames may come at once.
func receiveFrames(from io.Reader, limit int64, broken func(error) error, take func(*frame) error) error {
	scratch, assembler := make([]byte, readBytes), newAssembler(limit)
	for {
		space := assembler.space()
		isInPlace := len(space) >= readBytes
		if !isInPlace {
			space = scratch
		}
		nbytes, err := from.Read(space)
		if nbytes > 0 && isInPlace {
			whole, refused := assembler.filled(nbytes)
			if refused == nil && whole != nil {
				refused = take(whole)
			}
			if refused != nil {
				return refused
			}
		} else if refused := assembler.feed(scratch[:nbytes], take); !isInPlace && refused != nil {
			return refused
		}
		if err != nil {
			return broken(err)
		}
	}
}

func (s *socketLink) close() { _ = s.conn.Close() }

// socketTransport is a stream to an address, and for requests with several responses a connection each.
type socketTransport struct {
	*reconnecting
	where  address
	limit  int64
	shared int64
}

func newSocketTransport(where address, limit, shared int64) *socketTransport {
	transport := &socketTransport{where: where, limit: limit, shared: shared}
	transport.reconnecting = newReconnecting(transport.connect)
	return transport
}

func (s *socketTransport) connect(ctx context.Context) (*pipeline, error) {
	conn, err := dial(ctx, s.where, nil)
	if err != nil {
		return nil, err
	}
	opened := newPipeline(&socketLink{conn, s.where, s.limit})
	if s.shared == 0 {
		return opened, nil
	}
	memory, err := newArena(s.shared)
	if err == nil {
		if err = opened.handOver(ctx, conn, memory); err != nil {
			memory.abandon()
		}
	}
	if err != nil {
		opened.fail(failure(Cancelled, "the server did not take the shared memory"))
		return nil, err
	}
	return opened, nil
}

// handOver gives the server the memory, before anything else is asked.
func (p *pipeline) handOver(ctx context.Context, conn net.Conn, memory *arena) error {
	begun, err := p.exchanges.begin(ctx, false)
	if err != nil {
		return err
	}
	message := encodeHandOver(memory.number, uint64(memory.nbytes()), begun.number)
	if err := sendDescriptor(conn, message[0], memory); err != nil {
		return &Error{Code: Unavailable, Message: "the shared memory could not be handed over: " + err.Error(), cause: err, unsent: true}
	}
	select {
	case got := <-begun.answer:
		if _, is := got.answer.(done); got.err == nil && !is {
			return failure(Internal, "the server answered with %T, not that it took the shared memory", got.answer)
		}
		if got.err == nil {
			p.memory.Store(memory)
		}
		return got.err
	case <-ctx.Done():
		return errorOfContext(ctx)
	}
}
