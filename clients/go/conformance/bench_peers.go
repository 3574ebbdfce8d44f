package main

// The other contenders of the benchmark.

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	kingpole "github.com/kingpole/kingpole/clients/go"
	"github.com/kingpole/kingpole/clients/go/conformance/stubs"
)

const mostBytes = 1 << 30

// stubClient is the plain generated code.
type stubClient struct {
	channel *grpc.ClientConn
	client  stubs.GRPCInferenceServiceClient
}

func dialPlain(url string, choices ...grpc.CallOption) (*grpc.ClientConn, error) {
	choices = append(choices, grpc.MaxCallRecvMsgSize(mostBytes), grpc.MaxCallSendMsgSize(mostBytes))
	return grpc.NewClient("passthrough:///"+authorityOf(url),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(choices...))
}

func newStubs(url string) (*stubClient, error) {
	channel, err := dialPlain(url)
	if err != nil {
		return nil, err
	}
	return &stubClient{channel, stubs.NewGRPCInferenceServiceClient(channel)}, nil
}

func (s *stubClient) close() { _ = s.channel.Close() }

func (s *stubClient) infer(ctx context.Context, values int, data []byte) error {
	response, err := s.client.ModelInfer(ctx, &stubs.ModelInferRequest{
		ModelName: "echo-fp32",
		Inputs: []*stubs.ModelInferRequest_InferInputTensor{
			{Name: "x", Datatype: "FP32", Shape: []int64{1, int64(values)}},
		},
		RawInputContents: [][]byte{data},
	})
	if err == nil && len(response.RawOutputContents[0]) != len(data) {
		err = fmt.Errorf("got %d bytes", len(response.RawOutputContents[0]))
	}
	return err
}

// floor sends a frame made in advance, and looks at nothing that comes.
type floor struct {
	call  func(ctx context.Context) error
	close func()
}

// rawCodec passes bytes on.
type rawCodec struct{}

func (rawCodec) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(message.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, into any) error {
	*into.(*int) = data.Len()
	return nil
}

func (rawCodec) Name() string { return "raw" }

func newFloor(url string, request *kingpole.Request) (*floor, error) {
	buffers, err := request.Frame(1)
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	if _, err := buffers.WriteTo(&body); err != nil {
		return nil, err
	}
	if strings.HasPrefix(url, "http://") {
		return httpFloor(url, body.Bytes()), nil
	}
	return grpcFloor(url, body.Bytes())
}

func httpFloor(url string, body []byte) *floor {
	client := &http.Client{}
	return &floor{
		call: func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(url, "/")+"/v1/infer", bytes.NewReader(body))
			if err != nil {
				return err
			}
			request.Header.Set("Content-Type", "application/x-kingpole")
			answer, err := client.Do(request)
			if err != nil {
				return err
			}
			nbytes, err := io.Copy(io.Discard, answer.Body)
			return first(err, answer.Body.Close(), demand(nbytes >= int64(len(body))/2 && answer.StatusCode == http.StatusOK,
				"status %d, %d bytes", answer.StatusCode, nbytes))
		},
		close: client.CloseIdleConnections,
	}
}

func grpcFloor(url string, body []byte) (*floor, error) {
	channel, err := dialPlain(url, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return nil, err
	}
	return &floor{
		call: func(ctx context.Context) error {
			nbytes := 0
			err := channel.Invoke(ctx, "/kingpole.v1.Inference/Infer", body, &nbytes)
			return first(err, demand(nbytes >= len(body)/2, "got %d bytes", nbytes))
		},
		close: func() { _ = channel.Close() },
	}, nil
}
