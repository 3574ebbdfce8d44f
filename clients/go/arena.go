package kingpole

// Which ranges of a connection's shared memory are taken, and by what. Knows no socket and no system call.
//
// An arena belongs to one connection and ends with it: a server may go on writing to the memory of a connection that has broken. A
// range is free again when the last that uses it lets go: a request until its last answer, a response until Release, a caller's
// SharedBuffer until Close. Go's collector does not see who refers to mapped memory, so that letting go is explicit; what is never
// let go of stays taken, and when there is no room tensors travel through the socket.
//
// Source: protocol/spec/shared-memory.md

import (
	"slices"
	"strings"
	"sync"
)

const (
	// Shorter tensors travel in the frame: a copy costs less than the bookkeeping.
	smallestPlacedBytes = 4096
	mostLearned         = 1024
)

// block is a range of an arena.
type block struct {
	arena          *arena
	offset, nbytes uint64
	references     int
}

func (b *block) bytes() []byte {
	return b.arena.memory[b.offset : b.offset+b.nbytes : b.offset+b.nbytes]
}

type span struct{ start, end uint64 }

type arena struct {
	number     uint32
	memory     []byte
	descriptor int

	mutex       sync.Mutex
	free        []span
	taken       map[uint64]*block
	learned     map[string][]wantedSize
	isAbandoned bool
}

type wantedSize struct {
	name   string
	nbytes uint64
}

func (a *arena) nbytes() int { return len(a.memory) }

func rangeBytes(nbytes uint64) uint64 { return max((nbytes+alignment-1)&^(alignment-1), alignment) }

// take reserves a range; nil if there is no room.
func (a *arena) take(nbytes uint64) *block {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	wanted := rangeBytes(nbytes)
	for index, each := range a.free {
		if a.isAbandoned || each.end-each.start < wanted {
			continue
		}
		if a.free[index].start += wanted; a.free[index].start == each.end {
			a.free = slices.Delete(a.free, index, index+1)
		}
		taken := &block{a, each.start, nbytes, 1}
		a.taken[each.start] = taken
		return taken
	}
	return nil
}

func (a *arena) release(b *block) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if b.references--; b.references != 0 {
		return
	}
	delete(a.taken, b.offset)
	a.free = append(a.free, span{b.offset, b.offset + rangeBytes(b.nbytes)})
	slices.SortFunc(a.free, func(x, y span) int {
		if x.start < y.start {
			return -1
		}
		return 1
	})
	merged := a.free[:1]
	for _, each := range a.free[1:] {
		if last := &merged[len(merged)-1]; last.end == each.start {
			last.end = each.end
		} else {
			merged = append(merged, each)
		}
	}
	a.free = merged
	a.unmapIfUnused()
}

// abandon says that the connection has ended: the memory goes when nothing refers to it any more.
func (a *arena) abandon() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.isAbandoned = true
	a.unmapIfUnused()
}

func (a *arena) unmapIfUnused() {
	if a.isAbandoned && len(a.taken) == 0 && a.memory != nil {
		unmapMemory(a.memory)
		a.memory = nil
	}
}

// holder returns the block that the bytes lie in, retained; nil if they are elsewhere.
func (a *arena) holder(data []byte) (*block, uint64) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	offset, inside := offsetIn(a.memory, data)
	if !inside {
		return nil, 0
	}
	for _, each := range a.taken {
		if offset >= each.offset && offset+uint64(len(data)) <= each.offset+each.nbytes {
			each.references++
			return each, offset
		}
	}
	return nil, 0
}

// placeRequest puts inputs where they are not yet, and reserves room for the outputs if their sizes are known.
func (a *arena) placeRequest(request *Request) *placement {
	placed := &placement{
		arena: a.number, inputs: map[int]place{},
		key: strings.Join(append([]string{request.Model, request.Version}, request.Outputs...), "\x00"),
	}
	for index, input := range request.Inputs {
		if len(input.Data) == 0 {
			continue
		}
		held, offset := a.holder(input.Data)
		if held == nil && len(input.Data) >= smallestPlacedBytes {
			if held = a.take(uint64(len(input.Data))); held != nil {
				copy(held.bytes(), input.Data)
				offset = held.offset
			}
		}
		if held != nil {
			placed.keep = append(placed.keep, held)
			placed.inputs[index] = place{offset, uint64(len(input.Data))}
		}
	}
	a.mutex.Lock()
	sizes := a.learned[placed.key]
	a.mutex.Unlock()
	for _, each := range sizes {
		output := wantedOutput{name: each.name}
		if each.nbytes >= smallestPlacedBytes {
			output.block = a.take(each.nbytes)
		}
		placed.outputs = append(placed.outputs, output)
	}
	placed.memory = a
	return placed
}

// learn remembers how large the outputs were, for the next request like this one. Whatever else came is forgotten: the next one
// asks for what the caller says, and nothing more.
func (p *placement) learn(response *Response) {
	a := p.memory
	a.mutex.Lock()
	defer a.mutex.Unlock()
	delete(a.learned, p.key)
	if response == nil || response.stage != stageOnly {
		return
	}
	sizes, largest := make([]wantedSize, 0, len(response.Outputs)), 0
	for _, output := range response.Outputs {
		sizes = append(sizes, wantedSize{output.Name, uint64(len(output.Data))})
		largest = max(largest, len(output.Data))
	}
	if len(a.learned) >= mostLearned {
		clear(a.learned)
	}
	if largest >= smallestPlacedBytes {
		a.learned[p.key] = sizes
	}
}

// release frees the request's ranges, but for the outputs if a response that somebody gets has some of them.
func (p *placement) release(response *Response) {
	if p == nil {
		return
	}
	for _, held := range p.keep {
		held.arena.release(held)
	}
	p.keep = nil
	if response == nil || response.keep == nil {
		p.releaseOutputs()
	}
}

func (p *placement) releaseOutputs() {
	for index, output := range p.outputs {
		if output.block != nil {
			output.block.arena.release(output.block)
			p.outputs[index].block = nil
		}
	}
}

// Release lets the response's shared memory be used again; its outputs must not be read afterwards. It is only worth calling on
// responses of a client made WithSharedMemory, and does nothing to others. It is not for use from several goroutines at once.
func (r *Response) Release() {
	if placed, is := r.keep.(*placement); is && placed != nil {
		r.keep = nil
		placed.releaseOutputs()
	}
}

// SharedBuffer is memory that the server sees: an input whose Data is in it is not copied.
type SharedBuffer struct {
	mutex sync.Mutex
	held  *block
}

// Bytes returns the memory. It must not be written to while a request that uses it is on its way, nor used after Close.
func (s *SharedBuffer) Bytes() []byte {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.held == nil {
		return nil
	}
	return s.held.bytes()
}

// Close lets the memory be used again, once no request uses it any more.
func (s *SharedBuffer) Close() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.held != nil {
		s.held.arena.release(s.held)
		s.held = nil
	}
	return nil
}
