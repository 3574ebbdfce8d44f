package kingpole

// Messages that a server sends, from frames. Knows no transport. Every length and index is checked against what was received.
//
// Source: protocol/spec/messages.md

import (
	"time"

	fb "github.com/kingpole/kingpole/clients/go/internal/generated/kingpole/frame"
)

// decodeAnswer reads what a server sent: *Response, *Error, credit, ready, *ServerInfo, *ModelMetadata or done.
// The error is for bytes that say nothing readable.
func decodeAnswer(received *frame, placed *placement) (any, error) {
	var err error
	root := flatRoot(received.header, &err)
	kind, message := fb.Message(root.uint8(slotMessageKind)), root.table(slotMessage)
	if err != nil {
		return nil, err
	}
	if kind == fb.MessageNONE || !message.present() {
		return nil, malformed("the frame has no message")
	}
	answer, refused := decodeMessage(kind, message, received.payloads, placed)
	if err == nil {
		err = refused
	}
	if err != nil {
		// Not `answer`, which may be a nil pointer in an interface that is not nil.
		return nil, err
	}
	return answer, nil
}

func decodeMessage(kind fb.Message, message flatTable, payloads [][]byte, placed *placement) (any, error) {
	switch kind {
	case fb.MessageResponse:
		return decodeResponse(message, payloads, placed)
	case fb.MessageError:
		failed := errorOfNumber(uint32(message.uint8(0)), message.string(1))
		failed.RetryAfter, failed.ID = time.Duration(message.uint32(2))*time.Millisecond, message.string(3)
		return failed, nil
	case fb.MessageCredit:
		return credit{message.uint32(0)}, nil
	case fb.MessageReady:
		return ready{message.uint8(0) != 0}, nil
	case fb.MessageServerInfo:
		return &ServerInfo{message.string(0), message.string(1), message.strings(2), message.uint64(3)}, nil
	case fb.MessageMetadata:
		return decodeMetadata(message)
	case fb.MessageDone:
		return done{}, nil
	}
	return nil, failure(Unimplemented, "the server sent a message of kind %d, which this client does not know", kind)
}

func decodeResponse(table flatTable, payloads [][]byte, placed *placement) (*Response, error) {
	response := &Response{
		Model: table.string(0), Version: table.string(1), ID: table.string(2),
		Timing: Timing{duration(table.uint64(5)), duration(table.uint64(6)), table.uint32(7), table.string(8)},
		stage:  stage(min(table.uint8(9), uint8(stageEnd))),
	}
	var err error
	if response.Parameters, err = decodeParameters(table.tables(4)); err != nil {
		return nil, err
	}
	tensors := table.tables(3)
	if len(tensors) > maxTensors {
		return nil, malformed("the response has %d outputs, the most is %d", len(tensors), maxTensors)
	}
	response.Outputs = make([]Tensor, 0, len(tensors))
	for _, each := range tensors {
		output, kept, err := decodeTensor(each, payloads, placed)
		if err != nil {
			return nil, err
		}
		if kept {
			response.keep = placed
		}
		response.Outputs = append(response.Outputs, output)
	}
	return response, nil
}

func duration(microseconds uint64) time.Duration {
	return time.Duration(min(microseconds, uint64(1<<53))) * time.Microsecond
}

// decodeTensor returns a view of a payload, or of the place where the output was asked for.
func decodeTensor(table flatTable, payloads [][]byte, placed *placement) (output Tensor, isPlaced bool, err error) {
	output = Tensor{Name: table.string(0), Datatype: Datatype(table.uint8(1)), Shape: table.int64s(2)}
	location, index, offset, nbytes := fb.Location(table.uint8(3)), table.uint32(4), table.uint64(5), table.uint64(6)
	if *table.failed != nil {
		return output, false, *table.failed
	}
	if location != fb.LocationINLINE {
		data, found := placed.find(location, index, offset, nbytes)
		if !found {
			return output, false, failure(Unimplemented, "output '%s' is neither in the frame nor where it was asked for", output.Name)
		}
		output.Data = data
		return output, true, received(asMalformed(output.check("output")))
	}
	if uint64(index) >= uint64(len(payloads)) {
		return output, false, malformed("output '%s': payload %d of %d does not exist", output.Name, index, len(payloads))
	}
	payload := payloads[index]
	if size := uint64(len(payload)); offset > size || nbytes > size-offset {
		return output, false, malformed("output '%s': %d bytes at %d pass the end of payload %d, which has %d",
			output.Name, nbytes, offset, index, size)
	}
	output.Data = payload[offset : offset+nbytes : offset+nbytes]
	return output, false, asMalformed(output.check("output"))
}

func asMalformed(err error) error {
	if err == nil {
		return nil
	}
	return malformed("%s", err.(*Error).Message)
}

// find returns the bytes of an output that the server says is in shared memory; false if it was not asked for there.
func (p *placement) find(location fb.Location, arena uint32, offset, nbytes uint64) ([]byte, bool) {
	if p == nil || location != fb.LocationSHARED || arena != p.arena {
		return nil, false
	}
	for _, output := range p.outputs {
		if output.block != nil && output.block.offset == offset && nbytes <= output.block.nbytes {
			return output.block.bytes()[:nbytes:nbytes], true
		}
	}
	return nil, false
}

func decodeParameters(tables []flatTable) (map[string]any, error) {
	if len(tables) > maxParameters {
		return nil, malformed("the response has %d parameters, the most is %d", len(tables), maxParameters)
	}
	parameters := make(map[string]any, len(tables))
	for _, table := range tables {
		var value any
		name := table.string(0)
		switch kind := fb.ParameterKind(table.uint8(1)); kind {
		case fb.ParameterKindBOOL:
			value = table.uint8(2) != 0
		case fb.ParameterKindINT64:
			value = int64(table.uint64(3))
		case fb.ParameterKindUINT64:
			value = table.uint64(4)
		case fb.ParameterKindDOUBLE:
			value = table.float64(5)
		case fb.ParameterKindSTRING:
			value = table.string(6)
		default:
			return nil, malformed("parameter '%s' has no value of a known kind", name)
		}
		if _, twice := parameters[name]; twice {
			return nil, malformed("parameter '%s' is given twice", name)
		}
		parameters[name] = value
	}
	return parameters, nil
}

func decodeMetadata(table flatTable) (*ModelMetadata, error) {
	metadata := &ModelMetadata{
		Name: table.string(0), Versions: table.strings(1), Platform: table.string(2), MaxBatchSize: table.uint32(5),
		Description: table.string(6),
	}
	var err error
	if metadata.Inputs, err = decodeSpecs(table.tables(3)); err == nil {
		metadata.Outputs, err = decodeSpecs(table.tables(4))
	}
	return metadata, err
}

func decodeSpecs(tables []flatTable) ([]TensorSpec, error) {
	specs := make([]TensorSpec, 0, len(tables))
	for _, table := range tables {
		spec := TensorSpec{table.string(0), Datatype(table.uint8(1)), table.int64s(2), table.uint8(3) != 0}
		if !spec.Datatype.known() {
			return nil, malformed("tensor '%s': unknown %s", spec.Name, spec.Datatype)
		}
		specs = append(specs, spec)
	}
	return specs, nil
}
