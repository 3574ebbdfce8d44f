package kingpole

import (
	"errors"
	"math"
	"reflect"
	"testing"
	"time"
)

func TestEveryFloat16IsTheSameAfterRoundingItsFloat(t *testing.T) {
	for bits := range 1 << 16 {
		value := Float16(bits)
		if again := NewFloat16(value.Float32()); again != value && !math.IsNaN(float64(value.Float32())) {
			t.Fatalf("%#04x became %#04x by way of %v", bits, again, value.Float32())
		}
	}
}

func TestFloat16RoundsTiesToEvenAndTooLargeToInfinity(t *testing.T) {
	for value, expected := range map[float32]Float16{
		1 + 0x1p-11: 0x3C00, 1 + 3*0x1p-11: 0x3C02, 65519: 0x7BFF, 65520: 0x7C00, -65520: 0xFC00, 0x1p-25: 0, 0x1.8p-25: 1, 0x1p-14: 0x0400,
		2047.5 * 0x1p-25: 0x0400,
	} {
		if found := NewFloat16(value); found != expected {
			t.Errorf("%v is %#04x, expected %#04x", value, found, expected)
		}
	}
	if found := NewFloat16(float32(math.NaN())).Float32(); !math.IsNaN(float64(found)) {
		t.Errorf("NaN became %v", found)
	}
}

func TestBFloat16RoundsTiesToEvenAndKeepsNaN(t *testing.T) {
	for bits, expected := range map[uint32]BFloat16{0x3F808000: 0x3F80, 0x3F818000: 0x3F82, 0x3F808001: 0x3F81, 0x7F7FFFFF: 0x7F80} {
		if found := NewBFloat16(math.Float32frombits(bits)); found != expected {
			t.Errorf("%#08x is %#04x, expected %#04x", bits, found, expected)
		}
	}
	if found := NewBFloat16(math.Float32frombits(0x7F800001)).Float32(); !math.IsNaN(float64(found)) {
		t.Errorf("NaN became %v", found)
	}
}

func TestATensorIsAViewOfItsValues(t *testing.T) {
	values := []float32{1, 2, 3, 4, 5, 6}
	tensor := NewTensor("x", values, 2, 3)
	again, err := Values[float32](tensor)
	if err != nil {
		t.Fatal(err)
	}
	if values[0] = 7; again[0] != 7 {
		t.Error("the values were copied")
	}
	if _, err := Values[int32](tensor); !errors.Is(err, InvalidArgument) {
		t.Errorf("FP32 read as INT32 gave %v", err)
	}
}

func TestUnalignedBytesAreReadByACopy(t *testing.T) {
	tensor := NewTensor("x", []float64{1.5, -2.5})
	shifted := append([]byte{0}, tensor.Data...)
	tensor.Data = shifted[1:]
	if found, err := Values[float64](tensor); err != nil || !reflect.DeepEqual(found, []float64{1.5, -2.5}) {
		t.Errorf("got %v, %v", found, err)
	}
}

func TestABoolOfAnotherByteIsReadAsTrue(t *testing.T) {
	found, err := Values[bool](Tensor{Name: "x", Datatype: Bool, Shape: []int64{3}, Data: []byte{0, 1, 7}})
	if err != nil || !reflect.DeepEqual(found, []bool{false, true, true}) {
		t.Errorf("got %v, %v", found, err)
	}
}

func TestTextsComeBackAsTheyWere(t *testing.T) {
	tensor := NewBytes("x", []string{"", "Grüße", "\xff\x00"}, 3, 1)
	if err := tensor.check("input"); err != nil {
		t.Fatal(err)
	}
	if found, err := tensor.Strings(); err != nil || !reflect.DeepEqual(found, []string{"", "Grüße", "\xff\x00"}) {
		t.Errorf("got %q, %v", found, err)
	}
}

