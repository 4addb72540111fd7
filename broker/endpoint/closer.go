package endpoint

import (
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// interruptInterval is how long closing one socket may take before it is interrupted.
const interruptInterval = 2 * time.Millisecond

// A interruptingCloser closes sockets that may contain passed descriptors. Closing such a socket
// can block its thread: a TCP socket with unsent data and SO_LINGER waits for its peer
// in the last close. A signal ends that wait, so a closer interrupts its thread until
// the socket is closed. It closes one socket at a time, so an endpoint never has more
// than one thread in such a close.
type interruptingCloser struct{ mu sync.Mutex }

// close runs a function that closes a socket.
func (c *interruptingCloser) close(closeSocket func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	runtime.LockOSThread() // so that the signal reaches the thread that closes
	defer runtime.UnlockOSThread()
	pid, thread := os.Getpid(), unix.Gettid()
	closed, ended := make(chan struct{}), make(chan struct{})
	go func() { // ended, and waited for, below
		defer close(ended)
		tick := time.NewTicker(interruptInterval)
		defer tick.Stop()
		for {
			select {
			case <-closed:
				return
			case <-tick.C:
				// The Go runtime handles SIGWINCH, and then ignores it. SIGURG would not
				// interrupt the close, because secmem.Harden makes the kernel discard it.
				unix.Tgkill(pid, thread, unix.SIGWINCH)
			}
		}
	}()
	closeSocket()
	close(closed)
	<-ended
}
