package kingpole

// The system calls of shared memory: a sealed memfd, mapped, and its descriptor sent. Knows nothing of what is in it.

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

var errShort = errors.New("the connection took part of the message only")

var arenas atomic.Uint32

func newArena(nbytes int64) (*arena, error) {
	page := int64(os.Getpagesize())
	nbytes = (nbytes + page - 1) / page * page
	refused := func(err error) error {
		return &Error{Code: ResourceExhausted, Message: "no shared memory: " + err.Error(), cause: err, unsent: true}
	}
	descriptor, err := unix.MemfdCreate("kingpole-client", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, refused(err)
	}
	var memory []byte
	if err = unix.Ftruncate(descriptor, nbytes); err == nil {
		// The server maps it only if nobody can change its size any more.
		_, err = unix.FcntlInt(uintptr(descriptor), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err == nil {
		memory, err = unix.Mmap(descriptor, 0, int(nbytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		_ = unix.Close(descriptor)
		return nil, refused(err)
	}
	return &arena{
		number: arenas.Add(1), memory: memory, descriptor: descriptor, free: []span{{0, uint64(nbytes)}},
		taken: map[uint64]*block{}, learned: map[string][]wantedSize{},
	}, nil
}

// sendDescriptor sends a message, and the memory's descriptor with its first byte; the descriptor is only needed for that.
func sendDescriptor(conn net.Conn, message []byte, memory *arena) error {
	defer func() { _ = unix.Close(memory.descriptor) }()
	local, is := conn.(*net.UnixConn)
	if !is {
		return errors.ErrUnsupported
	}
	sent, _, err := local.WriteMsgUnix(message, unix.UnixRights(memory.descriptor), nil)
	if err == nil && sent != len(message) {
		err = errShort
	}
	return err
}

func unmapMemory(memory []byte) { _ = unix.Munmap(memory) }

// offsetIn returns where data begins in memory, if all of it is inside.
func offsetIn(memory, data []byte) (uint64, bool) {
	if len(memory) == 0 || len(data) == 0 {
		return 0, false
	}
	// SAFETY: the addresses are only compared; nothing is read through them.
	start, first := uintptr(unsafe.Pointer(unsafe.SliceData(memory))), uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	if first < start || first-start > uintptr(len(memory)) || uintptr(len(data)) > uintptr(len(memory))-(first-start) {
		return 0, false
	}
	return uint64(first - start), true
}
