package main

// Cases about what is asked and answered: values, names, errors. Knows no time and no faulty transport.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"time"

	kingpole "github.com/kingpole/kingpole/clients/go"
)

var (
	numbers      = []float32{0, 1, 2, 3, 4, 5}
	x            = kingpole.NewTensor("x", numbers, 2, 3)
	negativeZero = math.Copysign(0, -1)
)

func demand(is bool, format string, arguments ...any) error {
	if is {
		return nil
	}
	return fmt.Errorf(format, arguments...)
}

// refused demands an error of a code, whose text contains a part; it returns the text.
func refused(err error, code kingpole.Code, part string) (string, error) {
	var failed *kingpole.Error
	if !errors.As(err, &failed) || failed.Code != code {
		return "", fmt.Errorf("expected %s, got %v", code, err)
	}
	return failed.Message, demand(strings.Contains(failed.Message, part), "the text of %s has no %q: %s", code, part, failed.Message)
}

func ask(ctx context.Context, client *kingpole.Client, model string, inputs ...kingpole.Tensor) (*kingpole.Response, error) {
	return client.Infer(ctx, &kingpole.Request{Model: model, Inputs: inputs})
}

func echoes(ctx context.Context, client *kingpole.Client) error {
	return echoesTensor(ctx, client, "echo-fp32", x)
}

