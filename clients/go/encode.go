package kingpole

// Messages that a client sends, as frames. Knows no transport.
//
// Source: protocol/spec/messages.md

import (
	"net"
	"slices"
	"time"

	flatbuffers "github.com/google/flatbuffers/go"

	fb "github.com/kingpole/kingpole/clients/go/internal/generated/kingpole/frame"
)

const (
	maxTensors    = 1024
	maxParameters = 256
)

// place is a range of an arena.
type place struct{ offset, nbytes uint64 }

// placement says where the tensors of one request are that do not travel: by position of the input or requested output.
type placement struct {
	arena   uint32
	inputs  map[int]place
	outputs []wantedOutput
	keep    []*block
	key     string
	memory  *arena
}

type wantedOutput struct {
	name  string
	block *block
}

// prepared is a request that was checked once, and can be written for any exchange.
type prepared struct {
	*Request
	timeout    time.Duration
	parameters []namedParameter
}

type namedParameter struct {
	name  string
	value any
}

// prepare checks what the server would have to refuse.
func prepare(request *Request, timeout time.Duration) (*prepared, error) {
	if len(request.Inputs) > maxTensors || len(request.Outputs) > maxTensors {
		return nil, failure(ResourceExhausted, "the request has %d inputs and asks for %d outputs, the most is %d",
			len(request.Inputs), len(request.Outputs), maxTensors)
	}
	for _, input := range request.Inputs {
		if err := input.check("input"); err != nil {
			return nil, err
		}
	}
	if len(request.Parameters) > maxParameters {
		return nil, failure(ResourceExhausted, "the request has %d parameters, the most is %d", len(request.Parameters), maxParameters)
	}
	if request.Sequence.Number != 0 && request.Sequence.Text != "" {
		return nil, failure(InvalidArgument, "the sequence has both a number and a text: one of them")
	}
	if timeout < 0 {
		return nil, failure(InvalidArgument, "the timeout is %s, it must not be negative", timeout)
	}
	parameters, err := sortedParameters(request.Parameters)
	return &prepared{request, timeout, parameters}, err
}

