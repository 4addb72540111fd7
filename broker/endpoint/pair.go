package endpoint

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Connect creates a connection without a listener and without a socket file. It returns the
// client's side of the connection. In a new goroutine, it calls serve with a session for the
// broker's side, and closes the broker's side after serve has returned. When the calling function
// closes the client's side, the session ends.
func Connect(serve func(*Session)) (*net.UnixConn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("creating a pair of sockets: %w", err)
	}
	client, err := connOf(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, err
	}
	served, err := connOf(fds[1])
	if err != nil {
		client.Close()
		return nil, err
	}
	c, err := newConn(served, new(systemCalls))
	if err == nil {
		s := newSession(c, new(drainState), 0)
		if s.caller, err = callerOf(c); err == nil {
			go func() { // closing the client's side ends this goroutine
				defer c.Close()
				serve(s)
			}()
			return client, nil
		}
		c.Close()
	}
	client.Close()
	served.Close()
	return nil, err
}

// connOf returns a connection for a copy of the socket's file descriptor fd. It closes fd, also
// if it returns an error.
func connOf(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}