func echoesTensor(ctx context.Context, client *kingpole.Client, model string, sent kingpole.Tensor) error {
	response, err := ask(ctx, client, model, sent)
	if err != nil {
		return fmt.Errorf("%s %v: %w", model, sent.Shape, err)
	}
	if len(response.Outputs) != 1 {
		return fmt.Errorf("%s gave %d outputs", model, len(response.Outputs))
	}
	found := response.Outputs[0]
	isSame := found.Name == sent.Name && found.Datatype == sent.Datatype && len(found.Shape) == len(sent.Shape) &&
		fmt.Sprint(found.Shape) == fmt.Sprint(sent.Shape) && bytes.Equal(found.Data, sent.Data)
	return demand(isSame, "%s: expected %s %v %x, got %s %s %v %x",
		model, sent.Datatype, sent.Shape, sent.Data, found.Name, found.Datatype, found.Shape, found.Data)
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func server(ctx context.Context, client *kingpole.Client, _ string) error {
	isLive, liveErr := client.Live(ctx)
	isReady, readyErr := client.Ready(ctx)
	isModelReady, modelErr := client.ModelReady(ctx, "echo-fp32", "")
	info, infoErr := client.ServerInfo(ctx)
	if err := first(liveErr, readyErr, modelErr, infoErr); err != nil {
		return err
	}
	return first(
		demand(isLive, "Live is not true"), demand(isReady, "Ready is not true"), demand(isModelReady, "ModelReady(echo-fp32) is not true"),
		notReady(ctx, client),
		demand(info.Name == "kingpole" && info.Version != "", "the server is %+v", info),
		demand(len(info.Extensions) > 0, "the server has no extensions"),
		described(ctx, client))
}

func notReady(ctx context.Context, client *kingpole.Client) error {
	isReady, err := client.ModelReady(ctx, "absent", "")
	if err != nil {
		_, err = refused(err, kingpole.NotFound, "absent")
		return err
	}
	return demand(!isReady, "ModelReady(absent) is true")
}

func described(ctx context.Context, client *kingpole.Client) error {
	found, err := client.Metadata(ctx, "echo-fp32", "")
	if err != nil {
		return err
	}
	spec := []kingpole.TensorSpec{{Name: "x", Datatype: kingpole.FP32, Shape: []int64{-1, -1}}}
	isRight := found.Name == "echo-fp32" && reflect.DeepEqual(found.Versions, []string{"1"}) &&
		reflect.DeepEqual(found.Inputs, spec) && reflect.DeepEqual(found.Outputs, spec)
	_, err = client.Metadata(ctx, "absent", "")
	_, err = refused(err, kingpole.NotFound, "absent")
	return first(demand(isRight, "metadata(echo-fp32) is %+v", found), err)
}

func tensors() map[string]kingpole.Tensor {
	nan, infinity := math.NaN(), math.Inf(1)
	return map[string]kingpole.Tensor{
		"bool":   kingpole.NewTensor("x", []bool{true, false, true, false, false, true}, 2, 3),
		"uint8":  kingpole.NewTensor("x", []uint8{0, math.MaxUint8, 1, 2, 3, 4}, 2, 3),
		"uint16": kingpole.NewTensor("x", []uint16{0, math.MaxUint16, 1, 2, 3, 4}, 2, 3),
		"uint32": kingpole.NewTensor("x", []uint32{0, math.MaxUint32, 1, 2, 3, 4}, 2, 3),
		"uint64": kingpole.NewTensor("x", []uint64{0, math.MaxUint64, 1, 2, 3, 4}, 2, 3),
		"int8":   kingpole.NewTensor("x", []int8{math.MinInt8, math.MaxInt8, 0, -1, 1, 2}, 2, 3),
		"int16":  kingpole.NewTensor("x", []int16{math.MinInt16, math.MaxInt16, 0, -1, 1, 2}, 2, 3),
		"int32":  kingpole.NewTensor("x", []int32{math.MinInt32, math.MaxInt32, 0, -1, 1, 2}, 2, 3),
		"int64":  kingpole.NewTensor("x", []int64{math.MinInt64, math.MaxInt64, 0, -1, 1, 2}, 2, 3),
		// The least and greatest, a NaN, infinities and -0, as bits.
		"fp16": kingpole.NewTensor("x", []kingpole.Float16{0xFBFF, 0x7BFF, 0x7E00, 0x7C00, 0xFC00, 0x8000}, 2, 3),
		"bf16": kingpole.NewTensor("x", []kingpole.BFloat16{0xFF7F, 0x7F7F, 0x7FC0, 0x7F80, 0xFF80, 0x8000}, 2, 3),
		"fp32": kingpole.NewTensor("x", []float32{
			-math.MaxFloat32, math.MaxFloat32, float32(nan), float32(infinity), float32(-infinity), float32(negativeZero)}, 2, 3),
		"fp64":  kingpole.NewTensor("x", []float64{-math.MaxFloat64, math.MaxFloat64, nan, infinity, -infinity, negativeZero}, 2, 3),
		"bytes": kingpole.NewBytes("x", []string{"", "Grüße", "\xff\xfe\x00", "a", strings.Repeat("\x00", 9), strings.Repeat("z", 300)}, 2, 3),
	}
}

func datatypes(ctx context.Context, client *kingpole.Client, _ string) error {
	for name, sent := range tensors() {
		if err := echoesTensor(ctx, client, "echo-"+name, sent); err != nil {
			return err
		}
	}
	return nil
}

func shapes(ctx context.Context, client *kingpole.Client, _ string) error {
	none := []float32{}
	many := make([]float32, 16)
	for index := range many {
		many[index] = float32(index)
	}
	return first(
		echoesTensor(ctx, client, "scalar", kingpole.Scalar("x", float32(1.5))),
		echoesTensor(ctx, client, "echo-fp32", kingpole.NewTensor("x", none, 0, 3)),
		echoesTensor(ctx, client, "echo-fp32", kingpole.NewTensor("x", numbers[1:2], 1, 1)),
		echoesTensor(ctx, client, "echo-fp32", kingpole.NewTensor("x", none, 3, 0)),
		echoesTensor(ctx, client, "rank8", kingpole.NewTensor("x", many, 1, 2, 1, 2, 1, 2, 1, 2)),
		echoesTensor(ctx, client, "echo-bytes", kingpole.NewBytes("x", []string{}, 0, 2)))
}

func said(response *kingpole.Response) (map[string]any, error) {
	output, err := response.Output("text")
	if err != nil {
		return nil, err
	}
	texts, err := output.Strings()
	if err != nil || len(texts) != 1 {
		return nil, fmt.Errorf("text has %d elements: %v", len(texts), err)
	}
	found := map[string]any{}
	decoder := json.NewDecoder(strings.NewReader(texts[0]))
	decoder.UseNumber()
	return found, decoder.Decode(&found)
}

func parameters(ctx context.Context, client *kingpole.Client, _ string) error {
	given := map[string]any{"flag": true, "negative": -7, "big": uint64(1<<63 + 1), "fraction": 0.25, "text": "ünï"}
	request := kingpole.Request{Model: "describe", Version: "1", ID: "id-7", Inputs: []kingpole.Tensor{x}, Parameters: given}
	response, err := client.Infer(ctx, &request)
	if err != nil {
		return err
	}
	found, err := said(response)
	expected := map[string]any{
		"flag": true, "negative": json.Number("-7"), "big": json.Number("9223372036854775809"), "fraction": json.Number("0.25"), "text": "ünï",
	}
	named := response.ID + " " + response.Version + " " + response.Model
	if err := first(err, demand(reflect.DeepEqual(found, expected), "expected the parameters %v, got %v", expected, found),
		demand(named == "id-7 1 describe", "expected id-7, version 1, describe; got %s", named)); err != nil {
		return err
	}
	for _, wanted := range [][]string{{"b"}, {"b", "a"}} {
		if err := twice(ctx, client, wanted); err != nil {
			return err
		}
	}
	_, err = client.Infer(ctx, &kingpole.Request{Model: "describe", Version: "9", Inputs: []kingpole.Tensor{x}})
	_, err = refused(err, kingpole.NotFound, "9")
	return err
}

func twice(ctx context.Context, client *kingpole.Client, wanted []string) error {
	response, err := client.Infer(ctx, &kingpole.Request{Model: "twice", Inputs: []kingpole.Tensor{x}, Outputs: wanted})
	if err != nil {
		return err
	}
	var names []string
	for _, output := range response.Outputs {
		names = append(names, output.Name)
		values, err := kingpole.Values[float32](output)
		if err != nil {
			return err
		}
		factor := map[string]float32{"a": 1, "b": 2}[output.Name]
		for index, value := range values {
			if value != numbers[index]*factor {
				return fmt.Errorf("output %s of twice is %v", output.Name, values)
			}
		}
	}
	return demand(reflect.DeepEqual(names, wanted), "asked for %v, got %v", wanted, names)
}

func wrongRequests(ctx context.Context, client *kingpole.Client) error {
	zebra := x
	zebra.Name = "zebra"
	wrong := []struct {
		model  string
		inputs []kingpole.Tensor
		code   kingpole.Code
		part   string
	}{
		{"absent", []kingpole.Tensor{x}, kingpole.NotFound, "absent"},
		{"echo-fp32", []kingpole.Tensor{kingpole.NewTensor("x", []int64{1, 2}, 1, 2)}, kingpole.InvalidArgument, "x"},
		{"echo-fp32", []kingpole.Tensor{kingpole.NewTensor("x", numbers)}, kingpole.InvalidArgument, "x"},
		{"echo-fp32", []kingpole.Tensor{x, zebra}, kingpole.InvalidArgument, "zebra"},
		{"echo-fp32", nil, kingpole.InvalidArgument, "x"},
	}
	for _, each := range wrong {
		_, err := ask(ctx, client, each.model, each.inputs...)
		if _, err = refused(err, each.code, each.part); err != nil {
			return err
		}
	}
	return nil
}

func errorCodes(ctx context.Context, client *kingpole.Client, _ string) error {
	if err := wrongRequests(ctx, client); err != nil {
		return err
	}
	raised := []kingpole.Code{
		kingpole.InvalidArgument, kingpole.NotFound, kingpole.ResourceExhausted, kingpole.FailedPrecondition, kingpole.Unavailable,
		kingpole.Internal,
	}
	for _, code := range raised {
		text := "it failed with " + code.String() + ": ünï"
		_, err := client.Infer(ctx, &kingpole.Request{
			Model: "fails", Inputs: []kingpole.Tensor{x}, Parameters: map[string]any{"code": code.String(), "text": text},
		})
		found, err := refused(err, code, "")
		if err := first(err, demand(found == text, "expected the text %q, got %q", text, found)); err != nil {
			return err
		}
	}
	return echoes(ctx, client)
}

func openInference(ctx context.Context, client *kingpole.Client, _ string) error {
	if err := first(datatypes(ctx, client, ""), shapes(ctx, client, "")); err != nil {
		return err
	}
	isReady, err := client.ModelReady(ctx, "echo-fp32", "")
	return first(err, demand(isReady, "ModelReady(echo-fp32) is not true"), notReady(ctx, client), described(ctx, client),
		wrongRequests(ctx, client))
}

func token(ctx context.Context, url, _ string) error {
	client, err := kingpole.Connect(url, kingpole.WithToken("abc"))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	response, err := ask(ctx, client, "describe", x)
	if err != nil {
		return err
	}
	found, err := said(response)
	return first(err, demand(found["authorization"] == "Bearer abc", "expected authorization \"Bearer abc\", got %v", found))
}

func tls(ctx context.Context, url, authority string) error {
	pem, err := os.ReadFile(authority)
	if err != nil {
		return err
	}
	trusting, err := kingpole.Connect(url, kingpole.WithRootCertificates(pem))
	if err != nil {
		return err
	}
	defer func() { _ = trusting.Close() }()
	if err := echoes(ctx, trusting); err != nil {
		return err
	}
	other, err := kingpole.Connect(url, kingpole.WithTimeout(20*time.Second))
	if err != nil {
		return err
	}
	defer func() { _ = other.Close() }()
	_, err = ask(ctx, other, "echo-fp32", x)
	_, err = refused(err, kingpole.Unavailable, "certificate")
	return err
}
