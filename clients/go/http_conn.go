package kingpole

// HTTP/1.1 from the client's side on kept-alive connections. Knows no frames.
//
// net/http's transport copies a body through a buffer of 32 KiB; here buffers leave by one writev from where they are, and a body
// of a known length is received into place. Heads and chunks are read by net/http.

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxHeadBytes   = 64 << 10
	mostIdle       = 64
	httpReadBytes  = 16 << 10
	maxErrorBytes  = 8 << 10
	noAnswerLength = "answered with a body of no announced length"
)

var errHeadTooLong = errors.New("the answer's headers are longer than 64 KiB")

// httpConn is one connection; one request at a time.
type httpConn struct {
	net.Conn
	reader   *bufio.Reader
	headLeft int64
}

func (c *httpConn) Read(into []byte) (int, error) {
	if c.headLeft <= 0 {
		return 0, errHeadTooLong
	}
	nbytes, err := c.Conn.Read(into[:min(int64(len(into)), c.headLeft)])
	c.headLeft -= int64(nbytes)
	return nbytes, err
}

// httpAnswer is the head of an answer, and its body as it comes. `end` must be called.
type httpAnswer struct {
	status int
	header http.Header
	length int64
	body   io.ReadCloser

	pool    *httpPool
	conn    *httpConn
	ctx     context.Context
	stop    func() bool
	isClose bool
}

// httpPool keeps connections for reuse, shared between goroutines.
type httpPool struct {
	where address
	token string
	trust *tls.Config
	limit int64

	mutex    sync.Mutex
	idle     []*httpConn
	isClosed bool
	closing  context.Context
	close    context.CancelCauseFunc
}

func newHTTPPool(where address, token string, trust *tls.Config, limit int64) *httpPool {
	closing, end := context.WithCancelCause(context.Background())
	return &httpPool{where: where, token: token, trust: trust, limit: limit, closing: closing, close: end}
}

func (p *httpPool) connection(ctx context.Context) (*httpConn, error) {
	for {
		p.mutex.Lock()
		if p.isClosed {
			p.mutex.Unlock()
			return nil, failure(Cancelled, "the client is closed")
		}
		count := len(p.idle)
		if count == 0 {
			p.mutex.Unlock()
			break
		}
		conn := p.idle[count-1]
		p.idle = p.idle[:count-1]
		p.mutex.Unlock()
		if isAlive(conn.Conn) {
			return conn, nil
		}
		_ = conn.Close()
	}
	opened, err := dial(ctx, p.where, p.trust)
	if err != nil {
		return nil, err
	}
	conn := &httpConn{Conn: opened}
	conn.reader = bufio.NewReaderSize(conn, httpReadBytes)
	return conn, nil
}

func (p *httpPool) giveBack(conn *httpConn) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.isClosed || len(p.idle) >= mostIdle {
		_ = conn.Close()
		return
	}
	p.idle = append(p.idle, conn)
}

// shut closes every connection; what waits is answered Cancelled.
func (p *httpPool) shut() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.isClosed = true
	p.close(failure(Cancelled, "the client was closed"))
	for _, conn := range p.idle {
		_ = conn.Close()
	}
	p.idle = nil
}

func (p *httpPool) head(method, path string, headers map[string]string, bodyBytes int64) []byte {
	var head strings.Builder
	head.WriteString(method + " " + p.where.prefix + path + " HTTP/1.1\r\nHost: " + p.where.authority() + "\r\n")
	if p.token != "" {
		head.WriteString("Authorization: Bearer " + p.token + "\r\n")
	}
	for name, value := range headers {
		head.WriteString(name + ": " + value + "\r\n")
	}
	if method != http.MethodGet {
		head.WriteString("Content-Length: " + strconv.FormatInt(bodyBytes, 10) + "\r\n")
	}
	head.WriteString("\r\n")
	return []byte(head.String())
}

