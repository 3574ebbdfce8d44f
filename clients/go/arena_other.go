//go:build !linux

package kingpole

// Shared memory is of Linux: sealed memfds are.

import (
	"errors"
	"net"
)

func newArena(int64) (*arena, error) { return nil, failure(Unimplemented, "shared memory needs Linux") }

func sendDescriptor(net.Conn, []byte, *arena) error { return errors.ErrUnsupported }

func unmapMemory([]byte) {}

func offsetIn([]byte, []byte) (uint64, bool) { return 0, false }
