//go:build unix

package kingpole

// Whether an idle connection was closed by the server: then nothing has been sent on it, and another is opened instead.

import (
	"crypto/tls"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

func isAlive(conn net.Conn) bool {
	if secured, is := conn.(*tls.Conn); is {
		conn = secured.NetConn()
	}
	socket, is := conn.(syscall.Conn)
	if !is {
		return true
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	// Nothing is awaited on an idle connection: an end, an error and unasked bytes all mean that it is of no more use.
	var isSilent bool
	err = raw.Read(func(descriptor uintptr) bool {
		_, _, err := unix.Recvfrom(int(descriptor), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		isSilent = err == unix.EAGAIN
		return true
	})
	return err == nil && isSilent
}
