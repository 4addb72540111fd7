package endpoint

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCloserInterruptsBlockedClose closes a socket that contains a passed TCP socket. Without
// signals, this close would block for an hour. The interruptingCloser must interrupt the close.
func TestCloserInterruptsBlockedClose(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := connOf(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	fd, release := lingeringSocket(t)
	if err := passDescriptor(sender, "x", fd, 0, release); err != nil {
		t.Fatal(err)
	}
	sender.Close()
	var closer interruptingCloser
	closed := make(chan struct{})
	go func() { // release ends this goroutine
		defer close(closed)
		closer.close(func() { unix.Close(fds[1]) })
	}()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("the close blocks, so the signal does not interrupt the thread")
	}
	release()
	<-closed
}
