package endpoint

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// IdleListeners waits for connections on the listeners of many endpoints with one goroutine.
// A goroutine for each listener would need more memory than the rest of an idle project.
//
// The kernel reports a connection on a listener only once (EPOLLONESHOT). After that, a
// goroutine of the endpoint accepts the connection, and then adds the listener again. So an
// endpoint that must wait before it accepts more connections does not delay other endpoints.
type IdleListeners struct {
	file  *os.File // the epoll file descriptor, which is in the poller of the Go runtime
	epoll int      // the same file descriptor
	raw   syscall.RawConn
	ended chan struct{} // closed when run has returned

	mu        sync.Mutex             // no other mutex is locked while mu is locked
	listeners map[int32]idleListener // guarded by mu; by file descriptor
	closed    bool                   // guarded by mu
}

type idleListener struct {
	listener *net.UnixListener
	accept   func(*net.UnixListener)
}

// NewIdleListeners returns an IdleListeners without listeners. Close it after its endpoints.
func NewIdleListeners() (*IdleListeners, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(epoll, true) // so that os.NewFile adds it to the poller
	}
	if err != nil {
		return nil, fmt.Errorf("creating an epoll file descriptor: %w", err)
	}
	i := &IdleListeners{file: os.NewFile(uintptr(epoll), "epoll"), epoll: epoll, ended: make(chan struct{}), listeners: map[int32]idleListener{}}
	if i.raw, err = i.file.SyscallConn(); err != nil {
		i.file.Close()
		return nil, err
	}
	go i.run() // Close ends this goroutine and waits for it
	return i, nil
}

// Close stops the waiting. The endpoints of the listeners must be closed.
func (i *IdleListeners) Close() {
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	i.file.Close()
	<-i.ended
}

func (i *IdleListeners) run() {
	defer close(i.ended)
	var events [64]unix.EpollEvent
	for {
		n := 0
		if err := i.raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events[:], 0)
			return n > 0
		}); err != nil {
			return // closed
		}
		for _, event := range events[:n] {
			i.mu.Lock()
			idle, ok := i.listeners[event.Fd]
			delete(i.listeners, event.Fd)
			i.mu.Unlock()
			if ok {
				go idle.accept(idle.listener) // see Endpoint.accepting
			}
		}
	}
}

// add waits for a connection on a listener, and then calls accept in a new goroutine. It
// returns false if this is not possible.
func (i *IdleListeners) add(listener *net.UnixListener, accept func(*net.UnixListener)) (added bool) {
	i.control(listener, func(fd int) {
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(fd)}
		err := unix.EpollCtl(i.epoll, unix.EPOLL_CTL_MOD, fd, &event)
		if err == unix.ENOENT {
			err = unix.EpollCtl(i.epoll, unix.EPOLL_CTL_ADD, fd, &event)
		}
		if added = err == nil; added {
			i.listeners[event.Fd] = idleListener{listener, accept}
		}
	})
	return added
}

// remove stops waiting for a connection on a listener. It returns false if add was not called,
// or if a goroutine already accepts the next connection.
func (i *IdleListeners) remove(listener *net.UnixListener) (removed bool) {
	i.control(listener, func(fd int) {
		if removed = i.listeners[int32(fd)].listener == listener; removed {
			delete(i.listeners, int32(fd))
		}
		// The service manager may have the listener open, too. Closing the listener would then
		// not remove it from the epoll file descriptor.
		_ = unix.EpollCtl(i.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	})
	return removed
}

// control locks mu and calls f with the file descriptor of a listener. If the listener is
// closed, or if Close was called, control does not call f.
func (i *IdleListeners) control(listener *net.UnixListener, f func(fd int)) {
	raw, err := listener.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if !i.closed {
			f(int(fd))
		}
	})
}
