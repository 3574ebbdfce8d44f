package kingpole

// Where header and payloads lie in a frame, and how pieces of a stream become frames. Knows no socket and no message.
//
// Source: protocol/spec/frame.md

import (
	"encoding/binary"
	"net"
)

const (
	frameMagic       = "KINGPOL"
	frameVersion     = 1
	preludeBytes     = 16
	alignment        = 64
	maxHeaderBytes   = 256 << 10
	maxPayloads      = 1024
	frameMediaType   = "application/x-kingpole"
	streamMediaType  = "application/x-kingpole-stream"
	slotMessageKind  = 0
	slotMessage      = 1
	slotExchange     = 2
	slotPayloadBytes = 3
)

var zeros [alignment]byte

// frame is a received frame: its header, of which each field is checked when it is read, and views of its payloads.
type frame struct {
	header   []byte
	exchange uint64
	payloads [][]byte
}

func paddingAfter(nbytes int) int { return -nbytes & (alignment - 1) }

// joinFrame lays a frame out as buffers to be sent one after another. Payloads are not copied.
func joinFrame(header []byte, payloads [][]byte) (net.Buffers, error) {
	if len(header) > maxHeaderBytes {
		return nil, failure(ResourceExhausted, "the request's header has %d bytes, the most is %d", len(header), maxHeaderBytes)
	}
	if len(payloads) > maxPayloads {
		return nil, failure(ResourceExhausted, "the request has %d tensors, the most is %d", len(payloads), maxPayloads)
	}
	start := make([]byte, 0, preludeBytes+len(header)+alignment)
	start = append(append(start, frameMagic...), frameVersion)
	start = binary.LittleEndian.AppendUint32(start, uint32(len(header)))
	start = binary.LittleEndian.AppendUint32(start, uint32(len(payloads)))
	start = append(start, header...)
	start = append(start, zeros[:paddingAfter(len(start))]...)
	buffers := append(make(net.Buffers, 0, 1+2*len(payloads)), start)
	for _, payload := range payloads {
		if len(payload) > 0 {
			buffers = append(buffers, payload)
			if padding := paddingAfter(len(payload)); padding > 0 {
				buffers = append(buffers, zeros[:padding])
			}
		}
	}
	return buffers, nil
}

func readPrelude(prelude []byte) (headerBytes, payloads int, err error) {
	if string(prelude[:7]) != frameMagic {
		return 0, 0, malformed("the frame begins with %q, not with %q", prelude[:7], frameMagic)
	}
	if prelude[7] != frameVersion {
		return 0, 0, malformed("the frame has version %d, this client knows version %d", prelude[7], frameVersion)
	}
	header, count := binary.LittleEndian.Uint32(prelude[8:]), binary.LittleEndian.Uint32(prelude[12:])
	if header > maxHeaderBytes {
		return 0, 0, failure(ResourceExhausted, "the frame's header says %d bytes, the most is %d", header, maxHeaderBytes)
	}
	if count > maxPayloads {
		return 0, 0, failure(ResourceExhausted, "the frame says %d payloads, the most is %d", count, maxPayloads)
	}
	if header == 0 {
		return 0, 0, malformed("the frame has no header")
	}
	return int(header), int(count), nil
}

// payloadLengths reads what a header says of its payloads, and how many bytes they take with their padding.
func payloadLengths(header []byte, payloads int, limit int64) (exchange uint64, lengths []uint64, total int, err error) {
	root := flatRoot(header, &err)
	exchange, lengths = root.uint64(slotExchange), root.uint64s(slotPayloadBytes)
	if err != nil {
		return 0, nil, 0, err
	}
	if len(lengths) != payloads {
		return 0, nil, 0, malformed("the frame says %d payloads, its header %d", payloads, len(lengths))
	}
	var sum int64
	for _, length := range lengths {
		if length > uint64(limit) || sum > limit {
			return 0, nil, 0, failure(ResourceExhausted, "the frame has more than the %d bytes that this client takes", limit)
		}
		sum += int64(length) + int64(-length&(alignment-1))
	}
	if sum > limit {
		return 0, nil, 0, failure(ResourceExhausted, "the frame has more than the %d bytes that this client takes", limit)
	}
	return exchange, lengths, int(sum), nil
}

func cutPayloads(body []byte, lengths []uint64) [][]byte {
	payloads := make([][]byte, len(lengths))
	for index, length := range lengths {
		end := int(length)
		payloads[index] = body[:end:end]
		body = body[end+paddingAfter(end):]
	}
	return payloads
}

// splitFrame reads bytes that are one whole frame; the payloads are views of them.
func splitFrame(body []byte, limit int64) (*frame, error) {
	if len(body) < preludeBytes {
		return nil, malformed("the frame is cut off after %d bytes", len(body))
	}
	headerBytes, payloads, err := readPrelude(body)
	if err != nil {
		return nil, err
	}
	end := preludeBytes + headerBytes
	if end > len(body) {
		return nil, malformed("the frame is cut off within its header, after %d bytes", len(body))
	}
	header := body[preludeBytes:end]
	exchange, lengths, payloadBytes, err := payloadLengths(header, payloads, limit)
	if err != nil {
		return nil, err
	}
	end += paddingAfter(end)
	if end+payloadBytes != len(body) {
		return nil, malformed("the frame says %d bytes, got %d", end+payloadBytes, len(body))
	}
	return &frame{header, exchange, cutPayloads(body[end:], lengths)}, nil
}