func sortedParameters(given map[string]any) ([]namedParameter, error) {
	parameters := make([]namedParameter, 0, len(given))
	for name, value := range given {
		known, err := parameterValue(name, value)
		if err != nil {
			return nil, err
		}
		parameters = append(parameters, namedParameter{name, known})
	}
	slices.SortFunc(parameters, func(a, b namedParameter) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return parameters, nil
}

// parameterValue returns a value as one of bool, int64, uint64, float64, string.
func parameterValue(name string, value any) (any, error) {
	switch value := value.(type) {
	case bool, int64, uint64, float64, string:
		return value, nil
	case int:
		return int64(value), nil
	case int32:
		return int64(value), nil
	case int16:
		return int64(value), nil
	case int8:
		return int64(value), nil
	case uint:
		return uint64(value), nil
	case uint32:
		return uint64(value), nil
	case uint16:
		return uint64(value), nil
	case uint8:
		return uint64(value), nil
	case float32:
		return float64(value), nil
	}
	return nil, failure(InvalidArgument, "parameter '%s': %T is not bool, a number or string", name, value)
}

// frame writes the request; what has a place is not in it.
func (p *prepared) frame(exchange uint64, placed *placement) (net.Buffers, error) {
	builder := flatbuffers.NewBuilder(512)
	var payloads [][]byte
	inputs := make([]flatbuffers.UOffsetT, len(p.Inputs))
	for index, input := range p.Inputs {
		if where, is := placed.input(index); is {
			inputs[index] = writeTensor(builder, input, placed.arena, &where)
			continue
		}
		inputs[index] = writeTensor(builder, input, uint32(len(payloads)), nil)
		payloads = append(payloads, input.Data)
	}
	parameters := make([]flatbuffers.UOffsetT, len(p.parameters))
	for index, parameter := range p.parameters {
		parameters[index] = writeParameter(builder, parameter)
	}
	vectors := [...]flatbuffers.UOffsetT{
		writeOffsets(builder, inputs), writeOffsets(builder, p.writeOutputs(builder, placed)), writeOffsets(builder, parameters),
	}
	texts := [...]flatbuffers.UOffsetT{
		writeText(builder, p.Model), writeText(builder, p.Version), writeText(builder, p.ID), writeText(builder, p.Sequence.Text),
	}
	fb.RequestStart(builder)
	fb.RequestAddModel(builder, texts[0])
	fb.RequestAddVersion(builder, texts[1])
	fb.RequestAddId(builder, texts[2])
	fb.RequestAddSequenceName(builder, texts[3])
	fb.RequestAddInputs(builder, vectors[0])
	fb.RequestAddOutputs(builder, vectors[1])
	fb.RequestAddParameters(builder, vectors[2])
	fb.RequestAddTimeoutUs(builder, microseconds(p.timeout))
	fb.RequestAddPriority(builder, p.Priority)
	fb.RequestAddSequenceId(builder, p.Sequence.Number)
	fb.RequestAddSequenceStart(builder, p.Sequence.Start)
	fb.RequestAddSequenceEnd(builder, p.Sequence.End)
	return finishFrame(builder, fb.MessageRequest, fb.RequestEnd(builder), exchange, payloads)
}

// microseconds rounds up: 0 would be no limit.
func microseconds(timeout time.Duration) uint64 {
	return uint64((timeout + time.Microsecond - 1) / time.Microsecond)
}

func (p *prepared) writeOutputs(builder *flatbuffers.Builder, placed *placement) []flatbuffers.UOffsetT {
	if placed == nil || len(placed.outputs) == 0 {
		outputs := make([]flatbuffers.UOffsetT, len(p.Outputs))
		for index, name := range p.Outputs {
			outputs[index] = writeWanted(builder, wantedOutput{name: name}, 0)
		}
		return outputs
	}
	outputs := make([]flatbuffers.UOffsetT, len(placed.outputs))
	for index, output := range placed.outputs {
		outputs[index] = writeWanted(builder, output, placed.arena)
	}
	return outputs
}

func (p *placement) input(index int) (place, bool) {
	if p == nil {
		return place{}, false
	}
	where, is := p.inputs[index]
	return where, is
}

func encodeCancel(exchange uint64) net.Buffers {
	builder := flatbuffers.NewBuilder(64)
	fb.CancelStart(builder)
	return mustFinish(builder, fb.MessageCancel, fb.CancelEnd(builder), exchange)
}

func encodeHandOver(arena uint32, nbytes, exchange uint64) net.Buffers {
	builder := flatbuffers.NewBuilder(64)
	fb.HandOverStart(builder)
	fb.HandOverAddArena(builder, arena)
	fb.HandOverAddNbytes(builder, nbytes)
	return mustFinish(builder, fb.MessageHandOver, fb.HandOverEnd(builder), exchange)
}

func encodeServerInfoRequest(exchange uint64) (net.Buffers, error) {
	builder := flatbuffers.NewBuilder(64)
	fb.ServerInfoRequestStart(builder)
	return finishFrame(builder, fb.MessageServerInfoRequest, fb.ServerInfoRequestEnd(builder), exchange, nil)
}

func encodeReadyRequest(model, version string, exchange uint64) (net.Buffers, error) {
	builder := flatbuffers.NewBuilder(128)
	modelText, versionText := writeText(builder, model), writeText(builder, version)
	fb.ReadyRequestStart(builder)
	fb.ReadyRequestAddModel(builder, modelText)
	fb.ReadyRequestAddVersion(builder, versionText)
	return finishFrame(builder, fb.MessageReadyRequest, fb.ReadyRequestEnd(builder), exchange, nil)
}

func encodeMetadataRequest(model, version string, exchange uint64) (net.Buffers, error) {
	builder := flatbuffers.NewBuilder(128)
	modelText, versionText := writeText(builder, model), writeText(builder, version)
	fb.MetadataRequestStart(builder)
	fb.MetadataRequestAddModel(builder, modelText)
	fb.MetadataRequestAddVersion(builder, versionText)
	return finishFrame(builder, fb.MessageMetadataRequest, fb.MetadataRequestEnd(builder), exchange, nil)
}

// Frame returns the request as one frame, whose buffers follow each other: for files, and for transports that this package does not
// have. Tensors are not copied.
func (r *Request) Frame(exchange uint64) (net.Buffers, error) {
	known, err := prepare(r, r.Timeout)
	if err != nil {
		return nil, err
	}
	return known.frame(exchange, nil)
}
