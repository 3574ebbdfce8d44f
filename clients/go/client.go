package kingpole

// The client: deadlines, retries, and which transport a URL means. Knows no bytes.

import (
	"context"
	"errors"
	"time"
)

const (
	// Asking who is there needs no model and must not wait for ever.
	questionTimeout = 10 * time.Second
	firstRetryDelay = 50 * time.Millisecond
)

// transport is one way to a server.
type transport interface {
	infer(ctx context.Context, request *prepared) (*Response, error)
	stream(ctx context.Context, request *prepared) (source, error)
	live(ctx context.Context) (bool, error)
	ready(ctx context.Context, model, version string) (bool, error)
	serverInfo(ctx context.Context) (*ServerInfo, error)
	metadata(ctx context.Context, model, version string) (*ModelMetadata, error)
	close()
}

func (h *httpTransport) close() { h.pool.shut() }

// Client is a connection to one server, for use from any number of goroutines.
//
// Nothing that may have run is ever sent twice: a request whose connection breaks fails with Unavailable, and it is the caller who
// knows whether to ask again. WithRetries says what may be. The one exception is the first request over HTTP to a server that knows
// no frames: it refused that one unread, and is asked again in Open Inference.
type Client struct {
	where     address
	transport transport
	timeout   time.Duration
	retries   int
	socket    *socketTransport
}

// Connect makes a client for http://host:port, https://, grpc://, grpcs://, frame:// or unix:/path. Connections are opened when
// they are first needed.
func Connect(url string, choices ...Option) (*Client, error) {
	where, err := parseAddress(url)
	if err != nil {
		return nil, err
	}
	chosen := options{maxFrameBytes: defaultMaxFrameBytes}
	for _, choose := range choices {
		if err := choose(&chosen); err != nil {
			return nil, err
		}
	}
	if err := chosen.check(where); err != nil {
		return nil, err
	}
	client := &Client{where: where, timeout: chosen.timeout, retries: chosen.retries}
	switch where.scheme {
	case "http", "https":
		client.transport = &httpTransport{pool: newHTTPPool(where, chosen.token, chosen.security(where), chosen.maxFrameBytes)}
	case "grpc", "grpcs":
		carrier, err := newGRPCTransport(where, chosen.token, chosen.security(where), chosen.maxFrameBytes)
		if err != nil {
			return nil, err
		}
		client.transport = &framesTransport{carrier}
	default:
		client.socket = newSocketTransport(where, chosen.maxFrameBytes, chosen.sharedBytes)
		client.transport = &framesTransport{client.socket}
	}
	return client, nil
}

// String returns the server's address.
func (c *Client) String() string { return c.where.String() }

// Close closes every connection. What waits is answered with Cancelled.
func (c *Client) Close() error {
	c.transport.close()
	return nil
}

// Infer asks a model for an inference and waits for the answer. A model that gives several responses is asked with Stream.
//
// The nearer of the request's timeout and the context's deadline travels with the request. The server answers when it expires; of a
// timeout the client stops waiting a quarter of a second later, of a context at once. Either way the server is told that the answer
// is no longer wanted.
func (c *Client) Infer(ctx context.Context, request *Request) (*Response, error) {
	for attempt := 0; ; attempt++ {
		response, err := c.inferOnce(ctx, request)
		delay, isSafe := retryDelay(err, attempt)
		if err == nil || attempt >= c.retries || !isSafe {
			return response, err
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (c *Client) inferOnce(ctx context.Context, request *Request) (*Response, error) {
	known, ctx, stop, err := c.prepare(ctx, request)
	if err != nil {
		return nil, err
	}
	defer stop()
	return c.transport.infer(ctx, known)
}

// retryDelay says when to ask again what certainly did not run.
func retryDelay(err error, attempt int) (delay time.Duration, isSafe bool) {
	var failed *Error
	if !errors.As(err, &failed) {
		return 0, false
	}
	if failed.Code == ResourceExhausted && failed.RetryAfter > 0 {
		return failed.RetryAfter, true
	}
	return firstRetryDelay << min(attempt, 6), failed.Code == Unavailable && failed.unsent
}

// prepare checks a request, and returns the context that bounds its wait.
func (c *Client) prepare(ctx context.Context, request *Request) (*prepared, context.Context, context.CancelFunc, error) {
	timeout := request.Timeout
	if timeout == 0 {
		timeout = c.timeout
	}
	stop := context.CancelFunc(func() {})
	if timeout > 0 {
		ctx, stop = context.WithTimeout(ctx, timeout+grace)
	}
	if deadline, is := ctx.Deadline(); is {
		left := time.Until(deadline)
		if timeout == 0 || left < timeout {
			timeout = max(left, 1)
		}
	}
	if ctx.Err() != nil {
		stop()
		return nil, nil, nil, errorOfContext(ctx)
	}
	known, err := prepare(request, timeout)
	if err != nil {
		stop()
		return nil, nil, nil, err
	}
	return known, ctx, stop, nil
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, questionTimeout)
}

// Live reports whether the server answers at all.
func (c *Client) Live(ctx context.Context) (bool, error) {
	ctx, stop := bounded(ctx)
	defer stop()
	isLive, err := c.transport.live(ctx)
	if errors.Is(err, Unavailable) {
		return false, nil
	}
	return isLive, err
}

// Ready reports whether the server is ready to infer.
func (c *Client) Ready(ctx context.Context) (bool, error) { return c.ModelReady(ctx, "", "") }

// ModelReady reports whether a model is ready to infer; without a version, the latest. One that is not there is NotFound.
func (c *Client) ModelReady(ctx context.Context, model, version string) (bool, error) {
	ctx, stop := bounded(ctx)
	defer stop()
	return c.transport.ready(ctx, model, version)
}

// ServerInfo returns who the server is.
func (c *Client) ServerInfo(ctx context.Context) (*ServerInfo, error) {
	ctx, stop := bounded(ctx)
	defer stop()
	return c.transport.serverInfo(ctx)
}

// Metadata returns what a model takes and gives; without a version, the latest.
func (c *Client) Metadata(ctx context.Context, model, version string) (*ModelMetadata, error) {
	if model == "" {
		return nil, failure(InvalidArgument, "metadata is of a model: ServerInfo says who the server is")
	}
	ctx, stop := bounded(ctx)
	defer stop()
	return c.transport.metadata(ctx, model, version)
}

// Allocate returns memory that the server sees, of a client made WithSharedMemory. Inputs whose Data is in it are not copied. If the
// connection is replaced it stays usable, and is sent like any other.
func (c *Client) Allocate(ctx context.Context, nbytes int) (*SharedBuffer, error) {
	if c.socket == nil || c.socket.shared == 0 {
		return nil, failure(InvalidArgument, "this client shares no memory: Connect(\"unix:...\", WithSharedMemory(bytes))")
	}
	if nbytes < 0 {
		return nil, failure(InvalidArgument, "%d bytes cannot be allocated", nbytes)
	}
	ctx, stop := bounded(ctx)
	defer stop()
	connected, err := c.socket.connected(ctx)
	if err != nil {
		return nil, err
	}
	memory := connected.memory.Load()
	held := memory.take(uint64(nbytes))
	if held == nil {
		return nil, failure(ResourceExhausted, "no room for %d bytes in %d bytes of shared memory", nbytes, c.socket.shared)
	}
	return &SharedBuffer{held: held}, nil
}
