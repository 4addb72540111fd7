package wire

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// WatchClosed returns a channel that is closed when the peer ends the
// connection. It only peeks, so what the peer sends meanwhile stays to be read.
// While it watches nothing else may read; stop ends it, waits, and must be
// called. Afterwards the connection's read deadline has passed.
func WatchClosed(conn *net.UnixConn) (closed <-chan struct{}, stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	conn.SetReadDeadline(time.Time{})
	raw, err := conn.SyscallConn()
	if err != nil { // only a closed connection has none
		close(ended)
		return ended, func() {}
	}
	go func() { // ended by stop
		defer close(done)
		raw.Read(func(fd uintptr) bool {
			var b [1]byte
			n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if err == unix.EAGAIN || err == unix.EINTR {
				return false
			}
			if n <= 0 {
				close(ended)
			}
			return true
		})
	}()
	return ended, func() {
		conn.SetReadDeadline(time.Unix(1, 0))
		<-done
	}
}
