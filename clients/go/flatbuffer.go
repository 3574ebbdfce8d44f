package kingpole

// Reading a flatbuffer that came from somebody else. The flatbuffers runtime for Go has no verifier and panics on wrong offsets, so
// nothing received goes near it: here each offset is checked as it is followed, which makes reading and verifying one pass. Knows
// the flatbuffer format, not our schema. Depth is bounded because each reader names its own children; the number of tables by a
// budget, against graphs that share children to look bigger than they are.
//
// Source: flatbuffers.dev/internals, and the limits of protocol/spec/frame.md.

import (
	"bytes"
	"encoding/binary"
	"math"
	"unicode/utf8"
)

const maxTables = 1000

type flatBuffer struct {
	data       []byte
	tablesLeft int
}

type flatTable struct {
	buffer              *flatBuffer
	position, end       int
	vtable, vtableBytes int
	failed              *error
}

// flatRoot returns the root table. Readers do not return errors: the first one is kept where `failed` points, and all that is read
// afterwards is zero.
func flatRoot(data []byte, failed *error) flatTable {
	buffer := &flatBuffer{data: data, tablesLeft: maxTables}
	absent := flatTable{buffer: buffer, failed: failed}
	if len(data) < 8 {
		return absent.fail("the frame's header has %d bytes, a flatbuffer needs at least 8", len(data))
	}
	target, fits := absent.follow(0)
	if !fits {
		return absent
	}
	return absent.at(target)
}

func (t flatTable) fail(format string, arguments ...any) flatTable {
	if *t.failed == nil {
		*t.failed = malformed("malformed frame header: "+format, arguments...)
	}
	return flatTable{buffer: t.buffer, failed: t.failed}
}

func (t flatTable) present() bool { return t.end > 0 }

func (t flatTable) uint16At(position int) int {
	return int(binary.LittleEndian.Uint16(t.buffer.data[position:]))
}

// follow returns where the unsigned offset at position leads; position+4 is known to be inside.
func (t flatTable) follow(position int) (int, bool) {
	target := int64(position) + int64(binary.LittleEndian.Uint32(t.buffer.data[position:]))
	if target <= int64(position) || target+4 > int64(len(t.buffer.data)) || target%4 != 0 {
		t.fail("the offset at %d leads to %d of %d bytes", position, target, len(t.buffer.data))
		return 0, false
	}
	return int(target), true
}

// at reads the table at a position of which 4 bytes are inside.
func (t flatTable) at(position int) flatTable {
	data := t.buffer.data
	if t.buffer.tablesLeft--; t.buffer.tablesLeft < 0 {
		return t.fail("it has more than %d tables", maxTables)
	}
	vtable := int64(position) - int64(int32(binary.LittleEndian.Uint32(data[position:])))
	if vtable < 0 || vtable%2 != 0 || vtable+4 > int64(len(data)) {
		return t.fail("the vtable of the table at %d lies outside of it", position)
	}
	start := int(vtable)
	vtableBytes, tableBytes := t.uint16At(start), t.uint16At(start+2)
	if vtableBytes < 4 || vtableBytes%2 != 0 || start+vtableBytes > len(data) {
		return t.fail("the vtable at %d says %d bytes", start, vtableBytes)
	}
	if tableBytes < 4 || position+tableBytes > len(data) {
		return t.fail("the table at %d says %d bytes", position, tableBytes)
	}
	return flatTable{t.buffer, position, position + tableBytes, start, vtableBytes, t.failed}
}

// field returns where a field is, false if it is absent. Slots count from 0.
func (t flatTable) field(slot, size int) (int, bool) {
	entry := 4 + 2*slot
	if !t.present() || *t.failed != nil || entry+2 > t.vtableBytes {
		return 0, false
	}
	offset := t.uint16At(t.vtable + entry)
	if offset == 0 {
		return 0, false
	}
	position := t.position + offset
	if offset < 4 || position+size > t.end || position%size != 0 {
		t.fail("field %d of the table at %d lies outside of it", slot, t.position)
		return 0, false
	}
	return position, true
}

