package endpoint

import (
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// interruptInterval is the time between two signals that interrupt a blocked close.
const interruptInterval = 2 * time.Millisecond

// An interruptingCloser closes sockets that may contain passed file descriptors. Closing such a
// socket can block a thread, because the last close of a TCP socket with unsent data and
// SO_LINGER waits for the peer. A signal ends this wait. So the interruptingCloser sends signals
// to the thread until the socket is closed. It closes only one socket at a time, so that at most
// one thread of each endpoint is blocked.
type interruptingCloser struct{ mu sync.Mutex }

// close calls closeSocket, which closes a socket. If closeSocket blocks, close interrupts the
// blocked call.
func (c *interruptingCloser) close(closeSocket func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	runtime.LockOSThread() // the signal must reach the thread that closes the socket
	defer runtime.UnlockOSThread()
	pid, thread := os.Getpid(), unix.Gettid()
	closed, ended := make(chan struct{}), make(chan struct{})
	go func() { // close ends this goroutine and waits for it
		defer close(ended)
		tick := time.NewTicker(interruptInterval)
		defer tick.Stop()
		for {
			select {
			case <-closed:
				return
			case <-tick.C:
				// The signal must have a handler. A signal without a handler would end the
				// process, or the kernel would ignore it and not interrupt the thread. The Go
				// runtime always has a handler for SIGPROF. This handler has no effect if the
				// process is not profiled. So the broker needs no additional handler (see
				// secmem.Harden). The signal leaves no pieces of secrets in memory, because this
				// thread closes a socket and does not copy secrets.
				unix.Tgkill(pid, thread, unix.SIGPROF)
			}
		}
	}()
	closeSocket()
	close(closed)
	<-ended
}
