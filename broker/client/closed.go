package client

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// watchClosed starts a goroutine that waits for the end of the stream by
// peeking, so that it takes no byte of an answer. stop ends it and waits.
func (c *conn) watchClosed() (ended <-chan struct{}, stop func()) {
	closed, done := make(chan struct{}), make(chan struct{})
	c.SetDeadline(time.Time{}) // the last call's
	raw, err := c.Conn.(*net.UnixConn).SyscallConn()
	if err != nil { // only a closed connection has none
		close(closed)
		return closed, func() {}
	}
	go func() {
		defer close(done)
		raw.Read(func(fd uintptr) bool {
			var b [1]byte
			n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if err == unix.EAGAIN || err == unix.EINTR {
				return false
			}
			if n <= 0 {
				close(closed)
			}
			return true
		})
	}()
	return closed, func() {
		c.SetReadDeadline(time.Unix(1, 0))
		<-done
	}
}