func (t flatTable) uint8(slot int) uint8 {
	if position, is := t.field(slot, 1); is {
		return t.buffer.data[position]
	}
	return 0
}

func (t flatTable) uint32(slot int) uint32 {
	if position, is := t.field(slot, 4); is {
		return binary.LittleEndian.Uint32(t.buffer.data[position:])
	}
	return 0
}

func (t flatTable) uint64(slot int) uint64 {
	if position, is := t.field(slot, 8); is {
		return binary.LittleEndian.Uint64(t.buffer.data[position:])
	}
	return 0
}

func (t flatTable) float64(slot int) float64 { return math.Float64frombits(t.uint64(slot)) }

func (t flatTable) string(slot int) string {
	if position, is := t.field(slot, 4); is {
		return t.stringAt(position)
	}
	return ""
}

func (t flatTable) stringAt(position int) string {
	target, fits := t.follow(position)
	if !fits {
		return ""
	}
	data, start := t.buffer.data, target+4
	length := int64(binary.LittleEndian.Uint32(data[target:]))
	if int64(start)+length+1 > int64(len(data)) || data[start+int(length)] != 0 {
		t.fail("a string of %d bytes at %d does not end inside of it", length, start)
		return ""
	}
	text := data[start : start+int(length)]
	if !utf8.Valid(text) {
		t.fail("the string at %d is not UTF-8", start)
		return ""
	}
	return string(bytes.Clone(text))
}

func (t flatTable) table(slot int) flatTable {
	if position, is := t.field(slot, 4); is {
		if target, fits := t.follow(position); fits {
			return t.at(target)
		}
	}
	return flatTable{buffer: t.buffer, failed: t.failed}
}

// vector returns where the elements of a vector begin and how many there are.
func (t flatTable) vector(slot, elementBytes int) (start, length int) {
	position, is := t.field(slot, 4)
	if !is {
		return 0, 0
	}
	target, fits := t.follow(position)
	if !fits {
		return 0, 0
	}
	start, said := target+4, int64(binary.LittleEndian.Uint32(t.buffer.data[target:]))
	if int64(start)+said*int64(elementBytes) > int64(len(t.buffer.data)) {
		t.fail("a vector of %d elements at %d is longer than it", said, start)
		return 0, 0
	}
	if said > 0 && start%elementBytes != 0 {
		t.fail("the vector at %d is not aligned to %d bytes", start, elementBytes)
		return 0, 0
	}
	return start, int(said)
}

func (t flatTable) uint64s(slot int) []uint64 {
	start, length := t.vector(slot, 8)
	numbers := make([]uint64, length)
	for index := range numbers {
		numbers[index] = binary.LittleEndian.Uint64(t.buffer.data[start+8*index:])
	}
	return numbers
}

func (t flatTable) int64s(slot int) []int64 {
	start, length := t.vector(slot, 8)
	numbers := make([]int64, length)
	for index := range numbers {
		numbers[index] = int64(binary.LittleEndian.Uint64(t.buffer.data[start+8*index:]))
	}
	return numbers
}

func (t flatTable) tables(slot int) []flatTable {
	start, length := t.vector(slot, 4)
	if length > t.buffer.tablesLeft {
		t.fail("it has more than %d tables", maxTables)
		return nil
	}
	tables := make([]flatTable, 0, length)
	for index := range length {
		target, fits := t.follow(start + 4*index)
		if !fits {
			return nil
		}
		tables = append(tables, t.at(target))
	}
	return tables
}

func (t flatTable) strings(slot int) []string {
	start, length := t.vector(slot, 4)
	if t.buffer.tablesLeft -= length; t.buffer.tablesLeft < 0 {
		t.fail("it has more than %d tables and strings", maxTables)
		return nil
	}
	texts := make([]string, length)
	for index := range texts {
		texts[index] = t.stringAt(start + 4*index)
	}
	return texts
}
