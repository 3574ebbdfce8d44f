//go:build linux

package kingpole

import "testing"

func sharedArena(t *testing.T) *arena {
	t.Helper()
	memory, err := newArena(64 << 10)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(memory.abandon)
	return memory
}

func TestRangesAreFreeAgainWhenTheLastLetsGo(t *testing.T) {
	memory := sharedArena(t)
	first, second := memory.take(40_000), memory.take(20_000)
	if first == nil || second == nil || memory.take(20_000) != nil {
		t.Fatal("64 KiB hold 40,000 and 20,000 bytes, and no more")
	}
	held, offset := memory.holder(second.bytes()[8:16])
	if held != second || offset != second.offset+8 {
		t.Fatalf("bytes of the second range are in %v at %d", held, offset)
	}
	memory.release(second)
	if memory.take(20_000) != nil {
		t.Error("a range that is still used was given out")
	}
	memory.release(second)
	memory.release(first)
	whole := memory.take(64 << 10)
	if whole == nil {
		t.Fatalf("the ranges did not become one again: %v", memory.free)
	}
	memory.release(whole)
}

func TestMemoryOfAnEndedConnectionStaysUntilNobodyRefersToIt(t *testing.T) {
	memory := sharedArena(t)
	held := memory.take(100)
	memory.abandon()
	held.bytes()[99] = 1
	if memory.take(1) != nil {
		t.Error("memory of an ended connection was given out")
	}
	memory.release(held)
	if memory.memory != nil {
		t.Error("it is still mapped")
	}
}

func TestBytesElsewhereAreInNoRange(t *testing.T) {
	memory := sharedArena(t)
	if held, _ := memory.holder(make([]byte, 10)); held != nil {
		t.Error("bytes of the heap are in the arena")
	}
}

func TestLargeInputsArePlacedAndOutputsWhereTheirSizeIsKnown(t *testing.T) {
	memory := sharedArena(t)
	request := &Request{Model: "m", Inputs: []Tensor{NewTensor("large", make([]byte, 8000)), NewTensor("small", []byte{1})}}
	placed := memory.placeRequest(request)
	if len(placed.inputs) != 1 || placed.inputs[0].nbytes != 8000 || len(placed.outputs) != 0 {
		t.Fatalf("placed %v and %v", placed.inputs, placed.outputs)
	}
	response := &Response{Outputs: []Tensor{NewTensor("y", make([]byte, 9000))}}
	placed.learn(response)
	placed.release(nil)
	again := memory.placeRequest(request)
	if len(again.outputs) != 1 || again.outputs[0].block == nil || again.outputs[0].block.nbytes != 9000 {
		t.Fatalf("the outputs are wanted at %v", again.outputs)
	}
	response.keep = again
	again.release(response)
	if len(memory.taken) != 1 {
		t.Errorf("a response that somebody has keeps its output, %d ranges are taken", len(memory.taken))
	}
	response.Release()
	response.Release()
	if len(memory.taken) != 0 {
		t.Errorf("%d ranges are taken after Release", len(memory.taken))
	}
}
