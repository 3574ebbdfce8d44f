package kingpole

// Element types and what one element takes. Knows no tensor.

import (
	"fmt"
	"math"
)

// Datatype is the type of a tensor's elements; the numbers are the frame's.
type Datatype uint8

// The datatypes. Bytes elements are texts of any length.
const (
	Bool Datatype = iota + 1
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	FP16
	FP32
	FP64
	Bytes
	BF16
)

var datatypeNames = [...]string{
	"NONE", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES", "BF16",
}

// The bytes of one element; 0 where it varies.
var elementBytes = [...]int{0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 0, 2}

// String returns the name that every protocol uses, for example "FP32".
func (d Datatype) String() string {
	if int(d) < len(datatypeNames) {
		return datatypeNames[d]
	}
	return fmt.Sprintf("datatype %d", uint8(d))
}

func (d Datatype) known() bool { return d > 0 && int(d) < len(datatypeNames) }

// DatatypeOf returns the datatype of a name such as "FP32".
func DatatypeOf(name string) (Datatype, error) {
	for number, known := range datatypeNames {
		if number > 0 && name == known {
			return Datatype(number), nil
		}
	}
	return 0, failure(InvalidArgument, "unknown datatype %.40q", name)
}

// Float16 is an FP16 element: IEEE 754's binary16, as its bits.
type Float16 uint16

// BFloat16 is a BF16 element: the upper half of a float32, as its bits.
type BFloat16 uint16

// NewBFloat16 rounds to the nearest value, ties to even; NaN stays NaN.
func NewBFloat16(value float32) BFloat16 {
	bits := math.Float32bits(value)
	if value != value {
		return BFloat16(bits>>16 | 0x40)
	}
	return BFloat16((bits + 0x7FFF + bits>>16&1) >> 16)
}

// Float32 returns the same value as a float32.
func (b BFloat16) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }

// NewFloat16 rounds to the nearest value, ties to even; what is too large becomes an infinity, NaN stays NaN.
func NewFloat16(value float32) Float16 { return float16Of(float64(value)) }

// float16Of rounds once, from a double: rounding to a float first could move a tie.
func float16Of(value float64) Float16 {
	var sign Float16
	if math.Signbit(value) {
		sign, value = 0x8000, -value
	}
	switch {
	case value != value:
		return sign | 0x7E00
	case value >= 65520:
		return sign | 0x7C00
	case value < 0x1p-14:
		// Multiples of 2^-24; 1024 of them are the first normal number.
		return sign | Float16(math.RoundToEven(value*0x1p24))
	}
	_, exponent := math.Frexp(value)
	mantissa := math.RoundToEven(math.Ldexp(value, 11-exponent))
	// A mantissa of 2048 carries into the exponent by itself.
	return sign | Float16(uint16(exponent+14)<<10+uint16(mantissa)-0x400)
}

// Float32 returns the same value as a float32.
func (f Float16) Float32() float32 {
	sign, exponent, mantissa := float64(1), int(f>>10&0x1F), float64(f&0x3FF)
	if f&0x8000 != 0 {
		sign = -1
	}
	switch exponent {
	case 0:
		return float32(math.Copysign(mantissa*0x1p-24, sign))
	case 31:
		if mantissa != 0 {
			return float32(math.NaN())
		}
		return float32(math.Inf(int(sign)))
	}
	return float32(sign * math.Ldexp(1024+mantissa, exponent-25))
}
