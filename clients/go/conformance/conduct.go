package main

// Cases about time, order, amount and faults: deadlines, streams, pipelines, killed and hostile servers.

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	kingpole "github.com/kingpole/kingpole/clients/go"
)

const (
	pipelined         = 10_000
	inFlight          = 64
	largeRows         = 5000
	hostileRequests   = 50
	hostileLimitBytes = 16 << 20
	hostileGrowth     = 64 << 20
	sharedTurns       = 20
)

func sleeps(seconds int, timeout time.Duration) *kingpole.Request {
	return &kingpole.Request{
		Model: "sleeps", Inputs: []kingpole.Tensor{x}, Timeout: timeout, Parameters: map[string]any{"seconds": seconds},
	}
}

func deadline(ctx context.Context, client *kingpole.Client, _ string) error {
	started := time.Now()
	_, err := client.Infer(ctx, sleeps(5, 300*time.Millisecond))
	took := time.Since(started)
	_, err = refused(err, kingpole.DeadlineExceeded, "")
	return first(err, demand(took >= 250*time.Millisecond && took <= 2*time.Second, "DEADLINE_EXCEEDED came after %s", took),
		deadlineOfContext(ctx, client), echoes(ctx, client))
}

// The language's own deadline does the same.
func deadlineOfContext(ctx context.Context, client *kingpole.Client) error {
	started := time.Now()
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	defer stop()
	_, err := client.Infer(short, sleeps(5, 0))
	took := time.Since(started)
	_, err = refused(err, kingpole.DeadlineExceeded, "")
	return first(err, demand(took >= 250*time.Millisecond && took <= 2*time.Second, "the context's deadline took %s", took))
}

func cancel(ctx context.Context, client *kingpole.Client, heard string) error {
	// Connected first: what is given up after 0.2 s has then left.
	if err := echoes(ctx, client); err != nil {
		return err
	}
	given, giveUp := context.WithCancel(ctx)
	time.AfterFunc(200*time.Millisecond, giveUp)
	started := time.Now()
	_, err := client.Infer(given, sleeps(30, 0))
	took := time.Since(started)
	return first(
		demand(errors.Is(err, context.Canceled) && errors.Is(err, kingpole.Cancelled), "given up it ended with %v", err),
		demand(took <= 2200*time.Millisecond, "given up after 0.2 s it ended after %s", took),
		echoes(ctx, client), awaitFile(heard, 5*time.Second))
}

func awaitFile(path string, wait time.Duration) error {
	for end := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s was not written within %s", path, wait)
		}
	}
}

func counting(count int32, parameters map[string]any) *kingpole.Request {
	return &kingpole.Request{Model: "count", Inputs: []kingpole.Tensor{kingpole.NewTensor("count", []int32{count})}, Parameters: parameters}
}

// counted takes responses and says how many came in order, and what ended them. It leaves after `most`.
func counted(ctx context.Context, client *kingpole.Client, request *kingpole.Request, most int) (int, error) {
	count := 0
	for response, err := range client.Stream(ctx, request) {
		if err != nil {
			return count, err
		}
		values, err := kingpole.ValuesOf[int32](response, "value")
		if err != nil || len(values) != 1 || values[0] != int32(count) {
			return count, fmt.Errorf("response %d is %v: %v", count, values, err)
		}
		if count++; count == most {
			break
		}
	}
	return count, nil
}

func stream(ctx context.Context, client *kingpole.Client, mark string) error {
	for _, number := range []int{0, 1, 1000} {
		count, err := counted(ctx, client, counting(int32(number), nil), -1)
		if err := first(err, demand(count == number, "count %d gave %d responses", number, count)); err != nil {
			return err
		}
	}
	count, err := counted(ctx, client, counting(5, map[string]any{"fail_at": 3}), -1)
	if _, err = refused(err, kingpole.Unavailable, "cannot count beyond 3"); err != nil {
		return err
	}
	if err := demand(count == 3, "before the error came %d responses, expected 3", count); err != nil {
		return err
	}
	count, err = counted(ctx, client, counting(1_000_000, map[string]any{"mark": mark}), 2)
	if err := first(err, demand(count == 2, "%d responses came before leaving", count), awaitFile(mark, 10*time.Second)); err != nil {
		return err
	}
	count = 0
	for response, err := range client.Stream(ctx, &kingpole.Request{Model: "echo-fp32", Inputs: []kingpole.Tensor{x}}) {
		if err != nil {
			return err
		}
		if !bytes.Equal(response.Outputs[0].Data, x.Data) {
			return fmt.Errorf("echo-fp32 streamed gave %x", response.Outputs[0].Data)
		}
		count++
	}
	return first(demand(count == 1, "echo-fp32 streamed gave %d responses", count), echoes(ctx, client))
}

