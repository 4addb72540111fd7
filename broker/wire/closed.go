package wire

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// WatchClosed returns a channel that is closed when the peer closes the connection or
// shuts down its writing side, when a read deadline passes that was set after the call, or
// when stop is called. WatchClosed reads no data, so data that the peer sends can be read
// later.
//
// No other goroutine may read from the connection until stop has returned. stop
// must be called. It waits for the watching goroutine, and leaves the connection
// with a read deadline in the past.
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
			// A peek would not find the end of the connection if the peer has sent data
			// before: the peek would return the data.
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
