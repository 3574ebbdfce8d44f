package kingpole

// Tensors: named, typed, shaped bytes. Knows no frame and no transport.

import (
	"encoding/binary"
	"math"
	"slices"
)

const maxDimensions = 32

// Tensor is a named array: little-endian, row-major, densely packed bytes. Bytes elements are a 32-bit length and that many
// bytes each. Tensors that a client gives out are views of what was received: not to be written to.
type Tensor struct {
	// Name of the input or output; empty stands for the one at this position.
	Name string
	// Datatype of the elements.
	Datatype Datatype
	// Shape has the sizes of the dimensions, outermost first; empty is a scalar.
	Shape []int64
	// Data has the elements' bytes.
	Data []byte

	err error
}

// NewTensor returns a tensor that is a view of values: they must not change until the call that sends them has returned. Without
// a shape it has one dimension. A shape that does not fit is reported by the call that sends it.
func NewTensor[E Element](name string, values []E, shape ...int64) Tensor {
	if shape == nil {
		shape = []int64{int64(len(values))}
	}
	return Tensor{Name: name, Datatype: datatypeFor[E](), Shape: shape, Data: bytesOf(values)}
}

// Scalar returns a tensor without dimensions.
func Scalar[E Element](name string, value E) Tensor {
	return NewTensor(name, []E{value}, []int64{}...)
}

// Text is what a Bytes element may be.
type Text interface{ ~string | ~[]byte }

// NewBytes returns a tensor of datatype BYTES; its elements need not be UTF-8.
func NewBytes[T Text](name string, values []T, shape ...int64) Tensor {
	if shape == nil {
		shape = []int64{int64(len(values))}
	}
	size := 4 * len(values)
	tensor := Tensor{Name: name, Datatype: Bytes, Shape: shape}
	for _, value := range values {
		if uint64(len(value)) > math.MaxUint32 {
			tensor.err = failure(InvalidArgument, "input '%s': an element of %d bytes is too long", name, len(value))
			return tensor
		}
		size += len(value)
	}
	tensor.Data = make([]byte, 0, size)
	for _, value := range values {
		tensor.Data = binary.LittleEndian.AppendUint32(tensor.Data, uint32(len(value)))
		tensor.Data = append(tensor.Data, value...)
	}
	return tensor
}

// Values returns the elements as a slice, which is a view of Data where the machine allows it.
func Values[E Element](tensor Tensor) ([]E, error) {
	if wanted := datatypeFor[E](); tensor.Datatype != wanted {
		return nil, failure(InvalidArgument, "tensor '%s' is %s, not %s", tensor.Name, tensor.Datatype, wanted)
	}
	if err := tensor.check("tensor"); err != nil {
		return nil, err
	}
	return elementsOf[E](tensor.Data), nil
}

// ValuesOf returns the elements of a response's output, as Values does.
func ValuesOf[E Element](response *Response, output string) ([]E, error) {
	tensor, err := response.Output(output)
	if err != nil {
		return nil, err
	}
	return Values[E](tensor)
}

// ByteValues returns the elements of a BYTES tensor, which are views of Data.
func (t Tensor) ByteValues() ([][]byte, error) {
	if t.Datatype != Bytes {
		return nil, failure(InvalidArgument, "tensor '%s' is %s, not BYTES", t.Name, t.Datatype)
	}
	if err := t.check("tensor"); err != nil {
		return nil, err
	}
	count, _ := elementCount(t.Shape)
	values := make([][]byte, 0, count)
	for rest := t.Data; len(rest) > 0; {
		length := 4 + int(binary.LittleEndian.Uint32(rest))
		values, rest = append(values, rest[4:length:length]), rest[length:]
	}
	return values, nil
}

// Strings returns the elements of a BYTES tensor as strings.
func (t Tensor) Strings() ([]string, error) {
	values, err := t.ByteValues()
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(values))
	for index, value := range values {
		texts[index] = string(value)
	}
	return texts, nil
}

// elementCount returns how many elements a shape has; false if that is no number of elements.
func elementCount(shape []int64) (uint64, bool) {
	count := uint64(1)
	fits := !slices.ContainsFunc(shape, func(size int64) bool { return size < 0 })
	if !fits || slices.Contains(shape, 0) {
		return 0, fits
	}
	for _, size := range shape {
		if count > math.MaxInt64/uint64(size) {
			return 0, false
		}
		count *= uint64(size)
	}
	return count, true
}

// check says whether datatype, shape and bytes agree; `what` is the tensor's role, for the text.
func (t Tensor) check(what string) error {
	if t.err != nil {
		return t.err
	}
	if !t.Datatype.known() {
		return failure(InvalidArgument, "%s '%s': unknown %s", what, t.Name, t.Datatype)
	}
	if len(t.Shape) > maxDimensions {
		return failure(InvalidArgument, "%s '%s' has %d dimensions, the most is %d", what, t.Name, len(t.Shape), maxDimensions)
	}
	count, fits := elementCount(t.Shape)
	if !fits {
		return failure(InvalidArgument, "%s '%s': the shape %v is no shape", what, t.Name, t.Shape)
	}
	if t.Datatype == Bytes {
		return t.checkBytes(what, count)
	}
	if size := uint64(elementBytes[t.Datatype]); count > math.MaxInt64/size || count*size != uint64(len(t.Data)) {
		return failure(InvalidArgument, "%s '%s': shape %v of %s needs %d elements of %d bytes, got %d bytes",
			what, t.Name, t.Shape, t.Datatype, count, size, len(t.Data))
	}
	return nil
}

func (t Tensor) checkBytes(what string, count uint64) error {
	found := uint64(0)
	for rest := t.Data; len(rest) > 0; found++ {
		if len(rest) < 4 || uint64(binary.LittleEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return failure(InvalidArgument, "%s '%s': element %d passes the end of the tensor", what, t.Name, found)
		}
		rest = rest[4+int(binary.LittleEndian.Uint32(rest)):]
	}
	if found != count {
		return failure(InvalidArgument, "%s '%s': shape %v needs %d elements, got %d", what, t.Name, t.Shape, count, found)
	}
	return nil
}
