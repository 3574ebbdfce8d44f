package kingpole

// Slices of numbers as bytes and back, without a copy. The one file beside the arenas that uses unsafe: a view of another element
// type is not to be had otherwise, and converting element by element is what a thin client is there to avoid.

import (
	"encoding/binary"
	"unsafe"
)

// Element is a Go type that a tensor's elements can be read and written as.
type Element interface {
	bool | uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | Float16 | float32 | float64 | BFloat16
}

// The wire is little-endian. Elsewhere values are converted, in copies.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

func datatypeFor[E Element]() Datatype {
	switch any(*new(E)).(type) {
	case bool:
		return Bool
	case uint8:
		return Uint8
	case uint16:
		return Uint16
	case uint32:
		return Uint32
	case uint64:
		return Uint64
	case int8:
		return Int8
	case int16:
		return Int16
	case int32:
		return Int32
	case int64:
		return Int64
	case Float16:
		return FP16
	case float32:
		return FP32
	case float64:
		return FP64
	default:
		return BF16
	}
}

func bytesOf[E Element](values []E) []byte {
	if len(values) == 0 {
		return nil
	}
	size := int(unsafe.Sizeof(values[0]))
	// SAFETY: the elements have no pointers and no padding, and lie one after another: len*size bytes that live as long as the
	// slice, which the result keeps alive. Any address is aligned for bytes.
	data := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), len(values)*size)
	if !littleEndian {
		data = swapped(data, size)
	}
	return data
}

// elementsOf reads bytes whose number is a multiple of the element's.
func elementsOf[E Element](data []byte) []E {
	var zero E
	size := int(unsafe.Sizeof(zero))
	if len(data) < size {
		return []E{}
	}
	if _, is := any(zero).(bool); is {
		data = onlyBools(data)
	}
	if !littleEndian {
		data = swapped(data, size)
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(data)))%unsafe.Alignof(zero) != 0 {
		aligned := make([]E, len(data)/size)
		copy(bytesOf(aligned), data)
		return aligned
	}
	// SAFETY: the address was just checked to be aligned for E, the bytes are len/size whole elements, and every pattern of bits
	// is a value of each element type: of bool too, whose bytes were made 0 and 1.
	return unsafe.Slice((*E)(unsafe.Pointer(unsafe.SliceData(data))), len(data)/size)
}

// onlyBools returns the bytes if all are 0 or 1, else a copy in which they are: a Go bool of another bit pattern is undefined.
func onlyBools(data []byte) []byte {
	for _, value := range data {
		if value > 1 {
			bools := make([]byte, len(data))
			for index, value := range data {
				bools[index] = min(value, 1)
			}
			return bools
		}
	}
	return data
}

func swapped(data []byte, size int) []byte {
	turned := make([]byte, len(data))
	for start := 0; start < len(data); start += size {
		for index := range size {
			turned[start+index] = data[start+size-1-index]
		}
	}
	return turned
}