func TestATensorThatDoesNotFitItsShapeIsRefused(t *testing.T) {
	for name, tensor := range map[string]Tensor{
		"too few":        NewTensor("x", []float32{1}, 2),
		"negative":       NewTensor("x", []float32{1}, -1),
		"overflowing":    NewTensor("x", []float32{}, math.MaxInt64, 3),
		"bytes overflow": NewTensor("x", []float64{}, math.MaxInt64),
		"no datatype":    {Name: "x", Shape: []int64{1}, Data: []byte{1}},
		"many dimensions": NewTensor("x", []float32{1}, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
			1, 1, 1),
		"texts":    NewBytes("x", []string{"a"}, 2),
		"cut text": {Name: "x", Datatype: Bytes, Shape: []int64{1}, Data: []byte{9, 0, 0, 0, 'a'}},
	} {
		if err := tensor.check("input"); !errors.Is(err, InvalidArgument) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAScalarHasNoDimensionsAndAVectorOne(t *testing.T) {
	if scalar := Scalar("x", float32(1)); len(scalar.Shape) != 0 || scalar.check("input") != nil {
		t.Errorf("a scalar is %v", scalar)
	}
	if vector := NewTensor("x", []float32{1, 2}); !reflect.DeepEqual(vector.Shape, []int64{2}) {
		t.Errorf("a vector is %v", vector)
	}
}

func TestAnErrorIsItsCodeAndNoOther(t *testing.T) {
	var err error = &Error{Code: NotFound, Message: "no model 'm'"}
	if !errors.Is(err, NotFound) || errors.Is(err, Internal) || err.Error() != "NOT_FOUND: no model 'm'" {
		t.Errorf("the error is %v", err)
	}
	if unknown := errorOfNumber(99, "odd"); unknown.Code != Internal || unknown.Message != "unknown code 99: odd" {
		t.Errorf("an unknown number is %v", unknown)
	}
}

func TestOnlyWhatCertainlyDidNotRunIsTriedAgain(t *testing.T) {
	for name, each := range map[string]struct {
		err    error
		isSafe bool
	}{
		"refused before it was queued": {&Error{Code: ResourceExhausted, RetryAfter: time.Second}, true},
		"too large":                    {&Error{Code: ResourceExhausted}, false},
		"no connection":                {&Error{Code: Unavailable, unsent: true}, true},
		"broken connection":            {&Error{Code: Unavailable}, false},
		"deadline":                     {&Error{Code: DeadlineExceeded, unsent: true}, false},
	} {
		if _, isSafe := retryDelay(each.err, 0); isSafe != each.isSafe {
			t.Errorf("%s: tried again: %v", name, isSafe)
		}
	}
}

func TestAddressesAreReadOrRefusedWithAReason(t *testing.T) {
	for text, expected := range map[string]string{
		"http://host": "http://host:80", "https://host/prefix/": "https://host:443/prefix", "grpc://[::1]:9": "grpc://[::1]:9",
		"frame://host:1": "frame://host:1", "unix:/a/b": "unix:/a/b", "unix:///a/b": "unix:/a/b",
	} {
		if found, err := parseAddress(text); err != nil || found.String() != expected {
			t.Errorf("%s is %s, %v", text, found, err)
		}
	}
	for _, text := range []string{"", "unix:", "host:80", "ftp://host", "http://", "grpc://host/path", "http://user@host", "http://host:port"} {
		if _, err := Connect(text); !errors.Is(err, InvalidArgument) {
			t.Errorf("%q gave %v", text, err)
		}
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, connect := range map[string]func() (*Client, error){
		"token over frames":   func() (*Client, error) { return Connect("frame://host:1", WithToken("abc")) },
		"token with newline":  func() (*Client, error) { return Connect("http://host", WithToken("a\nb")) },
		"shared memory":       func() (*Client, error) { return Connect("http://host", WithSharedMemory(1<<20)) },
		"no certificates":     func() (*Client, error) { return Connect("https://host", WithRootCertificates([]byte("x"))) },
		"negative timeout":    func() (*Client, error) { return Connect("http://host", WithTimeout(-1)) },
		"no bytes of a frame": func() (*Client, error) { return Connect("http://host", WithMaxFrameBytes(0)) },
	} {
		if _, err := connect(); !errors.Is(err, InvalidArgument) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
