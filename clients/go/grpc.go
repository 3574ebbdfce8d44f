package kingpole

// Frames over gRPC: `kingpole.v1.Inference/Stream`, whose messages are frames as they are. Knows no message.

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const grpcStream = "/kingpole.v1.Inference/Stream"

var streamDescription = grpc.StreamDesc{StreamName: "Stream", ServerStreams: true, ClientStreams: true}

// identityCodec sends buffers from where they are. What came is copied once, out of gRPC's reused memory.
type identityCodec struct{}

func (identityCodec) Marshal(message any) (mem.BufferSlice, error) {
	buffers, is := message.(net.Buffers)
	if !is {
		return nil, failure(Internal, "%T is no frame", message)
	}
	slices := make(mem.BufferSlice, len(buffers))
	for index, buffer := range buffers {
		slices[index] = mem.SliceBuffer(buffer)
	}
	return slices, nil
}

func (identityCodec) Unmarshal(data mem.BufferSlice, into any) error {
	message, is := into.(*[]byte)
	if !is {
		return failure(Internal, "%T takes no frame", into)
	}
	*message = data.Materialize()
	return nil
}

func (identityCodec) Name() string { return "kingpole-frame" }

type grpcTransport struct {
	*reconnecting
	channel *grpc.ClientConn
	where   address
	token   string
	limit   int64
}

func newGRPCTransport(where address, token string, trust *tls.Config, limit int64) (*grpcTransport, error) {
	security := insecure.NewCredentials()
	if where.isSecure() {
		security = credentials.NewTLS(trust)
	}
	most := int(min(limit+maxHeaderBytes+alignment, 1<<31-1))
	channel, err := grpc.NewClient("passthrough:///"+where.authority(),
		grpc.WithTransportCredentials(security),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(identityCodec{}), grpc.MaxCallRecvMsgSize(most), grpc.MaxCallSendMsgSize(1<<31-1)),
		// A server that comes back is found again within seconds.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, failure(InvalidArgument, "%s: %s", where, err)
	}
	transport := &grpcTransport{channel: channel, where: where, token: token, limit: limit}
	transport.reconnecting = newReconnecting(transport.connect)
	return transport, nil
}

// grpcLink is one bidirectional call.
type grpcLink struct {
	call   grpc.ClientStream
	cancel context.CancelFunc
	where  address
	limit  int64
}

// call opens a call that outlives ctx, which bounds only the opening.
func (g *grpcTransport) call(ctx context.Context) (*grpcLink, error) {
	lasting, cancel := context.WithCancel(context.Background())
	if g.token != "" {
		lasting = metadata.AppendToOutgoingContext(lasting, "authorization", "Bearer "+g.token)
	}
	stop := context.AfterFunc(ctx, cancel)
	call, err := g.channel.NewStream(lasting, &streamDescription, grpcStream)
	if !stop() || err != nil {
		cancel()
		if ctx.Err() != nil {
			return nil, errorOfContext(ctx)
		}
		failed := errorOfRPC(err, g.where)
		failed.unsent = true
		return nil, failed
	}
	return &grpcLink{call, cancel, g.where, g.limit}, nil
}

func (g *grpcTransport) connect(ctx context.Context) (*pipeline, error) {
	link, err := g.call(ctx)
	if err != nil {
		return nil, err
	}
	return newPipeline(link), nil
}

func (g *grpcTransport) close() {
	g.reconnecting.close()
	_ = g.channel.Close()
}

func errorOfRPC(err error, where address) *Error {
	if errors.Is(err, io.EOF) {
		return failure(Unavailable, "%s ended the stream", where)
	}
	said := status.Convert(err)
	failed := errorOfNumber(uint32(said.Code()), said.Message())
	switch failed.Code {
	case Unavailable:
		failed.Message = where.String() + ": " + failed.Message
	case Unimplemented:
		failed.Message += "; " + where.String() + " takes no frames over gRPC: over http this client also speaks Open Inference"
	}
	failed.cause = err
	return failed
}

func (l *grpcLink) send(ctx context.Context, buffers net.Buffers) error {
	stop := context.AfterFunc(ctx, l.cancel)
	defer stop()
	err := l.call.SendMsg(buffers)
	if errors.Is(err, io.EOF) {
		// gRPC says why where it is received.
		return nil
	}
	if err != nil {
		return errorOfRPC(err, l.where)
	}
	return nil
}

func (l *grpcLink) next() (*frame, error) {
	var message []byte
	if err := l.call.RecvMsg(&message); err != nil {
		return nil, errorOfRPC(err, l.where)
	}
	whole, err := splitFrame(message, l.limit)
	return whole, received(err)
}

func (l *grpcLink) receive(take func(*frame) error) error {
	for {
		whole, err := l.next()
		if err == nil {
			err = take(whole)
		}
		if err != nil {
			return err
		}
	}
}

func (l *grpcLink) close() { l.cancel() }

// grpcSource is the answer to one request, on a call of its own.
type grpcSource struct {
	*grpcLink
	ctx  context.Context
	stop func() bool
}

func (g *grpcTransport) stream(ctx context.Context, request *prepared) (source, error) {
	buffers, err := request.frame(1, nil)
	if err != nil {
		return nil, err
	}
	link, err := g.call(ctx)
	if err != nil {
		return nil, err
	}
	opened := &grpcSource{link, ctx, context.AfterFunc(ctx, link.cancel)}
	if err := link.send(ctx, buffers); err != nil {
		opened.end(false)
		return nil, opened.translated(err)
	}
	_ = link.call.CloseSend()
	return opened, nil
}

func (s *grpcSource) translated(err error) error {
	if s.ctx.Err() != nil {
		return errorOfContext(s.ctx)
	}
	return err
}

func (s *grpcSource) next() (*frame, error) {
	whole, err := s.grpcLink.next()
	if err != nil {
		return nil, s.translated(err)
	}
	return whole, nil
}

func (s *grpcSource) end(isEnded bool) {
	s.stop()
	if isEnded {
		// Lets the call end well instead of being reset; a server that goes on is cut off.
		timer := time.AfterFunc(grace, s.cancel)
		var message []byte
		_ = s.call.RecvMsg(&message)
		timer.Stop()
	}
	s.cancel()
}
