package wire

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// WatchClosed returns a channel that is closed when the peer closes the connection or shuts down
// its writing side. The channel is also closed when stop is called, or when a read deadline that
// was set after the call of WatchClosed has passed. WatchClosed reads no data, so the calling
// function can later read the data that the peer sends.
//
// No other goroutine may read from the connection until stop has returned. Always call stop. It
// ends the goroutine that watches the connection, and waits for its end. After stop, the read
// deadline of the connection is in the past, so set a new deadline before the next read.
func WatchClosed(conn *net.UnixConn) (closed <-chan struct{}, stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	conn.SetReadDeadline(time.Time{})
	raw, err := conn.SyscallConn()
	if err != nil { // the connection is closed already
		close(ended)
		return ended, func() {}
	}
	go func() { // stop ends this goroutine and waits for it
		defer close(done)
		defer close(ended)
		raw.Read(func(fd uintptr) bool {
			// Use poll(2). A peek would not find the end of the connection if the peer had sent
			// data before the end, because the peek would return these data.
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			n, err := unix.Poll(fds, 0)
			if err != nil || n == 0 || fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) == 0 {
				return false // wait for the next event
			}
			return true
		})
	}()
	return ended, func() {
		conn.SetReadDeadline(time.Unix(1, 0))
		<-done
	}
}