func sequence(ctx context.Context, client *kingpole.Client, _ string) error {
	sums := map[string][]float32{}
	for value := 1; value <= 3; value++ {
		for name, place := range map[string]kingpole.Sequence{"number": {Number: 7}, "text": {Text: "seven"}} {
			place.Start, place.End = value == 1, value == 3
			// The text's values are ten times the number's: a sum of both would show.
			own := float32(value)
			if name == "text" {
				own *= 10
			}
			response, err := client.Infer(ctx, &kingpole.Request{
				Model: "sums", Inputs: []kingpole.Tensor{kingpole.NewTensor("x", []float32{own}, 1, 1)}, Sequence: place,
			})
			if err != nil {
				return err
			}
			found, err := kingpole.ValuesOf[float32](response, "sum")
			if err != nil {
				return err
			}
			sums[name] = append(sums[name], found...)
		}
	}
	return demand(fmt.Sprint(sums) == "map[number:[1 3 6] text:[10 30 60]]", "the sums are %v", sums)
}

func pipeline(ctx context.Context, client *kingpole.Client, _ string) error {
	requests := func(yield func(*kingpole.Request) bool) {
		for number := range pipelined {
			own := float32(number)
			input := kingpole.NewTensor("x", []float32{own, own, own, own}, 1, 4)
			if !yield(&kingpole.Request{Model: "echo-fp32", Inputs: []kingpole.Tensor{input}}) {
				return
			}
		}
	}
	number := 0
	for response, err := range client.InferMany(ctx, requests, inFlight) {
		if err != nil {
			return fmt.Errorf("request %d: %w", number, err)
		}
		values, err := kingpole.ValuesOf[float32](response, "x")
		own := float32(number)
		if err != nil || len(values) != 4 || values[0] != own || values[3] != own {
			return fmt.Errorf("request %d was answered with %v: %v", number, values, err)
		}
		number++
	}
	return demand(number == pipelined, "%d of %d requests were answered", number, pipelined)
}

func counters(data []byte, start uint32) []byte {
	for offset := 0; offset < len(data); offset += 4 {
		binary.LittleEndian.PutUint32(data[offset:], start+uint32(offset/4))
	}
	return data
}

func large(ctx context.Context, client *kingpole.Client, _ string) error {
	sent := kingpole.Tensor{
		Name: "x", Datatype: kingpole.FP32, Shape: []int64{largeRows, largeRows}, Data: counters(make([]byte, 4*largeRows*largeRows), 0),
	}
	response, err := ask(ctx, client, "echo-fp32", sent)
	if err != nil {
		return err
	}
	return demand(bytes.Equal(response.Outputs[0].Data, sent.Data), "the bytes are others")
}

func killed(ctx context.Context, client *kingpole.Client, _ string) error {
	if err := echoes(ctx, client); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		_, err := client.Infer(ctx, sleeps(60, 0))
		failed <- err
	}()
	// The request is written at once on a connection that is there; no call tells when.
	time.Sleep(500 * time.Millisecond)
	fmt.Println("waiting")
	started := time.Now()
	_, err := refused(<-failed, kingpole.Unavailable, "")
	if err := first(err, demand(time.Since(started) <= 5*time.Second, "UNAVAILABLE came after %s", time.Since(started))); err != nil {
		return err
	}
	fmt.Println("lost")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		short, stop := context.WithTimeout(ctx, 5*time.Second)
		err := echoes(short, client)
		stop()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

func statusBytes(field string) int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), field+":")
	kibibytes, _ := strconv.Atoi(strings.Fields(rest)[0])
	return kibibytes << 10
}

func hostile(ctx context.Context, url, _ string) error {
	client, err := kingpole.Connect(url, kingpole.WithTimeout(5*time.Second), kingpole.WithMaxFrameBytes(hostileLimitBytes))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	debug.FreeOSMemory()
	before := statusBytes("VmRSS")
	for number := range hostileRequests {
		started := time.Now()
		response, err := ask(ctx, client, "echo-fp32", x)
		took := time.Since(started)
		var failed *kingpole.Error
		if !errors.As(err, &failed) {
			return fmt.Errorf("request %d was answered with %v: %v", number, response, err)
		}
		if took > 10*time.Second {
			return fmt.Errorf("request %d took %s: %w", number, took, err)
		}
		fmt.Printf("%d: %s %.160s\n", number, took.Round(time.Millisecond), err)
	}
	grown := statusBytes("VmHWM") - before
	return demand(grown < hostileGrowth, "the program grew by %d MiB", grown>>20)
}

func sharedMemory(ctx context.Context, url, _ string) error {
	client, err := kingpole.Connect(url, kingpole.WithSharedMemory(128<<20))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	for turn := range sharedTurns {
		if err := sharedTurn(ctx, client, turn); err != nil {
			return fmt.Errorf("turn %d: %w", turn, err)
		}
	}
	return nil
}

func sharedTurn(ctx context.Context, client *kingpole.Client, turn int) error {
	const nbytes = 16 << 20
	data := make([]byte, nbytes)
	// Every other one is made in the memory itself.
	if turn%2 == 1 {
		buffer, err := client.Allocate(ctx, nbytes)
		if err != nil {
			return err
		}
		defer func() { _ = buffer.Close() }()
		data = buffer.Bytes()
	}
	sent := kingpole.Tensor{Name: "x", Datatype: kingpole.FP32, Shape: []int64{2048, 2048}, Data: counters(data, uint32(turn))}
	response, err := ask(ctx, client, "echo-fp32", sent)
	if err != nil {
		return err
	}
	defer response.Release()
	return demand(bytes.Equal(response.Outputs[0].Data, data), "the bytes are others")
}
