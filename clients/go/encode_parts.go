package kingpole

// The parts of a header that messages are written from. Knows flatbuffers' builder and no message as a whole.

import (
	"net"

	flatbuffers "github.com/google/flatbuffers/go"

	fb "github.com/kingpole/kingpole/clients/go/internal/generated/kingpole/frame"
)

// writeText returns 0, which adders leave out, for an empty text.
func writeText(builder *flatbuffers.Builder, text string) flatbuffers.UOffsetT {
	if text == "" {
		return 0
	}
	return builder.CreateString(text)
}

func writeOffsets(builder *flatbuffers.Builder, offsets []flatbuffers.UOffsetT) flatbuffers.UOffsetT {
	if len(offsets) == 0 {
		return 0
	}
	return builder.CreateVectorOfTables(offsets)
}

func writeTensor(builder *flatbuffers.Builder, tensor Tensor, payload uint32, where *place) flatbuffers.UOffsetT {
	name := writeText(builder, tensor.Name)
	builder.StartVector(8, len(tensor.Shape), 8)
	for index := len(tensor.Shape) - 1; index >= 0; index-- {
		builder.PrependInt64(tensor.Shape[index])
	}
	shape := builder.EndVector(len(tensor.Shape))
	fb.TensorStart(builder)
	fb.TensorAddName(builder, name)
	fb.TensorAddDatatype(builder, fb.Datatype(tensor.Datatype))
	fb.TensorAddShape(builder, shape)
	fb.TensorAddPayload(builder, payload)
	if where != nil {
		fb.TensorAddLocation(builder, fb.LocationSHARED)
		fb.TensorAddOffset(builder, where.offset)
	}
	fb.TensorAddNbytes(builder, uint64(len(tensor.Data)))
	return fb.TensorEnd(builder)
}

func writeWanted(builder *flatbuffers.Builder, output wantedOutput, arena uint32) flatbuffers.UOffsetT {
	name := writeText(builder, output.name)
	fb.RequestedOutputStart(builder)
	fb.RequestedOutputAddName(builder, name)
	if output.block != nil {
		fb.RequestedOutputAddLocation(builder, fb.LocationSHARED)
		fb.RequestedOutputAddPayload(builder, arena)
		fb.RequestedOutputAddOffset(builder, output.block.offset)
		fb.RequestedOutputAddNbytes(builder, output.block.nbytes)
	}
	return fb.RequestedOutputEnd(builder)
}

func writeParameter(builder *flatbuffers.Builder, parameter namedParameter) flatbuffers.UOffsetT {
	name := writeText(builder, parameter.name)
	var text flatbuffers.UOffsetT
	if value, is := parameter.value.(string); is {
		// An empty text is a value too, unlike an empty name.
		text = builder.CreateString(value)
	}
	fb.ParameterStart(builder)
	fb.ParameterAddName(builder, name)
	switch value := parameter.value.(type) {
	case bool:
		fb.ParameterAddKind(builder, fb.ParameterKindBOOL)
		fb.ParameterAddBoolValue(builder, value)
	case int64:
		fb.ParameterAddKind(builder, fb.ParameterKindINT64)
		fb.ParameterAddInt64Value(builder, value)
	case uint64:
		fb.ParameterAddKind(builder, fb.ParameterKindUINT64)
		fb.ParameterAddUint64Value(builder, value)
	case float64:
		fb.ParameterAddKind(builder, fb.ParameterKindDOUBLE)
		fb.ParameterAddDoubleValue(builder, value)
	case string:
		fb.ParameterAddKind(builder, fb.ParameterKindSTRING)
		fb.ParameterAddStringValue(builder, text)
	}
	return fb.ParameterEnd(builder)
}

func finishFrame(
	builder *flatbuffers.Builder, kind fb.Message, message flatbuffers.UOffsetT, exchange uint64, payloads [][]byte,
) (net.Buffers, error) {
	var lengths flatbuffers.UOffsetT
	if len(payloads) > 0 {
		builder.StartVector(8, len(payloads), 8)
		for index := len(payloads) - 1; index >= 0; index-- {
			builder.PrependUint64(uint64(len(payloads[index])))
		}
		lengths = builder.EndVector(len(payloads))
	}
	fb.HeaderStart(builder)
	fb.HeaderAddMessageType(builder, kind)
	fb.HeaderAddMessage(builder, message)
	fb.HeaderAddExchange(builder, exchange)
	fb.HeaderAddPayloads(builder, lengths)
	builder.Finish(fb.HeaderEnd(builder))
	return joinFrame(builder.FinishedBytes(), payloads)
}

// mustFinish is for messages of a fixed, small size, which no limit refuses.
func mustFinish(builder *flatbuffers.Builder, kind fb.Message, message flatbuffers.UOffsetT, exchange uint64) net.Buffers {
	buffers, _ := finishFrame(builder, kind, message, exchange, nil)
	return buffers
}
