package kingpole

// What is asked and what is given: requests, responses, metadata. Knows no bytes.

import (
	"strings"
	"time"
)

// Request is one inference asked for.
type Request struct {
	// Model is the model's name; empty asks for the server's default model.
	Model string
	// Version empty asks for the latest ready one.
	Version string
	// ID is the caller's own, echoed in the response.
	ID string
	// Inputs are matched by name; one without a name by position. Their bytes must not change until the call has returned, and
	// over gRPC, if the call was given up, until the client is closed.
	Inputs []Tensor
	// Outputs names those wanted, in that order; none asks for all.
	Outputs []string
	// Parameters go to the model: bool, any integer, float32 or float64, string.
	Parameters map[string]any
	// Timeout travels with the request and bounds the wait here. 0 is the client's own. The context's deadline travels too:
	// the nearer one does.
	Timeout time.Duration
	// Priority 0 is the default, 1 the highest.
	Priority uint32
	// Sequence says where the request stands in a sequence that a stateful model keeps together.
	Sequence Sequence
}

// Sequence is a request's place in a sequence. Its id is a number above 0, or a text; without either there is no sequence.
type Sequence struct {
	// Number is the id as a number.
	Number uint64
	// Text is the id as a text.
	Text string
	// Start says that the request is the sequence's first.
	Start bool
	// End says that the request is the sequence's last.
	End bool
}

// Timing says how the server served a request.
type Timing struct {
	// Queue is the time from admission to dispatch.
	Queue time.Duration
	// Execute is the execution of the batch.
	Execute time.Duration
	// BatchRows is the batch's size in rows; 0 for a model that does not batch.
	BatchRows uint32
	// Reason says why the batch left when it did, for example "full".
	Reason string
}

type stage uint8

const (
	stageOnly stage = iota
	stagePart
	stageEnd
)

// Response is one inference answered. The tensors are views of the received bytes.
type Response struct {
	// Model that answered.
	Model string
	// Version that answered.
	Version string
	// ID is the request's.
	ID string
	// Outputs in the order asked for, or the model's own.
	Outputs []Tensor
	// Parameters that the model gave: bool, int64, uint64, float64, string.
	Parameters map[string]any
	// Timing is absent over Open Inference.
	Timing Timing

	stage stage
	// keep holds the shared memory that the outputs are views of.
	keep any
}

// Output returns an output by name.
func (r *Response) Output(name string) (Tensor, error) {
	names := make([]string, 0, len(r.Outputs))
	for _, output := range r.Outputs {
		if output.Name == name {
			return output, nil
		}
		names = append(names, output.Name)
	}
	return Tensor{}, failure(InvalidArgument, "the response has no output '%s', it has %s", name, strings.Join(names, ", "))
}

// TensorSpec declares an input or output of a model; -1 in the shape is any size.
type TensorSpec struct {
	// Name of the input or output.
	Name string
	// Datatype of its elements.
	Datatype Datatype
	// Shape, of which -1 is any size.
	Shape []int64
	// Optional inputs may be left out.
	Optional bool
}

// ModelMetadata says what a model takes and gives.
type ModelMetadata struct {
	// Name of the model.
	Name string
	// Versions that are ready, ascending.
	Versions []string
	// Platform is the framework that runs it.
	Platform string
	// Inputs that it takes.
	Inputs []TensorSpec
	// Outputs that it gives.
	Outputs []TensorSpec
	// MaxBatchSize 0: the model does not batch, or the transport (HTTP) does not say.
	MaxBatchSize uint32
	// Description for people.
	Description string
}

// ServerInfo says who the server is.
type ServerInfo struct {
	// Name of the server.
	Name string
	// Version of the server.
	Version string
	// Extensions of the protocol that it offers.
	Extensions []string
	// MaxFrameBytes is the largest frame that it takes; 0 is not said.
	MaxFrameBytes uint64
}

// What only the streams know.
type (
	credit struct{ requests uint32 }
	ready  struct{ is bool }
	done   struct{}
)
