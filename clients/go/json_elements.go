package kingpole

// Elements of tensors as JSON and back. Knows no document around them.

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"
)

// elementsAsJSON writes a flat list.
func elementsAsJSON(tensor Tensor) ([]byte, error) {
	if tensor.Datatype == Bytes {
		return textsAsJSON(tensor)
	}
	size := elementBytes[tensor.Datatype]
	written := append(make([]byte, 0, 2+8*len(tensor.Data)/size), '[')
	for start := 0; start < len(tensor.Data); start += size {
		if start > 0 {
			written = append(written, ',')
		}
		var err error
		if written, err = appendElement(written, tensor, tensor.Data[start:start+size]); err != nil {
			return nil, err
		}
	}
	return append(written, ']'), nil
}

func textsAsJSON(tensor Tensor) ([]byte, error) {
	texts, err := tensor.Strings()
	if err != nil {
		return nil, err
	}
	for index, text := range texts {
		if !utf8.ValidString(text) {
			return nil, failure(InvalidArgument, "input '%s': this server takes tensors as JSON, and element %d is not UTF-8", tensor.Name, index)
		}
	}
	return json.Marshal(texts)
}

func appendElement(written []byte, tensor Tensor, element []byte) ([]byte, error) {
	var padded [8]byte
	copy(padded[:], element)
	bits := binary.LittleEndian.Uint64(padded[:])
	unused := 64 - 8*len(element)
	var value float64
	precision := 32
	switch tensor.Datatype {
	case Bool:
		return strconv.AppendBool(written, bits != 0), nil
	case Uint8, Uint16, Uint32, Uint64:
		return strconv.AppendUint(written, bits, 10), nil
	case Int8, Int16, Int32, Int64:
		return strconv.AppendInt(written, int64(bits<<unused)>>unused, 10), nil
	case FP16:
		value = float64(Float16(bits).Float32())
	case BF16:
		value = float64(BFloat16(bits).Float32())
	case FP32:
		value = float64(math.Float32frombits(uint32(bits)))
	default:
		value, precision = math.Float64frombits(bits), 64
	}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return nil, failure(InvalidArgument, "input '%s': this server takes tensors as JSON, which has no NaN and no infinity", tensor.Name)
	}
	return strconv.AppendFloat(written, value, 'g', -1, precision), nil
}

// elementsFromJSON reads a list, flat or nested, or a bare value, to the bytes that the elements are.
func elementsFromJSON(datatype Datatype, list json.RawMessage) ([]byte, error) {
	if len(list) == 0 {
		return nil, errors.New("it has neither data nor binary_data_size")
	}
	decoder := json.NewDecoder(bytes.NewReader(list))
	decoder.UseNumber()
	data := []byte{}
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case json.Delim:
			if token != '[' && token != ']' {
				return nil, fmt.Errorf("its data has %s", token)
			}
		default:
			if data, err = appendFromJSON(data, datatype, token); err != nil {
				return nil, err
			}
		}
	}
}

func appendFromJSON(data []byte, datatype Datatype, token json.Token) ([]byte, error) {
	wrong := fmt.Errorf("%.40v is no element of %s", token, datatype)
	switch value := token.(type) {
	case bool:
		if datatype != Bool {
			return nil, wrong
		}
		if value {
			return append(data, 1), nil
		}
		return append(data, 0), nil
	case string:
		if datatype != Bytes {
			return nil, wrong
		}
		return append(binary.LittleEndian.AppendUint32(data, uint32(len(value))), value...), nil
	case json.Number:
		bits, isNumber := bitsOf(datatype, value.String())
		if !isNumber {
			return nil, wrong
		}
		var written [8]byte
		binary.LittleEndian.PutUint64(written[:], bits)
		return append(data, written[:elementBytes[datatype]]...), nil
	}
	return nil, wrong
}

// bitsOf reads a number's text as an element of a datatype.
func bitsOf(datatype Datatype, text string) (bits uint64, isNumber bool) {
	var err error
	var value float64
	switch datatype {
	case Uint8, Uint16, Uint32, Uint64:
		bits, err = strconv.ParseUint(text, 10, 8*elementBytes[datatype])
	case Int8, Int16, Int32, Int64:
		var number int64
		number, err = strconv.ParseInt(text, 10, 8*elementBytes[datatype])
		bits = uint64(number)
	case FP32:
		value, err = strconv.ParseFloat(text, 32)
		bits = uint64(math.Float32bits(float32(value)))
	case FP64:
		value, err = strconv.ParseFloat(text, 64)
		bits = math.Float64bits(value)
	case FP16:
		value, err = strconv.ParseFloat(text, 64)
		bits = uint64(float16Of(value))
	case BF16:
		value, err = strconv.ParseFloat(text, 64)
		bits = uint64(NewBFloat16(roundedToOdd(value)))
	default:
		return 0, false
	}
	return bits, err == nil
}

// roundedToOdd returns the float32 toward zero, with its last bit set if something was cut off: rounding that again, to fewer bits,
// is the same as rounding once.
func roundedToOdd(value float64) float32 {
	near := float32(value)
	if float64(near) == value || math.IsInf(float64(near), 0) {
		return near
	}
	bits := math.Float32bits(near)
	if math.Abs(float64(near)) > math.Abs(value) {
		bits--
	}
	return math.Float32frombits(bits | 1)
}
