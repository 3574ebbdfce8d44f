package kingpole

// Inference as Open Inference over HTTP, for servers that take no frames: with binary tensors if the server offers them, else as
// JSON. Opens no socket.
//
// Source: protocol/spec/http.md

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
)

const headerLength = "Inference-Header-Content-Length"

// openInference is how one server is asked.
type openInference struct{ isBinary bool }

// posted is a request as it is posted.
type posted struct {
	path    string
	headers map[string]string
	body    net.Buffers
}

type jsonTensor struct {
	Name       string          `json:"name"`
	Datatype   string          `json:"datatype"`
	Shape      []int64         `json:"shape"`
	Parameters map[string]any  `json:"parameters,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
}

type jsonOutput struct {
	Name       string         `json:"name"`
	Parameters map[string]any `json:"parameters,omitempty"`
}

type jsonRequest struct {
	ID         string         `json:"id,omitempty"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Inputs     []jsonTensor   `json:"inputs"`
	Outputs    []jsonOutput   `json:"outputs,omitempty"`
}

// encode writes a request. Tensors are sent from where they are if the server takes them as bytes.
func (o *openInference) encode(request *prepared) (posted, error) {
	if request.Model == "" {
		return posted{}, failure(InvalidArgument, "this server speaks Open Inference only, where a model must be named")
	}
	document := jsonRequest{ID: request.ID, Parameters: o.parameters(request), Inputs: []jsonTensor{}}
	for _, name := range request.Outputs {
		output := jsonOutput{Name: name}
		if o.isBinary {
			output.Parameters = map[string]any{"binary_data": true}
		}
		document.Outputs = append(document.Outputs, output)
	}
	body := net.Buffers{nil}
	for _, input := range request.Inputs {
		written := jsonTensor{Name: input.Name, Datatype: input.Datatype.String(), Shape: append([]int64{}, input.Shape...)}
		if o.isBinary {
			written.Parameters = map[string]any{"binary_data_size": len(input.Data)}
			body = append(body, input.Data)
		} else {
			data, err := elementsAsJSON(input)
			if err != nil {
				return posted{}, err
			}
			written.Data = data
		}
		document.Inputs = append(document.Inputs, written)
	}
	head, err := json.Marshal(document)
	if err != nil {
		return posted{}, failure(InvalidArgument, "the request cannot be written as JSON: %s", err)
	}
	body[0] = head
	headers := map[string]string{"Content-Type": "application/json"}
	if o.isBinary {
		headers = map[string]string{"Content-Type": "application/octet-stream", headerLength: strconv.Itoa(len(head))}
	}
	return posted{modelPath(request.Model, request.Version) + "/infer", headers, body}, nil
}

func (o *openInference) parameters(request *prepared) map[string]any {
	parameters := map[string]any{}
	for _, parameter := range request.parameters {
		parameters[parameter.name] = parameter.value
	}
	if request.timeout > 0 {
		parameters["timeout"] = microseconds(request.timeout)
	}
	if request.Priority > 0 {
		parameters["priority"] = request.Priority
	}
	if sequence := request.Sequence; sequence.Number != 0 || sequence.Text != "" {
		parameters["sequence_id"], parameters["sequence_start"], parameters["sequence_end"] = sequence.Number, sequence.Start, sequence.End
		if sequence.Text != "" {
			parameters["sequence_id"] = sequence.Text
		}
	}
	if o.isBinary && len(request.Outputs) == 0 {
		parameters["binary_data_output"] = true
	}
	return parameters
}

type jsonResponse struct {
	ID         string         `json:"id"`
	Model      string         `json:"model_name"`
	Version    any            `json:"model_version"`
	Parameters map[string]any `json:"parameters"`
	Outputs    []jsonTensor   `json:"outputs"`
}

// decodeOpenInference reads the answer to what encode made; binary outputs are views of it.
func decodeOpenInference(answer reply) (*Response, error) {
	if answer.status != http.StatusOK {
		return nil, answer.failure()
	}
	head, binary := answer.body, []byte{}
	if text := answer.header.Get(headerLength); text != "" {
		length, err := strconv.ParseUint(text, 10, 32)
		if err != nil || length > uint64(len(head)) {
			return nil, failure(Internal, "%s is %.40q, the answer has %d bytes", headerLength, text, len(head))
		}
		head, binary = head[:length], head[length:]
	}
	var document jsonResponse
	if err := readJSON(head, &document); err != nil {
		return nil, err
	}
	if len(document.Outputs) > maxTensors || len(document.Parameters) > maxParameters {
		return nil, failure(Internal, "the answer has %d outputs and %d parameters", len(document.Outputs), len(document.Parameters))
	}
	response := &Response{
		Model: document.Model, Version: textOf(document.Version), ID: document.ID, Parameters: map[string]any{},
		Outputs: make([]Tensor, 0, len(document.Outputs)),
	}
	for name, value := range document.Parameters {
		if known, is := jsonParameter(value); is {
			response.Parameters[name] = known
		}
	}
	for _, each := range document.Outputs {
		output, rest, err := readOutput(each, binary)
		if err != nil {
			return nil, err
		}
		binary = rest
		response.Outputs = append(response.Outputs, output)
	}
	return response, nil
}

func readJSON(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return failure(Internal, "the server's answer cannot be read: %s", err)
	}
	return nil
}

func textOf(value any) string {
	switch value := value.(type) {
	case string:
		return value
	case json.Number:
		return value.String()
	}
	return ""
}

func jsonParameter(value any) (any, bool) {
	switch value := value.(type) {
	case bool, string:
		return value, true
	case json.Number:
		if number, err := strconv.ParseInt(value.String(), 10, 64); err == nil {
			return number, true
		}
		if number, err := strconv.ParseUint(value.String(), 10, 64); err == nil {
			return number, true
		}
		number, err := value.Float64()
		return number, err == nil
	}
	return nil, false
}

func readOutput(said jsonTensor, binary []byte) (output Tensor, rest []byte, err error) {
	datatype, err := DatatypeOf(said.Datatype)
	if err != nil {
		return output, nil, failure(Internal, "output '%s': unknown datatype %.40q", said.Name, said.Datatype)
	}
	output = Tensor{Name: said.Name, Datatype: datatype, Shape: said.Shape}
	if size, is := said.Parameters["binary_data_size"]; is {
		nbytes, err := strconv.ParseUint(textOf(size), 10, 62)
		if err != nil || nbytes > uint64(len(binary)) {
			return output, nil, failure(Internal, "output '%s': binary_data_size %v passes the end of the answer", said.Name, size)
		}
		output.Data, rest = binary[:nbytes:nbytes], binary[nbytes:]
	} else if output.Data, err = elementsFromJSON(datatype, said.Data); err != nil {
		return output, nil, failure(Internal, "output '%s': %s", said.Name, err)
	} else {
		rest = binary
	}
	return output, rest, received(asMalformed(output.check("output")))
}
