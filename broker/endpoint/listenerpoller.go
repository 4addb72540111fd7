package endpoint

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A ListenerPoller waits for new connections on many listeners in one goroutine. If each listener
// had its own goroutine, the stacks of these goroutines would use much memory.
//
// The ListenerPoller accepts no connections. When a client connects, the acceptor of the listener
// starts its own goroutine. So a client cannot delay the ListenerPoller, and one listener cannot
// delay another.
type ListenerPoller struct {
	epoll *os.File        // an epoll instance, which is itself in the poller of the Go runtime
	raw   syscall.RawConn // of epoll
	ended chan struct{}   // closed when run returns

	mu      sync.Mutex       // lock no other mutex while mu is locked
	waiting map[int32]func() // by the file descriptor of the listener; guarded by mu
}

// NewListenerPoller starts a ListenerPoller. Call Close after the endpoints that use it are closed.
func NewListenerPoller() (*ListenerPoller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating an epoll instance: %w", err)
	}
	// os.NewFile adds only a non-blocking file descriptor to the poller of the Go runtime.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("creating an epoll instance: %w", err)
	}
	p := &ListenerPoller{epoll: os.NewFile(uintptr(fd), "epoll"), ended: make(chan struct{}), waiting: map[int32]func(){}}
	if p.raw, err = p.epoll.SyscallConn(); err != nil {
		p.epoll.Close()
		return nil, fmt.Errorf("creating an epoll instance: %w", err)
	}
	go p.run() // Close ends this goroutine and waits for it
	return p, nil
}

// Close ends the goroutine of the ListenerPoller, and waits for it.
func (p *ListenerPoller) Close() {
	p.epoll.Close()
	<-p.ended
}

// run waits for new connections until Close is called.
func (p *ListenerPoller) run() {
	defer close(p.ended)
	events := make([]unix.EpollEvent, 64)
	p.raw.Read(func(epoll uintptr) (done bool) {
		// Repeat the call until there are no more events, because the poller of the Go runtime
		// reports only new events.
		for {
			n, err := unix.EpollWait(int(epoll), events, 0)
			if err == unix.EINTR {
				continue
			}
			for _, event := range events[:max(n, 0)] {
				p.wake(event.Fd)
			}
			if n <= 0 {
				return false
			}
		}
	})
}

// wake calls the function of the listener fd. If this listener was closed a moment ago and another
// listener uses the same file descriptor by now, wake calls the function of the other listener,
// which then finds no connection.
func (p *ListenerPoller) wake(fd int32) {
	p.mu.Lock()
	connected := p.waiting[fd]
	p.mu.Unlock()
	if connected != nil {
		connected()
	}
}

// add makes the ListenerPoller call connected when the listener has a connection that nobody has
// accepted. connected must not wait. There is only one call, unless remove and add are called again.
func (p *ListenerPoller) add(listener *net.UnixListener, connected func()) error {
	return p.control(listener, func(epoll, fd int) error {
		p.mu.Lock()
		p.waiting[int32(fd)] = connected
		p.mu.Unlock()
		err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(fd)})
		if err != nil {
			p.forget(fd)
		}
		return err
	})
}

// remove undoes add. It must be called before the listener is closed. Otherwise the kernel would
// still report events while another process has the same socket open, for example the service
// manager.
func (p *ListenerPoller) remove(listener *net.UnixListener) {
	p.control(listener, func(epoll, fd int) error {
		p.forget(fd)
		return unix.EpollCtl(epoll, unix.EPOLL_CTL_DEL, fd, nil)
	})
}

func (p *ListenerPoller) forget(fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, int32(fd))
}

func (p *ListenerPoller) control(listener *net.UnixListener, f func(epoll, fd int) error) error {
	raw, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	var errListener error
	errEpoll := p.raw.Control(func(epoll uintptr) {
		errListener = raw.Control(func(fd uintptr) { err = f(int(epoll), int(fd)) })
	})
	return errors.Join(errEpoll, errListener, err)
}
