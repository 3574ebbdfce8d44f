package main

// What a request costs this process: the client, plain generated stubs, and the bare transport. Knows no case.

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	kingpole "github.com/kingpole/kingpole/clients/go"
)

const (
	benchBlocks  = 10
	benchTimeout = 10 * time.Minute
)

// benchSizes are numbers of FP32 values, and how many requests of each a block has.
var benchSizes = []struct{ values, requests int }{{4, 200}, {1000, 200}, {250_000, 20}, {2_500_000, 4}}

// contender does one request.
type contender struct {
	name string
	call func(ctx context.Context) error
}

type measured struct {
	cpu   time.Duration
	times []time.Duration
}

type benchLine struct {
	Contender string  `json:"contender"`
	Bytes     int     `json:"bytes"`
	Requests  int     `json:"requests"`
	CPUUS     float64 `json:"cpu_us"`
	P50US     float64 `json:"p50_us"`
	P99US     float64 `json:"p99_us"`
}

func cpuTime() (time.Duration, error) {
	var usage syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), err
}

func bench(url string) error {
	ctx, stop := context.WithTimeout(context.Background(), benchTimeout)
	defer stop()
	client, err := kingpole.Connect(url)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	stubs, err := newStubs(url)
	if err != nil {
		return err
	}
	defer stubs.close()
	for _, size := range benchSizes {
		if err := benchSize(ctx, url, client, stubs, size.values, size.requests); err != nil {
			return fmt.Errorf("%d values: %w", size.values, err)
		}
	}
	return nil
}

func benchSize(ctx context.Context, url string, client *kingpole.Client, stubs *stubClient, values, requests int) error {
	data := counters(make([]byte, 4*values), 0)
	request := &kingpole.Request{
		Model: "echo-fp32", Inputs: []kingpole.Tensor{{Name: "x", Datatype: kingpole.FP32, Shape: []int64{1, int64(values)}, Data: data}},
	}
	floor, err := newFloor(url, request)
	if err != nil {
		return err
	}
	defer floor.close()
	contenders := []contender{
		{"kingpole", func(ctx context.Context) error {
			response, err := client.Infer(ctx, request)
			if err == nil && len(response.Outputs[0].Data) != len(data) {
				err = fmt.Errorf("got %d bytes", len(response.Outputs[0].Data))
			}
			return err
		}},
		{"stubs", func(ctx context.Context) error { return stubs.infer(ctx, values, data) }},
		{"floor", floor.call},
	}
	found := make([]measured, len(contenders))
	// The block before the first is the warm-up.
	for block := range benchBlocks + 1 {
		for index, each := range contenders {
			got, err := measure(ctx, each, requests)
			if err != nil {
				return fmt.Errorf("%s: %w", each.name, err)
			}
			if block > 0 {
				found[index].cpu += got.cpu
				found[index].times = append(found[index].times, got.times...)
			}
		}
	}
	for index, each := range contenders {
		if err := printLine(each.name, len(data), found[index]); err != nil {
			return err
		}
	}
	return nil
}

func measure(ctx context.Context, who contender, requests int) (measured, error) {
	before, err := cpuTime()
	if err != nil {
		return measured{}, err
	}
	got := measured{times: make([]time.Duration, 0, requests)}
	for range requests {
		started := time.Now()
		if err := who.call(ctx); err != nil {
			return got, err
		}
		got.times = append(got.times, time.Since(started))
	}
	after, err := cpuTime()
	got.cpu = after - before
	return got, err
}

func printLine(name string, nbytes int, got measured) error {
	slices.Sort(got.times)
	microseconds := func(duration time.Duration) float64 { return math.Round(float64(duration)/100) / 10 }
	quantile := func(part float64) time.Duration { return got.times[int(part*float64(len(got.times)-1))] }
	return json.NewEncoder(os.Stdout).Encode(benchLine{
		name, nbytes, len(got.times), microseconds(got.cpu / time.Duration(len(got.times))), microseconds(quantile(0.5)), microseconds(quantile(0.99)),
	})
}

func authorityOf(url string) string {
	_, authority, _ := strings.Cut(url, "://")
	return strings.TrimRight(authority, "/")
}
