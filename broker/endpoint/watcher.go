package endpoint

import (
	"time"

	"golang.org/x/sys/unix"
)

// maxWatchInterval is the maximum time between two checks whether the client of a socket outside
// the poller has closed the connection or shut down one of its directions.
const maxWatchInterval = 100 * time.Millisecond

// A watcher is a goroutine that notices when the client of a connection goes away. A session
// needs a watcher while the session itself does not wait for events, for example because its
// handler waits for a secret.
type watcher struct {
	conn    *conn
	gone    chan struct{} // closed when the client has closed the connection or shut down one of its directions
	stop    chan struct{} // closed by end
	stopped chan struct{} // closed when run returns
}

func startWatcher(c *conn) *watcher {
	w := &watcher{c, make(chan struct{}), make(chan struct{}), make(chan struct{})}
	c.deadline.removeTimer() // because an earlier timer would end the watch
	go w.run()               // end ends this goroutine and waits for it
	return w
}

func (w *watcher) end() {
	close(w.stop)
	w.conn.deadline.setTimer(longAgo)
	<-w.stopped
	w.conn.deadline.removeTimer()
}

// run closes w.gone when the client has closed the connection or shut down one of its directions.
// To limit how often the client can wake the broker, run removes the socket from the poller in
// each of these cases:
//
//   - The client has shut down one direction. The client can call shutdown(2) again and
//     again, and each call wakes the broker.
//   - The client has caused more than maxWakes events, for example by sending the next request
//     in single bytes.
func (w *watcher) run() {
	defer close(w.stopped)
	c := w.conn
	ended, hungUp := false, false
	c.waitForEvents(func(fd int) bool {
		if ended = c.clientEnded(fd); ended {
			hungUp = pollNow(fd, 0)&unix.POLLHUP != 0
		}
		return ended
	})
	if ended {
		close(w.gone)
	}
	select {
	case <-w.stop:
		return
	default:
	}
	if hungUp {
		return // leavePoller is not necessary, because the session ends at once
	}
	c.leavePoller()
	for interval := maxWatchInterval / 10; !ended; interval = min(2*interval, maxWatchInterval) {
		select {
		case <-w.stop:
			return
		case <-time.After(interval):
		}
		c.control(func(fd int) { ended = c.clientEnded(fd) })
		if ended {
			close(w.gone)
		}
	}
}