// begin sends one request and receives the head of its answer.
func (p *httpPool) begin(ctx context.Context, method, path string, headers map[string]string, body net.Buffers) (*httpAnswer, error) {
	conn, err := p.connection(ctx)
	if err != nil {
		return nil, err
	}
	var bodyBytes int64
	for _, buffer := range body {
		bodyBytes += int64(len(buffer))
	}
	interrupt := func() { _ = conn.SetDeadline(time.Unix(1, 0)) }
	stopCaller, stopPool := context.AfterFunc(ctx, interrupt), context.AfterFunc(p.closing, interrupt)
	answer := &httpAnswer{pool: p, conn: conn, ctx: ctx, stop: func() bool {
		caller, pool := stopCaller(), stopPool()
		return caller && pool
	}}
	buffers := append(net.Buffers{p.head(method, path, headers, bodyBytes)}, body...)
	_, sendErr := buffers.WriteTo(conn.Conn)
	// A server that refuses a body answers and closes before it has read all of it: its word counts.
	if err := answer.readHead(); err != nil {
		_ = conn.Close()
		answer.stop()
		if sendErr != nil && !errors.Is(err, errHeadTooLong) {
			err = sendErr
		}
		return nil, answer.translated(err)
	}
	answer.isClose = answer.isClose || sendErr != nil
	return answer, nil
}

func (a *httpAnswer) readHead() error {
	a.conn.headLeft = maxHeadBytes
	for {
		response, err := http.ReadResponse(a.conn.reader, nil)
		if err != nil {
			return err
		}
		if response.StatusCode >= 100 && response.StatusCode < 200 {
			continue
		}
		a.status, a.header, a.length, a.body = response.StatusCode, response.Header, response.ContentLength, response.Body
		a.isClose, a.conn.headLeft = response.Close, math.MaxInt64
		return nil
	}
}

// translated makes the client's error of a connection's.
func (a *httpAnswer) translated(err error) error {
	if a.pool.closing.Err() != nil {
		return errorOfContext(a.pool.closing)
	}
	if a.ctx.Err() != nil {
		return errorOfContext(a.ctx)
	}
	var known *Error
	var network net.Error
	switch {
	case errors.As(err, &known):
		return received(err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{Code: Unavailable, Message: a.pool.where.String() + " closed the connection before it had answered", cause: err}
	case errors.As(err, &network), errors.Is(err, net.ErrClosed):
		return &Error{Code: Unavailable, Message: "the connection to " + a.pool.where.String() + " broke: " + err.Error(), cause: err}
	}
	return &Error{Code: Internal, Message: "the answer of " + a.pool.where.String() + " is no HTTP: " + err.Error(), cause: err}
}

// whole receives the body, into place if its length is known.
func (a *httpAnswer) whole(limit int64) ([]byte, error) {
	body, err := a.readBody(limit)
	if err != nil {
		a.end(false)
		return nil, a.translated(err)
	}
	a.end(true)
	return body, nil
}

func (a *httpAnswer) readBody(limit int64) ([]byte, error) {
	tooLong := failure(ResourceExhausted, "the answer has more than the %d bytes that this client takes", limit)
	if a.length > limit {
		return nil, tooLong
	}
	if a.length < 0 {
		if a.isClose {
			return nil, failure(Internal, "%s %s", a.pool.where, noAnswerLength)
		}
		body, err := io.ReadAll(io.LimitReader(a.body, limit+1))
		if err == nil && int64(len(body)) > limit {
			err = tooLong
		}
		return body, err
	}
	body := make([]byte, min(a.length, firstPayloadBytes))
	if _, err := io.ReadFull(a.body, body); err != nil || int64(len(body)) == a.length {
		return body, err
	}
	// The first part has come: the server means it.
	whole := make([]byte, a.length)
	_, err := io.ReadFull(a.body, whole[copy(whole, body):])
	return whole, err
}

// end gives the connection back if its answer was read to the end, else closes it, which cancels the request.
func (a *httpAnswer) end(isRead bool) {
	// After an interruption the deadline stands: such a connection is not used again.
	isWhole := a.stop() && isRead && !a.isClose
	if isWhole && a.conn.reader.Buffered() == 0 {
		a.pool.giveBack(a.conn)
		return
	}
	_ = a.conn.Close()
}
