package main

// Writes what this client makes of the golden vectors' requests.

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	kingpole "github.com/kingpole/kingpole/clients/go"
)

type vector struct {
	Error any
	Value struct {
		Exchange uint64
		Message  struct {
			Request *vectorRequest
			Shared  []any
			Places  []any
		}
	}
}

type vectorRequest struct {
	Model, ID string
	Version   *string
	TimeoutUS *int64 `json:"timeout_us"`
	Priority  uint32
	Inputs    []struct {
		Name, Datatype string
		Shape          []int64
		DataHex        string `json:"data_hex"`
	}
	Outputs    []struct{ Name string }
	Parameters []struct {
		Name, Kind string
		Value      json.RawMessage
	}
	Sequence *struct {
		ID         json.RawMessage
		Start, End bool
	}
}

func encodeVectors(directory, out string) error {
	paths, err := filepath.Glob(filepath.Join(directory, "frame-request-*.json"))
	if err != nil {
		return err
	}
	written := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var read vector
		if err := json.Unmarshal(text, &read); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		message := read.Value.Message
		if read.Error != nil || len(message.Shared)+len(message.Places) > 0 {
			continue
		}
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		if err := encodeVector(message.Request, read.Value.Exchange, filepath.Join(out, name+".bin")); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		written++
	}
	fmt.Println(written, "requests written")
	return nil
}

func encodeVector(said *vectorRequest, exchange uint64, out string) error {
	request, err := requestOf(said)
	if err != nil {
		return err
	}
	buffers, err := request.Frame(exchange)
	if err != nil {
		return err
	}
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	_, err = buffers.WriteTo(file)
	return first(err, file.Close())
}

func requestOf(said *vectorRequest) (*kingpole.Request, error) {
	request := &kingpole.Request{Model: said.Model, ID: said.ID, Priority: said.Priority, Parameters: map[string]any{}}
	if said.Version != nil {
		request.Version = *said.Version
	}
	if said.TimeoutUS != nil {
		request.Timeout = time.Duration(*said.TimeoutUS) * time.Microsecond
	}
	for _, input := range said.Inputs {
		datatype, err := kingpole.DatatypeOf(input.Datatype)
		if err != nil {
			return nil, err
		}
		data, err := hex.DecodeString(input.DataHex)
		if err != nil {
			return nil, err
		}
		request.Inputs = append(request.Inputs, kingpole.Tensor{Name: input.Name, Datatype: datatype, Shape: input.Shape, Data: data})
	}
	for _, output := range said.Outputs {
		request.Outputs = append(request.Outputs, output.Name)
	}
	for _, parameter := range said.Parameters {
		value, err := parameterOf(parameter.Kind, parameter.Value)
		if err != nil {
			return nil, err
		}
		request.Parameters[parameter.Name] = value
	}
	if said.Sequence != nil {
		request.Sequence = kingpole.Sequence{Start: said.Sequence.Start, End: said.Sequence.End}
		// A text, or a number of all 64 bits.
		if json.Unmarshal(said.Sequence.ID, &request.Sequence.Text) != nil {
			if err := json.Unmarshal(said.Sequence.ID, &request.Sequence.Number); err != nil {
				return nil, err
			}
		}
	}
	return request, nil
}

func parameterOf(kind string, text json.RawMessage) (any, error) {
	switch kind {
	case "bool":
		return read[bool](text)
	case "int64":
		return read[int64](text)
	case "uint64":
		return read[uint64](text)
	case "double":
		return read[float64](text)
	case "string":
		return read[string](text)
	}
	return nil, fmt.Errorf("unknown kind %q of a parameter", kind)
}

func read[V any](text json.RawMessage) (any, error) {
	var value V
	err := json.Unmarshal(text, &value)
	return value, err
}
