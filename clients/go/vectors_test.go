package kingpole

// Every golden vector of the frame and of HTTP responses. The directory is globbed: a new vector fails until it passes.

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	fb "github.com/kingpole/kingpole/clients/go/internal/generated/kingpole/frame"
)

type vector struct {
	Hex          string
	HeaderLength *int `json:"header_length"`
	Error        *struct{ Code string }
	Value        struct {
		Exchange uint64
		Message  map[string]json.RawMessage
		Response json.RawMessage
	}
	data []byte
}

func readVectors(t *testing.T, pattern string) map[string]vector {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "..", "protocol", "vectors", pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Skip("the vectors are not here: they are in the repository, not in the module")
	}
	vectors := map[string]vector{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var read vector
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatalf("%s: %s", path, err)
		}
		if read.data, err = hex.DecodeString(read.Hex); err != nil {
			t.Fatalf("%s: %s", path, err)
		}
		vectors[strings.TrimSuffix(filepath.Base(path), ".json")] = read
	}
	return vectors
}

func inPieces(data []byte, pieceBytes int) (*frame, error) {
	var frames []*frame
	assembler := newAssembler(defaultMaxFrameBytes)
	for start := 0; start < len(data); start += pieceBytes {
		err := assembler.feed(data[start:min(start+pieceBytes, len(data))], func(whole *frame) error {
			frames = append(frames, whole)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(frames) != 1 || !assembler.idle() {
		return nil, malformed("%d frames, and the frame is cut off", len(frames))
	}
	return frames[0], nil
}

func TestEveryFrameVectorDecodesWholeByteByByteAndInOddPieces(t *testing.T) {
	for name, vector := range readVectors(t, "frame-*.json") {
		for _, pieceBytes := range []int{0, 1, 3, 17, 64, 1000} {
			t.Run(name+"/"+strconv.Itoa(pieceBytes), func(t *testing.T) {
				var whole *frame
				var err error
				if pieceBytes == 0 {
					whole, err = splitFrame(vector.data, defaultMaxFrameBytes)
				} else {
					whole, err = inPieces(vector.data, pieceBytes)
				}
				if vector.Error != nil {
					var failed *Error
					if !errors.As(err, &failed) || failed.Code.String() != vector.Error.Code {
						t.Fatalf("expected %s, got %v", vector.Error.Code, err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				checkFrame(t, vector, whole)
			})
		}
	}
}

func checkFrame(t *testing.T, vector vector, whole *frame) {
	t.Helper()
	if whole.exchange != vector.Value.Exchange {
		t.Errorf("the exchange is %d, expected %d", whole.exchange, vector.Value.Exchange)
	}
	var shared []map[string]any
	expected := map[string]any{}
	for kind, text := range vector.Value.Message {
		switch kind {
		case "shared":
			_ = json.Unmarshal(text, &shared)
		case "places":
		default:
			expected = map[string]any{kind: text}
		}
	}
	found := described(t, whole, placementOf(shared))
	if !reflect.DeepEqual(found, normal(t, expected)) {
		t.Errorf("expected %v\ngot      %v", normal(t, expected), found)
	}
}

// normal drops what a value may or may not say, and writes numbers one way.
func normal(t *testing.T, value any) any {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var again any
	if err := decoder.Decode(&again); err != nil {
		t.Fatal(err)
	}
	return withoutAbsent(again)
}

// withoutAbsent drops what is null, empty or 0: a header does not tell these from what is absent.
func withoutAbsent(value any) any {
	if list, is := value.([]any); is {
		for index := range list {
			list[index] = withoutAbsent(list[index])
		}
	}
	fields, is := value.(map[string]any)
	for name, field := range fields {
		if field == nil || field == "" || field == json.Number("0") {
			delete(fields, name)
		} else {
			fields[name] = withoutAbsent(field)
		}
	}
	if is {
		return fields
	}
	return value
}

func text(value any) string {
	said, _ := value.(string)
	return said
}

func number(value any) uint64 {
	said, _ := value.(json.Number)
	number, _ := strconv.ParseUint(said.String(), 10, 64)
	return number
}

// placementOf makes the arena that a response's shared outputs are in.
func placementOf(shared []map[string]any) *placement {
	if len(shared) == 0 {
		return nil
	}
	held := &arena{memory: make([]byte, 1<<20)}
	placed := &placement{arena: uint32(shared[0]["arena"].(float64)), memory: held}
	for _, each := range shared {
		where := &block{arena: held, offset: uint64(each["offset"].(float64)), nbytes: uint64(each["nbytes"].(float64))}
		placed.outputs = append(placed.outputs, wantedOutput{"x", where})
	}
	return placed
}

// described says what a frame holds, as the vectors do. Messages that only a client sends are read by checked accessors too.
func described(t *testing.T, whole *frame, placed *placement) any {
	t.Helper()
	var failed error
	root := flatRoot(whole.header, &failed)
	kind, message := fb.Message(root.uint8(slotMessageKind)), root.table(slotMessage)
	var found map[string]any
	switch kind {
	case fb.MessageRequest:
		found = map[string]any{"request": describedRequest(t, message, whole.payloads)}
	case fb.MessageCancel:
		found = map[string]any{"cancel": map[string]any{}}
	case fb.MessageServerInfoRequest:
		found = map[string]any{"server_info_request": map[string]any{}}
	case fb.MessageReadyRequest:
		found = map[string]any{"ready_request": map[string]any{"model": message.string(0), "version": message.string(1)}}
	case fb.MessageMetadataRequest:
		found = map[string]any{"metadata_request": map[string]any{"model": message.string(0), "version": message.string(1)}}
	case fb.MessageHandOver:
		found = map[string]any{"hand_over": map[string]any{"arena": message.uint32(0), "nbytes": message.uint64(1)}}
	case fb.MessageRelease:
		found = map[string]any{"release": map[string]any{"arena": message.uint32(0)}}
	default:
		found = describedAnswer(t, whole, placed)
	}
	if failed != nil {
		t.Fatal(failed)
	}
	return normal(t, found)
}

func describedAnswer(t *testing.T, whole *frame, placed *placement) map[string]any {
	t.Helper()
	answer, err := decodeAnswer(whole, placed)
	if err != nil {
		t.Fatal(err)
	}
	switch answer := answer.(type) {
	case *Response:
		return map[string]any{"response": describedResponse(answer, placed != nil)}
	case *Error:
		return map[string]any{"error": map[string]any{
			"code": answer.Code.String(), "message": answer.Message, "retry_after_ms": answer.RetryAfter / time.Millisecond, "id": answer.ID,
		}}
	case credit:
		return map[string]any{"credit": map[string]any{"requests": answer.requests}}
	case ready:
		return map[string]any{"ready": answer.is}
	case done:
		return map[string]any{"done": map[string]any{}}
	case *ServerInfo:
		return map[string]any{"server_info": map[string]any{
			"name": answer.Name, "version": answer.Version, "extensions": answer.Extensions, "max_frame_bytes": answer.MaxFrameBytes,
		}}
	case *ModelMetadata:
		return map[string]any{"metadata": map[string]any{
			"name": answer.Name, "versions": answer.Versions, "platform": answer.Platform, "max_batch_size": answer.MaxBatchSize,
			"description": answer.Description, "inputs": describedSpecs(answer.Inputs), "outputs": describedSpecs(answer.Outputs),
		}}
	}
	t.Fatalf("%T is no answer", answer)
	return nil
}

func describedSpecs(specs []TensorSpec) []any {
	described := []any{}
	for _, spec := range specs {
		described = append(described, map[string]any{
			"name": spec.Name, "datatype": spec.Datatype.String(), "shape": spec.Shape, "optional": spec.Optional,
		})
	}
	return described
}

func describedTensor(tensor Tensor, isElsewhere bool) map[string]any {
	data := hex.EncodeToString(tensor.Data)
	if isElsewhere {
		data = ""
	}
	return map[string]any{
		"name": tensor.Name, "datatype": tensor.Datatype.String(), "shape": append([]int64{}, tensor.Shape...), "data_hex": data,
	}
}

func describedResponse(response *Response, isElsewhere bool) map[string]any {
	outputs := []any{}
	for _, output := range response.Outputs {
		outputs = append(outputs, describedTensor(output, isElsewhere))
	}
	described := map[string]any{
		"model": response.Model, "version": response.Version, "id": response.ID, "outputs": outputs,
		"parameters": describedParameters(response.Parameters),
	}
	switch response.stage {
	case stagePart:
		described["stage"] = "part"
	case stageEnd:
		described["stage"] = "end"
	}
	return described
}

func describedParameters(parameters map[string]any) []any {
	described := []any{}
	sorted, _ := sortedParameters(parameters)
	for _, parameter := range sorted {
		kind := map[string]string{"bool": "bool", "int64": "int64", "uint64": "uint64", "float64": "double", "string": "string"}
		described = append(described, map[string]any{
			"name": parameter.name, "kind": kind[fmt.Sprintf("%T", parameter.value)], "value": parameter.value,
		})
	}
	return described
}

func describedRequest(t *testing.T, table flatTable, payloads [][]byte) map[string]any {
	t.Helper()
	inputs := []any{}
	for _, each := range table.tables(5) {
		tensor := Tensor{Name: each.string(0), Datatype: Datatype(each.uint8(1)), Shape: each.int64s(2)}
		if each.uint8(3) == 0 {
			offset := each.uint64(5)
			tensor.Data = payloads[each.uint32(4)][offset : offset+each.uint64(6)]
		}
		inputs = append(inputs, describedTensor(tensor, false))
	}
	outputs := []any{}
	for _, each := range table.tables(6) {
		outputs = append(outputs, map[string]any{"name": each.string(0), "parameters": parametersOf(t, each.tables(1))})
	}
	described := map[string]any{
		"model": table.string(0), "version": table.string(1), "id": table.string(2), "timeout_us": table.uint64(3),
		"priority": table.uint32(4), "inputs": inputs, "outputs": outputs, "parameters": parametersOf(t, table.tables(7)),
	}
	if number, name := table.uint64(8), table.string(9); number != 0 || name != "" {
		var id any = number
		if name != "" {
			id = name
		}
		described["sequence"] = map[string]any{"id": id, "start": table.uint8(10) != 0, "end": table.uint8(11) != 0}
	}
	return described
}

func parametersOf(t *testing.T, tables []flatTable) []any {
	t.Helper()
	parameters, err := decodeParameters(tables)
	if err != nil {
		t.Fatal(err)
	}
	return describedParameters(parameters)
}

func TestEveryRequestVectorIsEncodedToTheSameValue(t *testing.T) {
	for name, vector := range readVectors(t, "frame-request-*.json") {
		if vector.Error != nil || string(vector.Value.Message["shared"]) != "[]" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			whole, err := splitFrame(vector.data, defaultMaxFrameBytes)
			if err != nil {
				t.Fatal(err)
			}
			expected := described(t, whole, nil).(map[string]any)["request"].(map[string]any)
			buffers, err := requestOf(t, expected).Frame(vector.Value.Exchange)
			if err != nil {
				t.Fatal(err)
			}
			var written []byte
			for _, buffer := range buffers {
				written = append(written, buffer...)
			}
			again, err := splitFrame(written, defaultMaxFrameBytes)
			if err != nil {
				t.Fatal(err)
			}
			for _, output := range expected["outputs"].([]any) {
				output.(map[string]any)["parameters"] = []any{}
			}
			if found := described(t, again, nil).(map[string]any)["request"]; !reflect.DeepEqual(found, any(expected)) {
				t.Errorf("expected %v\ngot      %v", expected, found)
			}
		})
	}
}

func requestOf(t *testing.T, said map[string]any) *Request {
	t.Helper()
	request := &Request{
		Model: text(said["model"]), Version: text(said["version"]), ID: text(said["id"]),
		Timeout: time.Duration(number(said["timeout_us"])) * time.Microsecond, Priority: uint32(number(said["priority"])),
		Parameters: map[string]any{},
	}
	for _, each := range said["inputs"].([]any) {
		input := each.(map[string]any)
		datatype, err := DatatypeOf(input["datatype"].(string))
		if err != nil {
			t.Fatal(err)
		}
		data, _ := hex.DecodeString(text(input["data_hex"]))
		tensor := Tensor{Name: input["name"].(string), Datatype: datatype, Data: data}
		for _, size := range input["shape"].([]any) {
			tensor.Shape = append(tensor.Shape, int64(number(size)))
		}
		request.Inputs = append(request.Inputs, tensor)
	}
	for _, each := range said["outputs"].([]any) {
		request.Outputs = append(request.Outputs, each.(map[string]any)["name"].(string))
	}
	for _, each := range said["parameters"].([]any) {
		parameter := each.(map[string]any)
		value, err := valueOf(parameter["kind"], parameter["value"])
		if err != nil {
			t.Fatal(err)
		}
		request.Parameters[parameter["name"].(string)] = value
	}
	if sequence, is := said["sequence"].(map[string]any); is {
		request.Sequence = Sequence{Start: sequence["start"].(bool), End: sequence["end"].(bool)}
		switch id := sequence["id"].(type) {
		case string:
			request.Sequence.Text = id
		case json.Number:
			request.Sequence.Number = number(id)
		}
	}
	return request
}

func valueOf(kind, value any) (any, error) {
	said, isNumber := value.(json.Number)
	switch {
	case !isNumber:
		return value, nil
	case kind == "int64":
		return said.Int64()
	case kind == "uint64":
		return number(said), nil
	}
	return said.Float64()
}

func TestEveryHTTPResponseVectorIsDecodedByTheFallback(t *testing.T) {
	for name, vector := range readVectors(t, "http-response-*.json") {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			if vector.HeaderLength != nil {
				header.Set(headerLength, strconv.Itoa(*vector.HeaderLength))
			}
			response, err := decodeOpenInference(reply{http.StatusOK, header, vector.data})
			if err != nil {
				t.Fatal(err)
			}
			expected := normal(t, vector.Value.Response)
			if found := normal(t, describedResponse(response, false)); !reflect.DeepEqual(found, expected) {
				t.Errorf("expected %v\ngot      %v", expected, found)
			}
		})
	}
}
